//! Holding the commented sample (`deploy/etc/*.toml`) to the configuration it explains.

use toml::{Table, Value};

use super::place::Places;
use super::{changes, known, marks, table};
use crate::config::Configuration;
use crate::trouble::Complaint;

/// Lines that one commented value (an array over several lines) may take.
const VALUE_LINES_MAX: usize = 100;

/// Holds a sample (`deploy/etc/*.toml`) to the configuration: with every commented key taken in it must parse to the
/// default, and name every key there is. Returns what is wrong; for tests.
///
/// A commented key is a line `#key = value` or `# key = value` whose rest is TOML; a section may be commented too
/// (`#[inside]`). All other comment lines are prose. Four things are held:
///
/// 1. the sample as it is parses to the default, so that an installed and untouched file changes nothing;
/// 2. with all commented keys taken in it still parses, and without the *examples* it is the default, key by key.
///    Examples are keys that the default does not have: optional ones that are absent (`#contact = "..."`, a whole
///    `#[inside]`) and entries of a table or list that is empty by default (`#[[nodes]]`);
/// 3. every key is in one list of [`Configuration::CHANGES`], and those that are read at start alone have `(restart)` in the
///    comment above them, or above their section;
/// 4. every key is named: those of the default, and in every section that the sample shows also the optional ones that
///    the default has not.
pub fn compare_sample<C: Configuration>(sample: &str) -> Vec<Complaint> {
    let default = table(&C::default());
    let mut complaints = Vec::new();
    match read::<C>(sample) {
        Err(error) => complaints.push(unreadable("the sample as it is", &error)),
        Ok(read) => differences("", &table(&read), &default, &mut complaints),
    }
    let whole = uncomment(sample);
    if let Err(error) = read::<C>(&whole) {
        complaints.push(unreadable("the sample with its commented keys", &error));
        return complaints;
    }
    let mut whole: Table = toml::from_str(&whole).expect("it has just been read");
    let optional = known::unnamed::<C>(&whole).unwrap_or_default();
    let mut keys = changes::keys(&whole);
    keys.extend(changes::keys(&default));
    complaints.extend(C::CHANGES.complaints(&keys));
    complaints.extend(marks::wrong(sample, C::CHANGES));
    remove_examples(&mut whole, &default);
    unnamed("", &whole, &default, &mut complaints);
    for key in optional {
        if !complaints.iter().any(|complaint| complaint.key == key) {
            let example = format!("add `#{key} = ...` with an example and its reason");
            complaints.push(not_named(key, example));
        }
    }
    let whole = toml::to_string(&whole).expect("a table of TOML values is TOML");
    match read::<C>(&whole) {
        Err(error) => complaints.push(unreadable("the sample without its examples", &error)),
        Ok(read) => differences("", &table(&read), &default, &mut complaints),
    }
    complaints
}

fn read<C: Configuration>(text: &str) -> Result<C, toml::de::Error> {
    let read = Places::read(text)?.configuration();
    read.map_err(serde_path_to_error::Error::into_inner)
}

/// The sample with its commented keys and sections taken in; prose stays as it is.
fn uncomment(sample: &str) -> String {
    let lines: Vec<&str> = sample.lines().collect();
    let mut taken = String::new();
    let mut at = 0;
    while at < lines.len() {
        match commented(&lines[at..]) {
            Some((text, used)) => {
                taken.push_str(&text);
                at += used;
            }
            None => {
                taken.push_str(lines[at]);
                at += 1;
            }
        }
        taken.push('\n');
    }
    taken
}

/// The commented key or section that begins here, and how many lines it takes.
pub(super) fn commented(lines: &[&str]) -> Option<(String, usize)> {
    let first = bare(lines.first()?)?;
    if !first.starts_with('[') && !first.contains('=') {
        return None;
    }
    let mut text = String::new();
    for (used, line) in lines.iter().take(VALUE_LINES_MAX).enumerate() {
        text.push_str(bare(line)?);
        let one_thing = toml::from_str::<Table>(&text).is_ok_and(|table| table.len() == 1);
        if one_thing {
            return Some((text, used + 1));
        }
        text.push('\n');
    }
    None
}

/// A comment line without its sign and the space after it.
fn bare(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('#')?;
    Some(rest.strip_prefix(' ').unwrap_or(rest))
}

/// Takes out what the default has no key for, and what stands in a table or list that is empty by default.
fn remove_examples(whole: &mut Table, default: &Table) {
    whole.retain(|key, value| match (value, default.get(key)) {
        (_, None) => false,
        (Value::Table(value), Some(Value::Table(default))) => {
            remove_examples(value, default);
            true
        }
        (Value::Array(value), Some(Value::Array(default))) if default.is_empty() => {
            value.clear();
            true
        }
        _ => true,
    });
}

fn unnamed(above: &str, whole: &Table, default: &Table, complaints: &mut Vec<Complaint>) {
    for (key, value) in default {
        let key_here = format!("{above}{key}");
        match (whole.get(key), value) {
            (Some(Value::Table(whole)), Value::Table(default)) => {
                unnamed(&format!("{key_here}."), whole, default, complaints);
            }
            (Some(_), _) => {}
            (None, value) => {
                let line = format!("add `#{key} = {value}` with its unit and reason");
                complaints.push(not_named(key_here, line));
            }
        }
    }
}

fn not_named(key: String, remedy: String) -> Complaint {
    Complaint {
        key,
        what: "not in the sample".into(),
        why: "operators find every key there".into(),
        remedy,
    }
}

fn differences(above: &str, read: &Table, default: &Table, complaints: &mut Vec<Complaint>) {
    let mut keys: Vec<&String> = read.keys().chain(default.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        match (read.get(key), default.get(key)) {
            (Some(Value::Table(read)), Some(Value::Table(default))) => {
                differences(&format!("{above}{key}."), read, default, complaints);
            }
            (read, default) if read == default => {}
            (read, default) => complaints.push(Complaint {
                key: format!("{above}{key}"),
                what: format!("the sample says {}", shown(read)),
                why: format!("the default is {}", shown(default)),
                remedy: "make them one".into(),
            }),
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or("nothing".into(), Value::to_string)
}

fn unreadable(what: &str, error: &toml::de::Error) -> Complaint {
    Complaint {
        key: String::new(),
        what: format!("{what} cannot be read"),
        why: error.to_string(),
        remedy: "correct the sample".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Example;
    use super::*;

    const GOOD: &str = r#"# The example's configuration. Size = bytes, and so on.
# [not a section

[control]
# Where commands go. (restart)
#socket = "/run/mailflow/example/control.sock"
listen = "127.0.0.1:9999"

[log]
#format = "text"
# level = "info"

#[limits]
# The wait = time.
#wait = "30s"
#size = "64MiB"
# Shown to those refused; none by default.
#contact = "https://example.org/"
#names = []

#[[limits.nodes]]
#name = "a"

# Only between hosts. (restart)
#[inside]
#certificate = "/etc/mailflow/example.pem"
#key = "/etc/mailflow/example.key"
#authority = "/etc/mailflow/ca.pem"
"#;

    #[test]
    fn a_good_sample() {
        let complaints = compare_sample::<Example>(GOOD);
        assert!(complaints.is_empty(), "{complaints:?}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, key, what) in [
            ("#wait = \"30s\"\n", "", "limits.wait", "not in the sample"),
            (
                "#wait = \"30s\"",
                "#wait = \"31s\"",
                "limits.wait",
                "the sample says \"31s\"",
            ),
            (
                "#wait = \"30s\"",
                "#wait = 30",
                "",
                "with its commented keys cannot be read",
            ),
            (
                "#wait =",
                "#wiat =",
                "",
                "with its commented keys cannot be read",
            ),
            ("127.0.0.1:9999", "127.0.0.1:9998", "control.listen", "9998"),
            ("hosts. (restart)", "hosts.", "inside.key", "at start alone"),
            ("wait = time.", "(restart)", "limits.size", "takes it up"),
            ("[control]", "[kontrol]", "", "as it is cannot be read"),
            ("#names = []", "#names = [\n#  \"a\",\n#]", "", ""),
            (
                "#certificate =",
                "#certfiicate =",
                "",
                "with its commented keys",
            ),
        ] {
            let sample = GOOD.replacen(from, to, 1);
            assert_ne!(sample, GOOD, "{from}");
            let complaints = compare_sample::<Example>(&sample);
            let found = complaints
                .iter()
                .any(|c| c.key == key && c.what.contains(what));
            assert_eq!(found, !what.is_empty(), "{to}: {complaints:?}");
        }
    }

    #[test]
    fn values_over_several_lines() {
        let taken =
            uncomment("# prose\n#names = [\n#  \"a\",\n#]\n# Names = many [\nx = 1 # y = 2\n");
        assert_eq!(
            taken,
            "# prose\nnames = [\n \"a\",\n]\n# Names = many [\nx = 1 # y = 2\n"
        );
    }
}
