//! What a count says without a look at any batch: by destination from the tally, by lane and age from the spool's counts by age.

use std::collections::{BTreeMap, HashSet};

use mail::Timestamp;
use spool::{Action, Destination, Predicate, Selected, Spool, Tally};

use super::Refusal;

/// How much is meant, and where it goes.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) selected: Selected,
    /// Arrival of the oldest; nothing where some are held and some are meant, since it may be of any.
    pub(super) oldest: Option<Timestamp>,
    /// Recipients by destination, with their oldest; nothing where it is counted by age.
    pub(super) by: BTreeMap<Destination, (u64, Option<Timestamp>)>,
    /// Recipients of destinations beyond those told apart.
    pub(super) others: u64,
    /// It was counted by age, to [`spool::Aged::GRAIN`].
    pub(super) by_age: bool,
}

/// How the counts tell it, if they do.
fn way(predicate: &Predicate) -> Option<Way> {
    let Predicate {
        message: None,
        destinations,
        lanes,
        arrived_before,
        arrived_from,
        sender: None,
        recipient: None,
        reply: None,
        held,
        hold: None,
        owner: None,
    } = predicate
    else {
        return None;
    };
    let aged = lanes.is_some() || arrived_before.is_some() || arrived_from.is_some();
    match (aged, destinations, held) {
        (true, None, _) => Some(Way::Ages),
        (true, Some(_), _) => None,
        // The index leads to what is held.
        (false, _, Some(true)) => None,
        (false, ..) => Some(Way::Tally),
    }
}

enum Way {
    Ages,
    Tally,
}

/// Counts what is meant; nothing where only a look at each batch tells it.
pub(super) async fn count(
    spool: &dyn Spool,
    predicate: &Predicate,
    now: Timestamp,
) -> Result<Option<Counted>, Refusal> {
    match way(predicate) {
        None => Ok(None),
        Some(Way::Ages) => ages(spool, predicate, now).await.map(Some),
        Some(Way::Tally) => tally(spool, predicate).await.map(Some),
    }
}

async fn ages(
    spool: &dyn Spool,
    predicate: &Predicate,
    now: Timestamp,
) -> Result<Counted, Refusal> {
    let mut counted = Counted {
        by_age: true,
        ..Counted::default()
    };
    for aged in spool.ages().await? {
        let lanes = predicate.lanes.as_ref();
        let is_meant = lanes.is_none_or(|lanes| lanes.contains(&aged.lane(now)))
            && predicate.held.is_none_or(|held| held == aged.held)
            && (predicate.arrived_before).is_none_or(|time| aged.from < time)
            && (predicate.arrived_from).is_none_or(|time| aged.from >= time);
        if is_meant {
            counted.selected.batches += aged.batches;
            counted.selected.recipients += aged.recipients;
            let oldest = counted.oldest.get_or_insert(aged.from);
            *oldest = aged.from.min(*oldest);
        }
    }
    Ok(counted)
}

async fn tally(spool: &dyn Spool, predicate: &Predicate) -> Result<Counted, Refusal> {
    let these = predicate.destinations.as_ref();
    let these: Option<HashSet<&Destination>> = these.map(|these| these.iter().collect());
    let lines = spool.tally().await?;
    let is_meant = |line: &&Tally| {
        let these = these.as_ref();
        these.is_none_or(|these| these.contains(&line.destination))
    };
    let mut counted = Counted {
        selected: spool.select(predicate, Action::Count).await?,
        ..Counted::default()
    };
    let mut is_known = true;
    for line in lines.iter().filter(is_meant) {
        let (recipients, some_held) = match predicate.held {
            Some(false) => (line.recipients - line.held_recipients, line.held > 0),
            _ => (line.recipients, false),
        };
        if recipients == 0 {
            continue;
        }
        is_known &= !some_held;
        let oldest = (!some_held).then_some(line.oldest);
        let place = counted.by.entry(line.destination.clone());
        let (sum, first) = place.or_insert((0, oldest));
        *sum += recipients;
        *first = first.zip(oldest).map(|(first, oldest)| first.min(oldest));
    }
    let all = counted.by.values().filter_map(|(_, oldest)| *oldest);
    counted.oldest = all.min().filter(|_| is_known);
    Ok(counted)
}
