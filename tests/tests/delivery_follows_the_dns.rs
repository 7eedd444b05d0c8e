//! Without a pinned route listserv finds each member's host by DNS: by MX, by the domain's own address where there is no MX, and
//! not at all where a null MX says that the domain takes no mail, which counts as a return of that member.

use end_to_end::{Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};
use local::daemons;

#[test]
fn delivery_follows_the_dns() {
    let mut options = hurried(settings());
    options.by_dns = true;
    let mut harness = Harness::laid_out(options, true);
    let sink = harness.site.address("sink");
    let (host, dns) = (sink.ip(), harness.site.address("dns"));
    let root = harness.site.root().to_owned();
    let records = [
        "one.example. 60 IN MX 20 nobody-listens.one.example.".to_owned(),
        "one.example. 60 IN MX 10 mx.one.example.".to_owned(),
        format!("mx.one.example. 60 IN A {host}"),
        format!("two.example. 60 IN A {host}"),
        "three.example. 60 IN MX 0 .".to_owned(),
    ];
    let _unbound = daemons::unbound(
        &root.join("unbound"),
        &root.join("log/unbound.log"),
        dns,
        &records,
    )
    .unwrap_or_else(|error| panic!("{error}"));
    harness
        .site
        .start_all()
        .unwrap_or_else(|error| panic!("{error}"));

    let door = harness.site.address("mx-edge");
    let reply = client::submit(
        door,
        "author@sender.example",
        &[LIST],
        &client::post("found", LIST),
    );
    assert!(
        reply.as_deref().is_ok_and(|reply| reply.starts_with("250")),
        "{reply:?}"
    );
    for member in &MEMBERS[..2] {
        harness.wait("it is found", || (harness.count(member) == 1).then_some(()));
    }
    harness.wait("the queue runs empty", || {
        (harness.queued("listserv")? == 0).then_some(())
    });
    assert_eq!(harness.count(MEMBERS[2]), 0);
    let bounces = harness
        .site
        .ask("listserv", &["bounce", "show", LIST])
        .expect("listserv answers");
    assert!(
        bounces.contains(MEMBERS[2]) && bounces.contains("5.1.10"),
        "{bounces}"
    );
    assert!(
        !bounces.contains(MEMBERS[0]) && !bounces.contains(MEMBERS[1]),
        "{bounces}"
    );
}
