//! IPv6 at a running edge: the access list, rates by /64, a real list (rbldnsd) asked nibble by nibble, and the Received field. Loopback
//! has one address there; a trusted host names the others by XCLIENT.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mx_edge::config::{Action, DnsList};
use tokio::net::TcpStream;

use crate::edge::{Edge, Site};
use crate::inside::{Inside, Mode};
use crate::raw::{RCPT, Raw, starts};

/// Listed, and what it is listed with.
const BAD: &str = "2001:db8:bad::7";
const ZONE: &str = "v6.test";

struct Rbldnsd(Child);

impl Drop for Rbldnsd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One zone of both families, at an address that the system chose.
fn rbldnsd(folder: &Path) -> (Rbldnsd, SocketAddr) {
    // It refuses to serve as root, and reads as nobody.
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.parent().unwrap(), open.clone()).unwrap();
    std::fs::create_dir(folder).unwrap();
    std::fs::set_permissions(folder, open).unwrap();
    std::fs::write(folder.join("v4"), ":127.0.0.2:listed\n127.0.0.2\n").unwrap();
    std::fs::write(folder.join("v6"), ":127.0.0.2:listed\n2001:db8:bad::/48\n").unwrap();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut command = Command::new("rbldnsd");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin"));
    command.args(["-n", "-q", "-w"]).arg(folder);
    command.args(["-b", &format!("{}/{}", address.ip(), address.port())]);
    if rustix::process::getuid().is_root() {
        command.args(["-u", "nobody"]);
    }
    command.arg(format!("{ZONE}:ip4set:v4"));
    command.arg(format!("{ZONE}:ip6trie:v6"));
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    (Rbldnsd(child), address)
}

/// A session of the client with this address.
async fn named(edge: &Edge, client: &str) -> Raw {
    let mut raw = Raw(TcpStream::connect(edge.address).await.unwrap());
    starts(&raw.hear().await, "220 ");
    raw.say("EHLO proxy.example").await;
    let said = raw.say(&format!("XCLIENT ADDR=IPV6:{client}")).await;
    starts(&said, "220 ");
    raw
}

fn site(inside: &Inside, list: &str) -> Site {
    let mut site = Site::new(inside);
    let file = site.folder().join("access");
    std::fs::write(&file, list).unwrap();
    site.config.access.files = vec![file];
    site.config.mail.listen = vec!["[::1]:0".parse().unwrap()];
    site.config.policy.sender_unknown = Action::Off;
    site
}

#[tokio::test]
async fn the_access_list_has_addresses_of_both_families() {
    let inside = Inside::start(Mode::Listening).await;
    let edge = site(&inside, "127.0.0.0/8 permit\n::1 drop not from here\n")
        .start()
        .await;
    let mut raw = Raw(TcpStream::connect(edge.address).await.unwrap());
    let reply = raw.hear().await;
    starts(&reply, "521 5.3.2 ");
    assert!(reply.contains("not from here"), "{reply}");
    edge.stop().await;
}

#[tokio::test]
async fn a_host_is_its_64_and_a_list_is_asked_by_the_nibble() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = site(&inside, "2001:db8:acce::/48 reject no thanks\n");
    let (_rbldnsd, dns) = rbldnsd(&site.folder().join("zones"));
    let config = &mut site.config;
    config.dns.servers = vec![dns];
    config.mail.xclient_networks = vec!["::1".parse().unwrap()];
    config.rates.limits = vec!["1 messages a minute".parse().unwrap()];
    config.dnsbl.lists = vec![DnsList {
        zone: ZONE.into(),
        name: "six".into(),
        codes: "127.0.0.2".parse().unwrap(),
        weight: 1,
        self_test: true,
        texts: Default::default(),
    }];
    config.dnsbl.self_test_interval = std::time::Duration::from_secs(1);
    let edge = site.start().await;
    edge.wait_metric("mx_edge_dnsbl_list_up", "six", 1.0).await;

    let mut rejected = named(&edge, "2001:db8:acce::1").await;
    starts(&rejected.begin().await, "250 ");
    let reply = rejected.say(RCPT).await;
    starts(&reply, "554 5.7.1 ");
    assert!(reply.contains("no thanks"), "{reply}");

    // The same /64 is the same host, the next one is not.
    for (client, expected) in [
        ("2001:db8:1:1::1", "250 "),
        ("2001:db8:1:1:ffff::2", "450 4.7.1 "),
        ("2001:db8:1:2::1", "250 "),
    ] {
        starts(&named(&edge, client).await.begin().await, expected);
    }

    let mut bad = named(&edge, BAD).await;
    starts(&bad.begin().await, "250 ");
    let reply = bad.say(RCPT).await;
    starts(&reply, "554 5.7.1 ");
    assert!(reply.contains("listed by six"), "{reply}");
    let mut good = named(&edge, "2001:db8:900d::7").await;
    starts(&good.begin().await, "250 ");
    starts(&good.say(RCPT).await, "250 ");
    starts(&good.say("DATA").await, "354");
    starts(&good.say("Subject: x\r\n\r\n.").await, "250 ");
    let got = inside.wait_for(1).await;
    let text = String::from_utf8_lossy(&got[0].message).into_owned();
    assert!(text.contains("([IPv6:2001:db8:900d::7])"), "{text}");

    let known = edge.running.controls.edge.tops.with(|top| top.shown());
    let refused = known["refused_clients"].to_string();
    assert!(refused.contains("2001:db8:bad::/64"), "{refused}");
    assert_eq!(edge.address.ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
    // Two are within a transaction, which a stop would wait for.
    drop((rejected, bad, good));
    edge.stop().await;
}
