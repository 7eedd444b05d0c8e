//! `[delivery]` as the engine takes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use delivery::attempt::{Connections, Route};
use delivery::engine::Settings;
use delivery::site::Exchangers;
use delivery::tls::Levels;
use mail::Domain;
use service::program::StartError;
use smtp::Protocol;
use smtp::client::{Options, Timeouts, TlsPolicy};
use spool::{Destination, Destinations};
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::{self, Config, Deliver};

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
    let sink = delivery.deliver == Deliver::Sink;
    let exchangers = match delivery.default_route {
        Some(_) => None,
        // Even a mistake of the engine would find no way out.
        None if sink => None,
        None => {
            let found = Exchangers::new(&delivery.dns, delivery.port);
            let own = delivery.own_exchangers(&config.hostname);
            let listening = [config.lmtp.listen, config.publish.listen];
            let found = found.map_err(|why| wrong("dns", why))?.with_own_names(own);
            Some(Arc::new(
                found.with_own_addresses(delivery.own_addresses(&listening)),
            ))
        }
    };
    let levels = delivery.levels().map_err(|why| wrong("tls_domains", why))?;
    let routes = match sink {
        true => BTreeMap::new(),
        false => routes(config, &levels),
    };
    Ok(Settings {
        host: config.hostname.clone(),
        serves: Destinations::Except([Destination::Expand].into()),
        routes,
        pinned,
        default_route: delivery.default_route.as_deref().map(Into::into),
        exchangers,
        options: options(config, TlsPolicy::Never),
        egresses: delivery.egresses(),
        tls: Some(levels),
        sink,
        attempts_max: delivery.attempts_max,
        bodies_bytes_max: delivery.bodies_bytes_max,
        turn_target: delivery.turn_target,
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

fn routes(config: &Config, levels: &Levels) -> BTreeMap<Box<str>, Arc<Connections>> {
    let delivery = &config.delivery;
    let made = |(name, route): (&String, &config::Route)| {
        // `levels` holds what verifies, or the configuration would have been refused.
        let policy = levels.policy(route.tls).unwrap_or(TlsPolicy::Never);
        let egress = route.egress.as_ref();
        let egress = egress.and_then(|name| delivery.egresses.get(name));
        let connections = Connections::leaving(
            Route {
                hosts: route.hosts.clone(),
                options: options(config, named(policy, &route.hosts)),
                transactions_max: route.transactions_max,
                connections_max: route.connections_max,
            },
            egress.map(config::Egress::as_engine).unwrap_or_default(),
        );
        (name.as_str().into(), Arc::new(connections))
    };
    delivery.routes.iter().map(made).collect()
}

/// All hosts of a route answer to the first one's name.
fn named(policy: TlsPolicy, hosts: &[String]) -> TlsPolicy {
    let host = hosts.first().map_or("", String::as_str);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let host = host.trim_matches(['[', ']']).to_owned();
    match (policy, ServerName::try_from(host)) {
        (TlsPolicy::Opportunistic(client, _), Ok(name)) => TlsPolicy::Opportunistic(client, name),
        (TlsPolicy::Required(client, _), Ok(name)) => TlsPolicy::Required(client, name),
        (policy, _) => policy,
    }
}

fn options(config: &Config, tls: TlsPolicy) -> Options {
    Options {
        protocol: Protocol::Smtp,
        helo: config.hostname.as_str().into(),
        tls,
        timeouts: Timeouts::default(),
        source: None,
        chunking: true,
    }
}
