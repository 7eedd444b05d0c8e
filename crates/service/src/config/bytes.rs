//! Sizes in configuration: `"64MiB"`, `"10MB"`, `"512KiB"`, `1000`. Use as `#[serde(with = "service::config::bytes")]`.

use std::fmt;

use serde::{Deserializer, Serializer, de};

/// Largest first, binary before decimal.
const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];
/// How many of [`UNITS`] are binary.
const BINARY: usize = 4;

/// Writes the largest binary unit that loses nothing.
pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let unit = UNITS[..BINARY]
        .iter()
        .find(|(_, size)| value.is_multiple_of(*size));
    match (unit, i64::try_from(*value)) {
        (Some((unit, size)), _) if *value > 0 => {
            serializer.serialize_str(&format!("{}{unit}", value / size))
        }
        (_, Ok(value)) => serializer.serialize_i64(value),
        // TOML's integers end at 2^63.
        (_, Err(_)) => serializer.serialize_str(&format!("{value}B")),
    }
}

/// Reads a number with its unit.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Size)
}

/// Reads `"64MiB"`; the error says what was expected.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let size = match unit {
        "" => Some(1),
        unit => UNITS.iter().find(|u| u.0 == unit).map(|u| u.1),
    };
    let (false, Some(size)) = (number.is_empty(), size) else {
        return Err(format!(
            "invalid size {text:?}, expected a whole number with its unit B, KiB, MiB, GiB, TiB, kB, MB, GB or TB, as in \"64MiB\""
        ));
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(size));
    bytes.ok_or_else(|| format!("size {text:?} is too large"))
}

struct Size;

impl de::Visitor<'_> for Size {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64MiB\" or 1000")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
        u64::try_from(value).map_err(|_| E::custom(format!("size {value} is negative")))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Section {
        #[serde(with = "crate::config::bytes")]
        size: u64,
    }

    #[test]
    fn read_and_written() {
        for (text, bytes, written) in [
            ("\"64MiB\"", 64 << 20, "\"64MiB\""),
            ("\"10MB\"", 10_000_000, "10000000"),
            ("\"512KiB\"", 512 << 10, "\"512KiB\""),
            ("\"1024KiB\"", 1 << 20, "\"1MiB\""),
            ("\"3TiB\"", 3 << 40, "\"3TiB\""),
            ("\"2kB\"", 2000, "2000"),
            ("\"1024B\"", 1024, "\"1KiB\""),
            ("\"77\"", 77, "77"),
            ("1000", 1000, "1000"),
            ("0", 0, "0"),
            (
                "\"18446744073709551615B\"",
                u64::MAX,
                "\"18446744073709551615B\"",
            ),
        ] {
            let section: Section = toml::from_str(&format!("size = {text}")).unwrap();
            assert_eq!(section.size, bytes, "{text}");
            let shown = toml::to_string(&section).unwrap();
            assert_eq!(shown, format!("size = {written}\n"), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "\"\"",
            "\"MiB\"",
            "\"-1MiB\"",
            "-1",
            "1.5",
            "\"1.5MiB\"",
            "\"1mib\"",
            "\"1 MiB\"",
            "\"1M\"",
            "\"99999999TiB\"",
            "true",
        ] {
            let read = toml::from_str::<Section>(&format!("size = {text}"));
            assert!(read.is_err(), "{text}");
        }
    }
}
