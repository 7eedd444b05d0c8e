//! What waits, as JSON: the tally, a listing, one message or batch in full, the sites, and how the queue is as a whole.

use std::sync::Arc;

use axum::http::StatusCode;
use mail::{MessageId, Timestamp};
use serde_json::{Value, json};
use spool::{BatchId, Found, Lane, Matcher, Predicate, Tally};

use super::walk::recipients;
use super::{Queue, Refusal, Words, destination};
use crate::lane;
use crate::withheld::Withheld;

/// Batches that a listing shows at most.
const LIST_MAX: usize = 10_000;
/// Lines that `why` shows at most, of what waits and of what has ended.
const WHY_MAX: usize = 200;
/// Batches of one message that are shown at most.
const SHOWN_MAX: usize = 1000;

/// The tally. The same for `/status`.
pub fn tally(lines: &[Tally]) -> Value {
    let line = |line: &Tally| {
        json!({
            "destination": destination(&line.destination),
            "class": format!("{:?}", line.class).to_lowercase(),
            "batches": line.batches,
            "recipients": line.recipients,
            "leased": line.leased,
            "held": line.held,
            "oldest": line.oldest.rfc3339(),
            "next_due": line.next_due.rfc3339(),
        })
    };
    lines.iter().map(line).collect()
}

impl Queue {
    /// How it is as a whole.
    pub fn state(&self) -> Value {
        let survey = self.survey();
        json!({
            "paused": self.is_paused(),
            "deliver": self.engine.withheld().map_or("smtp", Withheld::as_str),
            "drain_rate": self.engine.rate(),
            "waiting": survey.waiting,
            "held": survey.held,
            "oldest_seconds": survey.oldest_seconds,
            "drained_per_second": survey.drained_per_second,
            "eta_seconds": survey.eta_seconds,
        })
    }

    pub(super) async fn tally(&self) -> Result<Value, Refusal> {
        Ok(tally(&self.spool.tally().await?))
    }

    /// A page of what is meant.
    pub(super) async fn list(
        &self,
        words: &Words,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Value, Refusal> {
        let (mut predicate, unknown) = self.predicate(words).await?;
        self.all_held(words, &mut predicate);
        let after = after.map(batch_id).transpose()?;
        let limit = limit.clamp(1, LIST_MAX);
        let found = self.spool.find(&predicate, after, limit).await?;
        let next = found.last().filter(|_| found.len() == limit);
        let now = Timestamp::now();
        Ok(json!({
            "batches": found.iter().map(|found| self.line(&predicate, found, now)).collect::<Vec<_>>(),
            "after": next.map(|last| hex(last.batch.id)),
            "unknown_domains": unknown,
        }))
    }

    /// To one who looks, what waits for a decision is held like what an operator holds.
    fn all_held(&self, words: &Words, predicate: &mut Predicate) {
        let Some(place) = self.names.refused().filter(|_| words.held) else {
            return;
        };
        predicate.held = None;
        let others = predicate.owner.take();
        predicate.owner = Some(Matcher(Arc::new(move |head, batch| {
            let held = batch.held.is_some() || batch.destination == place;
            held && others.as_ref().is_none_or(|others| (others.0)(head, batch))
        })));
    }

    /// By what a batch is held: the number of an operator's hold, the name of a rule, or that it was refused.
    fn hold(&self, found: &Found) -> Value {
        let (head, batch) = (&found.head, &found.batch);
        match (batch.held, self.names.refused()) {
            (Some(hold), _) => hold.0.into(),
            (None, Some(place)) if batch.destination == place => {
                let rule = self.names.rule(head, batch);
                rule.unwrap_or_else(|| "refused".into()).into()
            }
            (None, _) => Value::Null,
        }
    }

    /// A message with its batches, or a batch: by the message's id, its ident, or the batch's id.
    pub(super) async fn show(&self, id: &str) -> Result<Value, Refusal> {
        let found = match (batch_id(id), id.contains('.')) {
            (Ok(BatchId(number)), _) => self.by_number(number).await?,
            (_, true) => {
                let words = Words {
                    ident: Some(id.into()),
                    ..Words::default()
                };
                let (predicate, _) = self.predicate(&words).await?;
                self.spool.find(&predicate, None, SHOWN_MAX).await?
            }
            (Err(refusal), false) => return Err(refusal),
        };
        let Some(first) = found.first() else {
            return Err(Refusal(
                StatusCode::NOT_FOUND,
                format!(
                    "{id}: nothing of this name waits; it has ended, or was never here (`why` and the log tell which)"
                ),
            ));
        };
        let now = Timestamp::now();
        let head = &first.head;
        let batches: Vec<Value> = found.iter().map(|found| self.full(found, now)).collect();
        Ok(json!({
            "message": head.id.to_string(),
            "ident": self.names.ident(head),
            "reverse_path": head.reverse_path.to_string(),
            "arrival": head.arrival.rfc3339(),
            "accepted": head.accepted.rfc3339(),
            "bytes": head.body_bytes,
            "facts": text_or_json(&head.facts),
            "batches": batches,
            "more": found.len() == SHOWN_MAX,
        }))
    }

    /// What is known of a message (by its id or ident) or of all mail to a recipient: what waits, and how it ended lately.
    pub async fn why(&self, what: &str) -> Result<Value, Refusal> {
        let what = what.trim_matches(['<', '>']);
        let of = |text: &str| Some(text.to_owned());
        let words = match (batch_id(what), what.contains('@')) {
            (Ok(_), _) => Words {
                message: of(what),
                ..Words::default()
            },
            (_, true) => Words {
                recipient: of(what),
                ..Words::default()
            },
            _ => Words {
                ident: of(what),
                ..Words::default()
            },
        };
        let (predicate, _) = self.predicate(&words).await?;
        let found = self.spool.find(&predicate, None, WHY_MAX).await?;
        let now = Timestamp::now();
        let lines = found.iter();
        let waiting: Vec<Value> = lines
            .map(|found| self.line(&predicate, found, now))
            .collect();
        Ok(json!({
            "what": what,
            "waiting": waiting,
            "ended": self.engine.ended(what, WHY_MAX),
        }))
    }

    async fn by_number(&self, number: u128) -> Result<Vec<Found>, Refusal> {
        let of_message = Predicate {
            message: Some(MessageId(number)),
            ..Predicate::default()
        };
        let found = self.spool.find(&of_message, None, SHOWN_MAX).await?;
        if !found.is_empty() {
            return Ok(found);
        }
        let before = number.checked_sub(1).map(BatchId);
        let all = Predicate::default();
        let mut found = self.spool.find(&all, before, 1).await?;
        found.retain(|found| found.batch.id == BatchId(number));
        Ok(found)
    }

    /// A batch in one line: of those who are meant the first, and what he was told last.
    fn line(&self, predicate: &Predicate, found: &Found, now: Timestamp) -> Value {
        let (head, batch) = (&found.head, &found.batch);
        let lane = Lane::of(batch.class, head.arrival, batch.attempts, now);
        let first = recipients(predicate, found).next();
        json!({
            "batch": hex(batch.id),
            "message": head.id.to_string(),
            "ident": self.names.ident(head),
            "list": self.names.list(head, batch),
            "sender": head.reverse_path.to_string(),
            "destination": destination(&batch.destination),
            "site": self.site_of(&batch.destination),
            "lane": lane::label(lane),
            "recipients": batch.recipients.len(),
            "first_recipient": first.map(|(first, _)| first.address.to_string()),
            "arrival": head.arrival.rfc3339(),
            "age_seconds": now.since(head.arrival).as_secs(),
            "attempts": batch.attempts,
            "due": batch.due.rfc3339(),
            "in_flight": found.in_flight,
            "hold": self.hold(found),
            "reply": first.map_or("", |(_, reply)| reply),
            "different_replies": batch.replies.texts().count(),
        })
    }

    /// And with everything that is known of it.
    fn full(&self, found: &Found, now: Timestamp) -> Value {
        let mut line = self.line(&Predicate::default(), found, now);
        let batch = &found.batch;
        let told = |text: &str| {
            let all = batch.recipients.iter().enumerate();
            let told = all.filter(|(place, _)| batch.replies.of(*place) == text);
            let told: Vec<String> = told.map(|(_, to)| to.address.to_string()).collect();
            json!({ "reply": text, "recipients": told })
        };
        line["replies"] = batch.replies.texts().map(told).collect();
        let recipients = found.batch.recipients.iter();
        line["recipients"] = recipients.map(|r| r.address.to_string()).collect();
        line["template"] = text_or_json(&found.batch.template);
        line["note"] = text_or_json(&found.batch.note);
        line
    }

    /// The sites that the engine knows, with what waits for each.
    pub(super) async fn sites(&self) -> Result<Value, Refusal> {
        let mut waiting = std::collections::HashMap::new();
        for line in self.spool.tally().await? {
            if let Some(site) = self.site_of(&line.destination) {
                *waiting.entry(site).or_insert(0) += line.recipients;
            }
        }
        let sites = self.engine.sites();
        let lines = sites.iter().map(|site| {
            let mut line = serde_json::to_value(site).unwrap_or_default();
            line["recipients"] = waiting
                .get(&site.site.to_string())
                .copied()
                .unwrap_or(0)
                .into();
            line
        });
        Ok(lines.collect())
    }
}

fn hex(id: BatchId) -> String {
    format!("{:032x}", id.0)
}

fn batch_id(text: &str) -> Result<BatchId, Refusal> {
    let number = u128::from_str_radix(text, 16).ok();
    let number = number.filter(|_| text.len() == 32);
    number.map(BatchId).ok_or_else(|| {
        Refusal::asked(format!(
            "{text:?} is neither an id of 32 hexadecimal digits as `queue list` shows, nor an ident"
        ))
    })
}

/// JSON where it is some, and text otherwise.
fn text_or_json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
}
