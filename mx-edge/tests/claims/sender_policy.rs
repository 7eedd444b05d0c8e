//! SPF as evidence: the result is in the trace, nobody waits longer than its deadline, and an unknown recipient costs no query.

use std::time::Duration;

use mail::trace::Spf;

use crate::client::{MESSAGE, codes, send_from};
use crate::dns::{Dns, script};
use crate::edge::Site;
use crate::inside::{Inside, Mode};

#[tokio::test]
async fn the_result_is_evidence_for_the_inside() {
    let dns = Dns::start(script(&[
        "good.example TXT v=spf1 ip4:127.0.0.1 -all",
        "bad.example TXT v=spf1 -all",
        "soft.example TXT v=spf1 ~all",
        "broken.example TXT v=spf1 redirect=none.example",
        "client.elsewhere.example TXT v=spf1 ip4:127.0.0.1 -all",
        "silent.example SILENT",
    ]))
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
    let dns = Dns::start(script(&["good.example TXT v=spf1 ip4:127.0.0.1 -all"])).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.spf.enabled = true;
    site.config.spf.skip_networks.clear();
    site.config.dns.servers = vec![dns.address];
    let edge = site.start().await;
    for to in ["nobody@b.example", "joe@relay.example"] {
        send_from(edge.address, "ann@good.example", &[to], MESSAGE).await;
    }
    assert_eq!(dns.queries(), 0);
    send_from(
        edge.address,
        "ann@good.example",
        &["joe@b.example"],
        MESSAGE,
    )
    .await;
    assert_ne!(dns.queries(), 0);
    edge.stop().await;
}
