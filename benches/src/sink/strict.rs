//! The sink that keeps mail in Maildirs: through the product's own server, which holds every message to the rules.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use service::listener::Listener;
use service::shutdown::Shutdown;
use smtp::Protocol;
use smtp::server::{self, BareNewline, Facts, Handler, Presence, Settings, Timeouts};
use tokio::sync::Semaphore;

use super::command::{Arguments, say, terminated};
use crate::maildir::Maildirs;
use crate::rules::{Act, Rules, Stage};

/// Sessions at once; a bound on file descriptors.
const SESSIONS_MAX: usize = 8_000;
/// Memory for messages in flight.
const MEMORY_KIB: usize = 1024 * 1024;

/// What all sessions share.
#[derive(Debug)]
struct Keeper {
    rules: Rules,
    maildirs: Maildirs,
    sessions: AtomicU64,
    messages: AtomicU64,
    recipients: AtomicU64,
    bytes: AtomicU64,
}

impl Keeper {
    fn counts(&self) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        serde_json::json!({
            "sessions": get(&self.sessions),
            "messages": get(&self.messages),
            "recipients": get(&self.recipients),
            "bytes": get(&self.bytes),
        })
        .to_string()
    }

    /// What the rules want of a stage, after the wait that they want.
    async fn decide(&self, stage: Stage, address: &str) -> Result<(), Reply> {
        let decision = self.rules.decide(stage, address);
        if !decision.wait.is_zero() {
            tokio::time::sleep(decision.wait).await;
        }
        match decision.act {
            // `drop` was refused at the start.
            Act::Go | Act::Drop => Ok(()),
            Act::Reply(reply) => Err(reply),
        }
    }

    /// Takes one recipient's copy.
    async fn take(
        &self,
        reverse_path: &ReversePath,
        recipient: &Recipient,
        message: &Bytes,
    ) -> Reply {
        let address = recipient.address.to_string();
        if let Err(reply) = self.decide(Stage::Data, &address).await {
            return reply;
        }
        let delivered = self
            .maildirs
            .deliver(&reverse_path.to_string(), &address, message);
        if let Err(error) = delivered {
            return Reply::new(451, (4, 3, 0), format!("maildir: {error}"));
        }
        self.recipients.fetch_add(1, Ordering::Relaxed);
        Reply::new(250, (2, 0, 0), "taken")
    }
}

/// One session.
struct Session {
    sink: Arc<Keeper>,
    protocol: Protocol,
}

#[async_trait::async_trait]
impl Handler for Session {
    async fn connect(&mut self, facts: &Facts) -> Result<(), Reply> {
        self.sink.sessions.fetch_add(1, Ordering::Relaxed);
        let local = facts.local.ip().to_string();
        self.sink.decide(Stage::Connect, &local).await
    }

    async fn mail(
        &mut self,
        _: &Facts,
        reverse_path: &ReversePath,
        _: &MailParameters,
        _: Option<u64>,
    ) -> Result<(), Reply> {
        let address = reverse_path.to_string();
        self.sink.decide(Stage::Mail, &address).await
    }

    async fn rcpt(&mut self, _: &Facts, _: &Envelope, recipient: &Recipient) -> Result<(), Reply> {
        let address = recipient.address.to_string();
        self.sink.decide(Stage::Rcpt, &address).await
    }

    async fn message(
        &mut self,
        _: &Facts,
        envelope: &Envelope,
        message: Bytes,
        _: &Presence,
    ) -> Vec<Reply> {
        self.sink.messages.fetch_add(1, Ordering::Relaxed);
        self.sink
            .bytes
            .fetch_add(message.len() as u64, Ordering::Relaxed);
        let mut replies = Vec::with_capacity(envelope.recipients.len());
        for recipient in &envelope.recipients {
            let took = self.sink.take(&envelope.reverse_path, recipient, &message);
            replies.push(took.await);
        }
        match self.protocol {
            Protocol::Lmtp => replies,
            // One reply for all: the first refusal, if any recipient's copy was refused.
            Protocol::Smtp => {
                let worst = replies.iter().find(|reply| !reply.is_positive());
                worst.or(replies.first()).cloned().into_iter().collect()
            }
        }
    }
}

/// Takes mail until SIGTERM or SIGINT; prints where it listens first, its counts last.
pub async fn run(arguments: &Arguments) -> Result<(), String> {
    let root = arguments.maildir.as_deref().unwrap_or(".".as_ref());
    let rules = Rules::new(arguments.replies.clone());
    if rules.drops() {
        return Err("drop works where mail is counted, not where it is kept: leave out --maildir or that rule".into());
    }
    let &[address] = &arguments.listen[..] else {
        return Err("--maildir works with one --listen".into());
    };
    let sink = Arc::new(Keeper {
        rules,
        maildirs: Maildirs::new(root).map_err(|error| format!("{}: {error}", root.display()))?,
        sessions: AtomicU64::new(0),
        messages: AtomicU64::new(0),
        recipients: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    });
    let settings = Arc::new(settings(&arguments.settings())?);
    let shutdown = Shutdown::new();
    let listener = Listener::bind(address)
        .await
        .map_err(|error| error.to_string())?;
    say(&format!("listening {}", listener.address()));
    let (stop, shared, protocol) = (shutdown.clone(), sink.clone(), settings.protocol);
    let serving = tokio::spawn(listener.run(
        "session",
        Arc::new(Semaphore::new(SESSIONS_MAX)),
        shutdown.clone(),
        move |stream, client| {
            let mut session = Session {
                sink: shared.clone(),
                protocol,
            };
            let (settings, stop) = (settings.clone(), stop.watch());
            async move {
                server::serve(stream, client, settings, &mut session, stop).await;
            }
        },
    ));
    terminated().await?;
    shutdown.begin();
    let _ = serving.await;
    shutdown.drained().await;
    say(&sink.counts());
    Ok(())
}

fn settings(wanted: &super::Settings) -> Result<Settings, String> {
    let seconds = Duration::from_secs;
    Ok(Settings {
        protocol: wanted.protocol,
        hostname: Domain::parse("sink.invalid").map_err(|error| error.to_string())?,
        message_bytes_max: wanted.message_bytes_max,
        recipients_max: 1000,
        errors_max: 1000,
        bare_newline: BareNewline::Normalize,
        tls: None,
        tls_required: false,
        xforward: false,
        keywords_off: wanted.keywords_off.clone(),
        timeouts: Timeouts {
            session: seconds(24 * 3600),
            ..Timeouts::default()
        },
        guard: smtp::server::Guard::default(),
        memory_kib: Arc::new(Semaphore::new(MEMORY_KIB)),
    })
}
