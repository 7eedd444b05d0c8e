//! Listings of what is meant, by id and in pages.

use super::candidates::{self, Candidates, PAGE};
use super::looking::{Looker, Meant, Now, Read, look_at};
use super::shared::Shared;
use crate::selection::{Selection, as_left};
use crate::{Action, After, Batch, Error, Found, Predicate};

/// So few are looked at in one step.
const PAGE_MIN: usize = 64;

/// At most `limit` of what is meant, by id, behind `after`.
pub fn find(
    shared: &Shared,
    predicate: &Predicate,
    after: After,
    limit: usize,
) -> Result<Vec<Found>, Error> {
    candidates::catch_up(shared)?;
    let selection = Selection {
        predicate: predicate.clone(),
        action: Action::Count,
    };
    let page = limit.clamp(PAGE_MIN, PAGE);
    let mut candidates = Candidates::new(shared, predicate, after, page);
    let mut looker = Looker::new(shared, &selection).with_content();
    let mut found = Vec::new();
    while found.len() < limit {
        shared.check_open()?;
        let page = candidates.page(shared)?;
        if page.is_empty() {
            break;
        }
        looker.step();
        look_at(shared, page, &mut looker, |looker, meant| {
            found.extend(describe(looker, meant)?);
            Ok(())
        })?;
    }
    // Those that were looked at again come late.
    found.sort_by_key(|found| found.batch.id);
    found.truncate(limit);
    Ok(found)
}

fn describe(looker: &mut Looker<'_>, meant: Meant) -> Result<Option<Found>, Error> {
    let (Some(batch), Read::Here(head)) = (meant.batch, looker.head(&meant.now)?) else {
        return Ok(None);
    };
    let batch = match &meant.now {
        Now::Leased(leased, _) => as_left(&batch, &leased.orders(), looker.at),
        Now::Waits(..) => Batch::clone(&batch),
    };
    let in_flight = meant.now.in_flight();
    Ok(Some(Found {
        head,
        batch,
        in_flight,
    }))
}
