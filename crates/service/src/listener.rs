//! Accepting connections: a permit before each accept, backing off on EMFILE instead of dying, until shutdown.
//! It owns the listening socket; the sessions are their own tasks and it never ends one.

pub(crate) mod inherited;
mod overload;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use overload::{Starvation, Watermark};

use crate::shutdown::Shutdown;
use crate::trouble::StartError;

/// Connections the kernel keeps for us while all permits are out (its own `somaxconn` may be lower).
const BACKLOG_MAX: u32 = 1024;
/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    counts: Arc<Counts>,
}

/// What a listener has seen; read by `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sessions: AtomicI64,
    pub(crate) sessions_total: AtomicU64,
    pub(crate) accept_failed_total: AtomicU64,
    pub(crate) full_total: AtomicU64,
}

impl Listener {
    /// Binds; the error says which address, why, and what to do.
    pub async fn bind(address: SocketAddr) -> Result<Self, StartError> {
        let (socket, bound) = bind(address).map_err(|error| StartError {
            what: format!("cannot listen on {address}"),
            why: error.to_string(),
            remedy: remedy(&error).into(),
        })?;
        Ok(Self {
            socket,
            address: bound,
            counts: Arc::default(),
        })
    }

    /// One that was passed on, already listening.
    pub(crate) fn inherited(socket: std::net::TcpListener) -> Result<Self, StartError> {
        let adopt = || {
            let address = socket.local_addr()?;
            TcpListener::from_std(socket).map(|socket| (socket, address))
        };
        let (socket, address) = adopt().map_err(|error| StartError {
            what: "use a listening socket that was passed on".into(),
            why: error.to_string(),
            remedy: "look at LISTEN_FDS and the socket unit".into(),
        })?;
        Ok(Self {
            socket,
            address,
            counts: Arc::default(),
        })
    }

    /// Where it is bound (the port when 0 was asked for).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
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
        let (mut watermark, mut starvation) = (Watermark::default(), Starvation::default());
        let accepting = async {
            loop {
                let permit = self.permit(name, &sessions_max, &mut watermark).await;
                let Some(permit) = permit else { return };
                let (stream, peer) = self.accept(name, &mut starvation).await;
                let guard = SessionGuard::new(&self.counts, permit, shutdown.activity(name));
                let session = serve(stream, peer);
                tokio::spawn(async move {
                    let _guard = guard;
                    session.await;
                });
            }
        };
        tokio::select! {
            biased;
            () = shutdown.wait() => {}
            () = accepting => {}
        }
    }

    /// A permit for one more session; `None` when the semaphore was closed, which ends the accepting.
    async fn permit(
        &self,
        name: &'static str,
        sessions_max: &Arc<Semaphore>,
        watermark: &mut Watermark,
    ) -> Option<OwnedSemaphorePermit> {
        let sessions = self.counts.sessions.load(Ordering::Relaxed);
        if sessions_max.available_permits() == 0 {
            if watermark.full(sessions) {
                self.counts.full_total.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    event = "listener_full",
                    listener = name,
                    sessions,
                    "all sessions are in use; new connections wait in the backlog"
                );
            }
        } else if watermark.below(sessions) {
            tracing::info!(event = "listener_relaxed", listener = name, sessions);
        }
        sessions_max.clone().acquire_owned().await.ok()
    }

    /// The next connection. Running out of descriptors or memory is told once and waited out; everything else is the
    /// affair of the one client that failed.
    async fn accept(
        &self,
        name: &'static str,
        starvation: &mut Starvation,
    ) -> (TcpStream, SocketAddr) {
        loop {
            let error = match self.socket.accept().await {
                Ok((stream, peer)) => {
                    if starvation.over(Instant::now()) {
                        tracing::info!(event = "accept_recovered", listener = name);
                    }
                    // It only fails on a stream that is already dead; the session will see that.
                    let _ = stream.set_nodelay(true);
                    return (stream, canonical(peer));
                }
                Err(error) => error,
            };
            let counter = &self.counts.accept_failed_total;
            counter.fetch_add(1, Ordering::Relaxed);
            if !out_of_resources(&error) {
                tracing::debug!(event = "accept_failed", listener = name, %error);
                continue;
            }
            let (crossing, wait) = starvation.failed(Instant::now());
            if crossing {
                tracing::error!(
                    event = "accept_starved",
                    listener = name,
                    %error,
                    remedy = "raise LimitNOFILE or lower sessions_max",
                );
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// What a session holds; given back when it ends, also by a panic.
struct SessionGuard {
    counts: Arc<Counts>,
    _permit: OwnedSemaphorePermit,
    _activity: crate::shutdown::Activity,
}

impl SessionGuard {
    fn new(
        counts: &Arc<Counts>,
        permit: OwnedSemaphorePermit,
        activity: crate::shutdown::Activity,
    ) -> Self {
        counts.sessions.fetch_add(1, Ordering::Relaxed);
        counts.sessions_total.fetch_add(1, Ordering::Relaxed);
        Self {
            counts: counts.clone(),
            _permit: permit,
            _activity: activity,
        }
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.counts.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart must not wait for the last run's closed connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let socket = socket.listen(BACKLOG_MAX)?;
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop the program that listens there, or choose another port",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities), or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "give an address of this host, or 0.0.0.0 for all",
        _ => "correct the address in the configuration",
    }
}

fn out_of_resources(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// `::ffff:192.0.2.1` as `192.0.2.1`, so that access lists and DNSBL see one form.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn addresses_come_in_one_form() {
        for (address, wanted) in [
            ("192.0.2.1:25", "192.0.2.1:25"),
            ("[::ffff:192.0.2.1]:25", "192.0.2.1:25"),
            ("[2001:db8::1]:25", "[2001:db8::1]:25"),
            ("[::1]:25", "[::1]:25"),
        ] {
            assert_eq!(canonical(address.parse().unwrap()).to_string(), wanted);
        }
    }

    #[test]
    fn running_out_is_told_from_one_clients_failure() {
        for (errno, starved) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOBUFS, true),
            (Errno::NOMEM, true),
            (Errno::CONNABORTED, false),
            (Errno::PERM, false),
        ] {
            assert_eq!(
                out_of_resources(&io::Error::from(errno)),
                starved,
                "{errno}"
            );
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_explained() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap()).await;
        let first = first.unwrap();
        let error = Listener::bind(first.address()).await.err().unwrap();
        assert!(error.what.contains(&first.address().to_string()));
        assert!(error.remedy.contains("another port"), "{error}");
    }

    #[tokio::test]
    async fn over_the_limit_connections_wait_and_shutdown_ends_the_accepting() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await;
        let listener = listener.unwrap();
        let (address, counts) = (listener.address(), listener.counts());
        let shutdown = Shutdown::new();
        let (started, mut sessions) = mpsc::unbounded_channel();
        let running = tokio::spawn(listener.run(
            "session",
            Arc::new(Semaphore::new(1)),
            shutdown.clone(),
            move |mut stream, peer| {
                let started = started.clone();
                async move {
                    let _ = started.send((peer, stream.nodelay().unwrap()));
                    let _ = stream.read_u8().await;
                    let _ = stream.write_all(b"bye").await;
                }
            },
        ));
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let (peer, nodelay) = sessions.recv().await.unwrap();
        assert_eq!(peer, first.local_addr().unwrap());
        assert!(nodelay);
        assert!(sessions.try_recv().is_err(), "one at once");
        first.write_all(b"x").await.unwrap();
        let (peer, _) = sessions.recv().await.unwrap();
        assert_eq!(peer, second.local_addr().unwrap());
        assert_eq!(counts.full_total.load(Ordering::Relaxed), 1);

        shutdown.begin();
        running.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "closed");
        assert_eq!(shutdown.activities().get("session"), Some(&1));
        second.write_all(b"x").await.unwrap();
        let mut answer = String::new();
        second.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "bye");
        shutdown.drained().await;
    }
}
