//! What must hold between the keys, which types alone cannot say.

use std::net::SocketAddr;

use delivery::retry::Keys;
use mail::{Domain, Ident};
use service::config::{Changes, Complaints};
use service::log::LogSettings;
use service::program::{Complaint, Configuration};

use super::{CodeText, Config, Forward, Protocol, SPOOL_MESSAGE_BYTES_MAX, seconds};
use crate::admission::access::check_note;
use crate::wiring::{CERTIFICATES, HANDOVERS, LISTENERS};

impl Configuration for Config {
    const CHANGES: Changes = super::changes::CHANGES;

    fn check(&self) -> Vec<Complaint> {
        let mut complaints = Complaints::default();
        self.check_names(&mut complaints);
        self.check_limits(&mut complaints);
        self.check_door(&mut complaints);
        self.check_times(&mut complaints);
        complaints.extend(self.forward.retry().check("forward"));
        self.check_lists(&mut complaints);
        self.check_policy(&mut complaints);
        self.check_tables(&mut complaints);
        self.check_content(&mut complaints);
        self.check_inside(&mut complaints);
        self.check_files(&mut complaints);
        complaints.into()
    }

    fn control(&self) -> &service::control::Settings {
        &self.control
    }

    fn log(&self) -> &LogSettings {
        &self.log
    }
}

/// They go into replies.
fn check_texts(complaints: &mut Complaints, key: &str, texts: &[CodeText]) {
    for CodeText { text, .. } in texts {
        let fit = check_note(text).is_ok() && !text.is_empty();
        complaints.unless(
            fit,
            key,
            format!("{text:?}"),
            "strangers are told it",
            "give 1 to 200 characters of ASCII",
        );
    }
}

impl Forward {
    /// The `retry_*` keys.
    pub fn retry(&self) -> Keys<'_> {
        Keys {
            first: self.retry_first,
            factor_percent: self.retry_factor_percent,
            longest: self.retry_longest,
            jitter_percent: self.retry_jitter_percent,
            delays: &self.retry_delays,
        }
    }
}

impl Config {
    fn check_names(&self, complaints: &mut Complaints) {
        complaints.unless(
            Ident::new(&self.name, 1, 1).is_ok(),
            "name",
            format!("{:?}", self.name),
            "it is part of the name of every message on the inner hops",
            "give 1 to 32 characters of a-z, 0-9 and -",
        );
        complaints.unless(
            Domain::parse(&self.hostname).is_ok_and(|name| !name.is_literal()),
            "hostname",
            format!("{:?}", self.hostname),
            "it stands in the greeting and in Received fields",
            "give the host's name in DNS",
        );
        for clients in &self.mail.clients {
            complaints.unless(
                !clients.networks.is_empty(),
                "mail.clients",
                "no networks".into(),
                "it would be for nobody",
                "give networks like 192.0.2.0/24",
            );
        }
        complaints.absolute("state", &self.state);
        for domain in &self.recipients.domains {
            complaints.unless(
                Domain::parse(domain).is_ok(),
                "recipients.domains",
                format!("{domain:?}"),
                "it is no domain name",
                "give names like lists.example",
            );
        }
        complaints.unless(
            self.recipients.recipient_delimiter.chars().count() <= 1,
            "recipients.recipient_delimiter",
            format!("{:?}", self.recipients.recipient_delimiter),
            "one character parts a local part from its extension",
            "give one character, or \"\" for none",
        );
    }

    fn check_lists(&self, complaints: &mut Complaints) {
        complaints.unless(
            self.screen.wait < seconds(30) && self.screen.wait_stressed <= self.screen.wait,
            "screen.wait",
            format!(
                "{:?}, stressed {:?}",
                self.screen.wait, self.screen.wait_stressed
            ),
            "clients give up, and under stress they should wait less",
            "give less than 30s, and at most as much for wait_stressed",
        );
        complaints.unless(
            (1..=100).contains(&self.screen.sessions_percent_max),
            "screen.sessions_percent_max",
            self.screen.sessions_percent_max.to_string(),
            "nobody could wait, or more than there are sessions",
            "give 1 to 100",
        );
        let dnsbl = &self.dnsbl;
        complaints.unless(
            dnsbl.threshold > 0,
            "dnsbl.threshold",
            dnsbl.threshold.to_string(),
            "every client would be listed",
            "give at least 1",
        );
        complaints.unless(
            dnsbl.allow_threshold <= 0,
            "dnsbl.allow_threshold",
            dnsbl.allow_threshold.to_string(),
            "lists of good clients have negative weights",
            "give a negative number, or 0 for none",
        );
        complaints.unless(
            dnsbl.ttl_min <= dnsbl.ttl_max,
            "dnsbl.ttl_min",
            format!("{:?} with ttl_max {:?}", dnsbl.ttl_min, dnsbl.ttl_max),
            "the lower bound is above the upper one",
            "give at most dnsbl.ttl_max",
        );
        for list in &dnsbl.lists {
            check_texts(complaints, "dnsbl.lists.texts", &list.texts);
            complaints.unless(
                Domain::parse(&list.zone).is_ok_and(|zone| !zone.is_literal()),
                "dnsbl.lists.zone",
                format!("{:?}", list.zone),
                "it is no domain name",
                "give the zone that the list's page names, zen.list.example",
            );
            complaints.unless(
                list.weight != 0,
                "dnsbl.lists.weight",
                format!("0 of {}", list.shown()),
                "it would be asked for nothing",
                "give a positive number for bad clients, a negative one for good ones",
            );
        }
    }

    fn check_policy(&self, complaints: &mut Complaints) {
        for list in &self.policy.domain_lists {
            check_texts(complaints, "policy.domain_lists.texts", &list.texts);
            complaints.unless(
                Domain::parse(&list.zone).is_ok_and(|zone| !zone.is_literal()),
                "policy.domain_lists.zone",
                format!("{:?}", list.zone),
                "it is no domain name",
                "give the zone that the list's page names, dbl.list.example",
            );
            complaints.unless(
                !list.about.is_empty(),
                "policy.domain_lists.about",
                format!("nothing of {}", list.shown()),
                "it would be asked about nobody",
                "give some of \"sender\", \"helo\", \"client\", \"recipient\"",
            );
        }
        let greylist = &self.greylist;
        complaints.unless(
            greylist.delay < greylist.window && greylist.window <= greylist.valid,
            "greylist.window",
            format!(
                "{:?} with delay {:?} and valid {:?}",
                greylist.window, greylist.delay, greylist.valid
            ),
            "nobody could come again in time",
            "give more than greylist.delay and at most greylist.valid",
        );
        let file = &self.shadow.file;
        if !file.as_os_str().is_empty() {
            complaints.absolute("shadow.file", file);
        }
    }

    fn check_limits(&self, complaints: &mut Complaints) {
        let limits = &self.limits;
        complaints.counts([
            ("limits.sessions_max", limits.sessions_max),
            (
                "limits.sessions_per_client_max",
                limits.sessions_per_client_max,
            ),
            (
                "limits.null_sender_recipients_max",
                limits.null_sender_recipients_max,
            ),
            ("limits.errors_max", limits.errors_max),
            ("limits.hops_max", limits.hops_max),
            ("limits.mime_depth_max", limits.mime_depth_max),
            ("limits.mime_parts_max", limits.mime_parts_max),
            ("limits.header_fields_max", limits.header_fields_max),
            ("through.messages_max", self.through.messages_max),
            ("through.failures_max", self.through.failures_max as usize),
            ("forward.connections_max", self.forward.connections_max),
            ("forward.attempts_max", self.forward.attempts_max),
            ("spool.window_max", self.spool.window_max),
            ("spool.heads_max", self.spool.heads_max),
            ("spool.unindexed_max", self.spool.unindexed_max),
        ]);
        complaints.unless(
            self.forward.bodies_bytes_max > 0,
            "forward.bodies_bytes_max",
            "0".into(),
            "no body could be read",
            "give some room, as in \"256MiB\"",
        );
        complaints.unless(
            limits.recipients_max >= 100,
            "limits.recipients_max",
            limits.recipients_max.to_string(),
            "RFC 5321 4.5.3.1.8 promises senders 100",
            "give at least 100",
        );
        complaints.unless(
            limits.message_bytes_max <= SPOOL_MESSAGE_BYTES_MAX,
            "limits.message_bytes_max",
            limits.message_bytes_max.to_string(),
            "the spool keeps messages up to 128 MiB",
            "give at most 128MiB",
        );
        complaints.unless(
            limits.message_memory_bytes_max >= limits.message_bytes_max,
            "limits.message_memory_bytes_max",
            limits.message_memory_bytes_max.to_string(),
            "one largest message would not fit",
            "give at least limits.message_bytes_max",
        );
    }

    fn check_times(&self, complaints: &mut Complaints) {
        complaints.spans([
            ("through.budget", self.through.budget),
            ("spool.deadline", self.spool.deadline),
            ("report.write_interval", self.report.write_interval),
            ("spool.waiting_max", self.spool.waiting_max),
            ("forward.probe_interval", self.forward.probe_interval),
            (
                "recipients.reload_interval",
                self.recipients.reload_interval,
            ),
        ]);
        complaints.unless(
            self.through.budget.saturating_add(self.spool.deadline) < seconds(600),
            "through.budget",
            format!("{:?}", self.through.budget),
            "budget and spool.deadline together are longer than a client waits (RFC 5321 4.5.3.2.6: 10 minutes)",
            "keep the sum below 10m",
        );
    }

    fn check_inside(&self, complaints: &mut Complaints) {
        complaints.unless(
            (1..=LISTENERS.len()).contains(&self.mail.listen.len()),
            "mail.listen",
            format!("{} addresses", self.mail.listen.len()),
            "each listener has a name of its own, up to four",
            "give one to four addresses like 0.0.0.0:25",
        );
        complaints.unless(
            !self.next_hop.hosts.is_empty(),
            "next_hop.hosts",
            "no host".into(),
            "no mail could go inside",
            "give the balancers' addresses",
        );
        let inside = self.inside.as_ref();
        for host in &self.next_hop.hosts {
            let address = host.parse::<SocketAddr>();
            let why = "mail goes to an address with a port";
            complaints.parsed("next_hop.hosts", host, address, why, "give ip:port");
            let lmtp = self.next_hop.protocol != Protocol::Smtp;
            if let (true, Ok(address)) = (lmtp, host.parse()) {
                complaints.guarded(inside, "next_hop.hosts", address);
            }
        }
        self.directory.check(inside, complaints);
        complaints.unless(
            self.handover.listen.len() <= HANDOVERS.len(),
            "handover.listen",
            format!("{} addresses", self.handover.listen.len()),
            "each listener has a name of its own, up to two",
            "give at most two addresses",
        );
        for listen in &self.handover.listen {
            complaints.unless(
                self.inside.is_some() || listen.ip().is_loopback(),
                "handover.listen",
                format!("{listen} without [inside]"),
                "mail is handed over between hosts with mutual TLS",
                "make a certificate with `mx-edge ca node` and name it in [inside]",
            );
        }
        let somebody = !self.directory.servers.is_empty()
            || !self.recipients.files.is_empty()
            || !self.recipients.postfix_maps.is_empty();
        complaints.unless(
            somebody,
            "directory.servers",
            "no source of recipients".into(),
            "every recipient would be unknown",
            "name list hosts, recipients.files or recipients.postfix_maps",
        );
    }

    fn check_files(&self, complaints: &mut Complaints) {
        complaints.inside(self.inside.as_ref());
        let public: Vec<_> = self.tls.iter().flat_map(|public| public.files()).collect();
        complaints.unless(
            public.len() <= CERTIFICATES.len(),
            "tls.more",
            format!("{} certificates", public.len()),
            "each has a name of its own in metrics, up to eight",
            "put more names into one certificate",
        );
        complaints.extend(public.iter().flat_map(|files| files.check("tls", false)));
        let keys = &self.recipients.cookie_key_files;
        complaints.secrets("recipients.cookie_key_files", keys);
    }
}
