//! What waits for very many domains, each with little of it: what is in memory then, and what a tally and a claim take. Measured in a
//! process of its own, whose memory is all the spool's.

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use mail::{Address, Domain, Timestamp};
use mailload::figures::{Figure, Goal, median, report};
use spool::{Class, Destination, NewBatch, Spool};

use crate::backlog::{MEMBERS, expand};
use crate::footprint::memory;
use crate::{Failure, deliverable, numbers, open, start};

/// Domains, each with as many recipients.
const DOMAINS: usize = 100_000;
/// Claims of the batches that come next, after the restart.
const CLAIMS: usize = 40;

/// The batches of one post to members who are each alone at a domain.
fn batches(list: usize) -> Result<Vec<NewBatch>, Failure> {
    let now = Timestamp::now();
    let batch = |member: usize| {
        let at = (list * MEMBERS + member) % DOMAINS;
        let domain = Domain::parse(&format!("mail{at}.example"))?;
        let to = Address::new(&format!("member.{list}.{member}"), domain.clone())?;
        Ok(NewBatch {
            destination: Destination::Domain(domain),
            class: Class::Ordinary,
            due: now,
            recipients: vec![to.into()],
            template: Bytes::from_static(b"list dev@lists.example, number 4711"),
            replies: Default::default(),
        })
    };
    (0..MEMBERS).map(batch).collect()
}

/// Fills a spool, opens it again, claims, and tells what that took.
pub async fn scatter(folder: &Path, posts: usize) -> Result<(), Failure> {
    let spool = open(folder)?;
    let idle = memory("RssAnon");
    let began = Instant::now();
    for list in 0..posts {
        expand(spool.as_ref(), batches(list)?).await?;
    }
    while spool.vitals().index_behind > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let filled = began.elapsed().as_secs_f64();
    let (peak, heads) = (memory("VmHWM"), spool.vitals().heads);
    spool.close().await;
    drop(spool);
    let began = Instant::now();
    let spool = open(folder)?;
    let mut claims = Vec::new();
    for _ in 0..CLAIMS {
        let began = Instant::now();
        let claimed = spool.claim("here", &deliverable()).await?;
        claims.push(began.elapsed().as_secs_f64() / claimed.len().max(1) as f64);
    }
    let opened = began.elapsed().as_secs_f64();
    let mut tallies = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        spool.tally().await?;
        tallies.push(began.elapsed().as_secs_f64());
    }
    println!(
        "scattered {filled} {idle} {peak} {} {heads} {} {opened} {} {} {}",
        memory("VmHWM"),
        spool.vitals().heads,
        median(&claims),
        tallies.first().copied().unwrap_or(f64::NAN),
        median(&tallies)
    );
    Ok(())
}

/// States the figure.
pub fn measure(folder: &Path, posts: usize, goal: Goal) -> Result<(), Failure> {
    let folder = folder.join("scattered");
    let (mut child, mut out) = start("scatter", &folder, posts)?;
    let said = numbers(&mut out, "scattered");
    child.kill()?;
    child.wait()?;
    std::fs::remove_dir_all(&folder)?;
    let said = said?;
    let &[
        filled,
        idle,
        peak,
        most,
        heads,
        again,
        opened,
        claim,
        first,
        tally,
    ] = said.as_slice()
    else {
        return Err("the scattering process said something else".into());
    };
    let recipients = (posts * MEMBERS) as f64;
    report(&Figure {
        name: "memory_per_scattered_recipient_bytes",
        value: (most - idle) / recipients,
        unit: "bytes",
        goal,
        peer: "",
        detail: format!(
            "{recipients:.0} waiting, one a batch, for {DOMAINS} domains: peak RSS {:.0} MB with {heads:.0} heads while they were expanded ({filled:.0} s), {:.0} MB with {again:.0} after a restart and {CLAIMS} claims ({opened:.1} s, {:.0} us a batch); idle {:.0} MB; the first tally {:.2} s, then {:.3} s",
            peak / 1e6,
            most / 1e6,
            claim * 1e6,
            idle / 1e6,
            first,
            tally
        ),
    })?;
    Ok(())
}
