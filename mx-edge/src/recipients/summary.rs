//! A source of recipients as operators see it: what `mx-edge recipients show` and `/status` tell.

use serde::Serialize;

use super::catalog::Catalog;
use super::guard::Objection;

/// A source as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// `directory`, or the file's path.
    pub source: Box<str>,
    /// Whether it has ever been loaded.
    pub loaded: bool,
    /// The version in force.
    pub version: Box<str>,
    /// Entries in force.
    pub entries: usize,
    /// Lists among them.
    pub lists: usize,
    /// Domains that are ours by it.
    pub domains: Vec<String>,
    /// Why it cannot be read at present.
    pub trouble: Option<String>,
    /// The version that the guard holds back.
    pub blocked: Option<BlockedSummary>,
}

/// A version that is held back.
#[derive(Clone, Debug, Serialize)]
pub struct BlockedSummary {
    /// Its name.
    pub version: Box<str>,
    /// `shrunken`, `older`, `forked` or `foreign`.
    pub cause: &'static str,
    /// The same in words.
    pub why: &'static str,
    /// Entries it has.
    pub entries: usize,
    /// Entries in force that it lacks.
    pub lost_entries: usize,
    /// Domains in force that it lacks.
    pub lost_domains: Vec<String>,
}

impl Summary {
    /// Of what is in force, and of what is held back.
    pub fn new(
        source: &str,
        current: Option<&Catalog>,
        trouble: Option<String>,
        blocked: Option<(&Catalog, &Objection)>,
    ) -> Self {
        let domains = current.map(|catalog| catalog.domains().iter().map(ToString::to_string));
        Self {
            source: source.into(),
            loaded: current.is_some(),
            version: current
                .map(|catalog| catalog.version.clone())
                .unwrap_or_default(),
            entries: current.map_or(0, Catalog::entries),
            lists: current.map_or(0, |catalog| catalog.content.lists.len()),
            domains: domains.map(Iterator::collect).unwrap_or_default(),
            trouble,
            blocked: blocked.map(|(catalog, objection)| BlockedSummary {
                version: catalog.version.clone(),
                cause: objection.cause.as_str(),
                why: objection.cause.explained(),
                entries: catalog.entries(),
                lost_entries: objection.loss.entries,
                lost_domains: objection
                    .loss
                    .domains
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            }),
        }
    }
}
