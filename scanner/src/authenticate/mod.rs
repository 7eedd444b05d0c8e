//! Who really sent a message: SPF as the edge saw it, DKIM (RFC 6376, 8463), DMARC (RFC 9989, organizational domain by tree walk) and the
//! ARC chain (RFC 8617). Told in `Authentication-Results`, which spamd sees too, and in a few points that are added to its score.
//!
//! Owns the resolver. Nobody is refused here, and a DNS that does not answer counts against nobody.

mod evidence;
mod settings;

use std::net::SocketAddr;

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use mail::header;
use mail::trace::Spf;
use mail_auth::dkim::DkimError;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::{
    ArcOutput, AuthenticatedMessage, DkimOutput, DkimResult, DmarcOutput, DmarcResult, Error,
    MessageAuthenticator, SpfOutput, SpfResult,
};

pub use evidence::{Arc, Dmarc, Evidence, Signature, Word};
pub use settings::{Points, Settings};

/// Signatures (DKIM's and ARC's) of one message that are verified: each costs a query and a pass over the message.
const SIGNATURES_MAX: usize = 20;
/// DNS answers that are kept.
const ANSWERS_MAX: u64 = 10_000;

/// Verifies messages.
pub struct Authenticator {
    resolver: MessageAuthenticator,
}

/// Of whom SPF spoke, and what it said.
pub struct Sender<'a> {
    /// The reverse-path's domain, or HELO when that is null.
    pub domain: &'a str,
    /// The edge's result.
    pub spf: Spf,
}

impl Authenticator {
    /// Asks these servers (none: those of /etc/resolv.conf).
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let mut options = ResolverOpts::default();
        let config = if settings.servers.is_empty() {
            let (config, found) = hickory_resolver::system_conf::read_system_conf()
                .map_err(|error| format!("/etc/resolv.conf: {error}"))?;
            options = found;
            config
        } else {
            let servers = settings.servers.iter().map(name_server).collect();
            ResolverConfig::from_parts(None, Vec::new(), servers)
        };
        options.timeout = settings.timeout;
        options.cache_size = ANSWERS_MAX;
        let resolver =
            MessageAuthenticator::new(config, options).map_err(|error| error.to_string())?;
        Ok(Self { resolver })
    }

    /// Verifies within the deadline; what had no answer by then is a temporary error. The message must have passed the pre-scan.
    pub async fn verify(
        &self,
        settings: &Settings,
        message: &[u8],
        sender: &Sender<'_>,
    ) -> Evidence {
        let spf = sender.spf;
        let domain: Box<str> = sender.domain.into();
        let work = self.all(message, sender);
        match tokio::time::timeout(settings.deadline, work).await {
            Ok(evidence) => evidence,
            Err(_) => Evidence::unverified(spf, domain, Word::TempError, "no answer in time"),
        }
    }

    async fn all(&self, message: &[u8], sender: &Sender<'_>) -> Evidence {
        let Some(parsed) = AuthenticatedMessage::parse(message) else {
            return Evidence::unverified(sender.spf, sender.domain.into(), Word::None, "");
        };
        // So many verify nothing, and a policy that wants one fails: they must not be a way around it.
        let count = signatures(message);
        let is_verified = count <= SIGNATURES_MAX;
        let (dkim, arc) = match is_verified {
            true => {
                let arc = async { Some(self.resolver.verify_arc(&parsed).await) };
                tokio::join!(self.resolver.verify_dkim(&parsed), arc)
            }
            false => (Vec::new(), None),
        };
        let spf = SpfOutput::new(sender.domain.to_owned()).with_result(spf_result(sender.spf));
        let dmarc = self
            .resolver
            .verify_dmarc(DmarcParameters {
                message: &parsed,
                dkim_output: &dkim,
                dkim2_output: None,
                rfc5321_mail_from_domain: sender.domain,
                spf_output: &spf,
            })
            .await;
        let from: Vec<&str> = (parsed.froms().iter())
            .filter_map(|from| from.rsplit_once('@').map(|(_, domain)| domain))
            .collect();
        Evidence {
            spf: sender.spf,
            spf_domain: sender.domain.into(),
            dkim: match is_verified {
                true => dkim.iter().map(signature).collect(),
                false => vec![Signature::unnamed(
                    Word::Policy,
                    &format!("{count} signatures"),
                )],
            },
            dmarc: policy(&dmarc, &from, header_count(message, "From")),
            arc: arc.as_ref().map_or_else(Arc::none, chain),
        }
    }
}

/// Fields that hold a signature.
fn signatures(message: &[u8]) -> usize {
    const NAMES: [&str; 3] = ["DKIM-Signature", "ARC-Message-Signature", "ARC-Seal"];
    header::fields(message)
        .filter(|field| NAMES.iter().any(|name| field.is(name)))
        .count()
}

fn header_count(message: &[u8], name: &str) -> usize {
    header::fields(message)
        .filter(|field| field.is(name))
        .count()
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn spf_result(spf: Spf) -> SpfResult {
    match spf {
        Spf::Pass => SpfResult::Pass,
        Spf::Fail => SpfResult::Fail,
        Spf::SoftFail => SpfResult::SoftFail,
        Spf::Neutral => SpfResult::Neutral,
        Spf::None => SpfResult::None,
        Spf::TempError => SpfResult::TempError,
        Spf::PermError => SpfResult::PermError,
    }
}

fn signature(output: &DkimOutput<'_>) -> Signature {
    let signed = output.signature();
    let (word, reason) = match output.result() {
        // The body was changed: that is a failure (RFC 8601 2.7.1), whatever it is called on the way.
        DkimResult::Neutral(Error::Dkim(DkimError::FailedBodyHashMatch)) => {
            (Word::Fail, "body hash did not verify".to_owned())
        }
        result => word(result),
    };
    Signature {
        word,
        reason: reason.into(),
        domain: signed.map(|s| s.d.as_str().into()).unwrap_or_default(),
        selector: signed.map(|s| s.s.as_str().into()).unwrap_or_default(),
    }
}

fn word(result: &DkimResult) -> (Word, String) {
    match result {
        DkimResult::Pass => (Word::Pass, String::new()),
        DkimResult::Neutral(error) => (Word::Neutral, error.to_string()),
        DkimResult::Fail(error) => (Word::Fail, error.to_string()),
        DkimResult::PermError(error) => (Word::PermError, error.to_string()),
        DkimResult::TempError(error) => (Word::TempError, error.to_string()),
        DkimResult::None => (Word::None, String::new()),
    }
}

/// DMARC. A message with several authors' domains has none that a policy could speak for, and is made to be shown as one of them.
fn policy(output: &DmarcOutput, from: &[&str], fields: usize) -> Dmarc {
    let several = fields > 1
        || from
            .windows(2)
            .any(|pair| !pair[0].eq_ignore_ascii_case(pair[1]));
    let word = match output.result() {
        _ if several => Word::PermError,
        DmarcResult::Pass => Word::Pass,
        DmarcResult::Fail(_) => Word::Fail,
        DmarcResult::TempError(_) => Word::TempError,
        DmarcResult::PermError(_) => Word::PermError,
        DmarcResult::None => Word::None,
    };
    let policy = match output.policy() {
        Policy::Reject => "reject",
        Policy::Quarantine => "quarantine",
        Policy::None => "none",
        Policy::Unspecified => "",
    };
    Dmarc {
        word,
        from: from
            .first()
            .map(|domain| (*domain).into())
            .unwrap_or_default(),
        policy,
        several,
    }
}

fn chain(output: &ArcOutput<'_>) -> Arc {
    let sealer = output.sets().last().map(|set| set.seal.header.d.as_str());
    // A chain whose last seal does not fit the message has failed (RFC 8617 5.2); there is nothing between.
    let word = match word(output.result()).0 {
        Word::Neutral => Word::Fail,
        word => word,
    };
    Arc {
        word,
        sealer: sealer.unwrap_or_default().into(),
    }
}
