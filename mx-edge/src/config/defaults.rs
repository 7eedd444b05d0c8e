//! The defaults; their reasons stand in the sample.

use std::net::SocketAddr;

use service::log::LogSettings;

use super::*;

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "edge".into(),
            hostname: "localhost".into(),
            state: "/var/lib/mailflow/mx-edge".into(),
            mail: Mail::default(),
            limits: Limits::default(),
            access: Access::default(),
            rates: Rates::default(),
            stress: Stress::default(),
            recipients: RecipientSources::default(),
            directory: Directory::default(),
            next_hop: NextHop::default(),
            through: Through::default(),
            forward: Forward::default(),
            spool: Spool::default(),
            handover: Handover::default(),
            records: Records::default(),
            dns: Dns::default(),
            spf: Spf::default(),
            screen: Screen::default(),
            dnsbl: Dnsbl::default(),
            policy: Policy::default(),
            greylist: Greylist::default(),
            shadow: Shadow::default(),
            report: Report::default(),
            tls: None,
            inside: None,
            control: service::control::Settings {
                socket: "/run/mailflow/mx-edge/control.sock".into(),
                listen: SocketAddr::from(([127, 0, 0, 1], 9125)),
            },
            log: LogSettings::default(),
        }
    }
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 25))],
            bare_newline: BareNewline::Normalize,
            keywords_off: Vec::new(),
            own_networks: Vec::new(),
            proxies: Vec::new(),
            xclient_networks: Vec::new(),
            contact: String::new(),
            clients: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 1000,
            sessions_per_client_max: 50,
            message_bytes_max: 49 * MIB,
            message_memory_bytes_max: 512 * MIB,
            recipients_max: 1000,
            null_sender_recipients_max: 1,
            errors_max: 20,
            errors_soft: 10,
            error_delay: seconds(1),
            junk_commands_max: 100,
            data_bytes_per_second_min: 500,
            memory_bytes_max: 0,
            hops_max: 50,
            mime_depth_max: 100,
            mime_parts_max: 1000,
            header_bytes_max: 256 * 1024,
            header_fields_max: 1000,
            command_timeout: seconds(300),
            data_block_timeout: seconds(180),
            handshake_timeout: seconds(30),
            session_timeout: seconds(3600),
        }
    }
}

impl Default for RecipientSources {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            files: Vec::new(),
            postfix_maps: Vec::new(),
            recipient_delimiter: String::new(),
            reload_interval: seconds(10),
            shrink_percent_max: 2,
            shrink_entries_floor: 10,
            cookie_key_files: Vec::new(),
        }
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::from(([127, 0, 0, 1], 10028))],
            wait: seconds(60),
            pause_max: seconds(30),
            bytes_max: 512 * MIB,
            stale_after: Duration::ZERO,
            public_key_files: Vec::new(),
            listen: None,
            siblings: Vec::new(),
        }
    }
}

impl Default for NextHop {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1:10024".into()],
            protocol: Protocol::Lmtp,
            trace: true,
            connect_timeout: seconds(5),
            reply_timeout: seconds(10),
        }
    }
}

impl Default for Through {
    fn default() -> Self {
        Self {
            budget: seconds(30),
            messages_max: 200,
            bytes_max: 256 * MIB,
            failures_max: 5,
            probe_interval: seconds(5),
        }
    }
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            connections_max: 20,
            attempts_max: 100,
            bodies_bytes_max: delivery::engine::BODIES_BYTES_MAX,
            reply_timeout: seconds(60),
            probe_interval: seconds(5),
            retry_first: seconds(10),
            retry_factor_percent: 200,
            retry_longest: seconds(300),
            retry_jitter_percent: 25,
            retry_delays: Vec::new(),
        }
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * MIB,
            free_bytes_min: 1024 * MIB,
            free_inodes_min: 1000,
            waiting_bytes_max: 256 * MIB,
            waiting_max: seconds(3),
            deadline: seconds(60),
            window_max: 4096,
            heads_max: 200_000,
            unindexed_max: 200_000,
            content_bytes_max: 32 * MIB,
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: seconds(2),
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            action: Measure::Enforce,
            wait: seconds(6),
            wait_stressed: seconds(2),
            valid: seconds(24 * 3600),
            valid_session: seconds(30 * 24 * 3600),
            sessions_percent_max: 75,
            backup_addresses: Vec::new(),
            passes_max: 1_000_000,
            skip_networks: unlistable(),
        }
    }
}

impl Default for Dnsbl {
    fn default() -> Self {
        Self {
            action: Measure::Enforce,
            threshold: 1,
            allow_threshold: 0,
            timeout: seconds(10),
            ttl_min: seconds(60),
            ttl_max: seconds(3600),
            answers_max: 100_000,
            self_test_interval: seconds(1800),
            skip_networks: unlistable(),
            lists: Vec::new(),
        }
    }
}

/// Addresses that no public list can say anything about (RFC 1918, RFC 4193, RFC 6598, loopback, link-local).
pub(super) fn unlistable() -> Vec<Network> {
    [
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    ]
    .iter()
    .map(|network| network.parse().expect("a network"))
    .collect()
}

impl Default for Spf {
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1/128"];
        Self {
            enabled: true,
            deadline: seconds(5),
            skip_networks: loopback
                .iter()
                .map(|network| network.parse().expect("a network"))
                .collect(),
            results_header: true,
        }
    }
}
