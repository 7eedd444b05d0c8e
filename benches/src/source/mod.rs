//! The source: sends mail over SMTP or LMTP, as fast as it is taken (a closed loop of so many sessions) or at a rate of its own (an
//! open loop), and checks every reply. What it sends is the same in every run of the same seed.

mod command;
mod pace;
mod pattern;
mod report;
mod session;
mod sizes;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mail::Timestamp;
use smtp::Protocol;
use tokio::sync::watch;
use tokio::time::Instant;

pub use command::{Arguments, run};
pub use pace::Pace;
pub use pattern::{Pattern, Zipf};
pub use report::Report;
pub use sizes::Sizes;
pub use wire::Way;

use crate::lock::lock;
use report::Tally;
use session::Session;
use sizes::Text;
use wire::Opening;

/// What a source is to send. Defaults in brackets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to, a connection each in turn.
    pub to: Vec<SocketAddr>,
    /// SMTP or LMTP [SMTP].
    pub protocol: Protocol,
    /// What it calls itself [source.invalid].
    pub helo: String,
    /// STARTTLS, whatever the certificate [no].
    pub tls: bool,
    /// How a transaction travels, as far as the server offers it [pipelined].
    pub way: Way,
    /// Local addresses, a connection each in turn [the system's choice].
    pub sources: Vec<IpAddr>,
    /// Sessions at once [20].
    pub sessions: usize,
    /// Messages over one connection; 0: any number [0].
    pub session_messages_max: u64,
    /// Threads that share the sessions [1].
    pub threads: usize,
    /// When messages are due; none: as fast as they are taken [none].
    pub pace: Option<Pace>,
    /// So many messages [1000].
    pub count: u64,
    /// No message begins after so long [10 minutes].
    pub duration: Duration,
    /// The reverse-path.
    pub from: Pattern,
    /// The forward-paths.
    pub recipients: Pattern,
    /// Of each message [1].
    pub recipients_each: usize,
    /// How large messages are [a hub's day].
    pub sizes: Sizes,
    /// As an edge hands mail on that it has kept for so long: with a trace field that tells its age [no].
    pub kept: Option<Duration>,
    /// Under which a sink counts them [load].
    pub kind: String,
    /// Tells runs apart that the same sink sees; also the first half of Message-IDs [the time].
    pub run: u64,
    /// Another one gives other recipients, sizes and texts [1].
    pub seed: u64,
    /// One message may take so long, with its connection [60 s].
    pub patience: Duration,
}

impl Settings {
    /// With defaults, to there.
    pub fn new(to: SocketAddr, from: Pattern, recipients: Pattern) -> Self {
        Self {
            to: vec![to],
            protocol: Protocol::Smtp,
            helo: "source.invalid".into(),
            tls: false,
            way: Way::Pipelined,
            sources: Vec::new(),
            sessions: 20,
            session_messages_max: 0,
            threads: 1,
            pace: None,
            count: 1000,
            duration: Duration::from_secs(600),
            from,
            recipients,
            recipients_each: 1,
            sizes: Sizes::Day,
            kept: None,
            kind: "load".into(),
            run: crate::stamp::Time::now().0,
            seed: 1,
            patience: Duration::from_secs(60),
        }
    }
}

/// What all sessions share.
struct Shared {
    settings: Settings,
    opening: Opening,
    text: Text,
    /// Header fields that are alike in all messages, with the empty line.
    header: Vec<u8>,
    began: Instant,
    /// The number of the next message.
    next: AtomicU64,
    connections: AtomicU64,
    tally: Tally,
    stop: watch::Sender<bool>,
    /// When the last answer came.
    answered: Mutex<Instant>,
}

/// The right to send a message.
struct Ticket {
    number: u64,
    /// None: now.
    due: Option<Instant>,
}

impl Shared {
    fn next(&self) -> Option<Ticket> {
        if self.is_over() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.settings.count {
            return None;
        }
        let Some(pace) = &self.settings.pace else {
            return Some(Ticket { number, due: None });
        };
        let due = pace
            .due(number)
            .filter(|due| *due < self.settings.duration)?;
        Some(Ticket {
            number,
            due: Some(self.began + due),
        })
    }

    fn is_over(&self) -> bool {
        *self.stop.borrow() || self.began.elapsed() >= self.settings.duration
    }

    fn answered(&self) {
        let now = Instant::now();
        let mut last = lock(&self.answered);
        *last = now.max(*last);
    }
}

/// A source that runs, in threads of its own.
pub struct Source {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Source {
    /// Begins.
    pub fn start(settings: Settings) -> Result<Self, String> {
        if settings.to.is_empty() {
            return Err("nowhere to send to".into());
        }
        let count = settings.threads.max(1);
        let runtimes = (0..count).map(|_| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder
                .enable_all()
                .build()
                .map_err(|error| error.to_string())
        });
        let runtimes: Vec<_> = runtimes.collect::<Result<_, String>>()?;
        let date = Timestamp::now().rfc5322();
        let header = format!(
            "Date: {date}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
        );
        let text = Text::new(settings.seed);
        let began = Instant::now();
        let shared = Arc::new(Shared {
            opening: Opening {
                protocol: settings.protocol,
                helo: settings.helo.clone(),
                way: settings.way,
                tls: settings.tls.then(service::tls::opportunistic_client),
            },
            text,
            header: header.into_bytes(),
            began,
            next: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            tally: Tally::default(),
            stop: watch::Sender::new(false),
            answered: Mutex::new(began),
            settings,
        });
        let threads = runtimes.into_iter().enumerate().map(|(thread, runtime)| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let sessions = (thread..shared.settings.sessions.max(1)).step_by(count);
                let mut running = tokio::task::JoinSet::new();
                for _ in sessions {
                    let session = Session::new(shared.clone());
                    running.spawn_on(session.run(), runtime.handle());
                }
                runtime.block_on(async { while running.join_next().await.is_some() {} });
            })
        });
        Ok(Self {
            threads: threads.collect(),
            shared,
        })
    }

    /// What has come of it until now.
    pub fn report(&self) -> Report {
        let last = *lock(&self.shared.answered);
        self.shared.tally.report(last - self.shared.began)
    }

    /// Ends it: no message begins any more.
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
    }

    /// Whether all is sent and answered.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until all is sent and answered.
    pub fn join(mut self) -> Report {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.report()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
