//! Working on one claimed batch: its body, its copies, their transactions, its end told to the owner.
//!
//! It never settles and knows no gate: what it learnt goes back to the loop as [`Done`].

use std::sync::Arc;

use bytes::Bytes;
use mail::Reply;
use service::shutdown::Shutdown;
use smtp::client::Cause;
use spool::{Ends, Lease};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attempt::{Attempted, Copy, Result, is_push_back, is_site_trouble, reply_of};
use crate::bodies::Bodies;
use crate::breaker::Signal;
use crate::engine::{Clock, Owner};
use crate::lane;
use crate::metrics::Metrics;
use crate::outcome::{self, Left};
use crate::pool::Stopped;
use crate::retry::Schedule;
use crate::seat::{Key, Work};
use crate::transport::Transport;

/// Transactions of one batch that may break on its own account before the rest of it waits for the next attempt. One would
/// let a single recipient that makes a peer hang up keep all behind it waiting for ever.
const BROKEN_MAX: usize = 3;

/// What is to be done with a batch.
pub(crate) enum Job {
    /// Try it there.
    Attempt(Arc<Key>),
    /// Nothing needs to be tried: this is what came of each recipient.
    Told(Result),
}

/// What came of a job.
pub(crate) struct Done {
    pub(crate) work: Arc<Work>,
    /// Where it was attempted.
    pub(crate) key: Option<Arc<Key>>,
    pub(crate) signal: Signal,
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
    },
}

/// Why somebody is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Because {
    /// Replies that concern recipients, or this message.
    Replies,
    /// The site.
    Site,
    /// A fault of this host.
    Fault,
    /// The engine stops.
    Stopping,
}

/// What all jobs share.
pub(crate) struct Worker {
    pub(crate) bodies: Bodies,
    pub(crate) owner: Arc<dyn Owner>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) schedule: Schedule,
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
            trouble: None,
        }
    }
}

/// How far the transactions of a batch came.
struct Progress {
    attempted: Vec<Attempted>,
    signal: Signal,
    trouble: Option<Box<str>>,
    because: Because,
}

impl Worker {
    /// Works on a batch to its end.
    pub(crate) async fn run(&self, work: Arc<Work>, job: Job) -> Done {
        let began = Instant::now();
        let (key, progress) = match job {
            Job::Told(result) => (None, Ok(told(&work.lease, &result))),
            Job::Attempt(key) => {
                let progress = self.attempt(&work.lease, &key).await;
                (Some(key), progress)
            }
        };
        let (signal, trouble, end) = match progress {
            Ok(progress) => {
                let end = self
                    .conclude(&work, progress.attempted, progress.because)
                    .await;
                (progress.signal, progress.trouble, end)
            }
            Err(end) => (Signal::Nothing, None, end),
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
            trouble,
            end,
        }
    }

    async fn attempt(&self, lease: &Lease, key: &Key) -> std::result::Result<Progress, End> {
        let body = match self.bodies.get(&lease.head).await {
            Ok(body) => body,
            Err(error) => return Err(self.no_body(lease, &error)),
        };
        let copies = match self.owner.render(&lease.head, &lease.batch, &body.bytes) {
            Ok(copies) => copies,
            Err(reply) => return Ok(told(lease, &Result::Failed(reply))),
        };
        if let Err(wrong) = outcome::check_copies(&lease.batch, &copies) {
            let message = lease.head.id;
            tracing::error!(event = "fault", %message, %wrong, "copies do not fit their batch; not sent");
            self.metrics.faults.with_label_values(&["render"]).inc();
            return Err(fault(lease, "copies do not fit their batch"));
        }
        Ok(self.pass_all(lease, key, &copies).await)
    }

    /// The copies one after the other: they share a connection, and their order is kept.
    async fn pass_all(&self, lease: &Lease, key: &Key, copies: &[Copy]) -> Progress {
        let mut cut = self.cut.clone();
        let mut progress = Progress {
            attempted: Vec::with_capacity(lease.batch.recipients.len()),
            signal: Signal::Nothing,
            trouble: None,
            because: Because::Replies,
        };
        let mut broken = 0;
        for (at, copy) in copies.iter().enumerate() {
            if at > 0 && self.shutdown.begun() {
                progress.because = Because::Stopping;
                break;
            }
            let passed = tokio::select! {
                passed = self.transport.pass(key, copy) => passed,
                _ = cut.wait_for(|cut| *cut) => {
                    progress.because = Because::Stopping;
                    break;
                }
            };
            match passed {
                Ok((replies, remote)) => {
                    self.count("answered");
                    progress.answered(copy, replies, &remote);
                }
                Err(stopped) => {
                    self.count("broken");
                    let own = !is_site_trouble(stopped.trouble.phase);
                    broken += 1;
                    let rest = match own && broken < BROKEN_MAX {
                        true => std::slice::from_ref(copy),
                        false => &copies[at..],
                    };
                    progress.broke(rest, &stopped);
                    if rest.len() != 1 || !own {
                        break;
                    }
                }
            }
        }
        progress
    }

    /// Tells the owner, and says who is left.
    async fn conclude(&self, work: &Work, mut attempted: Vec<Attempted>, because: Because) -> End {
        let lease = &work.lease;
        let now = (self.clock)();
        outcome::give_up(&mut attempted, &self.schedule, lease.head.accepted, now);
        let delay = now.since(lease.head.accepted).as_secs_f64();
        self.metrics.attempted(&attempted, work.lane, delay);
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
        let left = outcome::left(&lease.batch, &attempted, concluded);
        match left.recipients.is_empty() {
            true => End::Finished(left.ends),
            false => End::Left {
                left,
                note,
                because,
            },
        }
    }

    fn no_body(&self, lease: &Lease, error: &spool::Error) -> End {
        let message = lease.head.id;
        match error {
            // The spool has set the message aside with its envelope. It is not bounced: an operator may still mend it.
            spool::Error::Corrupt(_, aside) => {
                let recipients = lease.batch.recipients.len() as u64;
                tracing::error!(
                    event = "corrupt",
                    %message,
                    recipients,
                    aside = %aside.display(),
                    "the body does not match its checksum; it was set aside and is not delivered, an operator must look"
                );
                self.metrics.corrupt.inc();
                End::Finished(Ends {
                    set_aside: recipients,
                    ..Ends::default()
                })
            }
            spool::Error::Unknown(_) => {
                tracing::warn!(event = "gone", %message, "settled by somebody else meanwhile");
                End::Finished(Ends::default())
            }
            error => {
                tracing::warn!(event = "fault", %message, %error, "the body cannot be read; tried again later");
                self.metrics.faults.with_label_values(&["spool"]).inc();
                fault(lease, "the body cannot be read")
            }
        }
    }

    fn count(&self, outcome: &str) {
        self.metrics
            .transactions
            .with_label_values(&[outcome])
            .inc();
    }
}

impl Progress {
    /// One transaction has ended with a reply for each recipient.
    fn answered(&mut self, copy: &Copy, replies: Vec<Reply>, remote: &str) {
        let pushed_back = replies.iter().any(is_push_back);
        self.signal = match pushed_back {
            true => Signal::PushedBack,
            false => Signal::Reached,
        };
        self.trouble = replies
            .iter()
            .find(|reply| is_push_back(reply))
            .map(|reply| reply.to_string().into());
        let missing = || {
            Reply::new(
                451,
                (4, 5, 0),
                "the next hop gave no reply to this recipient",
            )
        };
        let replies = replies.into_iter().chain(std::iter::repeat_with(missing));
        let recipients = copy.envelope.recipients.iter().zip(&copy.indices);
        for ((recipient, &index), reply) in recipients.zip(replies) {
            self.attempted.push(Attempted {
                recipient: recipient.clone(),
                index,
                result: Result::of(reply),
                remote: Some(remote.into()),
            });
        }
    }

    /// A connection broke under the first of these copies; the others are not tried.
    fn broke(&mut self, copies: &[Copy], stopped: &Stopped) {
        let reply = reply_of(&stopped.trouble);
        let result = Result::of(reply.clone());
        if is_site_trouble(stopped.trouble.phase) {
            self.signal = match (&stopped.trouble.cause, &result) {
                // That a host never takes mail, or that there is none, says nothing about when it will.
                (_, Result::Failed(_)) => Signal::Nothing,
                (Cause::Refused(_), _) if stopped.remote.is_some() => Signal::TurnedAway,
                _ => Signal::Unreached,
            };
            self.because = Because::Site;
        } else {
            // It took MAIL: the site is there. Whether it is the message that makes it hang up is not known.
            self.signal = match is_push_back(&reply) {
                true => Signal::PushedBack,
                false => Signal::Reached,
            };
        }
        self.trouble = Some(reply.to_string().into());
        for copy in copies {
            for (recipient, &index) in copy.envelope.recipients.iter().zip(&copy.indices) {
                self.attempted.push(Attempted {
                    recipient: recipient.clone(),
                    index,
                    result: result.clone(),
                    remote: stopped.remote.clone(),
                });
            }
        }
    }
}

fn told(lease: &Lease, result: &Result) -> Progress {
    Progress {
        attempted: outcome::all(&lease.batch, result),
        signal: Signal::Nothing,
        trouble: None,
        because: Because::Site,
    }
}

/// Everybody is left, through nobody's fault but ours.
fn fault(lease: &Lease, what: &str) -> End {
    End::Left {
        left: Left {
            recipients: lease.batch.recipients.clone(),
            reply: Reply::new(451, (4, 3, 0), what).to_string().into(),
            ends: Ends::default(),
        },
        note: lease.batch.note.clone(),
        because: Because::Fault,
    }
}
