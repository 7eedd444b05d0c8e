//! Connections to peers on loopback that behave in all the ways there are.

use mail::Ident;
use smtp::client::{Timeouts, TlsPolicy};
use smtp::xforward::Xforward;
use tokio_rustls::rustls::pki_types::ServerName;

use super::*;
use crate::testing::peer::{Manner, Peer, letter, options};

/// Nothing here takes longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

fn reach(hosts: Hosts, transactions_max: usize) -> Reach {
    Reach {
        hosts,
        options: options(),
        tls: HashMap::new(),
        egress: Egress::default(),
        transactions_max,
        connections_max: 10,
        connects_per_second_max: None,
    }
}

fn route(peers: &[&Peer], transactions_max: usize) -> Pool {
    let hosts = peers.iter().map(|peer| peer.address.to_string()).collect();
    Pool::new(reach(Hosts::Route(hosts), transactions_max))
}

async fn pass(pool: &Pool) -> Result<Passed, Stopped> {
    pool.pass(&letter("one@a.example"), Instant::now() + PATIENCE)
        .await
}

async fn passes(pool: &Pool) -> Box<str> {
    let passed = pass(pool).await.unwrap();
    assert_eq!(passed.answers.len(), 1);
    assert_eq!(passed.answers[0].reply.code, 250);
    passed.remote
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_connection_is_used_so_often_and_no_more() {
    let peer = Peer::start(Manner::Good).await;
    let pool = route(&[&peer], 3);
    for _ in 0..7 {
        assert_eq!(&*passes(&pool).await, "127.0.0.1[127.0.0.1]");
    }
    assert_eq!(peer.messages(), 7);
    assert_eq!(peer.connections(), 3);
    until("two were ended with QUIT", || peer.said("QUIT").len() == 2).await;

    let alone = route(&[&peer], 1);
    for _ in 0..3 {
        passes(&alone).await;
    }
    assert_eq!(peer.connections(), 6, "behind a balancer: one each");
}

#[tokio::test]
async fn a_connection_that_died_while_idle_is_replaced() {
    let peer = Peer::start(Manner::Leaves).await;
    let pool = route(&[&peer], 100);
    for _ in 0..5 {
        passes(&pool).await;
        until("it left", || peer.seen.lock().unwrap().open == 0).await;
    }
    assert_eq!(peer.messages(), 5, "each once");
    assert_eq!(peer.connections(), 5);
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let peer = Peer::start(Manner::Good).await;
    let mut pool = route(&[&peer], 100);
    Arc::get_mut(&mut pool.inner).unwrap().idle_max = Duration::from_millis(50);
    passes(&pool).await;
    passes(&pool).await;
    assert_eq!(peer.connections(), 1);
    until("closed", || peer.seen.lock().unwrap().open == 0).await;
    assert_eq!(peer.said("QUIT").len(), 1);
    passes(&pool).await;
    until("closed again", || peer.seen.lock().unwrap().open == 0).await;
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn hosts_are_tried_in_order_and_the_last_good_one_first() {
    let bad = Peer::start(Manner::Refuses("421 4.3.2 busy")).await;
    let good = Peer::start(Manner::Good).await;
    let pool = route(&[&bad, &good], 1);
    for _ in 0..4 {
        passes(&pool).await;
    }
    assert_eq!((bad.connections(), good.connections()), (1, 4));
    // When the good one goes, the first is asked again, at once.
    *good.manner.lock().unwrap() = Manner::Refuses("421 4.3.2 gone");
    *bad.manner.lock().unwrap() = Manner::Good;
    for _ in 0..3 {
        passes(&pool).await;
    }
    assert_eq!(bad.messages(), 3);
}

#[tokio::test]
async fn trouble_says_who_and_where() {
    for (manner, code, phase) in [
        (Manner::Refuses("554 5.7.1 listed"), 450, Phase::Greeting),
        (Manner::Refuses("521 5.3.2 never"), 521, Phase::Greeting),
        (Manner::Refuses("SSH-2.0-x"), 451, Phase::Greeting),
    ] {
        let peer = Peer::start(manner.clone()).await;
        let stopped = pass(&route(&[&peer], 1)).await.unwrap_err();
        let reply = crate::attempt::reply_of(&stopped.trouble);
        assert_eq!(reply.code, code, "{manner:?}: {reply}");
        assert_eq!(stopped.trouble.phase, phase);
        assert_eq!(stopped.remote.as_deref(), Some("127.0.0.1[127.0.0.1]"));
    }
    let nobody = Pool::new(reach(Hosts::Route(vec!["nowhere.invalid:25".into()]), 1));
    let stopped = pass(&nobody).await.unwrap_err();
    assert_eq!(stopped.trouble.phase, Phase::Connect);
}

#[tokio::test]
async fn a_deadline_says_whether_the_message_may_have_arrived() {
    for (manner, phase) in [
        (Manner::Silent, Phase::Connect),
        (Manner::Stalls, Phase::End),
    ] {
        let peer = Peer::start(manner.clone()).await;
        let pool = route(&[&peer], 1);
        // Begun when the peer has the connection, so that the time is spent where it is meant to be.
        let work = tokio::spawn(async move {
            let soon = Instant::now() + Duration::from_millis(500);
            pool.pass(&letter("one@a.example"), soon).await
        });
        let stopped = work.await.unwrap().unwrap_err();
        assert!(
            matches!(stopped.trouble.cause, Cause::TimedOut),
            "{manner:?}"
        );
        assert_eq!(stopped.trouble.phase, phase, "{manner:?}");
        until("the connection was dropped with it", || {
            peer.seen.lock().unwrap().open == 0
        })
        .await;
    }
}

#[tokio::test]
async fn dropping_a_pass_drops_its_connection() {
    let peer = Peer::start(Manner::Stalls).await;
    let pool = Arc::new(route(&[&peer], 100));
    let theirs = pool.clone();
    let work = tokio::spawn(async move { pass(&theirs).await.is_ok() });
    until("DATA", || !peer.said("DATA").is_empty()).await;
    work.abort();
    until("dropped", || peer.seen.lock().unwrap().open == 0).await;
    *peer.manner.lock().unwrap() = Manner::Good;
    passes(&pool).await;
    assert_eq!(peer.connections(), 2, "it was not reused");
}

#[tokio::test]
async fn xforward_goes_before_every_message() {
    let peer = Peer::start(Manner::Good).await;
    let pool = route(&[&peer], 100);
    for n in 1..=3 {
        let mut copy = letter("one@a.example");
        copy.xforward = Some(Xforward {
            ident: Some(Ident::new("edge-1", 1, n).unwrap()),
            ..Xforward::default()
        });
        pool.pass(&copy, Instant::now() + PATIENCE).await.unwrap();
    }
    let said = peer.said("XFORWARD");
    assert_eq!(peer.connections(), 1);
    for n in 1..=3 {
        let ident = format!("IDENT=edge-1.1.{n}");
        assert!(
            said.iter().any(|line| line.contains(&ident)),
            "{ident} in {said:?}"
        );
    }
}

#[tokio::test]
async fn a_failed_handshake_is_no_reason_to_send_nothing_unless_tls_is_required() {
    let peer = Peer::start(Manner::BadTls).await;
    let config = service::tls::opportunistic_client();
    let name = ServerName::try_from("peer.example").unwrap();
    let with = |tls| {
        let hosts = vec![peer.address.to_string()];
        Pool::new(Reach {
            options: Options { tls, ..options() },
            ..reach(Hosts::Route(hosts), 1)
        })
    };
    passes(&with(TlsPolicy::Opportunistic(
        config.clone(),
        name.clone(),
    )))
    .await;
    assert_eq!(peer.connections(), 2);
    assert_eq!(peer.messages(), 1);
    let stopped = pass(&with(TlsPolicy::Required(config, name)))
        .await
        .unwrap_err();
    assert_eq!(stopped.trouble.phase, Phase::Helo);
    let reply = crate::attempt::reply_of(&stopped.trouble);
    assert_eq!(reply.enhanced.unwrap().to_string(), "4.7.5");
    assert_eq!(peer.messages(), 1);
}

#[tokio::test]
async fn connections_at_once_are_bounded() {
    let peer = Peer::start(Manner::Silent).await;
    let hosts = vec![peer.address.to_string()];
    let pool = Arc::new(Pool::new(Reach {
        connections_max: 2,
        ..reach(Hosts::Route(hosts), 1)
    }));
    let works: Vec<_> = (0..5)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pass(&pool).await.is_ok() })
        })
        .collect();
    until("two", || peer.connections() == 2).await;
    // What waits for a permit meets its own deadline.
    let soon = Instant::now() + Duration::from_millis(50);
    let stopped = pool.pass(&letter("one@a.example"), soon).await.unwrap_err();
    assert_eq!(stopped.trouble.phase, Phase::Connect);
    assert_eq!(peer.connections(), 2);
    works.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_egress_leaves_from_its_address_under_its_name() {
    let peer = Peer::start(Manner::Good).await;
    let leaving = |source: &str, helo: Option<&str>| {
        Pool::new(Reach {
            egress: Egress {
                source_v4: Some(source.parse().unwrap()),
                helo: helo.map(Into::into),
                ..Egress::default()
            },
            ..reach(Hosts::Route(vec![peer.address.to_string()]), 1)
        })
    };
    passes(&leaving("127.0.0.2", Some("bulk.example"))).await;
    passes(&leaving("127.0.0.3", None)).await;
    assert_eq!(
        peer.said("EHLO"),
        ["EHLO bulk.example", "EHLO client.example"]
    );
    let from = peer.seen.lock().unwrap().from.clone();
    let from: Vec<String> = from.iter().map(ToString::to_string).collect();
    assert_eq!(from, ["127.0.0.2", "127.0.0.3"]);

    // RFC 5737: an address that this host does not have.
    let stopped = pass(&leaving("192.0.2.1", None)).await.unwrap_err();
    let reply = crate::attempt::reply_of(&stopped.trouble);
    assert_eq!(reply.enhanced.unwrap().to_string(), "4.3.5", "{reply}");
    assert!(reply.text().contains("192.0.2.1"), "{reply}");

    // One that has an IPv6 address alone does not leave from another one.
    let six = Pool::new(Reach {
        egress: Egress {
            source_v6: Some("2001:db8::1".parse().unwrap()),
            ..Egress::default()
        },
        ..reach(Hosts::Route(vec![peer.address.to_string()]), 1)
    });
    let stopped = pass(&six).await.unwrap_err();
    let reply = crate::attempt::reply_of(&stopped.trouble);
    assert_eq!(reply.enhanced.unwrap().to_string(), "4.4.1", "{reply}");
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn an_address_that_is_silent_costs_a_second_and_not_its_time_out() {
    // A host whose backlog is full answers no SYN.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let silent = socket.listen(1).unwrap();
    let address = silent.local_addr().unwrap();
    let brief = Duration::from_millis(200);
    let mut held = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(brief, tokio::net::TcpStream::connect(address)).await
    {
        held.push(stream);
        assert!(held.len() < 100, "its backlog is never full");
    }
    let peer = Peer::start(Manner::Good).await;
    let hosts = vec![address.to_string(), peer.address.to_string()];
    let pool = Pool::new(reach(Hosts::Route(hosts), 1));
    let began = Instant::now();
    passes(&pool).await;
    assert!(began.elapsed() < Timeouts::default().connect / 3);
}

#[tokio::test]
async fn so_many_connects_a_second_and_no_more() {
    let peer = Peer::start(Manner::Good).await;
    let pool = Pool::new(Reach {
        connects_per_second_max: Some(10.0),
        ..reach(Hosts::Route(vec![peer.address.to_string()]), 1)
    });
    let began = Instant::now();
    for _ in 0..4 {
        passes(&pool).await;
    }
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "three waits of 100 ms"
    );
}
