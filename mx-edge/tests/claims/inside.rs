//! A next hop that does as it is told: an LMTP server whose replies follow the recipient's name, behind a door that can be shut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::trace::{self, Trace};
use mail::verdict::Token;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath, header};
use service::tls::Identity;
use smtp::Protocol;
use smtp::server::{BareNewline, Facts, Handler, Presence, Settings, Timeouts, serve};
use smtp::xforward::Xforward;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// How the next hop behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By the recipient's local part: `spam*` 550 5.7.1, `user*` 550 5.1.1 at RCPT, `later*` 451, all others 250.
    Listening,
    /// Everything is refused 550.
    Refusing,
    /// Everything is deferred with a signed verdict.
    Deferring,
    /// Connections are closed at once.
    Down,
    /// Connections are taken and nothing is said.
    Mute,
    /// Something else listens there.
    Garbage,
    /// Messages are taken, and the connection is closed without a reply.
    Forgetful,
    /// Messages are taken and answered when the mode changes, then as if listening.
    Holding,
}

/// The verdict that [`Mode::Deferring`] gives.
pub const TOKEN: &str = "a-signed-verdict";

/// A message that was accepted or refused at its end.
#[derive(Clone, Debug)]
pub struct Got {
    pub envelope: Envelope,
    pub trace: Option<Trace>,
    pub xforward: Xforward,
    /// Without the trace field.
    pub message: Bytes,
    pub replies: Vec<u16>,
}

impl Got {
    pub fn ident(&self) -> String {
        self.xforward.ident.as_ref().unwrap().to_string()
    }

    pub fn accepted(&self) -> Vec<String> {
        let recipients = self.envelope.recipients.iter().zip(&self.replies);
        recipients
            .filter(|(_, code)| **code == 250)
            .map(|(recipient, _)| recipient.address.to_string())
            .collect()
    }
}

pub struct Inside {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    got: watch::Sender<Vec<Got>>,
    held: watch::Sender<usize>,
    task: JoinHandle<()>,
}

impl Inside {
    /// In the clear.
    pub async fn start(mode: Mode) -> Self {
        Self::start_with(mode, settings()).await
    }

    /// Only to clients of the site.
    pub async fn start_tls(identity: &Identity) -> Self {
        let settings = Settings {
            tls: Some(identity.server()),
            tls_required: true,
            ..settings()
        };
        Self::start_with(Mode::Listening, settings).await
    }

    async fn start_with(mode: Mode, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(mode);
        let (got, _) = watch::channel(Vec::new());
        let news = got.clone();
        let (held, _) = watch::channel(0);
        let holding = held.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, client) = listener.accept().await.unwrap();
                let (modes, news, held) = (modes.clone(), news.clone(), holding.clone());
                let settings = Arc::clone(&settings);
                tokio::spawn(session(stream, client, settings, modes, news, held));
            }
        });
        Self {
            address,
            mode,
            got,
            held,
            task,
        }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.borrow().clone()
    }

    /// Waits until messages are held; returns how many.
    pub async fn holds(&self) -> usize {
        let mut held = self.held.subscribe();
        let waited = tokio::time::timeout(PATIENCE, held.wait_for(|held| *held > 0)).await;
        *waited.expect("nothing is held").unwrap()
    }

    /// Waits until enough has come.
    pub async fn wait(&self, enough: impl Fn(&[Got]) -> bool) -> Vec<Got> {
        let mut got = self.got.subscribe();
        let waited = tokio::time::timeout(PATIENCE, got.wait_for(|got| enough(got))).await;
        match waited {
            Ok(got) => got.unwrap().clone(),
            Err(_) => panic!("it did not come: {:#?}", self.got()),
        }
    }

    pub async fn wait_for(&self, count: usize) -> Vec<Got> {
        self.wait(|got| got.len() >= count).await
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long anything may take on a busy machine; reaching it is a failure. Twice the longest that an engine waits for a probe.
pub const PATIENCE: Duration = Duration::from_secs(120);

async fn session(
    mut stream: tokio::net::TcpStream,
    client: SocketAddr,
    settings: Arc<Settings>,
    mut modes: watch::Receiver<Mode>,
    news: watch::Sender<Vec<Got>>,
    held: watch::Sender<usize>,
) {
    let mode = *modes.borrow();
    match mode {
        Mode::Down => {}
        Mode::Garbage => {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
        // Until somebody gives up or the mode changes.
        Mode::Mute => {
            let _ = modes.wait_for(|mode| *mode != Mode::Mute).await;
        }
        mode => {
            let mut script = Script {
                mode,
                modes,
                news,
                held,
            };
            let (_keep, stop) = watch::channel(false);
            serve(stream, client, settings, &mut script, stop).await;
        }
    }
}

struct Script {
    mode: Mode,
    modes: watch::Receiver<Mode>,
    news: watch::Sender<Vec<Got>>,
    held: watch::Sender<usize>,
}

impl Script {
    fn reply(&self, recipient: &Recipient) -> Reply {
        match (self.mode, recipient.address.local()) {
            (Mode::Refusing, _) => Reply::new(550, (5, 7, 1), "not wanted"),
            (Mode::Deferring, _) => {
                let mut reply = Reply::new(451, (4, 4, 1), "list host cannot be reached");
                let last = std::mem::replace(&mut reply.lines, Token::to_lines(TOKEN));
                reply.lines.extend(last);
                reply
            }
            (_, local) if local.starts_with("spam") => Reply::new(550, (5, 7, 1), "spam"),
            (_, local) if local.starts_with("full") => Reply::new(452, (4, 3, 1), "no room"),
            (_, local) if local.starts_with("later") => Reply::new(451, (4, 3, 0), "later"),
            _ => Reply::new(250, (2, 0, 0), "taken"),
        }
    }
}

#[async_trait::async_trait]
impl Handler for Script {
    async fn mail(
        &mut self,
        _: &Facts,
        _: &ReversePath,
        _: &MailParameters,
        _: Option<u64>,
    ) -> Result<(), Reply> {
        Ok(())
    }

    async fn rcpt(&mut self, _: &Facts, _: &Envelope, to: &Recipient) -> Result<(), Reply> {
        if to.address.local().starts_with("user") {
            return Err(Reply::new(550, (5, 1, 1), "no such user"));
        }
        Ok(())
    }

    async fn message(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        message: Bytes,
        presence: &Presence,
    ) -> Vec<Reply> {
        let trace = header::fields(&message)
            .find(|field| field.is(trace::NAME))
            .and_then(|field| Trace::parse(&field.text()));
        if self.mode == Mode::Forgetful {
            // Held until the client gives up: nothing is ever said about the message.
            let mut presence = presence.0.clone();
            let _ = presence.wait_for(|there| !there).await;
        }
        if self.mode == Mode::Holding {
            self.held.send_modify(|held| *held += 1);
            let _ = self.modes.wait_for(|mode| *mode != Mode::Holding).await;
        }
        let replies: Vec<Reply> = envelope
            .recipients
            .iter()
            .map(|to| self.reply(to))
            .collect();
        let got = Got {
            envelope: envelope.clone(),
            trace,
            xforward: facts.xforward.clone(),
            message: header::without(&message, |field| field.is(trace::NAME)),
            replies: replies.iter().map(|reply| reply.code).collect(),
        };
        self.news.send_modify(|all| all.push(got));
        replies
    }
}

fn settings() -> Settings {
    let s = Duration::from_secs;
    Settings {
        protocol: Protocol::Lmtp,
        hostname: Domain::parse("inside.example").unwrap(),
        message_bytes_max: 64 << 20,
        recipients_max: 1000,
        errors_max: 100,
        bare_newline: BareNewline::Refuse,
        tls: None,
        tls_required: false,
        xforward: true,
        keywords_off: Vec::new(),
        timeouts: Timeouts {
            command: s(60),
            data_block: s(60),
            handshake: s(60),
            session: s(600),
        },
        guard: smtp::server::Guard::default(),
        memory_kib: Arc::new(Semaphore::new(1 << 20)),
    }
}
