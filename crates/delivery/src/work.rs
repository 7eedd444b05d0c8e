//! Working on one claimed batch: its body, its copies, their transactions, its end told to the owner.
//!
//! It never settles and knows no gate: what it learnt goes back to the loop as [`Done`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::Reply;
use service::shutdown::Shutdown;
use spool::{Destination, Ends, Lane, Lease, NewBatch};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attempt::{Attempted, Copy, Result};
use crate::bodies::Bodies;
use crate::breaker::Signal;
use crate::ends::{Ends as Newest, Told};
use crate::engine::{Clock, Owner};
use crate::expiry::Expiry;
use crate::lane;
use crate::metrics::Metrics;
use crate::outcome::{self, Left};
use crate::pace::Pace;
use crate::progress::{Because, Progress};
use crate::rules::{Action, Order, Rules};
use crate::seat::{Key, Work};
use crate::transport::{Transport, Way};

/// An attempt waits so long for the turn of its next copy; if that is farther ahead, the rest of its batch is put back, so that slow
/// sites do not hold attempts.
const AHEAD_MAX: Duration = Duration::from_secs(2);

/// What is to be done with a batch.
pub(crate) enum Job {
    /// Try it there, no faster than that; the first message is paid for.
    Attempt(Arc<Key>, Arc<Pace>),
    /// Nothing needs to be tried: this is what came of each recipient, and whether a provider's rule against this host is the
    /// reason.
    Told(Result, bool),
}

/// What came of a job.
pub(crate) struct Done {
    pub(crate) work: Arc<Work>,
    /// Where it was attempted.
    pub(crate) key: Option<Arc<Key>>,
    pub(crate) signal: Signal,
    /// What a provider's rule wants of the site.
    pub(crate) order: Option<Order>,
    /// Why the site could not be reached, in one line.
    pub(crate) trouble: Option<Box<str>>,
    pub(crate) end: End,
}

/// What becomes of the batch.
#[derive(Debug)]
pub(crate) enum End {
    /// Nobody is left, or the batch cannot be worked on by anybody; how its recipients ended.
    Finished(Ends),
    /// These are left.
    Left {
        left: Left,
        note: Bytes,
        because: Because,
        /// They go on elsewhere.
        moved: Option<Box<Moved>>,
    },
}

/// The batch that takes the place of one that is left.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) batch: NewBatch,
    /// It waits for nothing but the gate there: what left it is that gate's trouble.
    pub(crate) at_once: bool,
}

/// What all jobs share.
pub(crate) struct Worker {
    pub(crate) bodies: Bodies,
    pub(crate) owner: Arc<dyn Owner>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) expiry: Expiry,
    pub(crate) rules: Arc<Rules>,
    /// How fast backlog and retries may go.
    pub(crate) drain: Arc<Pace>,
    /// Where the ends of recipients are told.
    pub(crate) ends: Arc<Newest>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
    /// Turns true when what is still under way is given up.
    pub(crate) cut: watch::Receiver<bool>,
}

impl Done {
    pub(crate) fn panicked(key: Option<Arc<Key>>, work: Arc<Work>) -> Self {
        Self {
            end: fault(&work.lease, "internal error"),
            work,
            key,
            signal: Signal::Nothing,
            order: None,
            trouble: None,
        }
    }
}

impl Worker {
    /// Works on a batch to its end.
    pub(crate) async fn run(&self, work: Arc<Work>, job: Job) -> Done {
        let began = Instant::now();
        let (key, progress) = match job {
            Job::Told(result, policy) => {
                let progress = Progress::told(&work.lease.batch, &result, policy);
                (None, Ok(progress))
            }
            Job::Attempt(key, pace) => {
                let progress = self.attempt(&work, &key, &pace).await;
                (Some(key), progress)
            }
        };
        let (signal, order, trouble, end) = match progress {
            Ok(progress) => {
                let Progress {
                    attempted, because, ..
                } = progress;
                let site = key.as_ref().map(|key| key.to_string());
                let end = self.conclude(&work, site, attempted, because).await;
                (progress.signal, progress.order, progress.trouble, end)
            }
            Err(end) => (Signal::Nothing, None, None, end),
        };
        if key.is_some() {
            self.metrics
                .attempt_seconds
                .with_label_values(&[lane::label(work.lane)])
                .observe(began.elapsed().as_secs_f64());
        }
        Done {
            work,
            key,
            signal,
            order,
            trouble,
            end,
        }
    }

    async fn attempt(
        &self,
        work: &Work,
        key: &Arc<Key>,
        pace: &Pace,
    ) -> std::result::Result<Progress, End> {
        let lease = &work.lease;
        let body = match self.bodies.get(&lease.head).await {
            Ok(body) => body,
            Err(error) => return Err(self.no_body(lease, &error)),
        };
        let copies = match self.owner.render(&lease.head, &lease.batch, &body.bytes) {
            Ok(copies) => copies,
            Err(reply) => {
                let failed = Result::Failed(reply);
                return Ok(Progress::told(&lease.batch, &failed, false));
            }
        };
        if let Err(wrong) = outcome::check_copies(&lease.batch, &copies) {
            let message = lease.head.id;
            tracing::error!(event = "fault", %message, %wrong, "copies do not fit their batch; not sent");
            self.metrics.faults.with_label_values(&["render"]).inc();
            return Err(fault(lease, "copies do not fit their batch"));
        }
        Ok(self.pass_all(work, key, pace, &copies).await)
    }

    /// The copies one after the other: they share a connection, and their order is kept.
    async fn pass_all(
        &self,
        work: &Work,
        key: &Arc<Key>,
        pace: &Pace,
        copies: &[Copy],
    ) -> Progress {
        let lease = &work.lease;
        let mut cut = self.cut.clone();
        let mut progress = Progress::new(key, &self.rules);
        let way = self.way(lease, key);
        for (at, copy) in copies.iter().enumerate() {
            if at > 0 && self.shutdown.begun() {
                progress.because = Because::Stopping;
                break;
            }
            if let Err(because) = self.wait_for_turn(work, pace, copy, at == 0).await {
                progress.because = because;
                break;
            }
            let passed = tokio::select! {
                passed = self.transport.pass(&way, copy) => passed,
                _ = cut.wait_for(|cut| *cut) => {
                    progress.because = Because::Stopping;
                    break;
                }
            };
            let goes_on = match passed {
                Ok(passed) => {
                    self.count("answered");
                    progress.answered(lease, copy, passed)
                }
                Err(stopped) => {
                    self.count("broken");
                    progress.broke(lease, &copies[at..], &stopped)
                }
            };
            if !goes_on {
                break;
            }
        }
        progress
    }

    fn way(&self, lease: &Lease, key: &Arc<Key>) -> Way {
        Way {
            key: key.clone(),
            egress: self.owner.egress(&lease.head, &lease.batch),
            domain: match &lease.batch.destination {
                Destination::Domain(domain) => Some(domain.clone()),
                _ => None,
            },
        }
    }

    /// Waits until one more copy may go, as fast as the site and the drain allow; the first message of a batch is paid for.
    async fn wait_for_turn(
        &self,
        work: &Work,
        pace: &Pace,
        copy: &Copy,
        is_first: bool,
    ) -> std::result::Result<(), Because> {
        let now = Instant::now();
        let paid = usize::from(is_first);
        let reserved = |pace: &Pace, count| {
            let reserved = pace.reserve(count, AHEAD_MAX, now);
            reserved.map_err(Because::Paced)
        };
        let mut turn = reserved(pace, 1 - paid)?;
        if let Lane::Backlog | Lane::Retry = work.lane {
            let recipients = copy.envelope.recipients.len();
            turn = turn.max(reserved(&self.drain, recipients.saturating_sub(paid))?);
        }
        if turn <= now {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep_until(turn) => Ok(()),
            () = self.shutdown.wait() => Err(Because::Stopping),
        }
    }

    /// Tells the owner, and says who is left.
    async fn conclude(
        &self,
        work: &Work,
        site: Option<String>,
        mut attempted: Vec<Attempted>,
        because: Because,
    ) -> End {
        let lease = &work.lease;
        let now = (self.clock)();
        outcome::give_up(&mut attempted, &self.expiry, lease, now);
        let delay = now.since(lease.head.accepted).as_secs_f64();
        self.metrics.attempted(&attempted, work.lane, delay);
        let told = Told {
            lease,
            lane: work.lane,
            site: site.unwrap_or_default(),
            attempted: &attempted,
            now,
        };
        self.ends.tell(&*self.owner, &told);
        let concluded = match attempted.is_empty() {
            true => Ok(lease.batch.note.clone()),
            false => self.owner.conclude(lease, &attempted).await,
        };
        let (note, concluded, because) = match concluded {
            Ok(note) => (note, true, because),
            Err(error) => {
                let message = lease.head.id;
                tracing::error!(event = "fault", %message, %error, "what must follow an attempt cannot be accepted; tried again later");
                self.metrics.faults.with_label_values(&["conclude"]).inc();
                (lease.batch.note.clone(), false, Because::Fault)
            }
        };
        let aside = self.owner.keeps_refused(&lease.batch);
        let left = outcome::left(&lease.batch, &attempted, concluded, aside, now);
        if left.is_nobody() {
            return End::Finished(left.ends);
        }
        let moved = self.moved(work, &attempted, &left, &note, because);
        End::Left {
            left,
            note,
            because,
            moved,
        }
    }

    /// Asks the owner, when replies have left all of a batch, whether it goes on elsewhere.
    fn moved(
        &self,
        work: &Work,
        attempted: &[Attempted],
        left: &Left,
        note: &Bytes,
        because: Because,
    ) -> Option<Box<Moved>> {
        let all = left.recipients.len() == work.lease.batch.recipients.len();
        let replied = matches!(because, Because::Replies | Because::PushedBack);
        if !all || !replied || work.ends.sum() + left.ends.sum() > 0 {
            return None;
        }
        let batch = self.owner.moves(&work.lease, &left.recipients, note)?;
        let there = match &batch.destination {
            Destination::Route(name) => Some(Key::Route(name.clone())),
            Destination::Inside => Some(Key::Route("".into())),
            Destination::Expand | Destination::Domain(_) => None,
        };
        let at_once = there.is_some_and(|key| {
            let rules = attempted.iter().map(|one| {
                self.rules
                    .find(&key, Some(&one.recipient), one.result.reply())
            });
            rules.flatten().any(|rule| rule.action == Action::Away)
        });
        Some(Box::new(Moved { batch, at_once }))
    }

    fn no_body(&self, lease: &Lease, error: &spool::Error) -> End {
        let message = lease.head.id;
        let recipients = lease.batch.recipients.len() as u64;
        match error {
            // The spool has set the message aside with its envelope. It is not bounced: an operator may still mend it.
            spool::Error::Corrupt(_, aside) => {
                tracing::error!(
                    event = "corrupt",
                    %message,
                    recipients,
                    aside = %aside.display(),
                    "the body does not match its checksum; it was set aside and is not delivered, an operator must look"
                );
            }
            // Where somebody else has settled it meanwhile, this settlement has no effect. Otherwise it is lost, and that is told.
            spool::Error::Unknown(_) => {
                for recipient in &lease.batch.recipients {
                    tracing::error!(
                        event = "lost",
                        %message,
                        from = %lease.head.reverse_path,
                        to = %recipient.address,
                        "the message is not in the spool any more; not delivered, an operator must look"
                    );
                }
            }
            error => {
                tracing::warn!(event = "fault", %message, %error, "the body cannot be read; tried again later");
                self.metrics.faults.with_label_values(&["spool"]).inc();
                return fault(lease, "the body cannot be read");
            }
        }
        self.metrics.corrupt.inc();
        End::Finished(Ends {
            set_aside: recipients,
            ..Ends::default()
        })
    }

    fn count(&self, outcome: &str) {
        self.metrics
            .transactions
            .with_label_values(&[outcome])
            .inc();
    }
}

/// Everybody is left, through nobody's fault but ours.
fn fault(lease: &Lease, what: &str) -> End {
    End::Left {
        left: Left::all(&lease.batch, &Reply::new(451, (4, 3, 0), what)),
        note: lease.batch.note.clone(),
        because: Because::Fault,
        moved: None,
    }
}
