//! The community's own cases for RFC 7208, read out of pyspf's source distribution where `make test` has put it: each is asked of our
//! checker through a real name server that has the case's zone, and each result is the suite's. What never comes to a check stands in
//! a table, with why; the table is held too. Explanations (6.2) are not compared: we ask for none, a stranger's text does not go into our replies.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::TXT;
use mail::ReversePath;
use mail::trace::Spf;
use mx_edge::spf::{Checker, label};
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::dns::{Dns, Said, Script, record};

/// Where `deploy/local/install test` puts it, in the workspace.
const ARCHIVE: &str = "../target/suites/pyspf-2.0.14.tar.gz";
const CASES: usize = 203;

/// Cases that never come to a check, since MAIL answers 501 to their reverse-path (RFC 5321 4.1.2).
const REFUSED_AT_MAIL: [(&str, &str); 4] = [
    (
        "dorky-sentinel",
        "a space in a local part that is not quoted",
    ),
    ("emptylabel", "a label of no octets (RFC 1035 2.3.4)"),
    ("nolocalpart", "no local part"),
    ("toolonglabel", "a label of 64 octets (RFC 1035 2.3.4)"),
];

/// Prints the documents of a YAML file in an archive as JSON.
const READ: &str = "\
import json, sys, tarfile, yaml
with tarfile.open(sys.argv[1]) as archive:
    [name] = [name for name in archive.getnames() if name.endswith(sys.argv[2])]
    documents = yaml.safe_load_all(archive.extractfile(name))
    json.dump([document for document in documents if document], sys.stdout)
";

#[derive(Deserialize)]
struct Scenario {
    tests: BTreeMap<String, Case>,
    /// By name what it has: `{type: data}`, or the word TIMEOUT for all types that it has not.
    zonedata: BTreeMap<String, Vec<Value>>,
}

#[derive(Clone, Deserialize)]
struct Case {
    helo: String,
    host: IpAddr,
    mailfrom: String,
    /// One, or several of which each will do.
    result: Value,
}

impl Case {
    fn wants(&self, found: Spf) -> bool {
        match &self.result {
            Value::Array(any) => any.iter().any(|one| one == label(found)),
            one => one == label(found),
        }
    }
}

/// None where the suite is not: then the test says so.
fn scenarios() -> Option<Vec<Scenario>> {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(ARCHIVE);
    if !archive.exists() {
        eprintln!(
            "SKIPPED: {} is not there; deploy/local/install test fetches it",
            archive.display()
        );
        return None;
    }
    // Debian's own, which has the package python3-yaml.
    let mut read = Command::new("/usr/bin/python3");
    let read = read
        .args(["-c", READ])
        .arg(&archive)
        .arg("/rfc7208-tests.yml")
        .output();
    let read = read.expect("deploy/local/install test installs python3");
    assert!(
        read.status.success(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    Some(serde_json::from_slice(&read.stdout).unwrap())
}

/// The suite is older than the end of type 99: what it calls SPF is TXT too, unless the name says itself what its TXT is.
fn script(zone: &BTreeMap<String, Vec<Value>>) -> Script {
    let mut script = Script::new();
    for (name, records) in zone {
        let own = records.iter().any(|record| record.get("TXT").is_some());
        let said = script.entry(name.to_lowercase()).or_default();
        let fields = records.iter().map(|record| record.as_object());
        for (kind, data) in fields.clone().flatten().flatten() {
            match (kind.as_str(), data) {
                (_, data) if data == "TIMEOUT" => said.push(Said::Otherwise),
                (_, data) if data == "NONE" => {}
                ("SPF", _) if own => {}
                ("SPF" | "TXT", data) => said.push(Said::Record(text(data))),
                ("MX", data) => {
                    let data = format!("{} {}", data[0], data[1].as_str().unwrap());
                    said.push(Said::Record(record("MX", &data)));
                }
                (kind, data) => said.push(Said::Record(record(kind, data.as_str().unwrap()))),
            }
        }
        if fields.clone().any(|fields| fields.is_none()) {
            said.push(Said::Otherwise);
        }
    }
    script
}

/// One string or several. None at all, which the suite tries, is none in the DNS either: an empty one stands for it.
fn text(data: &Value) -> RData {
    let strings: Vec<&str> = match data {
        Value::Array(strings) => strings.iter().map(|one| one.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    };
    let strings = if strings.is_empty() {
        vec![""]
    } else {
        strings
    };
    RData::TXT(TXT::from_bytes(
        strings.iter().map(|one| one.as_bytes()).collect(),
    ))
}

#[tokio::test]
async fn a_sender_policy_means_what_its_authors_say() {
    let Some(scenarios) = scenarios() else {
        return;
    };
    let mut checks = JoinSet::new();
    let (mut servers, mut refused) = (Vec::new(), Vec::new());
    for scenario in scenarios {
        let dns = Dns::start(script(&scenario.zonedata)).await;
        let (query, whole) = (Duration::from_secs(1), Duration::from_secs(30));
        let checker = Checker::new(&[dns.address], query, whole).unwrap();
        servers.push(dns);
        for (name, case) in scenario.tests {
            let Ok(reverse_path) = ReversePath::parse(&case.mailfrom) else {
                refused.push(name);
                continue;
            };
            let check = checker.start(case.host, &case.helo, &reverse_path);
            checks.spawn(async move { (name, case, check.result().await) });
        }
    }
    refused.sort();
    assert_eq!(refused, REFUSED_AT_MAIL.map(|(name, _)| name));
    let checked = checks.join_all().await;
    assert_eq!(checked.len() + refused.len(), CASES);
    let wrong = checked
        .iter()
        .filter(|(_, case, found)| !case.wants(*found));
    let wrong: Vec<String> = wrong
        .map(|(name, case, found)| format!("{name}: {}, not {}", label(*found), case.result))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
