//! What is remembered of a message beside its envelope: who brought it, what was found; and the templates of its batches.
//! Stored as JSON in the spool; later releases read what earlier ones wrote, so fields are only ever added.

use std::net::IpAddr;

use bytes::Bytes;
use mail::trace::{Custody, Spf, Trace};
use mail::verdict::{Class, Verdict};
use serde::{Deserialize, Serialize};

/// Facts of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Its name on the inner hops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ident: Option<String>,
    /// Which session brought it; empty for what we wrote ourselves.
    pub session: String,
    /// The original client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// What the original client called itself.
    pub helo: String,
    /// What the edge's SPF check said; `none` when nobody checked.
    pub spf: SpfWord,
    /// The scanner's class, if a verdict came with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// `live` or `spooled`; empty when nobody said.
    pub custody: String,
    /// From an own network, exempt from scanning.
    pub exempt: bool,
    /// Written here: an answer, a report.
    pub own: bool,
}

/// [`Spf`], as it is stored. A word that is not known is `temperror`: not verified, and nobody's fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpfWord {
    /// The domain authorises the client.
    Pass,
    /// It forbids it.
    Fail,
    /// It discourages it.
    SoftFail,
    /// It says nothing about it.
    Neutral,
    /// No policy, or not checked.
    #[default]
    None,
    /// The policy cannot be read.
    PermError,
    /// DNS did not answer.
    #[serde(other)]
    TempError,
}

impl From<Spf> for SpfWord {
    fn from(spf: Spf) -> Self {
        match spf {
            Spf::Pass => Self::Pass,
            Spf::Fail => Self::Fail,
            Spf::SoftFail => Self::SoftFail,
            Spf::Neutral => Self::Neutral,
            Spf::None => Self::None,
            Spf::TempError => Self::TempError,
            Spf::PermError => Self::PermError,
        }
    }
}

impl Facts {
    /// Facts of what we wrote ourselves.
    pub fn own() -> Self {
        Self {
            own: true,
            ..Self::default()
        }
    }

    /// Takes in what the edge and the scanner said.
    pub fn learn(&mut self, trace: &Trace, verdict: Option<&Verdict>) {
        self.client = Some(trace.client);
        self.helo = trace.helo.to_string();
        self.spf = trace.spf.into();
        self.custody = match trace.custody {
            Custody::Live | Custody::Spooled => trace.custody.as_str().to_owned(),
        };
        self.exempt = trace.exempt;
        self.class = verdict.map(|verdict| verdict.class.as_str().to_owned());
        if self.ident.is_none() {
            self.ident = Some(trace.ident.to_string());
        }
    }

    /// Whether a scanner found it clean.
    pub fn clean(&self) -> bool {
        self.class.as_deref() == Some(Class::Clean.as_str())
    }

    /// As stored.
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self)
            .map(Bytes::from)
            .unwrap_or_default()
    }

    /// Reads what is stored; what cannot be read is nothing known.
    pub fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

/// How a batch's recipients get their copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Template {
    /// A post: list header, VERP.
    Post {
        /// The list's address.
        list: String,
        /// The post's number.
        number: u64,
    },
    /// Passed on from an alias, an owner or a role address, reverse-path as it came.
    Forward {
        /// The address it was sent to.
        by: String,
    },
    /// Our own mail, as it was written.
    Own,
}

impl Template {
    /// As stored.
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self)
            .map(Bytes::from)
            .unwrap_or_default()
    }

    /// Reads what is stored.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_facts_come_back() {
        let facts = Facts {
            ident: Some("mx1.a.b".into()),
            client: Some("192.0.2.1".parse().unwrap()),
            spf: SpfWord::SoftFail,
            class: Some("clean".into()),
            custody: "live".into(),
            ..Facts::default()
        };
        assert_eq!(Facts::read(&facts.to_bytes()), facts);
        assert!(facts.clean());
        assert_eq!(Facts::read(b"nonsense"), Facts::default());
        let later = Facts::read(br#"{"spf":"unheard-of","colour":"blue"}"#);
        assert_eq!(later.spf, SpfWord::TempError);
    }

    #[test]
    fn stored_templates_come_back() {
        for template in [
            Template::Post {
                list: "dev@lists.example".into(),
                number: 7,
            },
            Template::Forward {
                by: "joe@lists.example".into(),
            },
            Template::Own,
        ] {
            assert_eq!(Template::read(&template.to_bytes()), Some(template));
        }
        assert_eq!(Template::read(b""), None);
    }
}
