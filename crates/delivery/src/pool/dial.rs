//! A fresh connection: hosts one after another, each host's addresses overlapping by a second, so that an address family or an
//! address that is not answered costs a second and not a whole time-out (RFC 8305, for hosts that are servers).

use std::time::Duration;

use smtp::client::{Cause, Client, Options, Phase, TlsPolicy, Trouble, dial};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::rustls::pki_types::ServerName;

use super::targets::{Target, choose, find};
use super::{CONNECT_AHEAD_MAX, Hosts, Inner, Open, Stopped, lock};

/// The next address of a host is tried beside one that has not answered for so long. RFC 8305 8 recommends 250 ms to programs for
/// which somebody waits; twice a far host's round trip spares it connections that are given up at once.
const NEXT_AFTER: Duration = Duration::from_secs(1);

/// What came of dialling some addresses of one host.
#[derive(Default)]
struct Dialled {
    /// The first that answered.
    won: Option<(Target, TcpStream)>,
    lost: Vec<(Target, Trouble)>,
}

impl Inner {
    /// A fresh connection to the first host that takes one.
    pub(super) async fn open(&self) -> Result<Open, Stopped> {
        self.wait_for_turn().await;
        let mut targets = find(&self.hosts, &self.egress)
            .await
            .map_err(|trouble| stopped(trouble, None))?;
        lock(&self.memory).order(&self.hosts, &mut targets);
        let mut last = nobody();
        for host in choose(targets).chunk_by(|a, b| a.host == b.host) {
            match self.open_host(host.to_vec()).await {
                Ok(open) => return Ok(open),
                Err(stopped) => last = stopped,
            }
        }
        Err(last)
    }

    async fn open_host(&self, mut targets: Vec<Target>) -> Result<Open, Stopped> {
        let mut last = nobody();
        while !targets.is_empty() {
            let dialled = dial_all(&targets, |target| self.options_for(target)).await;
            for (target, trouble) in dialled.lost {
                targets.retain(|other| *other != target);
                last = self.failed(&target, trouble);
            }
            let Some((target, stream)) = dialled.won else {
                break;
            };
            match self.greet(stream, &target).await {
                Ok(client) => return Ok(self.opened(client, &target)),
                Err(trouble) => last = self.failed(&target, trouble),
            }
            targets.retain(|other| *other != target);
        }
        Err(last)
    }

    /// Where a site allows only so many connections a second.
    async fn wait_for_turn(&self) {
        let (Ok(turn) | Err(turn)) = self.connects.reserve(1, CONNECT_AHEAD_MAX, Instant::now());
        sleep_until(turn).await;
    }

    fn opened(&self, client: Client, target: &Target) -> Open {
        lock(&self.memory).answered(target.address);
        let now = Instant::now();
        Open {
            client,
            remote: target.remote(),
            transactions: 0,
            opened: now,
            idle_since: now,
        }
    }

    fn failed(&self, target: &Target, trouble: Trouble) -> Stopped {
        // That we cannot leave says nothing about who is there.
        if !matches!(trouble.cause, Cause::NoSource(..)) {
            lock(&self.memory).avoid(target.address);
        }
        stopped(trouble, Some(target.remote()))
    }

    fn options_for(&self, target: &Target) -> Options {
        let mut options = self.options.clone();
        if let Hosts::Site(..) = self.hosts {
            let own = self.tls.get(&target.host).cloned();
            options.tls = named(own.unwrap_or(options.tls), target);
        }
        let source = self.egress.source(target.address.ip());
        options.source = source.or(options.source);
        options
    }

    async fn greet(&self, stream: TcpStream, target: &Target) -> Result<Client, Trouble> {
        let mut options = self.options_for(target);
        let refused = match Client::over(stream, &options).await {
            Err(trouble) if is_failed_handshake(&trouble, &options.tls) => trouble,
            ended => return ended,
        };
        // RFC 7435 3: opportunistic means that a handshake that fails is no reason to send nothing.
        tracing::debug!(remote = %target.remote(), %refused, "TLS failed, in the clear");
        options.tls = TlsPolicy::Never;
        Client::connect(target.address, &options).await
    }
}

/// Dials them, one [`NEXT_AFTER`] the other or as soon as all before have failed, until one answers.
async fn dial_all(targets: &[Target], options: impl Fn(&Target) -> Options) -> Dialled {
    let mut dials: JoinSet<(Target, Result<TcpStream, Trouble>)> = JoinSet::new();
    let mut dialled = Dialled::default();
    let mut waiting = targets.iter();
    loop {
        if let Some(target) = waiting.next() {
            let (target, options) = (target.clone(), options(target));
            dials.spawn(async move {
                let ended = dial(target.address, &options).await;
                (target, ended)
            });
        }
        let next_at = Instant::now() + NEXT_AFTER;
        tokio::select! {
            joined = dials.join_next() => match joined {
                Some(Ok((target, Ok(stream)))) => {
                    dialled.won = Some((target, stream));
                    return dialled;
                }
                Some(Ok((target, Err(trouble)))) => dialled.lost.push((target, trouble)),
                // A dial that panicked is as good as one that nobody answered.
                Some(Err(_)) => {}
                None => return dialled,
            },
            () = sleep_until(next_at), if waiting.len() > 0 => {}
        }
    }
}

fn nobody() -> Stopped {
    let cause = Cause::Closed;
    let phase = Phase::Connect;
    stopped(Trouble { phase, cause }, None)
}

fn stopped(trouble: Trouble, remote: Option<Box<str>>) -> Stopped {
    Stopped { trouble, remote }
}

/// With a stranger the name on the certificate is the exchanger's.
fn named(tls: TlsPolicy, target: &Target) -> TlsPolicy {
    let name = ServerName::try_from(target.host.to_string())
        .unwrap_or_else(|_| ServerName::IpAddress(target.address.ip().into()));
    match tls {
        TlsPolicy::Never => TlsPolicy::Never,
        TlsPolicy::Opportunistic(config, _) => TlsPolicy::Opportunistic(config, name),
        TlsPolicy::Required(config, _) => TlsPolicy::Required(config, name),
    }
}

/// Whether a connection broke where TLS starts and may be tried without: the handshake failed, or the peer hung up at
/// STARTTLS. A refusal in words is none; nor is silence, which a second try would double.
fn is_failed_handshake(trouble: &Trouble, tls: &TlsPolicy) -> bool {
    matches!(tls, TlsPolicy::Opportunistic(..))
        && trouble.phase == Phase::Helo
        && matches!(trouble.cause, Cause::Tls(_) | Cause::Io(_) | Cause::Closed)
}
