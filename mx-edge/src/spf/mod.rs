//! SPF (RFC 7208) as evidence: the result goes into the trace, nobody is refused for it here. Owns the resolver and the deadline;
//! `record` and `macros` read what is published, `evaluate` asks and decides.
//!
//! A check is started with the first accepted recipient, so that an unknown one costs no DNS query, and it runs beside the
//! session: nobody waits for it before the message has come.

mod evaluate;
mod macros;
mod record;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use mail::ReversePath;
use mail::trace::Spf;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::dns::{self, Bounds};

/// Answers are kept within these bounds: who has just repaired a policy should not wait long.
const TTL_MIN: Duration = Duration::from_secs(5);
const TTL_MAX: Duration = Duration::from_secs(3600);
/// Answers kept at once; a policy takes some 500 bytes.
const ANSWERS_MAX: u64 = 20_000;

/// Checks clients against published policies.
#[derive(Clone)]
pub struct Checker {
    resolver: TokioResolver,
    deadline: Duration,
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
    ) -> Result<Self, String> {
        let bounds = Bounds {
            timeout,
            ttl_min: TTL_MIN,
            ttl_max: TTL_MAX,
            answers_max: ANSWERS_MAX,
        };
        let resolver = dns::resolver(servers, bounds)?;
        Ok(Self { resolver, deadline })
    }

    /// Starts a check of the reverse-path, or of HELO when that is null (RFC 7208 2.4).
    pub fn start(&self, client: IpAddr, helo: &str, reverse_path: &ReversePath) -> Check {
        let (checker, helo) = (self.clone(), helo.to_owned());
        let sender = reverse_path.address().map(ToString::to_string);
        let (told, result) = watch::channel(None);
        let task = tokio::spawn(async move {
            let work = evaluate::check(&checker.resolver, client, &helo, sender.as_deref());
            let result = tokio::time::timeout(checker.deadline, work).await;
            told.send_replace(Some(result.unwrap_or(Spf::TempError)));
        });
        Check {
            result,
            _task: Arc::new(AbortOnDropHandle::new(task)),
        }
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
