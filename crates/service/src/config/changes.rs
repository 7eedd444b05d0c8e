//! When a change of a key comes into force: at a reload, or at the next start. Compares configurations key by key and holds every
//! program to having said it of each key. What a program does with a new value is its own affair.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::table;
use crate::config::Configuration;
use crate::trouble::Complaint;

/// The keys of a configuration, by when a change comes into force. A name stands for itself and all that is below it: a section
/// whose keys are not all alike names them one by one.
#[derive(Clone, Copy, Debug)]
pub struct Changes {
    /// SIGHUP takes a change up.
    pub at_reload: &'static [&'static str],
    /// They are read when the program starts, and not again.
    pub at_start: &'static [&'static str],
}

/// `[log]` and `[control]` are read here, for every program.
const HOUSE: Changes = Changes {
    at_reload: &["log"],
    at_start: &["control"],
};

impl Changes {
    fn is_at_reload(self, key: &str) -> bool {
        let mut names = self.at_reload.iter().chain(HOUSE.at_reload);
        names.any(|name| stands_for(name, key))
    }

    pub(super) fn is_at_start(self, key: &str) -> bool {
        let mut names = self.at_start.iter().chain(HOUSE.at_start);
        names.any(|name| stands_for(name, key))
    }

    /// Keys of which nothing is said, or both, and names that stand for no key.
    pub(super) fn complaints(self, keys: &BTreeSet<String>) -> Vec<Complaint> {
        let complaint = |key: &str, what: &str| Complaint {
            key: key.into(),
            what: what.into(),
            why: "a reload tells which changes wait for the next start".into(),
            remedy: "name it in one list of the configuration's CHANGES".into(),
        };
        let marked =
            keys.iter().filter_map(
                |key| match (self.is_at_reload(key), self.is_at_start(key)) {
                    (true, false) | (false, true) => None,
                    (true, true) => Some(complaint(key, "is both at reload and at start")),
                    (false, false) => Some(complaint(key, "is neither at reload nor at start")),
                },
            );
        let names = self.at_reload.iter().chain(self.at_start);
        let idle = names.filter(|name| !keys.iter().any(|key| stands_for(name, key)));
        let idle = idle.map(|name| complaint(name, "stands for no key"));
        marked.chain(idle).collect()
    }
}

/// Keys that differ and that a reload has taken up.
pub(crate) fn taken_up<C: Configuration>(old: &C, new: &C) -> Vec<String> {
    let mut keys = differing(&table(old), &table(new));
    keys.retain(|key| C::CHANGES.is_at_reload(key));
    keys
}

/// Keys that differ from those with which the program was started, and that wait for the next start. One of which nothing is said
/// is among them: better told once too often.
pub(crate) fn waiting<C: Configuration>(started: &C, new: &C) -> Vec<String> {
    let mut keys = differing(&table(started), &table(new));
    keys.retain(|key| !C::CHANGES.is_at_reload(key));
    keys
}

fn differing(old: &Table, new: &Table) -> Vec<String> {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    leaves("", old, &mut before);
    leaves("", new, &mut after);
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .cloned()
        .collect()
}

/// The dotted keys of a table.
pub(super) fn keys(table: &Table) -> BTreeSet<String> {
    let mut found = BTreeMap::new();
    leaves("", table, &mut found);
    found.into_keys().collect()
}

/// Values by dotted key; a list is one value, also one of tables.
fn leaves<'t>(above: &str, table: &'t Table, found: &mut BTreeMap<String, &'t Value>) {
    for (key, value) in table {
        let key = format!("{above}{key}");
        match value {
            Value::Table(below) => leaves(&format!("{key}."), below, found),
            value => {
                found.insert(key, value);
            }
        }
    }
}

fn stands_for(name: &str, key: &str) -> bool {
    let rest = key.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_marked_once() {
        let keys = ["name", "spool.size", "spool.wait", "names", "log.level"];
        let keys = keys.into_iter().map(String::from).collect();
        let said = |at_reload, at_start| {
            let complaints = Changes {
                at_reload,
                at_start,
            }
            .complaints(&keys);
            let shown = complaints.into_iter();
            shown.map(|c| c.key).collect::<Vec<String>>()
        };
        assert!(said(&["name", "names"], &["spool"]).is_empty());
        assert!(said(&["name", "names", "spool.size"], &["spool.wait"]).is_empty());
        assert_eq!(said(&["name"], &["spool"]), ["names"]);
        assert_eq!(
            said(&["name", "names", "spool.size"], &["spool"]),
            ["spool.size"]
        );
        assert_eq!(
            said(&["name", "names", "old"], &["spool"]),
            ["old"],
            "a key that is gone"
        );
    }

    #[test]
    fn what_differs_is_named_by_its_whole_key() {
        let table = |text: &str| toml::from_str::<Table>(text).unwrap();
        let old = table("a = 1\nb = [1, 2]\n[c]\nd = 1\ne = 2\n[f]\n[[g]]\nh = 1\n");
        for (new, expected) in [
            (
                "a = 1\nb = [1, 2]\n[c]\nd = 1\ne = 2\n[[g]]\nh = 1\n",
                &[][..],
            ),
            (
                "a = 2\nb = [1]\n[c]\nd = 1\ne = 2\n[[g]]\nh = 1\n",
                &["a", "b"],
            ),
            (
                "a = 1\nb = [1, 2]\n[c]\nd = 1\n[[g]]\nh = 2\n",
                &["c.e", "g"],
            ),
            (
                "a = 1\nb = [1, 2]\n[c]\nd = 1\ne = 2\n[f.x]\ny = 1\n[[g]]\nh = 1\n",
                &["f.x.y"],
            ),
        ] {
            assert_eq!(differing(&old, &table(new)), expected, "{new}");
        }
    }
}
