//! Keeping a spool safe: a copy of the running one, a copy put in place, and what can still be got out of a spool whose process or disk
//! is dead. The commands and the route that both programs with a spool offer.

mod export;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::control::Request;
use service::program::Invocation;
use spool::embedded::backup;
use spool::embedded::offline::{Offline, Report};
use spool::{BatchId, Spool};

use crate::queue::account;

pub use export::{Owned, Render, Target};

/// Where the control socket takes [`BackupTo`].
const BACKUP: &str = "/spool/backup";
/// Where it is told that a copy is the spool now.
const ADOPT: &str = "/spool/adopt";
/// In a folder of this name beside the spool its index is made anew.
const WORK: &str = "mailflow-spool";

/// `PROGRAM spool ...`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy the running spool to a folder, consistent as of one moment; mail goes on
    Backup {
        /// The folder; it must not be there, and the program must be allowed to make it
        folder: PathBuf,
    },
    /// Put a copy in place of the spool of the configuration; the program must not run. Nothing leaves of what waits in it before `adopt`
    Restore {
        /// The copy
        from: PathBuf,
        /// Move a spool that is there aside, to `spool.replaced-N`
        #[arg(long)]
        replace: bool,
    },
    /// Say that a restored copy is the spool now: what waits in it may leave. The program must run
    Adopt,
    /// Read a spool whose program does not run, and say what is in it, how all it ever accepted ended, and what is wrong; changes nothing;
    /// exits 1 when it is damaged or the account does not balance
    Check {
        /// The spool's folder, or a copy of it; that of the configuration when not given
        path: Option<PathBuf>,
        /// Where the index is made anew: some 100 bytes a recipient; the system's temporary folder when not given
        #[arg(long)]
        work: Option<PathBuf>,
    },
    /// Get the mail out of a spool whose program does not run, however damaged; changes nothing in it
    Export {
        /// The spool's folder, or a copy of it; that of the configuration when not given
        path: Option<PathBuf>,
        /// `maildir:FOLDER` (each message once, as stored), `smtp:HOST:PORT` or `lmtp:HOST:PORT` (each copy as it would leave)
        #[arg(long)]
        to: Target,
        /// Keeps a list of what was taken: with the same file again, only the rest is sent
        #[arg(long)]
        done: Option<PathBuf>,
        /// Send also what waits for an operator: held by one, by a rule, or refused by the next hop
        #[arg(long)]
        held: bool,
        /// Where the index is made anew; the system's temporary folder when not given
        #[arg(long)]
        work: Option<PathBuf>,
    },
}

/// What the running program is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupTo {
    folder: PathBuf,
}

/// Turns a command into what is done. `spool` is the folder of the configuration, `owned` what its owner knows of its batches, `helo` is
/// our name towards a server.
pub fn invocation(command: Command, spool: PathBuf, helo: &str, owned: Owned) -> Invocation {
    match command {
        Command::Backup { folder } => match std::path::absolute(&folder) {
            Ok(folder) => Invocation::Control {
                request: Request::post(BACKUP, json!(BackupTo { folder })),
                print: |answer| {
                    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
                    format!("copied to {}, {} bytes", text("folder"), answer["bytes"])
                },
            },
            Err(error) => here(move || Err(format!("{}: {error}", folder.display()))),
        },
        Command::Restore { from, replace } => here(move || restore(&from, &spool, replace)),
        Command::Adopt => Invocation::Control {
            request: Request::post(ADOPT, None),
            print: |answer| match answer["adopted"] == true {
                true => "adopted: what waits may leave, unless delivery is paused".into(),
                false => "nothing to adopt: the spool is no copy".into(),
            },
        },
        Command::Check { path, work } => Invocation::Report {
            act: Box::new(move || {
                let work = Work::new(work)?;
                let path = path.unwrap_or(spool);
                let offline = Offline::open(&path, &work.folder).map_err(text)?;
                let report = offline.check().map_err(text)?;
                Ok(described(&path, &report, work.keep_if(&report)))
            }),
            print: show,
            good: |found| found["whole"] == true && found["account"]["balances"] == true,
        },
        Command::Export {
            path,
            to,
            done,
            held,
            work,
        } => {
            let helo = helo.into();
            Invocation::Report {
                act: Box::new(move || {
                    let work = Work::new(work)?;
                    let path = path.unwrap_or(spool);
                    let offline = Offline::open(&path, &work.folder).map_err(text)?;
                    export::export(&offline, to, done.as_deref(), held, helo, owned)
                }),
                print: show,
                good: |found| found["complete"] == true,
            }
        }
    }
}

fn here(act: impl FnOnce() -> Result<String, String> + Send + 'static) -> Invocation {
    Invocation::Here(Box::new(act))
}

fn text(error: spool::Error) -> String {
    error.to_string()
}

fn restore(from: &Path, spool: &Path, replace: bool) -> Result<String, String> {
    let aside = backup::restore(from, spool, replace).map_err(text)?;
    let moved = aside.map_or(String::new(), |aside| {
        format!("what was there is now {}\n", aside.display())
    });
    Ok(format!(
        "{moved}{} is in place as {}\n\
         What was delivered since the copy was made would be delivered again, so nothing leaves of what waits when the program is\n\
         started: look at `queue tally`, drop what is known to be delivered, then say `spool adopt`.",
        from.display(),
        spool.display()
    ))
}

/// The folder for an index, removed at the end when it was made here.
struct Work {
    folder: PathBuf,
    made: bool,
}

impl Work {
    fn new(given: Option<PathBuf>) -> Result<Self, String> {
        let made = given.is_none();
        let folder = given
            .unwrap_or_else(|| std::env::temp_dir().join(format!("{WORK}-{}", std::process::id())));
        let empty =
            |folder: &Path| std::fs::read_dir(folder).map(|mut entries| entries.next().is_none());
        std::fs::create_dir_all(&folder)
            .and_then(|()| empty(&folder))
            .map_err(|error| format!("{}: {error}", folder.display()))
            .and_then(|empty| match empty {
                true => Ok(Self {
                    made,
                    folder: folder.clone(),
                }),
                false => Err(format!(
                    "{}: the work folder must be empty",
                    folder.display()
                )),
            })
    }

    /// Stretches that were set aside stay for whoever looks into it.
    fn keep_if(mut self, report: &Report) -> Option<PathBuf> {
        if report.damage.is_empty() {
            return None;
        }
        self.made = false;
        Some(self.folder.clone())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.made {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn described(path: &Path, report: &Report, kept: Option<PathBuf>) -> Value {
    let ids = |ids: &[mail::MessageId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let batches = |ids: &[BatchId]| {
        ids.iter()
            .map(|id| format!("{:032x}", id.0))
            .collect::<Vec<_>>()
    };
    let damage: Vec<Value> = report
        .damage
        .iter()
        .map(|one| {
            json!({
                "segment": format!("{:016x}", one.generation),
                "offset": one.offset,
                "bytes": one.length,
                "groups_missing": one.groups,
                "records_saved": one.records.0,
                "records_lost": one.records.1,
                "set_aside": one.set_aside,
            })
        })
        .collect();
    json!({
        "spool": path,
        "copy": report.copy,
        "whole": report.is_whole(),
        "segments": report.segments,
        "bytes": report.bytes,
        "messages": report.messages,
        "batches": report.batches,
        "held_batches": report.held,
        "recipients": report.recipients,
        "format_lost": report.format_lost,
        "unreadable_bytes": report.unreadable_bytes,
        "unreadable_batches": batches(&report.unreadable_batches),
        "set_aside": report.set_aside,
        "unreadable_envelopes": ids(&report.unreadable_heads),
        "corrupt_bodies": ids(&report.corrupt_bodies),
        "account": account(&report.ledger),
        "damage": damage,
        "damaged_stretches_in": kept,
    })
}

/// `name: value`, a line each; what a list or an account is made of below its name.
fn show(found: &Value) -> String {
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        Value::Array(entries) if entries.is_empty() => "none".into(),
        Value::Object(fields) => {
            let lines = fields
                .iter()
                .map(|(name, value)| format!("\n  {}: {value}", name.replace('_', " ")));
            lines.collect()
        }
        Value::Array(entries) => {
            let lines = entries.iter().map(|entry| match entry {
                Value::String(text) => format!("\n  {text}"),
                other => format!("\n  {other}"),
            });
            lines.collect()
        }
        other => other.to_string(),
    };
    let fields = found.as_object().into_iter().flatten();
    fields
        .map(|(name, value)| format!("{}: {}", name.replace('_', " "), plain(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The route of the control socket.
pub fn routes(spool: Arc<dyn Spool>) -> Router {
    Router::new()
        .route(BACKUP, post(copy))
        .route(ADOPT, post(adopt))
        .with_state(spool)
}

async fn adopt(
    State(spool): State<Arc<dyn Spool>>,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    let adopted = spool.adopt().await;
    let outcome = match &adopted {
        Ok(true) => "done".into(),
        Ok(false) => "no copy".into(),
        Err(error) => error.to_string(),
    };
    tracing::info!(event = "audit", by = "control", change = "spool adopt", %outcome);
    match adopted {
        Ok(adopted) => Ok(Json(json!({ "adopted": adopted }))),
        Err(_) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "error": outcome })),
        )),
    }
}

async fn copy(
    State(spool): State<Arc<dyn Spool>>,
    Json(BackupTo { folder }): Json<BackupTo>,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    let began = std::time::Instant::now();
    let copied = spool.backup(&folder).await;
    let seconds = began.elapsed().as_secs_f64();
    match copied {
        Ok(bytes) => {
            tracing::info!(event = "audit", by = "control", change = "spool backup", folder = %folder.display(), bytes, seconds, outcome = "done");
            Ok(Json(
                json!({"folder": folder, "bytes": bytes, "seconds": seconds}),
            ))
        }
        Err(error) => {
            let why = error.to_string();
            tracing::warn!(event = "audit", by = "control", change = "spool backup", folder = %folder.display(), outcome = %why);
            Err((StatusCode::CONFLICT, Json(json!({ "error": why }))))
        }
    }
}
