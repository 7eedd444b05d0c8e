//! From the next hop's replies, one a recipient, to the one thing that is said to the client (design, invariant 7). Pure.

use mail::verdict::Token;
use mail::{Reply, Severity};

/// What is to be done after a pass that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// At least one recipient was accepted and none deferred: 250. `refused` are listed.
    Passed {
        /// Places of those that were refused.
        refused: Vec<usize>,
    },
    /// Every recipient was refused: the client is told so, in these words.
    Refuse(Reply),
    /// Some are deferred: they are spooled, then 250. `refused` are listed.
    Spool {
        /// Places of those that are spooled.
        kept: Vec<usize>,
        /// Places of those that were refused.
        refused: Vec<usize>,
        /// How many were accepted.
        accepted: usize,
        /// The signed verdict that came with a deferral.
        token: Option<String>,
    },
}

/// What one reply means for its recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Accepted,
    Refused,
    Deferred,
}

/// Makes the plan for `recipients` recipients; one without a reply counts as deferred.
pub fn plan(replies: &[Reply], recipients: usize) -> Plan {
    let (mut kept, mut refused, mut accepted) = (Vec::new(), Vec::new(), 0);
    for index in 0..recipients {
        match replies.get(index).map_or(Fate::Deferred, fate) {
            Fate::Accepted => accepted += 1,
            Fate::Refused => refused.push(index),
            Fate::Deferred => kept.push(index),
        }
    }
    if !kept.is_empty() {
        return Plan::Spool {
            token: token(kept.iter().filter_map(|index| replies.get(*index))),
            kept,
            refused,
            accepted,
        };
    }
    if accepted == 0 {
        return Plan::Refuse(most_telling(replies));
    }
    Plan::Passed { refused }
}

/// The verdict that one of the replies carries.
pub fn token<'a>(mut replies: impl Iterator<Item = &'a Reply>) -> Option<String> {
    replies.find_map(|reply| Token::from_lines(&reply.lines))
}

fn fate(reply: &Reply) -> Fate {
    match reply.severity() {
        Severity::Positive => Fate::Accepted,
        Severity::Transient => Fate::Deferred,
        Severity::Permanent if is_about_the_hop(reply) => Fate::Deferred,
        Severity::Permanent => Fate::Refused,
    }
}

/// A 5xx that speaks of the dialogue between two hosts of ours, not of the mail: syntax and sequence (500-504), no mail service
/// here (521), STARTTLS or authentication wanted (530, 538). It is ours to repair and no reason to refuse anybody's mail.
pub fn is_about_the_hop(reply: &Reply) -> bool {
    matches!(reply.code, 500..=504 | 521 | 530 | 538)
}

/// The refusal that says most: about the content before about a mailbox, about a mailbox before the rest; the first of equals.
fn most_telling(refusals: &[Reply]) -> Reply {
    let rank = |reply: &Reply| match reply.enhanced.map(|enhanced| enhanced.1) {
        Some(7) => 0,
        Some(6) => 1,
        Some(1 | 2) => 2,
        _ => 3,
    };
    let best = refusals.iter().min_by_key(|reply| rank(reply));
    best.cloned()
        .unwrap_or_else(|| Reply::new(554, (5, 0, 0), "refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        let (code, rest) = text.split_once(' ').unwrap();
        let (enhanced, text) = rest.split_once(' ').unwrap();
        let mut digits = enhanced.split('.').map(|part| part.parse().unwrap());
        let (class, subject, detail) = (
            digits.next().unwrap() as u8,
            digits.next().unwrap(),
            digits.next().unwrap(),
        );
        Reply::new(code.parse().unwrap(), (class, subject, detail), text)
    }

    fn check(replies: &[&str], expected: Plan) {
        let parsed: Vec<Reply> = replies.iter().map(|text| reply(text)).collect();
        assert_eq!(plan(&parsed, parsed.len()), expected, "{replies:?}");
    }

    fn passed(refused: &[usize]) -> Plan {
        Plan::Passed {
            refused: refused.to_vec(),
        }
    }

    fn spool(kept: &[usize], refused: &[usize], accepted: usize) -> Plan {
        Plan::Spool {
            kept: kept.to_vec(),
            refused: refused.to_vec(),
            accepted,
            token: None,
        }
    }

    const OK: &str = "250 2.0.0 ok";
    const SPAM: &str = "550 5.7.1 spam";
    const USER: &str = "550 5.1.1 no such user";
    const LATER: &str = "451 4.3.0 later";

    #[test]
    fn every_mix_has_one_answer() {
        check(&[OK], passed(&[]));
        check(&[OK, OK], passed(&[]));
        check(&[OK, SPAM], passed(&[1]));
        check(&[USER, OK, SPAM], passed(&[0, 2]));
        check(&[SPAM], Plan::Refuse(reply(SPAM)));
        check(&[USER, SPAM], Plan::Refuse(reply(SPAM)));
        check(&[USER, USER], Plan::Refuse(reply(USER)));
        check(&[LATER], spool(&[0], &[], 0));
        check(&[OK, LATER], spool(&[1], &[], 1));
        check(&[SPAM, LATER], spool(&[1], &[0], 0));
        check(&[OK, SPAM, LATER, LATER], spool(&[2, 3], &[1], 1));
    }

    #[test]
    fn trouble_between_two_hosts_of_ours_refuses_nobody() {
        for text in [
            "500 5.5.2 what?",
            "503 5.5.1 MAIL first",
            "521 5.3.2 no mail here",
            "530 5.7.0 STARTTLS first",
        ] {
            check(&[text], spool(&[0], &[], 0));
        }
        check(
            &["552 5.3.4 too big"],
            Plan::Refuse(reply("552 5.3.4 too big")),
        );
        check(&["554 5.4.6 loop"], Plan::Refuse(reply("554 5.4.6 loop")));
    }

    #[test]
    fn a_missing_reply_is_a_deferral() {
        assert_eq!(plan(&[], 2), spool(&[0, 1], &[], 0));
        assert_eq!(plan(&[reply(OK)], 2), spool(&[1], &[], 1));
    }

    #[test]
    fn the_verdict_that_comes_with_a_deferral_is_kept() {
        let mut later = reply(LATER);
        later.lines = Token::to_lines("some-token");
        later.lines.push("list host cannot be reached".into());
        match plan(&[reply(OK), later], 2) {
            Plan::Spool { token, .. } => assert_eq!(token.as_deref(), Some("some-token")),
            other => panic!("{other:?}"),
        }
    }
}
