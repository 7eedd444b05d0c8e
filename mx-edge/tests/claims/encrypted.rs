//! STARTTLS for strangers; mutual TLS on the way inside, where only a next hop with the right role gets mail.

use bytes::Bytes;
use mx_edge::config::{MoreCertificates, PublicCertificate};
use service::authority;
use service::tls::{Files, Identity, Role, opportunistic_client};
use smtp::Protocol;
use smtp::client::{Client, Options, Timeouts, TlsPolicy};
use std::path::Path;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::client::{MESSAGE, codes, envelope, send};
use crate::edge::Site;
use crate::inside::{Inside, Mode};

pub fn files(folder: &Path, name: &str, role: Role) -> Files {
    authority::node(folder, name, &[role], &[]).unwrap();
    Files {
        certificate: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
        authority: Some(folder.join("ca.pem")),
    }
}

/// What an edge shows to strangers, of an authority of its own.
pub fn public(folder: &Path) -> PublicCertificate {
    authority::init(folder).unwrap();
    let Files {
        certificate, key, ..
    } = files(folder, "mx1", Role::MxEdge);
    PublicCertificate {
        certificate,
        key,
        more: Vec::new(),
    }
}

#[tokio::test]
async fn strangers_may_encrypt() {
    let ca = tempfile::tempdir().unwrap();
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.tls = Some(public(ca.path()));
    let edge = site.start().await;

    let name = ServerName::try_from("mx1.example").unwrap();
    let options = Options {
        protocol: Protocol::Smtp,
        helo: "client.elsewhere.example".into(),
        tls: TlsPolicy::Required(opportunistic_client(), name),
        timeouts: Timeouts::default(),
        source: None,
        chunking: true,
    };
    let mut client = Client::connect(edge.address, &options).await.unwrap();
    let mail = envelope("ann@elsewhere.example", &["dev@lists.example"]);
    let parts = [Bytes::from_static(MESSAGE.as_bytes())];
    let replies = client.send(&mail, &parts).await.unwrap();
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    client.quit().await;

    let text = String::from_utf8(inside.got()[0].message.to_vec()).unwrap();
    assert!(text.contains(" with ESMTPS id "), "{text}");
    assert!(text.contains("\r\n\t(using TLSv1"), "{text}");
    assert_eq!(
        codes(&send(edge.address, &["dev@lists.example"]).await),
        ["250 2.0.0"],
        "nobody has to"
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_client_gets_the_certificate_that_it_asks_for() {
    let ca = tempfile::tempdir().unwrap();
    authority::init(ca.path()).unwrap();
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    let first = files(ca.path(), "mx1", Role::MxEdge);
    let second = files(ca.path(), "mx2", Role::Operator);
    let config = &mut site.config;
    config.recipients.domains = vec!["lists.example".into()];
    config.tls = Some(PublicCertificate {
        certificate: first.certificate,
        key: first.key,
        more: vec![MoreCertificates {
            certificate: second.certificate,
            key: second.key,
        }],
    });
    let edge = site.start().await;
    let client = Identity::load(&files(ca.path(), "client", Role::Scanner)).unwrap();
    for (role, shown) in [
        (Role::MxEdge, true),
        (Role::Operator, true),
        (Role::Listserv, false),
    ] {
        let options = Options {
            protocol: Protocol::Smtp,
            helo: "client.elsewhere.example".into(),
            tls: TlsPolicy::Required(client.client(), role.server_name()),
            timeouts: Timeouts::default(),
            source: None,
            chunking: true,
        };
        let connected = Client::connect(edge.address, &options).await;
        assert_eq!(connected.is_ok(), shown, "{role:?}");
    }
    edge.stop().await;
}

/// The next hop shows this role; whether it gets the message while the client waits.
async fn check(role: Role, through: bool) {
    let ca = tempfile::tempdir().unwrap();
    authority::init(ca.path()).unwrap();
    let identity = Identity::load(&files(ca.path(), "node", role)).unwrap();
    let inside = Inside::start_tls(&identity).await;
    let mut site = Site::new(&inside);
    site.config.inside = Some(files(ca.path(), "mx1", Role::MxEdge));
    let edge = site.start().await;
    assert_eq!(
        codes(&send(edge.address, &["dev@lists.example"]).await),
        ["250 2.0.0"]
    );
    let outcome = if through { "passed" } else { "spooled" };
    assert_eq!(
        edge.metric("mx_edge_messages_total", outcome),
        1.0,
        "{role:?}"
    );
    assert_eq!(inside.got().len(), usize::from(through), "{role:?}");
    edge.stop().await;
}

#[tokio::test]
async fn only_a_scanner_gets_mail() {
    check(Role::Scanner, true).await;
    check(Role::Listserv, false).await;
}

#[tokio::test]
async fn a_next_hop_without_tls_gets_nothing() {
    let ca = tempfile::tempdir().unwrap();
    authority::init(ca.path()).unwrap();
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.inside = Some(files(ca.path(), "mx1", Role::MxEdge));
    let edge = site.start().await;
    assert_eq!(
        codes(&send(edge.address, &["dev@lists.example"]).await),
        ["250 2.0.0"]
    );
    assert_eq!(edge.metric("mx_edge_messages_total", "spooled"), 1.0);
    assert!(inside.got().is_empty());
    edge.stop().await;
}

#[tokio::test]
async fn what_is_older_than_tls_1_2_is_refused_in_the_handshake() {
    use crate::raw::{Raw, starts};
    use tokio::io::AsyncReadExt;
    let ca = tempfile::tempdir().unwrap();
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.tls = Some(public(ca.path()));
    let edge = site.start().await;
    // RFC 4346: a hello of TLS 1.0 and of 1.1, each with a suite that 1.2 has too (ECDHE-RSA-AES128-SHA), no extension.
    for (count, minor) in [(1.0, 1), (2.0, 2)] {
        let mut client = Raw::from("127.0.0.2", &edge).await;
        starts(&client.hear().await, "220 ");
        client.say("EHLO client.elsewhere.example").await;
        starts(&client.say("STARTTLS").await, "220 ");
        let mut hello = vec![3, minor];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
        let length = hello.len() as u8;
        let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
        record.extend(hello);
        client.send(&record).await;
        let mut alert = [0; 7];
        client.0.read_exact(&mut alert).await.unwrap();
        // Fatal: protocol_version, or handshake_failure for want of what a hello of 1.2 has.
        assert_eq!((alert[0], alert[5]), (21, 2), "{alert:?}");
        assert!(matches!(alert[6], 40 | 70), "{alert:?}");
        edge.wait_metric("mx_edge_sessions_total", "tls_failed", count)
            .await;
    }
    edge.stop().await;
}
