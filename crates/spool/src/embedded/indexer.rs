//! The index's thread: takes what the journal made durable into the index, many groups in one transaction, behind the accept
//! path. An index that cannot be written holds nobody up at first; accepting stops when memory would run out.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::change::Changes;
use super::index::Index;
use super::shared::{IndexJob, Shared};

/// So long it gathers before a transaction.
const GATHER: Duration = Duration::from_millis(20);
/// At most so many changes go into one transaction.
const CHANGES_MAX: usize = 20_000;
/// It waits so long before it tries again what failed.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// At most so many idents are forgotten at once.
const FORGET_MAX: u32 = 10_000;

/// Runs until the queue is closed and empty.
pub fn run(shared: &Arc<Shared>, mut index: Index) {
    loop {
        let mut count = 0;
        let mut more = |job: &IndexJob| {
            let fits = count < CHANGES_MAX;
            count += match job {
                IndexJob::Changes(changes) => 1 + changes.changes.len(),
                IndexJob::Released(_) | IndexJob::Forget(_) => 1,
            };
            fits
        };
        let Some(mut jobs) = shared.index_jobs.take(&mut more) else {
            return;
        };
        if !shared.index_jobs.is_closed() {
            std::thread::sleep(GATHER);
            jobs.extend(shared.index_jobs.take_now(&mut more));
        }
        let mut changes = Vec::new();
        for job in jobs {
            match job {
                IndexJob::Changes(one) => changes.push(one),
                IndexJob::Released(generations) => {
                    again(shared, || index.released(&generations));
                }
                IndexJob::Forget(time) => {
                    again(shared, || index.forget_idents(time, FORGET_MAX).map(drop));
                }
            }
        }
        if !changes.is_empty() {
            apply(shared, &mut index, &changes);
        }
        let mut usage = shared.usage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = changes.last() {
            usage.0 = last.resume.generation;
        }
        usage.1 = index.segments.clone();
    }
}

fn apply(shared: &Shared, index: &mut Index, changes: &[Changes]) {
    let name = |number| shared.state().numbers.name(number).cloned();
    if again(shared, || index.apply(changes, &name)) {
        shared.state().indexed(changes);
    }
}

/// Does it until it works or the spool was left; whether it worked.
fn again(shared: &Shared, mut what: impl FnMut() -> rusqlite::Result<()>) -> bool {
    while !shared.is_abandoned() {
        match what() {
            Ok(()) => {
                shared.set_index_trouble(None);
                return true;
            }
            Err(error) => shared.set_index_trouble(Some(error.to_string())),
        }
        if shared.index_jobs.is_closed() {
            // Closing: the journal has it all.
            return false;
        }
        std::thread::sleep(AGAIN_AFTER);
    }
    false
}
