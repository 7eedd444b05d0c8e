//! The process that `kill_9` kills: accepts with idents, bodies that need a segment of their own, claims, settlements of every kind, and
//! an operator who holds, releases and drops. It tells each thing in one line before it begins or after it is durable.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mail::{Address, MailParameters, ReversePath, Timestamp};
use spool::embedded::{Embedded, Options};
use spool::{
    Action, Class, Destination, Destinations, Ends, HoldId, Lease, NewBatch, NewMessage, Outcome,
    Pattern, Predicate, Replies, Seen, Settlement, Spool, Wanted,
};

use crate::Failure;

const PRODUCERS: u64 = 6;
/// Whose mail an operator holds and releases.
pub const HELD: u64 = 4;
/// Whose mail he drops.
pub const DROPPED: u64 = 5;
/// Tasks that claim and settle.
pub const WORKERS: usize = 2;
/// Batches that a worker has in hand.
pub const HAND: usize = 16;

/// How the spool is opened, on a disk that may be nearly full.
pub fn options(folder: &Path) -> Options {
    Options {
        segment_bytes: 256 * 1024,
        free_bytes_min: 0,
        free_inodes_min: 0,
        ..Options::new(folder.join("spool"))
    }
}

/// The same for the same seed.
pub struct Random(pub u64);

impl Random {
    /// A number below this one.
    pub fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*, which is random enough to be anywhere.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn new_batch(destination: Destination, name: &str) -> Result<NewBatch, Failure> {
    Ok(NewBatch {
        destination,
        class: Class::Ordinary,
        due: Timestamp::now(),
        recipients: vec![Address::parse(name)?.into()],
        template: Bytes::from_static(b"template"),
        replies: Default::default(),
    })
}

/// A message of this name and so many bytes.
pub fn new_message(name: &str, body_bytes: usize) -> Result<NewMessage, Failure> {
    let destination = match name.starts_with('e') {
        true => Destination::Expand,
        false => Destination::Inside,
    };
    Ok(NewMessage {
        arrival: Timestamp::now(),
        reverse_path: ReversePath::Null,
        parameters: MailParameters::default(),
        facts: Bytes::new(),
        body: vec![
            Bytes::from(format!("{name} {body_bytes}\r\n")),
            Bytes::from(vec![b'x'; body_bytes]),
        ],
        batches: vec![new_batch(destination, name)?],
    })
}

/// The name of a batch: its first recipient.
pub fn name(lease: &Lease) -> String {
    let first = lease.batch.recipients.first();
    first.map_or_else(String::new, |first| first.address.to_string())
}

/// Whether a name is of a producer's mail, or made of it.
pub fn is_of(name: &str, producer: u64) -> bool {
    let number = name.trim_start_matches("c-").split('-').nth(1);
    number.and_then(|number| number.parse().ok()) == Some(producer)
}

/// The mail of a producer, of all rounds.
fn all_of(producer: u64) -> Predicate {
    Predicate {
        recipient: Some(Pattern::new(&format!("*-{producer}-*@x.org"))),
        ..Predicate::default()
    }
}

/// A name of an expansion's child.
pub fn child(name: &str) -> String {
    format!("c-{name}")
}

/// One line in one write: either the parent has it or not.
fn tell(word: &str, name: &str) -> std::io::Result<()> {
    let line = format!("{word} {name}\n");
    std::io::stdout().lock().write_all(line.as_bytes())
}

async fn produce(spool: Arc<Embedded>, round: u64, producer: u64) -> Result<(), Failure> {
    let mut random = Random((round + 1) * 1000 + producer);
    for number in 0_u64.. {
        let kind = if random.below(3) == 0 { 'e' } else { 'm' };
        let name = format!("{kind}{round}-{producer}-{number}@x.org");
        let body_bytes = match random.below(40) {
            0 => 300_000,
            _ => random.below(12_000) as usize,
        };
        let message = new_message(&name, body_bytes)?;
        spool.accept(message, Some(&name)).await?;
        tell("accepted", &name)?;
    }
    Ok(())
}

fn outcome(lease: &Lease, random: &mut Random) -> Result<(&'static str, Outcome), Failure> {
    if lease.batch.destination == Destination::Expand {
        let children = vec![new_batch(Destination::Inside, &child(&name(lease)))?];
        return Ok(("replaced", Outcome::Replaced(children)));
    }
    Ok(match random.below(4) {
        0 => {
            let deferred = Outcome::Deferred {
                until: Timestamp::now(),
                replies: Replies::all("450 4.2.1 later"),
                note: Bytes::new(),
                recipients: lease.batch.recipients.clone(),
                attempted: true,
                moved: Vec::new(),
            };
            ("deferred", deferred)
        }
        _ => ("finished", Outcome::Finished),
    })
}

/// So many, from anywhere.
pub fn wanted(limit: usize) -> Wanted {
    Wanted {
        destinations: Destinations::Except(Vec::new().into()),
        lanes: [limit / 4; 4],
    }
}

/// Ends a lease like this.
pub fn settlement(lease: &Lease, outcome: Outcome) -> Settlement {
    let delivered = u64::from(matches!(outcome, Outcome::Finished));
    Settlement {
        batch: lease.batch.id,
        token: lease.token,
        outcome,
        ends: Ends {
            delivered,
            ..Ends::default()
        },
    }
}

async fn work(spool: Arc<Embedded>, seed: u64) -> Result<(), Failure> {
    let mut random = Random(seed);
    let mut seen = Seen::default();
    loop {
        spool.ready(&mut seen).await;
        let leases = spool.claim("here", &wanted(HAND)).await?;
        let (mut settlements, mut words) = (Vec::new(), Vec::new());
        for lease in &leases {
            // As a delivery: from here on the next hop may have it.
            let what = format!("{} {}", name(lease), lease.batch.attempts);
            tell("attempts", &what)?;
            let (word, outcome) = outcome(lease, &mut random)?;
            words.push((word, what));
            settlements.push(settlement(lease, outcome));
        }
        let count = settlements.len();
        if spool.settle(settlements).await? != count {
            return Err("a settlement had no effect".into());
        }
        for (word, what) in words {
            tell(word, &what)?;
        }
    }
}

/// What an operator does meanwhile.
async fn operate(spool: Arc<Embedded>, round: u64) -> Result<(), Failure> {
    for number in 0.. {
        let hold = HoldId(round * 1_000_000 + number);
        for (producer, word, action) in [
            (HELD, "hold", Action::Hold(hold)),
            (DROPPED, "drop", Action::Drop),
            (HELD, "release", Action::Release),
        ] {
            tell("begins", word)?;
            spool.select(&all_of(producer), action).await?;
            tell("did", word)?;
        }
    }
    Ok(())
}

/// Loads a spool until it is killed.
pub async fn load(folder: &Path, round: u64) -> Result<(), Failure> {
    let spool = Arc::new(Embedded::open(options(folder))?);
    tell("open", "spool")?;
    let mut tasks = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS {
        let spool = Arc::clone(&spool);
        tasks.spawn(async move {
            let made = produce(spool, round, producer).await;
            made.map_err(|error| error.to_string())
        });
    }
    for worker in 0..WORKERS as u64 {
        let spool = Arc::clone(&spool);
        tasks.spawn(async move {
            let worked = work(spool, 77 + 2 * round + worker).await;
            worked.map_err(|error| error.to_string())
        });
    }
    tasks.spawn(async move {
        let operated = operate(spool, round).await;
        operated.map_err(|error| error.to_string())
    });
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
