//! The screen before the greeting: a client that is not known yet reads a teaser and waits; one that speaks meanwhile was not written to
//! deliver mail. All in one session: who passes is served at once and need not wait again for a day. Decides who waits and
//! remembers who passed which test; what is done with the others is the session's.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::network::{self, Network};
use crate::passes::Kept;

/// Who has passed what, each test with an end of its own; outlives reloads and restarts. One file a test, in the state folder.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Who waited in silence: need not wait.
    pub waited: Arc<Kept>,
    /// Who behaved through a whole session: is spared under stress.
    pub behaved: Arc<Kept>,
    /// Whom no list of the DNS had: need not be asked about.
    pub unlisted: Arc<Kept>,
}

impl Memory {
    /// Opens what was remembered; of each test at most so many clients.
    pub fn open(state: &Path, passes_max: usize) -> Self {
        let kept = |file: &str| Arc::new(Kept::open(state.join(file), passes_max));
        Self {
            waited: kept("passes"),
            behaved: kept("passes-session"),
            unlisted: kept("passes-lists"),
        }
    }

    /// Each test's, by its name.
    pub fn tests(&self) -> [(&'static str, &Arc<Kept>); 3] {
        [
            ("wait", &self.waited),
            ("session", &self.behaved),
            ("lists", &self.unlisted),
        ]
    }

    /// A client has failed a test: it has passed none any more.
    pub fn forget(&self, client: IpAddr) {
        for (_, kept) in self.tests() {
            kept.forget(client);
        }
    }
}

/// How clients are screened.
#[derive(Debug)]
pub struct Screen {
    memory: Memory,
    wait: Duration,
    wait_stressed: Duration,
    valid: Duration,
    valid_session: Duration,
    skip: Vec<Network>,
    /// Clients that may wait at once.
    pub waiting_max: usize,
}

impl Screen {
    /// As configured.
    pub fn new(config: &config::Config, memory: &Memory) -> Self {
        let screen = &config.screen;
        Self {
            memory: memory.clone(),
            wait: screen.wait,
            wait_stressed: screen.wait_stressed,
            valid: screen.valid,
            valid_session: screen.valid_session,
            skip: screen.skip_networks.clone(),
            waiting_max: config.screening_max(),
        }
    }

    /// How long a client waits; none when it need not. Under stress it waits less, since each that waits holds a session, and who has
    /// behaved before does not at all.
    pub fn wait(&self, client: IpAddr, stressed: bool) -> Option<Duration> {
        if network::contains(&self.skip, client) || self.memory.waited.knows(client) {
            return None;
        }
        match stressed {
            false => Some(self.wait),
            true if self.memory.behaved.knows(client) => None,
            true => Some(self.wait_stressed),
        }
    }

    /// Whether a client has waited before.
    pub fn knows(&self, client: IpAddr) -> bool {
        self.memory.waited.knows(client)
    }

    /// Whether a client has behaved through a whole session before.
    pub fn trusts(&self, client: IpAddr) -> bool {
        self.memory.behaved.knows(client)
    }

    /// It has waited in silence.
    pub fn passed(&self, client: IpAddr) {
        self.memory.waited.grant_for(client, self.valid);
    }

    /// It has behaved through a whole session.
    pub fn behaved(&self, client: IpAddr) {
        self.memory.behaved.grant_for(client, self.valid_session);
    }
}

/// What a client said, as a line of a log can hold it: at most 100 octets, escaped.
pub fn escaped(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(100)].escape_ascii().to_string()
}
