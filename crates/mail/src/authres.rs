//! Authentication-Results (RFC 8601) as all hosts of a site treat it: knowing what strangers wrote in our name, and writing a value.
//! What was found out is for those who found it.

use crate::Domain;
use crate::header::Field;

/// The field's name.
pub const NAME: &str = "Authentication-Results";

/// Whether a field claims to be this host's, in whatever comments, folding, quotes and case (RFC 8601 5). One that cannot be read is no
/// claim anybody will believe, but it is taken off too: readers differ in what they can read.
pub fn claims(field: &Field<'_>, host: &Domain) -> bool {
    if !field.is(NAME) {
        return false;
    }
    match identifier(&field.text()) {
        Some(id) => {
            let bare = id.trim_end_matches('.');
            Domain::parse(bare).map_or(bare.eq_ignore_ascii_case(host.as_str()), |id| id == *host)
        }
        None => true,
    }
}

/// The authserv-id: the first token or quoted string that is no comment.
fn identifier(text: &str) -> Option<String> {
    let mut rest = text.chars().peekable();
    let (mut depth, mut id) = (0_usize, String::new());
    while let Some(c) = rest.next() {
        match c {
            '\\' if depth > 0 => {
                rest.next()?;
            }
            '(' if id.is_empty() || depth > 0 => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            '"' if id.is_empty() => return quoted(&mut rest),
            c if c.is_whitespace() && id.is_empty() => {}
            c if c.is_whitespace() || matches!(c, ';' | '(' | '/') => break,
            c => id.push(c),
        }
    }
    (depth == 0 && !id.is_empty()).then_some(id)
}

fn quoted(rest: &mut impl Iterator<Item = char>) -> Option<String> {
    let mut id = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(id.trim().to_owned()),
            '\\' => id.push(rest.next()?),
            c => id.push(c),
        }
    }
}

/// A value as the grammar has it (RFC 2045 5.1); what a stranger said may hold anything.
pub fn value(text: &str) -> String {
    let token = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if !text.is_empty() && text.chars().all(token) {
        return text.to_owned();
    }
    let plain = text
        .chars()
        .take(255)
        .filter(|c| c.is_ascii_graphic() && !"\"\\".contains(*c));
    format!("\"{}\"", plain.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header;

    #[test]
    fn forgeries_are_known_in_every_form() {
        let host = Domain::parse("mx1.example").unwrap();
        for (field, expected) in [
            ("Authentication-Results: mx1.example; spf=pass", true),
            ("authentication-results:mx1.example;spf=pass", true),
            ("Authentication-Results: MX1.Example 1; spf=pass", true),
            ("Authentication-Results: mx1.example.; spf=pass", true),
            (
                "Authentication-Results:\r\n mx1.example;\r\n spf=pass",
                true,
            ),
            (
                "Authentication-Results: (a (nested) \\) one) mx1.example; spf=pass",
                true,
            ),
            ("Authentication-Results: mx1.example(x); spf=pass", true),
            ("Authentication-Results: \"mx1.example\"; spf=pass", true),
            ("Authentication-Results: \"mx1\\.example\"; spf=pass", true),
            (
                "Authentication-Results: (never closed mx1.example; spf=pass",
                true,
            ),
            ("Authentication-Results:", true),
            ("Authentication-Results: other.example; spf=pass", false),
            (
                "Authentication-Results: (mx1.example) other.example; spf=pass",
                false,
            ),
            ("Authentication-Results: mx1.example.org; spf=pass", false),
            ("X-Authentication-Results: mx1.example; spf=pass", false),
        ] {
            let message = format!("{field}\r\n\r\n");
            let field = header::fields(message.as_bytes()).next().unwrap();
            assert_eq!(claims(&field, &host), expected, "{message:?}");
        }
    }
}
