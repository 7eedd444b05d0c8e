//! Against a DNS server of our own that answers as it is told, and against a real resolver (unbound).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata::{A, CNAME, MX, SOA};
use tokio::net::UdpSocket;

use super::*;

mod families;
mod own;

/// What the server says to one question.
#[derive(Clone)]
enum Said {
    Records(Vec<RData>),
    /// Through an alias.
    Alias(&'static str, Vec<RData>),
    NoData,
    NxDomain,
    Code(ResponseCode),
    Silence,
}

type Zone = HashMap<(&'static str, RecordType), Said>;

struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

fn mx(preference: u16, host: &str) -> RData {
    RData::MX(MX::new(preference, Name::from_ascii(host).unwrap()))
}

fn a(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(192, 0, 2, last)))
}

/// Questions about names that are not in the zone get NXDOMAIN; other types of a known name no data.
async fn server(zone: Zone) -> Server {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let Ok(question) = Message::from_vec(&buffer[..length]) else {
                continue;
            };
            let query = &question.queries[0];
            let name = query.name().to_ascii().to_lowercase();
            log.lock()
                .unwrap()
                .push(format!("{name} {}", query.query_type()));
            let said = zone
                .iter()
                .find(|((n, t), _)| *n == name && *t == query.query_type())
                .map(|(_, said)| said.clone());
            let known = zone.keys().any(|(n, _)| *n == name);
            let said = said.unwrap_or(if known { Said::NoData } else { Said::NxDomain });
            if let Some(answer) = answer(&question, said) {
                let _ = socket.send_to(&answer.to_vec().unwrap(), peer).await;
            }
        }
    });
    Server { address, asked }
}

fn answer(question: &Message, said: Said) -> Option<Message> {
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    let query = question.queries[0].clone();
    let name = query.name().clone();
    answer.add_query(query);
    answer.metadata.recursion_available = true;
    let soa = || {
        let root = Name::from_ascii("example.").unwrap();
        let soa = SOA::new(root.clone(), root.clone(), 1, 60, 60, 60, 60);
        Record::from_rdata(root, 60, RData::SOA(soa))
    };
    match said {
        Said::Silence => return None,
        Said::Code(code) => answer.metadata.response_code = code,
        Said::NxDomain => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            answer.add_authority(soa());
        }
        Said::NoData => {
            answer.add_authority(soa());
        }
        Said::Records(records) => {
            for data in records {
                answer.add_answer(Record::from_rdata(name.clone(), 300, data));
            }
        }
        Said::Alias(target, records) => {
            let target = Name::from_ascii(target).unwrap();
            let alias = RData::CNAME(CNAME(target.clone()));
            answer.add_answer(Record::from_rdata(name, 300, alias));
            for data in records {
                answer.add_answer(Record::from_rdata(target.clone(), 300, data));
            }
        }
    }
    Some(answer)
}

async fn exchangers(zone: Zone) -> (Exchangers, Server) {
    let server = server(zone).await;
    let patience = Duration::from_millis(200);
    let exchangers = Exchangers::patient(&[server.address], 2525, patience).unwrap();
    (exchangers, server)
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

/// `rank host` of each exchanger, or the refusal's code and enhanced status.
async fn check(zone: Zone, of: &str, expected: Result<&[&str], &str>) {
    let (exchangers, _server) = exchangers(zone).await;
    let exchangers = exchangers.with_own_names(vec![domain("us.example")]);
    let site = exchangers.site(&domain(of)).await;
    let shown = match &site {
        Ok(site) => Ok(site
            .exchangers
            .iter()
            .map(|e| format!("{} {}", e.rank, e.host))
            .collect::<Vec<_>>()),
        Err(reply) => Err(format!("{} {}", reply.code, reply.enhanced.unwrap())),
    };
    let expected = expected
        .map(|hosts| hosts.iter().map(|&host| host.to_owned()).collect())
        .map_err(str::to_owned);
    assert_eq!(shown, expected, "{of}: {site:?}");
}

fn zone<const N: usize>(entries: [((&'static str, RecordType), Said); N]) -> Zone {
    entries.into_iter().collect()
}

#[tokio::test]
async fn mail_exchangers_are_ranked_and_named_alike() {
    use RecordType::MX;
    let records = vec![
        mx(20, "B.Example."),
        mx(5, "z.example."),
        mx(20, "a.example."),
    ];
    check(
        zone([(("d.example.", MX), Said::Records(records))]),
        "d.example",
        Ok(&["0 z.example", "1 a.example", "1 b.example"]),
    )
    .await;
    check(
        zone([(
            ("d.example.", MX),
            Said::Alias("real.example.", vec![mx(1, "m.example.")]),
        )]),
        "d.example",
        Ok(&["0 m.example"]),
    )
    .await;
}

#[tokio::test]
async fn without_mx_the_domain_is_its_own_exchanger() {
    use RecordType::{A, AAAA, MX};
    check(
        zone([(("d.example.", A), Said::Records(vec![a(1)]))]),
        "d.example",
        Ok(&["0 d.example"]),
    )
    .await;
    // The name is there and has nothing to do with mail.
    check(
        zone([(("d.example.", RecordType::TXT), Said::NoData)]),
        "d.example",
        Err("550 5.4.4"),
    )
    .await;
    // Not sure that there is no address: not sure at all.
    check(
        zone([
            (("d.example.", MX), Said::NoData),
            (("d.example.", A), Said::Code(ResponseCode::ServFail)),
            (("d.example.", AAAA), Said::NoData),
        ]),
        "d.example",
        Err("451 4.4.3"),
    )
    .await;
}

#[tokio::test]
async fn refusals_are_permanent_only_when_sure() {
    use RecordType::MX;
    let said = |said| zone([(("d.example.", MX), said)]);
    check(
        said(Said::Records(vec![mx(0, ".")])),
        "d.example",
        Err("556 5.1.10"),
    )
    .await;
    check(
        said(Said::Records(vec![mx(0, "."), mx(10, "m.example.")])),
        "d.example",
        Ok(&["0 m.example"]),
    )
    .await;
    check(said(Said::NxDomain), "d.example", Err("550 5.1.2")).await;
    check(Zone::new(), "nowhere.example", Err("550 5.1.2")).await;
    check(
        said(Said::Code(ResponseCode::ServFail)),
        "d.example",
        Err("451 4.4.3"),
    )
    .await;
    check(
        said(Said::Code(ResponseCode::Refused)),
        "d.example",
        Err("451 4.4.3"),
    )
    .await;
    check(said(Said::Silence), "d.example", Err("451 4.4.3")).await;
}

#[tokio::test]
async fn literals_need_no_dns() {
    let (exchangers, server) = exchangers(Zone::new()).await;
    for (literal, address) in [
        ("[192.0.2.7]", "192.0.2.7:2525"),
        ("[IPv6:2001:db8::7]", "[2001:db8::7]:2525"),
    ] {
        let site = exchangers.site(&domain(literal)).await.unwrap();
        let found = exchangers
            .addresses(&site.exchangers[0].host)
            .await
            .unwrap();
        assert_eq!(found, [address.parse().unwrap()]);
    }
    assert!(server.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn addresses_of_an_exchanger() {
    use RecordType::{A, AAAA};
    let (exchangers, _server) = exchangers(zone([
        (("two.example.", A), Said::Records(vec![a(1), a(2)])),
        (("half.example.", A), Said::Records(vec![a(3)])),
        (("half.example.", AAAA), Said::Code(ResponseCode::ServFail)),
        (("unsure.example.", A), Said::NoData),
        (
            ("unsure.example.", AAAA),
            Said::Code(ResponseCode::ServFail),
        ),
        (("none.example.", A), Said::NoData),
    ]))
    .await;
    assert_eq!(exchangers.addresses("two.example").await.unwrap().len(), 2);
    assert_eq!(exchangers.addresses("half.example").await.unwrap().len(), 1);
    for (host, code) in [
        ("unsure.example", 451),
        ("none.example", 550),
        ("gone.example", 550),
    ] {
        assert_eq!(
            exchangers.addresses(host).await.unwrap_err().code,
            code,
            "{host}"
        );
    }
}

#[tokio::test]
async fn answers_are_kept_and_failures_are_not() {
    use RecordType::MX;
    let (exchangers, server) = exchangers(zone([
        (("d.example.", MX), Said::Records(vec![mx(1, "m.example.")])),
        (("bad.example.", MX), Said::Code(ResponseCode::ServFail)),
    ]))
    .await;
    let count = |name: &str| {
        let asked = server.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.starts_with(name)).count()
    };
    for _ in 0..5 {
        exchangers.site(&domain("d.example")).await.unwrap();
    }
    assert_eq!(count("d.example."), 1);
    exchangers.site(&domain("bad.example")).await.unwrap_err();
    let once = count("bad.example.");
    exchangers.site(&domain("bad.example")).await.unwrap_err();
    assert!(count("bad.example.") > once);
}

#[test]
fn domains_at_one_provider_are_one_site_and_equals_are_shuffled() {
    let site = |set: &[(u16, &str)]| Site::new(set.iter().map(|&(p, h)| (p, h.into())).collect());
    let one = site(&[(1, "a"), (5, "b"), (5, "c")]);
    assert_eq!(one, site(&[(20, "c"), (10, "a"), (20, "b"), (20, "b")]));
    assert_ne!(one, site(&[(10, "a"), (10, "b"), (10, "c")]));
    let mut seen = [0, 0];
    for _ in 0..200 {
        let order = one.shuffled();
        assert_eq!(order[0], "a");
        seen[usize::from(order[1] == "c")] += 1;
    }
    assert!(seen[0] > 50 && seen[1] > 50, "{seen:?}");
}

// === a real resolver ===

/// Unbound with local data, killed when dropped.
struct Unbound {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Unbound {
    fn start(data: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It takes a port by number only: one that was free a moment ago.
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let data: String = data
            .iter()
            .map(|d| format!("  local-data: \"{d}\"\n"))
            .collect();
        let text = format!(
            "server:\n  interface: 127.0.0.1@{}\n  access-control: 127.0.0.0/8 allow\n  chroot: \"\"\n  \
             username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  module-config: \"iterator\"\n  \
             num-threads: 1\n  local-zone: \".\" static\n{data}",
            address.port()
        );
        let file = folder.path().join("unbound.conf");
        std::fs::write(&file, text).unwrap();
        let program = match std::path::Path::new("/usr/sbin/unbound").exists() {
            true => "/usr/sbin/unbound",
            false => "unbound",
        };
        let child = Command::new(program)
            .arg("-d")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unbound is needed for this test: apt-get install unbound");
        Self {
            child,
            address,
            _folder: folder,
        }
    }
}

#[tokio::test]
async fn a_real_resolver_is_understood() {
    // A long answer is truncated and asked for again over TCP.
    let many: Vec<String> = (0..60)
        .map(|n| {
            format!("many.example. MX {n} a-rather-long-name-of-mail-exchanger-{n}.many.example.")
        })
        .collect();
    let mut data = vec![
        "d.example. MX 10 m1.example.",
        "d.example. MX 5 m2.example.",
        "m2.example. A 192.0.2.2",
        "m2.example. AAAA 2001:db8::2",
        "null.example. MX 0 .",
        "implicit.example. A 192.0.2.9",
    ];
    data.extend(many.iter().map(String::as_str));
    let mut unbound = Unbound::start(&data);
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    let patience = Duration::from_secs(1);
    let exchangers = Exchangers::patient(&[unbound.address], 25, patience).unwrap();
    // It is up when it answers.
    let site = loop {
        match exchangers.site(&domain("d.example")).await {
            Ok(site) => break site,
            Err(reply) => {
                assert!(
                    unbound.child.try_wait().unwrap().is_none(),
                    "unbound has ended"
                );
                assert!(tokio::time::Instant::now() < end, "{reply}");
            }
        }
    };
    assert_eq!(site.shuffled(), ["m2.example", "m1.example"]);
    let addresses = exchangers.addresses("m2.example").await.unwrap();
    assert_eq!(addresses.len(), 2);
    assert_eq!(
        exchangers
            .site(&domain("many.example"))
            .await
            .unwrap()
            .exchangers
            .len(),
        60
    );
    assert_eq!(
        exchangers
            .site(&domain("null.example"))
            .await
            .unwrap_err()
            .code,
        556
    );
    assert_eq!(
        exchangers
            .site(&domain("gone.example"))
            .await
            .unwrap_err()
            .code,
        550
    );
    let implicit = exchangers.site(&domain("implicit.example")).await.unwrap();
    assert_eq!(implicit.shuffled(), ["implicit.example"]);
}
