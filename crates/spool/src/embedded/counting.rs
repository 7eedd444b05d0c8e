//! The tally, and how much of it a selection means that asks for nothing else: counts kept as they change; only an oldest arrival that
//! went away and a window's unknown front are looked up, so it costs the same however much waits.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mail::Timestamp;

use super::claiming::refill;
use super::entry::{Row, Track};
use super::leases::Stage;
use super::lookup;
use super::shared::Shared;
use super::window::Window;
use crate::{Class, Error, Predicate, Selected, Tally};

/// So many windows are read for one tally, to know when their next batch is due; of more than that their marks tell it.
const READS_MAX: usize = 256;

/// A line of the tally.
type Line = (u32, Class);

/// All lines.
pub fn tally(shared: &Arc<Shared>) -> Result<Vec<Tally>, Error> {
    let (lines, unknown) = {
        let state = shared.state();
        let counts = state.counts.lines.iter();
        let unknown: Vec<_> = counts
            .filter(|(_, count)| count.oldest.is_none())
            .map(|(line, _)| *line)
            .collect();
        let lines: Vec<_> = state.counts.lines.keys().copied().collect();
        (lines, unknown)
    };
    let found = find_oldest(shared, unknown)?;
    let mut tally = Vec::with_capacity(lines.len());
    let mut reads = READS_MAX;
    for line in lines {
        tally.extend(count(shared, line, &found, &mut reads)?);
    }
    Ok(tally)
}

fn count(
    shared: &Shared,
    line: Line,
    found: &HashMap<Line, u64>,
    reads: &mut usize,
) -> Result<Option<Tally>, Error> {
    let (destination, class) = line;
    loop {
        let now = shared.now();
        let gap = {
            let state = shared.state();
            let (Some(count), Some(name)) = (
                state.counts.lines.get(&line),
                state.numbers.name(destination),
            ) else {
                return Ok(None);
            };
            let mut next = (count.leased > 0).then_some(now.0);
            let mut gap = None;
            for window in Window::of_class(class) {
                match state.heads.front(destination, *window) {
                    Ok(Some(_)) if matches!(window, Window::Live | Window::Backlog) => {
                        next = Some(now.0);
                    }
                    Ok(Some(due)) => next = Some(next.map_or(due, |next| next.min(due))),
                    Ok(None) => {}
                    Err(missing) if *reads == 0 => {
                        let due = missing.after.0;
                        next = Some(next.map_or(due, |next| next.min(due)));
                    }
                    Err(missing) => gap = gap.or(Some(missing)),
                }
            }
            match gap.filter(|_| next.is_none_or(|next| next > now.0)) {
                Some(gap) => gap,
                None => {
                    let oldest = count.oldest.or(found.get(&line).copied());
                    return Ok(Some(Tally {
                        destination: name.clone(),
                        class,
                        batches: count.batches,
                        recipients: count.recipients,
                        leased: count.leased,
                        held: count.held,
                        held_recipients: count.recipients_held,
                        // Unknown only when it was settled this very moment.
                        oldest: Timestamp(oldest.unwrap_or(now.0)),
                        next_due: Timestamp(next.unwrap_or(now.0).max(now.0)),
                    }));
                }
            }
        };
        *reads -= 1;
        refill(shared, gap)?;
    }
}

/// How much is meant, where the counts tell it: by destination and whether it is held. All else is told by looking at each batch, and
/// so is what will be left of attempts with orders.
pub fn known(shared: &Shared, predicate: &Predicate) -> Option<Selected> {
    let Predicate {
        message: None,
        destinations,
        lanes: None,
        arrived_before: None,
        arrived_from: None,
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
    let state = shared.state();
    let these: Option<BTreeSet<u32>> = destinations.as_ref().map(|these| {
        let known = these.iter().filter_map(|these| state.numbers.known(these));
        known.collect()
    });
    let is_meant = |number: &u32| these.as_ref().is_none_or(|these| these.contains(number));
    let mut selected = Selected::default();
    for ((number, _), count) in &state.counts.lines {
        if !is_meant(number) {
            continue;
        }
        let (batches, recipients) = match held {
            None => (count.batches, count.recipients),
            Some(true) => (count.held, count.recipients_held),
            Some(false) => (
                count.batches - count.held,
                count.recipients - count.recipients_held,
            ),
        };
        selected.batches += batches;
        selected.recipients += recipients;
    }
    for leased in state.leases.all() {
        if !leased.selections.is_empty() {
            return None;
        }
        let entry = &leased.entry;
        if !is_meant(&entry.destination) || held.is_some_and(|held| held != entry.is_held()) {
            continue;
        }
        match leased.stage {
            // It counts as waiting, and nobody can do anything about it just now.
            Stage::Unreadable => {
                selected.batches -= 1;
                selected.recipients -= u64::from(entry.recipients);
                selected.unreadable += 1;
            }
            Stage::Reserved => {}
            Stage::Taken | Stage::HandedOn | Stage::Settling => selected.in_flight += 1,
        }
    }
    Some(selected)
}

/// Looks up the oldest arrivals of lines where they are not known, and keeps those of lines that did not change meanwhile.
fn find_oldest(shared: &Shared, lines: Vec<Line>) -> Result<HashMap<Line, u64>, Error> {
    let mut found = HashMap::new();
    if lines.is_empty() {
        return Ok(found);
    }
    loop {
        let (commits, mut oldest, before) = {
            let state = shared.state();
            let before: HashMap<Line, u64> = lines
                .iter()
                .filter_map(|line| Some((*line, state.counts.lines.get(line)?.changes)))
                .collect();
            (state.commits, state.oldest_unindexed(), before)
        };
        found.clear();
        for line in &lines {
            let (destination, class) = *line;
            let tracks = Track::ALL
                .into_iter()
                .filter(|track| track.class() == class);
            let mut least = oldest.remove(line);
            for row in tracks.flat_map(Row::all) {
                // Its arrival is what it was, whatever else of a batch the index does not know yet.
                let indexed = shared.read(|connection| {
                    let counts = |id| !shared.state().is_done(id);
                    lookup::oldest(connection, destination, row, counts)
                })?;
                least = least.into_iter().chain(indexed).min();
            }
            found.extend(least.map(|least| (*line, least)));
        }
        let mut state = shared.state();
        if state.commits != commits {
            // What the index took over in between may have been seen in neither.
            continue;
        }
        for (line, oldest) in &found {
            if let Some(count) = state.counts.lines.get_mut(line)
                && before.get(line) == Some(&count.changes)
            {
                count.oldest = Some(*oldest);
            }
        }
        return Ok(found);
    }
}
