//! Claims: which batches come next, by lane and destination, borrowed under a token, with their content. A claim that is dropped
//! half-way gives back what it took.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::entry::Row;
use super::heads::{Next, Ripened};
use super::leases::{Leased, Stage};
use super::load::{self, Trouble};
use super::lookup;
use super::shared::Shared;
use super::unreadable;
use super::window::Gap;
use crate::{Batch, Destinations, Error, Lane, Lease, Seen, Wanted};

/// Ordinary mail is live for so long ([`Lane::of`] says the same).
pub const LIVE_FOR: Duration = Duration::from_secs(3600);

/// Batches taken; those not handed on go back when it is dropped.
struct Taken {
    shared: Arc<Shared>,
    leased: Vec<Leased>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.leased.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        for leased in self.leased.drain(..) {
            state.unlease(leased.entry.id);
        }
    }
}

/// Borrows what is wanted and due.
pub async fn claim(shared: &Arc<Shared>, wanted: &Wanted) -> Result<Vec<Lease>, Error> {
    shared.check_open()?;
    // What is done with a lease could not be settled, and would be done again after the restart.
    if let Some(refusal) = shared.refusal() {
        return Err(refusal);
    }
    let mut taken = Taken {
        shared: shared.clone(),
        leased: Vec::new(),
    };
    let mut left = wanted.lanes;
    while let Some(gap) = take(shared, wanted, &mut left, &mut taken.leased) {
        let for_reading = shared.clone();
        blocking(move || refill(&for_reading, gap)).await??;
    }
    let ready = taken.leased.iter().all(|leased| leased.batch.is_some()) && {
        let state = shared.state();
        let mut messages = taken.leased.iter().map(|leased| leased.entry.message);
        messages.all(|message| state.leases.message(message).0.is_some())
    };
    // Dropped while it reads, the answer falls with `taken`, and all goes back.
    let (mut taken, leases) = match ready {
        true => hand_on(taken),
        false => blocking(move || hand_on(taken)).await?,
    };
    let leases = leases?;
    let mut state = shared.state();
    for leased in taken.leased.drain(..) {
        if let Some(leased) = state.leases.of_mut(leased.entry.id) {
            leased.stage = Stage::HandedOn;
        }
    }
    Ok(leases)
}

/// Runs what reads the disk where it holds nobody up.
pub async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    // It fails only when the runtime is going down.
    tokio::task::spawn_blocking(what)
        .await
        .map_err(|_| Error::Closed)
}

/// Takes from the heads; returns what must be read before it can go on.
fn take(
    shared: &Shared,
    wanted: &Wanted,
    left: &mut [usize; 4],
    leased: &mut Vec<Leased>,
) -> Option<Gap> {
    let now = shared.now().0;
    let mut state = shared.state();
    state.age(now.saturating_sub(LIVE_FOR.as_millis() as u64) + 1);
    let only: Option<Vec<u32>> = match &wanted.destinations {
        Destinations::Only(these) => {
            let numbers = these.iter().filter_map(|one| state.numbers.known(one));
            Some(numbers.collect())
        }
        Destinations::Except(these) => {
            state.leave_out(these);
            None
        }
    };
    let only = only.as_deref();
    loop {
        let ripened = state.heads.ripen(now, only);
        if let Ripened::Gap(gap) = ripened {
            return Some(gap);
        }
        let before = leased.len();
        for (lane, left) in Lane::ALL.into_iter().zip(left.iter_mut()) {
            while *left > 0 {
                match state.heads.next(lane, now, only) {
                    Next::Nothing => break,
                    Next::Gap(gap) => return Some(gap),
                    Next::Entry(entry) => {
                        leased.push(state.lease(entry));
                        *left -= 1;
                        // Cut by the limit: another claim may find more.
                        state.news += u64::from(*left == 0);
                    }
                }
            }
        }
        // What was taken made room for those that wait for it.
        if ripened == Ripened::All || leased.len() == before {
            return None;
        }
    }
}

/// Reads what a window lacks.
pub fn refill(shared: &Shared, gap: Gap) -> Result<(), Error> {
    loop {
        let (before, limit) = {
            let state = shared.state();
            (state.commits, state.heads.share())
        };
        let rows = shared.read(|connection| {
            lookup::following(
                connection,
                gap.destination,
                Row(gap.window.track() as u8),
                gap.after,
                gap.below,
                limit,
            )
        })?;
        let mut state = shared.state();
        if state.commits != before {
            // What the index took over in between may be missing in both.
            continue;
        }
        let idle: HashSet<_> = rows
            .iter()
            .filter(|row| state.is_idle(row.id))
            .map(|row| row.id)
            .collect();
        state
            .heads
            .refill(gap, rows, limit, |row| idle.contains(&row.id));
        state.shed(Some((gap.destination, gap.window)));
        return Ok(());
    }
}

/// Turns what was taken into leases with content. What cannot be read is left to rest, and blocks nobody; when it is the index, or
/// everything, that cannot be read, all goes back.
fn hand_on(mut taken: Taken) -> (Taken, Result<Vec<Lease>, Error>) {
    let shared = taken.shared.clone();
    let mut leases = Vec::new();
    let mut failed = None;
    taken.leased.retain(|leased| {
        match load::lease(&shared, &leased.entry) {
            Ok((head, batch)) => {
                leases.push(Lease {
                    head,
                    batch: Batch::clone(&batch),
                    token: leased.token,
                });
                return true;
            }
            Err(error)
                if load::trouble(&shared, &error) != Trouble::Other
                    && unreadable::rest(&shared, &leased.entry, &error) => {}
            Err(error) => {
                tracing::error!(event = "claim_failed", message = %leased.entry.message, %error);
                shared.state().unlease(leased.entry.id);
                failed = Some(error);
            }
        }
        false
    });
    match failed {
        Some(error) if leases.is_empty() => (taken, Err(error)),
        _ => (taken, Ok(leases)),
    }
}

/// Resolves when a claim may find more than what `seen` has seen.
pub async fn ready(shared: &Shared, seen: &mut Seen) {
    loop {
        let told = shared.news.notified();
        tokio::pin!(told);
        // From here on nothing is missed.
        told.as_mut().enable();
        if shared.check_open().is_err() {
            return;
        }
        let (news, now, due) = {
            let state = shared.state();
            (state.news, shared.now(), state.heads.next_due(seen.at.0))
        };
        if news != seen.news || due.is_some_and(|due| due <= now.0) {
            *seen = Seen { news, at: now };
            return;
        }
        match due {
            None => told.await,
            Some(due) => {
                let wait = Duration::from_millis(due - now.0);
                if tokio::time::timeout(wait, told).await.is_err() {
                    *seen = Seen { news, at: now };
                    return;
                }
            }
        }
    }
}
