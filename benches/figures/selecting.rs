//! What an operator's selections take while all of it waits: counts that are known, counts that look at each batch or into it, and
//! holding, releasing and dropping one domain's mail, with mail that comes in meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mail::{Domain, Timestamp};
use mailload::figures::{Figure, Goal, median, report};
use spool::{Action, Destination, HoldId, Lane, Pattern, Predicate, Selected, Spool};

use crate::Failure;
use crate::backlog::post;

/// Whose mail is held, released and dropped: the domain with the largest share.
const DOMAIN: &str = "mail0.example";

/// The selections whose counts are stated.
fn counts() -> Result<Vec<(&'static str, Predicate)>, Failure> {
    Ok(vec![
        ("all", Predicate::default()),
        ("a domain", of_domain()?),
        (
            "sender",
            Predicate {
                sender: Some(Pattern::new("author@*")),
                ..Predicate::default()
            },
        ),
    ])
}

fn of_domain() -> Result<Predicate, Failure> {
    Ok(Predicate {
        destinations: Some(vec![Destination::Domain(Domain::parse(DOMAIN)?)]),
        ..Predicate::default()
    })
}

/// Does it; how much, and how many seconds it took.
async fn timed(
    spool: &dyn Spool,
    predicate: &Predicate,
    action: Action,
) -> Result<(Selected, f64), Failure> {
    let start = Instant::now();
    let selected = spool.select(predicate, action).await?;
    Ok((selected, start.elapsed().as_secs_f64()))
}

/// Accepts one message after the other until told to stop; what each took, seconds.
async fn accept_until(spool: Arc<dyn Spool>, stop: Arc<AtomicBool>) -> Vec<f64> {
    let mut seconds = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok(post) = post() else { break };
        let start = Instant::now();
        if spool.accept(post, None).await.is_err() {
            break;
        }
        seconds.push(start.elapsed().as_secs_f64());
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    seconds
}

/// States both figures; `goal` is that of a count.
pub async fn measure(spool: Arc<dyn Spool>, goal: Goal) -> Result<(), Failure> {
    let mut told = Vec::new();
    let mut slowest: f64 = 0.0;
    let mut waiting = 0;
    for (name, predicate) in counts()? {
        let mut seconds = Vec::new();
        for _ in 0..3 {
            let (selected, took) = timed(spool.as_ref(), &predicate, Action::Count).await?;
            seconds.push(took);
            waiting = waiting.max(selected.recipients);
        }
        let took = median(&seconds);
        told.push(format!("{name} {:.2} ms", took * 1e3));
        slowest = slowest.max(if name == "sender" { 0.0 } else { took });
    }
    let mut seconds = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let now = Timestamp::now();
        let ages = spool.ages().await?;
        let live = ages.iter().filter(|aged| aged.lane(now) == Lane::Live);
        let live: u64 = live.map(|aged| aged.recipients).sum();
        seconds.push(start.elapsed().as_secs_f64());
        let all: u64 = ages.iter().map(|aged| aged.recipients).sum();
        if all < waiting || live > all {
            return Err(format!("{all} by age, {live} of them live, of {waiting}").into());
        }
    }
    let took = median(&seconds);
    told.push(format!("lane or age {:.2} ms", took * 1e3));
    slowest = slowest.max(took);
    report(&Figure {
        name: "select_count_seconds",
        value: slowest,
        unit: "s",
        goal,
        peer: "",
        detail: format!(
            "{waiting} recipients waiting; the slowest count that reads no content; by {}",
            told.join(", ")
        ),
    })?;

    let stop = Arc::new(AtomicBool::new(false));
    let accepting = tokio::spawn(accept_until(spool.clone(), stop.clone()));
    let mut rates = Vec::new();
    for (name, action) in [
        ("hold", Action::Hold(HoldId(1))),
        ("release", Action::Release),
        ("drop", Action::Drop),
    ] {
        let (selected, took) = timed(spool.as_ref(), &of_domain()?, action).await?;
        rates.push((name, selected, took));
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepts = accepting.await?;
    accepts.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let at = (accepts.len() as f64 * share) as usize;
        accepts.get(at).copied().unwrap_or(f64::NAN) * 1e3
    };
    let rate = |(_, selected, took): &(&str, Selected, f64)| selected.recipients as f64 / took;
    let (_, first, _) = rates.first().ok_or("nothing was held")?;
    report(&Figure {
        name: "select_recipients_per_second",
        value: rates.iter().map(rate).fold(f64::INFINITY, f64::min),
        unit: "1/s",
        goal: Goal::Stated,
        peer: "",
        detail: format!(
            "one domain, {} recipients in {} batches: {}; beside it a message every 2 ms was accepted in {:.1} ms (median), {:.1} ms (99 %), {:.0} ms (worst of {})",
            first.recipients,
            first.batches,
            rates
                .iter()
                .map(|one| format!("{} {:.0}/s in {:.1} s", one.0, rate(one), one.2))
                .collect::<Vec<_>>()
                .join(", "),
            at(0.5),
            at(0.99),
            accepts.last().copied().unwrap_or(f64::NAN) * 1e3,
            accepts.len(),
        ),
    })?;
    Ok(())
}
