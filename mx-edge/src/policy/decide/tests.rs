//! What each rule says of which evidence, what is asked for and when, and who is exempt.

use super::*;
use crate::config::{About, DomainList};
use crate::dnsbl::{Hit, Listing};
use mail::{Address, ReversePath};

fn policy() -> Policy {
    Policy {
        rules: config::Policy::default(),
        tables: Arc::default(),
        spoke_first: Action::Enforce,
        listed: Action::Enforce,
        drops: Vec::new(),
        greylist: Action::Off,
        greylist_spf_pass: false,
    }
}

/// With every rule of `[policy]` off but this one.
fn only(rule: Reason, action: Action) -> Policy {
    let mut policy = policy();
    let rules = &mut policy.rules;
    for key in [
        &mut rules.helo_syntax,
        &mut rules.helo_literal,
        &mut rules.helo_ours,
        &mut rules.helo_name,
        &mut rules.helo_unknown,
        &mut rules.client_name,
        &mut rules.client_unconfirmed,
        &mut rules.sender_name,
        &mut rules.sender_unknown,
        &mut rules.sender_null_mx,
        &mut rules.domain_listed,
        &mut rules.spf_fail,
    ] {
        *key = Action::Off;
    }
    (policy.spoke_first, policy.listed) = (Action::Off, Action::Off);
    let key = match rule {
        Reason::SpokeFirst => &mut policy.spoke_first,
        Reason::Listed => &mut policy.listed,
        Reason::Greylisted => &mut policy.greylist,
        Reason::HeloSyntax => &mut rules.helo_syntax,
        Reason::HeloLiteral => &mut rules.helo_literal,
        Reason::HeloOurs => &mut rules.helo_ours,
        Reason::HeloName => &mut rules.helo_name,
        Reason::HeloUnknown => &mut rules.helo_unknown,
        Reason::ClientName => &mut rules.client_name,
        Reason::ClientUnconfirmed => &mut rules.client_unconfirmed,
        Reason::SenderName => &mut rules.sender_name,
        Reason::SenderUnknown => &mut rules.sender_unknown,
        Reason::SenderNullMx => &mut rules.sender_null_mx,
        Reason::DomainListed => &mut rules.domain_listed,
        Reason::SpfFail => &mut rules.spf_fail,
        other => panic!("{other:?} is no rule of the policy"),
    };
    *key = action;
    policy.rules.domain_lists = vec![DomainList {
        zone: "dbl.example".into(),
        name: "dbl".into(),
        codes: crate::dnsbl::Codes::default(),
        about: vec![About::Sender],
        self_test: true,
        texts: Vec::new(),
    }];
    policy
}

fn evidence(helo: &str, from: &str) -> Evidence {
    let mut evidence = Evidence::new("192.0.2.1".parse().unwrap());
    evidence.greeted(helo, false);
    let from = match from {
        "" => ReversePath::Null,
        from => ReversePath::Address(Address::parse(from).unwrap()),
    };
    evidence.sender(&from);
    evidence
}

fn good() -> Evidence {
    evidence("mail.sender.example", "ann@sender.example")
}

fn listing(outcome: Outcome) -> Asked<Listing> {
    Asked::Known(Listing {
        outcome,
        hits: vec![Hit {
            name: "bl".into(),
            code: "127.0.0.2".parse().unwrap(),
            weight: 1,
        }],
    })
}

/// One rule alone, at `enforce` and at `warn`: what it says.
fn check(rule: Reason, evidence: &Evidence, expected: &str) {
    for action in [Action::Enforce, Action::Warn] {
        let said = match step(&only(rule, action), evidence) {
            Step::Ask(questions) => format!("asks {questions:?}"),
            Step::Done(decision) => {
                let (refused, warned) = (decision.refusal, decision.warned.first().cloned());
                let found = match action {
                    Action::Enforce => refused,
                    _ => {
                        assert_eq!(refused, None, "{rule:?} refuses at warn");
                        warned
                    }
                };
                found.map_or("clear".into(), |finding| {
                    assert_eq!(finding.reason, rule);
                    finding.evidence
                })
            }
        };
        assert_eq!(said, expected, "{rule:?} at {action:?}");
    }
    let off = step(&only(rule, Action::Off), evidence);
    assert_eq!(off, Step::Done(Decision::default()), "{rule:?} is off");
}

#[test]
fn rules_on_helo() {
    use Reason::*;
    let helo = |said: &str| evidence(said, "ann@sender.example");
    check(HeloSyntax, &helo("mail.example"), "clear");
    check(HeloSyntax, &helo("a b\u{7}"), "\"a?b?\" is no host name");
    check(
        HeloSyntax,
        &helo("192.0.2.1"),
        "192.0.2.1 is a bare address, not a host name",
    );
    check(HeloLiteral, &helo("[192.0.2.1]"), "clear");
    check(
        HeloLiteral,
        &helo("[192.0.2.2]"),
        "[192.0.2.2] is not 192.0.2.1",
    );
    check(HeloName, &helo("pc"), "pc is not a full host name");
    check(HeloName, &helo("[192.0.2.1]"), "clear");
    check(HeloUnknown, &helo("mail.example"), "asks [HeloHost]");
    check(HeloUnknown, &helo("[192.0.2.1]"), "clear");
    let mut ours = helo("mx1.example");
    ours.helo_is_ours = true;
    check(HeloOurs, &ours, "mx1.example is this host");
    for (host, expected) in [
        (Asked::Known(true), "clear"),
        (Asked::Known(false), "mail.example does not exist"),
        (Asked::Silent, "clear"),
    ] {
        let mut known = helo("mail.example");
        known.helo_host = host;
        check(HeloUnknown, &known, expected);
    }
    let mut six = helo("[IPv6:2001:db8::2]");
    six.client = "2001:db8::1".parse().unwrap();
    check(HeloLiteral, &six, "clear");
    six.client = "2001:db8:0:1::1".parse().unwrap();
    check(
        HeloLiteral,
        &six,
        "[IPv6:2001:db8::2] is not 2001:db8:0:1::1",
    );
}

#[test]
fn rules_on_the_client() {
    use Reason::*;
    let mut spoke = good();
    check(SpokeFirst, &spoke, "clear");
    spoke.spoke_first = Some("EHLO x".into());
    check(SpokeFirst, &spoke, "it began with \"EHLO x\"");
    let name = |name: Asked<crate::names::ClientName>| Evidence {
        client_name: name,
        ..good()
    };
    check(ClientName, &good(), "asks [ClientName]");
    for (known, missing, unconfirmed) in [
        (
            Asked::Known(crate::names::ClientName::Missing),
            "192.0.2.1 has no name",
            "clear",
        ),
        (
            Asked::Known(crate::names::ClientName::Unconfirmed("a.example".into())),
            "clear",
            "a.example does not have the address 192.0.2.1",
        ),
        (
            Asked::Known(crate::names::ClientName::Confirmed("a.example".into())),
            "clear",
            "clear",
        ),
        (Asked::Silent, "clear", "clear"),
    ] {
        check(ClientName, &name(known.clone()), missing);
        check(ClientUnconfirmed, &name(known), unconfirmed);
    }
    for (listing, expected) in [
        (Asked::No, "asks [Listing]"),
        (listing(Outcome::Listed), "listed by bl"),
        (listing(Outcome::Neutral), "clear"),
        (listing(Outcome::Allowed), "clear"),
        (Asked::Silent, "clear"),
    ] {
        check(Listed, &Evidence { listing, ..good() }, expected);
    }
}

#[test]
fn rules_on_the_sender() {
    use Reason::*;
    check(
        SenderName,
        &evidence("a.example", "root@pc"),
        "pc is not a full domain name",
    );
    for none in ["", "ann@[192.0.2.1]"] {
        for rule in [SenderName, SenderUnknown, SenderNullMx] {
            check(rule, &evidence("a.example", none), "clear");
        }
    }
    check(SenderUnknown, &good(), "asks [SenderDomain]");
    for (domain, unknown, null_mx) in [
        (Asked::Known(MailDomain::Receives), "clear", "clear"),
        (
            Asked::Known(MailDomain::Missing),
            "sender.example has neither MX nor address",
            "clear",
        ),
        (
            Asked::Known(MailDomain::NullMx),
            "clear",
            "sender.example says that it takes no mail",
        ),
        (Asked::Silent, "clear", "clear"),
    ] {
        let known = Evidence {
            sender_domain: domain,
            ..good()
        };
        check(SenderUnknown, &known, unknown);
        check(SenderNullMx, &known, null_mx);
    }
    for (spf, expected) in [
        (Asked::No, "asks [Spf]"),
        (
            Asked::Known(Spf::Fail),
            "sender.example does not let 192.0.2.1 send",
        ),
        (Asked::Known(Spf::SoftFail), "clear"),
        (Asked::Known(Spf::TempError), "clear"),
        (Asked::Silent, "clear"),
    ] {
        check(SpfFail, &Evidence { spf, ..good() }, expected);
    }
    for (lists, expected) in [
        (Asked::No, "asks [DomainLists]"),
        (Asked::Known(Vec::new()), "clear"),
        (
            Asked::Known(vec!["sender.example is listed by dbl".into()]),
            "sender.example is listed by dbl",
        ),
    ] {
        check(
            DomainListed,
            &Evidence {
                domain_lists: lists,
                ..good()
            },
            expected,
        );
    }
}

#[test]
fn greylisting_concerns_neither_whom_spf_nor_whom_a_list_vouches_for() {
    let known = |spf, listing, greylist| Evidence {
        spf: Asked::Known(spf),
        listing,
        greylist,
        ..good()
    };
    let wait = Asked::Known(Some(300));
    check(Reason::Greylisted, &good(), "asks [Spf]");
    check(
        Reason::Greylisted,
        &known(Spf::None, Asked::No, Asked::No),
        "asks [Greylist]",
    );
    let text = "come again in 300 seconds";
    check(
        Reason::Greylisted,
        &known(Spf::None, Asked::No, wait.clone()),
        text,
    );
    check(
        Reason::Greylisted,
        &known(Spf::None, Asked::No, Asked::Known(None)),
        "clear",
    );
    check(
        Reason::Greylisted,
        &known(Spf::Pass, Asked::No, wait.clone()),
        "clear",
    );
    let allowed = listing(Outcome::Allowed);
    check(
        Reason::Greylisted,
        &known(Spf::Fail, allowed, wait.clone()),
        "clear",
    );
    let mut both = only(Reason::Greylisted, Action::Enforce);
    both.greylist_spf_pass = true;
    let step = step(&both, &known(Spf::Pass, Asked::No, wait));
    assert!(matches!(
        step,
        Step::Done(Decision {
            refusal: Some(_),
            ..
        })
    ));
}

#[test]
fn cheap_rules_refuse_before_anything_is_asked() {
    let Step::Done(decision) = step(&policy(), &evidence("192.0.2.1", "ann@sender.example")) else {
        panic!("it asks");
    };
    assert_eq!(decision.refusal.unwrap().reason, Reason::HeloSyntax);
}

#[test]
fn all_that_is_needed_is_asked_at_once_and_the_greylist_last() {
    let mut policy = policy();
    policy.greylist = Action::Enforce;
    let Step::Ask(questions) = step(&policy, &good()) else {
        panic!("it decides");
    };
    use Question::{Greylist, Listing, SenderDomain};
    assert_eq!(
        questions,
        [Listing, Question::ClientName, SenderDomain, Question::Spf]
    );
    let mut known = Evidence {
        listing: listing(Outcome::Neutral),
        client_name: Asked::Silent,
        spf: Asked::Known(Spf::None),
        ..good()
    };
    assert_eq!(step(&policy, &known), Step::Ask(vec![SenderDomain]));
    known.sender_domain = Asked::Known(MailDomain::Receives);
    assert_eq!(step(&policy, &known), Step::Ask(vec![Greylist]));
}

#[test]
fn an_early_refusal_does_not_wait_for_the_rest() {
    let listed = Evidence {
        listing: listing(Outcome::Listed),
        ..good()
    };
    let Step::Done(decision) = step(&policy(), &listed) else {
        panic!("it asks");
    };
    assert_eq!(decision.refusal.unwrap().reason, Reason::Listed);
}

#[test]
fn an_exempt_client_meets_no_rule_of_the_policy() {
    let exempt = Evidence {
        exempt: true,
        ..evidence("nonsense!", "root@pc")
    };
    let mut none = policy();
    none.listed = Action::Off;
    assert_eq!(step(&none, &exempt), Step::Done(Decision::default()));
    assert_eq!(step(&policy(), &exempt), Step::Ask(vec![Question::Listing]));
}

/// `action about lines`, a table each, named by their number.
fn tables(tables: &[(Action, config::Subject, &str)]) -> Arc<Tables> {
    use crate::policy::tables::Table;
    let read = tables
        .iter()
        .enumerate()
        .map(|(at, (action, about, lines))| {
            Table::read(&format!("t{at}"), *about, *action, lines).unwrap()
        });
    Arc::new(read.collect())
}

#[test]
fn tables_decide_before_the_rules_and_in_their_order() {
    use config::Subject::{Helo, Sender, SenderMx};
    let (enforce, warn) = (Action::Enforce, Action::Warn);
    let nonsense = evidence("192.0.2.1", "ann@sender.example");
    let check = |given: &[(Action, config::Subject, &str)], evidence: &Evidence, expected: &str| {
        let mut policy = only(Reason::HeloSyntax, enforce);
        policy.tables = tables(given);
        let said = match step(&policy, evidence) {
            Step::Ask(questions) => format!("asks {questions:?}"),
            Step::Done(decision) => {
                let refused = decision.refusal.map(|finding| finding.reason.label());
                let hold = decision.hold.as_deref().unwrap_or("");
                let named: Vec<_> = (decision.named.iter())
                    .map(|(rule, what)| format!("{rule} {what}"))
                    .collect();
                let warned = decision.warned.len();
                format!(
                    "{} {hold} {warned} {named:?}",
                    refused.unwrap_or("accepted")
                )
            }
        };
        assert_eq!(said, expected, "{given:?}");
    };
    let (permit, reject, hold) = (
        "@sender.example permit",
        "@sender.example reject",
        "@sender.example hold",
    );
    check(&[], &nonsense, "helo_syntax  0 []");
    check(
        &[(enforce, Sender, permit)],
        &nonsense,
        "accepted  0 [\"t0 permitted\"]",
    );
    check(
        &[(enforce, Sender, reject), (enforce, Sender, permit)],
        &good(),
        "table  0 [\"t0 refused\"]",
    );
    check(
        &[(enforce, Sender, permit), (enforce, Sender, reject)],
        &good(),
        "accepted  0 [\"t0 permitted\"]",
    );
    check(
        &[
            (enforce, Sender, hold),
            (enforce, Sender, hold),
            (enforce, Helo, ".sender.example reject"),
        ],
        &good(),
        "table t0 0 [\"t0 held\", \"t1 held\", \"t2 refused\"]",
    );
    check(
        &[(enforce, Sender, hold)],
        &good(),
        "accepted t0 0 [\"t0 held\"]",
    );
    check(
        &[(warn, Sender, reject), (warn, Sender, hold)],
        &good(),
        "accepted  2 [\"t0 warned\", \"t1 warned\"]",
    );
    check(&[(warn, Sender, permit)], &nonsense, "helo_syntax  0 []");
    check(&[(Action::Off, Sender, reject)], &good(), "accepted  0 []");
    // What may permit is known before a rule refuses; what cannot is not asked for then.
    check(
        &[(enforce, SenderMx, "192.0.2.0/24 permit")],
        &nonsense,
        "asks [Hosts(SenderMx)]",
    );
    check(
        &[(enforce, SenderMx, "192.0.2.0/24 reject")],
        &nonsense,
        "helo_syntax  0 []",
    );
    check(
        &[(enforce, SenderMx, "192.0.2.0/24 reject")],
        &good(),
        "asks [Hosts(SenderMx)]",
    );
    check(
        &[
            (enforce, SenderMx, "192.0.2.0/24 reject"),
            (enforce, Sender, permit),
        ],
        &nonsense,
        "asks [Hosts(SenderMx)]",
    );
    let mut exempt = good();
    exempt.exempt = true;
    check(&[(enforce, Sender, reject)], &exempt, "accepted  0 []");
}
