//! What is kept with the recipients of a batch that is tried again: who deferred them last, where and when (the reply itself stands
//! beside it), and whether their sender was told of the delay. JSON; later releases read what earlier ones wrote.

use bytes::Bytes;
use mail::Timestamp;
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// The host that spoke last; none when nobody was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Where in the dialogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// When, milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// The sender was told that it takes longer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

impl Note {
    /// Reads what is stored; what cannot be read is nothing known.
    pub fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// This was said of a recipient now.
    pub fn said(&mut self, remote: Option<&str>, phase: Option<&str>) {
        self.remote = remote.map(str::to_owned);
        self.phase = phase.map(str::to_owned);
        self.at = Some(Timestamp::now().0);
    }

    /// As stored.
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self)
            .map(Bytes::from)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_note_comes_back() {
        let mut note = Note::default();
        assert_eq!(&note.to_bytes()[..], b"{}");
        note.said(Some("mx.one.example[192.0.2.1]"), Some("RCPT"));
        note.told = true;
        assert_eq!(Note::read(&note.to_bytes()), note);
        assert_eq!(Note::read(b""), Note::default());
        assert!(Note::read(br#"{"told":true,"colour":"blue"}"#).told);
    }
}
