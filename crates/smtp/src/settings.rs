//! How a server behaves: limits, deadlines, what it offers. Read by sessions and by the driver, owned by the program.

use std::sync::Arc;
use std::time::Duration;

use mail::Domain;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::rustls::ServerConfig;

use crate::Protocol;
use crate::data::BareNewline;
use crate::objection::Wording;

/// How a server behaves; one for all its sessions, replaced as a whole on reload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// The name in the greeting and the EHLO reply.
    pub hostname: Domain,
    /// Largest message, bytes; announced by SIZE, held at MAIL and while the message streams in.
    pub message_bytes_max: u64,
    /// RCPT commands accepted in one transaction; more get 452 4.5.3.
    pub recipients_max: usize,
    /// Errors (unknown commands, refused recipients) after which the session ends with 421 4.7.0.
    pub errors_max: usize,
    /// A bare CR or LF in a message.
    pub bare_newline: BareNewline,
    /// The certificate; offers STARTTLS when there is one.
    pub tls: Option<Arc<ServerConfig>>,
    /// Refuse MAIL with 530 5.7.0 before STARTTLS. Never on a public MX (RFC 3207 4).
    pub tls_required: bool,
    /// Offer and believe XFORWARD.
    pub xforward: bool,
    /// EHLO keywords that are not offered and not understood (`CHUNKING`, `DSN`, `SMTPUTF8`, `PIPELINING` ...).
    pub keywords_off: Vec<String>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// What a client that misbehaves meets.
    pub guard: Guard,
    /// Memory that all messages in flight share, in KiB permits; without any left a message is answered 452 4.3.1.
    pub memory_kib: Arc<Semaphore>,
}

/// Deadlines of a session.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the next command [300 s, RFC 5321 4.5.3.2.7].
    pub command: Duration,
    /// For the next block of a message [180 s].
    pub data_block: Duration,
    /// For the TLS handshake [30 s].
    pub handshake: Duration,
    /// For the whole session [3600 s].
    pub session: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(300),
            data_block: Duration::from_secs(180),
            handshake: Duration::from_secs(30),
            session: Duration::from_secs(3600),
        }
    }
}

/// What a client that misbehaves meets. The default is nothing, as the inner hops have it.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Errors of a session from which on the replies to further ones wait.
    pub errors_soft: usize,
    /// So long for each [1 s]; not under stress, where a waiting session is one too many.
    pub error_delay: Duration,
    /// A message's octets a second, on average and beyond the first `data_block` [500]; 0: no matter.
    pub data_rate_min: u64,
    /// Commands since the last message that bring none on (NOOP, RSET, VRFY, HELP, HELO said again) [100]; each further one is an error.
    pub junk_commands_max: usize,
    /// Offer and believe XCLIENT.
    pub xclient: bool,
    /// How refusals are worded; none: as they come.
    pub wording: Option<Arc<dyn Wording>>,
    /// What changes while the server is under stress.
    pub stress: Option<Stress>,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            errors_soft: usize::MAX,
            error_delay: Duration::ZERO,
            data_rate_min: 0,
            junk_commands_max: usize::MAX,
            xclient: false,
            wording: None,
            stress: None,
        }
    }
}

/// Shorter limits, in force while the server is under stress; sessions that wait already are held to them too.
#[derive(Clone, Debug)]
pub struct Stress {
    /// Whether it is.
    pub now: watch::Receiver<bool>,
    /// In place of [`Timeouts::command`].
    pub command: Duration,
    /// In place of [`Timeouts::data_block`].
    pub data_block: Duration,
    /// In place of [`Timeouts::handshake`].
    pub handshake: Duration,
    /// In place of [`Settings::errors_max`].
    pub errors_max: usize,
    /// In place of [`Guard::junk_commands_max`].
    pub junk_commands_max: usize,
}

impl Settings {
    /// What holds in place of the ordinary limits, if the server is under stress now.
    pub fn stressed(&self) -> Option<&Stress> {
        let stress = self.guard.stress.as_ref();
        stress.filter(|stress| *stress.now.borrow())
    }

    /// Errors after which a session ends, as things are now.
    pub fn errors_max_now(&self) -> usize {
        self.stressed()
            .map_or(self.errors_max, |stress| stress.errors_max)
    }

    /// Commands that bring no message on before they are errors, as things are now.
    pub fn junk_commands_max_now(&self) -> usize {
        self.stressed()
            .map_or(self.guard.junk_commands_max, |stress| {
                stress.junk_commands_max
            })
    }

    /// For the next command, and for a client to take our reply, as things are now.
    pub fn command_now(&self) -> Duration {
        self.stressed()
            .map_or(self.timeouts.command, |stress| stress.command)
    }

    /// For a TLS handshake that begins now.
    pub fn handshake_now(&self) -> Duration {
        self.stressed()
            .map_or(self.timeouts.handshake, |stress| stress.handshake)
    }

    /// Resolves when stress begins, or at once while there is some; never when there can be none.
    pub async fn stress_begins(&self) {
        if let Some(stress) = &self.guard.stress
            && stress.now.clone().wait_for(|now| *now).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// For the next block of a message, as things are now.
    pub fn data_block_now(&self) -> Duration {
        self.stressed()
            .map_or(self.timeouts.data_block, |stress| stress.data_block)
    }
}
