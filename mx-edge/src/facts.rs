//! What this edge wants to remember of a spooled message: everything that its trace and XFORWARD say again at a later pass.
//! Pure; kept as JSON in the spool's head.

use std::net::SocketAddr;

use bytes::Bytes;
use mail::trace::{Custody, Spf, Trace};
use mail::{Ident, Timestamp};
use serde::{Deserialize, Serialize};
use smtp::xforward::Xforward;

/// The facts of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageFacts {
    /// Its name on the inner hops.
    pub ident: Ident,
    /// The session it came in.
    pub session: Box<str>,
    /// The client.
    pub client: SocketAddr,
    /// What the client called itself.
    pub helo: Box<str>,
    /// EHLO was used.
    pub extended: bool,
    /// SPF at arrival.
    pub spf: Spf,
    /// From a network of our own: not scanned.
    pub exempt: bool,
    /// The rule of the policy that had it held; until the inside has refused it.
    pub held_by: Option<Box<str>>,
}

/// The form in the spool. A field is never given another meaning; a new one gets a default.
#[derive(Serialize, Deserialize)]
struct Stored {
    ident: String,
    session: Box<str>,
    client: SocketAddr,
    helo: Box<str>,
    extended: bool,
    spf: Box<str>,
    exempt: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_by: Option<Box<str>>,
}

impl MessageFacts {
    /// The trace field's content at one pass.
    pub fn trace(&self, custody: Custody, arrival: Timestamp, verdict: Option<&str>) -> Trace {
        Trace {
            ident: self.ident.clone(),
            custody,
            arrival,
            client: self.client.ip().to_canonical(),
            helo: self.helo.clone(),
            spf: self.spf,
            exempt: self.exempt,
            verdict: verdict.map(Into::into),
        }
    }

    /// What the next hop is told of the client.
    pub fn xforward(&self) -> Xforward {
        let words = |proto: &str, source: &str| (Some(proto.into()), Some(source.into()));
        let (proto, source) = words(
            if self.extended { "ESMTP" } else { "SMTP" },
            if self.exempt { "LOCAL" } else { "REMOTE" },
        );
        Xforward {
            name: None,
            addr: Some(self.client.ip().to_canonical()),
            port: Some(self.client.port()),
            proto,
            helo: (!self.helo.is_empty()).then(|| self.helo.clone()),
            ident: Some(self.ident.clone()),
            source,
        }
    }

    /// For the spool.
    pub fn to_bytes(&self) -> Bytes {
        let stored = Stored {
            ident: self.ident.as_str().into(),
            session: self.session.clone(),
            client: self.client,
            helo: self.helo.clone(),
            extended: self.extended,
            spf: crate::spf::label(self.spf).into(),
            exempt: self.exempt,
            held_by: self.held_by.clone(),
        };
        serde_json::to_vec(&stored)
            .expect("a struct of strings and numbers is JSON")
            .into()
    }

    /// From the spool.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            ident: Ident::parse(&stored.ident).map_err(|error| error.to_string())?,
            session: stored.session,
            client: stored.client,
            helo: stored.helo,
            extended: stored.extended,
            spf: spf(&stored.spf).ok_or_else(|| format!("SPF result {:?}", stored.spf))?,
            exempt: stored.exempt,
            held_by: stored.held_by,
        })
    }
}

fn spf(label: &str) -> Option<Spf> {
    let all = [
        Spf::Pass,
        Spf::Fail,
        Spf::SoftFail,
        Spf::Neutral,
        Spf::None,
        Spf::TempError,
        Spf::PermError,
    ];
    all.into_iter().find(|spf| crate::spf::label(*spf) == label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(spf: Spf) -> MessageFacts {
        MessageFacts {
            ident: Ident::new("mx1", 1, 2).unwrap(),
            session: "s".into(),
            client: "[2001:db8::1]:4711".parse().unwrap(),
            helo: "client.example".into(),
            extended: true,
            spf,
            exempt: false,
            held_by: None,
        }
    }

    #[test]
    fn facts_survive_the_spool() {
        for spf in [
            Spf::Pass,
            Spf::Fail,
            Spf::SoftFail,
            Spf::Neutral,
            Spf::None,
            Spf::TempError,
            Spf::PermError,
        ] {
            let held_by = (spf == Spf::Fail).then(|| "bulk".into());
            let facts = MessageFacts {
                held_by,
                ..facts(spf)
            };
            assert_eq!(MessageFacts::from_bytes(&facts.to_bytes()), Ok(facts));
        }
        assert!(MessageFacts::from_bytes(b"{}").is_err());
        assert!(MessageFacts::from_bytes(b"").is_err());
    }

    #[test]
    fn a_later_pass_says_the_same_but_for_custody_and_verdict() {
        let facts = facts(Spf::Pass);
        let live = facts.trace(Custody::Live, Timestamp(5), None);
        let spooled = facts.trace(Custody::Spooled, Timestamp(5), Some("token"));
        assert_eq!(spooled.verdict.as_deref(), Some("token"));
        assert_eq!(
            Trace {
                custody: Custody::Live,
                verdict: None,
                ..spooled
            },
            live
        );
    }
}
