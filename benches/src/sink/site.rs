//! A site of the sink: one address, that can be down. Each thread listens on all of them; the system shares connections out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Settings, Shared, session};

/// Connections that the system keeps for a thread that is busy.
const BACKLOG_MAX: u32 = 4096;
/// A port that the system chose for the first address may be taken at another; then another one is asked for.
const PORTS_TRIED_MAX: usize = 20;
/// Between two tries to listen again, and after an accept that failed.
const RETRY: Duration = Duration::from_millis(100);

/// See the module.
pub struct Site {
    pub address: SocketAddr,
    /// Several threads listen there.
    is_shared: bool,
    /// Copies that it has taken.
    pub recipients: AtomicU64,
    /// Sessions that stand.
    pub sessions: AtomicU64,
    state: watch::Sender<State>,
}

/// Whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Up,
    /// Until then, or until somebody says otherwise.
    Down(Option<Instant>),
}

impl Site {
    pub fn new(address: SocketAddr, is_shared: bool) -> Self {
        Self {
            address,
            is_shared,
            recipients: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            state: watch::Sender::new(State::Up),
        }
    }

    pub fn down(&self, duration: Option<Duration>) {
        let until = duration.map(|duration| Instant::now() + duration);
        self.state.send_replace(State::Down(until));
    }

    pub fn up(&self) {
        self.state.send_replace(State::Up);
    }

    /// Changes when it goes down.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The time for which it was to be down is over, unless somebody has said otherwise meanwhile.
    fn over(&self, until: Option<Instant>) {
        self.state.send_if_modified(|state| {
            let is_over = *state == State::Down(until);
            if is_over {
                *state = State::Up;
            }
            is_over
        });
    }

    /// Waits until it is there; brings it back itself when its time has come.
    async fn is_up(&self) {
        let mut state = self.watch();
        loop {
            let until = match *state.borrow_and_update() {
                State::Up => return,
                State::Down(until) => until,
            };
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = state.changed() => {}
                () = over => self.over(until),
            }
        }
    }
}

/// Resolves when a site is down.
pub async fn is_down(state: &mut watch::Receiver<State>) {
    let down = state.wait_for(|state| matches!(state, State::Down(_)));
    if down.await.is_err() {
        std::future::pending().await
    }
}

/// Listens on all addresses of the settings; returns them with the ports that the system chose.
pub fn bind(
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(Vec<SocketAddr>, Vec<TcpListener>), String> {
    let _inside = runtime.enter();
    let (mut addresses, mut listeners) = (Vec::new(), Vec::new());
    for &first in &settings.listen {
        let mut tries = 1..=PORTS_TRIED_MAX;
        let bound = loop {
            let bound = bind_sites(first, settings.sites.max(1), settings.threads > 1);
            if bound.is_ok() || first.port() != 0 || tries.next().is_none() {
                break bound?;
            }
        };
        for (address, listener) in bound {
            addresses.push(address);
            listeners.push(listener);
        }
    }
    Ok((addresses, listeners))
}

fn bind_sites(
    first: SocketAddr,
    count: u32,
    is_shared: bool,
) -> Result<Vec<(SocketAddr, TcpListener)>, String> {
    let mut bound: Vec<(SocketAddr, TcpListener)> = Vec::new();
    for nth in 0..count {
        let port = bound
            .first()
            .map_or(first.port(), |(address, _)| address.port());
        let address = SocketAddr::new(following(first.ip(), nth)?, port);
        let listener = listen(address, is_shared)?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        bound.push((address, listener));
    }
    Ok(bound)
}

/// The address that is so many behind another.
fn following(ip: IpAddr, nth: u32) -> Result<IpAddr, String> {
    let next = match ip {
        IpAddr::V4(ip) => ip
            .to_bits()
            .checked_add(nth)
            .map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits().checked_add(u128::from(nth));
            bits.map(|bits| IpAddr::V6(bits.into()))
        }
    };
    next.ok_or_else(|| format!("there are no {nth} addresses behind {ip}"))
}

/// Listens; if so, other threads may listen on the same address. Not without need: another process there must be an error.
pub fn listen(address: SocketAddr, is_shared: bool) -> Result<TcpListener, String> {
    let open = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(is_shared)?;
        socket.bind(address)?;
        socket.listen(BACKLOG_MAX)
    };
    open().map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Serves all sites in one thread until told to stop.
pub async fn serve_all(
    shared: Arc<Shared>,
    listeners: Vec<TcpListener>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    for (nth, listener) in listeners.into_iter().enumerate() {
        tasks.spawn(serve(shared.clone(), nth, listener));
    }
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve(shared: Arc<Shared>, nth: usize, first: TcpListener) {
    let site = &shared.sites[nth];
    let mut state = site.watch();
    let mut listener = Some(first);
    loop {
        let Some(open) = &listener else {
            site.is_up().await;
            listener = listen(site.address, site.is_shared).ok();
            if listener.is_none() {
                tokio::time::sleep(RETRY).await;
            }
            continue;
        };
        tokio::select! {
            biased;
            () = is_down(&mut state) => listener = None,
            accepted = open.accept() => match accepted {
                Ok((stream, _)) => begin(&shared, nth, stream),
                // Out of descriptors: those that stand must end first.
                Err(_) => tokio::time::sleep(RETRY).await,
            },
        }
    }
}

fn begin(shared: &Arc<Shared>, nth: usize, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let guard = Guard::new(shared.clone(), nth);
    tokio::spawn(async move {
        session::serve(&guard.shared, nth, stream).await;
    });
}

/// A session that stands; counted until it ends, however that is.
struct Guard {
    shared: Arc<Shared>,
    nth: usize,
}

impl Guard {
    fn new(shared: Arc<Shared>, nth: usize) -> Self {
        shared.counts.sessions.fetch_add(1, Ordering::Relaxed);
        shared.counts.sessions_open.fetch_add(1, Ordering::Relaxed);
        shared.sites[nth].sessions.fetch_add(1, Ordering::Relaxed);
        Self { shared, nth }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let open = &self.shared.counts.sessions_open;
        open.fetch_sub(1, Ordering::Relaxed);
        let here = &self.shared.sites[self.nth].sessions;
        here.fetch_sub(1, Ordering::Relaxed);
    }
}
