//! The sink: SMTP or LMTP servers that take everything, or answer as they are told, and count. One process stands for any number
//! of sites, each with an address of its own on loopback, that can be down, slow, or full of objections.
//!
//! It counts by itself (`dialogue`, `site`), many times as fast as what it measures; mail that is to be kept goes through the
//! product's own server (`strict`).

mod command;
mod content;
pub mod counts;
mod dialogue;
mod session;
mod site;
mod strict;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use mail::{Reply, Severity};
use serde_json::{Value, json};
use smtp::Protocol;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub use command::{Arguments, run};
pub(crate) use command::{say, terminated};
use counts::Counts;
use site::Site;

use crate::lock;
use crate::rules::{Decision, Rule, Rules, Stage};

/// What a sink is to be. Defaults in brackets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; with port 0 the system chooses.
    pub listen: Vec<SocketAddr>,
    /// For each of these addresses, it and those that follow it, so many in all, at the same port [1].
    pub sites: u32,
    /// SMTP or LMTP [SMTP].
    pub protocol: Protocol,
    /// Threads, each with sessions of its own [1].
    pub threads: usize,
    /// What is answered otherwise than with a yes [none].
    pub rules: Vec<Rule>,
    /// Largest message, octets [128 MiB].
    pub message_bytes_max: u64,
    /// Messages of one session, then 421; 0: any number [0].
    pub session_messages_max: u64,
    /// Sessions of one site at once, then 421; 0: any number [0].
    pub site_sessions_max: u64,
    /// EHLO keywords that are not offered [none].
    pub keywords_off: Vec<String>,
    /// Offer STARTTLS, with a certificate made for this run [no].
    pub tls: bool,
    /// Deliveries that are remembered to tell which come twice [1,000,000].
    pub remember: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![([127, 0, 0, 1], 0).into()],
            sites: 1,
            protocol: Protocol::Smtp,
            threads: 1,
            rules: Vec::new(),
            message_bytes_max: 128 << 20,
            session_messages_max: 0,
            site_sessions_max: 0,
            keywords_off: Vec::new(),
            tls: false,
            remember: 1_000_000,
        }
    }
}

/// What all sessions share.
pub(crate) struct Shared {
    protocol: Protocol,
    rules: RwLock<Rules>,
    has_rules: AtomicBool,
    message_bytes_max: u64,
    session_messages_max: u64,
    site_sessions_max: u64,
    keywords: Vec<String>,
    tls: Option<TlsAcceptor>,
    counts: Counts,
    sites: Vec<Site>,
}

impl Shared {
    fn new(settings: &Settings, addresses: &[SocketAddr]) -> Result<Self, String> {
        let keywords = [
            "PIPELINING".to_owned(),
            format!("SIZE {}", settings.message_bytes_max),
            "8BITMIME".to_owned(),
            "SMTPUTF8".to_owned(),
            "ENHANCEDSTATUSCODES".to_owned(),
            "CHUNKING".to_owned(),
            "DSN".to_owned(),
        ];
        let is_off = |keyword: &str| {
            let name = keyword.split(' ').next().unwrap_or_default();
            let mut off = settings.keywords_off.iter();
            off.any(|off| off.eq_ignore_ascii_case(name))
        };
        Ok(Self {
            protocol: settings.protocol,
            has_rules: AtomicBool::new(!settings.rules.is_empty()),
            rules: RwLock::new(Rules::new(settings.rules.clone())),
            message_bytes_max: settings.message_bytes_max,
            session_messages_max: settings.session_messages_max,
            site_sessions_max: settings.site_sessions_max,
            keywords: keywords.into_iter().filter(|k| !is_off(k)).collect(),
            tls: settings.tls.then(session::acceptor).transpose()?,
            counts: Counts::new(settings.remember),
            sites: addresses
                .iter()
                .map(|&address| Site::new(address, settings.threads > 1))
                .collect(),
        })
    }

    fn has_rules(&self) -> bool {
        self.has_rules.load(Ordering::Relaxed)
    }

    fn decide(&self, stage: Stage, address: &str) -> Decision {
        lock::read(&self.rules).decide(stage, address)
    }

    fn offers(&self, keyword: &str) -> bool {
        self.keywords.iter().any(|offered| offered == keyword)
    }

    /// The reply to EHLO or LHLO.
    fn hello(&self, secured: bool, out: &mut Vec<u8>) {
        let tls = (self.tls.is_some() && !secured).then_some("STARTTLS");
        let keywords = self.keywords.iter().map(String::as_str).chain(tls);
        let lines: Vec<&str> = std::iter::once("sink.invalid").chain(keywords).collect();
        Reply::plain(250, lines.join("\n")).write(out);
    }

    fn count(&self, reply: &Reply) {
        match reply.severity() {
            Severity::Transient => self.counts.deferred.fetch_add(1, Ordering::Relaxed),
            Severity::Permanent => self.counts.refused.fetch_add(1, Ordering::Relaxed),
            Severity::Positive => 0,
        };
    }

    fn count_site(&self, local: IpAddr, recipients: u64) {
        if let Some(site) = self.site(local) {
            site.recipients.fetch_add(recipients, Ordering::Relaxed);
        }
    }

    fn site(&self, ip: IpAddr) -> Option<&Site> {
        self.sites.iter().find(|site| site.address.ip() == ip)
    }
}

/// A sink that runs, in threads of its own, until it is dropped.
pub struct Sink {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Sink {
    /// Listens.
    pub fn start(settings: &Settings) -> Result<Self, String> {
        let runtimes = (0..settings.threads.max(1)).map(|_| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder
                .enable_all()
                .build()
                .map_err(|error| error.to_string())
        });
        let runtimes: Vec<_> = runtimes.collect::<Result<_, String>>()?;
        let (addresses, first) = site::bind(settings, &runtimes[0])?;
        let shared = Arc::new(Shared::new(settings, &addresses)?);
        let (stop, stopped) = watch::channel(false);
        let mut listeners = vec![first];
        for runtime in &runtimes[1..] {
            let _inside = runtime.enter();
            let bound = addresses.iter().map(|&address| site::listen(address, true));
            listeners.push(bound.collect::<Result<_, String>>()?);
        }
        let threads = runtimes
            .into_iter()
            .zip(listeners)
            .map(|(runtime, listeners)| {
                let (shared, stopped) = (shared.clone(), stopped.clone());
                std::thread::spawn(move || {
                    runtime.block_on(site::serve_all(shared, listeners, stopped));
                })
            });
        Ok(Self {
            threads: threads.collect(),
            shared,
            stop,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.sites.iter().map(|site| site.address).collect()
    }

    /// What it has taken.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// The same as JSON, with the copies of each site where there are several.
    pub fn json(&self) -> Value {
        let mut told = self.shared.counts.json();
        if self.shared.sites.len() > 1 {
            let sites = self.shared.sites.iter().map(|site| {
                let count = site.recipients.load(Ordering::Relaxed);
                (site.address.ip().to_string(), json!(count))
            });
            told["sites"] = Value::Object(sites.collect());
        }
        told
    }

    /// Copies that a site has taken.
    pub fn taken_at(&self, ip: IpAddr) -> u64 {
        let site = self.shared.site(ip);
        site.map_or(0, |site| site.recipients.load(Ordering::Relaxed))
    }

    /// Adds a rule behind the others.
    pub fn add_rule(&self, rule: Rule) {
        lock::write(&self.shared.rules).push(rule);
        self.shared.has_rules.store(true, Ordering::Relaxed);
    }

    /// From now on everything is taken.
    pub fn clear_rules(&self) {
        *lock::write(&self.shared.rules) = Rules::default();
        self.shared.has_rules.store(false, Ordering::Relaxed);
    }

    /// Takes sites (none named: all) from the network: connections are refused, those that stand are cut. For so long, or until
    /// [`Self::up`].
    pub fn down(&self, ip: Option<IpAddr>, duration: Option<Duration>) {
        let sites = self.shared.sites.iter();
        let sites = sites.filter(|site| ip.is_none_or(|ip| site.address.ip() == ip));
        sites.for_each(|site| site.down(duration));
    }

    /// Brings sites (none named: all) back.
    pub fn up(&self, ip: Option<IpAddr>) {
        let sites = self.shared.sites.iter();
        let sites = sites.filter(|site| ip.is_none_or(|ip| site.address.ip() == ip));
        sites.for_each(Site::up);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
