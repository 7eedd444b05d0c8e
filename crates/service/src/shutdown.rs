//! Shutdown: who waits also listens for it; who must finish holds a named activity.
//! It tells and counts; it never cuts anybody off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// How often those still waited for are logged.
const ALIVE_LOG_INTERVAL: Duration = Duration::from_secs(15);

/// Tells when to stop, and waits for those who must finish. Cheap to clone.
#[derive(Clone)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

struct Inner {
    begun: watch::Sender<bool>,
    /// How many are alive in all; watched by those who wait for the end.
    total: watch::Sender<usize>,
    /// How many are alive by name. A name stays with 0, since a gauge that vanishes is read as unknown.
    alive: Mutex<BTreeMap<&'static str, usize>>,
}

impl Inner {
    /// No code panics while it holds the lock, and a count is right at every instant: a poisoned lock is still good.
    fn alive(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by work that must not be cut.
pub struct Activity {
    name: &'static str,
    inner: Arc<Inner>,
}

impl Drop for Activity {
    fn drop(&mut self) {
        if let Some(count) = self.inner.alive().get_mut(self.name) {
            *count -= 1;
        }
        self.inner.total.send_modify(|total| *total -= 1);
    }
}

impl Shutdown {
    /// A fresh one; for tests and for `program::main`.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                begun: watch::Sender::new(false),
                total: watch::Sender::new(0),
                alive: Mutex::default(),
            }),
        }
    }

    /// Begins it.
    pub fn begin(&self) {
        self.inner.begun.send_replace(true);
    }

    /// Whether it has begun.
    pub fn begun(&self) -> bool {
        *self.inner.begun.borrow()
    }

    /// Resolves when it begins.
    pub async fn wait(&self) {
        until(&mut self.inner.begun.subscribe(), |begun| *begun).await;
    }

    /// A watch that turns true when it begins.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.inner.begun.subscribe()
    }

    /// An activity to hold; `name` is what the log says while it is waited for.
    pub fn activity(&self, name: &'static str) -> Activity {
        // Total first: nobody may read 0 while one is being taken.
        self.inner.total.send_modify(|total| *total += 1);
        *self.inner.alive().entry(name).or_default() += 1;
        Activity {
            name,
            inner: self.inner.clone(),
        }
    }

    /// How many activities are held, by name; names once held stay with 0.
    pub fn activities(&self) -> BTreeMap<&'static str, usize> {
        self.inner.alive().clone()
    }

    /// Resolves when it has begun and no activity is held any more; logs every 15 s which ones are.
    pub async fn drained(&self) {
        self.wait().await;
        let mut total = self.inner.total.subscribe();
        let start = tokio::time::Instant::now() + ALIVE_LOG_INTERVAL;
        let mut interval = tokio::time::interval_at(start, ALIVE_LOG_INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = until(&mut total, |total| *total == 0) => return,
                _ = interval.tick() => tracing::info!(
                    event = "draining",
                    waiting_for = %self.alive_text(),
                    "waiting for work that must not be cut; mail in it is lost to nobody, but its sender waits"
                ),
            }
        }
    }

    fn alive_text(&self) -> String {
        let alive = self.activities();
        let names = alive.iter().filter(|(_, count)| **count > 0);
        let parts: Vec<_> = names.map(|(name, n)| format!("{name}:{n}")).collect();
        parts.join(",")
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

/// Resolves when the watched value is as wanted. The sender outlives it: both are in `Inner`.
async fn until<T>(watched: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) {
    if watched.wait_for(wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drained_waits_for_the_last_activity() {
        let shutdown = Shutdown::new();
        let session = shutdown.activity("session");
        let forward = shutdown.activity("forward");
        assert!(!shutdown.begun());
        let drained = |patience: u64| {
            let shutdown = shutdown.clone();
            async move {
                let patience = Duration::from_secs(patience);
                tokio::time::timeout(patience, shutdown.drained())
                    .await
                    .is_ok()
            }
        };
        assert!(!drained(60).await, "not begun");
        shutdown.begin();
        shutdown.wait().await;
        assert!(*shutdown.watch().borrow());
        assert!(!drained(60).await, "two alive");
        drop(session);
        assert!(!drained(60).await, "one alive");
        assert_eq!(shutdown.alive_text(), "forward:1");
        drop(forward);
        assert!(drained(1).await, "none alive");
        assert_eq!(
            shutdown.activities(),
            BTreeMap::from([("forward", 0), ("session", 0)])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_activity_ends_with_a_panic_of_its_task() {
        let shutdown = Shutdown::new();
        let activity = shutdown.activity("session");
        let task = tokio::spawn(async move {
            let _held = activity;
            assert!(std::hint::black_box(false), "meant to panic");
        });
        assert!(task.await.is_err());
        shutdown.begin();
        shutdown.drained().await;
    }
}
