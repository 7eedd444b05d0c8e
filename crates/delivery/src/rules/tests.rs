//! What large providers say, and which rule takes it.

use super::*;
use crate::site::Site;

fn found(host: &str, domain: &str, reply: Reply) -> Option<(String, Action)> {
    let rules = Rules::with(Table::default()).unwrap();
    let key = Key::Site(Site::new(vec![(0, host.into())]));
    let to = mail::Address::parse(&format!("joe@{domain}")).unwrap();
    let rule = rules.find(&key, Some(&to.into()), &reply)?;
    Some((rule.name.clone(), rule.action))
}

#[test]
fn the_rules_that_come_with_it_are_right() {
    let table = Table::parse(BUILT_IN).unwrap();
    let mut names: Vec<_> = table.rule.iter().map(|rule| &rule.name).collect();
    names.dedup();
    assert_eq!(names.len(), table.rule.len());
}

#[test]
fn replies_of_providers_find_their_rule() {
    const GOOGLE: &str = "aspmx.l.google.com";
    const YAHOO: &str = "mta5.am0.yahoodns.net";
    const OUTLOOK: &str = "eur.olc.protection.outlook.com";
    const OTHER: &str = "mx.one.example";
    let table = [
        (
            GOOGLE,
            421,
            (4, 7, 28),
            "Our system has detected an unusual rate of unsolicited mail originating from your IP address.",
            "google-rate",
        ),
        (
            GOOGLE,
            450,
            (4, 2, 1),
            "The user you are trying to contact is receiving mail too quickly.",
            "google-account-rate",
        ),
        (
            GOOGLE,
            550,
            (5, 7, 26),
            "This mail has been blocked because the sender is unauthenticated.",
            "google-authentication",
        ),
        (
            GOOGLE,
            550,
            (5, 1, 1),
            "The email account that you tried to reach does not exist.",
            "",
        ),
        (
            YAHOO,
            421,
            (4, 7, 0),
            "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints",
            "yahoo-deferred",
        ),
        (
            YAHOO,
            421,
            (4, 7, 1),
            "[TS03] All messages from 192.0.2.1 will be permanently deferred",
            "yahoo-deferred",
        ),
        (
            YAHOO,
            553,
            (5, 7, 1),
            "[BL21] Connections will not be accepted from 192.0.2.1",
            "yahoo-blocked",
        ),
        (
            YAHOO,
            553,
            (5, 7, 9),
            "Message not accepted for policy reasons.",
            "yahoo-policy",
        ),
        (
            OUTLOOK,
            550,
            (5, 7, 515),
            "Access denied, sending domain lists.example does not meet the required authentication level.",
            "microsoft-authentication",
        ),
        (
            "mx2.mxge.comcast.net",
            421,
            (4, 2, 0),
            "resimta-c1p-023412.sys.comcast.net Try again later; see RL000003",
            "comcast-rate",
        ),
        (
            OTHER,
            552,
            (5, 3, 4),
            "The message has 9 bytes, the next hop takes 8",
            "message-itself",
        ),
        (
            OTHER,
            553,
            (5, 6, 7),
            "The message needs SMTPUTF8",
            "message-itself",
        ),
        (OTHER, 552, (5, 2, 2), "The mailbox is over its quota", ""),
        (
            YAHOO,
            554,
            (5, 0, 0),
            "delivery error: dd This user doesn't have a yahoo.com account",
            "",
        ),
        (
            OUTLOOK,
            451,
            (4, 7, 500),
            "Server busy. Please try again later from [192.0.2.1]. (AS77712344)",
            "microsoft-busy",
        ),
        (
            OUTLOOK,
            421,
            (4, 7, 0),
            "RP-001 The mail server IP connecting to Outlook.com server has exceeded the rate limit allowed.",
            "microsoft-rate",
        ),
        (
            OUTLOOK,
            550,
            (5, 7, 1),
            "Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150).",
            "microsoft-blocked",
        ),
        (
            OUTLOOK,
            550,
            (5, 5, 0),
            "Requested action not taken: mailbox unavailable (S2017062302).",
            "",
        ),
        (
            "mx2.mxge.comcast.net",
            421,
            (4, 1, 0),
            "192.0.2.1 Throttled - try again later.",
            "comcast-rate",
        ),
        (
            OTHER,
            450,
            (4, 7, 1),
            "Greylisted, come again in 300 seconds",
            "greylisting",
        ),
        (OTHER, 450, (4, 7, 1), "Client host rejected", "policy"),
        (OTHER, 421, (4, 3, 2), "busy", "service-not-available"),
        (
            OTHER,
            554,
            (5, 7, 1),
            "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
            "blocklist",
        ),
        (
            OTHER,
            550,
            (5, 7, 1),
            "a domain in your message is listed in the Spamhaus DBL",
            "listed-content",
        ),
        (OTHER, 452, (4, 2, 2), "mailbox full", ""),
        (OTHER, 550, (5, 7, 1), "no such user", ""),
        (
            OTHER,
            421,
            (4, 7, 0),
            "[TSS04] said by somebody else",
            "service-not-available",
        ),
    ];
    for (host, code, enhanced, text, expected) in table {
        let rule = found(host, "one.example", Reply::new(code, enhanced, text));
        let name = rule.map(|(name, _)| name).unwrap_or_default();
        assert_eq!(name, expected, "{host} {code} {text}");
    }
    assert_eq!(
        found(OTHER, "one.example", Reply::new(250, (2, 7, 0), "ok")),
        None
    );
    let plain = found(OTHER, "one.example", Reply::plain(421, "bye"));
    assert_eq!(plain, Some(("service-not-available".into(), Action::Slow)));
    let vanity = found(OTHER, "comcast.net", Reply::plain(451, "RL000003"));
    assert_eq!(vanity, Some(("comcast-rate".into(), Action::Slow)));
}

#[test]
fn own_rules_come_first_and_sites_have_limits() {
    let own = Table::parse(
        "[[rule]]\nname = \"mine\"\nsites = [\"mx.one.example\"]\ncodes = [421]\naction = \"recipient\"\n\
         [[site]]\nsites = [\"*.one.example\"]\nconnections_max = 2\nmessages_per_second_max = 0.5",
    );
    let rules = Rules::with(own.unwrap()).unwrap();
    let key = Key::Site(Site::new(vec![(0, "mx.one.example".into())]));
    let reply = Reply::plain(421, "bye");
    assert_eq!(rules.find(&key, None, &reply).unwrap().name, "mine");
    assert_eq!(rules.limits(&key).connections_max, Some(2));
    assert_eq!(rules.limits(&Key::Route("x".into())), SiteLimits::default());
    let yahoo = Key::Site(Site::new(vec![(0, "mta5.am0.yahoodns.net".into())]));
    assert_eq!(rules.limits(&yahoo).transactions_max, Some(20));
}

#[test]
fn what_is_wrong_is_said() {
    for (text, expected) in [
        ("[[rule]]\nname = \"x\"\naction = \"slow\"", "every reply"),
        (
            "[[rule]]\nname = \"x\"\ncodes = [250]\naction = \"slow\"",
            "250",
        ),
        (
            "[[rule]]\nname = \"x\"\ntext = [\"\"]\naction = \"slow\"",
            "stands in every",
        ),
        (
            "[[rule]]\nname = \"x\"\ncodes = [421]\naction = \"stop\"",
            "stop",
        ),
        (
            "[[rule]]\nname = \"x\"\ncodes = [421]\naction = \"shut\"\nduration = \"9d\"",
            "24 h",
        ),
        (
            "[[rule]]\nname = \"x\"\ncodes = [421]\naction = \"slow\"\nconnections_max = 0",
            "at least 1",
        ),
        ("[[site]]\nconnections_max = 1", "names no sites"),
        (
            "[[site]]\nsites = [\"x\"]\nmessages_per_second_max = 0.0",
            "above 0",
        ),
        ("[[sites]]\nsites = [\"x\"]", "unknown field"),
    ] {
        let error = Table::parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
