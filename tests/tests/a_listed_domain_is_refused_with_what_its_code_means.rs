//! Real lists of domains, served by rbldnsd: a sender, a HELO or a recipient whose domain is listed is refused at RCPT with the list's name
//! and what its answer means; a list that knows no test entry counts for nothing, and no answer is one of another list's.

use std::fs;

use end_to_end::{Harness, client, hurried, settings};
use local::daemons;
use local::process::Process;

const CONFIG: &str = "[dns]\nservers = ['DNS']\n[spf]\nenabled = false\n[screen]\naction = 'off'\n\
    [dnsbl]\nself_test_interval = '1s'\nskip_networks = []\n\
    [[dnsbl.lists]]\nzone = 'hosts.test'\nname = 'hosts'\n\
    texts = [{ codes = '127.0.0.[4..7]', text = 'an infected host' }]\n\
    [policy]\nskip_networks = []\nsender_unknown = 'off'\nclient_name = 'off'\n\
    [[policy.domain_lists]]\nzone = 'key.dbl.test'\nname = 'dbl'\ncodes = '127.0.1.[2..99]'\nabout = ['sender', 'helo']\n\
    texts = [{ codes = '127.0.1.4', text = 'phishing' }, { codes = '127.0.1.5', text = 'malware' }]\n\
    [[policy.domain_lists]]\nzone = 'closed.test'\nabout = ['recipient']\n\
    [[policy.domain_lists]]\nzone = 'untested.test'\nabout = ['sender']\n";

fn lists(harness: &Harness) -> Process {
    let soa = "$SOA 300 ns.test. hostmaster.test. 0 600 300 86400 300\n$NS 300 ns.test.\n";
    let dbl = format!(
        "{soa}:127.0.1.2:\ntest\n:127.0.1.4:\nphish.example\n:127.0.1.2:\nplain.example\n:127.0.2.2:\nother.example\n"
    );
    let closed = format!("{soa}:127.0.0.2:\ntest\nclosed.example\n");
    let untested = format!("{soa}:127.0.0.2:\nfine.example\n");
    let hosts = format!("{soa}:127.0.0.2:\n127.0.0.2\n:127.0.0.4:\n127.0.0.9\n");
    let zones = [
        ("dnset:key.dbl.test", &*dbl),
        ("dnset:closed.test", &*closed),
        ("dnset:untested.test", &*untested),
        ("hosts.test", &*hosts),
    ];
    let root = harness.site.root();
    daemons::rbldnsd(
        &root.join("rbldnsd"),
        &root.join("log/rbldnsd.log"),
        harness.site.address("dns"),
        &zones,
    )
    .unwrap_or_else(|error| panic!("{error}"))
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
    let mut harness = Harness::laid_out(hurried(settings()), true);
    let root = harness.site.root().to_owned();
    let known = "joe@open.example\njoe@closed.example\n";
    fs::write(root.join("recipients"), known).expect("a file");
    let _rbldnsd = lists(&harness);
    let config = CONFIG.replace("DNS", &harness.site.address("dns").to_string());
    harness.site.lay_over(
        "mx-edge",
        &format!(
            "[directory]\nservers = []\n[recipients]\nfiles = ['{}/recipients']\n\
             [next_hop]\nhosts = ['{}']\nprotocol = 'smtp'\ntrace = false\n{config}",
            root.display(),
            harness.site.address("sink")
        ),
    );
    harness.site.start_sink().expect("a next hop");
    harness.site.start("mx-edge").expect("the edge starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    let up = |list: &str| {
        let labels = format!("list=\"{list}\"");
        harness.metric("mx-edge", "mx_edge_dnsbl_list_up", &labels)
    };
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
