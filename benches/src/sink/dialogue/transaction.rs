//! One transaction at the sink: its recipients, in memory that the next one uses again, and its end.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::Reply;
use smtp::Protocol;

use super::Next;
use super::replies;
use crate::rules::{Act, Stage};
use crate::sink::Shared;
use crate::sink::content::Content;

/// Recipients of one transaction.
const RECIPIENTS_MAX: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub struct Transaction {
    open: bool,
    /// Some chunk has come.
    chunked: bool,
    /// All addresses, one behind the other.
    addresses: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// What the rules want for each recipient's copy; empty where nobody asked them.
    acts: Vec<Act>,
}

impl Transaction {
    pub fn clear(&mut self) {
        self.open = false;
        self.chunked = false;
        self.addresses.clear();
        self.ends.clear();
        self.acts.clear();
    }

    pub fn open(&mut self) {
        self.open = true;
    }

    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether a chunk came before this one.
    pub fn goes_on(&mut self) -> bool {
        std::mem::replace(&mut self.chunked, true)
    }

    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Adds a recipient; false when there are too many.
    pub fn push(&mut self, address: &[u8]) -> bool {
        if self.ends.len() >= RECIPIENTS_MAX {
            return false;
        }
        self.addresses.extend_from_slice(address);
        self.ends.push(self.addresses.len());
        true
    }

    /// Takes the last recipient out again.
    pub fn pop(&mut self) {
        self.ends.pop();
        self.addresses
            .truncate(self.ends.last().copied().unwrap_or(0));
    }

    fn recipients(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ends = self.ends.iter().zip(starts);
        ends.map(|(&end, start)| &self.addresses[start..end])
    }

    /// Asks the rules for each recipient's copy; returns the longest wait that they want.
    pub fn judge(&mut self, shared: &Shared) -> Duration {
        let mut acts = std::mem::take(&mut self.acts);
        let mut wait = Duration::ZERO;
        for recipient in self.recipients() {
            let decision = shared.decide(Stage::Data, &String::from_utf8_lossy(recipient));
            wait = wait.max(decision.wait);
            acts.push(decision.act);
        }
        self.acts = acts;
        wait
    }

    /// The message has come, the waiting is over: it is counted and answered, and the transaction ends.
    pub fn end(
        &mut self,
        shared: &Shared,
        local: IpAddr,
        content: &Content,
        out: &mut Vec<u8>,
    ) -> Option<Next> {
        let lmtp = shared.protocol == Protocol::Lmtp;
        let mut next = None;
        if self.ends.is_empty() {
            out.extend_from_slice(replies::nobody(lmtp));
        } else if content.bytes() > shared.message_bytes_max {
            shared.counts.refused.fetch_add(1, Ordering::Relaxed);
            let owed = if lmtp { self.ends.len() } else { 1 };
            (0..owed).for_each(|_| out.extend_from_slice(replies::TOO_LARGE));
        } else if self.acts.contains(&Act::Drop) {
            shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
            out.clear();
            next = Some(Next::Close);
        } else {
            next = self.answer(shared, local, content, lmtp, out);
        }
        self.clear();
        next
    }

    fn answer(
        &self,
        shared: &Shared,
        local: IpAddr,
        content: &Content,
        lmtp: bool,
        out: &mut Vec<u8>,
    ) -> Option<Next> {
        let refusal = |act: &Act| match act {
            Act::Reply(reply) => Some(reply.clone()),
            Act::Go | Act::Drop => None,
        };
        let refusals: Vec<Option<Reply>> = self.acts.iter().map(refusal).collect();
        // One reply stands for all in SMTP: who is refused takes the others with him.
        let first = refusals.iter().flatten().next().filter(|_| !lmtp);
        let taken = |nth: usize| first.is_none() && refusals.get(nth).is_none_or(Option::is_none);
        let count = (0..self.ends.len()).filter(|&nth| taken(nth)).count();
        if count > 0 {
            let recipients = self.recipients().enumerate();
            let recipients = recipients.filter_map(|(nth, to)| taken(nth).then_some(to));
            shared
                .counts
                .take(content.header(), content.bytes(), recipients);
            shared.count_site(local, count as u64);
        }
        let owed = if lmtp { self.ends.len() } else { 1 };
        let mut closes = false;
        for nth in 0..owed {
            match first.or(refusals.get(nth).and_then(Option::as_ref)) {
                None => out.extend_from_slice(replies::OK),
                Some(reply) => {
                    shared.count(reply);
                    reply.write(out);
                    closes |= reply.code == 421;
                }
            }
        }
        closes.then_some(Next::Close)
    }
}
