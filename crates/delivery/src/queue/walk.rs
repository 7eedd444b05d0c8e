//! Looking at all that is meant, page by page: between two pages the spool is left to its work.

use std::time::{Duration, Instant};

use mail::Recipient;
use spool::{Error, Found, Predicate, Spool};

/// Batches of one page.
const PAGE: usize = 500;
/// It rests as long as it looked, but no longer.
const REST_MAX: Duration = Duration::from_secs(10);

/// Shows every batch that is meant to `each`, until that says stop.
pub(super) async fn walk(
    spool: &dyn Spool,
    predicate: &Predicate,
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
        tokio::time::sleep(began.elapsed().min(REST_MAX)).await;
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
