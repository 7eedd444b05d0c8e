//! Durations in configuration: `"30s"`, `"5m"`, `"2h"`, `"60d"`, `"250ms"`. Use as `#[serde(with = "service::config::duration")]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

/// Largest first; in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Writes the largest unit that loses nothing.
pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let text = format(*value).ok_or_else(|| {
        S::Error::custom(format!(
            "duration {value:?} is not a number of milliseconds"
        ))
    })?;
    serializer.serialize_str(&text)
}

/// Reads a number with its unit.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

/// The same for keys that may be absent: `#[serde(default, skip_serializing_if = "Option::is_none", with = "service::config::duration::optional")]`.
pub mod optional {
    use super::*;

    /// Writes as [`super::serialize`] does.
    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::serialize(value, serializer),
            None => None::<String>.serialize(serializer),
        }
    }

    /// Reads as [`super::deserialize`] does.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

/// The same for lists: `["5m", "20m"]`.
pub mod list {
    use super::*;

    /// Writes each as [`super::serialize`] does.
    pub fn serialize<S: Serializer>(values: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Option<Vec<String>> = values.iter().map(|value| format(*value)).collect();
        texts
            .ok_or_else(|| S::Error::custom("a duration is not a number of milliseconds"))?
            .serialize(serializer)
    }

    /// Reads each as [`super::deserialize`] does.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Duration>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let values: Result<Vec<Duration>, String> = texts.iter().map(|text| parse(text)).collect();
        values.map_err(D::Error::custom)
    }
}

/// `"90s"`; `None` for what is finer than a millisecond or longer than 2^64 of them.
pub fn format(value: Duration) -> Option<String> {
    if !value.subsec_nanos().is_multiple_of(1_000_000) {
        return None;
    }
    let millis = u64::try_from(value.as_millis()).ok()?;
    if millis == 0 {
        return Some("0s".into());
    }
    let (unit, size) = UNITS.into_iter().find(|(_, size)| millis % size == 0)?;
    Some(format!("{}{unit}", millis / size))
}

/// Reads `"90s"`; the error says what was expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let size = UNITS.into_iter().find(|(name, _)| *name == unit);
    let (false, Some((_, size))) = (number.is_empty(), size) else {
        return Err(format!(
            "invalid duration {text:?}, expected a whole number with its unit ms, s, m, h or d, as in \"30s\""
        ));
    };
    let millis = number.parse::<u64>().ok().and_then(|n| n.checked_mul(size));
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| format!("duration {text:?} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_and_written() {
        for (text, millis, written) in [
            ("30s", 30_000, "30s"),
            ("5m", 300_000, "5m"),
            ("300s", 300_000, "5m"),
            ("90s", 90_000, "90s"),
            ("2h", 7_200_000, "2h"),
            ("60d", 5_184_000_000, "60d"),
            ("250ms", 250, "250ms"),
            ("1500ms", 1_500, "1500ms"),
            ("0s", 0, "0s"),
            ("0d", 0, "0s"),
        ] {
            let value = parse(text).unwrap();
            assert_eq!(value, Duration::from_millis(millis), "{text}");
            assert_eq!(format(value).unwrap(), written, "{text}");
        }
        assert_eq!(format(Duration::from_micros(1)), None);
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            " 1s",
            "1s ",
            "1S",
            "1 s",
            "1h30m",
            "1w",
            "+1s",
            "1µs",
            "18446744073709551615d",
            "99999999999999999999s",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn optional_keys() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Section {
            #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
            wait: Option<Duration>,
        }
        for (text, wait) in [
            ("", None),
            ("wait = \"5m\"\n", Some(Duration::from_secs(300))),
        ] {
            let section: Section = toml::from_str(text).unwrap();
            assert_eq!(section, Section { wait });
            assert_eq!(toml::to_string(&section).unwrap(), text);
        }
    }

    #[test]
    fn lists() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Section {
            #[serde(with = "list")]
            waits: Vec<Duration>,
        }
        let text = "waits = [\"5m\", \"1h\"]\n";
        let section: Section = toml::from_str(text).unwrap();
        let seconds: Vec<u64> = section.waits.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [300, 3600]);
        assert_eq!(toml::to_string(&section).unwrap(), text);
        assert!(toml::from_str::<Section>("waits = [\"5\"]").is_err());
    }
}
