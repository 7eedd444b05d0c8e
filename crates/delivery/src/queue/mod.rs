//! What an operator sees of the queue and does with it: the same commands and the same routes of the control socket for both programs
//! that have one. docs/control-api.md describes the routes, docs/runbooks/backlog.md their use.
//!
//! It works through the spool's and the engine's interfaces alone, in steps, so that delivery never waits for it.

mod actions;
mod command;
mod kept;
mod known;
mod ledger;
mod print;
mod routes;
mod show;
mod survey;
mod top;
mod walk;
mod words;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mail::{Recipient, Timestamp};
use serde_json::json;
use spool::{Action, Batch, Destination, Head, Predicate, Selected, Spool};
use tokio::sync::watch;

use crate::engine::Engine;

pub use command::{Command, invocation, reconcile, why};
pub use kept::Kept;
pub(crate) use ledger::account;
pub use routes::routes;
pub use show::tally as show_tally;
pub use survey::Survey;
pub use words::Words;

/// What only the program can tell of what is in its spool, or do about it.
#[async_trait::async_trait]
pub trait Names: Send + Sync + 'static {
    /// The message's ident, where it came with one.
    fn ident(&self, head: &Head) -> Option<String>;

    /// The mailing list that a batch is of, or for.
    fn list(&self, head: &Head, batch: &Batch) -> Option<String>;

    /// Whether mail leaves by domain; otherwise all of it goes inside.
    fn by_domain(&self) -> bool;

    /// The rule of the program's policy by which the batch is held, if it is by one.
    fn rule(&self, head: &Head, batch: &Batch) -> Option<String> {
        let _ = (head, batch);
        None
    }

    /// Where mail waits for an operator that was refused for good, if there is such a place; also what a rule holds.
    fn refused(&self) -> Option<Destination> {
        None
    }

    /// These recipients of a batch are about to be ended by an operator.
    fn dropping(&self, head: &Head, recipients: &[Recipient]) {
        let _ = (head, recipients);
    }

    /// Lets what waits there go on its way again ([`Action::Release`]), or ends it ([`Action::Drop`]).
    async fn settle_refused(
        &self,
        predicate: &Predicate,
        action: Action,
    ) -> Result<Selected, Refusal> {
        let _ = (predicate, action);
        Err(Refusal::asked(
            "this program keeps nothing that was refused",
        ))
    }
}

/// How long domains are looked up for one command that names a site.
const LOOK_UP_MAX: Duration = Duration::from_secs(20);

/// The queue in an operator's hands. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    spool: Arc<dyn Spool>,
    engine: Engine,
    pause: Arc<watch::Sender<bool>>,
    kept: Kept,
    names: Arc<dyn Names>,
    survey: Arc<Mutex<Survey>>,
}

impl Queue {
    /// `pause` is what the engine's `paused` listens to. What was set by commands before the last stop is in force again, and that
    /// is logged.
    pub fn new(
        spool: Arc<dyn Spool>,
        engine: Engine,
        pause: watch::Sender<bool>,
        kept: Kept,
        names: Arc<dyn Names>,
    ) -> Self {
        if *pause.borrow() {
            tracing::warn!(
                event = "queue",
                paused = true,
                "delivery is paused; `queue resume` lets it go on"
            );
        }
        if let Some(rate) = kept.rate() {
            engine.set_rate(Some(rate));
            tracing::warn!(
                event = "queue",
                drain_rate = rate,
                "backlog and retries are limited to so many recipients a second; `queue drain --rate off` ends it"
            );
        }
        Self {
            spool,
            engine,
            pause: Arc::new(pause),
            kept,
            names,
            survey: Arc::default(),
        }
    }

    /// Whether delivery is paused.
    pub fn is_paused(&self) -> bool {
        *self.pause.borrow()
    }

    /// How it was when it was last looked at.
    pub fn survey(&self) -> Survey {
        let survey = self.survey.lock();
        survey.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The predicate of these words, and how many domains with mail may be meant and could not be looked up.
    async fn predicate(&self, words: &Words) -> Result<(Predicate, u64), Refusal> {
        let (site, unknown) = match &words.site {
            None => (None, 0),
            Some(site) => {
                let (places, unknown) = self.leading_to(site).await?;
                (Some(places), unknown)
            }
        };
        let predicate = words.predicate(&self.names, site, Timestamp::now())?;
        Ok((predicate, unknown))
    }

    /// The site that a destination leads to, as far as that is known.
    fn site_of(&self, place: &Destination) -> Option<String> {
        match place {
            Destination::Expand => Some(destination(place)),
            place => self.engine.site_of(place).map(|site| site.to_string()),
        }
    }

    /// The same; where it is not known, the destination.
    fn site_name(&self, place: &Destination) -> String {
        self.site_of(place).unwrap_or_else(|| destination(place))
    }

    /// The destinations with mail that lead to a site, and of how many domains nobody could tell. Those that were not tried since the start
    /// are looked up.
    async fn leading_to(&self, site: &str) -> Result<(Vec<Destination>, u64), Refusal> {
        let lines = self.spool.tally().await?;
        let places: BTreeSet<Destination> =
            lines.into_iter().map(|line| line.destination).collect();
        let (mut leading, mut unknown) = (Vec::new(), Vec::new());
        for place in places {
            match (self.site_of(&place), &place) {
                (Some(leads), _) if leads.eq_ignore_ascii_case(site) => leading.push(place),
                (None, Destination::Domain(domain)) => unknown.push(domain.clone()),
                _ => {}
            }
        }
        let found = self.engine.look_up(unknown.clone(), LOOK_UP_MAX).await;
        unknown.retain(|domain| !found.contains_key(domain));
        let found = found.into_iter().filter(|(_, leads)| {
            let leads = leads.as_ref();
            leads.is_some_and(|leads| leads.eq_ignore_ascii_case(site))
        });
        leading.extend(found.map(|(domain, _)| Destination::Domain(domain)));
        match (leading.is_empty(), unknown.as_slice()) {
            (false, _) => Ok((leading, unknown.len() as u64)),
            (true, []) => Err(Refusal(
                StatusCode::NOT_FOUND,
                format!(
                    "no mail that waits leads to the site {site:?}; `queue sites` shows the sites"
                ),
            )),
            (true, [first, ..]) => Err(Refusal(
                StatusCode::NOT_FOUND,
                format!(
                    "no mail that waits is known to lead to the site {site:?}, but {} domains could not be looked up (such as {first}): try \
                     again, or name domains with --domain",
                    unknown.len()
                ),
            )),
        }
    }
}

/// A destination as operators read it.
pub fn destination(destination: &Destination) -> String {
    match destination {
        Destination::Expand => "expand".into(),
        Destination::Inside => "inside".into(),
        Destination::Route(name) => format!("route {name}"),
        Destination::Domain(domain) => domain.to_string(),
    }
}

/// Why an answer is no answer: an HTTP status and a text for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub StatusCode, pub String);

impl Refusal {
    /// What was asked cannot be understood or is not done like this.
    fn asked(what: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, what.into())
    }
}

impl From<spool::Error> for Refusal {
    fn from(error: spool::Error) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

#[cfg(test)]
mod tests;
