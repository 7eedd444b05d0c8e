//! An edge that is taken out of service: it hands what it keeps to a sibling, over mutual TLS, each message once, although it is killed
//! in the middle; and says when it may go.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use mail::Timestamp;
use mail::trace::Custody;
use serde_json::Value;
use service::authority;
use service::tls::{Identity, Role};

use crate::client::{MESSAGE, send_from, try_connect};
use crate::edge::Site;
use crate::encrypted::files;
use crate::inside::{Got, Inside, Mode, PATIENCE, TOKEN};
use crate::killed::Program;

/// Messages that are handed over; so many that a kill comes in the middle.
const MESSAGES: usize = 120;

fn site(inside: &Inside, name: &str) -> Site {
    let mut site = Site::new(inside);
    site.config.name = name.into();
    site.config.handover.listen = vec!["127.0.0.1:0".parse().unwrap()];
    site
}

async fn json(program: &Program, words: &[&str]) -> Value {
    let words = [&["--json"], words].concat();
    let output = program.ask(&words).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Where it takes what siblings hand over.
async fn door(program: &Program) -> String {
    let status = json(program, &["status"]).await;
    status["listeners"]["handover"].as_str().unwrap().to_owned()
}

/// Asks again until an answer is right.
async fn wait(program: &Program, words: &[&str], right: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = json(program, words).await;
        if right(&answer) {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{words:?}: {answer}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Recipients of the tally that wait in one place.
fn waiting(tally: &Value, place: &str) -> u64 {
    let lines = tally.as_array().into_iter().flatten();
    let there = lines.filter(|line| line["destination"] == place);
    there.map(|line| line["recipients"].as_u64().unwrap()).sum()
}

/// Sends a message that is kept; its ident.
async fn keep(edge: SocketAddr, to: &str) -> String {
    let replies = send_from(edge, "ann@elsewhere.example", &[to], MESSAGE).await;
    let said = replies[0].to_string();
    let (_, ident) = said
        .split_once("kept as ")
        .unwrap_or_else(|| panic!("{said}"));
    ident.to_owned()
}

/// Those that the inside took, by ident.
fn taken(got: &[Got]) -> HashMap<String, Vec<&Got>> {
    let mut taken: HashMap<String, Vec<&Got>> = HashMap::new();
    for got in got.iter().filter(|got| got.replies.contains(&250)) {
        taken.entry(got.ident()).or_default().push(got);
    }
    taken
}

#[tokio::test]
async fn a_drained_edge_hands_over_all_it_keeps_and_each_message_arrives_once() {
    let ca = tempfile::tempdir().unwrap();
    authority::init(ca.path()).unwrap();
    let scanner = Identity::load(&files(ca.path(), "scan-1", Role::Scanner)).unwrap();
    let inside = Inside::start_tls(&scanner).await;
    let sites = ["mx1", "mx2"].map(|name| {
        let mut site = site(&inside, name);
        site.config.inside = Some(files(ca.path(), name, Role::MxEdge));
        // So that all waits until it is handed over.
        site.config.forward.retry_first = Duration::from_secs(60);
        site.config.forward.retry_longest = Duration::from_secs(60);
        site
    });
    let mut programs = sites.each_ref().map(Program::new);
    let logs = sites.each_ref().map(|site| site.folder().join("log"));
    let edge = programs[0].start(&logs[0]).await;
    let began = Timestamp::now();

    // What the inside refused after it was kept, what was scanned for a list host that is away, and what nobody has seen yet.
    inside.set(Mode::Down);
    keep(edge, "spam@a.example").await;
    inside.set(Mode::Refusing);
    programs[0].ask(&["queue", "retry"]).await;
    wait(&programs[0], &["queue", "tally"], |tally| {
        waiting(tally, "route held") == 1
    })
    .await;
    inside.set(Mode::Deferring);
    let mut idents = vec![keep(edge, "scanned@a.example").await];
    inside.set(Mode::Down);
    for number in 0..MESSAGES {
        idents.push(keep(edge, &format!("u{number}@a.example")).await);
    }
    let kept = Timestamp::now();

    programs[1].start(&logs[1]).await;
    let sibling = door(&programs[1]).await;
    let begun = programs[0]
        .ask(&["drain", "--no-wait", "--to", &sibling])
        .await;
    assert!(begun.status.success(), "{begun:?}");
    let some = |tally: &Value| waiting(tally, "inside") > 5;
    wait(&programs[1], &["queue", "tally"], some).await;
    programs[0].kill().await;
    // The drain goes on by itself, and takes no mail.
    let edge = programs[0].start_drained(&logs[0]).await;
    assert!(try_connect(edge).await.is_err(), "new mail is not taken");
    let none = |tally: &Value| tally.as_array().is_some_and(Vec::is_empty);
    wait(&programs[0], &["queue", "tally"], none).await;
    let drain = ["drain", "--to", &sibling];
    let over = tokio::time::timeout(PATIENCE, programs[0].ask(&drain)).await;
    let over = over.unwrap();
    let said = String::from_utf8_lossy(&over.stdout);
    assert!(over.status.success(), "{over:?}");
    assert_eq!(
        said.lines().last(),
        Some("empty: safe to destroy"),
        "{said}"
    );
    let account = programs[0].ask(&["reconcile"]).await;
    assert!(account.status.success(), "{account:?}");
    programs[0].kill().await;

    let tally = json(&programs[1], &["queue", "tally"]).await;
    assert_eq!(waiting(&tally, "route held"), 1, "{tally}");
    assert_eq!(waiting(&tally, "route list"), 1, "{tally}");
    inside.set(Mode::Listening);
    programs[1].ask(&["queue", "retry"]).await;
    let all = |got: &[Got]| idents.iter().all(|ident| taken(got).contains_key(ident));
    let got = inside.wait(all).await;
    let empty = |tally: &Value| waiting(tally, "inside") + waiting(tally, "route list") == 0;
    wait(&programs[1], &["queue", "tally"], empty).await;
    let taken = taken(&got);
    assert_eq!(taken.len(), idents.len(), "nothing else arrives");
    for (ident, copies) in &taken {
        assert_eq!(copies.len(), 1, "{ident} arrives once");
        let trace = copies[0].trace.as_ref().unwrap();
        assert_eq!(trace.custody, Custody::Spooled);
        assert!(
            (began..=kept).contains(&trace.arrival),
            "arrived at the first edge"
        );
        assert_eq!(trace.helo.as_ref(), "client.elsewhere.example");
        let forward_path = &copies[0].envelope.recipients[0].address;
        let token = (forward_path.local() == "scanned").then_some(TOKEN);
        assert_eq!(trace.verdict.as_deref(), token);
    }
    let account = programs[1].ask(&["reconcile"]).await;
    assert!(account.status.success(), "{account:?}");
    programs[1].kill().await;
}

#[tokio::test]
async fn nobody_is_handed_mail_who_cannot_take_it() {
    let inside = Inside::start(Mode::Down).await;
    let sites = ["mx1", "mx2"].map(|name| site(&inside, name));
    let mut programs = sites.each_ref().map(Program::new);
    let edge = programs[0].start(&sites[0].folder().join("log")).await;
    keep(edge, "joe@b.example").await;
    for (to, why) in [
        ("192.0.2.1:10028", "in plain"),
        ("mx2.example", "HOST:PORT"),
    ] {
        let refused = programs[0].ask(&["drain", "--to", to]).await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains(why),
            "{to}: {said}"
        );
    }
    programs[1].start(&sites[1].folder().join("log")).await;
    let sibling = door(&programs[1]).await;
    // Two that are drained do not hand mail to and fro.
    let drained = programs[1].ask(&["drain"]).await;
    assert!(String::from_utf8_lossy(&drained.stdout).contains("safe to destroy"));
    let begun = programs[0]
        .ask(&["drain", "--no-wait", "--to", &sibling])
        .await;
    assert!(begun.status.success(), "{begun:?}");
    let told = |status: &Value| {
        let trouble = status["program"]["handover"]["trouble"].as_str();
        trouble.is_some_and(|trouble| trouble.contains("being drained itself"))
    };
    wait(&programs[0], &["status"], told).await;
    assert!(programs[1].ask(&["undrain"]).await.status.success());
    let over = programs[0].ask(&["drain", "--to", &sibling]).await;
    let said = String::from_utf8_lossy(&over.stdout);
    assert!(said.contains("empty: safe to destroy"), "{over:?}");
    for program in &mut programs {
        program.kill().await;
    }
}
