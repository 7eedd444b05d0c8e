//! `mailload source`: the command line.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smtp::Protocol;

use super::{Pace, Pattern, Settings, Sizes, Source, Way};
use crate::sink::{say, terminated};

/// `mailload source`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to send to. May be repeated: a connection each in turn.
    #[arg(long, required = true)]
    server: Vec<SocketAddr>,
    /// Speak LMTP.
    #[arg(long)]
    lmtp: bool,
    /// The reverse-path, a pattern like --to.
    #[arg(long, default_value = "author{1..1000}@sender{zipf:50}.example")]
    from: Pattern,
    /// The forward-paths: {n} is the message's number, {r} the recipient's place, {1..9} any of these, {zipf:200} a rank of which
    /// the first ones are the most frequent.
    #[arg(long, default_value = "member{1..100000}@d{zipf:200}.example")]
    to: Pattern,
    /// Recipients of each message.
    #[arg(long, default_value_t = 1)]
    recipients: usize,
    /// Sizes of messages: `day` (as on a mail hub's day, 8.6 KB on average), 6000, or 1KiB..64KiB.
    #[arg(long, default_value = "day")]
    size: Sizes,
    /// So many messages.
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// No message begins after so many seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Sessions at once.
    #[arg(long, default_value_t = 20)]
    sessions: usize,
    /// Messages over one connection; 0: any number.
    #[arg(long, default_value_t = 0)]
    session_messages_max: u64,
    /// An open loop: messages are due at this rate a second, answered or not: 100, or steps such as 100@30s,100..2000@60s. Not given:
    /// each session sends its next message when the last is answered.
    #[arg(long)]
    rate: Option<Pace>,
    /// Wait for the reply to each command.
    #[arg(long, conflicts_with = "bdat")]
    no_pipelining: bool,
    /// Send envelope and message in one flight, where CHUNKING is offered.
    #[arg(long)]
    bdat: bool,
    /// Start TLS, whatever the certificate.
    #[arg(long)]
    starttls: bool,
    /// Local addresses to connect from, a connection each in turn: 127.0.0.2,127.0.0.3.
    #[arg(long, value_delimiter = ',')]
    source: Vec<IpAddr>,
    /// The name in EHLO or LHLO.
    #[arg(long, default_value = "source.invalid")]
    helo: String,
    /// As an edge hands mail on that it has kept for so long (2d): with a trace field that tells its age.
    #[arg(long, value_parser = service::config::duration::parse)]
    kept: Option<Duration>,
    /// Under which a sink counts these messages; no blanks.
    #[arg(long, default_value = "load")]
    kind: String,
    /// Another one gives other recipients, sizes and texts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// One message may take so many seconds, with its connection.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn settings(self) -> Result<Settings, String> {
        let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
        for (name, text) in [("--kind", &self.kind), ("--helo", &self.helo)] {
            if !word(text) {
                return Err(format!(
                    "{name} {text:?} is not one word of printable ASCII"
                ));
            }
        }
        let first = self.server.first().copied().ok_or("--server is missing")?;
        let defaults = Settings::new(first, self.from, self.to);
        Ok(Settings {
            to: self.server,
            protocol: if self.lmtp {
                Protocol::Lmtp
            } else {
                Protocol::Smtp
            },
            helo: self.helo,
            tls: self.starttls,
            way: match (self.no_pipelining, self.bdat) {
                (true, _) => Way::Stepwise,
                (false, true) => Way::Chunked,
                (false, false) => Way::Pipelined,
            },
            sources: self.source,
            sessions: self.sessions,
            session_messages_max: self.session_messages_max,
            threads: self.threads,
            pace: self.rate,
            count: self.count,
            duration: Duration::from_secs(self.seconds),
            recipients_each: self.recipients,
            sizes: self.size,
            kept: self.kept,
            kind: self.kind,
            seed: self.seed,
            patience: Duration::from_secs(self.patience),
            ..defaults
        })
    }
}

/// Sends, until all is sent or SIGTERM or SIGINT; prints what came of it. An error when any recipient was not accepted.
pub async fn run(arguments: Arguments) -> Result<(), String> {
    let json = arguments.json;
    let source = std::sync::Arc::new(Source::start(arguments.settings()?)?);
    let running = source.clone();
    let mut ended = tokio::task::spawn_blocking(move || {
        while !running.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    tokio::select! {
        _ = &mut ended => {}
        stopped = terminated() => {
            stopped?;
            source.stop();
            let _ = ended.await;
        }
    }
    let report = source.report();
    match json {
        true => say(&report.json().to_string()),
        false => say(&report.to_string()),
    }
    match report.deferred + report.refused + report.unknown + report.unsent {
        0 => Ok(()),
        others => Err(format!("{others} recipients were not accepted")),
    }
}
