//! `claim_past_dead_sites`: what a claimed batch costs while tens of thousands of dead domains, all with older mail, are left out of the
//! claim, over what it costs where there are none. `claim_of_two_sets`: the same where claims leave out two sets in turn, of what is fresh
//! and of what is old, that differ by what is busy, over one set alone. In turns on three spools.

#![allow(missing_docs)]

mod backlog;

use std::path::{Path, PathBuf};
use std::time::Instant;

use backlog::{batches, expand, post, settlement};
use bytes::Bytes;
use mail::{Address, Domain, Timestamp};
use mailload::figures::{Figure, Goal, is_full, median, report};
use spool::embedded::{Embedded, Options};
use spool::{Class, Destination, Destinations, Ends, NewBatch, Outcome, Spool, Wanted};

type Failure = Box<dyn std::error::Error>;

/// Batches claimed at once: what a few sites with room ask for.
const CLAIMED_AT_ONCE: usize = 50;
const CLAIMS: usize = 40;
/// By how many destinations the two sets differ: the domains of some sites that have enough of a backlog in hand.
const BUSY: usize = 1000;

/// Mail for so many dead domains, one recipient at each; which they are.
async fn bury(spool: &Embedded, dead: usize) -> Result<Vec<Destination>, Failure> {
    let mut domains = Vec::new();
    let mut batches = Vec::new();
    for number in 0..dead {
        let domain = Domain::parse(&format!("dead{number}.example"))?;
        domains.push(Destination::Domain(domain.clone()));
        batches.push(NewBatch {
            destination: Destination::Domain(domain.clone()),
            class: Class::Ordinary,
            due: Timestamp::now(),
            recipients: vec![Address::new("somebody", domain)?.into()],
            template: Bytes::new(),
            replies: Default::default(),
        });
    }
    spool.accept(post()?, None).await?;
    let wanted = Wanted {
        destinations: Destinations::Only(vec![Destination::Expand]),
        lanes: [1; 4],
    };
    let leases = spool.claim("here", &wanted).await?;
    let lease = leases.first().ok_or("the post is not there")?;
    let ended = settlement(lease, Outcome::Replaced(batches), Ends::default());
    match spool.settle(vec![ended]).await? {
        1 => Ok(domains),
        _ => Err("the expansion had no effect".into()),
    }
}

/// Claims and finishes, what is wanted in turn; what a claimed batch cost, seconds.
async fn claim(spool: &Embedded, wanted: &[Wanted]) -> Result<f64, Failure> {
    let mut seconds = 0.0;
    let mut count = 0;
    for wanted in wanted.iter().cycle().take(CLAIMS) {
        let start = Instant::now();
        let leases = spool.claim("here", wanted).await?;
        seconds += start.elapsed().as_secs_f64();
        count += leases.len();
        let settlements = leases
            .iter()
            .map(|lease| settlement(lease, Outcome::Finished, Ends::default()));
        spool.settle(settlements.collect()).await?;
    }
    match count {
        0 => Err("nothing was claimed".into()),
        count => Ok(seconds / count as f64),
    }
}

async fn measure(folder: &Path) -> Result<(), Failure> {
    let (dead, turns) = if is_full() { (50_000, 15) } else { (20_000, 5) };
    let mut spools = Vec::new();
    for (name, dead, sets) in [("none", 0, 1), ("dead", dead, 1), ("two", dead, 2)] {
        let spool = Embedded::open(Options::new(folder.join(name)))?;
        let mut left_out = vec![Destination::Expand];
        if dead > 0 {
            left_out.extend(bury(&spool, dead).await?);
        }
        let wanted = |left_out: &[Destination]| Wanted {
            destinations: Destinations::Except(left_out.into()),
            lanes: [0, CLAIMED_AT_ONCE, CLAIMED_AT_ONCE, 0],
        };
        let some = &left_out[..left_out.len().saturating_sub(BUSY).max(1)];
        let both = [wanted(&left_out), wanted(some)];
        spools.push((spool, both.into_iter().take(sets).collect::<Vec<_>>()));
    }
    let mut costs = vec![Vec::new(); 3];
    for turn in 0..=turns {
        for ((spool, wanted), costs) in spools.iter().zip(&mut costs) {
            for list in 0..10 {
                expand(spool, batches(turn * 10 + list)?).await?;
            }
            let cost = claim(spool, wanted).await?;
            if turn > 0 {
                costs.push(cost);
            }
        }
    }
    let [none, with, two] = costs.as_slice() else {
        return Err("three spools".into());
    };
    let ratio = |these: &[f64], those: &[f64]| {
        let pairs = these.iter().zip(those);
        median(&pairs.map(|(this, that)| this / that).collect::<Vec<_>>())
    };
    report(&Figure {
        name: "claim_past_dead_sites",
        value: ratio(with, none),
        unit: "ratio",
        goal: Goal::AtMost(1.5),
        peer: "the same without dead domains, in turns",
        detail: format!(
            "{dead} dead domains left out, {CLAIMED_AT_ONCE} batches a claim: {:.1} us a batch, {:.1} us without; median of {turns} turns",
            median(with) * 1e6,
            median(none) * 1e6
        ),
    })?;
    report(&Figure {
        name: "claim_of_two_sets",
        value: ratio(two, with),
        unit: "ratio",
        goal: Goal::AtMost(1.5),
        peer: "one set alone, in turns",
        detail: format!(
            "{dead} dead domains left out of all claims, {BUSY} more of every second one: {:.1} us a batch, {:.1} us with one set; median of {turns} turns",
            median(two) * 1e6,
            median(with) * 1e6
        ),
    })?;
    for (spool, _) in spools {
        spool.close().await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = std::env::var_os("FIGURES_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("claims_past_dead-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(&folder).await;
    std::fs::remove_dir_all(&folder)?;
    measured
}
