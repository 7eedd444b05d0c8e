//! A spool in memory: it outlives an edge, not the process.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mail::{MessageId, Recipient, Timestamp};
use spool::*;

#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    heads: HashMap<MessageId, (Arc<Head>, Bytes)>,
    batches: Vec<(MessageId, Batch, Option<u64>)>,
    idents: HashSet<(String, Recipient)>,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn add(&mut self, message: MessageId, new: NewBatch) {
        let batch = Batch {
            id: BatchId(self.number().into()),
            destination: new.destination,
            class: new.class,
            due: new.due,
            attempts: 0,
            recipients: new.recipients,
            template: new.template,
            note: Bytes::new(),
            reply: Box::default(),
        };
        self.batches.push((message, batch, None));
    }
}

impl Memory {
    /// What a process that died leaves behind: leases end, all else stays.
    pub fn reopened(&self) {
        for (_, _, lease) in &mut self.state.lock().unwrap().batches {
            *lease = None;
        }
    }
}

#[async_trait::async_trait]
impl Spool for Memory {
    async fn accept(
        &self,
        mut message: NewMessage,
        ident: Option<&str>,
    ) -> Result<Accepted, Error> {
        let mut state = self.state.lock().unwrap();
        let id = MessageId(state.number().into());
        let mut paths = Vec::new();
        for batch in &mut message.batches {
            batch.recipients.retain(|to| {
                let again =
                    ident.is_some_and(|ident| !state.idents.insert((ident.into(), to.clone())));
                paths.push(if again { Path::Again } else { Path::New });
                !again
            });
        }
        let body: Bytes = message.body.concat().into();
        let head = Head {
            id,
            arrival: message.arrival,
            accepted: Timestamp::now(),
            reverse_path: message.reverse_path,
            parameters: message.parameters,
            facts: message.facts,
            body_bytes: body.len() as u64,
        };
        state.heads.insert(id, (Arc::new(head), body));
        for batch in message.batches {
            if !batch.recipients.is_empty() {
                state.add(id, batch);
            }
        }
        Ok(Accepted { id, paths })
    }

    async fn claim(&self, _: &str, wanted: &Wanted) -> Result<Vec<Lease>, Error> {
        let mut state = self.state.lock().unwrap();
        let token = state.number();
        let State { heads, batches, .. } = &mut *state;
        let now = Timestamp::now();
        let mut leases = Vec::new();
        let most: usize = wanted.lanes.iter().sum();
        for (message, batch, lease) in batches {
            let served = match &wanted.destinations {
                Destinations::Except(others) => !others.contains(&batch.destination),
                Destinations::Only(these) => these.contains(&batch.destination),
            };
            if lease.is_none() && served && batch.due <= now && leases.len() < most {
                *lease = Some(token);
                leases.push(Lease {
                    head: Arc::clone(&heads[message].0),
                    batch: batch.clone(),
                    token,
                });
            }
        }
        Ok(leases)
    }

    async fn ready(&self, _: &mut Seen) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error> {
        let mut state = self.state.lock().unwrap();
        let mut count = 0;
        for settlement in settlements {
            let held = |(_, batch, lease): &(_, Batch, _)| {
                batch.id == settlement.batch && *lease == Some(settlement.token)
            };
            let Some(at) = state.batches.iter().position(held) else {
                continue;
            };
            count += 1;
            match settlement.outcome {
                Outcome::Finished => drop(state.batches.remove(at)),
                Outcome::Replaced(batches) => {
                    let (message, ..) = state.batches.remove(at);
                    batches
                        .into_iter()
                        .for_each(|batch| state.add(message, batch));
                }
                Outcome::Deferred {
                    until,
                    reply,
                    note,
                    recipients,
                    attempted,
                } => {
                    let (_, batch, lease) = &mut state.batches[at];
                    *lease = None;
                    batch.due = until;
                    batch.attempts += u32::from(attempted);
                    (batch.reply, batch.note, batch.recipients) = (reply, note, recipients);
                }
            }
        }
        Ok(count)
    }

    async fn body(&self, message: MessageId) -> Result<Bytes, Error> {
        let state = self.state.lock().unwrap();
        let found = state.heads.get(&message);
        found
            .map(|(_, body)| body.clone())
            .ok_or(Error::Unknown(message))
    }

    async fn tally(&self) -> Result<Vec<Tally>, Error> {
        let state = self.state.lock().unwrap();
        let mut lines: Vec<Tally> = Vec::new();
        for (message, batch, lease) in &state.batches {
            let at = lines
                .iter()
                .position(|line| line.destination == batch.destination);
            let at = at.unwrap_or_else(|| {
                lines.push(Tally {
                    destination: batch.destination.clone(),
                    class: batch.class,
                    batches: 0,
                    recipients: 0,
                    leased: 0,
                    oldest: state.heads[message].0.arrival,
                    next_due: batch.due,
                });
                lines.len() - 1
            });
            lines[at].batches += 1;
            lines[at].recipients += batch.recipients.len() as u64;
            lines[at].leased += u64::from(lease.is_some());
        }
        Ok(lines)
    }

    fn unhealthy(&self) -> Option<String> {
        None
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            survives_power_cut: true,
            survives_host_loss: false,
            message_bytes_max: 1 << 27,
            ident_memory: Duration::from_secs(3600),
        }
    }

    async fn close(&self) {}
}
