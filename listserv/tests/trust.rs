//! Claims about who is believed: a certificate of the site's CA that names the role, and nothing else.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Host, Sink, codes};
use mail::{Address, Envelope, MailParameters, ReversePath};
use service::authority;
use service::tls::{Files, Identity, Role};
use smtp::Protocol;
use smtp::client::{Client, Options, Timeouts, TlsPolicy};

#[tokio::test(flavor = "multi_thread")]
async fn only_scanners_and_edges_bring_mail() {
    let ca = tempfile::tempdir().unwrap();
    authority::init(ca.path()).unwrap();
    let files = |name: &str| Files {
        certificate: ca.path().join(format!("{name}.pem")),
        key: ca.path().join(format!("{name}.key")),
        authority: Some(ca.path().join("ca.pem")),
    };
    for role in [Role::Listserv, Role::Scanner, Role::MxEdge, Role::Balancer] {
        authority::node(ca.path(), role.name(), &[role], &["127.0.0.1".into()]).unwrap();
    }
    let sink = Sink::start().await;
    let inside = files("listserv");
    let more = format!(
        "[inside]\ncertificate = {:?}\nkey = {:?}\nauthority = {:?}\n",
        inside.certificate,
        inside.key,
        inside.authority.unwrap()
    );
    let host = Host::start(&sink, &more).await;
    host.command("list create dev@lists.example");

    let table = [
        ("scanner", 451),
        ("mx-edge", 451),
        ("balancer", 550),
        ("", 530),
    ];
    for (name, expected) in table {
        let tls = match name {
            "" => TlsPolicy::Never,
            name => {
                let identity = Identity::load(&files(name)).unwrap();
                TlsPolicy::Required(identity.client(), Role::Listserv.server_name())
            }
        };
        let options = Options {
            protocol: Protocol::Lmtp,
            helo: "peer.example".into(),
            tls,
            timeouts: Timeouts::default(),
            source: None,
            chunking: true,
        };
        let mut client = Client::connect(host.lmtp, &options).await.unwrap();
        let envelope = Envelope {
            reverse_path: ReversePath::parse("ann@four.example").unwrap(),
            parameters: MailParameters::default(),
            recipients: vec![Address::parse("dev@lists.example").unwrap().into()],
        };
        // Who is believed gets as far as the missing verdict.
        let replies = client
            .send(&envelope, &["Subject: s\r\n\r\n".into()])
            .await
            .unwrap();
        assert_eq!(codes(&replies), [expected], "{name:?}");
    }
}
