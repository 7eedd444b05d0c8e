//! Which answers of a list count. Pure. A list answers an address in 127.0.0.0/8; what it means differs from list to list, and
//! some answers are errors that must never be taken for a listing (RFC 5782 2.1, and the operators' own pages).

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `127.0.0.[2..11;14]`: in each place a number, or numbers and ranges in brackets (postconf(5), postscreen_dnsbl_sites).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Codes {
    text: Box<str>,
    places: [Vec<RangeInclusive<u8>>; 4],
}

impl Codes {
    /// Whether an answer counts. An error never does, whatever the filter says.
    pub fn count(&self, answer: Ipv4Addr) -> bool {
        let mut places = self.places.iter().zip(answer.octets());
        !is_error(answer)
            && places.all(|(ranges, octet)| ranges.iter().any(|range| range.contains(&octet)))
    }
}

/// Answers that are none: outside 127.0.0.0/8 (a domain that was sold answers any name), 127.0.0.1 (a resolver that invents
/// answers), and 127.255.255.0/24 ("you ask through a public resolver", "too many queries").
pub fn is_error(answer: Ipv4Addr) -> bool {
    let [first, second, third, _] = answer.octets();
    first != 127 || answer == Ipv4Addr::LOCALHOST || (second, third) == (255, 255)
}

impl Default for Codes {
    /// 127.0.0.2 and above; what lists of clients answer.
    fn default() -> Self {
        "127.0.0.[2..254]".parse().expect("it is one")
    }
}

impl FromStr for Codes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} is no filter of answers: 127.0.0.2 or 127.0.0.[2..11;14] is one");
        let mut places = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (place, after) = match rest.strip_prefix('[') {
                Some(inner) => inner.split_once(']').ok_or_else(bad)?,
                None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
            };
            let ranges = place.split(';').map(|range| {
                let (first, last) = range.split_once("..").unwrap_or((range, range));
                let (first, last) = (first.parse().ok()?, last.parse().ok()?);
                (first <= last).then_some(first..=last)
            });
            places.push(ranges.collect::<Option<Vec<_>>>().ok_or_else(bad)?);
            rest = match after.strip_prefix('.') {
                Some("") => return Err(bad()),
                Some(more) => more,
                None if after.is_empty() => "",
                None => return Err(bad()),
            };
        }
        Ok(Self {
            text: text.into(),
            places: places.try_into().map_err(|_| bad())?,
        })
    }
}

impl TryFrom<String> for Codes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Codes> for String {
    fn from(codes: Codes) -> Self {
        codes.text.into()
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_count_what_they_name_and_never_an_error() {
        for (filter, answer, expected) in [
            ("127.0.0.2", "127.0.0.2", true),
            ("127.0.0.2", "127.0.0.3", false),
            ("127.0.0.[2..11;14]", "127.0.0.11", true),
            ("127.0.0.[2..11;14]", "127.0.0.12", false),
            ("127.0.0.[2..11;14]", "127.0.0.14", true),
            ("127.0.[0..255].[1..3]", "127.0.10.3", true),
            ("127.0.[0..255].[0..255]", "127.0.0.1", false),
            ("127.[0..255].[0..255].[0..255]", "127.255.255.254", false),
            ("127.[0..255].[0..255].[0..255]", "127.255.254.2", true),
            ("[0..255].[0..255].[0..255].[0..255]", "192.0.2.1", false),
        ] {
            let codes: Codes = filter.parse().unwrap();
            assert_eq!(
                codes.count(answer.parse().unwrap()),
                expected,
                "{answer} by {filter}"
            );
            assert_eq!(String::from(codes), filter);
        }
        assert!(Codes::default().count(Ipv4Addr::new(127, 0, 0, 4)));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "",
            "127",
            "127.0.0",
            "127.0.0.2.1",
            "127.0.0.",
            ".127.0.0.2",
            "127.0.0.256",
            "127.0.0.[2..]",
            "127.0.0.[9..2]",
            "127.0.0.[2",
            "127.0.0.[2]3",
            "127.0.0.x",
        ] {
            assert!(text.parse::<Codes>().is_err(), "{text:?}");
        }
    }
}
