//! What `explain` says where no rule of the policy decides alone: the access list, exemptions, and a second policy beside the first.

use mx_edge::explain::{Asked, explain};
use serde_json::{Value, json};

use crate::dns::{Dns, script};
use crate::edge::{Edge, Site};
use crate::inside::{Inside, Mode};

async fn asked(edge: &Edge, client: &str, from: &str, rcpt: &str) -> Value {
    let asked =
        json!({ "client": client, "helo": "mail.good.example", "from": from, "rcpt": rcpt });
    let asked: Asked = serde_json::from_value(asked).unwrap();
    explain(&edge.running.controls.edge, &asked).await.unwrap()
}

fn reply(answer: &Value) -> &str {
    answer["reply"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer:#}"))
}

#[tokio::test]
async fn explain_knows_the_access_list_exemptions_and_the_second_policy() {
    const GOOD: &str = "ann@good.example";
    const BAD: &str = "ann@nowhere.example";
    const JOE: &str = "joe@b.example";
    let dns = Dns::start(script(&["good.example MX 10 mail.good.example"])).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    let list = site.folder().join("access");
    let lines = "192.0.2.1 reject bounces only\n192.0.2.2 drop\n192.0.2.3 permit a partner\n";
    std::fs::write(&list, lines).unwrap();
    let next = site.folder().join("next.toml");
    let text = format!(
        "[dns]\nservers = ['{}']\n[directory]\nservers = []\n[recipients]\nfiles = ['/nowhere']\n\
         [policy]\nskip_networks = []\nsender_unknown = 'off'\n",
        dns.address
    );
    std::fs::write(&next, text).unwrap();
    let config = &mut site.config;
    config.access.files = vec![list];
    config.shadow.file = next;
    config.dns.servers = vec![dns.address];
    config.policy.skip_networks = vec!["198.51.100.0/24".parse().unwrap()];
    config.mail.own_networks = vec!["203.0.113.0/24".parse().unwrap()];
    config.mail.contact = "https://help.example/".into();
    let edge = site.start().await;

    for (client, from, rcpt, expected, word) in [
        ("192.0.2.1", GOOD, JOE, "554 5.7.1", Some("reject")),
        // A role is written to all the same.
        ("192.0.2.1", GOOD, "abuse@a.example", "250 ", Some("reject")),
        (
            "192.0.2.2",
            GOOD,
            "abuse@a.example",
            "521 5.3.2",
            Some("drop"),
        ),
        ("192.0.2.3", BAD, JOE, "250 ", Some("permit")),
        ("203.0.113.9", BAD, JOE, "250 ", Some("permit")),
        ("192.0.2.9", GOOD, JOE, "250 ", None),
        ("192.0.2.9", BAD, JOE, "550 5.1.8", None),
        ("198.51.100.9", BAD, JOE, "250 ", None),
    ] {
        let answer = asked(&edge, client, from, rcpt).await;
        assert!(reply(&answer).starts_with(expected), "{client}: {answer:#}");
        assert_eq!(
            answer["access"]["word"].as_str(),
            word,
            "{client}: {answer:#}"
        );
        if expected.starts_with('5') {
            assert!(
                reply(&answer).ends_with("[TOKEN] https://help.example/"),
                "{answer:#}"
            );
        }
    }
    // The second policy lets in whom the first refuses; an exemption is told as what it is.
    let answer = asked(&edge, "192.0.2.9", BAD, JOE).await;
    assert!(reply(&answer["shadow"]).starts_with("250 "), "{answer:#}");
    let role = asked(&edge, "192.0.2.9", BAD, "abuse@a.example").await;
    assert_eq!(role["exempt"], true, "{role:#}");
    let text = mx_edge::explain::text(&asked(&edge, "192.0.2.1", GOOD, JOE).await);
    assert!(
        text.contains("access list: reject bounces only (access.files)"),
        "{text}"
    );
    edge.stop().await;
}
