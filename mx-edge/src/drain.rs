//! `mx-edge drain`: takes no new mail, passes on what is spooled or hands it to a sibling, and says when this host may go. Kept over
//! restarts in one small file: a host that is being taken out of service must not take mail again because it was restarted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use service::control::Readiness;
use spool::Spool;
use tracing::{info, warn};

use crate::forward::held;
use crate::handover::give::Giver;
use crate::receive::Edge;
use crate::state;

/// What a drain works on.
#[derive(Clone)]
pub struct Drain {
    /// It takes no mail meanwhile.
    pub edge: Arc<Edge>,
    /// What must become empty.
    pub spool: Arc<dyn Spool>,
    /// Where it is told.
    pub readiness: Readiness,
    /// Hands over, if a sibling is named.
    pub giver: Arc<Giver>,
    path: PathBuf,
}

impl Drain {
    /// Goes on with a drain that a restart has interrupted.
    pub fn open(
        folder: &Path,
        edge: Arc<Edge>,
        spool: Arc<dyn Spool>,
        readiness: Readiness,
        giver: Arc<Giver>,
    ) -> io::Result<Self> {
        let path = folder.join("draining");
        let before = state::read(&path)?;
        let drain = Self {
            edge,
            spool,
            readiness,
            giver,
            path,
        };
        if let Some(before) = before {
            let to = String::from_utf8_lossy(&before).trim().to_owned();
            let to = Some(to).filter(|to| !to.is_empty());
            drain.apply(true);
            if let Err(why) = drain.giver.set(to) {
                warn!(event = "drain", %why, "nothing is handed over");
            }
        }
        Ok(drain)
    }

    /// Begins, or takes another sibling or none.
    pub fn begin(&self, to: Option<String>) -> Result<(), String> {
        self.giver.set(to.clone())?;
        let line = format!("{}\n", to.unwrap_or_default());
        let kept = state::write_synced(&self.path, line.as_bytes());
        kept.map_err(|error| format!("{}: {error}", self.path.display()))?;
        self.apply(true);
        Ok(())
    }

    /// Mail is taken again.
    pub fn end(&self) -> Result<(), String> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("{}: {error}", self.path.display()));
            }
            _ => {}
        }
        self.giver.set(None)?;
        self.apply(false);
        Ok(())
    }

    fn apply(&self, draining: bool) {
        let change = if draining { "drain" } else { "undrain" };
        info!(
            event = "audit",
            by = "control",
            change,
            to = self.giver.target().unwrap_or_default()
        );
        self.edge.draining.store(draining, Ordering::Relaxed);
        let state = match draining {
            true => Err("drained by an operator, `mx-edge undrain` ends it".into()),
            false => Ok(()),
        };
        self.readiness.set("taking mail", state);
    }

    /// How far it is. Sessions are counted before the spool is: what the last of them added is seen.
    pub async fn progress(&self) -> Result<Value, spool::Error> {
        let draining = self.edge.is_draining();
        let sessions = self.edge.metrics.sessions_open.get();
        let tally = self.spool.tally().await?;
        let lines: Vec<Value> = tally
            .iter()
            .filter(|line| line.recipients > 0)
            .map(|line| {
                json!({
                    "destination": delivery::queue::destination(&line.destination),
                    "refused_inside": line.destination == held(),
                    "recipients": line.recipients,
                    "held": line.held,
                    "oldest": line.oldest.rfc3339(),
                })
            })
            .collect();
        let recipients: u64 = tally.iter().map(|line| line.recipients).sum();
        let done = &self.edge.metrics.done;
        Ok(json!({
            "draining": draining,
            "sessions": sessions,
            "recipients": recipients,
            "left": lines,
            "to": self.giver.target(),
            "handed_over": done.with_label_values(&["handed_over"]).get(),
            "trouble": self.giver.trouble(),
            "unhealthy": self.spool.unhealthy(),
            "empty": draining && sessions == 0 && recipients == 0,
        }))
    }
}

/// Whether there is nothing left here.
pub fn is_empty(progress: &Value) -> bool {
    progress["empty"] == true
}

/// A line of progress, and what must be done by hand.
pub fn text(progress: &Value) -> String {
    if is_empty(progress) {
        return "empty: safe to destroy".into();
    }
    if progress["draining"] == false {
        return "not being drained: mail is taken".into();
    }
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let (mut left, mut remarks) = (Vec::new(), Vec::new());
    for line in progress["left"].as_array().into_iter().flatten() {
        let place = line["destination"].as_str().unwrap_or_default();
        left.push(format!("{place} {}", count(&line["recipients"])));
        if count(&line["held"]) > 0 {
            remarks.push(format!(
                "  {} batches of {place} are held: `mx-edge queue release` or `drop` them",
                count(&line["held"])
            ));
        }
        if line["refused_inside"] == true && progress["to"].is_null() {
            remarks.push(
                "  what the inside refused or a rule holds waits for you: `mx-edge queue list`, then `queue release` or `drop`, or hand it over"
                    .into(),
            );
        }
    }
    for name in ["trouble", "unhealthy"] {
        if let Some(why) = progress[name].as_str() {
            remarks.push(format!("  {why}"));
        }
    }
    let to = match progress["to"].as_str() {
        Some(to) => format!(", {} handed over to {to}", count(&progress["handed_over"])),
        None => String::new(),
    };
    let line = format!(
        "draining: {} sessions open, {} recipients left ({}){to}",
        progress["sessions"],
        count(&progress["recipients"]),
        left.join(", ")
    );
    remarks.insert(0, line);
    remarks.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_and_what_an_operator_must_do() {
        let mut progress = json!({
            "draining": true, "sessions": 1, "recipients": 12, "to": null, "handed_over": 0, "trouble": null,
            "unhealthy": null, "empty": false,
            "left": [
                { "destination": "inside", "refused_inside": false, "recipients": 10, "held": 3 },
                { "destination": "route held", "refused_inside": true, "recipients": 2, "held": 0 },
            ],
        });
        let said = text(&progress);
        for part in [
            "1 sessions",
            "12 recipients",
            "inside 10",
            "3 batches of inside are held",
            "what the inside refused",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        progress["to"] = json!("192.0.2.2:10028");
        progress["trouble"] = json!("no connection");
        let said = text(&progress);
        assert!(said.contains("handed over to 192.0.2.2:10028") && said.contains("no connection"));
        assert!(!said.contains("what the inside refused"), "{said}");
        progress["empty"] = json!(true);
        assert_eq!(text(&progress), "empty: safe to destroy");
    }
}
