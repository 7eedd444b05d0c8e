//! Mail accepted durably: messages that the edge has spooled, since the inside does not answer, beside Postfix's smtpd that holds them in
//! its queue. Both have them on stable storage before they say 250.

mod edge_host;
mod server_time;
mod turns;

use std::net::SocketAddr;
use std::time::Duration;

use mailload::figures::{Figure, Goal, is_full, is_wanted, median, report};
use mailload::source::{Settings, Sizes, Source};

use edge_host::{EdgeHost, Failure, POSTFIX};
use turns::{Turn, Turns};

const NAME: &str = "edge_accept_vs_postfix";

/// What is sent.
#[derive(Clone, Copy)]
struct Load {
    /// Sessions at once.
    sessions: usize,
    /// Octets of a message.
    bytes: u64,
    /// Messages over one connection; 0: any number.
    each: u64,
}

const fn load(sessions: usize, bytes: u64, each: u64) -> Load {
    Load {
        sessions,
        bytes,
        each,
    }
}

const LOADS: [Load; 5] = [
    load(20, 6_000, 0),
    load(100, 6_000, 0),
    load(20, 60_000, 0),
    load(100, 60_000, 0),
    load(20, 6_000, 1),
];

const EDGE: &str = "limits.sessions_per_client_max = 1000\n";

/// It holds what it accepts, so that no delivery is in its figure.
const PEER: [(&str, &str); 5] = [
    ("relay_domains", "lists.example"),
    ("relay_recipient_maps", "static:known"),
    ("smtpd_relay_restrictions", "reject_unauth_destination"),
    ("smtpd_recipient_restrictions", "static:HOLD"),
    ("default_process_limit", "200"),
];

/// Sends for so long; how many messages were accepted. Any other answer is an error.
async fn send(to: SocketAddr, load: Load, turn: Duration) -> Result<u64, Failure> {
    let Load {
        sessions,
        bytes,
        each,
    } = load;
    let to_pattern = format!("member{{0..9999}}@{}", edge_host::DOMAIN);
    let from = "author{1..1000}@sender.example".parse()?;
    let mut settings = Settings::new(to, from, to_pattern.parse()?);
    settings.sizes = Sizes::Even(bytes, bytes);
    settings.sessions = sessions;
    settings.session_messages_max = each;
    settings.count = u64::MAX;
    settings.duration = turn;
    let source = Source::start(settings)?;
    let report = tokio::task::spawn_blocking(move || source.join()).await?;
    match report.accepted == report.messages && report.broken == 0 && report.messages > 0 {
        true => Ok(report.messages),
        false => Err(format!("{sessions} sessions, {bytes} octets: {report}").into()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    if !is_wanted(NAME) || !edge_host::can_measure(NAME, &[POSTFIX]) {
        return Ok(());
    }
    let (turns, turn) = match is_full() {
        true => (7, Duration::from_secs(5)),
        false => (3, Duration::from_millis(1500)),
    };
    let folder = edge_host::folder()?;
    let edge = EdgeHost::start(folder.path(), &format!("{}{EDGE}", edge_host::SETTINGS))?;
    let address = edge_host::free_port()?;
    let postfix = folder.path().join("postfix");
    std::fs::create_dir_all(&postfix)?;
    let postfix = local::postfix::postfix(&postfix, address, &PEER)?;
    let mut said = Vec::new();
    let mut ratios = Vec::new();
    for load in LOADS {
        let mut measured = Turns::default();
        for _ in 0..turns {
            let edge = Turn::of(edge.process.pid(), send(edge.mail, load, turn)).await?;
            let peer = Turn::of(postfix.pid(), send(address, load, turn)).await?;
            measured.0.push((edge, peer));
        }
        let Load {
            sessions,
            bytes,
            each,
        } = load;
        let how = if each == 0 { "kept" } else { "new ones" };
        let ratio = measured.ratio();
        said.push(format!(
            "{sessions} {how}, {bytes} octets {ratio:.1}, {measured}"
        ));
        ratios.push(ratio);
    }
    report(&Figure {
        name: NAME,
        value: ratios.iter().copied().fold(f64::NAN, f64::min),
        unit: "ratio",
        goal: Goal::AtLeast(5.0),
        peer: "Postfix smtpd and cleanup, a processor second each",
        detail: format!(
            "the smallest, median {:.1}; connections kept, or new ones for each message: {}; {}, {}",
            median(&ratios),
            said.join("; "),
            edge_host::postfix_version(),
            edge_host::said(&PEER),
        ),
    })?;
    Ok(())
}
