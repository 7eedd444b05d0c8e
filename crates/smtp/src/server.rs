//! The server's driver: moves bytes between one socket and one session, asks a [`Handler`] what to answer.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use mail::{Envelope, MailParameters, Recipient, Reply, ReversePath};
use tokio::sync::watch;

mod ask;
mod driver;
mod flow;
mod proxied;
mod secure;
#[cfg(test)]
mod tests;

pub use crate::data::BareNewline;
pub use crate::facts::{Ending, Facts, Tls};
pub use crate::objection::{Objection, Refusal, Wording};
pub use crate::settings::{Guard, Settings, Stress, Timeouts};
pub use proxied::{NotProxied, proxy_header};

/// Tells whether the client still waits.
#[derive(Clone, Debug)]
pub struct Presence(pub watch::Receiver<bool>);

impl Presence {
    /// Whether the client has closed its connection.
    pub fn gone(&self) -> bool {
        !*self.0.borrow()
    }
}

/// How long a client waits for its greeting.
pub struct Screening {
    /// Said at once, as the greeting's first line: who does not read on takes it for all of it. None: nothing is said.
    pub teaser: Option<Box<str>>,
    /// The greeting comes when this resolves.
    pub over: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What a program answers. Called in the order of the dialogue; a refusal leaves the transaction as it was.
#[async_trait::async_trait]
pub trait Handler: Send {
    /// The connection stands, nothing was said yet; or XCLIENT has named another client, who comes as one that just connected. `Err` (421, 554, 521) is said instead of the greeting and ends the session.
    async fn connect(&mut self, facts: &Facts) -> Result<(), Reply> {
        let _ = facts;
        Ok(())
    }

    /// It may come in, but waits for the greeting: a client that cannot wait was not written to deliver mail (RFC 5321 4.3.1).
    async fn screen(&mut self, facts: &Facts) -> Option<Screening> {
        let _ = facts;
        None
    }

    /// The client spoke before it was greeted, beginning with these bytes. `Err` is said instead of the rest of the greeting and ends the
    /// session.
    async fn spoke_first(&mut self, facts: &Facts, bytes: &[u8]) -> Result<(), Reply> {
        let _ = (facts, bytes);
        Ok(())
    }

    /// It has waited in silence, and would be greeted now. `Err` is said instead of the rest of the greeting and ends the session.
    async fn waited(&mut self, facts: &Facts) -> Result<(), Reply> {
        let _ = facts;
        Ok(())
    }

    /// Whether errors and junk commands of this client end nothing, since no limit may hit it; asked when it has come in.
    fn is_exempt(&self) -> bool {
        false
    }

    /// STARTTLS, where it is offered. A refusal leaves the session in the clear.
    async fn start_tls(&mut self, facts: &Facts) -> Result<(), Reply> {
        let _ = facts;
        Ok(())
    }

    /// HELO, EHLO or LHLO, also again after STARTTLS.
    async fn helo(&mut self, facts: &Facts) -> Result<(), Reply> {
        let _ = facts;
        Ok(())
    }

    /// MAIL. `size` is what the client announced; larger than `message_bytes_max` never comes here.
    async fn mail(
        &mut self,
        facts: &Facts,
        reverse_path: &ReversePath,
        parameters: &MailParameters,
        size: Option<u64>,
    ) -> Result<(), Reply>;

    /// RCPT; `envelope` holds the recipients accepted so far.
    async fn rcpt(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        recipient: &Recipient,
    ) -> Result<(), Reply>;

    /// The whole message, CRLF lines, dots unstuffed. SMTP: exactly one reply. LMTP: one a recipient, in order.
    async fn message(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        message: Bytes,
        presence: &Presence,
    ) -> Vec<Reply>;

    /// The session has refused something without asking; of a message it is told before [`Handler::reset`].
    fn objected(&mut self, facts: &Facts, refusal: Refusal) {
        let _ = (facts, refusal);
    }

    /// RSET, or EHLO, STARTTLS, the end of a message: the transaction is over.
    fn reset(&mut self) {}
}

/// Serves one connection to its end. `stop` turning true ends it with 421 before the next transaction, never within one.
pub async fn serve<H: Handler>(
    stream: tokio::net::TcpStream,
    client: SocketAddr,
    settings: Arc<Settings>,
    handler: &mut H,
    stop: watch::Receiver<bool>,
) -> Ending {
    let Ok(local) = stream.local_addr() else {
        return Ending::Lost;
    };
    serve_between(stream, (client, local), settings, handler, stop).await
}

/// The same where the ends (client's, ours) are not the socket's: behind a proxy.
pub async fn serve_between<H: Handler>(
    stream: tokio::net::TcpStream,
    (client, local): (SocketAddr, SocketAddr),
    settings: Arc<Settings>,
    handler: &mut H,
    stop: watch::Receiver<bool>,
) -> Ending {
    // Replies are written a group at a time; waiting for more to send would only add a round trip.
    let _ = stream.set_nodelay(true);
    driver::serve_on(stream, client, local, settings, handler, stop).await
}
