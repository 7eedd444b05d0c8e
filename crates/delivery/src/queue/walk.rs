//! Looking at all that is meant, page by page: between two pages the spool is left to its work.

use std::time::{Duration, Instant};

use mail::Recipient;
use spool::{Error, Found, Predicate, Spool};

/// Batches of one page.
const PAGE: usize = 500;

/// How much of the time is spent looking.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share {
    /// Half of it: somebody waits for the answer.
    Half,
    /// A tenth: nobody does.
    Tenth,
}

/// Shows every batch that is meant to `each`, until that says stop.
pub(super) async fn walk(
    spool: &dyn Spool,
    predicate: &Predicate,
    share: Share,
    mut each: impl FnMut(&Found) -> bool,
) -> Result<(), Error> {
    let mut after = None;
    loop {
        let began = Instant::now();
        let page = spool.find(predicate, after, PAGE).await?;
        for found in &page {
            if !each(found) {
                return Ok(());
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.batch.id),
            _ => return Ok(()),
        }
        let rest = match share {
            Share::Half => began.elapsed(),
            Share::Tenth => began.elapsed() * 9,
        };
        tokio::time::sleep(rest.min(Duration::from_secs(10))).await;
    }
}

/// The recipients of a batch that was found who are meant, and what each was told last.
pub(super) fn recipients<'a>(
    predicate: &'a Predicate,
    found: &'a Found,
) -> impl Iterator<Item = (&'a Recipient, &'a str)> {
    let batch = &found.batch;
    let places = predicate.places(batch);
    places.map(|place| (&batch.recipients[place], batch.replies.of(place)))
}

/// How many they are.
pub(super) fn meant(predicate: &Predicate, found: &Found) -> u64 {
    predicate.places(&found.batch).count() as u64
}
