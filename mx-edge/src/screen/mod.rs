//! The screen before the greeting: a client that is not known yet reads a teaser and waits; one that speaks meanwhile was not written to
//! deliver mail. All in one session: who passes is served at once and need not wait again for a day. Decides who waits and
//! remembers who passed; what is done with the others is the session's.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mail::Timestamp;

use crate::config;
use crate::network::{self, Network};
use crate::passes::Kept;

/// Where passes are kept, in the state folder.
const FILE: &str = "passes";

/// Who has passed; outlives reloads.
pub type Memory = Kept;

/// Opens what was remembered.
pub fn open(state: &Path, passes_max: usize) -> Memory {
    Kept::open(state.join(FILE), passes_max)
}

/// How clients are screened.
#[derive(Debug)]
pub struct Screen {
    memory: Arc<Memory>,
    wait: Duration,
    wait_stressed: Duration,
    valid: Duration,
    skip: Vec<Network>,
}

impl Screen {
    /// As configured.
    pub fn new(config: &config::Config, memory: &Arc<Memory>) -> Self {
        let screen = &config.screen;
        Self {
            memory: Arc::clone(memory),
            wait: screen.wait,
            wait_stressed: screen.wait_stressed,
            valid: screen.valid,
            skip: screen.skip_networks.clone(),
        }
    }

    /// How long a client waits; none when it need not. Under stress it waits less, since each that waits holds a session.
    pub fn wait(&self, client: IpAddr, stressed: bool) -> Option<Duration> {
        if network::contains(&self.skip, client) || self.memory.knows(client) {
            return None;
        }
        Some(if stressed {
            self.wait_stressed
        } else {
            self.wait
        })
    }

    /// Whether a client has shown itself before.
    pub fn knows(&self, client: IpAddr) -> bool {
        self.memory.knows(client)
    }

    /// It has waited in silence.
    pub fn passed(&self, client: IpAddr) {
        let now = Timestamp::now();
        self.memory
            .passes()
            .grant(client, now.after(self.valid), now);
    }
}

/// What a client said, as a line of a log can hold it: at most 100 octets, escaped.
pub fn escaped(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(100)].escape_ascii().to_string()
}
