//! Tables of what is done with what was found.

use std::sync::LazyLock;

use super::*;
use crate::policy::{Actions, Word};
use crate::structure::File;
use crate::structure::banned::Banned;
use crate::trouble::{Cause, Kind};
use clamd::Finding::{Clean, Infected, Oversized, Unscanned};

const LEVELS: Levels = Levels {
    tag: 200,
    tag2: 500,
    kill: 1000,
};

fn missing<T>(daemon: Kind) -> Result<T, Trouble> {
    let cause = Cause::TimedOut;
    Err(Trouble { daemon, cause })
}

fn asked(virus: Option<clamd::Finding>, score: Option<i32>) -> Findings {
    let spam = |score_hundredths| spamd::Finding {
        score_hundredths,
        tests: vec!["A".into()],
    };
    Findings::Asked {
        inspection: Inspection::default(),
        virus: virus.map_or(missing(Kind::Clamd), Ok),
        spam: score.map_or(missing(Kind::Spamd), |score| Ok(spam(score))),
    }
}

/// Recipients: `.` an ordinary one, `p` a postmaster, `l` one whose domain lets spam of up to 20 points, all extensions and all
/// that cannot be scanned through, `k` one whose domain keeps malware in quarantine and wants spam again.
fn policy(recipient: u8) -> Policy<'static> {
    static LISTS: LazyLock<Banned> = LazyLock::new(Banned::default);
    static NONE: LazyLock<Banned> = LazyLock::new(|| Banned {
        extensions: Vec::new(),
        ..Banned::default()
    });
    let mut policy = Policy {
        banned: &LISTS,
        levels: LEVELS,
        actions: Actions::default(),
        no_kill_level: recipient == b'p',
    };
    match recipient {
        b'l' => {
            policy.banned = &NONE;
            policy.levels.kill = 2000;
            policy.actions.unscanned = Word(Action::Tag);
        }
        b'k' => {
            policy.actions.malware = Word(Action::Quarantine);
            policy.actions.spam = Word(Action::Defer);
        }
        _ => {}
    }
    policy
}

/// Outcome: the worst class and an action each (`+` pass, `t` tag, `d` defer, `q` quarantine, `x` refuse), or the daemon whose
/// answer is missing; live, then spooled.
fn check(findings: &Findings, recipients: &str, live: &str, spooled: &str) {
    let policies: Vec<Policy> = recipients.bytes().map(policy).collect();
    for (custody, expected) in [(Custody::Live, live), (Custody::Spooled, spooled)] {
        let outcome = match decide(findings, &policies, custody) {
            Ok(decision) => {
                let action = |outcome: &Outcome| match outcome.action {
                    Action::Pass => '+',
                    Action::Tag => 't',
                    Action::Defer => 'd',
                    Action::Quarantine => 'q',
                    Action::Refuse => 'x',
                };
                let actions: String = decision.outcomes.iter().map(action).collect();
                format!("{} {actions}", decision.worst().0.as_str())
            }
            Err(trouble) => trouble.daemon.as_str().to_owned(),
        };
        assert_eq!(outcome, expected, "{findings:?} {recipients} {custody:?}");
    }
}

#[test]
fn what_is_done_with_what_was_found() {
    let infected = || Some(Infected("Eicar".into()));
    let unscanned = || Some(Unscanned("Encrypted".into()));
    let oversized = Some(Oversized("60000000 bytes".into()));
    let clean = |score| asked(Some(Clean), Some(score));
    check(&clean(499), "..", "clean ++", "clean ++");
    check(&clean(-100), "p", "clean +", "clean +");
    check(&clean(500), "..", "spammy tt", "spammy tt");
    check(&clean(999), ".", "spammy t", "spammy t");
    check(&clean(1000), "..", "spam xx", "spam qq");
    check(&clean(100_420), ".p.", "spam xtx", "spam qtq");
    check(&clean(1500), ".lk", "spam xtd", "spam qtd");
    check(
        &asked(infected(), Some(0)),
        ".pl",
        "malware xxx",
        "malware qqq",
    );
    check(
        &asked(infected(), Some(2000)),
        ".k",
        "malware xq",
        "malware qq",
    );
    check(&asked(infected(), None), ".", "malware x", "malware q");
    check(
        &asked(unscanned(), Some(0)),
        ".pl",
        "unscanned xxt",
        "unscanned qqt",
    );
    check(&asked(unscanned(), None), ".", "unscanned x", "unscanned q");
    check(&asked(unscanned(), Some(2000)), ".p", "spam xx", "spam qq");
    check(
        &asked(oversized, Some(0)),
        ".",
        "oversized x",
        "oversized q",
    );
    let deep = Findings::Objection(Objection::TooDeep(50));
    check(&deep, ".pl", "unscanned xxt", "unscanned qqt");
    let ambiguous = Findings::Objection(Objection::Ambiguous("two boundaries"));
    check(&ambiguous, ".pl", "ambiguous xxx", "ambiguous qqq");
}

#[test]
fn a_missing_answer_defers_where_it_could_matter() {
    check(&asked(None, Some(0)), ".", "clamd", "clamd");
    check(&asked(Some(Clean), None), ".", "spamd", "spamd");
    check(&asked(None, None), ".", "clamd", "clamd");
    // Refused whatever clamd says; but what is kept, or goes to postmaster, must have been seen by clamd.
    check(&asked(None, Some(1000)), "..", "spam xx", "clamd");
    check(&asked(None, Some(1000)), ".p", "clamd", "clamd");
    // One domain lets it through unscanned, so that its score matters.
    let unscanned = Some(Unscanned("Encrypted".into()));
    check(&asked(unscanned, None), ".l", "spamd", "spamd");
}

#[test]
fn structure_has_its_classes() {
    let with = |change: fn(&mut Inspection), score| {
        let mut inspection = Inspection::default();
        change(&mut inspection);
        let spam = spamd::Finding {
            score_hundredths: score,
            tests: Vec::new(),
        };
        Findings::Asked {
            inspection,
            virus: Ok(Clean),
            spam: Ok(spam),
        }
    };
    let banned = |found: &mut Inspection| {
        let header = b"Content-Disposition: attachment; filename=a.exe\r\n";
        let names = mail::structure::names::Names::read(header);
        found.files.push(File {
            names,
            ..File::default()
        });
    };
    check(&with(banned, 0), ".pl", "banned xx+", "banned qq+");
    check(&with(banned, 1500), ".pl", "banned xxt", "banned qqt");
    let ambiguous = |found: &mut Inspection| found.ambiguous = Some("two names".into());
    check(&with(ambiguous, 0), ".l", "ambiguous xx", "ambiguous qq");
    let encrypted = |found: &mut Inspection| found.unscanned = Some("encrypted".into());
    check(&with(encrypted, 0), ".l", "unscanned xt", "unscanned qt");
    let header = |found: &mut Inspection| found.bad_header = Some("no Date".into());
    check(&with(header, 0), ".", "bad_header t", "bad_header t");
    check(&with(header, 600), ".", "spammy t", "spammy t");
}

#[test]
fn a_verdict_carries_all_that_was_found() {
    let findings = asked(Some(Unscanned("Encrypted".into())), Some(2000));
    let policies = [policy(b'.'), policy(b'p')];
    let decision = decide(&findings, &policies, Custody::Live).unwrap();
    let found = |at: usize| -> Vec<Class> { decision.outcomes[at].found.iter().collect() };
    assert_eq!(found(0), [Class::Unscanned, Class::Spam]);
    assert_eq!(found(1), [Class::Spammy, Class::Unscanned]);
    assert_eq!(decision.outcomes[1].class, Class::Unscanned);
    assert_eq!(&*decision.outcomes[1].reason, "Encrypted");
}

#[test]
fn role_addresses() {
    for (local, expected) in [
        ("postmaster", true),
        ("Abuse", true),
        ("SECURITY", true),
        ("postmaster2", false),
        ("", false),
    ] {
        assert_eq!(meets_no_kill_level(local), expected, "{local}");
    }
}
