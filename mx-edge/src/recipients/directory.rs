//! The directory that listserv publishes: pulled by long poll, checked, and handed to its [`Source`], which keeps it on disk.
//! Owns the connection to the list hosts; while none of them answers, what was loaded stays in force.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::Address;
use mail::verdict::Keys;
use serde::{Deserialize, Serialize};
use service::control::{Request, fetch};
use service::shutdown::Shutdown;
use service::tls::{Identity, Role};
use tracing::{info, warn};

use super::catalog::Catalog;
use super::source::{Offered, Source};
use crate::metrics::Metrics;

/// The directory as it goes over the wire, and as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Changes with the content.
    pub version: String,
    /// Domains that are ours.
    pub domains: Vec<String>,
    /// Exact addresses.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Lists.
    #[serde(default)]
    pub lists: Vec<String>,
    /// HMAC-SHA256 in hexadecimal over version and the rest, when both sides share a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// Why an answer is no directory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDirectory {
    /// Not the JSON that was agreed on.
    #[error("not a directory: {0}")]
    Form(String),
    /// The key is configured here, and the answer is not signed with it.
    #[error(
        "the signature is missing or was made with another key; compare directory.key_file on both sides"
    )]
    Signature,
    /// An entry that is no address or domain.
    #[error("entry {0:?}: {1}")]
    Entry(String, mail::address::AddressError),
}

/// Reads and checks an answer. One bad entry refuses the whole: a half-read directory must not make anybody unknown.
pub fn parse(body: &[u8], keys: Option<&Keys>) -> Result<Catalog, BadDirectory> {
    let wire: Wire =
        serde_json::from_slice(body).map_err(|error| BadDirectory::Form(error.to_string()))?;
    if let Some(keys) = keys {
        let tag = wire.signature.as_deref().and_then(unhex);
        let tag = tag.ok_or(BadDirectory::Signature)?;
        let rest = canonical(&wire);
        if !keys.verify(&[wire.version.as_bytes(), rest.as_bytes()], &tag) {
            return Err(BadDirectory::Signature);
        }
    }
    let mut catalog = Catalog {
        version: wire.version.into(),
        ..Catalog::default()
    };
    for domain in wire.domains {
        match mail::Domain::parse(&domain) {
            Ok(domain) => catalog.domains.insert(domain),
            Err(error) => return Err(BadDirectory::Entry(domain, error)),
        };
    }
    let address =
        |text: String| Address::parse(&text).map_err(|error| BadDirectory::Entry(text, error));
    for text in wire.addresses {
        catalog.add_address(&address(text)?);
    }
    for text in wire.lists {
        catalog.add_list(&address(text)?);
    }
    Ok(catalog)
}

/// What is signed beside the version: the rest as compact JSON, keys in alphabetical order.
pub fn canonical(wire: &Wire) -> String {
    let rest = BTreeMap::from([
        ("addresses", &wire.addresses),
        ("domains", &wire.domains),
        ("lists", &wire.lists),
    ]);
    serde_json::to_string(&rest).expect("a map of strings is JSON")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

/// Pulls the directory until shutdown.
pub struct Puller {
    /// Where it goes.
    pub source: Arc<Source>,
    /// List hosts; one is asked until it fails, then the next.
    pub servers: Vec<SocketAddr>,
    /// Our certificate; plain on loopback without.
    pub identity: Option<Identity>,
    /// Checks signatures.
    pub keys: Option<Keys>,
    /// How long the list host may hold a poll open.
    pub wait: Duration,
    /// Longest pause after a failure.
    pub pause_max: Duration,
    /// Largest answer.
    pub bytes_max: usize,
    /// Counts polls.
    pub metrics: Arc<Metrics>,
}

/// First pause after a failure; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// What a poll may take beyond the time that the list host holds it open: connect, handshake, transfer.
const TRANSFER_MAX: Duration = Duration::from_secs(30);

impl Puller {
    /// Polls until shutdown. A failure turns to the next list host at once; only when all have failed in a row is there a pause.
    pub async fn run(self, shutdown: Shutdown) {
        let mut server = 0;
        let mut failures: u32 = 0;
        loop {
            let polled = tokio::select! {
                polled = self.poll(self.servers[server], failures == 0) => polled,
                () = shutdown.wait() => return,
            };
            match polled {
                Ok(outcome) => {
                    failures = 0;
                    self.metrics
                        .sources
                        .polls
                        .with_label_values(&[outcome])
                        .inc();
                }
                Err(why) => {
                    self.metrics
                        .sources
                        .polls
                        .with_label_values(&["failed"])
                        .inc();
                    self.source
                        .failed(format!("{}: {why}", self.servers[server]));
                    failures = failures.saturating_add(1);
                    server = (server + 1) % self.servers.len();
                }
            }
            let rounds = failures / self.servers.len() as u32;
            if rounds > 0 && (failures as usize).is_multiple_of(self.servers.len()) {
                let pause = PAUSE_FIRST
                    .saturating_mul(1 << rounds.min(16))
                    .min(self.pause_max);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.wait() => return,
                }
            }
        }
    }

    /// One poll. After a failure the list host is asked to answer at once, so that trouble ends when it does.
    async fn poll(&self, server: SocketAddr, hold: bool) -> Result<&'static str, String> {
        let wait = if hold { self.wait } else { Duration::ZERO };
        let seen = self.source.seen().unwrap_or_default();
        let request = Request::get(format!(
            "/directory?since={}&wait={}",
            escape(&seen),
            wait.as_secs()
        ));
        let (code, body) = fetch(
            server,
            self.identity.as_ref(),
            Role::Listserv,
            &request,
            self.bytes_max,
            wait + TRANSFER_MAX,
        )
        .await?;
        match code {
            304 => {
                self.source.confirmed();
                Ok("unchanged")
            }
            200 => self.take(body).await,
            other => Err(format!("HTTP status {other}")),
        }
    }

    /// Parsing a million entries takes its time, so it is done off the runtime's threads.
    async fn take(&self, body: Vec<u8>) -> Result<&'static str, String> {
        let source = Arc::clone(&self.source);
        let keys = self.keys.clone();
        let work = move || {
            let catalog = parse(&body, keys.as_ref()).map_err(|error| error.to_string())?;
            Ok::<_, String>(source.offer(catalog, Some(body), false))
        };
        let offered = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| error.to_string())??;
        Ok(match offered {
            Offered::Applied => "applied",
            Offered::Same => "unchanged",
            Offered::Blocked => "blocked",
        })
    }
}

/// Puts what an earlier life of this edge had in force back in force.
pub fn restore(source: &Source, stored: Option<Vec<u8>>, keys: Option<&Keys>) {
    let Some(stored) = stored else {
        info!(
            event = "directory_absent",
            "no directory on disk yet; recipients are answered 451 until one is loaded"
        );
        return;
    };
    match parse(&stored, keys) {
        Ok(catalog) => {
            source.offer(catalog, None, true);
        }
        Err(error) => {
            warn!(event = "directory_unreadable", reason = %error, "the copy on disk is not used")
        }
    }
}

/// A query value.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipients::source::Guard;

    fn wire() -> Wire {
        Wire {
            version: "7".into(),
            domains: vec!["lists.example".into()],
            addresses: vec!["joe@lists.example".into()],
            lists: vec!["dev@lists.example".into()],
            signature: None,
        }
    }

    fn keys(secret: u8) -> Keys {
        Keys::new(&[vec![secret; 32]]).unwrap()
    }

    fn signed(mut wire: Wire, keys: &Keys) -> Vec<u8> {
        let rest = canonical(&wire);
        let tag = keys.sign(&[wire.version.as_bytes(), rest.as_bytes()]);
        wire.signature = Some(tag.iter().map(|byte| format!("{byte:02x}")).collect());
        serde_json::to_vec(&wire).unwrap()
    }

    #[test]
    fn a_directory_is_read() {
        let catalog = parse(&serde_json::to_vec(&wire()).unwrap(), None).unwrap();
        assert_eq!(&*catalog.version, "7");
        assert!(catalog.knows(&Address::parse("joe@lists.example").unwrap()));
        assert!(catalog.knows(&Address::parse("dev-subscribe@lists.example").unwrap()));
        assert!(!catalog.knows(&Address::parse("jim@lists.example").unwrap()));
    }

    #[test]
    fn signatures() {
        assert_eq!(
            canonical(&wire()),
            r#"{"addresses":["joe@lists.example"],"domains":["lists.example"],"lists":["dev@lists.example"]}"#
        );
        let ours = keys(1);
        assert!(parse(&signed(wire(), &ours), Some(&ours)).is_ok());
        let unsigned = serde_json::to_vec(&wire()).unwrap();
        assert_eq!(
            parse(&unsigned, Some(&ours)).unwrap_err(),
            BadDirectory::Signature
        );
        assert_eq!(
            parse(&signed(wire(), &keys(2)), Some(&ours)).unwrap_err(),
            BadDirectory::Signature
        );
        let mut changed: Wire = serde_json::from_slice(&signed(wire(), &ours)).unwrap();
        changed.addresses.clear();
        assert_eq!(
            parse(&serde_json::to_vec(&changed).unwrap(), Some(&ours)).unwrap_err(),
            BadDirectory::Signature
        );
        // Who has no key of his own believes the connection.
        assert!(parse(&signed(wire(), &ours), None).is_ok());
    }

    #[test]
    fn half_an_answer_is_no_directory() {
        let whole = serde_json::to_vec(&wire()).unwrap();
        for end in 0..whole.len() {
            assert!(
                matches!(parse(&whole[..end], None), Err(BadDirectory::Form(_))),
                "{end} bytes"
            );
        }
        let mut bad = wire();
        bad.addresses.push("joe".into());
        assert!(matches!(
            parse(&serde_json::to_vec(&bad).unwrap(), None),
            Err(BadDirectory::Entry(..))
        ));
    }

    #[test]
    fn a_stored_directory_is_restored_and_a_torn_one_is_not() {
        let whole = serde_json::to_vec(&wire()).unwrap();
        for (stored, loaded) in [
            (None, false),
            (Some(whole[..20].to_vec()), false),
            (Some(whole), true),
        ] {
            let source = Source::new("directory", Guard::default(), None);
            restore(&source, stored, None);
            assert_eq!(source.current().is_some(), loaded);
        }
    }

    #[test]
    fn versions_survive_a_query() {
        assert_eq!(escape("a-b_c.1~"), "a-b_c.1~");
        assert_eq!(escape("1 &=%+é"), "1%20%26%3D%25%2B%C3%A9");
    }
}
