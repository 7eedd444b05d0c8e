//! What is told of every attempt: an event for each recipient, by which a log answers where a message went, and the newest ends in memory,
//! for those who ask the running program.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mail::Timestamp;
use serde::Serialize;
use spool::{Lane, Lease};

use crate::attempt::{self, Attempted, Result};
use crate::engine::Owner;
use crate::lane;

/// Ends that are remembered, the newest: at some 400 bytes each 8 MB.
const ENDS_MAX: usize = 20_000;

/// How one recipient's mail ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// When, RFC 3339.
    pub time: String,
    /// The message's name here.
    pub message: String,
    /// Its name on the inner hops; empty when it came with none.
    pub ident: String,
    /// The mailing list; empty when it is of none.
    pub list: String,
    /// The reverse-path.
    pub sender: String,
    /// The recipient.
    pub to: String,
    /// `delivered`, `failed`, `expired`.
    pub end: &'static str,
    /// The site it was attempted at; empty when it was not.
    pub site: String,
    /// The host that said so; empty when none did.
    pub remote: String,
    /// The reply that decided.
    pub reply: String,
    /// Attempts in all.
    pub attempts: u32,
}

/// The newest ends.
#[derive(Default)]
pub(crate) struct Ends(Mutex<VecDeque<Ended>>);

/// An attempt as it is told.
pub(crate) struct Told<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) lane: Lane,
    /// Empty when nothing was tried.
    pub(crate) site: String,
    pub(crate) attempted: &'a [Attempted],
    pub(crate) now: Timestamp,
}

impl Ends {
    /// An event for each recipient, and the ends remembered.
    pub(crate) fn tell(&self, owner: &dyn Owner, told: &Told<'_>) {
        let (head, batch) = (&told.lease.head, &told.lease.batch);
        let ident = owner.ident(head).unwrap_or_default();
        let list = owner.list(head, batch).unwrap_or_default();
        let attempts = batch.attempts.saturating_add(1);
        let delay = told.now.since(head.accepted).as_secs_f64();
        let keeps_refused = owner.keeps_refused(batch).is_some();
        let mut ended = Vec::new();
        for one in told.attempted {
            let reply = one.result.reply();
            let remote = one.remote.as_deref().unwrap_or_default();
            let held = keeps_refused && matches!(one.result, Result::Failed(_));
            let event = if held { "held" } else { word(&one.result) };
            let phase = one.phase.map_or("", attempt::name);
            tracing::info!(
                event, ident, message = %head.id, list, to = %one.recipient.address, site = told.site, remote, phase,
                lane = lane::label(told.lane), attempt = attempts, delay, reply = %reply
            );
            if held || matches!(one.result, Result::Deferred(_)) {
                continue;
            }
            ended.push(Ended {
                time: told.now.rfc3339(),
                message: head.id.to_string(),
                ident: ident.clone(),
                list: list.clone(),
                sender: head.reverse_path.to_string(),
                to: one.recipient.address.to_string(),
                end: event,
                site: told.site.clone(),
                remote: remote.into(),
                reply: reply.to_string(),
                attempts,
            });
        }
        let mut ends = self.lock();
        ends.extend(ended);
        let excess = ends.len().saturating_sub(ENDS_MAX);
        ends.drain(..excess);
    }

    /// Those of a message, by its id or ident, or of a recipient, oldest first: the newest `limit`.
    pub(crate) fn of(&self, what: &str, limit: usize) -> Vec<Ended> {
        let ends = self.lock();
        let found = ends.iter().rev().filter(|end| {
            end.message == what || end.ident == what || end.to.eq_ignore_ascii_case(what)
        });
        let mut found: Vec<Ended> = found.take(limit).cloned().collect();
        found.reverse();
        found
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Ended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn word(result: &Result) -> &'static str {
    match result {
        Result::Delivered(_) => "delivered",
        Result::Deferred(_) => "deferred",
        Result::Failed(_) => "failed",
        Result::Expired(_) => "expired",
    }
}
