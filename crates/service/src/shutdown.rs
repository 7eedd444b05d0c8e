//! Shutdown: who waits also listens for it; who must finish holds a named activity.

use tokio::sync::watch;

/// Tells when to stop, and waits for those who must finish. Cheap to clone.
#[derive(Clone)]
pub struct Shutdown {
    _private: (),
}

/// Held by work that must not be cut.
pub struct Activity {
    _private: (),
}

impl Shutdown {
    /// A fresh one; for tests and for `program::main`.
    pub fn new() -> Self {
        todo!()
    }

    /// Begins it.
    pub fn begin(&self) {
        todo!()
    }

    /// Whether it has begun.
    pub fn begun(&self) -> bool {
        todo!()
    }

    /// Resolves when it begins.
    pub async fn wait(&self) {
        todo!()
    }

    /// A watch that turns true when it begins.
    pub fn watch(&self) -> watch::Receiver<bool> {
        todo!()
    }

    /// An activity to hold; `name` is what the log says while it is waited for.
    pub fn activity(&self, name: &'static str) -> Activity {
        todo!("{name}")
    }

    /// Resolves when it has begun and no activity is held any more; logs every 15 s which ones are.
    pub async fn drained(&self) {
        todo!()
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}
