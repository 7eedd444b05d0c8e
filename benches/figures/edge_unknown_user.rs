//! A dictionary attack: what it costs to say 550 to recipients that do not exist, beside Postfix's smtpd with the same recipients in a
//! local table.

mod callers;
mod edge_host;
mod server_time;
mod turns;

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use mailload::figures::{Figure, Goal, is_full, is_wanted, report};

use callers::{Callers, Manner};
use edge_host::{EdgeHost, Failure, POSTFIX};
use turns::{Turn, Turns};

const NAME: &str = "edge_unknown_user_vs_postfix";
const STEPWISE: &str = "edge_unknown_user_stepwise_vs_postfix";
/// At once.
const SESSIONS: usize = 50;
/// A session; one more and both end it by their own defaults.
const GUESSES: usize = 19;

/// Both let clients with many errors wait for their replies, by default a second from the tenth on. It costs neither any time of its processor,
/// and would make a turn of a few hundred recipients.
const EDGE: &str = "limits.error_delay = '0s'\nlimits.sessions_per_client_max = 1000\n";

fn peer(table: &str) -> Vec<(&'static str, String)> {
    vec![
        ("mydestination", edge_host::DOMAIN.into()),
        ("local_recipient_maps", format!("hash:{table}")),
        ("smtpd_error_sleep_time", "0".into()),
        (
            "smtpd_recipient_restrictions",
            "reject_unauth_destination".into(),
        ),
    ]
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let wanted = is_wanted(NAME) || is_wanted(STEPWISE);
    if !wanted || !edge_host::can_measure(NAME, &[POSTFIX]) {
        return Ok(());
    }
    let (turns, turn) = match is_full() {
        true => (9, Duration::from_secs(5)),
        false => (5, Duration::from_secs(3)),
    };
    let folder = edge_host::folder()?;
    let edge = EdgeHost::start(folder.path(), &format!("{}{EDGE}", edge_host::SETTINGS))?;
    let table = folder.path().join("recipients");
    let lines = (0..edge_host::RECIPIENTS)
        .map(|number| format!("member{number}@{} x\n", edge_host::DOMAIN));
    std::fs::write(&table, lines.collect::<String>())?;
    let made = Command::new("/usr/sbin/postmap")
        .arg(format!("hash:{}", table.display()))
        .status()?;
    if !made.success() {
        return Err("postmap failed".into());
    }
    let settings = peer(&table.display().to_string());
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(key, value)| (*key, &**value))
        .collect();
    let address = edge_host::free_port()?;
    let postfix = folder.path().join("postfix");
    std::fs::create_dir_all(&postfix)?;
    let postfix = local::postfix::postfix(&postfix, address, &settings)?;
    for (name, manner, how, goal) in [
        (
            NAME,
            Manner::Volley(GUESSES),
            "in one flight with MAIL",
            Goal::AtLeast(10.0),
        ),
        (
            STEPWISE,
            Manner::Guesses(GUESSES),
            "one after the other",
            Goal::Stated,
        ),
    ] {
        let callers = |server, to| Callers {
            server,
            to,
            manner,
            sessions: SESSIONS,
            recipient: |number| format!("guess-{number}@{}", edge_host::DOMAIN),
            from: |_| IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let (ours, theirs) = (callers("mx-edge", edge.mail), callers("smtpd", address));
        let (next, nexts) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut measured = Turns::default();
        for _ in 0..turns {
            let edge = Turn::of(edge.process.pid(), ours.run(turn, &next)).await?;
            let peer = Turn::of(postfix.pid(), theirs.run(turn, &nexts)).await?;
            measured.0.push((edge, peer));
        }
        report(&Figure {
            name,
            value: measured.ratio(),
            unit: "ratio",
            goal,
            peer: "Postfix smtpd, a processor second each",
            detail: format!(
                "RCPT answered 550, {GUESSES} a session {how}, {SESSIONS} sessions at once, {} recipients known: {measured}; {}, {}",
                edge_host::RECIPIENTS,
                edge_host::postfix_version(),
                edge_host::said(&settings),
            ),
        })?;
    }
    Ok(())
}
