//! The screen before the greeting: a client that is not known yet reads a teaser and waits; one that speaks meanwhile was not written to
//! deliver mail. All in one session: who passes is served at once and need not wait again for a day. Decides who waits and
//! remembers who passed; what is done with the others is the session's.

mod passes;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mail::Timestamp;
use service::shutdown::Shutdown;
use tracing::warn;

use crate::config;
use crate::network::{self, Network};
use passes::Passes;

/// Where passes are kept, in the state folder.
const FILE: &str = "passes";
/// How often they are written.
const WRITE_INTERVAL: Duration = Duration::from_secs(300);

/// Who has passed; outlives reloads.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    passes: Mutex<Passes>,
}

impl Memory {
    /// As it was left.
    pub fn open(state: &Path, passes_max: usize) -> Self {
        let path = state.join(FILE);
        let (passes, trouble) = Passes::load(&path, passes_max, Timestamp::now());
        if let Some(why) = trouble {
            warn!(event = "passes", path = %path.display(), why, "not read; clients wait once more");
        }
        Self {
            path,
            passes: Mutex::new(passes),
        }
    }

    fn passes(&self) -> MutexGuard<'_, Passes> {
        // A panic elsewhere leaves whole entries.
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a client has passed lately.
    pub fn knows(&self, client: IpAddr) -> bool {
        self.passes().has(client, Timestamp::now())
    }

    /// How many clients have.
    pub fn len(&self) -> usize {
        self.passes().len()
    }

    /// Whether nobody has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes them from time to time, and at the end.
    pub async fn keep(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            let ended = tokio::select! {
                () = tokio::time::sleep(WRITE_INTERVAL) => false,
                () = shutdown.wait() => true,
            };
            let this = Arc::clone(&self);
            let written = tokio::task::spawn_blocking(move || this.write()).await;
            if let Ok(Err(error)) = written {
                warn!(event = "passes", path = %self.path.display(), %error, "not written");
            }
            if ended {
                return;
            }
        }
    }

    fn write(&self) -> std::io::Result<()> {
        let snapshot = self.passes().snapshot(Timestamp::now());
        match snapshot {
            Some(bytes) => passes::write(&self.path, &bytes),
            None => Ok(()),
        }
    }
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
