//! Where in a text a key stands.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::Configuration;

/// A text read as TOML, every key with its place.
pub(super) struct Places<'t>(Spanned<DeTable<'t>>);

impl<'t> Places<'t> {
    pub(super) fn read(text: &'t str) -> Result<Self, toml::de::Error> {
        DeTable::parse(text).map(Self)
    }

    /// The configuration it is. `[control]` has no default of its own (its socket depends on the program), so what it
    /// leaves out is taken from the program's.
    /// An error knows its key, by its path from the top.
    pub(super) fn configuration<C: Configuration>(
        &self,
    ) -> Result<C, serde_path_to_error::Error<toml::de::Error>> {
        let mut table = self.0.clone();
        let default = C::default();
        let control = [
            ("socket", default.control().socket.display().to_string()),
            ("listen", default.control().listen.to_string()),
        ];
        let sections = table.get_mut().iter_mut();
        for (_, section) in sections.filter(|(key, _)| key.get_ref() == "control") {
            let DeValue::Table(section) = section.get_mut() else {
                continue;
            };
            for (key, value) in &control {
                if find(section, key).is_none() {
                    let value = DeValue::String(Cow::Owned(value.clone()));
                    let key = Spanned::new(0..0, Cow::Borrowed(*key));
                    section.insert(key, Spanned::new(0..0, value));
                }
            }
        }
        serde_path_to_error::deserialize(toml::de::Deserializer::from(table))
    }

    /// The place of a dotted key, or of the nearest section above it that is there; elements of arrays are `nodes.0.name`.
    pub(super) fn offset(&self, dotted: &str) -> Option<usize> {
        let mut parts = dotted.split('.');
        let (mut found, mut value) = find(self.0.get_ref(), parts.next()?)?;
        for part in parts {
            match value {
                DeValue::Table(table) => {
                    let Some((offset, next)) = find(table, part) else {
                        break;
                    };
                    (found, value) = (offset, next);
                }
                DeValue::Array(array) => {
                    let element = part.parse().ok().and_then(|index: usize| array.get(index));
                    let Some(element) = element else { break };
                    (found, value) = (element.span().start, element.get_ref());
                }
                _ => break,
            }
        }
        Some(found)
    }
}

/// A key's place and its value.
fn find<'a, 't>(table: &'a DeTable<'t>, name: &str) -> Option<(usize, &'a DeValue<'t>)> {
    let mut entries = table.iter();
    let (key, value) = entries.find(|(key, _)| key.get_ref() == name)?;
    Some((key.span().start, value.get_ref()))
}
