//! A site's own tables: names, addresses and networks, and what is done with mail of who is in them. Of one table the first line that
//! has what it is about decides; tables are asked in their order. Pure.
//!
//! ```text
//! # a table of senders
//! joe@partner.example   permit
//! @bulk.example         reject until=2026-12-01T00:00:00Z you send bulk
//! .bulk.example         hold      # its subdomains
//! <>                    dunno
//! # a table of hosts' addresses
//! 192.0.2.0/24          reject
//! ```

use std::collections::HashMap;
use std::net::IpAddr;

use mail::{Address, Domain, ReversePath, Timestamp};

use super::decide::shown;
use super::evidence::{Asked, Evidence, Helo, Question};
use crate::admission::access::{self, Rest};
use crate::config::{Action, Subject, TableFile};
use crate::names::ClientName;
use crate::network::{Index, Network};

/// The null reverse-path in a table.
const NULL: &str = "<>";

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// No rule refuses it.
    Permit,
    /// It is refused.
    Reject,
    /// It is taken and waits for an operator.
    Hold,
    /// Nothing, and nothing below in this table counts for it.
    Dunno,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    word: Word,
    until: Option<Timestamp>,
    note: Box<str>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// In replies, logs and metrics.
    pub name: Box<str>,
    /// Of what.
    pub about: Subject,
    /// Whether it is applied.
    pub action: Action,
    entries: Vec<Entry>,
    /// Names and addresses.
    keys: HashMap<Box<str>, Vec<u32>>,
    networks: Index,
}

/// What one table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing.
    Nothing,
    /// This has to be known first.
    Needs(Question),
    /// No rule refuses the recipient's mail.
    Permits(String),
    /// It is refused.
    Refuses(String),
    /// It is held.
    Holds(String),
}

/// All tables, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables(Vec<Table>);

impl Tables {
    /// Reads them. An error names the file and the line.
    pub fn load(tables: &[TableFile]) -> Result<Self, String> {
        let load = |table: &TableFile| {
            let text = access::text(&table.file)?;
            let read = Table::read(&table.name, table.about, table.action, &text);
            read.map_err(|error| format!("{}: {error}", table.file.display()))
        };
        tables.iter().map(load).collect()
    }

    /// Those that are applied, in their order.
    pub fn active(&self) -> impl Iterator<Item = &Table> {
        self.0.iter().filter(|table| table.action != Action::Off)
    }
}

impl FromIterator<Table> for Tables {
    fn from_iter<T: IntoIterator<Item = Table>>(tables: T) -> Self {
        Self(tables.into_iter().collect())
    }
}

impl Table {
    /// Reads one; an error names the line.
    pub fn read(name: &str, about: Subject, action: Action, text: &str) -> Result<Self, String> {
        let mut table = Self {
            name: name.into(),
            about,
            action,
            entries: Vec::new(),
            keys: HashMap::new(),
            networks: Index::default(),
        };
        access::each_line(text, |line| table.add(line))?;
        Ok(table)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        if self.entries.len() >= access::ENTRIES_MAX {
            return Err(format!("more than {} lines", access::ENTRIES_MAX));
        }
        let place = u32::try_from(self.entries.len()).expect("fewer than ENTRIES_MAX");
        let (key, rest) = Rest::read(line)?;
        if self.about.is_of_hosts() {
            self.networks.push(key.parse::<Network>()?, place);
        } else {
            let key = read_key(self.about, key)?;
            self.keys.entry(key).or_default().push(place);
        }
        self.entries.push(Entry {
            word: word(rest.word)?,
            until: rest.until,
            note: rest.note.into(),
        });
        Ok(())
    }

    /// Whether a line of it may keep rules from refusing.
    pub fn may_permit(&self) -> bool {
        self.action == Action::Enforce
            && (self.entries.iter()).any(|entry| entry.word == Word::Permit)
    }

    /// What it says of what is known.
    pub fn says(&self, evidence: &Evidence) -> Says {
        let now = evidence.time;
        match self.about {
            Subject::Helo => match &evidence.helo {
                Helo::Host(name) => self.of_name(name.as_str(), now, true),
                _ => Says::Nothing,
            },
            Subject::Sender => self.of_sender(&evidence.reverse_path, now),
            Subject::Recipient => match Address::parse(&evidence.forward_path) {
                Ok(address) => self.of_address(&address, now),
                Err(_) => Says::Nothing,
            },
            Subject::ClientName => match &evidence.client_name {
                Asked::No => Says::Needs(Question::ClientName),
                Asked::Known(ClientName::Confirmed(name)) => self.of_name(name, now, true),
                // Whoever owns the address can call it what he likes.
                Asked::Known(ClientName::Unconfirmed(name)) => self.of_name(name, now, false),
                _ => Says::Nothing,
            },
            hosts => match (evidence.hosts_of(hosts), evidence.hosts.get(&hosts)) {
                (None, _) | (_, Some(Asked::Silent)) => Says::Nothing,
                (Some(_), None | Some(Asked::No)) => Says::Needs(Question::Hosts(hosts)),
                (Some(domain), Some(Asked::Known(addresses))) => {
                    self.of_hosts(domain, addresses, now)
                }
            },
        }
    }

    fn in_force(&self, place: u32, now: Timestamp) -> bool {
        let until = self.entries[place as usize].until;
        until.is_none_or(|until| until > now)
    }

    /// The first line with one of these keys.
    fn first<'a>(&self, keys: impl Iterator<Item = &'a str>, now: Timestamp) -> Option<&Entry> {
        let places = keys.filter_map(|key| {
            let places = self.keys.get(key)?.iter().copied();
            places.into_iter().find(|place| self.in_force(*place, now))
        });
        places.min().map(|place| &self.entries[place as usize])
    }

    fn of_name(&self, name: &str, now: Timestamp, believed: bool) -> Says {
        let name = name.to_ascii_lowercase();
        let found = self.first(std::iter::once(&*name).chain(parents(&name)), now);
        let found = found.filter(|entry| believed || entry.word != Word::Permit);
        self.said(found, &name)
    }

    fn of_sender(&self, reverse_path: &ReversePath, now: Timestamp) -> Says {
        match reverse_path.address() {
            Some(address) => self.of_address(address, now),
            None => self.said(self.first(std::iter::once(NULL), now), NULL),
        }
    }

    fn of_address(&self, address: &Address, now: Timestamp) -> Says {
        let key = address.key();
        let (local, domain) = key.split_at(key.rfind('@').unwrap_or(0));
        let anywhere = format!("{local}@");
        let keys = [&*key, domain, &*anywhere];
        let found = self.first(keys.into_iter().chain(parents(&domain[1..])), now);
        self.said(found, &key)
    }

    fn of_hosts(&self, domain: &Domain, addresses: &[IpAddr], now: Timestamp) -> Says {
        let places = addresses.iter().filter_map(|address| {
            let place = self.networks.first(*address, |at| self.in_force(at, now))?;
            Some((place, address))
        });
        match places.min() {
            None => Says::Nothing,
            Some((place, address)) => {
                let found = Some(&self.entries[place as usize]);
                self.said(found, &format!("{domain} ({address})"))
            }
        }
    }

    fn said(&self, found: Option<&Entry>, what: &str) -> Says {
        let Some(entry) = found else {
            return Says::Nothing;
        };
        let what = shown(what);
        let evidence = match &*entry.note {
            "" => format!("{what} ({})", self.name),
            note => format!("{what} ({}: {note})", self.name),
        };
        match entry.word {
            Word::Permit => Says::Permits(evidence),
            Word::Reject => Says::Refuses(evidence),
            Word::Hold => Says::Holds(evidence),
            Word::Dunno => Says::Nothing,
        }
    }
}

/// `.example` and `.b.example` of `a.b.example`: the keys of who has it for a subdomain.
fn parents(domain: &str) -> impl Iterator<Item = &str> {
    domain.match_indices('.').map(|(at, _)| &domain[at..])
}

fn word(word: &str) -> Result<Word, String> {
    match word.to_ascii_lowercase().as_str() {
        "permit" | "ok" => Ok(Word::Permit),
        "reject" => Ok(Word::Reject),
        "hold" => Ok(Word::Hold),
        "dunno" => Ok(Word::Dunno),
        other => Err(format!("{other:?} is none of permit, reject, hold, dunno")),
    }
}

/// A key as it is looked up.
fn read_key(about: Subject, key: &str) -> Result<Box<str>, String> {
    let domain = |text: &str| {
        let read = Domain::parse(text).map_err(|error| format!("{key:?}: {error}"))?;
        Ok::<_, String>(read.to_string())
    };
    if let Some(parent) = key.strip_prefix('.') {
        return Ok(format!(".{}", domain(parent)?).into());
    }
    if !about.is_of_addresses() {
        return Ok(domain(key)?.into());
    }
    if key == NULL && about == Subject::Sender {
        return Ok(NULL.into());
    }
    if let Some(name) = key.strip_prefix('@') {
        return Ok(format!("@{}", domain(name)?).into());
    }
    if let Some(local) = key.strip_suffix('@') {
        return Ok(format!("{}@", local.to_lowercase()).into());
    }
    match Address::parse(key) {
        Ok(address) => Ok(address.key().into()),
        Err(error) => Err(format!(
            "{key:?} is none of an address, @domain, .subdomain, local@: {error}"
        )),
    }
}

#[cfg(test)]
mod tests;
