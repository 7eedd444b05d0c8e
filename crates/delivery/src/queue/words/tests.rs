//! Tables: words and what they mean.

use mail::{MailParameters, MessageId, Recipient, ReversePath};
use spool::{Batch, BatchId, Class, Head};

use super::*;

struct Posts {
    by_domain: bool,
}

impl Names for Posts {
    fn ident(&self, head: &Head) -> Option<String> {
        std::str::from_utf8(&head.facts).ok().map(str::to_owned)
    }

    fn list(&self, _: &Head, batch: &Batch) -> Option<String> {
        std::str::from_utf8(&batch.template).ok().map(str::to_owned)
    }

    fn by_domain(&self) -> bool {
        self.by_domain
    }

    fn refused(&self) -> Option<Destination> {
        (!self.by_domain).then(|| Destination::Route("held".into()))
    }
}

const NOW: Timestamp = Timestamp(10_000_000);

fn names(by_domain: bool) -> Arc<dyn Names> {
    Arc::new(Posts { by_domain })
}

fn words(change: impl FnOnce(&mut Words)) -> Words {
    let mut words = Words::default();
    change(&mut words);
    words
}

fn text(text: &str) -> Option<String> {
    Some(text.into())
}

fn domain(name: &str) -> Destination {
    Destination::Domain(Domain::parse(name).unwrap())
}

#[test]
fn words_become_conditions() {
    let said = Words {
        sender: text("*@From.example"),
        recipient: text("joe@*"),
        domains: vec!["A.example".into(), "b.example".into()],
        lanes: vec!["live".into(), "retry".into()],
        older: text("2h"),
        newer: text("90s"),
        reply: text("try later"),
        message: text(&MessageId(7).to_string()),
        hold: Some(3),
        held: true,
        ..Words::default()
    };
    let predicate = said.predicate(&names(true), None, NOW).unwrap();
    assert_eq!(predicate.message, Some(MessageId(7)));
    assert_eq!(
        predicate.destinations,
        Some(vec![domain("a.example"), domain("b.example")])
    );
    assert_eq!(predicate.lanes, Some(vec![Lane::Live, Lane::Retry]));
    assert_eq!(predicate.arrived_before, Some(Timestamp(2_800_000)));
    assert_eq!(predicate.arrived_from, Some(Timestamp(9_910_000)));
    assert_eq!(predicate.sender, Some(Pattern::new("*@from.example")));
    assert_eq!(predicate.recipient, Some(Pattern::new("joe@*")));
    assert_eq!(predicate.reply.as_deref(), Some("try later"));
    assert_eq!(
        (predicate.held, predicate.hold),
        (Some(true), Some(HoldId(3)))
    );
    assert!(predicate.owner.is_none());
    let everything = words(|w| w.all = true);
    let predicate = everything.predicate(&names(true), None, NOW).unwrap();
    assert!(predicate.destinations.is_none() && predicate.owner.is_none());
}

#[test]
fn a_site_and_a_domain_are_what_both_mean() {
    let said = words(|w| w.domains = vec!["a.example".into()]);
    let site = Some(vec![domain("a.example"), domain("b.example")]);
    let predicate = said.predicate(&names(true), site, NOW).unwrap();
    assert_eq!(predicate.destinations, Some(vec![domain("a.example")]));
    let elsewhere = Some(vec![domain("c.example")]);
    let predicate = said.predicate(&names(true), elsewhere, NOW).unwrap();
    assert_eq!(predicate.destinations, Some(vec![]), "none, not all");
}

#[test]
fn where_all_goes_inside_a_domain_is_that_of_the_recipient() {
    let said = words(|w| w.domains = vec!["a.example".into()]);
    let predicate = said.predicate(&names(false), None, NOW).unwrap();
    assert_eq!(predicate.recipient, Some(Pattern::new("*@a.example")));
    assert_eq!(predicate.destinations, None);
    let refused = words(|w| w.refused = true);
    let predicate = refused.predicate(&names(false), None, NOW).unwrap();
    let held = Destination::Route("held".into());
    assert_eq!(predicate.destinations, Some(vec![held]));
}

#[test]
fn lists_and_idents_are_asked_of_the_program() {
    let head = |ident: &str| Head {
        id: MessageId(1),
        arrival: NOW,
        accepted: NOW,
        reverse_path: ReversePath::Null,
        parameters: MailParameters::default(),
        facts: ident.to_owned().into(),
        body_bytes: 0,
    };
    let batch = |list: &str| Batch {
        id: BatchId(1),
        destination: Destination::Inside,
        class: Class::Ordinary,
        due: NOW,
        attempts: 0,
        recipients: Vec::<Recipient>::new(),
        template: list.to_owned().into(),
        note: Default::default(),
        replies: Default::default(),
        held: None,
    };
    let matches = |said: &Words, ident: &str, list: &str| {
        let owner = said
            .predicate(&names(true), None, NOW)
            .unwrap()
            .owner
            .unwrap();
        (owner.0)(&head(ident), &batch(list))
    };
    let both = words(|w| {
        w.list = text("Dev@lists.example");
        w.ident = text("mx1.a.1");
    });
    assert!(matches(&both, "mx1.a.1", "dev@lists.example"));
    assert!(!matches(&both, "mx1.a.2", "dev@lists.example"));
    assert!(!matches(&both, "mx1.a.1", "news@lists.example"));
    let list = words(|w| w.list = text("dev@lists.example"));
    assert!(matches(&list, "any", "DEV@lists.example"));
}

#[test]
fn what_is_wrong_is_told_with_what_to_do() {
    for (by_domain, said, expected) in [
        (true, words(|w| w.older = text("2")), "--older \"2\""),
        (true, words(|w| w.newer = text("soon")), "--newer \"soon\""),
        (
            true,
            words(|w| w.lanes = vec!["fast".into()]),
            "urgent, live, backlog or retry",
        ),
        (true, words(|w| w.list = text("dev")), "--list \"dev\""),
        (
            true,
            words(|w| w.message = text("xyz")),
            "--message \"xyz\"",
        ),
        (
            true,
            words(|w| w.domains = vec!["a b".into()]),
            "--domain \"a b\"",
        ),
        (true, words(|w| w.refused = true), "quarantine"),
        (
            false,
            words(|w| {
                w.domains = vec!["a.example".into()];
                w.recipient = text("x@a.example");
            }),
            "not both",
        ),
    ] {
        let Refusal(status, why) = said.predicate(&names(by_domain), None, NOW).unwrap_err();
        assert_eq!(status, 400);
        assert!(why.contains(expected), "{said:?}: {why}");
    }
}

#[test]
fn everything_must_be_meant() {
    let nothing = Words::default().must_say().unwrap_err().1;
    assert!(nothing.contains("--all"), "{nothing}");
    let mixed = words(|w| {
        w.all = true;
        w.held = true;
    });
    assert!(mixed.must_say().unwrap_err().1.contains("leave one"));
    words(|w| w.all = true).must_say().unwrap();
    words(|w| w.held = true).must_say().unwrap();
}

#[test]
fn words_are_shown_as_they_are_typed() {
    let said = Words {
        sender: text("<>"),
        domains: vec!["a.example".into(), "b.example".into()],
        older: text("2h"),
        reply: text("it's full"),
        hold: Some(3),
        held: true,
        ..Words::default()
    };
    assert_eq!(
        said.to_string(),
        "--sender '<>' --domain a.example --domain b.example --older 2h --reply 'it'\\''s full' --hold 3 --held"
    );
    let json = serde_json::to_value(&said).unwrap();
    assert_eq!(serde_json::from_value::<Words>(json).unwrap(), said);
    let unknown = serde_json::json!({"colour": "blue"});
    assert!(serde_json::from_value::<Words>(unknown).is_err());
}
