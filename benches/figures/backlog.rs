//! Backlogs as a list host has them: posts of a few kilobytes to lists of 10,000 members at a few hundred domains with Zipf
//! shares, expanded into batches of at most a hundred recipients of one domain, as listserv packs them.

use bytes::Bytes;
use mail::{Address, Domain, MailParameters, Recipient, ReversePath, Timestamp};
use spool::{
    Class, Destination, Destinations, Ends, Lease, NewBatch, NewMessage, Outcome, Settlement,
    Spool, Wanted,
};

use crate::Failure;

/// Members of a list.
pub const MEMBERS: usize = 10_000;
/// Domains they are at.
const DOMAINS: usize = 250;
/// Recipients of a batch at most.
const BATCH_MAX: usize = 100;
/// Length of a post, bytes.
pub const POST_BYTES: usize = 6 * 1024;

/// Members at each domain: the share of the n-th is one n-th of the first one's.
fn shares() -> Vec<usize> {
    let total: f64 = (1..=DOMAINS).map(|rank| 1.0 / rank as f64).sum();
    let mut shares: Vec<usize> = (1..=DOMAINS)
        .map(|rank| (MEMBERS as f64 / (rank as f64 * total)) as usize)
        .collect();
    let rest = MEMBERS - shares.iter().sum::<usize>();
    if let Some(first) = shares.first_mut() {
        *first += rest;
    }
    shares
}

/// The batches of one post, to members of the list with this number.
pub fn batches(list: usize) -> Result<Vec<NewBatch>, Failure> {
    let now = Timestamp::now();
    let mut batches = Vec::new();
    for (rank, share) in shares().into_iter().enumerate() {
        let domain = Domain::parse(&format!("mail{rank}.example"))?;
        let recipients: Vec<Recipient> = (0..share)
            .map(|member| {
                let local = format!("member.{list}.{member}");
                Ok(Address::new(&local, domain.clone())?.into())
            })
            .collect::<Result<_, Failure>>()?;
        for chunk in recipients.chunks(BATCH_MAX) {
            batches.push(NewBatch {
                destination: Destination::Domain(domain.clone()),
                class: Class::Ordinary,
                due: now,
                recipients: chunk.to_vec(),
                template: Bytes::from_static(b"list dev@lists.example, number 4711"),
                replies: Default::default(),
            });
        }
    }
    Ok(batches)
}

/// A post that waits to be expanded.
pub fn post() -> Result<NewMessage, Failure> {
    let now = Timestamp::now();
    Ok(NewMessage {
        arrival: now,
        reverse_path: ReversePath::Address(Address::parse("author@example.org")?),
        parameters: MailParameters::default(),
        facts: Bytes::from_static(b"{\"client\":\"192.0.2.1\"}"),
        body: vec![vec![b'x'; POST_BYTES].into()],
        batches: vec![NewBatch {
            destination: Destination::Expand,
            class: Class::Ordinary,
            due: now,
            recipients: vec![Address::parse("dev@lists.example")?.into()],
            template: Bytes::new(),
            replies: Default::default(),
        }],
    })
}

/// Accepts a post and expands it; how long the settlement took, seconds.
pub async fn expand(spool: &dyn Spool, batches: Vec<NewBatch>) -> Result<f64, Failure> {
    spool.accept(post()?, None).await?;
    let wanted = Wanted {
        destinations: Destinations::Only(vec![Destination::Expand]),
        lanes: [1; 4],
    };
    let leases = spool.claim("here", &wanted).await?;
    let lease = leases.first().ok_or("the post is not there")?;
    let outcome = Outcome::Replaced(batches);
    let settlement = settlement(lease, outcome, Ends::default());
    let start = std::time::Instant::now();
    match spool.settle(vec![settlement]).await? {
        1 => Ok(start.elapsed().as_secs_f64()),
        _ => Err("the expansion had no effect".into()),
    }
}

/// Ends a lease.
pub fn settlement(lease: &Lease, outcome: Outcome, ends: Ends) -> Settlement {
    Settlement {
        batch: lease.batch.id,
        token: lease.token,
        outcome,
        ends,
    }
}
