//! Who has passed, kept on disk over restarts: written from time to time and at the end. Losing some minutes of it in a crash costs these
//! clients one more wait.

mod table;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mail::Timestamp;
use service::shutdown::Shutdown;
use tracing::warn;

pub use table::Passes;

/// How often they are written.
const WRITE_INTERVAL: Duration = Duration::from_secs(300);

/// Who has passed; outlives reloads and restarts.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    passes: Mutex<Passes>,
}

impl Kept {
    /// As it was left.
    pub fn open(path: PathBuf, passes_max: usize) -> Self {
        let (passes, trouble) = Passes::load(&path, passes_max, Timestamp::now());
        if let Some(why) = trouble {
            warn!(event = "passes", path = %path.display(), why, "not read; clients wait once more");
        }
        Self {
            path,
            passes: Mutex::new(passes),
        }
    }

    /// The table.
    pub fn passes(&self) -> MutexGuard<'_, Passes> {
        // A panic elsewhere leaves whole entries.
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a client has passed lately.
    pub fn knows(&self, client: IpAddr) -> bool {
        self.passes().has(client, Timestamp::now())
    }

    /// A client has passed, for so long from now.
    pub fn grant_for(&self, client: IpAddr, valid: Duration) {
        let now = Timestamp::now();
        self.passes().grant(client, now.after(valid), now);
    }

    /// When a client's pass ends, if it has one.
    pub fn until(&self, client: IpAddr) -> Option<Timestamp> {
        let until = self.passes().until(table::key(client))?;
        let until = Timestamp(until.saturating_mul(1000));
        (until > Timestamp::now()).then_some(until)
    }

    /// A client has shown that it should not have passed.
    pub fn forget(&self, client: IpAddr) {
        self.passes().forget(table::key(client));
    }

    /// Nobody has passed.
    pub fn forget_all(&self) {
        self.passes().forget_all();
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
            Some(bytes) => table::write(&self.path, &bytes),
            None => Ok(()),
        }
    }
}
