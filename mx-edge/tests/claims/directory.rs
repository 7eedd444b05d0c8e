//! The directory that listserv publishes, pulled from a scripted list host: nobody is unknown before it came; a version that shrank,
//! went back or came from elsewhere waits for an operator; an answer that is none changes nothing; changes come as changes.

use std::net::SocketAddr;
use std::time::Duration;

use mail::Timestamp;
use mail::directory::Whole;
use service::shutdown::Shutdown;
use service::signing::Signer;

use crate::client::{codes, send};
use crate::edge::{Edge, Site, until};
use crate::inside::{Inside, Mode};
use crate::list_host::{ListHost, Told, delta, dying_host, free_address, signer, told, whole};

/// An edge that knows recipients from these list hosts alone, by the public key of `signer(1)`.
async fn site(inside: &Inside, hosts: &[SocketAddr]) -> Site {
    let mut site = Site::new(inside);
    let key = site.folder().join("directory.pub");
    std::fs::write(&key, &signer(1).public()[0]).unwrap();
    site.config.recipients.files.clear();
    let directory = &mut site.config.directory;
    directory.public_key_files = vec![key];
    directory.servers = hosts.to_vec();
    directory.wait = Duration::from_secs(2);
    directory.pause_max = Duration::from_millis(50);
    site
}

async fn reply(edge: &Edge, to: &str) -> String {
    codes(&send(edge.address, &[to]).await).remove(0)
}

fn source(edge: &Edge) -> &mx_edge::recipients::source::Source {
    &edge.running.controls.edge.recipients.sources()[0]
}

async fn wait_version(edge: &Edge, serial: u64) {
    let wanted = format!(".{serial}");
    let version = || source(edge).summary().version;
    until(
        || version().ends_with(&wanted),
        || format!("version {}", version()),
    )
    .await;
}

async fn wait_held_back(edge: &Edge, cause: &str) {
    let blocked = || source(edge).summary().blocked.map(|blocked| blocked.cause);
    until(|| blocked() == Some(cause), || format!("{:?}", blocked())).await;
}

/// u0 to u99 are known, and nobody else.
async fn check_hundred(edge: &Edge) {
    assert_eq!(reply(edge, "u99@lists.example").await, "250 2.0.0");
    assert_eq!(reply(edge, "u100@lists.example").await, "550 5.1.1");
}

#[tokio::test]
async fn an_empty_directory_refuses_nobody() {
    let inside = Inside::start(Mode::Listening).await;
    let stop = Shutdown::new();
    let host = ListHost::start(Told::Broken(503, Vec::new()), &stop).await;
    let site = site(&inside, &[host.address]).await;

    // Never loaded: nobody is unknown, and the edge is not ready.
    let edge = site.start().await;
    assert_eq!(reply(&edge, "dev@lists.example").await, "451 4.3.0");
    assert_eq!(reply(&edge, "joe@relay.example").await, "451 4.3.0");
    assert!(edge.readiness.reason().unwrap().contains("never loaded"));

    // Loaded.
    host.publish.send_replace(told(1, 1, 1000));
    wait_version(&edge, 1).await;
    until(
        || edge.readiness.reason().is_none(),
        || edge.readiness.reason().unwrap_or_default(),
    )
    .await;
    assert_eq!(
        reply(&edge, "dev-subscribe@lists.example").await,
        "250 2.0.0"
    );
    assert_eq!(reply(&edge, "u999@lists.example").await, "250 2.0.0");
    assert_eq!(reply(&edge, "u1000@lists.example").await, "550 5.1.1");
    assert_eq!(reply(&edge, "joe@relay.example").await, "554 5.7.1");

    // A shrunken one is not applied.
    host.publish.send_replace(told(1, 2, 900));
    wait_held_back(&edge, "shrunken").await;
    assert_eq!(reply(&edge, "u999@lists.example").await, "250 2.0.0");
    edge.wait_metric("mx_edge_source_blocked", "directory", 1.0)
        .await;

    // A list host that breaks empties nothing, and neither does a restart without it.
    host.publish.send_replace(Told::Broken(503, Vec::new()));
    edge.wait_metric("mx_edge_source_failing", "directory", 1.0)
        .await;
    assert_eq!(reply(&edge, "u999@lists.example").await, "250 2.0.0");
    edge.stop().await;
    stop.begin();
    stop.drained().await;
    let edge = site.start().await;
    assert_eq!(edge.readiness.reason(), None);
    assert_eq!(reply(&edge, "u999@lists.example").await, "250 2.0.0");
    assert_eq!(reply(&edge, "u1000@lists.example").await, "550 5.1.1");
    edge.stop().await;
}

#[tokio::test]
async fn an_operator_may_force_a_shrunken_directory() {
    let inside = Inside::start(Mode::Listening).await;
    let stop = Shutdown::new();
    let host = ListHost::start(told(1, 1, 1000), &stop).await;
    let edge = site(&inside, &[host.address]).await.start().await;
    wait_version(&edge, 1).await;
    host.publish.send_replace(told(1, 2, 900));
    wait_held_back(&edge, "shrunken").await;
    assert_eq!(source(&edge).summary().blocked.unwrap().lost_entries, 100);
    assert_eq!(source(&edge).accept().unwrap().entries, 901);
    assert_eq!(reply(&edge, "u999@lists.example").await, "550 5.1.1");
    edge.stop().await;
    stop.begin();
}

#[tokio::test]
async fn changes_come_as_changes_and_outlive_a_restart() {
    let inside = Inside::start(Mode::Listening).await;
    let stop = Shutdown::new();
    let host = ListHost::start(told(1, 1, 100), &stop).await;
    let site = site(&inside, &[host.address]).await;
    let edge = site.start().await;
    wait_version(&edge, 1).await;
    for serial in 2..=4 {
        let members = |serial: u64| 100 + (serial as usize - 1) * 10;
        let old = whole(1, serial - 1, members(serial - 1));
        let new = whole(1, serial, members(serial));
        host.publish
            .send_replace(Told::Directory(Box::new((Some(old), new))));
        wait_version(&edge, serial).await;
    }
    edge.wait_metric("mx_edge_directory_polls_total", "delta", 3.0)
        .await;
    edge.wait_metric("mx_edge_directory_polls_total", "applied", 1.0)
        .await;
    assert_eq!(reply(&edge, "u129@lists.example").await, "250 2.0.0");
    edge.stop().await;
    stop.begin();
    stop.drained().await;
    let edge = site.start().await;
    assert_eq!(reply(&edge, "u129@lists.example").await, "250 2.0.0");
    assert_eq!(reply(&edge, "u130@lists.example").await, "550 5.1.1");
    edge.stop().await;
}

#[tokio::test]
async fn a_change_that_leads_elsewhere_is_dropped_and_the_whole_is_fetched() {
    let inside = Inside::start(Mode::Listening).await;
    let stop = Shutdown::new();
    let host = ListHost::start(told(1, 1, 100), &stop).await;
    let edge = site(&inside, &[host.address]).await.start().await;
    wait_version(&edge, 1).await;
    let (old, new) = (whole(1, 1, 100), whole(1, 2, 103));
    let mut bad = delta(&old, &new);
    bad.change.add.addresses.pop_first();
    host.publish
        .send_replace(Told::BadDelta(Box::new((bad, new))));
    wait_version(&edge, 2).await;
    edge.wait_metric("mx_edge_directory_polls_total", "misfit", 1.0)
        .await;
    edge.wait_metric("mx_edge_directory_polls_total", "applied", 2.0)
        .await;
    for known in ["u100", "u101", "u102"] {
        assert_eq!(
            reply(&edge, &format!("{known}@lists.example")).await,
            "250 2.0.0"
        );
    }
    let asked = host.asked();
    assert!(asked.iter().filter(|asked| asked.since.is_empty()).count() >= 2);
    edge.stop().await;
    stop.begin();
}

#[tokio::test]
async fn what_does_not_follow_waits_for_an_operator() {
    let inside = Inside::start(Mode::Listening).await;
    for (then, cause) in [
        (told(1, 4, 90), "older"),
        (told(1, 5, 101), "forked"),
        (told(2, 1, 101), "foreign"),
    ] {
        let stop = Shutdown::new();
        let host = ListHost::start(told(1, 5, 100), &stop).await;
        let site = site(&inside, &[host.address]).await;
        let edge = site.start().await;
        wait_version(&edge, 5).await;
        host.publish.send_replace(then);
        wait_held_back(&edge, cause).await;
        edge.wait_metric("mx_edge_source_blocked", "directory", 1.0)
            .await;
        edge.wait_metric("mx_edge_directory_versions_held_back_total", cause, 1.0)
            .await;
        check_hundred(&edge).await;
        // Nor after a restart.
        edge.stop().await;
        let edge = site.start().await;
        wait_held_back(&edge, cause).await;
        check_hundred(&edge).await;
        let held_back = source(&edge).held_back().unwrap();
        assert_eq!(source(&edge).accept().unwrap().version, held_back);
        edge.wait_metric("mx_edge_source_blocked", "directory", 0.0)
            .await;
        edge.stop().await;
        stop.begin();
    }
}

#[tokio::test]
async fn a_list_host_that_lags_behind_is_left_for_one_that_does_not() {
    let inside = Inside::start(Mode::Listening).await;
    let stop = Shutdown::new();
    let behind = ListHost::start(told(1, 3, 90), &stop).await;
    let ahead = ListHost::start(told(1, 5, 100), &stop).await;
    let site = site(&inside, &[ahead.address, behind.address]).await;
    let edge = site.start().await;
    wait_version(&edge, 5).await;
    // The good one fails for a moment; the other has an older version.
    ahead.publish.send_replace(Told::Broken(500, Vec::new()));
    wait_held_back(&edge, "older").await;
    check_hundred(&edge).await;
    ahead.publish.send_replace(told(1, 6, 105));
    wait_version(&edge, 6).await;
    edge.wait_metric("mx_edge_source_blocked", "directory", 0.0)
        .await;
    edge.stop().await;
    stop.begin();
}

#[tokio::test]
async fn an_answer_that_is_none_changes_nothing() {
    let inside = Inside::start(Mode::Listening).await;
    let stop = Shutdown::new();
    let good = serde_json::to_vec(&whole(1, 2, 200)).unwrap();
    let mut unsigned = whole(1, 2, 200);
    unsigned.seal.signatures.clear();
    let mut forged = whole(1, 2, 200);
    forged.seal.signatures = signer(2).sign(&forged.seal.signed());
    let mut emptied = whole(1, 2, 200);
    emptied.addresses = Default::default();
    let json = |whole: &Whole| serde_json::to_vec(whole).unwrap();
    let host = ListHost::start(told(1, 1, 100), &stop).await;
    let edge = site(&inside, &[host.address]).await.start().await;
    wait_version(&edge, 1).await;
    for (what, code, body) in [
        ("an error", 500, b"no".to_vec()),
        ("an error with a directory", 500, good.clone()),
        ("nothing", 200, Vec::new()),
        ("half of it", 200, good[..good.len() / 2].to_vec()),
        ("no change", 226, Vec::new()),
        ("an empty list", 200, b"[]".to_vec()),
        ("an empty object", 200, b"{}".to_vec()),
        ("no signature", 200, json(&unsigned)),
        ("another key's signature", 200, json(&forged)),
        ("another content than was signed", 200, json(&emptied)),
        ("not what was asked for", 204, Vec::new()),
    ] {
        let failed = || edge.metric("mx_edge_directory_polls_total", "failed");
        host.publish.send_replace(told(1, 1, 100));
        edge.wait_metric("mx_edge_source_failing", "directory", 0.0)
            .await;
        let before = failed();
        host.publish.send_replace(Told::Broken(code, body));
        until(|| failed() > before, || format!("{what} was believed")).await;
        assert_eq!(source(&edge).summary().entries, 101, "{what}");
        check_hundred(&edge).await;
    }
    // And the edge still takes what is good.
    host.publish.send_replace(told(1, 2, 200));
    wait_version(&edge, 2).await;
    edge.stop().await;
    stop.begin();
}

#[tokio::test]
async fn a_connection_that_dies_in_the_middle_changes_nothing() {
    let inside = Inside::start(Mode::Listening).await;
    let stop = Shutdown::new();
    let good = serde_json::to_vec(&whole(1, 2, 200)).unwrap();
    // A body that ends well by itself, of which more was announced.
    for (length, body) in [
        (good.len(), good[..good.len() - 1].to_vec()),
        (good.len(), Vec::new()),
        (good.len() + 1, good.clone()),
    ] {
        let host = ListHost::start(told(1, 1, 100), &stop).await;
        let (dying, task) = dying_host(length, body).await;
        let edge = site(&inside, &[host.address, dying]).await.start().await;
        wait_version(&edge, 1).await;
        host.publish.send_replace(Told::Broken(500, Vec::new()));
        let name = dying.to_string();
        let blamed = || {
            source(&edge)
                .trouble()
                .is_some_and(|why| why.contains(&name))
        };
        until(blamed, || "the dying host was believed".into()).await;
        check_hundred(&edge).await;
        edge.stop().await;
        task.abort();
    }
    stop.begin();
}

#[tokio::test]
async fn a_newborn_edge_takes_a_sibling_s_copy_by_the_list_host_s_signature() {
    let inside = Inside::start(Mode::Listening).await;
    let stop = Shutdown::new();
    let host = ListHost::start(told(1, 7, 100), &stop).await;
    let mut elder_site = site(&inside, &[host.address]).await;
    elder_site.config.directory.listen = Some(free_address().await);
    let elder = elder_site.start().await;
    wait_version(&elder, 7).await;
    host.publish.send_replace(Told::Broken(500, Vec::new()));

    // A sibling that lies is not believed, though it is asked first.
    let mut forged = whole(1, 9, 5000);
    forged.seal.signatures = signer(2).sign(&forged.seal.signed());
    let liar = ListHost::start(
        Told::Broken(200, serde_json::to_vec(&forged).unwrap()),
        &stop,
    )
    .await;
    let mut newborn_site = site(&inside, &[host.address]).await;
    newborn_site.config.directory.siblings = vec![liar.address];
    let newborn = newborn_site.start().await;
    newborn
        .wait_metric("mx_edge_source_failing", "directory", 1.0)
        .await;
    until(
        || !liar.asked().is_empty(),
        || "the liar was not asked".into(),
    )
    .await;
    assert_eq!(reply(&newborn, "u100@lists.example").await, "451 4.3.0");
    newborn.stop().await;

    newborn_site
        .config
        .directory
        .siblings
        .push(elder_site.config.directory.listen.unwrap());
    let newborn = newborn_site.start().await;
    wait_version(&newborn, 7).await;
    newborn
        .wait_metric("mx_edge_directory_polls_total", "sibling", 1.0)
        .await;
    check_hundred(&newborn).await;
    // It is as fresh as the sibling's, and kept.
    let age = source(&newborn).age(Timestamp::now()).unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
    elder.stop().await;
    newborn.stop().await;
    let newborn = newborn_site.start().await;
    check_hundred(&newborn).await;
    // The list host is back: what it says counts.
    host.publish.send_replace(told(1, 8, 101));
    wait_version(&newborn, 8).await;
    newborn.stop().await;
    stop.begin();
}

#[tokio::test]
async fn recipients_are_exact_while_the_inside_is_dead_for_days() {
    let inside = Inside::start(Mode::Listening).await;
    let stop = Shutdown::new();
    let host = ListHost::start(told(1, 1, 100), &stop).await;
    let mut site = site(&inside, &[host.address]).await;
    let edge = site.start().await;
    wait_version(&edge, 1).await;
    host.publish.send_replace(Told::Broken(500, Vec::new()));
    edge.wait_metric("mx_edge_source_failing", "directory", 1.0)
        .await;
    let days = |days: u64| Timestamp(Timestamp::now().0 - days * 86_400_000);
    // The last word lies five days back, and thirty; restarts do not matter.
    for age in [5, 30] {
        source(&edge).heard_at(days(age));
        check_hundred(&edge).await;
    }
    edge.stop().await;
    let edge = site.start().await;
    assert!(source(&edge).age(Timestamp::now()).unwrap() > Duration::from_secs(29 * 86_400));
    check_hundred(&edge).await;
    edge.stop().await;
    // A site that would rather defer: known ones are known however old that is.
    site.config.directory.stale_after = Duration::from_secs(3 * 86_400);
    let edge = site.start().await;
    assert_eq!(reply(&edge, "u99@lists.example").await, "250 2.0.0");
    assert_eq!(reply(&edge, "u100@lists.example").await, "451 4.3.0");
    source(&edge).heard_at(days(2));
    check_hundred(&edge).await;
    source(&edge).heard_at(days(4));
    assert_eq!(reply(&edge, "u100@lists.example").await, "451 4.3.0");
    host.publish.send_replace(told(1, 1, 100));
    let fresh = || !source(&edge).is_stale();
    until(fresh, || "nobody confirmed it".into()).await;
    check_hundred(&edge).await;
    edge.stop().await;
    stop.begin();
}

#[tokio::test]
async fn keys_rotate_without_a_gap() {
    let inside = Inside::start(Mode::Listening).await;
    let stop = Shutdown::new();
    let host = ListHost::start(told(1, 1, 100), &stop).await;
    let mut site = site(&inside, &[host.address]).await;
    let edge = site.start().await;
    wait_version(&edge, 1).await;
    edge.stop().await;
    // The edge knows the new key alone before the list host signs with it, and the list host is away: the copy still counts.
    let key = site.folder().join("new.pub");
    std::fs::write(&key, &signer(2).public()[0]).unwrap();
    site.config.directory.public_key_files = vec![key];
    host.publish.send_replace(Told::Broken(500, Vec::new()));
    let edge = site.start().await;
    check_hundred(&edge).await;
    // Both sign: the same version is fetched again for its signature.
    let mut both = whole(1, 1, 100);
    let signers = Signer::new(&[vec![2; 32], vec![1; 32]]).unwrap();
    both.seal.signatures = signers.sign(&both.seal.signed());
    host.publish
        .send_replace(Told::Directory(Box::new((None, both.clone()))));
    let signed = || {
        source(&edge)
            .current()
            .unwrap()
            .seal
            .clone()
            .unwrap()
            .signatures
    };
    until(
        || signed() == both.seal.signatures,
        || format!("{:?}", signed()),
    )
    .await;
    edge.stop().await;
    stop.begin();
}
