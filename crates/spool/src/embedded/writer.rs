//! The single writer: gathers what waits, writes it as one group, syncs once, brings memory in line, answers all. Nothing is
//! answered before it is durable, and nothing else writes to the journal. A write or sync that failed poisons the spool: what
//! is on the disk then is unknown (a second fsync may lie), so nothing more is acknowledged until the process starts anew.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::change::Changes;
use super::group::{Draft, HEADER};
use super::job::{AcceptJob, Answer, Job};
use super::journal::{AppendError, Journal};
use super::lookup;
use super::ordering::Ordering;
use super::record::{BodyPlace, IdentKey};
use super::settling::Settling;
use super::shared::{IndexJob, Shared};
use super::staged::{
    Staged, StagedMessage, Written, commit_carry, commit_message, leave_out, stage_carry,
};
use crate::{Accepted, Error, Ledger, Path};

/// A group takes no further job once it has so many bytes.
const GROUP_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How often the writer looks again while the index is too far behind.
const INDEX_WAIT: Duration = Duration::from_millis(20);

/// The writer.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    index: Connection,
    /// Settlements too large for one group.
    large: Vec<Settling>,
    transactions: u64,
}

impl Writer {
    /// Ready to run.
    pub fn new(shared: Arc<Shared>, journal: Journal, index: Connection) -> Self {
        Self {
            shared,
            journal,
            index,
            large: Vec::new(),
            transactions: 0,
        }
    }

    /// Runs until the queue is closed and empty.
    pub fn run(mut self) {
        loop {
            let mut size = 0;
            let mut alone = false;
            let more = |job: &Job| {
                // What is carried forward was checked against a state that no job of the same group may change.
                let carry = matches!(job, Job::Carry(..));
                let fits = size < GROUP_BYTES_MAX && !alone && !(carry && size > 0);
                alone |= carry;
                size += 1 + match job {
                    Job::Accept(job) => job.size(),
                    Job::Settle(job) => job.size().min(super::settling::PART_BYTES_MAX),
                    Job::Order(attempted, _) => 8192 * attempted.len() as u64,
                    Job::Carry(..) => 0,
                };
                fits
            };
            let jobs = if self.large.is_empty() {
                match self.shared.jobs.take(more) {
                    Some(jobs) => jobs,
                    None => break,
                }
            } else {
                self.shared.jobs.take_now(more)
            };
            self.wait_for_index();
            self.group(jobs);
        }
    }

    /// Lets the index catch up: what it does not have is held in memory, and memory is bounded.
    fn wait_for_index(&self) {
        while self.shared.state().unindexed() > self.shared.options.unindexed_max
            && self.shared.index_trouble().is_none()
            && !self.shared.is_abandoned()
        {
            std::thread::sleep(INDEX_WAIT);
        }
    }

    fn group(&mut self, jobs: Vec<Job>) {
        let refusal = self.shared.refusal();
        let full = match jobs.iter().any(|job| matches!(job, Job::Accept(_))) {
            true => self.shared.full(),
            false => None,
        };
        let mut draft = Draft::default();
        let mut staged = Vec::new();
        let mut idents = HashSet::new();
        for job in jobs {
            if let Some(refusal) = &refusal {
                refuse(job, refusal);
                continue;
            }
            match job {
                Job::Accept(job) => match &full {
                    Some(full) => answer(job.answer, Err(full.clone())),
                    None => staged.extend(self.stage_message(job, &mut draft, &mut idents)),
                },
                Job::Settle(job) => {
                    let transaction = self.next_transaction();
                    let settling = Settling::begin(job, transaction, &mut self.shared.state());
                    let Some(mut settling) = settling else {
                        continue;
                    };
                    settling.treat(transaction, self.shared.now());
                    match settling.is_large() {
                        true => self.large.push(settling),
                        false => staged.push(Staged::Settling(Box::new(settling))),
                    }
                }
                Job::Carry(items, answer) => {
                    let carried = stage_carry(&self.shared, items, &mut draft);
                    staged.push(Staged::Carry(carried, answer));
                }
                Job::Order(attempted, answer) => {
                    let state = self.shared.state();
                    let ordering = Ordering::stage(attempted, answer, &state, &mut draft);
                    staged.push(Staged::Ordering(ordering));
                }
            }
        }
        for one in &mut staged {
            if let Staged::Settling(settling) = one {
                settling.stage(&mut draft);
            }
        }
        for settling in &mut self.large {
            settling.stage(&mut draft);
        }
        let ledger = self.account(&staged);
        if !draft.is_empty() {
            draft.records.ledger(&ledger);
        }
        self.write(&draft, staged, ledger);
    }

    /// The account behind a group of these.
    fn account(&self, staged: &[Staged]) -> Ledger {
        let mut ledger = self.shared.state().ledger;
        for one in staged {
            match one {
                Staged::Message(message) => ledger.accepted += message.recipients(),
                Staged::Settling(settling) => settling.count(&mut ledger),
                Staged::Again(..) | Staged::Carry(..) | Staged::Ordering(_) => {}
            }
        }
        let large = self.large.iter().filter(|settling| settling.is_complete());
        large.for_each(|settling| settling.count(&mut ledger));
        ledger
    }

    fn next_transaction(&mut self) -> u64 {
        // Unlike any of another run: group numbers only grow.
        self.transactions += 1;
        (self.journal.end().sequence + 1) << 20 | (self.transactions & 0xf_ffff)
    }

    fn write(&mut self, draft: &Draft, staged: Vec<Staged>, ledger: Ledger) {
        if draft.is_empty() {
            for one in staged {
                match one {
                    Staged::Again(accepted, to) => answer(to, Ok(accepted)),
                    Staged::Carry(_, to) => answer(to, Ok(0)),
                    Staged::Ordering(ordering) => answer(ordering.into_answer(), Ok(())),
                    Staged::Message(_) | Staged::Settling(_) => {}
                }
            }
            return;
        }
        let now = self.shared.now();
        self.shared.syncs.begin();
        let appended = self.journal.append(draft, now);
        self.shared.syncs.end();
        match appended {
            Ok((start, begun)) => {
                let written = Written {
                    start,
                    bodies_at: start.offset + HEADER as u64 + draft.records.bytes().len() as u64,
                    now,
                };
                self.commit(written, staged, ledger);
                if begun {
                    self.shared.wake_sweeper();
                }
            }
            Err(AppendError::NoRoom(error)) => {
                let why = format!("no room for a new segment: {error}");
                self.shared.room.segment(Err(why.clone()));
                self.fail(staged, &Error::Full(why));
            }
            Err(AppendError::Broken(error)) => {
                let reason = format!(
                    "journal segment {:016x}: {error}",
                    self.journal.end().generation
                );
                let poisoned = self.shared.poison(&reason);
                self.fail(staged, &poisoned);
            }
        }
    }

    fn fail(&mut self, staged: Vec<Staged>, error: &Error) {
        for one in staged {
            match one {
                Staged::Message(message) => answer(message.job.answer, Err(error.clone())),
                Staged::Again(_, to) => answer(to, Err(error.clone())),
                Staged::Carry(_, to) => answer(to, Err(error.clone())),
                Staged::Ordering(ordering) => answer(ordering.into_answer(), Err(error.clone())),
                Staged::Settling(settling) => settling.fail(&mut self.shared.state(), error),
            }
        }
        for settling in self.large.drain(..) {
            settling.fail(&mut self.shared.state(), error);
        }
    }

    // === What the group will hold ===

    fn stage_message(
        &self,
        mut job: AcceptJob,
        draft: &mut Draft,
        group_idents: &mut HashSet<IdentKey>,
    ) -> Option<Staged> {
        let count = job
            .batches
            .iter()
            .map(|packed| packed.batch.recipients.len());
        let mut paths = vec![Path::New; count.sum()];
        if !job.idents.is_empty() {
            for (path, key) in paths.iter_mut().zip(&job.idents) {
                match self.is_remembered(key, group_idents) {
                    Ok(true) => *path = Path::Again,
                    Ok(false) => {}
                    Err(error) => {
                        answer(job.answer, Err(self.shared.index_error(error)));
                        return None;
                    }
                }
            }
            leave_out(&mut job, &paths);
            group_idents.extend(&job.idents);
        }
        let accepted = Accepted {
            id: job.head.id,
            paths,
        };
        if job.batches.is_empty() {
            return Some(Staged::Again(accepted, job.answer));
        }
        let body = BodyPlace {
            offset: draft.body(&job.body),
            length: job.head.body_bytes,
            checksum: job.checksum,
        };
        let packed: Vec<Vec<u8>> = job
            .batches
            .iter_mut()
            .map(|packed| std::mem::take(&mut packed.bytes))
            .collect();
        let (head_at, batches_at) =
            draft
                .records
                .message(&job.packed_head, body, &packed, &job.idents);
        Some(Staged::Message(Box::new(StagedMessage {
            job,
            head_at,
            body,
            batches_at,
            accepted,
        })))
    }

    /// Looked for in the order in which a key travels: this group, memory, index. A key leaves memory only once it is in
    /// the index, so it cannot slip through in between.
    fn is_remembered(
        &self,
        key: &IdentKey,
        group_idents: &HashSet<IdentKey>,
    ) -> rusqlite::Result<bool> {
        if group_idents.contains(key) || self.shared.state().has_ident(key) {
            return Ok(true);
        }
        lookup::has_ident(&self.index, key, self.shared.idents_since())
    }

    // === The group is durable ===

    fn commit(&mut self, written: Written, staged: Vec<Staged>, ledger: Ledger) {
        let mut changes = Vec::new();
        let mut answers: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        let mut state = self.shared.state();
        for one in staged {
            match one {
                Staged::Message(message) => {
                    let (change, reply) = commit_message(*message, written, &mut state);
                    changes.push(change);
                    answers.push(reply);
                }
                Staged::Again(accepted, to) => answers.push(Box::new(|| answer(to, Ok(accepted)))),
                Staged::Settling(mut settling) => {
                    settling.resolve(written, &mut state);
                    answers.push(settling.finish(written, &mut state, &mut changes));
                }
                Staged::Carry(carried, to) => {
                    let count = carried.len();
                    for one in carried {
                        changes.push(commit_carry(one, written, &mut state));
                    }
                    answers.push(Box::new(move || answer(to, Ok(count))));
                }
                Staged::Ordering(ordering) => {
                    let to = ordering.finish(written, &mut state, &mut changes);
                    answers.push(Box::new(move || answer(to, Ok(()))));
                }
            }
        }
        let large = std::mem::take(&mut self.large);
        for mut settling in large {
            settling.resolve(written, &mut state);
            if settling.is_complete() {
                answers.push(settling.finish(written, &mut state, &mut changes));
            } else {
                self.large.push(settling);
            }
        }
        let end = self.journal.end();
        state.end = end;
        state.ledger = ledger;
        let open = self.large.iter().filter_map(Settling::start).min();
        let changes = Changes {
            generation: end.generation,
            sequence: end.sequence,
            time: written.now,
            changes,
            ledger: Some(ledger),
            resume: open.unwrap_or(end).min(end),
        };
        // Under the lock: the index must not have what memory does not know yet.
        let _ = self.shared.index_jobs.push(IndexJob::Changes(changes));
        drop(state);
        for reply in answers {
            reply();
        }
        self.shared.news.notify_waiters();
    }
}

fn refuse(job: Job, error: &Error) {
    match job {
        Job::Accept(job) => answer(job.answer, Err(error.clone())),
        Job::Settle(job) => answer(job.answer, Err(error.clone())),
        Job::Carry(_, to) => answer(to, Err(error.clone())),
        Job::Order(_, to) => answer(to, Err(error.clone())),
    }
}

/// Answers; nobody may wait any more, then the work stands all the same.
pub fn answer<T>(to: Answer<T>, what: Result<T, Error>) {
    let _ = to.send(what);
}
