//! Exchangers with addresses of both families on one port, over real sockets: IPv6 and IPv4 are tried as the DNS tells, and a family that
//! nobody answers costs no mail.

use std::net::Ipv6Addr;

use hickory_resolver::proto::rr::rdata::AAAA;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::egress::Egress;
use crate::pool::{Hosts, Pool, Reach};
use crate::testing::peer::{Manner, Peer, letter, options};

/// Nothing here takes longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// A listener of each family on the same port; what is not wanted of them is closed, and nobody answers there.
async fn listeners() -> (TcpListener, TcpListener) {
    for _ in 0..100 {
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let port = six.local_addr().unwrap().port();
        if let Ok(four) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return (six, four);
        }
    }
    panic!("no port is free in both families");
}

/// Which family took the message, of an exchanger that listens where it is told.
async fn taken_by(six_listens: bool, four_listens: bool, egress: Egress) -> Option<Box<str>> {
    use RecordType::{A as Four, AAAA as Six, MX};
    let (six, four) = listeners().await;
    let port = six.local_addr().unwrap().port();
    let peers = [(six, six_listens), (four, four_listens)];
    let peers = peers.map(|(listener, listens)| listens.then(|| Peer::on(listener, Manner::Good)));
    let address = |data| Said::Records(vec![data]);
    let server = server(zone([
        (
            ("d.example.", MX),
            Said::Records(vec![mx(1, "both.example.")]),
        ),
        (
            ("both.example.", Four),
            address(RData::A(A(Ipv4Addr::LOCALHOST))),
        ),
        (
            ("both.example.", Six),
            address(RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))),
        ),
    ]))
    .await;
    let exchangers = Exchangers::new(&[server.address], port).unwrap();
    let site = exchangers.site(&domain("d.example")).await.unwrap();
    let pool = Pool::new(Reach {
        hosts: Hosts::Site(Arc::new(exchangers), site),
        options: options(),
        tls: HashMap::new(),
        egress,
        transactions_max: 1,
        connections_max: 1,
        connects_per_second_max: None,
    });
    let passed = pool
        .pass(&letter("one@d.example"), Instant::now() + PATIENCE)
        .await
        .ok()?;
    assert_eq!(passed.answers[0].reply.code, 250);
    let messages = peers.map(|peer| peer.map_or(0, |peer| peer.messages()));
    assert_eq!(messages.iter().sum::<usize>(), 1, "it arrives once");
    Some(if messages[0] == 1 { "IPv6" } else { "IPv4" }.into())
}

#[tokio::test]
async fn either_family_takes_mail() {
    let any = Egress::default;
    let four = || Egress {
        source_v4: Some(Ipv4Addr::LOCALHOST),
        ..Egress::default()
    };
    let six = || Egress {
        source_v6: Some(Ipv6Addr::LOCALHOST),
        ..Egress::default()
    };
    assert_eq!(taken_by(true, false, any()).await.as_deref(), Some("IPv6"));
    assert_eq!(taken_by(false, true, any()).await.as_deref(), Some("IPv4"));
    assert!(taken_by(true, true, any()).await.is_some());
    assert_eq!(taken_by(false, false, any()).await, None);
    // Who may leave by one family alone does not try the other.
    assert_eq!(taken_by(true, true, four()).await.as_deref(), Some("IPv4"));
    assert_eq!(taken_by(true, true, six()).await.as_deref(), Some("IPv6"));
    assert_eq!(taken_by(true, false, four()).await, None);
}
