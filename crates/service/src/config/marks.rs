//! What a sample says of each key: that a change of it waits for a restart. A key is marked by the word in the comment above it, or
//! in that above its section.

use super::changes::Changes;
use super::sample::commented;
use crate::trouble::Complaint;

/// In the comment of a key that is read at start alone.
const MARK: &str = "(restart)";

/// Keys that the sample marks otherwise than the program treats them.
pub(super) fn wrong(sample: &str, changes: Changes) -> Vec<Complaint> {
    let complaint = |key: String, what: &str, remedy: &str| Complaint {
        key,
        what: what.into(),
        why: "operators read there whether a reload is enough".into(),
        remedy: format!("{remedy} {MARK} in its comment"),
    };
    let mut complaints = Vec::new();
    for (key, marked) in marks(sample) {
        match (marked, changes.is_at_start(&key)) {
            (true, false) => complaints.push(complaint(key, "a reload takes it up", "leave out")),
            (false, true) => complaints.push(complaint(key, "it is read at start alone", "write")),
            _ => {}
        }
    }
    complaints
}

/// Every key that is shown, and whether it is marked.
fn marks(sample: &str) -> Vec<(String, bool)> {
    let lines: Vec<&str> = sample.lines().collect();
    let mut found = Vec::new();
    let (mut section, mut section_marked) = (String::new(), false);
    // Of the comment above; keys that follow each other without one share it.
    let (mut marked, mut shared) = (false, false);
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let (text, used) = commented(&lines[at..]).unwrap_or((line.to_owned(), 1));
        at += used;
        let text = text.trim_start();
        if text.starts_with('#') || text.is_empty() {
            marked = text.contains(MARK) || (marked && !shared && !text.is_empty());
            shared = false;
        } else if let Some(name) = text.strip_prefix('[') {
            let name = name.trim_start_matches('[').split(']').next();
            section = format!("{}.", name.unwrap_or_default().trim());
            (section_marked, marked) = (marked, false);
        } else if let Some((key, _)) = text.split_once('=') {
            found.push((format!("{section}{}", key.trim()), marked || section_marked));
            shared = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_in_the_comment_above() {
        let sample = "# Where. (restart)\n#a = 1\n# How.\n#b = [\n#  2,\n#]\n\n# Prose (restart)\n\nc = 3\n# Both (restart)\n# of them\nd = 4\n\
                      e = 5\n# No\nf = 6\n[s]\n# x (restart)\ng = 7\n\n# All (restart)\n#[t]\nh = 8\n# With words.\n#i = 9\n[u]\nj = 10\n";
        let shown: Vec<String> = marks(sample)
            .into_iter()
            .map(|(key, marked)| format!("{key}{}", if marked { "!" } else { "" }))
            .collect();
        assert_eq!(
            shown,
            [
                "a!", "b", "c", "d!", "e!", "f", "s.g!", "t.h!", "t.i!", "u.j"
            ]
        );
        let changes = Changes {
            at_reload: &["a", "b", "c", "d", "s", "u"],
            at_start: &["e", "f", "t"],
        };
        let keys: Vec<String> = wrong(sample, changes).into_iter().map(|c| c.key).collect();
        assert_eq!(keys, ["a", "d", "f", "s.g"]);
    }
}
