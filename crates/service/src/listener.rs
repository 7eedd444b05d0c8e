//! Accepting connections: a permit before each accept, backing off on EMFILE instead of dying, until shutdown.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::program::StartError;
use crate::shutdown::Shutdown;

/// A bound listener.
pub struct Listener {
    _private: (),
}

impl Listener {
    /// Binds; the error says which address, why, and what to do.
    pub async fn bind(address: SocketAddr) -> Result<Self, StartError> {
        todo!("{address}")
    }

    /// Where it is bound (the port when 0 was asked for).
    pub fn address(&self) -> SocketAddr {
        todo!()
    }

    /// Accepts until shutdown begins, at most `sessions_max` at once; each runs as a task that holds an activity named `name`.
    /// Over the limit connections wait in the backlog. Nagle is off on every stream. IPv4-mapped addresses come as IPv4.
    pub async fn run<F, T>(
        self,
        name: &'static str,
        sessions_max: Arc<Semaphore>,
        shutdown: Shutdown,
        serve: F,
    ) where
        F: Fn(TcpStream, SocketAddr) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let _ = (name, sessions_max, shutdown, serve);
        todo!()
    }
}
