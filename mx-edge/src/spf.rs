//! SPF (RFC 7208) as evidence: the result goes into the trace, nobody is refused for it here. Owns the resolver and the deadline.
//! A check is started with the first accepted recipient, so that an unknown one costs no DNS query, and it runs beside the
//! session: nobody waits for it before the message has come.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use mail::trace::Spf;
use mail::{Domain, ReversePath};
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{MessageAuthenticator, SpfOutput, SpfResult};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Checks clients against published policies.
#[derive(Clone)]
pub struct Checker {
    resolver: MessageAuthenticator,
    deadline: Duration,
    hostname: Box<str>,
}

/// A check under way; dropping all of its copies ends it.
#[derive(Clone)]
pub struct Check {
    result: watch::Receiver<Option<Spf>>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Checker {
    /// Asks these servers (none: those of /etc/resolv.conf), each query at most `timeout`, a whole check at most `deadline`.
    pub fn new(
        servers: &[SocketAddr],
        timeout: Duration,
        deadline: Duration,
        hostname: &Domain,
    ) -> Result<Self, String> {
        let mut options = ResolverOpts::default();
        let config = if servers.is_empty() {
            let (config, found) = hickory_resolver::system_conf::read_system_conf()
                .map_err(|error| format!("/etc/resolv.conf: {error}"))?;
            options = found;
            config
        } else {
            let servers = servers.iter().map(name_server).collect();
            ResolverConfig::from_parts(None, Vec::new(), servers)
        };
        options.timeout = timeout;
        let resolver =
            MessageAuthenticator::new(config, options).map_err(|error| error.to_string())?;
        Ok(Self {
            resolver,
            deadline,
            hostname: hostname.as_str().into(),
        })
    }

    /// Starts a check of the reverse-path, or of HELO when that is null (RFC 7208 2.4).
    pub fn start(&self, client: IpAddr, helo: &str, reverse_path: &ReversePath) -> Check {
        let (checker, helo) = (self.clone(), helo.to_owned());
        let sender = reverse_path.address().map(ToString::to_string);
        let (told, result) = watch::channel(None);
        let task = tokio::spawn(async move {
            let work = checker.check(client, &helo, sender.as_deref());
            let result = tokio::time::timeout(checker.deadline, work).await;
            told.send_replace(Some(result.unwrap_or(Spf::TempError)));
        });
        Check {
            result,
            _task: Arc::new(AbortOnDropHandle::new(task)),
        }
    }

    async fn check(&self, client: IpAddr, helo: &str, sender: Option<&str>) -> Spf {
        let parameters = match sender {
            Some(sender) => SpfParameters::verify_mail_from(client, helo, &self.hostname, sender),
            None => SpfParameters::verify_ehlo(client, helo, &self.hostname),
        };
        let output: SpfOutput = self.resolver.verify_spf(parameters).await;
        result(output.result())
    }
}

impl Check {
    /// The result; at the latest when the deadline, counted from the start, has passed.
    pub async fn result(&self) -> Spf {
        let mut result = self.result.clone();
        let found = result.wait_for(Option::is_some).await;
        found
            .ok()
            .and_then(|found| *found)
            .unwrap_or(Spf::TempError)
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

fn result(result: SpfResult) -> Spf {
    match result {
        SpfResult::Pass => Spf::Pass,
        SpfResult::Fail => Spf::Fail,
        SpfResult::SoftFail => Spf::SoftFail,
        SpfResult::Neutral => Spf::Neutral,
        SpfResult::TempError => Spf::TempError,
        SpfResult::PermError => Spf::PermError,
        SpfResult::None => Spf::None,
    }
}

/// The word in logs and metric labels.
pub fn label(spf: Spf) -> &'static str {
    match spf {
        Spf::Pass => "pass",
        Spf::Fail => "fail",
        Spf::SoftFail => "softfail",
        Spf::Neutral => "neutral",
        Spf::None => "none",
        Spf::TempError => "temperror",
        Spf::PermError => "permerror",
    }
}
