//! Count, hold, release, retry, drop: what an operator does to what waits, and the holds that came of it.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use mail::Timestamp;
use serde_json::{Value, json};
use spool::{Action, Aged, Predicate, Selected};

use super::known::{self, Counted};
use super::walk::{meant, recipients, walk};
use super::{Queue, Refusal, Words, destination};

/// Destinations that a count names, those with most recipients.
const TOP: usize = 10;
/// Destinations that a count tells apart; the rest is one line.
const DESTINATIONS_MAX: usize = 100_000;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Hold,
    Release,
    Retry,
    Drop,
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Retry => "retry",
            Self::Drop => "drop",
        }
    }

    /// Narrows the predicate to what the verb can do anything to.
    fn narrow(self, predicate: &mut Predicate) -> Result<(), Refusal> {
        let of_held = predicate.held == Some(true) || predicate.hold.is_some();
        match self {
            Self::Hold | Self::Retry if of_held => Err(Refusal::asked(format!(
                "what is held cannot be {}; `queue release` lets it go on",
                match self {
                    Self::Hold => "held again",
                    _ => "tried",
                }
            ))),
            Self::Hold | Self::Retry => {
                predicate.held = Some(false);
                Ok(())
            }
            Self::Release => {
                predicate.held = Some(true);
                Ok(())
            }
            Self::Drop => Ok(()),
        }
    }
}

impl Queue {
    /// What is meant, counted: batches, recipients, those under way, the oldest, and where most of it goes.
    pub(super) async fn count(&self, words: &Words, verb: Verb) -> Result<Value, Refusal> {
        let (predicate, unknown) = self.meant(words, verb).await?;
        let now = Timestamp::now();
        let counted = match known::count(&*self.spool, &predicate, now).await? {
            Some(counted) => counted,
            None => self.look_through(&predicate).await?,
        };
        let mut top: Vec<_> = counted.by.into_iter().collect();
        top.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let rest = top.split_off(top.len().min(TOP));
        let rest: u64 = rest.iter().map(|(_, (count, _))| count).sum();
        let seconds = |oldest: Option<Timestamp>| oldest.map(|oldest| now.since(oldest).as_secs());
        let lines: Vec<Value> = top
            .iter()
            .map(|(place, (recipients, oldest))| {
                json!({
                    "destination": destination(place),
                    "recipients": recipients,
                    "oldest": oldest.map(Timestamp::rfc3339),
                    "oldest_seconds": seconds(*oldest),
                })
            })
            .collect();
        let mut answer = figures(counted.selected);
        answer["would"] = verb.as_str().into();
        answer["unknown_domains"] = unknown.into();
        answer["where"] = words.to_string().into();
        answer["oldest"] = counted.oldest.map(Timestamp::rfc3339).into();
        answer["oldest_seconds"] = seconds(counted.oldest).into();
        answer["destinations"] = lines.into();
        answer["other_recipients"] = (counted.others + rest).into();
        if counted.by_age {
            answer["to_seconds"] = Aged::GRAIN.as_secs().into();
            // How many of these are under way only a look would tell.
            answer["in_flight"] = Value::Null;
        }
        Ok(answer)
    }

    /// Counts by a look at each batch that is meant.
    pub(super) async fn look_through(&self, predicate: &Predicate) -> Result<Counted, Refusal> {
        let mut counted = Counted::default();
        walk(&*self.spool, predicate, |found| {
            let (count, arrival) = (meant(predicate, found), found.head.arrival);
            counted.selected.batches += 1;
            counted.selected.recipients += count;
            counted.selected.in_flight += u64::from(found.in_flight);
            let oldest = counted.oldest.get_or_insert(arrival);
            *oldest = arrival.min(*oldest);
            let (by, place) = (&mut counted.by, &found.batch.destination);
            if by.len() < DESTINATIONS_MAX || by.contains_key(place) {
                let line = by.entry(place.clone()).or_insert((0, Some(arrival)));
                *line = (line.0 + count, line.1.min(Some(arrival)));
            } else {
                counted.others += count;
            }
            true
        })
        .await?;
        Ok(counted)
    }

    /// Does it. What cannot be undone is done only for those who are sure.
    pub(super) async fn act(
        &self,
        words: &Words,
        verb: Verb,
        sure: bool,
    ) -> Result<Value, Refusal> {
        let (predicate, unknown) = self.meant(words, verb).await?;
        if verb == Verb::Drop && !sure {
            return Err(self.unsure(&predicate).await?);
        }
        let action = match verb {
            Verb::Hold => Action::Hold(self.name_hold(words).await?),
            Verb::Release => Action::Release,
            Verb::Retry => Action::Retry,
            Verb::Drop => Action::Drop,
        };
        let selected = match (words.waits_for_decision(), action) {
            (true, Action::Release | Action::Drop) => {
                self.names.settle_refused(&predicate, action).await?
            }
            (_, Action::Drop) => {
                self.tell_dropped(&predicate).await?;
                self.spool.select(&predicate, action).await?
            }
            _ => self.spool.select(&predicate, action).await?,
        };
        if let Verb::Retry | Verb::Release = verb {
            // A shut gate would keep it waiting for the next probe.
            self.engine.nudge();
        }
        let mut answer = figures(selected);
        answer["done"] = verb.as_str().into();
        answer["unknown_domains"] = unknown.into();
        if let Action::Hold(hold) = action {
            answer["hold"] = hold.0.into();
            if selected == Selected::default() {
                self.forget(vec![hold.0]).await;
                answer["hold"] = Value::Null;
            }
        }
        Ok(answer)
    }

    /// An event for each recipient that ends now. Before it is done: what is gone could not be told any more.
    async fn tell_dropped(&self, predicate: &Predicate) -> Result<(), Refusal> {
        walk(&*self.spool, predicate, |found| {
            let (head, batch) = (&found.head, &found.batch);
            let ident = self.names.ident(head).unwrap_or_default();
            let list = self.names.list(head, batch).unwrap_or_default();
            let dropped: Vec<_> = (recipients(predicate, found))
                .map(|(to, _)| to.clone())
                .collect();
            for (to, reply) in recipients(predicate, found) {
                tracing::info!(
                    event = "dropped", ident, message = %head.id, list, to = %to.address, in_flight = found.in_flight,
                    reply
                );
            }
            self.names.dropping(head, &dropped);
            true
        })
        .await?;
        Ok(())
    }

    /// The predicate of what is meant and can be treated so.
    pub(super) async fn meant(
        &self,
        words: &Words,
        verb: Verb,
    ) -> Result<(Predicate, u64), Refusal> {
        words.must_say()?;
        let (mut predicate, unknown) = self.predicate(words).await?;
        match (words.waits_for_decision(), verb) {
            // It waits for a decision, not under a hold.
            (true, Verb::Release) => {}
            (true, Verb::Hold | Verb::Retry) => {
                return Err(Refusal::asked(
                    "what the inside refused or a rule holds waits until it is told to go on or to end: `queue release`, `queue drop` with \
                     --refused or --rule",
                ));
            }
            _ => verb.narrow(&mut predicate)?,
        }
        Ok((predicate, unknown))
    }

    async fn unsure(&self, predicate: &Predicate) -> Result<Refusal, Refusal> {
        let Selected {
            batches,
            recipients,
            ..
        } = self.spool.select(predicate, Action::Count).await?;
        Ok(Refusal(
            StatusCode::CONFLICT,
            format!(
                "this would end {recipients} recipients in {batches} batches, without a report and for good; nothing was done. \
                 --dry-run shows what they are, --yes does it, and `queue hold` can be undone"
            ),
        ))
    }

    async fn name_hold(&self, words: &Words) -> Result<spool::HoldId, Refusal> {
        let highest = match self.kept.named_any() {
            true => 0,
            // The file is new, or was lost: the spool may know holds all the same.
            false => self
                .holding()
                .await?
                .last_key_value()
                .map_or(0, |(id, _)| *id),
        };
        let (kept, words) = (self.kept.clone(), words.to_string());
        let made = Timestamp::now().rfc3339();
        self.keep(move || kept.name_hold(highest, made, words))
            .await
    }

    /// Writes what outlasts a restart, off the runtime's threads.
    pub(super) async fn keep<T: Send + 'static>(
        &self,
        write: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, Refusal> {
        let written = tokio::task::spawn_blocking(write).await;
        written
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(|why| {
                Refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("it cannot be kept for the next start: {why}"),
                )
            })
    }

    async fn forget(&self, over: Vec<u64>) {
        let kept = self.kept.clone();
        if let Err(Refusal(_, why)) = self.keep(move || kept.forget(&over)).await {
            tracing::warn!(event = "queue", outcome = "hold not forgotten", reason = %why);
        }
    }

    /// What each hold holds.
    async fn holding(&self) -> Result<BTreeMap<u64, Selected>, Refusal> {
        let predicate = Predicate {
            held: Some(true),
            ..Predicate::default()
        };
        let mut holds: BTreeMap<u64, Selected> = BTreeMap::new();
        walk(&*self.spool, &predicate, |found| {
            if let Some(hold) = found.batch.held {
                let of = holds.entry(hold.0).or_default();
                of.batches += 1;
                of.recipients += found.batch.recipients.len() as u64;
                of.in_flight += u64::from(found.in_flight);
            }
            true
        })
        .await?;
        Ok(holds)
    }

    /// All holds with what they hold; those that hold nothing any more are forgotten.
    pub(super) async fn holds(&self) -> Result<Value, Refusal> {
        // Those made meanwhile are not missed among what is held, and not taken for empty.
        let known = self.kept.holds();
        let holding = self.holding().await?;
        let mut lines = Vec::new();
        for (hold, selected) in &holding {
            let made = known.iter().find(|made| made.hold == *hold);
            let mut line = figures(*selected);
            line["hold"] = (*hold).into();
            line["made"] = made.map(|hold| hold.made.clone()).into();
            line["where"] = made.map(|hold| hold.words.clone()).into();
            lines.push(line);
        }
        let over = known.iter().map(|hold| hold.hold);
        let over: Vec<u64> = over.filter(|hold| !holding.contains_key(hold)).collect();
        if !over.is_empty() {
            self.forget(over).await;
        }
        Ok(lines.into())
    }
}

fn figures(selected: Selected) -> Value {
    json!({
        "batches": selected.batches,
        "recipients": selected.recipients,
        "in_flight": selected.in_flight,
        "unreadable": selected.unreadable,
    })
}
