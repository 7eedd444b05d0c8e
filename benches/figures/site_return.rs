//! `site_return_seconds`: a site that was dead while a day's mail gathered for it returns; how long until all of that has left. The real
//! `listserv` with its own settings; only the day is made believe: posts come as from an edge that kept them for one.
//!
//! It returns at the worst moment: just after a probe has failed.

#![allow(missing_docs)]

mod list_host;

use std::time::{Duration, Instant};

use list_host::{Failure, ListHost};
use mailload::figures::{Figure, Goal, is_full, is_wanted, report};
use mailload::source::Source;

const NAME: &str = "site_return_seconds";
const LIST: &str = "dev@lists.example";
/// All at the first domain, and so at one site.
const MEMBERS: u64 = 1000;
/// Until the gate is shut, or the next probe.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the status page says of a site: its gate, its window, when its next probe is.
fn site(host: &ListHost) -> Option<(String, u64, Option<String>)> {
    let status = host.status()?;
    let site = status["program"]["sites"].as_array()?.first()?;
    Some((
        site["gate"].as_str()?.to_owned(),
        site["window"].as_u64()?,
        site["probe"].as_str().map(str::to_owned),
    ))
}

/// Waits until `what` gives something.
fn wait<T>(what: impl Fn() -> Option<T>) -> Result<T, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what() {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err("what the site was to do it has not done".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn run(posts: u64) -> Result<(), Failure> {
    let queue = posts * MEMBERS;
    let mut host = ListHost::new([127, 21, 0, 1], usize::try_from(queue)? + 1000)?;
    host.start()?;
    host.wait_ready()?;
    host.make_list(LIST, MEMBERS as usize, Some(1))?;
    let address = host.site_of(1);
    host.sink.down(Some(address), None);
    let mut old = host.posts(LIST, "old", posts)?;
    old.kept = Some(list_host::KEPT);
    let sent = Source::start(old)?.join();
    if sent.accepted != posts {
        return Err(format!("of {posts} posts: {sent}").into());
    }
    host.wait_queued(queue, PATIENCE)?;
    // One probe that is known, and the next that takes its place: it has failed just now.
    let probe = wait(|| site(&host).filter(|(gate, ..)| gate == "shut")?.2)?;
    wait(|| site(&host)?.2.filter(|next| *next != probe))?;
    host.sink.up(Some(address));
    let back = Instant::now();
    let first = host.wait_taken("old", 1, PATIENCE)? - back;
    let window = wait(|| site(&host).filter(|(gate, window, _)| gate == "open" && *window >= 20));
    let full = window.map(|_| back.elapsed());
    let last = host.wait_taken("old", queue, PATIENCE)? - back;
    let (_, twice) = host.taken("old");
    let full = full.map_or("not seen".to_owned(), |full| {
        format!("{:.1} s", full.as_secs_f64())
    });
    report(&Figure {
        name: NAME,
        value: last.as_secs_f64(),
        unit: "s",
        goal: Goal::AtMost(60.0),
        peer: "",
        detail: format!(
            "{queue} recipients at one site, a day old by their trace, it returns just after a failed probe; first delivery after {:.1} s, all its connections in use by {full}; {twice} came twice",
            first.as_secs_f64()
        ),
    })?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    if !is_wanted(NAME) {
        return Ok(());
    }
    run(if is_full() { 500 } else { 100 })
}
