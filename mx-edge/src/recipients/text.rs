//! Recipients from text files: a plain list, or the source text of a Postfix table. Pure; a file with one bad line is refused as
//! a whole, since a half-read file must not make anybody unknown.

use mail::{Address, Domain};

use super::catalog::Catalog;

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// A plain list: an address or `@domain` (everybody there) a line; `#` starts a comment.
pub fn file(content: &str) -> Result<Catalog, BadLine> {
    let mut catalog = Catalog::default();
    for (index, line) in content.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        add(&mut catalog, entry).map_err(|what| BadLine {
            line: index + 1,
            what,
        })?;
    }
    catalog.version = version(content);
    catalog.content.addresses.shrink();
    Ok(catalog)
}

/// The source of a Postfix hash, lmdb or texthash table (`relay_recipient_maps`, `virtual_alias_maps`): a key and a value a
/// line. A line that starts with white space continues the one before, `#` at the start of a line is a comment (postmap(1)).
/// The key is an address, `@domain`, or a bare domain that is thereby ours; values do not matter.
pub fn postfix(content: &str, delimiter: Option<char>) -> Result<Catalog, BadLine> {
    let mut catalog = Catalog {
        delimiter,
        ..Catalog::default()
    };
    let lines: Vec<&str> = content.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let continued = line.starts_with([' ', '\t']);
        if continued || line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |what: String| BadLine {
            line: index + 1,
            what,
        };
        let (key, rest) = split_key(line).ok_or_else(|| bad("a quote without its end".into()))?;
        let next = lines.get(index + 1);
        let value_follows = next.is_some_and(|next| next.starts_with([' ', '\t']));
        if rest.trim().is_empty() && !value_follows {
            return Err(bad(format!("the key {key:?} has no value")));
        }
        add(&mut catalog, key).map_err(bad)?;
    }
    catalog.version = version(content);
    catalog.content.addresses.shrink();
    Ok(catalog)
}

/// The key up to the first white space outside quotes.
fn split_key(line: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    for (at, character) in line.char_indices() {
        match character {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => return Some(line.split_at(at)),
            _ => {}
        }
    }
    (!quoted).then_some((line, ""))
}

fn add(catalog: &mut Catalog, entry: &str) -> Result<(), String> {
    if let Some(domain) = entry.strip_prefix('@') {
        let domain = Domain::parse(domain).map_err(|error| format!("{entry:?}: {error}"))?;
        catalog.add_open(domain);
    } else if entry.contains('@') {
        let address = Address::parse(entry).map_err(|error| format!("{entry:?}: {error}"))?;
        catalog.add_address(&address);
    } else if entry.contains('.') {
        let domain = Domain::parse(entry).map_err(|error| format!("{entry:?}: {error}"))?;
        catalog.content.domains.insert(domain);
    } else {
        return Err(format!(
            "{entry:?} is neither an address, nor @domain, nor a domain"
        ));
    }
    Ok(())
}

/// A name for this content.
fn version(content: &str) -> Box<str> {
    let digest = mail::verdict::digest(content.as_bytes());
    let hex: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    hex.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(catalog: &Catalog) -> (Vec<&str>, Vec<String>, Vec<String>) {
        let mut addresses: Vec<&str> = catalog.content.addresses.iter().collect();
        let mut open: Vec<String> = catalog.open.iter().map(ToString::to_string).collect();
        let mut domains: Vec<String> = catalog.domains().iter().map(ToString::to_string).collect();
        addresses.sort_unstable();
        open.sort();
        domains.sort();
        (addresses, open, domains)
    }

    #[test]
    fn a_plain_list() {
        let catalog =
            file("# ours\njoe@a.example\n\n  Jim@B.example  # the other one\r\n@open.example\n")
                .unwrap();
        let (addresses, open, domains) = entries(&catalog);
        assert_eq!(addresses, ["jim@b.example", "joe@a.example"]);
        assert_eq!(open, ["open.example"]);
        assert_eq!(domains, ["a.example", "b.example", "open.example"]);
    }

    #[test]
    fn a_postfix_table() {
        let catalog = postfix(
            "# comment\n\
             joe@a.example\tOK\n\
             jim@a.example   joe@inner.example,\n\
             \x20   anna@inner.example\n\
             # a comment between\n\
             @open.example x\n\
             virtual.example anything\n\
             \"quo ted\"@a.example x\n\
             late@a.example\n\
             \tvalue on the next line\n",
            Some('+'),
        )
        .unwrap();
        let (addresses, open, domains) = entries(&catalog);
        assert_eq!(addresses.len(), 4);
        assert!(addresses.contains(&"jim@a.example"));
        assert!(!addresses.contains(&"anna@inner.example"));
        assert_eq!(open, ["open.example"]);
        assert_eq!(domains, ["a.example", "open.example", "virtual.example"]);
        assert!(catalog.knows(&Address::parse("joe+x@a.example").unwrap()));
    }

    #[test]
    fn one_bad_line_refuses_the_file_and_is_named() {
        for (content, line) in [
            ("joe@a.example\njoe\n", 2),
            ("joe@\n", 1),
            ("ok@a.example\n\n@\n", 3),
            ("joe@a..example\n", 1),
        ] {
            assert_eq!(file(content).unwrap_err().line, line, "{content:?}");
        }
        for (content, line) in [
            ("joe@a.example OK\njim@a.example\n", 2),
            ("joe OK\n", 1),
            ("\"open@a.example OK\n", 1),
        ] {
            assert_eq!(
                postfix(content, None).unwrap_err().line,
                line,
                "{content:?}"
            );
        }
    }

    #[test]
    fn the_version_changes_with_the_content() {
        let a = file("joe@a.example\n").unwrap();
        let b = file("joe@a.example\njim@a.example\n").unwrap();
        assert_ne!(a.version, b.version);
        assert_eq!(a.version, file("joe@a.example\n").unwrap().version);
    }
}
