//! SPF as evidence: the result is in the trace, nobody waits longer than its deadline, and an unknown recipient costs no query.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mail::trace::Spf;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use crate::client::{MESSAGE, codes, send_from};
use crate::edge::Site;
use crate::inside::{Inside, Mode};

/// A name server with TXT records and nothing else; it is silent about names that begin with `silent`.
struct Dns {
    address: SocketAddr,
    queries: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Dns {
    async fn start(records: &[(&str, &str)]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&queries);
        let records: HashMap<String, String> = records
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (count, peer) = socket.recv_from(&mut buffer).await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer(&buffer[..count], &records) {
                    socket.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        Self {
            address,
            queries,
            task: task.abort_handle(),
        }
    }
}

/// The answer to one question (RFC 1035 4.1): its TXT record, or NXDOMAIN.
fn answer(query: &[u8], records: &HashMap<String, String>) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).to_lowercase());
        at += length + 1;
    }
    let question = &query[12..at + 5];
    let name = labels.join(".");
    if name.starts_with("silent") {
        return None;
    }
    let found = records
        .get(&name)
        .filter(|_| question.ends_with(&[0, 16, 0, 1]));
    let mut answer = query[..2].to_vec();
    let (code, count) = if found.is_some() {
        (0x80, 1)
    } else {
        (0x83, 0)
    };
    answer.extend([0x85, code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(question);
    if let Some(text) = found {
        answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
        answer.extend((text.len() as u16 + 1).to_be_bytes());
        answer.push(text.len() as u8);
        answer.extend(text.bytes());
    }
    Some(answer)
}

#[tokio::test]
async fn the_result_is_evidence_for_the_inside() {
    let dns = Dns::start(&[
        ("good.example", "v=spf1 ip4:127.0.0.1 -all"),
        ("bad.example", "v=spf1 -all"),
        ("soft.example", "v=spf1 ~all"),
        ("broken.example", "v=spf1 redirect=none.example"),
        ("client.elsewhere.example", "v=spf1 ip4:127.0.0.1 -all"),
    ])
    .await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.spf.enabled = true;
    site.config.spf.skip_networks.clear();
    site.config.spf.deadline = Duration::from_millis(500);
    site.config.dns.servers = vec![dns.address];
    let edge = site.start().await;

    for (from, expected) in [
        ("ann@good.example", Spf::Pass),
        ("ann@bad.example", Spf::Fail),
        ("ann@soft.example", Spf::SoftFail),
        ("ann@broken.example", Spf::PermError),
        ("ann@none.example", Spf::None),
        ("ann@silent.example", Spf::TempError),
        ("", Spf::Pass),
    ] {
        let replies = send_from(edge.address, from, &["joe@b.example"], MESSAGE).await;
        assert_eq!(codes(&replies), ["250 2.0.0"], "{from}");
        let got = inside.got();
        assert_eq!(
            got.last().unwrap().trace.as_ref().unwrap().spf,
            expected,
            "{from}"
        );
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_unknown_recipient_costs_no_dns() {
    let dns = Dns::start(&[("good.example", "v=spf1 ip4:127.0.0.1 -all")]).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.spf.enabled = true;
    site.config.spf.skip_networks.clear();
    site.config.dns.servers = vec![dns.address];
    let edge = site.start().await;
    for to in ["nobody@b.example", "joe@relay.example"] {
        send_from(edge.address, "ann@good.example", &[to], MESSAGE).await;
    }
    assert_eq!(dns.queries.load(Ordering::Relaxed), 0);
    send_from(
        edge.address,
        "ann@good.example",
        &["joe@b.example"],
        MESSAGE,
    )
    .await;
    assert_ne!(dns.queries.load(Ordering::Relaxed), 0);
    edge.stop().await;
}
