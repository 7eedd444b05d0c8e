//! Which keys a configuration would read: asked by giving it a table and watching what it asks for. Serde tells the fields of
//! each struct it is about to read; nothing else knows an optional key that is absent.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use toml::de::Error;
use toml::{Table, Value};

use crate::config::Configuration;

/// Dotted keys that the configuration would read in the sections that the table has, and that the table does not name.
/// Sections read through a tagged enum or a flattened struct are not seen.
pub(super) fn unnamed<C: Configuration>(table: &Table) -> Result<Vec<String>, Error> {
    let seen = Seen::default();
    C::deserialize(Reading {
        value: Value::Table(table.clone()),
        path: String::new(),
        seen: &seen,
    })?;
    let named = seen.named.into_inner();
    let known = seen.known.into_inner();
    Ok(known.difference(&named).cloned().collect())
}

/// By dotted key; all elements of a list are one.
#[derive(Default)]
struct Seen {
    known: RefCell<BTreeSet<String>>,
    named: RefCell<BTreeSet<String>>,
}

/// A value being read, and where it stands.
struct Reading<'s> {
    value: Value,
    path: String,
    seen: &'s Seen,
}

impl<'s> Reading<'s> {
    fn below(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }
}

impl<'de> Deserializer<'de> for Reading<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Table(table) => visitor.visit_map(Entries {
                entries: table.into_iter(),
                value: None,
                path: self.path,
                seen: self.seen,
            }),
            Value::Array(array) => visitor.visit_seq(Elements {
                elements: array.into_iter(),
                path: self.path,
                seen: self.seen,
            }),
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Value::Table(table) = &self.value {
            let mut known = self.seen.known.borrow_mut();
            known.extend(fields.iter().map(|field| self.below(field)));
            let mut named = self.seen.named.borrow_mut();
            named.extend(table.keys().map(|key| self.below(key)));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Entries<'s> {
    entries: toml::map::IntoIter<String, Value>,
    value: Option<Reading<'s>>,
    path: String,
    seen: &'s Seen,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        let mut reading = Reading {
            value,
            path: self.path.clone(),
            seen: self.seen,
        };
        reading.path = reading.below(&key);
        self.value = Some(reading);
        let key: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let value = self
            .value
            .take()
            .expect("serde asks for a value after its key");
        seed.deserialize(value)
    }
}

struct Elements<'s> {
    elements: std::vec::IntoIter<Value>,
    path: String,
    seen: &'s Seen,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let element = self.elements.next().map(|value| {
            seed.deserialize(Reading {
                value,
                path: self.path.clone(),
                seen: self.seen,
            })
        });
        element.transpose()
    }
}
