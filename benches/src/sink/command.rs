//! `mailload sink`: the command line, and what can be said to a sink that runs.

use std::io::{BufRead, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use smtp::Protocol;
use tokio::signal::unix::{SignalKind, signal};

use super::{Settings, Sink, strict};
use crate::rules::Rule;

/// `mailload sink`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to listen; with port 0 the system chooses, and the first lines of output say which. May be repeated.
    #[arg(long, default_value = "127.0.0.1:2600")]
    pub(super) listen: Vec<SocketAddr>,
    /// So many sites for each of these addresses: it and those that follow it, 127.0.9.1, 127.0.9.2, ...
    #[arg(long, default_value_t = 1)]
    sites: u32,
    /// Keep the messages in Maildirs below this folder, one a recipient, instead of counting alone.
    #[arg(long, conflicts_with_all = ["count", "control", "tls"])]
    pub(super) maildir: Option<PathBuf>,
    /// Count only (the default).
    #[arg(long)]
    count: bool,
    /// What is answered otherwise than with a yes: STAGE[:PATTERN][%SHARE][#COUNT]=CODE X.Y.Z TEXT, drop, or wait DURATION; STAGE is
    /// connect, mail, rcpt or data. May be repeated; the first that fits answers, after all waits that fit before it.
    #[arg(long = "reply")]
    pub(super) replies: Vec<Rule>,
    /// Speak LMTP.
    #[arg(long)]
    lmtp: bool,
    /// Largest message, bytes.
    #[arg(long, default_value_t = 128 << 20)]
    message_bytes_max: u64,
    /// Messages of one session, then 421; 0: any number.
    #[arg(long, default_value_t = 0)]
    session_messages_max: u64,
    /// Sessions of one site at once, then 421; 0: any number.
    #[arg(long, default_value_t = 0)]
    site_sessions_max: u64,
    /// Do not offer these EHLO keywords.
    #[arg(long, value_delimiter = ',')]
    keywords_off: Vec<String>,
    /// Offer STARTTLS, with a certificate made for this run.
    #[arg(long)]
    tls: bool,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Deliveries remembered to tell which of a source's messages come twice; 24 bytes of memory each at most.
    #[arg(long, default_value_t = 1_000_000)]
    remember: usize,
    /// Start without all sites for so long, in seconds.
    #[arg(long)]
    down: Option<u64>,
    /// Take commands on standard input, a line each: `counts`, `reply RULE`, `clear`, `down [IP] [DURATION]`, `up [IP]`; each is
    /// answered with a line.
    #[arg(long)]
    control: bool,
}

impl Arguments {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            listen: self.listen.clone(),
            sites: self.sites,
            protocol: if self.lmtp {
                Protocol::Lmtp
            } else {
                Protocol::Smtp
            },
            threads: self.threads,
            rules: self.replies.clone(),
            message_bytes_max: self.message_bytes_max,
            session_messages_max: self.session_messages_max,
            site_sessions_max: self.site_sessions_max,
            keywords_off: self.keywords_off.clone(),
            tls: self.tls,
            remember: self.remember,
        }
    }
}

/// Takes mail until SIGTERM or SIGINT; prints where it listens first, its counts last.
pub async fn run(arguments: Arguments) -> Result<(), String> {
    if arguments.maildir.is_some() {
        return strict::run(&arguments).await;
    }
    let sink = Sink::start(&arguments.settings())?;
    if let Some(seconds) = arguments.down {
        sink.down(None, Some(Duration::from_secs(seconds)));
    }
    for address in sink.addresses() {
        say(&format!("listening {address}"));
    }
    let sink = std::sync::Arc::new(sink);
    if arguments.control {
        let sink = sink.clone();
        // It ends with the process: nobody can interrupt a read of standard input.
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                say(&obey(&sink, &line).unwrap_or_else(|why| format!("error: {why}")));
            }
        });
    }
    terminated().await?;
    say(&sink.json().to_string());
    Ok(())
}

/// Resolves at SIGTERM or SIGINT.
pub(crate) async fn terminated() -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Whoever does not listen any more does not need to hear it.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Does what a line says; returns the answer.
fn obey(sink: &Sink, line: &str) -> Result<String, String> {
    let (verb, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    match verb {
        "counts" => return Ok(sink.json().to_string()),
        "reply" => sink.add_rule(rest.parse()?),
        "clear" => sink.clear_rules(),
        "down" => {
            let (ip, duration) = place_and_time(sink, rest)?;
            sink.down(ip, duration);
        }
        "up" => {
            let (ip, None) = place_and_time(sink, rest)? else {
                return Err("up takes no duration".into());
            };
            sink.up(ip);
        }
        _ => {
            return Err(format!(
                "{verb:?} is none of counts, reply RULE, clear, down [IP] [DURATION], up [IP]"
            ));
        }
    }
    Ok("ok".into())
}

fn place_and_time(sink: &Sink, text: &str) -> Result<(Option<IpAddr>, Option<Duration>), String> {
    let (mut ip, mut duration) = (None, None);
    for word in text.split_whitespace() {
        match word.parse::<IpAddr>() {
            Ok(there) if sink.addresses().iter().all(|address| address.ip() != there) => {
                return Err(format!("{there} is no site of this sink"));
            }
            Ok(there) => ip = Some(there),
            Err(_) => duration = Some(service::config::duration::parse(word)?),
        }
    }
    Ok((ip, duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_obeyed_or_explained() {
        let sink = Sink::start(&Settings::default()).unwrap();
        for (line, expected) in [
            ("reply rcpt=550 5.1.1 no", "ok"),
            ("clear", "ok"),
            ("down 127.0.0.1 1h", "ok"),
            ("down 5m", "ok"),
            ("up", "ok"),
            ("up 127.0.0.1", "ok"),
            ("up 1s", "error: up takes no duration"),
            ("down 127.0.0.9", "error: 127.0.0.9 is no site"),
            ("down soon", "error: invalid duration"),
            ("reply rcpt", "error: no ="),
            ("count", "error: \"count\" is none of counts"),
        ] {
            let answer = obey(&sink, line).unwrap_or_else(|why| format!("error: {why}"));
            assert!(answer.starts_with(expected), "{line}: {answer}");
        }
        let counts: serde_json::Value =
            serde_json::from_str(&obey(&sink, "counts").unwrap()).unwrap();
        assert_eq!(counts["recipients"], 0);
    }
}
