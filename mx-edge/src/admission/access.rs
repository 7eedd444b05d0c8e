//! The access list: networks and what is done with clients in them; the first line that has a client decides. Pure.
//!
//! ```text
//! 192.0.2.0/24     permit
//! 203.0.113.7      reject until=2026-12-01T00:00:00Z sends nothing but bounces
//! 203.0.113.0/24   drop
//! 198.51.100.0/24  warn      # would be rejected
//! 2001:db8::/32    dunno     # looked for no further
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use mail::Timestamp;
use serde::{Deserialize, Serialize};

use crate::network::{Index, Network};

/// Lines of all files together.
pub const ENTRIES_MAX: usize = 200_000;
/// One file.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What is done with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// It skips every test of clients and every limit on them.
    Permit,
    /// Its recipients are refused.
    Reject,
    /// It is shown out before it is greeted.
    Drop,
    /// It is logged and counted for whom it writes to, as `reject` would refuse it.
    Warn,
    /// Nothing; what stands below does not count for it.
    Dunno,
}

impl Word {
    /// As lists have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Warn => "warn",
            Self::Dunno => "dunno",
        }
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.to_ascii_lowercase().as_str() {
            "permit" | "ok" | "allow" => Ok(Self::Permit),
            "reject" | "deny" => Ok(Self::Reject),
            "drop" => Ok(Self::Drop),
            "warn" => Ok(Self::Warn),
            "dunno" => Ok(Self::Dunno),
            other => Err(format!(
                "{other:?} is none of permit, reject, drop, warn, dunno"
            )),
        }
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is done.
    pub word: Word,
    /// Until when; for ever without.
    pub until: Option<Timestamp>,
    /// Why; the client is told.
    pub note: Box<str>,
}

/// The whole list.
#[derive(Debug, Default)]
pub struct Access {
    entries: Vec<Entry>,
    networks: Index,
}

impl Access {
    /// Reads the files as one list.
    pub fn load(files: &[PathBuf]) -> Result<Self, String> {
        let mut access = Self::default();
        for path in files {
            let text = text(path)?;
            let added = access.add(&text);
            added.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(access)
    }

    /// Reads a list.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut access = Self::default();
        access.add(text)?;
        Ok(access)
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        each_line(text, |line| {
            let (network, entry) = read(line)?;
            self.push(network, entry)
        })
    }

    /// Adds a line below the others.
    pub fn push(&mut self, network: Network, entry: Entry) -> Result<(), String> {
        if self.entries.len() >= ENTRIES_MAX {
            return Err(format!("more than {ENTRIES_MAX} lines in all"));
        }
        let index = u32::try_from(self.entries.len()).expect("fewer than ENTRIES_MAX");
        self.entries.push(entry);
        self.networks.push(network, index);
        Ok(())
    }

    /// The first line that has the client and is not over.
    pub fn lookup(&self, client: IpAddr, now: Timestamp) -> Option<&Entry> {
        let in_force = |index: u32| {
            let until = self.entries[index as usize].until;
            until.is_none_or(|until| until > now)
        };
        let found = self.networks.first(client, in_force)?;
        Some(&self.entries[found as usize])
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn read(line: &str) -> Result<(Network, Entry), String> {
    let (network, rest) = Rest::read(line)?;
    let entry = Entry {
        word: rest.word.parse()?,
        until: rest.until,
        note: rest.note.into(),
    };
    Ok((network.parse()?, entry))
}

/// A list's file as text.
pub fn text(path: &Path) -> Result<String, String> {
    let said = |error: String| format!("{}: {error}", path.display());
    let facts = std::fs::metadata(path).map_err(|error| said(error.to_string()))?;
    if facts.len() > FILE_BYTES_MAX {
        return Err(said(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| said(error.to_string()))
}

/// Shows the lines that say something, without remarks. An error gets the line's number.
pub fn each_line(
    text: &str,
    mut read: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), String> {
    for (number, line) in text.lines().enumerate() {
        let remark = line.match_indices('#').find(|(at, _)| {
            // An address may have one in it.
            line[..*at].ends_with(char::is_whitespace) || *at == 0
        });
        let line = line[..remark.map_or(line.len(), |(at, _)| at)].trim();
        if !line.is_empty() {
            read(line).map_err(|error| format!("line {}: {error}", number + 1))?;
        }
    }
    Ok(())
}

/// What stands behind the key of a line: `WORD [until=TIME] [note]`.
pub struct Rest<'a> {
    /// What is done.
    pub word: &'a str,
    /// Until when; for ever without.
    pub until: Option<Timestamp>,
    /// Why.
    pub note: &'a str,
}

impl<'a> Rest<'a> {
    /// The key of a line and what stands behind it.
    pub fn read(line: &'a str) -> Result<(&'a str, Self), String> {
        let (key, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let rest = rest.trim();
        let (until, note) = match rest.strip_prefix("until=") {
            None => (None, rest),
            Some(rest) => {
                let (time, note) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let time = Timestamp::parse_rfc3339(time)
                    .ok_or_else(|| format!("{time:?} is no time like 2026-12-01T00:00:00Z"))?;
                (Some(time), note.trim())
            }
        };
        check_note(note)?;
        Ok((key, Self { word, until, note }))
    }
}

/// A note goes into a reply.
pub fn check_note(note: &str) -> Result<(), String> {
    match note.chars().all(|c| c.is_ascii_graphic() || c == ' ') && note.len() <= 200 {
        true => Ok(()),
        false => Err("a note is at most 200 characters of ASCII".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &str, client: &str, expected: Option<(Word, &str)>) {
        let access = Access::parse(list).unwrap();
        let now = Timestamp::parse_rfc3339("2026-11-25T00:00:00Z").unwrap();
        let found = access.lookup(client.parse().unwrap(), now);
        let found = found.map(|entry| (entry.word, &*entry.note));
        assert_eq!(found, expected, "{client} in {list}");
    }

    #[test]
    fn the_first_line_that_has_a_client_decides() {
        let list = "# partners\n192.0.2.7 permit\n192.0.2.0/24 reject you send spam\n0.0.0.0/0 dunno # everybody\n\n192.0.2.8 permit\n";
        check(list, "192.0.2.7", Some((Word::Permit, "")));
        check(list, "192.0.2.8", Some((Word::Reject, "you send spam")));
        check(list, "203.0.113.1", Some((Word::Dunno, "")));
        check(list, "::ffff:192.0.2.7", Some((Word::Permit, "")));
        check(list, "2001:db8::1", None);
        let v6 = "2001:db8:1::/48 drop\n2001:db8::/32 Permit\n";
        check(v6, "2001:db8:1::9", Some((Word::Drop, "")));
        check(v6, "2001:db8:2::9", Some((Word::Permit, "")));
        check(v6, "192.0.2.7", None);
        check("::/0 warn", "2001:db8::1", Some((Word::Warn, "")));
        check("", "192.0.2.7", None);
    }

    #[test]
    fn what_is_over_does_not_count_and_hides_nothing() {
        let list = "192.0.2.7 drop until=2026-11-01T00:00:00Z old\n192.0.2.7 reject until=2026-12-01T00:00:00Z\n192.0.2.0/24 permit\n";
        check(list, "192.0.2.7", Some((Word::Reject, "")));
        check(list, "192.0.2.8", Some((Word::Permit, "")));
    }

    #[test]
    fn a_bad_line_is_named() {
        for (list, said) in [
            ("192.0.2.7 permit\n192.0.2.300 permit", "line 2"),
            ("192.0.2.7", "none of permit"),
            ("192.0.2.7 maybe", "\"maybe\""),
            ("192.0.2.7 reject until=tomorrow", "\"tomorrow\""),
            ("192.0.2.7 reject \u{fc}ber", "ASCII"),
            ("lists.example permit", "neither an address"),
        ] {
            let error = Access::parse(list).unwrap_err();
            assert!(error.contains(said), "{list:?}: {error}");
        }
        let gone = Access::load(&["/nonexistent/access".into()]).unwrap_err();
        assert!(gone.contains("/nonexistent/access"), "{gone}");
    }
}
