//! What stands in a group that is being written, and what it becomes once the group is durable.

use std::sync::Arc;

use mail::Timestamp;

use super::change::{self, Change};
use super::content;
use super::entry::{Entry, MessagePlace, Position, Track};
use super::group::{Draft, HEADER};
use super::job::{AcceptJob, Answer, Carry, Packed};
use super::ordering::Ordering;
use super::record::{BodyPlace, Stretch};
use super::settling::Settling;
use super::shared::Shared;
use super::state::{Present, State};
use super::writer::answer;
use crate::{Accepted, Batch, Path};

/// A group's place and time.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Where it starts.
    pub start: Position,
    /// Where its bodies start.
    pub bodies_at: u64,
    /// When.
    pub now: Timestamp,
}

impl Written {
    /// A stretch of its records as a span.
    pub fn span(&self, at: Stretch) -> super::entry::Span {
        change::span(self.start.generation, self.start.offset + HEADER as u64, at)
    }
}

/// A message that stands in the group.
#[derive(Debug)]
pub struct StagedMessage {
    /// The job.
    pub job: AcceptJob,
    /// Where its head stands.
    pub head_at: Stretch,
    /// Its body.
    pub body: BodyPlace,
    /// Where its batches stand.
    pub batches_at: Vec<Stretch>,
    /// The answer.
    pub accepted: Accepted,
}

impl StagedMessage {
    /// Recipients for whom it is accepted.
    pub fn recipients(&self) -> u64 {
        let batches = self.job.batches.iter();
        batches
            .map(|packed| packed.batch.recipients.len() as u64)
            .sum()
    }
}

/// What is answered once the group is durable.
#[derive(Debug)]
pub enum Staged {
    /// A message.
    Message(Box<StagedMessage>),
    /// Every path was accepted before.
    Again(Accepted, Answer<Accepted>),
    /// A settlement that fits the group.
    Settling(Box<Settling>),
    /// What is carried forward.
    Carry(Vec<StagedCarry>, Answer<usize>),
    /// Orders.
    Ordering(Ordering),
}

/// Something carried forward that stands in the group.
#[derive(Debug)]
pub enum StagedCarry {
    /// A message.
    Message {
        /// Where it stood.
        old: MessagePlace,
        /// Where its head stands.
        head_at: Stretch,
        /// Its body.
        body: BodyPlace,
        /// Its batches as they stood, and where they stand.
        batches: Vec<(Entry, Stretch)>,
    },
    /// A batch as it stood, and where it stands.
    State(Entry, Stretch),
    /// What needs no place.
    Other(Change),
}

/// Adds what is carried forward and was not changed meanwhile.
pub fn stage_carry(shared: &Shared, items: Vec<Carry>, draft: &mut Draft) -> Vec<StagedCarry> {
    let mut staged = Vec::new();
    for item in items {
        match item {
            Carry::Message {
                old,
                head,
                body,
                batches,
            } => {
                let state = shared.state();
                let unchanged = state.carrying.contains(&old.id)
                    && !state.leases.has_message(old.id)
                    && batches.iter().all(|(entry, _)| state.is_idle(entry.id));
                drop(state);
                if !unchanged {
                    continue;
                }
                let body = BodyPlace {
                    offset: draft.body(&[body]),
                    length: old.body_length,
                    checksum: old.checksum,
                };
                let (entries, packed): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
                let (head_at, at) = draft.records.message(&head, body, &packed, &[]);
                staged.push(StagedCarry::Message {
                    old,
                    head_at,
                    body,
                    batches: entries.into_iter().zip(at).collect(),
                });
            }
            Carry::State { old, bytes } => {
                let state = shared.state();
                if state.carrying.contains(&old.message) && state.is_idle(old.id) {
                    drop(state);
                    let arrival = Timestamp(old.arrival);
                    let at = draft.records.state(None, old.message, arrival, &bytes);
                    staged.push(StagedCarry::State(old, at));
                }
            }
            Carry::Finished(all) => {
                for (message, batch, generation) in all {
                    draft.records.finished(None, message, batch, generation);
                    staged.push(StagedCarry::Other(Change::Finished {
                        message,
                        batch,
                        generation,
                    }));
                }
            }
            Carry::Idents(idents) => {
                draft.records.idents(&idents);
                staged.push(StagedCarry::Other(Change::Idents(idents)));
            }
            Carry::Done(generation) => {
                draft.records.carried(generation);
                staged.push(StagedCarry::Other(Change::Carried(generation)));
            }
        }
    }
    staged
}

/// A message is durable: it counts. Returns the answer to be given.
pub fn commit_message(
    message: StagedMessage,
    written: Written,
    state: &mut State,
) -> (Change, Box<dyn FnOnce() + Send>) {
    let job = message.job;
    let place = MessagePlace {
        id: job.head.id,
        head: written.span(message.head_at),
        body_offset: written.bodies_at + message.body.offset,
        body_length: message.body.length,
        checksum: message.body.checksum,
    };
    let presents: Vec<Present> = job
        .batches
        .iter()
        .zip(&message.batches_at)
        .map(|(packed, at)| {
            present(
                &packed.batch,
                &job.head.id,
                job.head.arrival,
                written,
                *at,
                state,
            )
        })
        .collect();
    let entries = presents.iter().map(|(entry, _)| entry.clone()).collect();
    let sequence = written.start.sequence;
    state.accepted(sequence, place, job.head, presents, &job.idents);
    let change = Change::Message {
        place,
        entries,
        idents: job.idents,
    };
    let accepted = message.accepted;
    let to = job.answer;
    (change, Box::new(move || answer(to, Ok(accepted))))
}

/// What was carried forward is durable.
pub fn commit_carry(carried: StagedCarry, written: Written, state: &mut State) -> Change {
    let sequence = written.start.sequence;
    let again = |old: &Entry, at: Stretch, state: &mut State| {
        let mut new = Entry {
            span: written.span(at),
            ..old.clone()
        };
        if new.track == Track::Waiting && new.due <= written.now.0 {
            new.track = Track::Ripe;
        }
        state.moved(sequence, old, new.clone());
        new
    };
    match carried {
        StagedCarry::Message {
            old,
            head_at,
            body,
            batches,
        } => {
            let place = MessagePlace {
                head: written.span(head_at),
                body_offset: written.bodies_at + body.offset,
                ..old
            };
            state.message_moved(sequence, place);
            let entries = batches
                .iter()
                .map(|(old, at)| again(old, *at, state))
                .collect();
            Change::Message {
                place,
                entries,
                idents: Vec::new(),
            }
        }
        StagedCarry::State(old, at) => Change::State(again(&old, at, state)),
        StagedCarry::Other(change) => change,
    }
}

/// The entry of a batch that was just written.
pub fn present(
    batch: &Arc<Batch>,
    message: &mail::MessageId,
    arrival: Timestamp,
    written: Written,
    at: Stretch,
    state: &mut State,
) -> Present {
    let number = state.numbers.number(&batch.destination);
    let span = written.span(at);
    let entry = change::entry(batch, &[], *message, arrival, number, span, written.now);
    (entry, batch.clone())
}

/// Leaves out of the batches whom an ident was accepted for before.
pub fn leave_out(job: &mut AcceptJob, paths: &[Path]) {
    if paths.iter().all(|path| *path == Path::New) {
        return;
    }
    let mut rest = paths.iter();
    for packed in &mut job.batches {
        let mut batch = Batch::clone(&packed.batch);
        let before = batch.recipients.len();
        batch
            .recipients
            .retain(|_| rest.next().is_some_and(|path| *path == Path::New));
        if batch.recipients.len() != before {
            *packed = Packed {
                bytes: content::encode_batch(&batch, &[]),
                batch: Arc::new(batch),
            };
        }
    }
    job.batches
        .retain(|packed| !packed.batch.recipients.is_empty());
    let mut rest = paths.iter();
    job.idents
        .retain(|_| rest.next().is_some_and(|path| *path == Path::New));
}
