//! The resolver with which this program asks the DNS: through a server with a cache, never itself; names are never completed and the
//! hosts file is not read, since what strangers are told must not depend on them.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

/// How answers are kept, and how long one is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For one query of one server; it is asked twice.
    pub timeout: Duration,
    /// An answer is kept at least so long.
    pub ttl_min: Duration,
    /// And at most so long.
    pub ttl_max: Duration,
    /// So many answers are kept.
    pub answers_max: u64,
}

/// Asks these servers; none: those of /etc/resolv.conf.
pub fn resolver(servers: &[SocketAddr], bounds: Bounds) -> Result<TokioResolver, String> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| format!("/etc/resolv.conf: {error}"))?
    } else {
        let servers = servers.iter().map(name_server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = bounds.timeout;
    options.cache_size = bounds.answers_max;
    options.positive_min_ttl = Some(bounds.ttl_min);
    options.positive_max_ttl = Some(bounds.ttl_max);
    options.negative_min_ttl = Some(bounds.ttl_min);
    options.negative_max_ttl = Some(bounds.ttl_max);
    options.use_hosts_file = ResolveHosts::Never;
    builder.build().map_err(|error| error.to_string())
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}
