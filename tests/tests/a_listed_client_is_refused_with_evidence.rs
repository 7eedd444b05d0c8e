//! Real lists, served by rbldnsd: a client on enough of them is refused at RCPT with their names, never their zones; postmaster hears
//! from it all the same; lists that are empty, list the world, or answer errors count for nothing; nobody is asked about a client
//! whose recipients do not exist.

use end_to_end::alone::edge_for;
use end_to_end::block_lists::{SOA, list_up, start_asking};
use end_to_end::{Harness, client};
use local::process::Process;

const KNOWN: &str = "staff@old.example";
const ROLE: &str = "postmaster@old.example";
const UNKNOWN: &str = "nobody@old.example";

/// On both lists that count.
const TWICE: &str = "127.0.0.9";
/// On one of them, and there excluded from the other.
const ONCE: &str = "127.0.0.10";
/// On none but those that lie.
const NOWHERE: &str = "127.0.0.11";
/// On both, and vouched for.
const VOUCHED: &str = "127.0.0.12";

const LISTS: &str = "[spf]\nenabled = false\n[dnsbl]\nthreshold = 3\nallow_threshold = -1\nskip_networks = []\n\
    self_test_interval = '1s'\n\
    [[dnsbl.lists]]\nzone = 'secret-key.first.test'\nname = 'first'\ncodes = '127.0.0.[2..11]'\nweight = 2\n\
    [[dnsbl.lists]]\nzone = 'second.test'\nweight = 1\n\
    [[dnsbl.lists]]\nzone = 'good.test'\ncodes = '127.0.[0..255].[1..3]'\nweight = -5\n\
    [[dnsbl.lists]]\nzone = 'empty.test'\nweight = 9\n\
    [[dnsbl.lists]]\nzone = 'world.test'\nweight = 9\n\
    [[dnsbl.lists]]\nzone = 'refuses.test'\ncodes = '127.[0..255].[0..255].[0..255]'\nweight = 9\n";

fn start(harness: &mut Harness) -> Process {
    let zone = |lines: &str| format!("{SOA}{lines}");
    let listed = |more: &str| zone(&format!(":127.0.0.4:listed\n127.0.0.2\n{more}\n"));
    let zones = [
        (
            "secret-key.first.test",
            listed(&format!("{TWICE}\n{ONCE}\n{VOUCHED}")),
        ),
        ("second.test", listed(&format!("{TWICE}\n{VOUCHED}"))),
        (
            "good.test",
            zone(&format!(":127.0.10.2:good\n127.0.0.2\n{VOUCHED}\n")),
        ),
        ("empty.test", zone("")),
        ("world.test", zone(":127.0.0.2:all\n127.0.0.0/8\n")),
        (
            "refuses.test",
            zone(":127.255.255.254:open resolver\n127.0.0.0/8\n"),
        ),
    ];
    let zones: Vec<(&str, &str)> = zones.iter().map(|(name, text)| (*name, &**text)).collect();
    start_asking(harness, &zones)
}

/// What is said to RCPT of a client at this address.
fn rcpt(harness: &Harness, from: &str, to: &str) -> String {
    let door = harness.site.address("mx-edge");
    let program = "import smtplib, sys\n\
        client = smtplib.SMTP(sys.argv[1], int(sys.argv[2]), source_address=(sys.argv[3], 0), local_hostname='client.example')\n\
        client.ehlo()\n\
        client.mail('author@sender.example')\n\
        code, text = client.rcpt(sys.argv[4])\n\
        print(code, text.decode())\n\
        client.quit()\n";
    let (host, port) = (door.ip().to_string(), door.port().to_string());
    client::python(program, &[&host, &port, from, to])
}

#[test]
fn a_listed_client_is_refused_with_evidence() {
    let mut harness = edge_for(&[KNOWN], LISTS);
    harness.site.start_sink().expect("a next hop");
    let _rbldnsd = start(&mut harness);
    let up = |list: &str| list_up(&harness, list);
    harness.wait("the self-tests pass", || {
        ["first", "second.test", "good.test"]
            .iter()
            .all(|list| up(list) == 1.0)
            .then_some(())
    });

    assert!(rcpt(&harness, TWICE, UNKNOWN).starts_with("550 5.1.1"));
    let asked = || harness.metric("mx-edge", "mx_edge_dnsbl_answers_total", "");
    let before = harness.metric("mx-edge", "mx_edge_dnsbl_clients_total", "");
    assert_eq!(before, 0.0, "an unknown recipient costs no query");

    let refused = rcpt(&harness, TWICE, KNOWN);
    assert!(refused.starts_with("554 5.7.1"), "{refused}");
    assert!(
        refused.contains("listed by first, second.test") && !refused.contains("secret-key"),
        "{refused}"
    );
    for (from, to) in [
        (TWICE, ROLE),
        (ONCE, KNOWN),
        (NOWHERE, KNOWN),
        (VOUCHED, KNOWN),
    ] {
        let said = rcpt(&harness, from, to);
        assert!(said.starts_with("250"), "{from} to {to}: {said}");
    }
    for liar in ["empty.test", "world.test", "refuses.test"] {
        assert_eq!(up(liar), 0.0, "{liar}");
    }
    let log = harness.site.log("mx-edge");
    for why in ["not listed", "lists the world", "which is an error"] {
        assert!(log.contains(why), "{why}:\n{log}");
    }
    assert!(!log.contains("secret-key"), "{log}");
    let clients = |outcome: &str| {
        let labels = format!("outcome=\"{outcome}\"");
        harness.metric("mx-edge", "mx_edge_dnsbl_clients_total", &labels)
    };
    assert_eq!(
        (clients("listed"), clients("neutral"), clients("allowed")),
        (1.0, 2.0, 1.0),
        "{}",
        asked()
    );
}
