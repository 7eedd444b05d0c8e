//! The routes of the control socket. docs/control-api.md describes them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::actions::Verb;
use super::{Queue, Refusal, Words, top};

/// `/queue/list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListAsked {
    pub(super) r#where: Words,
    pub(super) after: Option<String>,
    pub(super) limit: usize,
}

impl Default for ListAsked {
    fn default() -> Self {
        Self {
            r#where: Words::default(),
            after: None,
            limit: 100,
        }
    }
}

/// `/queue/show`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowAsked {
    pub(super) id: String,
}

/// `/queue/why`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyAsked {
    pub(super) what: String,
}

/// `/queue/hold`, `release`, `retry`, `drop`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ActAsked {
    pub(super) r#where: Words,
    /// Count only.
    pub(super) dry_run: bool,
    /// Do also what cannot be undone.
    pub(super) sure: bool,
}

/// `/queue/top`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TopAsked {
    pub(super) r#where: Words,
    pub(super) by: String,
    pub(super) ages: String,
    pub(super) limit: usize,
}

impl Default for TopAsked {
    fn default() -> Self {
        Self {
            r#where: Words::default(),
            by: top::BY[0].into(),
            ages: top::AGES.into(),
            limit: 20,
        }
    }
}

/// `/queue/drain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainAsked {
    /// `50/s`, `3000/m`, `off`; none only asks.
    pub(super) rate: Option<String>,
}

type Answer = Result<Json<Value>, Refusal>;

/// The routes.
pub fn routes(queue: Queue) -> Router {
    let act = |verb: Verb| {
        post(
            move |State(queue): State<Queue>, Json(asked): Json<ActAsked>| async move {
                act(&queue, verb, asked).await
            },
        )
    };
    let pause = |paused: bool| {
        post(move |State(queue): State<Queue>| async move { set_paused(&queue, paused).await })
    };
    Router::new()
        .route(
            "/queue",
            get(async |State(queue): State<Queue>| Json(queue.state())),
        )
        .route("/queue/tally", get(tally))
        .route("/queue/list", post(list))
        .route("/queue/show", post(show))
        .route("/queue/why", post(why))
        .route("/queue/hold", act(Verb::Hold))
        .route("/queue/release", act(Verb::Release))
        .route("/queue/retry", act(Verb::Retry))
        .route("/queue/drop", act(Verb::Drop))
        .route("/queue/holds", get(holds))
        .route("/queue/top", post(top_lines))
        .route("/queue/sites", get(sites))
        .route("/queue/pause", pause(true))
        .route("/queue/resume", pause(false))
        .route("/queue/nudge", post(nudge))
        .route("/queue/drain", post(drain))
        .route("/reconcile", get(reconcile))
        .with_state(queue)
}

async fn tally(State(queue): State<Queue>) -> Answer {
    queue.tally().await.map(Json)
}

async fn list(State(queue): State<Queue>, Json(asked): Json<ListAsked>) -> Answer {
    let listed = queue.list(&asked.r#where, asked.after.as_deref(), asked.limit);
    listed.await.map(Json)
}

async fn show(State(queue): State<Queue>, Json(asked): Json<ShowAsked>) -> Answer {
    queue.show(&asked.id).await.map(Json)
}

async fn why(State(queue): State<Queue>, Json(asked): Json<WhyAsked>) -> Answer {
    queue.why(&asked.what).await.map(Json)
}

async fn act(queue: &Queue, verb: Verb, asked: ActAsked) -> Answer {
    let words = asked.r#where;
    if asked.dry_run {
        return queue.count(&words, verb).await.map(Json);
    }
    // Whoever asked may hang up: what has begun is finished and written down all the same.
    let queue = queue.clone();
    let task = tokio::spawn(async move {
        let done = queue.act(&words, verb, asked.sure).await;
        audit(verb.as_str(), &words.to_string(), &done);
        done
    });
    let done = task.await;
    let done = done.unwrap_or_else(|error| Err(fault(&error)));
    done.map(Json)
}

fn fault(error: &tokio::task::JoinError) -> Refusal {
    Refusal(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("a mistake in the program: {error}; please report it with the log"),
    )
}

/// Every change, done or refused, with what was meant.
fn audit(change: &str, words: &str, done: &Result<Value, Refusal>) {
    match done {
        Ok(done) => {
            tracing::info!(event = "audit", by = "control", change = format_args!("queue {change}"), meant = words, answer = %done, outcome = "done");
        }
        Err(Refusal(_, why)) => {
            tracing::info!(event = "audit", by = "control", change = format_args!("queue {change}"), meant = words, outcome = %why);
        }
    }
}

async fn holds(State(queue): State<Queue>) -> Answer {
    queue.holds().await.map(Json)
}

async fn top_lines(State(queue): State<Queue>, Json(asked): Json<TopAsked>) -> Answer {
    let lines = queue.top(&asked.r#where, &asked.by, &asked.ages, asked.limit);
    lines.await.map(Json)
}

async fn sites(State(queue): State<Queue>) -> Answer {
    queue.sites().await.map(Json)
}

async fn set_paused(queue: &Queue, paused: bool) -> Answer {
    if let (false, Some(why)) = (paused, queue.engine.withheld()) {
        return Err(Refusal(StatusCode::CONFLICT, why.to_string()));
    }
    let kept = queue.kept.clone();
    if paused {
        // Stopping is always safe; it does not wait for a disk that may be the trouble.
        queue.pause.send_replace(true);
    }
    let done = match queue.keep(move || kept.pause(paused)).await {
        Ok(()) => {
            queue.pause.send_replace(paused);
            Ok(queue.state())
        }
        Err(Refusal(status, why)) if paused => Err(Refusal(
            status,
            format!("delivery is paused now, and would not be after a restart: {why}"),
        )),
        Err(refusal) => Err(refusal),
    };
    audit(if paused { "pause" } else { "resume" }, "", &done);
    done.map(Json)
}

async fn nudge(State(queue): State<Queue>) -> Answer {
    queue.engine.nudge();
    let done = Ok(json!({"nudged": true}));
    audit("nudge", "", &done);
    done.map(Json)
}

async fn drain(State(queue): State<Queue>, Json(asked): Json<DrainAsked>) -> Answer {
    let Some(text) = asked.rate else {
        return Ok(Json(queue.state()));
    };
    let rate = parse_rate(&text)?;
    let kept = queue.kept.clone();
    let done = match queue.keep(move || kept.limit(rate)).await {
        Ok(()) => {
            queue.engine.set_rate(rate);
            Ok(queue.state())
        }
        Err(refusal) => Err(refusal),
    };
    audit("drain", &text, &done);
    done.map(Json)
}

/// Recipients a second; none for no limit.
fn parse_rate(text: &str) -> Result<Option<f64>, Refusal> {
    if text == "off" {
        return Ok(None);
    }
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match unit {
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let number: Option<f64> = number
        .parse()
        .ok()
        .filter(|n: &f64| n.is_finite() && *n > 0.0);
    match (number, seconds) {
        (Some(number), Some(seconds)) => Ok(Some(number / seconds)),
        _ => Err(Refusal::asked(format!(
            "--rate {text:?} is no rate: give recipients a second, minute or hour, as in 50/s or 3000/m, or off; `queue pause` stops all"
        ))),
    }
}

async fn reconcile(State(queue): State<Queue>) -> Answer {
    queue.account().await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        for (text, expected) in [
            ("off", Some(None)),
            ("50/s", Some(Some(50.0))),
            ("50", Some(Some(50.0))),
            ("0.5", Some(Some(0.5))),
            ("3000/m", Some(Some(50.0))),
            ("1800/h", Some(Some(0.5))),
            ("0", None),
            ("-1/s", None),
            ("fast", None),
            ("5/d", None),
            ("inf", None),
        ] {
            assert_eq!(parse_rate(text).ok(), expected, "{text}");
        }
    }
}
