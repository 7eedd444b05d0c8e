//! What an attempt means for its batch: results by recipient, and the settlement. Pure; the clock and chance are passed in.

use std::time::Duration;

use bytes::Bytes;
use mail::{Recipient, Reply, Timestamp};
use spool::{Batch, Destination, Ends, Lease, NewBatch, Outcome, Replies};

use crate::attempt::{Attempted, Copy, Result};
use crate::expiry::Expiry;
use crate::retry::Schedule;

/// A batch's recipients by what is left of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) recipients: Vec<Recipient>,
    /// The last reply of each of them, in one line.
    pub(crate) replies: Replies,
    /// Those who were refused for good and wait for an operator.
    pub(crate) refused: Option<Box<NewBatch>>,
    /// How the others ended.
    pub(crate) ends: Ends,
}

/// Where those go who are refused for good and have not ended with it, and the template of their batch.
pub(crate) type Aside = (Destination, Bytes);

impl Left {
    /// Everybody, and this is why.
    pub(crate) fn all(batch: &Batch, why: &Reply) -> Self {
        Self {
            recipients: batch.recipients.clone(),
            replies: Replies::all(&why.to_string()),
            refused: None,
            ends: Ends::default(),
        }
    }

    /// Nobody waits any more.
    pub(crate) fn is_nobody(&self) -> bool {
        self.recipients.is_empty() && self.refused.is_none()
    }
}

/// Gives up what is too old: a deferral of mail accepted here so long ago is a failure (RFC 3463 X.4.7).
pub(crate) fn give_up(attempted: &mut [Attempted], expiry: &Expiry, lease: &Lease, now: Timestamp) {
    let Some(after) = expiry.over(&lease.head, &lease.batch.destination, now) else {
        return;
    };
    for one in attempted {
        if let Result::Deferred(last) = &one.result {
            one.result = Result::Expired(too_old(last, after));
        }
    }
}

fn too_old(last: &Reply, after: Duration) -> Reply {
    let hours = after.as_secs() / 3600;
    Reply::new(
        554,
        (5, 4, 7),
        format!("given up after {hours} hours; the last reply was: {last}"),
    )
}

/// Those of a batch that are not done. `concluded` is false when the owner could not take note of what was attempted: those
/// that failed then stay as well, to fail again; what was delivered is never sent twice for that. `aside`: see [`Aside`].
pub(crate) fn left(
    batch: &Batch,
    attempted: &[Attempted],
    concluded: bool,
    aside: Option<Aside>,
    now: Timestamp,
) -> Left {
    let mut done = vec![false; batch.recipients.len()];
    let mut said: Vec<Option<String>> = vec![None; batch.recipients.len()];
    let mut refused = Vec::new();
    let mut ends = Ends::default();
    for one in attempted {
        if !matches!(one.result, Result::Delivered(_)) {
            said[one.index] = Some(one.result.reply().to_string());
        }
        let end = match &one.result {
            Result::Delivered(_) => Some(&mut ends.delivered),
            Result::Failed(_) if concluded && aside.is_some() => {
                if !std::mem::replace(&mut done[one.index], true) {
                    refused.push(one.index);
                }
                None
            }
            Result::Failed(_) if concluded => Some(&mut ends.bounced),
            Result::Expired(_) if concluded => Some(&mut ends.expired),
            Result::Failed(_) | Result::Expired(_) | Result::Deferred(_) => None,
        };
        if let Some(end) = end
            && !std::mem::replace(&mut done[one.index], true)
        {
            *end += 1;
        }
    }
    // Who was not reached this time comes first the next time: nobody stands in the way of others for ever.
    let mut tried = vec![false; batch.recipients.len()];
    attempted.iter().for_each(|one| tried[one.index] = true);
    let mut places: Vec<usize> = (0..done.len()).filter(|at| !done[*at]).collect();
    places.sort_by_key(|at| tried[*at]);
    let recipients = |places: &[usize]| {
        let those = places.iter().map(|at| batch.recipients[*at].clone());
        those.collect::<Vec<_>>()
    };
    let replies = |places: &[usize]| {
        let those = places.iter().map(|at| match &said[*at] {
            Some(said) => said,
            // Not reached this time.
            None => batch.replies.of(*at),
        });
        those.collect::<Replies>()
    };
    let refused = aside
        .filter(|_| !refused.is_empty())
        .map(|(destination, template)| {
            Box::new(NewBatch {
                destination,
                class: batch.class,
                due: now,
                recipients: recipients(&refused),
                template,
                replies: replies(&refused),
            })
        });
    Left {
        ends,
        recipients: recipients(&places),
        replies: replies(&places),
        refused,
    }
}

/// When a batch that is left is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// After its own wait: replies concerned its recipients.
    Scheduled,
    /// Likewise, but after this at the latest.
    Within(Duration),
    /// Then; it does not count as an attempt.
    At(Timestamp),
}

/// The settlement of a lease of which this is left.
pub(crate) fn settled(
    lease: &Lease,
    left: Left,
    note: Bytes,
    again: Again,
    schedule: &Schedule,
    now: Timestamp,
    random: f64,
) -> Outcome {
    if left.is_nobody() {
        return Outcome::Finished;
    }
    let attempts = lease.batch.attempts.saturating_add(1);
    let wait = schedule.wait(attempts, random);
    let (until, attempted) = match again {
        Again::At(until) => (until, false),
        Again::Scheduled => (now.after(wait), true),
        Again::Within(longest) => (
            now.after(wait.min(longest.mul_f64(1.0 - 0.25 * random))),
            true,
        ),
    };
    Outcome::Deferred {
        until,
        replies: left.replies,
        note,
        recipients: left.recipients,
        attempted,
        moved: left.refused.into_iter().map(|refused| *refused).collect(),
    }
}

/// The same result for everybody in a batch.
pub(crate) fn all(batch: &Batch, result: &Result, policy: bool) -> Vec<Attempted> {
    batch
        .recipients
        .iter()
        .enumerate()
        .map(|(index, recipient)| Attempted {
            recipient: recipient.clone(),
            index,
            result: result.clone(),
            remote: None,
            phase: None,
            dsn: false,
            policy,
        })
        .collect()
}

/// Checks that the owner's copies together name each recipient of the batch once. An owner that forgets one would lose its
/// mail, one that names it twice would send it twice; neither is sent.
pub(crate) fn check_copies(batch: &Batch, copies: &[Copy]) -> std::result::Result<(), String> {
    let mut named = vec![0usize; batch.recipients.len()];
    for copy in copies {
        if copy.indices.len() != copy.envelope.recipients.len() {
            return Err(format!(
                "a copy has {} recipients and {} indices",
                copy.envelope.recipients.len(),
                copy.indices.len()
            ));
        }
        for &index in &copy.indices {
            match named.get_mut(index) {
                Some(count) => *count += 1,
                None => {
                    return Err(format!(
                        "a copy names recipient {index}, which is not there"
                    ));
                }
            }
        }
    }
    match named.iter().position(|&count| count != 1) {
        Some(index) => Err(format!(
            "recipient {index} is named by {} copies",
            named[index]
        )),
        None => Ok(()),
    }
}
