//! One attempt: a copy of a message over one connection, and what each recipient's reply means.

use bytes::Bytes;
use mail::{Envelope, Recipient, Reply};
use smtp::client::Trouble;
use smtp::xforward::Xforward;

/// One transaction's worth of a batch: what the owner renders, what the wire carries.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The envelope; each recipient is one of the batch's, `recipients[i]` of it in the order of `indices`.
    pub envelope: Envelope,
    /// For each recipient of the envelope, its place in `batch.recipients`.
    pub indices: Vec<usize>,
    /// The whole message as parts: spliced header fields, then slices of the stored body (shared, not copied).
    pub parts: Vec<Bytes>,
    /// What is told by XFORWARD where the next hop takes it.
    pub xforward: Option<Xforward>,
}

/// What came of one recipient.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// Who.
    pub recipient: Recipient,
    /// Its place in `batch.recipients`.
    pub index: usize,
    /// What came of it.
    pub result: Result,
    /// The host that said so, `mx.example.org[192.0.2.1]`; none when nobody was reached.
    pub remote: Option<Box<str>>,
}

/// What a reply, or none, means for a recipient.
#[derive(Clone, Debug)]
pub enum Result {
    /// 2xx: the next hop owns it.
    Delivered(Reply),
    /// 4xx, or no connection: try again.
    Deferred(Reply),
    /// 5xx, or too old: given up.
    Failed(Reply),
}

/// The reply that stands for a connection that broke: 4.4.1 (no connection), 4.4.2 (lost, timed out), 4.7.5 (TLS), or the peer's own.
pub fn reply_of(trouble: &Trouble) -> Reply {
    todo!("{trouble}")
}

/// A next hop that is configured, not looked up: tried in order, hosts resolved anew for each connection.
#[derive(Clone)]
pub struct Route {
    /// `host:port` each; tried in order, the last good one first.
    pub hosts: Vec<String>,
    /// How to talk to it.
    pub options: smtp::client::Options,
    /// Transactions over one connection at most. 1 where a balancer picks a node for each connection.
    pub transactions_max: usize,
    /// Connections at once at most.
    pub connections_max: usize,
}

/// Connections to one route, reused as far as it allows. Shared between the engine and those who pass mail through directly.
pub struct Connections {
    _private: (),
}

impl Connections {
    /// None yet.
    pub fn new(route: Route) -> Self {
        let _ = route;
        todo!()
    }

    /// Passes one copy on and waits for its replies, one a recipient of its envelope. A connection that turns out to be dead
    /// before MAIL was answered is replaced once by a fresh one. The whole must end before `deadline`.
    pub async fn pass(
        &self,
        copy: &Copy,
        deadline: tokio::time::Instant,
    ) -> std::result::Result<(Vec<Reply>, Box<str>), Trouble> {
        let _ = (copy, deadline);
        todo!()
    }
}
