//! A backlog of list mail in the real `listserv`: how long after kill -9 the first of it leaves, how fast it drains, and what live mail
//! notices of it. One run for all, since they are one event: the host comes back and has work for hours.
//!
//! `drain_verp_vs_limit` and `drain_verp_per_second`: one recipient a transaction, over a bare pipelined pair with the same dialogue
//! to the same sinks, measured before and after the drain. `live_p99_backlog_ms`: from when a post's sending began to when the sink
//! had it. `restart_to_first_delivery_seconds`: from the start of the process, with its files out of the page cache.

#![allow(missing_docs)]

mod list_host;

use std::time::{Duration, Instant};

use list_host::{DOMAINS, Failure, ListHost, SITES};
use mailload::figures::{Figure, Goal, is_full, is_wanted, report};
use mailload::source::{Pace, Source};

const LIST: &str = "dev@lists.example";
const LIVE: &str = "live@lists.example";
/// Members of the list of which the backlog is made.
const MEMBERS: u64 = 10_000;
/// Members of the list that is alive, and its posts a second: 25 deliveries a second, the outage's live flow.
const LIVE_MEMBERS: u64 = 5;
const LIVE_POSTS: f64 = 5.0;
/// The live flow without a backlog.
const IDLE: Duration = Duration::from_secs(20);
const NAMES: [&str; 5] = [
    "drain_verp_vs_limit",
    "drain_verp_per_second",
    "live_p99_backlog_ms",
    "restart_to_first_delivery_seconds",
    "drain_lost",
];

/// p99 of the kind's delay, milliseconds, and of how many.
fn delay(host: &ListHost, kind: &str) -> (f64, f64, u64) {
    let counts = host.sink.counts();
    let Some(kind) = counts.kind(kind) else {
        return (f64::NAN, f64::NAN, 0);
    };
    let delay = kind.delay.snapshot();
    let milliseconds = |share| delay.quantile(share).as_secs_f64() * 1e3;
    (milliseconds(0.5), milliseconds(0.99), delay.count())
}

fn live(host: &ListHost, kind: &str, duration: Duration) -> Result<Source, Failure> {
    let mut posts = host.posts(LIVE, kind, u64::MAX)?;
    posts.pace = Some(Pace::steady(LIVE_POSTS));
    posts.duration = duration;
    Ok(Source::start(posts)?)
}

fn run(posts: u64, bare_count: u64) -> Result<(), Failure> {
    let backlog = posts * MEMBERS;
    let remember = usize::try_from(backlog + 4 * bare_count + 200_000)?;
    let mut host = ListHost::new([127, 20, 0, 1], remember)?;
    host.start()?;
    host.wait_ready()?;
    host.make_list(LIST, MEMBERS as usize, None)?;
    host.make_list(LIVE, LIVE_MEMBERS as usize, None)?;

    let idle = live(&host, "idle", IDLE)?.join();
    host.wait_taken(
        "idle",
        idle.accepted * LIVE_MEMBERS,
        Duration::from_secs(60),
    )?;
    let (idle_p50, idle_p99, idle_count) = delay(&host, "idle");

    let filling = Instant::now();
    host.fill(LIST, "backlog", posts, MEMBERS)?;
    let filling = filling.elapsed().as_secs_f64();
    let bytes = host.kill_cold()?;
    let bare_before = host.bare("bare", bare_count)?;

    // The pause outlasts the restart.
    let began = host.start()?;
    host.wait_ready()?;
    host.ask(&["queue", "resume"])?;
    let first = host.wait_taken("backlog", 1, Duration::from_secs(600))?;
    let restart = (first - began).as_secs_f64();
    let beside = live(&host, "live", Duration::from_secs(3600))?;
    let most = Duration::from_secs(60 + backlog / 200);
    let last = host.wait_taken("backlog", backlog, most);
    beside.stop();
    let processor = host.processor_seconds();
    let memory = host.memory_mib();
    let (taken, twice) = host.taken("backlog");
    let last = last?;
    let sent = beside.join();
    host.wait_taken(
        "live",
        sent.accepted * LIVE_MEMBERS,
        Duration::from_secs(60),
    )?;
    let (live_p50, live_p99, live_count) = delay(&host, "live");
    let bare_after = host.bare("bare2", bare_count)?;

    let seconds = (last - first).as_secs_f64();
    let rate = backlog as f64 / seconds;
    let limit = f64::midpoint(bare_before, bare_after);
    let sizes = format!(
        "{backlog} recipients ({posts} posts to {MEMBERS} members, {DOMAINS} domains by Zipf, {SITES} sites), 6 KB, event log on"
    );
    let figures = [
        Figure {
            name: NAMES[0],
            value: rate / limit,
            unit: "ratio",
            goal: Goal::AtLeast(0.35),
            peer: "a bare pipelined client and the same sink, BDAT",
            detail: format!("{sizes}; bare {bare_before:.0} before, {bare_after:.0} after"),
        },
        Figure {
            name: NAMES[1],
            value: rate,
            unit: "1/s",
            goal: Goal::Stated,
            peer: "",
            detail: format!(
                "{seconds:.1} s, {:.3} ms of processor each, {memory:.0} MiB at most; filled in {filling:.0} s",
                processor * 1e3 / taken as f64
            ),
        },
        Figure {
            name: NAMES[2],
            value: live_p99,
            unit: "ms",
            goal: Goal::AtMost((2.0 * idle_p99).max(100.0).round()),
            peer: "the same without a backlog",
            detail: format!(
                "p50 {live_p50:.1}, of {live_count}, while {backlog} drain; idle p50 {idle_p50:.1} p99 {idle_p99:.1} of {idle_count}; from the begin of sending"
            ),
        },
        Figure {
            name: NAMES[3],
            value: restart,
            unit: "s",
            goal: Goal::AtMost(10.0),
            peer: "",
            detail: format!(
                "after kill -9 with {backlog} waiting, {:.0} MiB of files out of the page cache",
                bytes as f64 / 1048576.0
            ),
        },
        Figure {
            name: NAMES[4],
            value: (backlog - taken.saturating_sub(twice).min(backlog)) as f64,
            unit: "recipients",
            goal: Goal::AtMost(0.0),
            peer: "",
            detail: format!(
                "of {backlog}; {twice} came twice, nothing was killed while it drained"
            ),
        },
    ];
    for figure in figures.iter().filter(|figure| is_wanted(figure.name)) {
        report(figure)?;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    if !NAMES.iter().any(|name| is_wanted(name)) {
        return Ok(());
    }
    let posts = std::env::var("POSTS")
        .ok()
        .and_then(|posts| posts.parse().ok());
    match is_full() {
        true => run(posts.unwrap_or(1000), 400_000),
        false => run(posts.unwrap_or(20), 100_000),
    }
}
