//! Real lists of domains, served by rbldnsd: a sender, a HELO or a recipient whose domain is listed is refused at RCPT with the list's name
//! and what its answer means; a list that knows no test entry counts for nothing, and no answer is one of another list's.

use end_to_end::alone::edge_for;
use end_to_end::block_lists::{SOA, list_up, start_asking};
use end_to_end::{Harness, client};
use local::process::Process;

const CONFIG: &str = "[spf]\nenabled = false\n[screen]\naction = 'off'\n\
    [dnsbl]\nself_test_interval = '1s'\nskip_networks = []\n\
    [[dnsbl.lists]]\nzone = 'hosts.test'\nname = 'hosts'\n\
    texts = [{ codes = '127.0.0.[4..7]', text = 'an infected host' }]\n\
    [policy]\nskip_networks = []\nsender_unknown = 'off'\nclient_name = 'off'\n\
    [[policy.domain_lists]]\nzone = 'key.dbl.test'\nname = 'dbl'\ncodes = '127.0.1.[2..99]'\nabout = ['sender', 'helo']\n\
    texts = [{ codes = '127.0.1.4', text = 'phishing' }, { codes = '127.0.1.5', text = 'malware' }]\n\
    [[policy.domain_lists]]\nzone = 'closed.test'\nabout = ['recipient']\n\
    [[policy.domain_lists]]\nzone = 'untested.test'\nabout = ['sender']\n";

fn start(harness: &mut Harness) -> Process {
    let dbl = format!(
        "{SOA}:127.0.1.2:\ntest\n:127.0.1.4:\nphish.example\n:127.0.1.2:\nplain.example\n:127.0.2.2:\nother.example\n"
    );
    let closed = format!("{SOA}:127.0.0.2:\ntest\nclosed.example\n");
    let untested = format!("{SOA}:127.0.0.2:\nfine.example\n");
    let hosts = format!("{SOA}:127.0.0.2:\n127.0.0.2\n:127.0.0.4:\n127.0.0.9\n");
    let zones = [
        ("dnset:key.dbl.test", &*dbl),
        ("dnset:closed.test", &*closed),
        ("dnset:untested.test", &*untested),
        ("hosts.test", &*hosts),
    ];
    start_asking(harness, &zones)
}

/// What is said to RCPT.
fn rcpt(harness: &Harness, source: &str, helo: &str, from: &str, to: &str) -> String {
    let door = harness.site.address("mx-edge");
    let program = "import smtplib, sys\n\
        client = smtplib.SMTP(sys.argv[1], int(sys.argv[2]), source_address=(sys.argv[3], 0), local_hostname=sys.argv[4])\n\
        client.ehlo()\n\
        client.mail(sys.argv[5])\n\
        code, text = client.rcpt(sys.argv[6])\n\
        print(code, text.decode())\n\
        client.quit()\n";
    let (host, port) = (door.ip().to_string(), door.port().to_string());
    client::python(program, &[&host, &port, source, helo, from, to])
}

#[test]
fn a_listed_domain_is_refused_with_what_its_code_means() {
    let mut harness = edge_for(&["joe@open.example", "joe@closed.example"], CONFIG);
    harness.site.start_sink().expect("a next hop");
    let _rbldnsd = start(&mut harness);
    let up = |list: &str| list_up(&harness, list);
    harness.wait("the self-tests pass", || {
        let all = ["dbl", "closed.test", "hosts"].iter();
        all.clone().all(|list| up(list) == 1.0).then_some(())
    });
    let (mail, good) = ("mail.fine.example", "ann@fine.example");
    for (source, helo, from, to, expected) in [
        ("127.0.0.1", mail, good, "joe@open.example", "250"),
        (
            "127.0.0.1",
            mail,
            "ann@phish.example",
            "joe@open.example",
            "phish.example is listed by dbl (phishing)",
        ),
        (
            "127.0.0.1",
            mail,
            "ann@plain.example",
            "joe@open.example",
            "plain.example is listed by dbl [",
        ),
        (
            "127.0.0.1",
            "phish.example",
            good,
            "joe@open.example",
            "phish.example is listed by dbl (phishing)",
        ),
        // An answer that this list does not count.
        (
            "127.0.0.1",
            mail,
            "ann@other.example",
            "joe@open.example",
            "250",
        ),
        (
            "127.0.0.1",
            mail,
            good,
            "joe@closed.example",
            "closed.example is listed by closed.test",
        ),
        (
            "127.0.0.1",
            mail,
            "ann@closed.example",
            "joe@open.example",
            "250",
        ),
        (
            "127.0.0.1",
            mail,
            "ann@phish.example",
            "postmaster@open.example",
            "250",
        ),
        (
            "127.0.0.9",
            mail,
            good,
            "joe@open.example",
            "listed by hosts (an infected host)",
        ),
    ] {
        let said = rcpt(&harness, source, helo, from, to);
        let refused = said.starts_with("554 5.7.1");
        assert_eq!(
            refused,
            expected != "250",
            "{source} {helo} {from} {to}: {said}"
        );
        assert!(
            said.contains(expected),
            "{source} {helo} {from} {to}: {said}"
        );
        assert!(!said.contains("key."), "{said}");
    }
    assert_eq!(up("untested.test"), 0.0);
    let listed = harness.metric(
        "mx-edge",
        "mx_edge_recipients_total",
        "reason=\"domain_listed\"",
    );
    assert_eq!(listed, 4.0);
}
