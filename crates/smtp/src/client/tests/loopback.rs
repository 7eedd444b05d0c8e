//! The client against our server, over loopback.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::super::*;
use crate::server::{Settings, serve};
use crate::testing::{Decider, Taken, certificate, envelope, mutual, settings};

/// A server that runs while the sender half lives.
struct Server {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
    _running: watch::Sender<bool>,
}

async fn server(settings: Settings) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (running, stop) = watch::channel(false);
    let taken: Arc<Mutex<Vec<Taken>>> = Arc::default();
    let settings = Arc::new(settings);
    let theirs = taken.clone();
    tokio::spawn(async move {
        while let Ok((stream, client)) = listener.accept().await {
            let mut handler = Decider::new(settings.protocol);
            handler.taken = theirs.clone();
            let (settings, stop) = (settings.clone(), stop.clone());
            tokio::spawn(async move { serve(stream, client, settings, &mut handler, stop).await });
        }
    });
    Server {
        address,
        taken,
        _running: running,
    }
}

fn options(protocol: Protocol, chunking: bool) -> Options {
    Options {
        protocol,
        helo: "client.example".into(),
        tls: TlsPolicy::Never,
        timeouts: Timeouts::default(),
        source: None,
        chunking,
    }
}

/// Sends on every way there is: pipelined or not, DATA or BDAT, small or large; the replies' codes must be `expected`.
async fn check(protocol: Protocol, recipients: &[&str], expected: &[u16]) {
    let small = Bytes::from_static(b"Subject: a\r\n\r\n.\r\n..b\r\n");
    let large = Bytes::from([&small[..], &b".0123456789\r\n".repeat(20_000)[..]].concat());
    for pipelining in [true, false] {
        for chunking in [true, false] {
            for message in [&small, &large] {
                let mut settings = settings(protocol);
                if !pipelining {
                    settings.keywords_off.push("PIPELINING".to_owned());
                }
                let server = server(settings).await;
                let mut client = Client::connect(server.address, &options(protocol, chunking))
                    .await
                    .unwrap();
                let told = format!(
                    "pipelining {pipelining}, chunking {chunking}, {}",
                    message.len()
                );
                // Twice on one connection: nothing of the first transaction may be left over.
                for _ in 0..2 {
                    let envelope = envelope("s@example.org", recipients);
                    let (head, tail) = (message.slice(..5), message.slice(5..));
                    let replies = client.send(&envelope, &[head, tail]).await.expect(&told);
                    let codes: Vec<u16> = replies.iter().map(|reply| reply.code).collect();
                    assert_eq!(codes, expected, "{told}");
                    for taken in server.taken.lock().unwrap().drain(..) {
                        assert_eq!(taken.message, message, "{told}");
                    }
                }
                client.quit().await;
            }
        }
    }
}

#[tokio::test]
async fn replies_are_told_for_each_recipient() {
    use Protocol::{Lmtp, Smtp};
    for protocol in [Smtp, Lmtp] {
        check(protocol, &["a@example.org"], &[250]).await;
        check(protocol, &["550-a@example.org"], &[550]).await;
        check(
            protocol,
            &["550-a@example.org", "451-b@example.org"],
            &[550, 451],
        )
        .await;
        check(
            protocol,
            &["a@example.org", "550-b@example.org", "c@example.org"],
            &[250, 550, 250],
        )
        .await;
    }
    let mixed = [
        "a@example.org",
        "data-451-b@example.org",
        "550-c@example.org",
    ];
    check(Lmtp, &mixed, &[250, 451, 550]).await;
    check(Smtp, &mixed, &[451, 451, 550]).await;
}

async fn deliver(server: &Server, options: &Options) -> Result<Taken, Trouble> {
    let mut client = Client::connect(server.address, options).await?;
    let told = Xforward {
        addr: Some([192, 0, 2, 7].into()),
        helo: Some("original.example".into()),
        ident: Some(mail::Ident::new("edge", 1, 2).unwrap()),
        ..Xforward::default()
    };
    client.xforward(&told).await?;
    for _ in 0..2 {
        let envelope = envelope("", &["a@example.org"]);
        let replies = client
            .send(&envelope, &[Bytes::from_static(b"x\r\n")])
            .await?;
        assert_eq!(replies[0].code, 250);
    }
    client.quit().await;
    let taken: Vec<Taken> = server.taken.lock().unwrap().drain(..).collect();
    assert!(
        taken[1].facts.xforward.is_empty(),
        "it was about the first message"
    );
    Ok(taken.into_iter().next().unwrap())
}

#[tokio::test]
async fn what_is_known_of_the_client_is_handed_on() {
    let mut settings = settings(Protocol::Lmtp);
    settings.xforward = true;
    let server = server(settings).await;
    let taken = deliver(&server, &options(Protocol::Lmtp, true))
        .await
        .unwrap();
    let xforward = &taken.facts.xforward;
    assert_eq!(xforward.addr, Some([192, 0, 2, 7].into()));
    assert_eq!(xforward.helo.as_deref(), Some("original.example"));
    assert_eq!(
        xforward.ident,
        Some(mail::Ident::new("edge", 1, 2).unwrap())
    );
    assert_eq!(xforward.name, None);
    assert_eq!(&*taken.facts.helo, "client.example");
}

#[tokio::test]
async fn the_source_address_is_ours_to_choose() {
    let server = server(settings(Protocol::Smtp)).await;
    let mut options = options(Protocol::Smtp, true);
    options.source = Some([127, 0, 0, 9].into());
    let taken = deliver(&server, &options).await.unwrap();
    assert_eq!(taken.facts.client.ip(), IpAddr::from([127, 0, 0, 9]));
    options.source = Some("::1".parse().unwrap());
    let trouble = deliver(&server, &options).await.unwrap_err();
    assert!(
        matches!(
            trouble,
            Trouble {
                phase: Phase::Connect,
                cause: Cause::NoSource(..)
            }
        ),
        "{trouble}"
    );
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let trouble = Client::connect(address, &options(Protocol::Smtp, true))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(
            trouble,
            Trouble {
                phase: Phase::Connect,
                cause: Cause::Io(_)
            }
        ),
        "{trouble}"
    );
}

#[tokio::test]
async fn tls() {
    let (theirs, ours, bare) = mutual();
    let mut settings = settings(Protocol::Lmtp);
    settings.tls = Some(theirs);
    settings.tls_required = true;
    settings.xforward = true;
    let server = server(settings).await;
    let name = |name: &str| ServerName::try_from(name.to_owned()).unwrap();
    let mut options = options(Protocol::Lmtp, true);

    options.tls = TlsPolicy::Required(ours.clone(), name("mx.example"));
    let taken = deliver(&server, &options).await.unwrap();
    assert_eq!(taken.facts.tls.unwrap().peer_certificates.len(), 1);
    options.tls = TlsPolicy::Opportunistic(ours.clone(), name("mx.example"));
    assert!(
        deliver(&server, &options)
            .await
            .unwrap()
            .facts
            .tls
            .is_some()
    );

    // The wrong name, the wrong authority, and no TLS at all where the server requires it.
    options.tls = TlsPolicy::Required(ours, name("other.example"));
    let trouble = deliver(&server, &options).await.unwrap_err();
    assert!(
        matches!(
            trouble,
            Trouble {
                phase: Phase::Helo,
                cause: Cause::Tls(_)
            }
        ),
        "{trouble}"
    );
    options.tls = TlsPolicy::Opportunistic(certificate().1, name("mx.example"));
    let trouble = deliver(&server, &options).await.unwrap_err();
    assert!(
        matches!(
            trouble,
            Trouble {
                phase: Phase::Helo,
                cause: Cause::Tls(_)
            }
        ),
        "{trouble}"
    );
    // Without a certificate of our own: the server hangs up once it has looked.
    options.tls = TlsPolicy::Required(bare, name("mx.example"));
    let trouble = deliver(&server, &options).await.unwrap_err();
    assert_eq!(trouble.phase, Phase::Helo, "{trouble}");
    options.tls = TlsPolicy::Never;
    let mut client = Client::connect(server.address, &options).await.unwrap();
    assert!(client.offers("starttls") && !client.offers("XNONE"));
    let envelope = envelope("", &["a@example.org"]);
    let replies = client
        .send(&envelope, &[Bytes::from_static(b"x\r\n")])
        .await
        .unwrap();
    assert_eq!(replies[0].code, 530);
}
