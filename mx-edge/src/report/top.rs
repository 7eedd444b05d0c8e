//! Who sends and who is refused most, in bounded memory: counts of the names that come often (Metwally, Agrawal and El Abbadi, "Efficient
//! computation of frequent and top-k elements in data streams", 2005). A name that came more often than one in [`NAMES_MAX`] is among
//! them for sure; its count is exact unless it took the place of another, and then too high by no more than that other's. The counts add
//! up to all that was counted, whoever was forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::network::client_key;

/// Names of one table.
const NAMES_MAX: usize = 512;
/// Of these the report names so many, the largest.
const SHOWN_MAX: usize = 20;

/// How often a name came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    /// Often.
    count: u64,
    /// At most so much of it belongs to names that are forgotten.
    #[serde(default)]
    error: u64,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    named: HashMap<Box<str>, Count>,
    /// Counted, and taken out by `person erase`.
    #[serde(default)]
    erased: u64,
}

impl Top {
    /// One more.
    pub fn add(&mut self, name: &str) {
        if let Some(known) = self.named.get_mut(name) {
            known.count += 1;
            return;
        }
        let mut floor = 0;
        if self.named.len() >= NAMES_MAX {
            let least = self.named.iter().min_by_key(|(_, known)| known.count);
            if let Some((least, known)) = least.map(|(name, known)| (name.clone(), *known)) {
                floor = known.count;
                self.named.remove(&least);
            }
        }
        let count = Count {
            count: floor + 1,
            error: floor,
        };
        self.named.insert(name.into(), count);
    }

    /// Takes a name out, not what it was counted for.
    fn erase(&mut self, name: &str) -> bool {
        let gone = self.named.remove(name);
        self.erased += gone.map_or(0, |known| known.count);
        gone.is_some()
    }

    /// The largest, and what all the others came to.
    fn shown(&self) -> Value {
        let named = self.named.iter();
        let mut named: Vec<(&str, Count)> = named.map(|(name, known)| (&**name, *known)).collect();
        named.sort_by_key(|(name, known)| (std::cmp::Reverse(known.count), *name));
        let all: u64 = self.erased + named.iter().map(|(_, known)| known.count).sum::<u64>();
        named.truncate(SHOWN_MAX);
        let shown: u64 = named.iter().map(|(_, known)| known.count).sum();
        let line = |(name, known): &(&str, Count)| json!({ "name": name, "count": known.count, "too_high_by_at_most": known.error });
        json!({
            "all": all,
            "named": named.iter().map(line).collect::<Vec<_>>(),
            "others": all - shown,
        })
    }
}

/// One day's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tables {
    /// Messages answered 250, by the sender's domain.
    senders: Top,
    /// 5xx that were told, by client.
    refused_clients: Top,
    /// 4xx that were told, by client.
    put_off_clients: Top,
}

impl Tables {
    /// For the report.
    pub fn shown(&self) -> Value {
        json!({
            "senders": self.senders.shown(),
            "refused_clients": self.refused_clients.shown(),
            "put_off_clients": self.put_off_clients.shown(),
        })
    }

    /// Takes a client out; whether it was in.
    pub fn erase(&mut self, client: IpAddr) -> bool {
        let name = client_name(client);
        let refused = self.refused_clients.erase(&name);
        self.put_off_clients.erase(&name) || refused
    }
}

/// As rates count a client: a host has a /64 to choose from.
fn client_name(client: IpAddr) -> String {
    match client_key(client) {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(network) => format!("{network}/64"),
    }
}

/// The present day's, of all sessions.
#[derive(Debug, Default)]
pub struct Tops(Mutex<Tables>);

impl Tops {
    /// Whatever a panic left, each count is whole.
    pub fn with<T>(&self, of: impl FnOnce(&mut Tables) -> T) -> T {
        of(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A message was taken; `from` is its reverse-path.
    pub fn taken(&self, from: &str) {
        let name = match from.rsplit_once('@') {
            Some((_, domain)) => domain,
            None => "<>",
        };
        self.with(|tables| tables.senders.add(name));
    }

    /// A client was told this code, and no 250.
    pub fn refused(&self, client: IpAddr, code: u16) {
        let name = client_name(client);
        self.with(|tables| match code {
            ..500 => tables.put_off_clients.add(&name),
            _ => tables.refused_clients.add(&name),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_often_is_named_and_nothing_is_lost_of_the_sum() {
        let mut top = Top::default();
        let mut often = 0;
        for number in 0..20_000_u64 {
            top.add(&format!("once-{number}.example"));
            // One in eleven, among strangers who never come again.
            if number % 10 == 0 {
                top.add("often.example");
                often += 1;
            }
        }
        assert_eq!(top.named.len(), NAMES_MAX);
        let shown = top.shown();
        assert_eq!(shown["all"], 22_000);
        let named = shown["named"].as_array().unwrap();
        assert_eq!(named.len(), SHOWN_MAX);
        let count = |line: &Value, what: &str| line[what].as_u64().unwrap();
        assert_eq!(named[0]["name"], "often.example");
        assert_eq!(count(&named[0], "count"), often, "never forgotten: exact");
        for line in named {
            let sure = count(line, "count") - count(line, "too_high_by_at_most");
            assert!((1..=often).contains(&sure), "{line}");
        }
        let shown_sum: u64 = named.iter().map(|line| count(line, "count")).sum();
        assert_eq!(count(&shown, "others") + shown_sum, 22_000);
        assert!(top.erase("often.example") && !top.erase("often.example"));
        assert_eq!(top.shown()["all"], 22_000);
        assert!(!top.shown().to_string().contains("often"));
    }

    #[test]
    fn senders_are_domains_and_clients_are_hosts() {
        let tops = Tops::default();
        for from in ["ann@a.example", "bob@a.example", ""] {
            tops.taken(from);
        }
        for (client, code) in [
            ("2001:db8::1", 550),
            ("2001:db8::2", 554),
            ("192.0.2.1", 450),
        ] {
            tops.refused(client.parse().unwrap(), code);
        }
        let mut tables = tops.with(|tables| tables.clone());
        let first = |tables: &Tables, table: &str| {
            let shown = tables.shown();
            let line = &shown[table]["named"][0];
            format!("{} {}", line["name"].as_str().unwrap_or(""), line["count"])
        };
        assert_eq!(first(&tables, "senders"), "a.example 2");
        assert_eq!(first(&tables, "refused_clients"), "2001:db8::/64 2");
        assert_eq!(first(&tables, "put_off_clients"), "192.0.2.1 1");
        assert!(tables.erase("2001:db8::9".parse().unwrap()));
        assert_eq!(first(&tables, "refused_clients"), " null");
        let text = serde_json::to_string(&tables).unwrap();
        assert_eq!(serde_json::from_str::<Tables>(&text).unwrap(), tables);
    }
}
