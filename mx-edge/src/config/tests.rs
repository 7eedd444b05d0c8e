//! The sample, the defaults, and each complaint.

use service::program::Configuration;

use super::*;

#[test]
fn the_sample_names_every_key_with_its_default() {
    let sample = include_str!("../../../deploy/etc/mx-edge.toml");
    let complaints = service::config::compare_sample::<Config>(sample);
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_default_is_a_configuration() {
    assert!(Config::default().check().is_empty());
}

/// Changes the default and expects one complaint about that key.
fn check(key: &str, change: impl Fn(&mut Config)) {
    let mut config = Config::default();
    change(&mut config);
    let keys: Vec<String> = config
        .check()
        .into_iter()
        .map(|complaint| complaint.key)
        .collect();
    assert_eq!(keys, [key]);
}

#[test]
fn what_cannot_work_is_complained_of() {
    check("name", |config| config.name = "Mx.1".into());
    check("hostname", |config| config.hostname = "[192.0.2.1]".into());
    check("state", |config| config.state = "spool".into());
    check("mail.listen", |config| config.mail.listen.clear());
    check("limits.hops_max", |config| config.limits.hops_max = 0);
    check("access.files", |config| {
        config.access.files.push("access".into())
    });
    check("access.files", |config| {
        config.access.files.push("/nonexistent/access".into())
    });
    check("screen.sessions_percent_max", |config| {
        config.screen.sessions_percent_max = 101
    });
    check("rates.entries_max", |config| config.rates.entries_max = 0);
    check("rates.limits", |config| {
        config.rates.limits = vec!["0 messages a minute".parse().unwrap()]
    });
    check("stress.sessions_percent_high", |config| {
        config.stress.sessions_percent_high = 60
    });
    check("stress.command_timeout", |config| {
        config.stress.errors_max = 0
    });
    check("limits.recipients_max", |config| {
        config.limits.recipients_max = 99
    });
    check("limits.message_bytes_max", |config| {
        config.limits.message_bytes_max = 129 * MIB
    });
    check("limits.message_memory_bytes_max", |config| {
        config.limits.message_memory_bytes_max = MIB
    });
    check("recipients.domains", |config| {
        config.recipients.domains.push("a..b".into())
    });
    check("recipients.recipient_delimiter", |config| {
        config.recipients.recipient_delimiter = "+-".into()
    });
    check("directory.servers", |config| {
        config.directory.servers.clear()
    });
    check("directory.servers", |config| {
        config
            .directory
            .servers
            .push("192.0.2.1:10028".parse().unwrap());
    });
    check("greylist.window", |config| {
        config.greylist.window = config.greylist.delay
    });
    check("shadow.file", |config| {
        config.shadow.file = "next.toml".into()
    });
    check("policy.domain_lists.zone", |config| {
        config.policy.domain_lists.push(DomainList {
            zone: "a..b".into(),
            name: String::new(),
            codes: crate::dnsbl::Codes::default(),
            about: vec![About::Sender],
            self_test: true,
            texts: Vec::new(),
        })
    });
    check("dnsbl.lists.texts", |config| {
        config.dnsbl.lists.push(DnsList {
            zone: "zen.example".into(),
            name: String::new(),
            codes: crate::dnsbl::Codes::default(),
            weight: 1,
            self_test: true,
            texts: vec![CodeText {
                codes: crate::dnsbl::Codes::default(),
                text: "two\r\nlines".into(),
            }],
        })
    });
    check("policy.headers.field", |config| {
        config.policy.headers.push(HeaderRule {
            name: "pills".into(),
            field: "Subject:".into(),
            of: Of::Message,
            pattern: "x".parse().unwrap(),
            then: Then::Reject,
            value: String::new(),
            action: Action::Warn,
        })
    });
    let rule = |then, value: &str| BodyRule {
        name: "worm".into(),
        pattern: "x".parse().unwrap(),
        then,
        value: value.into(),
        action: Action::Enforce,
    };
    for (then, value, key) in [
        (Then::Reject, "X-A: b", "policy.body.value"),
        (Then::Prepend, "", "policy.body.value"),
        (Then::Prepend, "no field", "policy.body.value"),
        (Then::Prepend, "X-A: b\r\nX-B: c", "policy.body.value"),
        (Then::Prepend, "X-Mailflow-Trace: v=1", "policy.body.value"),
        (Then::Redirect, "", "policy.redirect_to"),
    ] {
        check(key, |config| config.policy.body.push(rule(then, value)));
    }
    check("policy.body.name", |config| {
        let mut rule = rule(Then::Hold, "");
        rule.name = "two words".into();
        config.policy.body.push(rule)
    });
    check("policy.redirect_to", |config| {
        config.policy.redirect_to = "nobody".into()
    });
    for (name, file) in [
        ("a b", "/dev/null"),
        ("t", "table"),
        ("t", "/nonexistent/t"),
    ] {
        let key = if name == "t" {
            "policy.tables.file"
        } else {
            "policy.tables.name"
        };
        check(key, |config| {
            config.policy.tables.push(TableFile {
                name: name.into(),
                about: Subject::Sender,
                file: file.into(),
                action: Action::Enforce,
            })
        });
    }
    check("next_hop.hosts", |config| config.next_hop.hosts.clear());
    check("next_hop.hosts", |config| {
        config.next_hop.hosts.push("192.0.2.1:10024".into())
    });
    check("through.budget", |config| {
        config.through.budget = seconds(590)
    });
    check("forward.retry_first", |config| {
        config.forward.retry_first = seconds(301)
    });
    check("inside.authority", |config| {
        config.inside = Some(Files {
            certificate: "/a.pem".into(),
            key: "/a.key".into(),
            authority: None,
        });
    });
    check("inside.certificate", |config| {
        config.inside = Some(Files {
            certificate: "/nonexistent/a.pem".into(),
            key: "/nonexistent/a.key".into(),
            authority: Some("/nonexistent/ca.pem".into()),
        });
    });
    check("tls.key", |config| {
        config.tls = Some(PublicCertificate {
            more: Vec::new(),
            certificate: "/nonexistent/a.pem".into(),
            key: "a.key".into(),
        });
    });
    check("directory.siblings", |config| {
        let sibling = "127.0.0.1:1".parse().unwrap();
        config.directory.siblings.push(sibling)
    });
    check("directory.listen", |config| {
        config.directory.listen = Some("0.0.0.0:1".parse().unwrap())
    });
    check("directory.public_key_files", |config| {
        let keys = &mut config.directory.public_key_files;
        keys.push("/nonexistent/key".into())
    });
}

#[test]
fn a_foreign_smtp_server_needs_no_certificate_of_ours() {
    let mut config = Config::default();
    config.next_hop.hosts = vec!["192.0.2.1:25".into()];
    config.next_hop.protocol = Protocol::Smtp;
    assert!(config.check().is_empty());
}
