//! One session after the other: takes the next message that is due, sends it over a connection that it keeps as long as it may.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mail::Timestamp;
use mail::id::Ident;
use mail::trace::{Custody, Spf, Trace};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::wire::{Broken, Reply, Wire};
use super::{Shared, Ticket};
use crate::random::Random;
use crate::stamp::{Stamp, Time, push_number};

/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(100);

/// A session with the memory that its messages use again.
pub struct Session {
    shared: Arc<Shared>,
    wire: Option<Wire>,
    /// Messages over this connection.
    sent: u64,
    reverse_path: Vec<u8>,
    recipients: Vec<Vec<u8>>,
    message: Vec<u8>,
}

impl Session {
    pub fn new(shared: Arc<Shared>) -> Self {
        let each = shared.settings.recipients_each.max(1);
        Self {
            shared,
            wire: None,
            sent: 0,
            reverse_path: Vec::new(),
            recipients: vec![Vec::new(); each],
            message: Vec::new(),
        }
    }

    /// Sends until nothing is due any more.
    pub async fn run(mut self) {
        while let Some(Ticket { number, due }) = self.shared.next() {
            let mut began = Instant::now();
            if let Some(due) = due {
                if due > began {
                    if !self.shared.sleep_until(due).await {
                        break;
                    }
                    // What the timer adds is nobody's delay.
                    began = Instant::now();
                } else {
                    began = due;
                }
            }
            self.compose(number);
            let sent = timeout(self.shared.settings.patience, self.deliver()).await;
            match sent {
                Ok(replies) => self.count(replies, began),
                Err(_) => {
                    self.wire = None;
                    self.broken(Broken {
                        why: "no answer in time".into(),
                        at_end: true,
                        at_start: false,
                    });
                }
            }
            let most = self.shared.settings.session_messages_max;
            if most > 0
                && self.sent >= most
                && let Some(wire) = self.wire.take()
            {
                let _ = timeout(self.shared.settings.patience, wire.quit()).await;
            }
        }
        if let Some(wire) = self.wire.take() {
            let _ = timeout(self.shared.settings.patience, wire.quit()).await;
        }
    }

    /// Makes the message of this number.
    fn compose(&mut self, number: u64) {
        let settings = &self.shared.settings;
        let mut random = Random::new(settings.seed, number);
        self.reverse_path.clear();
        settings
            .from
            .write(number, 0, &mut random, &mut self.reverse_path);
        for (nth, recipient) in self.recipients.iter_mut().enumerate() {
            recipient.clear();
            settings
                .recipients
                .write(number, nth as u64, &mut random, recipient);
        }
        let size = settings.sizes.next(&mut random);
        let out = &mut self.message;
        out.clear();
        let stamp = Stamp {
            kind: &settings.kind,
            run: settings.run,
            number,
            sent: Time::now(),
        };
        if let Some(age) = settings.kept {
            out.extend_from_slice(trace(settings.run, number, age).as_bytes());
        }
        stamp.write(out);
        out.extend_from_slice(b"From: <");
        out.extend_from_slice(&self.reverse_path);
        out.extend_from_slice(b">\r\nTo: <");
        out.extend_from_slice(&self.recipients[0]);
        out.extend_from_slice(b">\r\nSubject: mailload ");
        push_number(number, out);
        out.extend_from_slice(b"\r\nMessage-ID: <");
        push_number(settings.run, out);
        out.push(b'.');
        push_number(number, out);
        out.extend_from_slice(b"@mailload.invalid>\r\n");
        out.extend_from_slice(&self.shared.header);
        let body = size.saturating_sub(out.len());
        self.shared.text.append(body, &mut random, out);
    }

    /// Sends the message; over a new connection when the last one turns out to be closed before anything was said.
    async fn deliver(&mut self) -> Result<Vec<Reply>, Broken> {
        let reused = self.wire.is_some();
        let broken = match self.try_deliver().await {
            Err(broken) if reused && broken.at_start && !broken.at_end => broken,
            ended => return ended,
        };
        self.shared.tally.refusal(&broken.why);
        self.try_deliver().await
    }

    async fn try_deliver(&mut self) -> Result<Vec<Reply>, Broken> {
        if self.wire.is_none() {
            self.wire = Some(self.connect().await?);
            self.sent = 0;
        }
        let Some(wire) = &mut self.wire else {
            unreachable!("it was connected just now")
        };
        let sent = wire
            .send(&self.reverse_path, &self.recipients, &self.message)
            .await;
        self.sent += 1;
        let closes = match &sent {
            Ok(replies) => replies.iter().any(|reply| reply.code == 421),
            Err(_) => true,
        };
        if closes {
            self.wire = None;
        }
        sent
    }

    /// Opens a connection; tries again until the patience for a message is at its end.
    async fn connect(&self) -> Result<Wire, Broken> {
        let settings = &self.shared.settings;
        let until = Instant::now() + settings.patience / 2;
        let turn = self.shared.connections.fetch_add(1, Ordering::Relaxed) as usize;
        let to = settings.to[turn % settings.to.len()];
        let from = match settings.sources.len() {
            0 => None,
            count => Some(settings.sources[turn % count]),
        };
        loop {
            let began = Instant::now();
            let opened = Wire::open(to, from, &self.shared.opening).await;
            let why = match opened {
                Ok(wire) => {
                    self.shared.tally.connect.add(began.elapsed());
                    add(&self.shared.tally.sessions, 1);
                    return Ok(wire);
                }
                Err(why) => why,
            };
            add(&self.shared.tally.broken, 1);
            self.shared.tally.refusal(&why);
            if Instant::now() + RETRY > until || self.shared.is_over() {
                return Err(Broken {
                    why: "no connection".into(),
                    at_end: false,
                    at_start: true,
                });
            }
            sleep(RETRY).await;
        }
    }

    fn count(&self, sent: Result<Vec<Reply>, Broken>, began: Instant) {
        let replies = match sent {
            Ok(replies) => replies,
            Err(broken) => return self.broken(broken),
        };
        let tally = &self.shared.tally;
        tally.transaction.add(began.elapsed());
        add(&tally.messages, 1);
        add(&tally.bytes, self.message.len() as u64);
        for reply in &replies {
            let counter = match reply.code / 100 {
                2 => &tally.accepted,
                4 => &tally.deferred,
                _ => &tally.refused,
            };
            add(counter, 1);
            if !reply.is_yes() {
                tally.refusal(&reply.text);
            }
        }
        self.shared.answered();
    }

    fn broken(&self, broken: Broken) {
        let tally = &self.shared.tally;
        let recipients = self.recipients.len() as u64;
        add(
            if broken.at_end {
                &tally.unknown
            } else {
                &tally.unsent
            },
            recipients,
        );
        add(&tally.broken, 1);
        tally.refusal(&broken.why);
    }
}

impl Shared {
    /// False when the run is over before.
    async fn sleep_until(&self, due: Instant) -> bool {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            () = sleep_until(due) => true,
            _ = stop.wait_for(|stop| *stop) => false,
        }
    }
}

/// What an edge knows of a message that it has kept for so long.
fn trace(run: u64, number: u64, age: Duration) -> String {
    let Ok(ident) = Ident::new("source", run, number) else {
        unreachable!("two numbers and a word make an ident")
    };
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let trace = Trace {
        ident,
        custody: Custody::Spooled,
        arrival: Timestamp(Timestamp::now().0.saturating_sub(age)),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        helo: "source.invalid".into(),
        spf: Spf::None,
        exempt: false,
        verdict: None,
    };
    trace.header()
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
