//! Structure: what a message is made of, before any daemon is asked. The pre-scan, every name that a reader could give a file,
//! what archives hold within limits, and what is wrong with the header. Pure but for the clock that bounds it.
//!
//! It finds; what is banned for whom is decided in `decide`, by each recipient's lists.

mod archive;
pub mod banned;
pub mod budget;
pub mod kind;
mod tar;
mod zip;

use mail::structure::names::Names;
use mail::structure::{self, Objection, Part};

use archive::Look;
use budget::{Budget, Limits};
use kind::Kind;

/// A file: a part, something inside a text, or inside an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// What it is called and said to be.
    pub names: Names,
    /// What it is by its first bytes.
    pub kind: Option<Kind>,
    /// The archive it is in; empty for none.
    pub inside: Box<str>,
}

impl File {
    fn new(names: Names, kind: Option<Kind>, inside: &str) -> Self {
        Self {
            names,
            kind,
            inside: inside.into(),
        }
    }
}

/// What was found; reasons are for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// All files.
    pub files: Vec<File>,
    /// Why two readers would see two names.
    pub ambiguous: Option<Box<str>>,
    /// Why an archive could not be looked into.
    pub unscanned: Option<Box<str>>,
    /// What is wrong with the header.
    pub bad_header: Option<Box<str>>,
    /// Whether there are archives that were not opened.
    pub unopened: bool,
}

/// Looks at a message. `utf8`: it came with SMTPUTF8, so that its header may hold UTF-8. Without `limits` archives stay closed.
pub fn inspect(
    message: &[u8],
    utf8: bool,
    limits: Option<&Limits>,
) -> Result<Inspection, Objection> {
    let closed = Limits::default();
    let budget = Budget::new(limits.unwrap_or(&closed), message.len() as u64);
    let mut look = Look::new(&budget);
    let mut found = Inspection::default();
    structure::each(message, &structure::Limits::default(), &mut |part| {
        let names = Names::read(part.header);
        let body = part.decoded();
        let mut take = |names: Names, content: &[u8]| {
            let kind = Kind::of(content);
            let name = names.shown().unwrap_or("unnamed").to_owned();
            found.files.push(File::new(names, kind, ""));
            if let Some(kind @ (Kind::Zip | Kind::Gzip | Kind::Tar)) = kind {
                // What exceeds the budget is kept by it, and nothing more is opened.
                found.unopened |= limits.is_none();
                if limits.is_some() && budget.excess().is_none() {
                    let _ = look.open(kind, content, &name);
                }
            }
        };
        take(names, &body);
        for file in inline(&part, &body) {
            take(Names::one(file.name), &file.content);
        }
    })?;
    found.files.append(&mut look.files);
    found.ambiguous = found.files.iter().find_map(ambiguity).map(Into::into);
    found.unscanned = match (budget.excess(), look.encrypted) {
        (Some(excess), _) => Some(excess.to_string().into()),
        (None, Some(name)) => Some(format!("encrypted archive {name}").into()),
        (None, None) => None,
    };
    let faults = structure::faults(message, utf8);
    found.bad_header = faults.first().map(|fault| fault.to_string().into());
    Ok(found)
}

/// Files inside a text; nothing is a text that has a kind.
fn inline<'a>(part: &Part<'_>, body: &'a [u8]) -> Vec<structure::Inline<'a>> {
    match part.body.is_empty() || Kind::of(body).is_some() {
        true => Vec::new(),
        false => structure::inline(body),
    }
}

/// Why two readers would see two names.
fn ambiguity(file: &File) -> Option<String> {
    if let Some(disguise) = file.names.disguise {
        return Some(disguise.to_owned());
    }
    let extensions = file.names.extensions();
    let mut extensions = extensions.iter();
    let (first, second) = (extensions.next()?, extensions.next()?);
    Some(format!("name that ends in .{first} or .{second}"))
}

#[cfg(test)]
mod tests;
