//! The tally: counts kept as they change; only an oldest arrival that went away and a window's unknown front are looked up, so
//! it costs the same however much waits.

use std::sync::Arc;

use mail::Timestamp;

use super::claiming::refill;
use super::entry::Track;
use super::heads::Window;
use super::index;
use super::shared::Shared;
use crate::{Class, Error, Tally};

/// All lines.
pub fn tally(shared: &Arc<Shared>) -> Result<Vec<Tally>, Error> {
    find_oldest(shared)?;
    let lines: Vec<_> = shared.state().counts.keys().copied().collect();
    let mut tally = Vec::with_capacity(lines.len());
    for (destination, class) in lines {
        tally.extend(line(shared, destination, class)?);
    }
    Ok(tally)
}

fn line(shared: &Shared, destination: u32, class: Class) -> Result<Option<Tally>, Error> {
    loop {
        let now = shared.now();
        let gap = {
            let state = shared.state();
            let (Some(count), Some(name)) = (
                state.counts.get(&(destination, class)),
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
                    Err(missing) => gap = gap.or(Some(missing)),
                }
            }
            match gap.filter(|_| next.is_none_or(|next| next > now.0)) {
                Some(gap) => gap,
                None => {
                    return Ok(Some(Tally {
                        destination: name.clone(),
                        class,
                        batches: count.batches,
                        recipients: count.recipients,
                        leased: count.leased,
                        oldest: Timestamp(count.oldest.unwrap_or(now.0)),
                        next_due: Timestamp(next.unwrap_or(now.0).max(now.0)),
                    }));
                }
            }
        };
        refill(shared, gap)?;
    }
}

/// Looks up the oldest arrivals that are not known.
fn find_oldest(shared: &Shared) -> Result<(), Error> {
    loop {
        let (unknown, commits, unindexed) = {
            let state = shared.state();
            let unknown: Vec<_> = state
                .counts
                .iter()
                .filter(|(_, count)| count.oldest.is_none())
                .map(|(line, _)| *line)
                .collect();
            if unknown.is_empty() {
                return Ok(());
            }
            (unknown, state.commits, state.oldest_unindexed())
        };
        let mut found = Vec::new();
        for (destination, class) in unknown {
            let tracks = Track::ALL
                .into_iter()
                .filter(|track| track.class() == class);
            let mut oldest = unindexed.get(&(destination, class)).copied();
            for track in tracks {
                let indexed = shared.read(|connection| {
                    let counts = |id| !shared.state().is_unindexed(id);
                    index::oldest(connection, destination, track, counts)
                })?;
                oldest = oldest.into_iter().chain(indexed).min();
            }
            found.push(((destination, class), oldest));
        }
        let mut state = shared.state();
        if state.commits != commits {
            // What the index took over in between may have been seen in neither.
            continue;
        }
        for (line, oldest) in found {
            if let Some(count) = state.counts.get_mut(&line) {
                // What was settled meanwhile may have been it: at worst one tally shows an arrival that just went.
                count.oldest = oldest;
            }
        }
        return Ok(());
    }
}
