//! The sink: an SMTP or LMTP server that takes everything, or answers as it is told, and counts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use service::listener::Listener;
use service::shutdown::Shutdown;
use smtp::Protocol;
use smtp::server::{self, BareNewline, Facts, Handler, Presence, Settings, Timeouts};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::maildir::Maildirs;
use crate::rules::{Rule, Rules, Stage};

/// Sessions at once; a bound on file descriptors.
const SESSIONS_MAX: usize = 8_000;
/// Memory for messages in flight.
const MEMORY_KIB: usize = 1024 * 1024;

/// `mailload sink`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to listen; with port 0 the system chooses, and the first line of output says which.
    #[arg(long, default_value = "127.0.0.1:2600")]
    listen: SocketAddr,
    /// Keep the messages in Maildirs below this folder, one a recipient.
    #[arg(long, conflicts_with = "count")]
    maildir: Option<PathBuf>,
    /// Count only (the default).
    #[arg(long)]
    count: bool,
    /// A chosen reply, STAGE[:PATTERN][#COUNT]=CODE X.Y.Z TEXT; STAGE is connect, mail, rcpt or data. May be repeated.
    #[arg(long = "reply")]
    replies: Vec<Rule>,
    /// Speak LMTP.
    #[arg(long)]
    lmtp: bool,
    /// Largest message, bytes.
    #[arg(long, default_value_t = 128 << 20)]
    message_bytes_max: u64,
    /// Do not offer these EHLO keywords.
    #[arg(long, value_delimiter = ',')]
    keywords_off: Vec<String>,
}

/// What all sessions share.
#[derive(Debug)]
struct Sink {
    rules: Rules,
    maildirs: Option<Maildirs>,
    sessions: AtomicU64,
    messages: AtomicU64,
    recipients: AtomicU64,
    bytes: AtomicU64,
}

impl Sink {
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

    /// Takes one recipient's copy.
    fn take(&self, reverse_path: &ReversePath, recipient: &Recipient, message: &Bytes) -> Reply {
        let address = recipient.address.to_string();
        if let Some(reply) = self.rules.reply(Stage::Data, &address) {
            return reply;
        }
        if let Some(maildirs) = &self.maildirs
            && let Err(error) = maildirs.deliver(&reverse_path.to_string(), &address, message)
        {
            return Reply::new(451, (4, 3, 0), format!("maildir: {error}"));
        }
        self.recipients.fetch_add(1, Ordering::Relaxed);
        Reply::new(250, (2, 0, 0), "taken")
    }
}

/// One session.
struct Session {
    sink: Arc<Sink>,
    protocol: Protocol,
}

#[async_trait::async_trait]
impl Handler for Session {
    async fn connect(&mut self, _: &Facts) -> Result<(), Reply> {
        self.sink.sessions.fetch_add(1, Ordering::Relaxed);
        self.sink
            .rules
            .reply(Stage::Connect, "")
            .map_or(Ok(()), Err)
    }

    async fn mail(
        &mut self,
        _: &Facts,
        reverse_path: &ReversePath,
        _: &MailParameters,
        _: Option<u64>,
    ) -> Result<(), Reply> {
        self.sink
            .rules
            .reply(Stage::Mail, &reverse_path.to_string())
            .map_or(Ok(()), Err)
    }

    async fn rcpt(&mut self, _: &Facts, _: &Envelope, recipient: &Recipient) -> Result<(), Reply> {
        self.sink
            .rules
            .reply(Stage::Rcpt, &recipient.address.to_string())
            .map_or(Ok(()), Err)
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
        let recipients = envelope.recipients.iter();
        let replies: Vec<Reply> = recipients
            .map(|recipient| self.sink.take(&envelope.reverse_path, recipient, &message))
            .collect();
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
pub async fn run(arguments: Arguments) -> Result<(), String> {
    let sink = Arc::new(Sink {
        rules: Rules::new(arguments.replies.clone()),
        maildirs: arguments
            .maildir
            .as_deref()
            .map(|path| Maildirs::new(path).map_err(|error| format!("{}: {error}", path.display())))
            .transpose()?,
        sessions: AtomicU64::new(0),
        messages: AtomicU64::new(0),
        recipients: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    });
    let settings = Arc::new(settings(&arguments)?);
    let shutdown = Shutdown::new();
    let listener = Listener::bind(arguments.listen)
        .await
        .map_err(|error| error.to_string())?;
    println!("listening {}", listener.address());
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
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shutdown.begin();
    let _ = serving.await;
    shutdown.drained().await;
    println!("{}", sink.counts());
    Ok(())
}

fn settings(arguments: &Arguments) -> Result<Settings, String> {
    let seconds = Duration::from_secs;
    Ok(Settings {
        protocol: if arguments.lmtp {
            Protocol::Lmtp
        } else {
            Protocol::Smtp
        },
        hostname: Domain::parse("sink.invalid").map_err(|error| error.to_string())?,
        message_bytes_max: arguments.message_bytes_max,
        recipients_max: 1000,
        errors_max: 1000,
        bare_newline: BareNewline::Normalize,
        tls: None,
        tls_required: false,
        xforward: false,
        keywords_off: arguments.keywords_off.clone(),
        timeouts: Timeouts {
            command: seconds(300),
            data_block: seconds(180),
            handshake: seconds(30),
            session: seconds(24 * 3600),
        },
        guard: smtp::server::Guard::default(),
        memory_kib: Arc::new(Semaphore::new(MEMORY_KIB)),
    })
}
