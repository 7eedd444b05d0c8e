//! From the end of a job to its settlement: what a site's gate learns, when what is left is tried again.

use std::sync::Arc;
use std::time::Duration;

use mail::Timestamp;
use spool::{Ends, NewBatch, Outcome, Replies, Settlement};
use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::Run;
use crate::breaker::Crossing;
use crate::lane::Age;
use crate::outcome::{self, Again};
use crate::progress::Because;
use crate::retry::random;
use crate::rules::{Action, Order};
use crate::seat::{Key, Work};
use crate::work::{Done, End};

/// A batch that met a site's trouble before its gate was shut tries again after about this.
const SOON: Duration = Duration::from_secs(5);
/// A batch that is in hand as the probe of a shut site gives its place to another after this: others grow too old, or their senders
/// are to hear of the delay.
const PROBE_KEPT: Duration = Duration::from_secs(900);
/// A site that wants less gets mail that it pushed back again after this at the latest: how much goes is the gate's and the pace's
/// to say, not a long wait of each message.
const PUSHED_BACK_LONGEST: Duration = Duration::from_secs(900);

impl Run {
    pub(super) fn joined(&mut self, joined: std::result::Result<(Id, Done), JoinError>) {
        match joined {
            Ok((id, done)) => {
                self.under_way.remove(&id);
                self.done(done);
            }
            Err(error) => {
                let Some((key, work)) = self.under_way.remove(&error.id()) else {
                    return;
                };
                let message = work.lease.head.id;
                tracing::error!(event = "fault", %message, %error, "an attempt ended early; tried again later");
                self.parts
                    .metrics
                    .faults
                    .with_label_values(&["panic"])
                    .inc();
                self.done(Done::panicked(key, work));
            }
        }
    }

    /// A job has ended: its site learns, its batch is settled or kept as the next probe.
    pub(super) fn done(&mut self, done: Done) {
        let now = Instant::now();
        if let Some(key) = &done.key {
            self.attempts -= 1;
            self.attempts_old -= usize::from(done.work.age() == Age::Old);
            let (crossing, back) = self.hand.ended(
                key,
                done.work.lane,
                done.signal,
                done.order.as_ref(),
                done.trouble.clone(),
                now,
            );
            if let Some(order) = &done.order {
                self.heard(key, order, done.trouble.as_deref());
            }
            if let Some(crossing) = crossing {
                self.crossed(key, crossing);
            }
            self.back(key, back);
        }
        match done.end {
            End::Finished(ends) => self.settle(&done.work, Outcome::Finished, ends),
            End::Left {
                left,
                note,
                because,
                moved,
            } => {
                if because == Because::Site
                    && !self.shutdown.begun()
                    && left.refused.is_none()
                    && let Some(key) = &done.key
                    && self.keeps_probe(key, &done.work, now)
                {
                    let mut work = Arc::unwrap_or_clone(done.work);
                    work.lease.batch.recipients = left.recipients;
                    work.lease.batch.replies = left.replies;
                    work.ends += left.ends;
                    work.lease.batch.note = note;
                    return self.place(key, work);
                }
                let again = self.again(done.key.as_deref(), because, now);
                let schedule = &self.parts.settings.schedule;
                let wall = (self.parts.clock)();
                let ends = left.ends;
                let outcome = outcome::settled(
                    &done.work.lease,
                    left,
                    note,
                    again,
                    schedule,
                    wall,
                    random(),
                );
                let outcome = match (moved, outcome) {
                    (
                        Some(moved),
                        Outcome::Deferred {
                            until,
                            replies,
                            note,
                            attempted,
                            ..
                        },
                    ) => Outcome::Deferred {
                        until,
                        replies: Replies::default(),
                        note,
                        recipients: Vec::new(),
                        attempted,
                        moved: vec![NewBatch {
                            due: if moved.at_once { wall } else { until },
                            replies,
                            ..moved.batch
                        }],
                    },
                    (_, outcome) => outcome,
                };
                self.settle(&done.work, outcome, ends);
            }
        }
    }

    /// Whether a batch that met a dead site stays in hand as its next probe.
    fn keeps_probe(&mut self, key: &Arc<Key>, work: &Work, now: Instant) -> bool {
        let lacks = self.hand.lacks_probe(key);
        if lacks && work.claimed.elapsed() >= PROBE_KEPT {
            // Its place goes to what waits longest; what is too old among that is told so.
            self.hand.look(key, now);
            return false;
        }
        lacks
    }

    /// When what is left of a batch is tried again.
    pub(super) fn again(&self, key: Option<&Key>, because: Because, now: Instant) -> Again {
        let soon = SOON.min(self.parts.limits.probe_interval);
        match because {
            Because::Replies | Because::Fault => Again::Scheduled,
            Because::Paced(until) => Again::At(self.timestamp(until)),
            Because::PushedBack => match key.and_then(|key| self.hand.shut_until(key)) {
                Some(until) => Again::At(self.timestamp(until)),
                None => Again::Within(PUSHED_BACK_LONGEST),
            },
            Because::Stopping => Again::At((self.parts.clock)()),
            Because::Site => {
                let until = match key {
                    Some(key) => self.hand.shut_until(key),
                    // A lookup that failed.
                    None => Some(now + self.parts.limits.probe_interval),
                };
                let until = until.unwrap_or(now + soon.mul_f64(1.0 - 0.5 * random()));
                Again::At(self.timestamp(until))
            }
        }
    }

    pub(super) fn back(&mut self, key: &Arc<Key>, works: Vec<Work>) {
        let Some(until) = self.hand.shut_until(key) else {
            return;
        };
        let until = self.timestamp(until);
        let trouble: Box<str> = self.hand.trouble(key).into();
        let now = Instant::now();
        for work in works {
            if let Some(work) = self.end_of_waiting(key, work, now) {
                self.give_back(work, until, &trouble);
            }
        }
    }

    /// Not attempted, due again then.
    pub(super) fn give_back(&self, work: Work, until: Timestamp, trouble: &str) {
        let lease = &work.lease;
        let replies = match trouble {
            "" => lease.batch.replies.clone(),
            trouble => Replies::all(trouble),
        };
        let outcome = Outcome::Deferred {
            until,
            replies,
            note: lease.batch.note.clone(),
            recipients: lease.batch.recipients.clone(),
            attempted: false,
            moved: Vec::new(),
        };
        self.settle(&work, outcome, Ends::default());
    }

    /// `ends`: of this attempt; those of earlier ones of the same lease are added.
    pub(super) fn settle(&self, work: &Work, outcome: Outcome, mut ends: Ends) {
        ends += work.ends;
        self.settler.settle(Settlement {
            batch: work.lease.batch.id,
            token: work.lease.token,
            outcome,
            ends,
        });
    }

    pub(super) fn crossed(&self, key: &Key, crossing: Crossing) {
        let trouble = self.hand.trouble(key);
        let crossings = &self.parts.metrics.crossings;
        match crossing {
            Crossing::Shut => {
                crossings.with_label_values(&["shut"]).inc();
                tracing::warn!(event = "site", site = %key, gate = "shut", reply = trouble, "not reached; probed from now on");
            }
            Crossing::Opened => {
                crossings.with_label_values(&["open"]).inc();
                tracing::info!(event = "site", site = %key, gate = "open", "reached again");
            }
            Crossing::Limited(window) => {
                crossings.with_label_values(&["limited"]).inc();
                tracing::info!(event = "site", site = %key, gate = "limited", window, reply = trouble, "asked for less");
            }
        }
    }

    /// A provider's rule has fitted.
    fn heard(&self, key: &Key, order: &Order, reply: Option<&str>) {
        let rule = &*order.rule;
        self.parts.metrics.rules.with_label_values(&[rule]).inc();
        let reply = reply.unwrap_or_default();
        match order.action {
            Action::Shut => {
                tracing::warn!(event = "rule", site = %key, rule, reply, "the provider objects to this host");
            }
            _ => tracing::debug!(event = "rule", site = %key, rule, reply),
        }
    }

    /// A moment of the monotonic clock on the wall clock.
    pub(super) fn timestamp(&self, at: Instant) -> Timestamp {
        (self.parts.clock)().after(at.saturating_duration_since(Instant::now()))
    }
}
