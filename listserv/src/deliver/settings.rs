//! `[delivery]` as the engine takes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use delivery::attempt::{Connections, Route};
use delivery::engine::Settings;
use delivery::site::Exchangers;
use mail::Domain;
use service::program::StartError;
use smtp::Protocol;
use smtp::client::{Options, Timeouts, TlsPolicy};
use spool::{Destination, Destinations};
use tokio::sync::watch;

use crate::config::Config;

/// Builds the engine's settings; `paused` is turned by commands.
pub fn settings(config: &Config, paused: watch::Receiver<bool>) -> Result<Settings, StartError> {
    let delivery = &config.delivery;
    let wrong = |key: &str, why: String| StartError {
        what: format!("delivery.{key}"),
        why,
        remedy: "mend the configuration".into(),
    };
    let mut pinned = BTreeMap::new();
    for (domain, route) in &delivery.pinned {
        let domain = Domain::parse(domain).map_err(|error| wrong("pinned", error.to_string()))?;
        pinned.insert(domain, route.as_str().into());
    }
    let exchangers = match delivery.default_route {
        Some(_) => None,
        None => Some(Arc::new(
            Exchangers::new(&delivery.dns, delivery.port).map_err(|why| wrong("dns", why))?,
        )),
    };
    Ok(Settings {
        host: config.hostname.clone(),
        serves: Destinations::Except(vec![Destination::Expand]),
        routes: routes(config),
        pinned,
        default_route: delivery.default_route.as_deref().map(Into::into),
        exchangers,
        options: options(config, true),
        attempts_max: delivery.attempts_max,
        site_connections_max: delivery.site_connections_max,
        schedule: delivery.retry().schedule(),
        expiry: delivery.expiry(),
        rules: Arc::new(
            delivery
                .rules()
                .map_err(|why| wrong("provider_rules_file", why))?,
        ),
        paused,
    })
}

fn routes(config: &Config) -> BTreeMap<Box<str>, Arc<Connections>> {
    config
        .delivery
        .routes
        .iter()
        .map(|(name, route)| {
            let connections = Connections::new(Route {
                hosts: route.hosts.clone(),
                options: options(config, route.starttls),
                transactions_max: route.transactions_max,
                connections_max: route.connections_max,
            });
            (name.as_str().into(), Arc::new(connections))
        })
        .collect()
}

fn options(config: &Config, tls: bool) -> Options {
    use tokio_rustls::rustls::pki_types::ServerName;
    // The name is sent as SNI only; any certificate is believed (RFC 7435). The engine puts each host's own name in its place.
    let name = ServerName::try_from(config.hostname.clone()).ok();
    let policy = match name.filter(|_| tls) {
        Some(name) => TlsPolicy::Opportunistic(service::tls::opportunistic_client(), name),
        None => TlsPolicy::Never,
    };
    Options {
        protocol: Protocol::Smtp,
        helo: config.hostname.as_str().into(),
        tls: policy,
        timeouts: Timeouts::default(),
        source: None,
        chunking: true,
    }
}
