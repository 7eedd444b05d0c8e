//! What it costs to refuse clients before they have sent anything: those on a DNS list and those that do not wait for the greeting;
//! beside postscreen with its dnsblog, asking the same list. The list's server is in neither's figure.

mod callers;
mod edge_host;
mod server_time;
mod turns;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use local::Process;
use mailload::figures::{Figure, Goal, is_full, is_wanted, report};

use callers::{Callers, Manner};
use edge_host::{EdgeHost, Failure, POSTFIX, RBLDNSD, ZONE};
use turns::{Turn, Turns};

const NAME: &str = "edge_refuse_vs_postscreen";
/// At once.
const SESSIONS: usize = 1_000;

/// The greeting is waited for 3 s instead of 6 s on both sides, so that a turn has more sessions; with less, dnsblog's processes are
/// not always there in time.
const EDGE: &str = "limits.sessions_max = 5000\nscreen.wait = '3s'\nscreen.wait_stressed = '3s'\nscreen.sessions_percent_max = 100\nscreen.skip_networks = []\n\
    [dns]\nservers = ['DNS']\n\
    [dnsbl]\nskip_networks = []\n[[dnsbl.lists]]\nzone = 'bl.example.test'\n";

/// What postscreen is told, beside what a private instance needs.
const PEER: [(&str, &str); 11] = [
    ("postscreen_access_list", ""),
    ("postscreen_greet_wait", "3s"),
    ("postscreen_greet_action", "enforce"),
    ("postscreen_dnsbl_action", "enforce"),
    ("postscreen_dnsbl_sites", ZONE),
    ("postscreen_dnsbl_threshold", "1"),
    (
        "postscreen_cache_map",
        "btree:$data_directory/postscreen_cache",
    ),
    ("postscreen_pre_queue_limit", "5000"),
    ("postscreen_post_queue_limit", "5000"),
    ("relay_domains", "lists.example"),
    ("relay_recipient_maps", "static:known"),
];

struct Pair {
    edge: EdgeHost,
    postscreen: Process,
    peer: std::net::SocketAddr,
    _list: Process,
    _folder: tempfile::TempDir,
}

fn start() -> Result<Pair, Failure> {
    let folder = edge_host::folder()?;
    let dns = edge_host::name_server_address()?;
    let list = edge_host::list(folder.path(), dns)?;
    let settings = format!("{}{EDGE}", edge_host::SETTINGS).replace("DNS", &dns.to_string());
    let edge = EdgeHost::start(folder.path(), &settings)?;
    edge_host::wait_list(&edge)?;
    let peer = edge_host::free_port()?;
    let postfix = folder.path().join("postfix");
    std::fs::create_dir_all(&postfix)?;
    let postscreen = local::postfix::postscreen(&postfix, peer, dns.ip(), &PEER)?;
    Ok(Pair {
        edge,
        postscreen,
        peer,
        _list: list,
        _folder: folder,
    })
}

/// The two in turns; each caller's address is new to both.
async fn measure(
    pair: &Pair,
    manner: Manner,
    turns: usize,
    turn: Duration,
) -> Result<Turns, Failure> {
    let mut measured = Turns::default();
    let callers = |server, to| Callers {
        server,
        to,
        manner,
        sessions: SESSIONS,
        recipient: |_| format!("member7@{}", edge_host::DOMAIN),
        from: match manner {
            Manner::Hasty => |number| edge_host::client(number, false),
            _ => |number| edge_host::client(number, true),
        },
    };
    let (ours, theirs) = (
        callers("mx-edge", pair.edge.mail),
        callers("postscreen", pair.peer),
    );
    let (next, nexts) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for _ in 0..turns {
        let edge = Turn::of(pair.edge.process.pid(), ours.run(turn, &next)).await?;
        let peer = Turn::of(pair.postscreen.pid(), theirs.run(turn, &nexts)).await?;
        measured.0.push((edge, peer));
    }
    Ok(measured)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    if !is_wanted(NAME) || !edge_host::can_measure(NAME, &[POSTFIX, RBLDNSD]) {
        return Ok(());
    }
    let (turns, turn) = match is_full() {
        true => (7, Duration::from_secs(10)),
        false => (3, Duration::from_secs(5)),
    };
    let pair = start()?;
    let listed = measure(&pair, Manner::Patient, turns, turn).await?;
    let hasty = measure(&pair, Manner::Hasty, turns, turn).await?;
    report(&Figure {
        name: NAME,
        value: listed.ratio().min(hasty.ratio()),
        unit: "ratio",
        goal: Goal::AtLeast(1.5),
        peer: "postscreen, a processor second each",
        detail: format!(
            "the smaller one of: listed {:.2}, {listed}; pregreet {:.2}, {hasty}; {SESSIONS} sessions at once, each from a new address to \
             RCPT and QUIT, greeting waited for 3 s, list at rbldnsd not counted; {}, {}",
            listed.ratio(),
            hasty.ratio(),
            edge_host::postfix_version(),
            edge_host::said(&PEER),
        ),
    })?;
    Ok(())
}
