//! The operator's side: answers what comes over the control socket, and writes every change to the audit log.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use mail::{Address, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use spool::{NewMessage, Spool};
use tracing::info;

use crate::ask::{Ask, PATH};
use crate::directory::{Directory, Error as DirectoryError, Joined};
use crate::expansion::arrival;
use crate::metrics::{Metrics, count};
use crate::quarantine::{Error as QuarantineError, Quarantine};

/// A message is shown up to so many octets.
const SHOWN_BYTES_MAX: usize = 256 * 1024;

/// What operators reach.
#[derive(Clone)]
pub struct Desk {
    /// Lists, members, aliases.
    pub directory: Directory,
    /// The quarantine.
    pub quarantine: Quarantine,
    /// The queue.
    pub spool: Arc<dyn Spool>,
    /// Counters.
    pub metrics: Metrics,
}

/// Why an answer is no answer: an HTTP status and a text for the operator.
struct Refusal(StatusCode, String);

impl From<DirectoryError> for Refusal {
    fn from(error: DirectoryError) -> Self {
        let status = match &error {
            DirectoryError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            DirectoryError::Missing(_) => StatusCode::NOT_FOUND,
            DirectoryError::Taken(_) => StatusCode::CONFLICT,
            DirectoryError::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

impl From<QuarantineError> for Refusal {
    fn from(error: QuarantineError) -> Self {
        let status = match &error {
            QuarantineError::Missing(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
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

/// The routes of the control socket.
pub fn routes(desk: Desk) -> Router {
    Router::new().route(PATH, post(answer)).with_state(desk)
}

async fn answer(State(desk): State<Desk>, Json(ask): Json<Ask>) -> Result<Json<Value>, Refusal> {
    let audit = match &ask {
        Ask::ListShow { .. }
        | Ask::Lists
        | Ask::Owners { .. }
        | Ask::Members { .. }
        | Ask::Aliases
        | Ask::Bounces { .. }
        | Ask::Suppressed { .. }
        | Ask::QuarantineList { .. }
        | Ask::QuarantineShow { .. } => None,
        change => serde_json::to_string(change).ok(),
    };
    let answered = match ask {
        Ask::QuarantineList { .. }
        | Ask::QuarantineShow { .. }
        | Ask::QuarantineRelease { .. }
        | Ask::QuarantineDrop { .. } => desk.quarantine(&ask).await,
        ask => desk.directory(ask).await,
    };
    if let Some(change) = audit {
        let outcome = match &answered {
            Ok(_) => "done",
            Err(Refusal(_, why)) => why.as_str(),
        };
        info!(event = "audit", by = "control", change = %change, outcome);
    }
    answered.map(Json)
}

impl Desk {
    async fn directory(&self, ask: Ask) -> Result<Value, Refusal> {
        let directory = &self.directory;
        match ask {
            Ask::ListCreate { list, owners } => {
                let (list, owners) = (address(&list)?, addresses(&owners)?);
                let show = list.clone();
                directory
                    .rename(move |store| store.create_list(&list, &owners))
                    .await?;
                self.show(show).await
            }
            Ask::ListShow { list } => self.show(address(&list)?).await,
            Ask::ListDelete { list } => {
                let list = address(&list)?;
                directory
                    .rename(move |store| store.delete_list(&list))
                    .await?;
                Ok(json!({"deleted": true}))
            }
            Ask::Lists => value(directory.read(|store| store.lists()).await?),
            Ask::OwnerAdd { list, addresses: a } => {
                let (list, a) = (address(&list)?, addresses(&a)?);
                value(directory.write(move |s| s.add_owners(&list, &a)).await?)
            }
            Ask::OwnerRemove { list, addresses: a } => {
                let (list, a) = (address(&list)?, addresses(&a)?);
                value(directory.write(move |s| s.remove_owners(&list, &a)).await?)
            }
            Ask::Owners { list } => {
                let list = address(&list)?;
                texts(directory.read(move |store| store.owners(&list)).await?)
            }
            Ask::AliasAdd {
                alias,
                addresses: a,
            } => {
                let (alias, a) = (address(&alias)?, addresses(&a)?);
                value(directory.rename(move |s| s.add_alias(&alias, &a)).await?)
            }
            Ask::AliasRemove {
                alias,
                addresses: a,
            } => {
                let (alias, a) = (address(&alias)?, addresses(&a)?);
                value(
                    directory
                        .rename(move |s| s.remove_alias(&alias, &a))
                        .await?,
                )
            }
            Ask::Aliases => value(directory.read(|store| store.aliases()).await?),
            Ask::Bounces { list } => {
                let list = address(&list)?;
                value(directory.read(move |store| store.bounces(&list)).await?)
            }
            Ask::Suppressed { limit } => {
                value(directory.read(move |store| store.suppressed(limit)).await?)
            }
            members => self.members(members).await,
        }
    }

    async fn members(&self, ask: Ask) -> Result<Value, Refusal> {
        match ask {
            Ask::MemberAdd { list, addresses: a } => {
                let (list, a) = (address(&list)?, addresses(&a)?);
                let found = self
                    .directory
                    .write(move |store| store.add_members(&list, &a))
                    .await?;
                let new = found.iter().filter(|found| **found == Joined::New).count();
                Ok(json!({"added": new, "already": found.len() - new}))
            }
            Ask::MemberRemove { list, addresses: a } => {
                let (list, a) = (address(&list)?, addresses(&a)?);
                let found = self
                    .directory
                    .write(move |store| store.remove_members(&list, &a))
                    .await?;
                let gone = found.iter().filter(|found| **found).count();
                Ok(json!({"removed": gone, "unknown": found.len() - gone}))
            }
            Ask::Members { list } => {
                let list = address(&list)?;
                texts(self.directory.read(move |s| s.members(&list)).await?)
            }
            other => Err(Refusal(
                StatusCode::BAD_REQUEST,
                format!("not understood: {other:?}"),
            )),
        }
    }

    async fn show(&self, list: Address) -> Result<Value, Refusal> {
        value(
            self.directory
                .read(move |store| store.show_list(&list))
                .await?,
        )
    }

    async fn quarantine(&self, ask: &Ask) -> Result<Value, Refusal> {
        match *ask {
            Ask::QuarantineShow { id } => {
                let line = self.quarantine.line(id).await?;
                let mut shown = value(line)?;
                if let Ok(item) = self.quarantine.item(id).await {
                    let end = item.body.len().min(SHOWN_BYTES_MAX);
                    shown["facts"] = serde_json::from_slice(&item.facts).unwrap_or_default();
                    shown["message"] = String::from_utf8_lossy(&item.body[..end]).into();
                    shown["cut"] = (end < item.body.len()).into();
                }
                Ok(shown)
            }
            Ask::QuarantineRelease { id } => self.release(id).await,
            Ask::QuarantineDrop { id } => {
                self.quarantine.end(id, "dropped").await?;
                Ok(json!({"dropped": id}))
            }
            Ask::QuarantineList { all, limit } => value(self.quarantine.list(all, limit).await?),
            _ => Ok(Value::Null),
        }
    }

    /// Lets an item go its way, once: the spool knows it by the item's number, should the program die before the item has ended.
    async fn release(&self, id: i64) -> Result<Value, Refusal> {
        let item = self.quarantine.item(id).await?;
        let now = Timestamp::now();
        let new = NewMessage {
            arrival: item.arrival,
            reverse_path: item.reverse_path,
            parameters: item.parameters,
            facts: item.facts,
            body: vec![item.body],
            batches: item
                .recipients
                .into_iter()
                .map(|recipient| arrival(recipient, spool::Class::Ordinary, now))
                .collect(),
        };
        let accepted = self
            .spool
            .accept(new, Some(&format!("quarantine.{id}")))
            .await?;
        self.quarantine.end(id, "released").await?;
        for _ in &accepted.paths {
            count(&self.metrics.accepted, "released");
        }
        Ok(json!({"released": id, "message": accepted.id.to_string()}))
    }
}

fn address(text: &str) -> Result<Address, Refusal> {
    Address::parse(text)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("{text:?}: {error}")))
}

fn addresses(texts: &[String]) -> Result<Vec<Address>, Refusal> {
    texts.iter().map(|text| address(text)).collect()
}

fn texts(addresses: Vec<Address>) -> Result<Value, Refusal> {
    value(addresses.iter().map(Address::to_string).collect::<Vec<_>>())
}

fn value(answer: impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(answer)
        .map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
