//! Macro strings (RFC 7208 7): read once with their record, expanded for one client and sender. Pure.

use std::net::IpAddr;

use super::record::Malformed;

/// Octets of a name in the DNS, without the root dot; an expansion loses labels on the left until it fits (7.3).
const NAME_BYTES_MAX: usize = 253;
/// Octets of one of its labels.
const LABEL_BYTES_MAX: usize = 63;

/// Text with macros in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacroString(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Macro(Macro),
}

/// `%{d2r-}`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Macro {
    /// In lower case.
    letter: char,
    /// It was in upper case: what it stands for is escaped as in a URL.
    escape: bool,
    /// So many parts are kept, of the right.
    parts: usize,
    reverse: bool,
    delimiters: String,
}

/// What macros stand for.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The reverse-path, or postmaster at HELO.
    pub sender: &'a str,
    /// HELO.
    pub helo: &'a str,
    /// The client; IPv4-mapped IPv6 is IPv4.
    pub client: IpAddr,
    /// The domain whose record is evaluated.
    pub domain: &'a str,
    /// The client's confirmed name, where [`MacroString::asks_name`].
    pub name: &'a str,
}

impl MacroString {
    /// Reads a domain-spec: it ends in a macro, or in a label that can be a top-level one (7.1).
    pub fn domain(text: &str) -> Result<Self, Malformed> {
        let read = Self::read(text, "slodiphv")?;
        let macro_ends = matches!(read.0.last(), Some(Part::Macro(_)))
            || ["%%", "%_", "%-"].iter().any(|end| text.ends_with(end));
        match macro_ends || ends_in_top_label(text) {
            true => Ok(read),
            false => Err(Malformed),
        }
    }

    /// Reads what a modifier that we do not know may hold.
    pub fn any(text: &str) -> Result<Self, Malformed> {
        Self::read(text, "slodiphvcrt")
    }

    fn read(mut rest: &str, letters: &str) -> Result<Self, Malformed> {
        let mut parts = Vec::new();
        let mut text = String::new();
        while let Some(at) = rest.find('%') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let kind = rest.chars().next().ok_or(Malformed)?;
            rest = &rest[kind.len_utf8()..];
            match kind {
                '%' => text.push('%'),
                '_' => text.push(' '),
                '-' => text.push_str("%20"),
                '{' => {
                    let (body, after) = rest.split_once('}').ok_or(Malformed)?;
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text)));
                    }
                    parts.push(Part::Macro(Macro::read(body, letters)?));
                    rest = after;
                }
                _ => return Err(Malformed),
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self(parts))
    }

    /// Whether the client's confirmed name is needed.
    pub fn asks_name(&self) -> bool {
        let asks = |part: &Part| matches!(part, Part::Macro(of) if of.letter == 'p');
        self.0.iter().any(asks)
    }

    /// For this client and sender.
    pub fn expand(&self, values: Values<'_>) -> String {
        let mut expanded = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => expanded.push_str(text),
                Part::Macro(of) => of.expand(values, &mut expanded),
            }
        }
        expanded
    }
}

impl Macro {
    fn read(body: &str, letters: &str) -> Result<Self, Malformed> {
        let letter = body.chars().next().ok_or(Malformed)?;
        let lower = letter.to_ascii_lowercase();
        if !letters.contains(lower) {
            return Err(Malformed);
        }
        let rest = &body[1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = rest.split_at(digits);
        let parts = match digits {
            "" => usize::MAX,
            // More than any name has is as good as all.
            digits => digits.parse().unwrap_or(usize::MAX),
        };
        let reverse = rest.starts_with(['r', 'R']);
        let delimiters = if reverse { &rest[1..] } else { rest };
        if parts == 0 || !delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
            return Err(Malformed);
        }
        Ok(Self {
            letter: lower,
            escape: letter.is_ascii_uppercase(),
            parts,
            reverse,
            delimiters: if delimiters.is_empty() {
                "."
            } else {
                delimiters
            }
            .into(),
        })
    }

    fn expand(&self, values: Values<'_>, into: &mut String) {
        let value = self.value(values);
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.reverse {
            parts.reverse();
        }
        let value = parts[parts.len().saturating_sub(self.parts)..].join(".");
        if !self.escape {
            into.push_str(&value);
            return;
        }
        for byte in value.bytes() {
            match byte {
                b'-' | b'.' | b'_' | b'~' => into.push(byte.into()),
                byte if byte.is_ascii_alphanumeric() => into.push(byte.into()),
                byte => into.push_str(&format!("%{byte:02X}")),
            }
        }
    }

    fn value(&self, values: Values<'_>) -> String {
        let (local, domain) = values.sender.rsplit_once('@').unwrap_or_default();
        match self.letter {
            's' => values.sender.into(),
            'l' => local.into(),
            'o' => domain.into(),
            'd' => values.domain.into(),
            'i' => dotted(values.client),
            'p' => values.name.into(),
            'h' => values.helo.into(),
            'v' if values.client.is_ipv4() => "in-addr".into(),
            'v' => "ip6".into(),
            // c, r and t are for explanations, which are not asked for.
            _ => String::new(),
        }
    }
}

/// Octets, or nibbles, with dots between them.
fn dotted(client: IpAddr) -> String {
    match client {
        IpAddr::V4(client) => client.to_string(),
        IpAddr::V6(client) => {
            let octets = client.octets().into_iter();
            let nibbles = octets.flat_map(|octet| [octet >> 4, octet & 15]);
            let nibbles: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            nibbles.join(".")
        }
    }
}

fn ends_in_top_label(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let Some((_, label)) = text.rsplit_once('.') else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    label.bytes().all(plain)
        && !label.bytes().all(|byte| byte.is_ascii_digit())
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// The labels of a name that can be asked for, those on the left left out where they are too many; none when it cannot.
pub fn labels(name: &str) -> Option<Vec<&str>> {
    let mut name = name.strip_suffix('.').unwrap_or(name);
    while name.len() > NAME_BYTES_MAX {
        (_, name) = name.split_once('.')?;
    }
    let labels: Vec<&str> = name.split('.').collect();
    let fits = |label: &&str| (1..=LABEL_BYTES_MAX).contains(&label.len());
    labels.iter().all(fits).then_some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sender and the expansions of RFC 7208 7.4.
    const VALUES: Values<'static> = Values {
        sender: "strong-bad@email.example.com",
        helo: "mx.example.org",
        client: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3)),
        domain: "email.example.com",
        name: "mx.example.org",
    };

    #[test]
    fn macros_expand() {
        for (text, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l-}", "strong.bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            (
                "%{ir}.%{v}._spf.%{d2}",
                "3.2.0.192.in-addr._spf.example.com",
            ),
            ("%{S}%_%%%-", "strong-bad%40email.example.com %%20"),
            ("x.%{p}.%{h}", "x.mx.example.org.mx.example.org"),
        ] {
            let read = MacroString::any(text).unwrap();
            assert_eq!(read.expand(VALUES), expected, "{text}");
        }
        let client = "2001:db8::cb01".parse().unwrap();
        let read = MacroString::domain("%{ir}.%{v}._spf.%{d2}").unwrap();
        assert_eq!(
            read.expand(Values { client, ..VALUES }),
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
        );
    }

    #[test]
    fn what_is_no_macro_or_no_domain_is_refused() {
        for text in [
            "%", "%a", "%{", "%{}", "%{d", "%{x}", "%{d0}", "%{d2x}", "%{c}", "abc", "1.2.3.4",
            "a..", "a.b-", "a.-b", "", ".",
        ] {
            assert_eq!(MacroString::domain(text), Err(Malformed), "{text:?}");
        }
        for text in [
            "a.b",
            "a.b.",
            "%{d}",
            "a.%%",
            "foo:bar/baz.example.com",
            "a.1-1",
        ] {
            assert!(MacroString::domain(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_long_name_loses_labels_on_the_left_and_a_bad_one_is_none() {
        let label = "x".repeat(63);
        let long = [label.as_str(); 5].join(".");
        assert_eq!(labels(&long).unwrap().len(), 3);
        for name in ["", ".", "a..b", ".a", &"x".repeat(64), &"x".repeat(300)] {
            assert_eq!(labels(name), None, "{name}");
        }
        assert_eq!(labels("a.b.").unwrap(), ["a", "b"]);
    }
}
