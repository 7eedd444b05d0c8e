//! The scanner's own header fields, in SpamAssassin's and amavis' manner, and taking strangers' ones out.
//!
//! Every other octet of a message stays as it came: what its sender signed stays valid.

use bytes::Bytes;
use mail::Domain;
use mail::authres;
use mail::header;
use mail::trace;
use mail::verdict::{Class, Verdict};

/// Stars in `X-Spam-Level` at most, as in SpamAssassin: one a point, so that Sieve rules can count them.
const LEVEL_STARS_MAX: i32 = 50;

/// The field that tells what else was found.
const CLASS: &str = "X-Mailflow-Class";

/// What a stranger could have written to look as if we had scanned: out with it. An mbox separator on top too, since below our
/// fields it would end the header.
pub fn without_strangers(message: &Bytes, authserv_id: &str) -> Bytes {
    let own = Domain::parse(authserv_id).ok();
    let message = message.slice(header::mbox_line(message)..);
    header::without(&message, |field| {
        let has = |prefix: &str| {
            field.name.len() >= prefix.len()
                && field.name[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes())
        };
        let claims = || own.as_ref().is_some_and(|own| authres::claims(field, own));
        has("X-Spam-") || has("X-Virus-") || field.is(CLASS) || claims()
    })
}

/// The message without any trace field.
pub fn without_trace(message: &Bytes) -> Bytes {
    header::without(message, |field| field.is(trace::NAME))
}

/// Points with one decimal, as SpamAssassin writes them; a hundredth is never rounded up to a level it did not reach.
pub fn points(hundredths: i32) -> String {
    let tenths = i64::from(hundredths).div_euclid(10);
    let sign = if tenths < 0 { "-" } else { "" };
    format!("{sign}{}.{}", tenths.abs() / 10, tenths.abs() % 10)
}

/// The fields for a verdict: `X-Spam-Status` where there is a score, more of `X-Spam-*` from the tag level on, `X-Virus-Scanned`
/// always, and `X-Mailflow-Class` where something was found that no score and no name of malware tells.
pub fn render(verdict: &Verdict, tag: i32, hostname: &str) -> String {
    let mut out = String::new();
    if let Some(score) = verdict.score_hundredths {
        let is_spam = score >= verdict.required_hundredths;
        if score >= tag {
            let stars = (score / 100).clamp(0, LEVEL_STARS_MAX) as usize;
            out += &header::fold("X-Spam-Flag", if is_spam { "YES" } else { "NO" });
            out += &header::fold("X-Spam-Score", &points(score));
            if stars > 0 {
                out += &header::fold("X-Spam-Level", &"*".repeat(stars));
            }
        }
        out += &header::fold("X-Spam-Status", &status(verdict, score, is_spam));
    }
    let unseen = [Class::Unscanned, Class::Oversized];
    let asked_nobody = verdict.class == Class::Ambiguous && verdict.score_hundredths.is_none();
    let (signatures, reason) = (&verdict.signatures, &verdict.reason);
    let virus = if verdict.class == Class::Malware {
        format!("{signatures} at {hostname}, found {reason}")
    } else if asked_nobody || unseen.contains(&verdict.class) {
        format!("no, at {hostname}: {reason}")
    } else if verdict.found.has_any(&unseen) {
        format!("no, at {hostname}")
    } else {
        format!("{signatures} at {hostname}")
    };
    out += &header::fold("X-Virus-Scanned", &virus);
    out + &classes(verdict)
}

/// `bad_header, banned; invoice.exe`.
fn classes(verdict: &Verdict) -> String {
    let told_elsewhere = [Class::Spammy, Class::Spam, Class::Malware];
    let others = verdict
        .found
        .iter()
        .filter(|class| !told_elsewhere.contains(class));
    let words: Vec<&str> = others.map(Class::as_str).collect();
    match (words.as_slice(), &*verdict.reason) {
        ([], _) => String::new(),
        (words, "") => header::fold(CLASS, &words.join(", ")),
        (words, reason) => header::fold(CLASS, &format!("{}; {reason}", words.join(", "))),
    }
}

/// `Yes, score=7.3 required=5.0 tests=A,B,C`. A blank after some commas lets a long list be folded.
fn status(verdict: &Verdict, score: i32, is_spam: bool) -> String {
    let word = if is_spam { "Yes" } else { "No" };
    let required = points(verdict.required_hundredths);
    let mut status = format!("{word}, score={} required={required} tests=", points(score));
    if verdict.tests.is_empty() {
        status += "none";
    }
    let mut line = 0;
    for (index, test) in verdict.tests.iter().enumerate() {
        if index > 0 {
            status.push(',');
            line += 1;
            if line + test.len() > 60 {
                status.push(' ');
                line = 0;
            }
        }
        status += test;
        line += test.len();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Timestamp;
    use mail::verdict::Action;

    fn verdict(class: Class, score: Option<i32>, tests: &[&str], reason: &str) -> Verdict {
        Verdict {
            class,
            found: [class].into_iter().collect(),
            action: Action::Tag,
            score_hundredths: score,
            required_hundredths: 500,
            tests: tests.iter().map(|&test| test.into()).collect(),
            reason: reason.into(),
            rules: "1".into(),
            signatures: "ClamAV 1.4.6/27771".into(),
            time: Timestamp(0),
        }
    }

    fn check(verdict: Verdict, expected: &str) {
        assert_eq!(
            render(&verdict, 200, "scan.example"),
            expected.replace('\n', "\r\n")
        );
    }

    #[test]
    fn fields_of_verdicts() {
        check(
            verdict(Class::Clean, Some(-10), &[], ""),
            "X-Spam-Status: No, score=-0.1 required=5.0 tests=none\n\
             X-Virus-Scanned: ClamAV 1.4.6/27771 at scan.example\n",
        );
        check(
            verdict(Class::Spammy, Some(730), &["A", "B_2"], ""),
            "X-Spam-Flag: YES\nX-Spam-Score: 7.3\nX-Spam-Level: *******\n\
             X-Spam-Status: Yes, score=7.3 required=5.0 tests=A,B_2\n\
             X-Virus-Scanned: ClamAV 1.4.6/27771 at scan.example\n",
        );
        check(
            verdict(Class::Malware, None, &[], "Eicar"),
            "X-Virus-Scanned: ClamAV 1.4.6/27771 at scan.example, found Eicar\n",
        );
        check(
            verdict(Class::Unscanned, None, &[], "too deep"),
            "X-Virus-Scanned: no, at scan.example: too deep\nX-Mailflow-Class: unscanned; too deep\n",
        );
        check(
            verdict(Class::Spammy, Some(200), &[], ""),
            "X-Spam-Flag: NO\nX-Spam-Score: 2.0\nX-Spam-Level: **\n\
             X-Spam-Status: No, score=2.0 required=5.0 tests=none\n\
             X-Virus-Scanned: ClamAV 1.4.6/27771 at scan.example\n",
        );
        let mut both = verdict(Class::Banned, Some(0), &[], "a.exe");
        both.found.add(Class::BadHeader);
        check(
            both,
            "X-Spam-Status: No, score=0.0 required=5.0 tests=none\n\
             X-Virus-Scanned: ClamAV 1.4.6/27771 at scan.example\n\
             X-Mailflow-Class: bad_header, banned; a.exe\n",
        );
    }

    #[test]
    fn stars_are_bounded() {
        let text = render(&verdict(Class::Spam, Some(100_420), &["GTUBE"], ""), 0, "h");
        assert!(text.contains(&format!("X-Spam-Level: {}\r\n", "*".repeat(50))));
        assert!(text.contains("X-Spam-Score: 1004.2\r\n"));
    }

    #[test]
    fn many_rules_stay_on_lines_of_legal_length() {
        let names: Vec<String> = (0..200)
            .map(|n| format!("A_RATHER_LONG_RULE_NAME_{n}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = render(&verdict(Class::Spammy, Some(600), &names, ""), 0, "h");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let unfolded = text.replace("\r\n ", "").replace(' ', "");
        assert!(unfolded.contains(&names.join(",")), "{unfolded}");
    }

    #[test]
    fn points_are_never_rounded_up() {
        for (hundredths, text) in [
            (0, "0.0"),
            (499, "4.9"),
            (500, "5.0"),
            (-10, "-0.1"),
            (-100, "-1.0"),
            (100_420, "1004.2"),
        ] {
            assert_eq!(points(hundredths), text);
        }
    }

    #[test]
    fn strangers_fields_go_and_nothing_else() {
        let message = "Received: a\r\nAuthentication-Results: scan.example; dkim=pass\r\nX-Spam-Flag: NO\r\nx-mailflow-class: clean\r\nx-virus-scanned: yes,\r\n really\r\nX-Spam: keep\r\n\
                       X-SPAM-Level:\r\nSubject: X-Spam-Flag: NO\r\n\r\nX-Spam-Flag: in the body\r\n";
        let kept = "Received: a\r\nX-Spam: keep\r\nSubject: X-Spam-Flag: NO\r\n\r\nX-Spam-Flag: in the body\r\n";
        let result = without_strangers(&Bytes::from_static(message.as_bytes()), "scan.example");
        assert_eq!(std::str::from_utf8(&result).unwrap(), kept);
    }
}
