//! A list of clients and a list of domains, served by rbldnsd, begin to list clients that are known as good: soon they count for
//! nothing, that is told, and everybody is served again, though their self-tests pass all the while.

use std::fs;

use end_to_end::alone::edge_for;
use end_to_end::block_lists::{SOA, list_up as up, start_asking};
use end_to_end::{Harness, client};

const KNOWN: &str = "staff@old.example";
const CLIENTS: u8 = 14;
/// A list is looked at from ten known clients a minute on ...
const REFUSED_ANYWAY: usize = 10;
/// ... and left when it has a fifth of them.
const VISITS_A_REFUSAL: usize = 5;

const LISTS: &str = "[spf]\nenabled = false\n\
    [screen]\nwait = '200ms'\nwait_stressed = '200ms'\nskip_networks = []\n\
    [dnsbl]\nskip_networks = []\nself_test_interval = '1s'\nttl_min = '1s'\nttl_max = '1s'\n\
    [[dnsbl.lists]]\nzone = 'bl.test'\nname = 'bl'\n\
    [policy]\nskip_networks = []\nsender_unknown = 'off'\nsender_null_mx = 'off'\nclient_name = 'off'\n\
    [[policy.domain_lists]]\nzone = 'dbl.test'\nname = 'dbl'\ncodes = '127.0.1.2'\n";

fn addresses(more: &str) -> String {
    format!("{SOA}:127.0.0.2:listed\n127.0.0.2\n{more}\n")
}

fn domains(more: &str) -> String {
    format!("{SOA}:127.0.1.2:listed\nTEST\n{more}\n")
}

/// What is said to RCPT of each client, one after the other.
fn all_come(harness: &Harness) -> Vec<String> {
    let door = harness.site.address("mx-edge");
    let program = "import smtplib, sys\n\
        for number in range(1, int(sys.argv[4]) + 1):\n\
        \x20   client = smtplib.SMTP(sys.argv[1], int(sys.argv[2]), source_address=(f'127.0.7.{number}', 0), local_hostname='client.example')\n\
        \x20   client.ehlo()\n\
        \x20   client.mail('author@sender.example')\n\
        \x20   code, text = client.rcpt(sys.argv[3])\n\
        \x20   print(code, text.decode())\n\
        \x20   client.quit()\n";
    let (host, port) = (door.ip().to_string(), door.port().to_string());
    let said = client::python(program, &[&host, &port, KNOWN, &CLIENTS.to_string()]);
    said.lines().map(str::to_owned).collect()
}

/// Everybody comes until the list is left; how often somebody was refused, and how often somebody came.
fn until_left(harness: &Harness, list: &str) -> (usize, usize) {
    let (mut refused, mut visits) = (0, 0);
    harness.wait("the list is left", || {
        let said = all_come(harness);
        visits += said.len();
        let refusals = said.iter().filter(|line| line.starts_with("554"));
        refused += refusals.clone().count();
        let named = format!("listed by {list}");
        assert!(
            refusals.clone().all(|line| line.contains(&named)),
            "{said:?}"
        );
        (up(harness, list) == 0.0).then_some(())
    });
    (refused, visits)
}

#[test]
fn a_list_that_lists_good_clients_is_left() {
    let mut harness = edge_for(&[KNOWN], LISTS);
    let zones = harness.site.root().join("rbldnsd");
    let (none, nobody) = (addresses(""), domains(""));
    let served = [("bl.test", &*none), ("dnset:dbl.test", &*nobody)];
    let _rbldnsd = start_asking(&mut harness, &served);
    harness.wait("the self-tests pass", || {
        (up(&harness, "bl") == 1.0 && up(&harness, "dbl") == 1.0).then_some(())
    });
    let mut visits = 2 * usize::from(CLIENTS);
    let served = |said: &[String]| said.iter().all(|line| line.starts_with("250"));
    let said = all_come(&harness);
    assert!(served(&said), "{said:?}");

    for (list, zone, lines) in [
        ("bl", "bl.test", addresses("127.0.7.0/24")),
        ("dbl", "dbl.test", domains("sender.example")),
    ] {
        fs::write(zones.join(zone), lines).expect("a zone");
        let (refused, more) = until_left(&harness, list);
        visits += more;
        let most = REFUSED_ANYWAY.max(visits / VISITS_A_REFUSAL + 1);
        assert!(
            (1..=most).contains(&refused),
            "{list}: {refused} of {visits} were refused"
        );
        let said = all_come(&harness);
        assert!(served(&said), "{list}: {said:?}");
        assert_eq!(
            up(&harness, list),
            0.0,
            "its self-test does not end its rest"
        );
    }
    let log = harness.site.log("mx-edge");
    let told = log.matches("clients that are known as good").count();
    assert_eq!(told, 2, "{log}");
}
