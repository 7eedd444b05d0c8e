//! Mail out of a spool that nobody works on: into a Maildir, or to a server. What cannot be read is told and skipped, never fatal; what
//! a server took is noted, so that an export that was cut goes on where it ended.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::{Envelope, MessageId, Reply, ReversePath, Severity};
use serde_json::{Value, json};
use smtp::Protocol;
use smtp::client::{Options, Timeouts, TlsPolicy};
use spool::embedded::offline::{Offline, Report, Stored};
use spool::{Batch, Destination, Head};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::attempt::{Connections, Copy, Route};

/// Transactions at once.
const AT_ONCE: usize = 10;
/// For one transaction.
const DEADLINE: Duration = Duration::from_secs(600);
/// Troubles that are told one by one; the rest is counted.
const TROUBLES_MAX: usize = 100;

/// The copies in which a batch leaves, as [`crate::Owner::render`] makes them.
pub type Render =
    Box<dyn Fn(&Head, &Batch, &Bytes) -> std::result::Result<Vec<Copy>, Reply> + Send>;

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This folder.
    Maildir(PathBuf),
    /// This `host:port`.
    Server(Protocol, String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let server = |address: &str| match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(address.to_owned())
            }
            _ => Err(format!("{address:?} is no HOST:PORT")),
        };
        match text.split_once(':') {
            Some(("maildir", folder)) if !folder.is_empty() => Ok(Self::Maildir(folder.into())),
            Some(("smtp", address)) => Ok(Self::Server(Protocol::Smtp, server(address)?)),
            Some(("lmtp", address)) => Ok(Self::Server(Protocol::Lmtp, server(address)?)),
            _ => Err("maildir:FOLDER, smtp:HOST:PORT or lmtp:HOST:PORT is wanted".into()),
        }
    }
}

/// What came of it; recipients.
#[derive(Default)]
struct Tell {
    messages: u64,
    exported: u64,
    before: u64,
    held: u64,
    refused: u64,
    deferred: u64,
    damaged: u64,
    /// Stretches of the journal in which there was more than could be read.
    stretches: u64,
    troubles: Vec<String>,
    more: u64,
}

impl Tell {
    fn trouble(&mut self, what: String) {
        match self.troubles.len() < TROUBLES_MAX {
            true => self.troubles.push(what),
            false => self.more += 1,
        }
    }

    /// Whom the lost groups of a journal were for nobody can tell.
    fn journal(&mut self, report: &Report) {
        for one in &report.damage {
            self.stretches += 1;
            self.trouble(format!(
                "journal segment {:016x}: {} bytes at {} are damaged, {} groups that were acknowledged are not whole",
                one.generation, one.length, one.offset, one.groups
            ));
        }
    }

    fn json(self) -> Value {
        let left = self.refused + self.deferred + self.damaged + self.stretches;
        json!({
            "complete": left == 0,
            "messages": self.messages,
            "recipients_exported": self.exported,
            "recipients_done_before": self.before,
            "recipients_held_left_out": self.held,
            "recipients_refused": self.refused,
            "recipients_deferred": self.deferred,
            "recipients_damaged": self.damaged,
            "stretches_damaged": self.stretches,
            "troubles": self.troubles,
            "more_troubles": self.more,
        })
    }
}

/// What only the owner of a spool knows of its batches.
pub struct Owned {
    /// Makes the copies in which one leaves.
    pub render: Render,
    /// Whether one waits for an operator's word, without any hold of an operator.
    pub waits_for_word: fn(&Batch) -> bool,
}

impl Owned {
    fn is_held(&self, batch: &Batch) -> bool {
        batch.held.is_some() || (self.waits_for_word)(batch)
    }
}

/// Exports everything.
pub fn export(
    offline: &Offline,
    to: Target,
    done: Option<&Path>,
    held: bool,
    helo: Box<str>,
    owned: Owned,
) -> Result<Value, String> {
    match to {
        Target::Maildir(folder) => maildir(offline, &folder, &owned),
        Target::Server(protocol, address) => {
            let mut sending = Sending::new(protocol, address, done, held, helo, owned)?;
            let sent = offline.messages(|stored| {
                sending.message(&stored);
                Ok(())
            });
            sending.wait(0);
            sent.map_err(|error| error.to_string())?;
            sending.tell.journal(offline.report());
            Ok(sending.tell.json())
        }
    }
}

// === Maildir ===

fn maildir(offline: &Offline, folder: &Path, owned: &Owned) -> Result<Value, String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    for name in [
        "tmp",
        "new",
        "cur",
        ".damaged/tmp",
        ".damaged/new",
        ".damaged/cur",
    ] {
        let path = folder.join(name);
        fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
    }
    let mut tell = Tell::default();
    let mut broken = None;
    let walked = offline.messages(|stored| {
        if broken.is_none()
            && let Err((path, error)) = deposit(&stored, folder, owned, &mut tell)
        {
            broken = Some(failed(&path, error));
        }
        Ok(())
    });
    walked.map_err(|error| error.to_string())?;
    match broken {
        Some(why) => Err(why),
        None => {
            tell.journal(offline.report());
            Ok(tell.json())
        }
    }
}

/// Writes one message: its envelope in fields on top, then as it was stored.
fn deposit(
    stored: &Stored,
    folder: &Path,
    owned: &Owned,
    tell: &mut Tell,
) -> Result<(), (PathBuf, std::io::Error)> {
    let mut recipients = 0;
    let mut top = String::new();
    match &stored.head {
        Ok(head) => {
            let path = match &head.reverse_path {
                ReversePath::Null => "<>".to_owned(),
                ReversePath::Address(address) => format!("<{address}>"),
            };
            let _ = write!(top, "Return-Path: {path}\r\n");
        }
        Err(why) => tell.trouble(format!("message {}: its envelope {why}", stored.id)),
    }
    let _ = write!(top, "X-Mailflow-Message: {}\r\n", stored.id);
    let mut damage = Vec::new();
    for batch in &stored.batches {
        match batch {
            Ok(batch) => {
                for recipient in &batch.recipients {
                    recipients += 1;
                    let hold = if owned.is_held(batch) { " (held)" } else { "" };
                    let _ = write!(top, "X-Envelope-To: <{}>{hold}\r\n", recipient.address);
                }
            }
            Err((id, why)) => {
                damage.push(format!("batch {:032x} of its recipients {why}", id.0));
            }
        }
    }
    let body = match &stored.body {
        Ok(body) => body,
        Err((why, rest)) => {
            damage.push(format!("its body {why}"));
            rest
        }
    };
    for what in &damage {
        let _ = write!(top, "X-Mailflow-Damage: {what}\r\n");
        tell.trouble(format!("message {}: {what}", stored.id));
    }
    let whole = damage.is_empty() && stored.head.is_ok();
    let place = match whole {
        true => folder.to_owned(),
        false => folder.join(".damaged"),
    };
    let name = format!("{}.mailflow", stored.id);
    let (new, ready) = (place.join("tmp").join(&name), place.join("new").join(&name));
    let mut file = fs::File::create(&new).map_err(|error| (new.clone(), error))?;
    file.write_all(top.as_bytes())
        .and_then(|()| file.write_all(body))
        .and_then(|()| file.sync_data())
        .and_then(|()| fs::rename(&new, &ready))
        .map_err(|error| (new, error))?;
    tell.messages += 1;
    match whole {
        true => tell.exported += recipients,
        false => tell.damaged += recipients.max(1),
    }
    Ok(())
}

// === A server ===

/// One copy's end: which message, whom, and the reply to each.
type Sent = (MessageId, Envelope, Result<Vec<Reply>, String>);

struct Sending {
    runtime: tokio::runtime::Runtime,
    connections: Arc<Connections>,
    under_way: JoinSet<Sent>,
    owned: Owned,
    held: bool,
    /// `message address`, a line each.
    done: HashSet<String>,
    log: Option<fs::File>,
    tell: Tell,
}

impl Sending {
    fn new(
        protocol: Protocol,
        address: String,
        done: Option<&Path>,
        held: bool,
        helo: Box<str>,
        owned: Owned,
    ) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        let connections = Connections::new(Route {
            hosts: vec![address],
            options: Options {
                protocol,
                helo,
                tls: TlsPolicy::Never,
                timeouts: Timeouts::default(),
                source: None,
                chunking: true,
            },
            transactions_max: 100,
            connections_max: AT_ONCE,
        });
        let mut sending = Self {
            runtime,
            connections: Arc::new(connections),
            under_way: JoinSet::new(),
            owned,
            held,
            done: HashSet::new(),
            log: None,
            tell: Tell::default(),
        };
        if let Some(path) = done {
            let failed = |error| format!("{}: {error}", path.display());
            let log = fs::OpenOptions::new()
                .create(true)
                .read(true)
                .append(true)
                .open(path)
                .map_err(failed)?;
            for line in BufReader::new(&log).lines() {
                sending.done.insert(line.map_err(failed)?);
            }
            sending.log = Some(log);
        }
        Ok(sending)
    }

    fn message(&mut self, stored: &Stored) {
        self.tell.messages += 1;
        for batch in &stored.batches {
            match (&stored.head, &stored.body, batch) {
                (Ok(head), Ok(body), Ok(batch)) => self.batch(head, batch, body),
                (_, _, batch) => {
                    let count = batch.as_ref().map_or(1, |batch| batch.recipients.len());
                    self.tell.damaged += count as u64;
                    let why = [
                        stored
                            .head
                            .as_ref()
                            .err()
                            .map(|why| format!("its envelope {why}")),
                        stored
                            .body
                            .as_ref()
                            .err()
                            .map(|(why, _)| format!("its body {why}")),
                        batch
                            .as_ref()
                            .err()
                            .map(|(id, why)| format!("batch {:032x} {why}", id.0)),
                    ];
                    let why: Vec<_> = why.into_iter().flatten().collect();
                    self.tell
                        .trouble(format!("message {}: {}", stored.id, why.join(", ")));
                }
            }
        }
    }

    fn batch(&mut self, head: &Head, batch: &Batch, body: &Bytes) {
        if self.owned.is_held(batch) && !self.held {
            self.tell.held += batch.recipients.len() as u64;
            return;
        }
        let copies = match &batch.destination {
            // Whoever takes it expands it.
            Destination::Expand => Ok(vec![Copy {
                envelope: Envelope {
                    reverse_path: head.reverse_path.clone(),
                    parameters: head.parameters.clone(),
                    recipients: batch.recipients.clone(),
                },
                indices: (0..batch.recipients.len()).collect(),
                parts: vec![body.clone()],
                xforward: None,
            }]),
            _ => (self.owned.render)(head, batch, body),
        };
        match copies {
            Ok(copies) => {
                for copy in copies {
                    self.copy(head.id, copy);
                }
            }
            Err(reply) => {
                self.tell.damaged += batch.recipients.len() as u64;
                self.tell.trouble(format!("message {}: {reply}", head.id));
            }
        }
    }

    fn copy(&mut self, id: MessageId, mut copy: Copy) {
        let before = copy.envelope.recipients.len();
        copy.envelope
            .recipients
            .retain(|recipient| !self.done.contains(&format!("{id} {}", recipient.address)));
        self.tell.before += (before - copy.envelope.recipients.len()) as u64;
        if copy.envelope.recipients.is_empty() {
            return;
        }
        copy.indices = (0..copy.envelope.recipients.len()).collect();
        self.wait(AT_ONCE - 1);
        let connections = self.connections.clone();
        let send = async move {
            let passed = connections.pass(&copy, Instant::now() + DEADLINE).await;
            let replies = match passed {
                Ok((replies, _)) => Ok(replies),
                Err(trouble) => Err(crate::attempt::reply_of(&trouble).to_string()),
            };
            (id, copy.envelope, replies)
        };
        self.under_way.spawn_on(send, self.runtime.handle());
    }

    /// Waits until at most so many are under way.
    fn wait(&mut self, at_most: usize) {
        while self.under_way.len() > at_most {
            let next = self.under_way.join_next();
            match self.runtime.block_on(next) {
                Some(Ok(sent)) => self.sent(sent),
                Some(Err(error)) => {
                    self.tell.deferred += 1;
                    let what = format!("a transaction ended early: {error}");
                    self.tell.trouble(what);
                }
                None => return,
            }
        }
    }

    fn sent(&mut self, (id, envelope, replies): Sent) {
        let count = envelope.recipients.len();
        let replies = match replies {
            Ok(replies) => replies,
            Err(why) => {
                self.tell.deferred += count as u64;
                self.tell.trouble(format!("message {id}: {why}"));
                return;
            }
        };
        let mut lines = String::new();
        for (at, recipient) in envelope.recipients.iter().enumerate() {
            match replies.get(at).map(|reply| (reply.severity(), reply)) {
                Some((Severity::Positive, _)) => {
                    self.tell.exported += 1;
                    let _ = writeln!(lines, "{id} {}", recipient.address);
                }
                Some((severity, reply)) => {
                    match severity {
                        Severity::Permanent => self.tell.refused += 1,
                        _ => self.tell.deferred += 1,
                    }
                    let to = &recipient.address;
                    self.tell
                        .trouble(format!("message {id} to <{to}>: {reply}"));
                }
                None => self.tell.deferred += 1,
            }
        }
        if let Some(log) = &mut self.log
            && let Err(error) = log
                .write_all(lines.as_bytes())
                .and_then(|()| log.sync_data())
        {
            self.tell
                .trouble(format!("what was taken cannot be noted: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let server = |protocol, address: &str| Ok(Target::Server(protocol, address.into()));
        let table = [
            ("maildir:/tmp/x", Ok(Target::Maildir("/tmp/x".into()))),
            (
                "smtp:mx.example:25",
                server(Protocol::Smtp, "mx.example:25"),
            ),
            ("lmtp:[::1]:24", server(Protocol::Lmtp, "[::1]:24")),
            (
                "smtp:mx.example",
                Err("\"mx.example\" is no HOST:PORT".into()),
            ),
            (
                "maildir:",
                Err("maildir:FOLDER, smtp:HOST:PORT or lmtp:HOST:PORT is wanted".into()),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Target>(), expected, "{text}");
        }
    }
}
