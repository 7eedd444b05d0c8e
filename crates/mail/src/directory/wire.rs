//! The directory as it travels and as edges keep it on disk: the whole of it, or what changed. Either ends in a seal, which only
//! listserv can make, over the version and the digest of what comes out: a change is worth what it leads to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Change, Content, Digest, Entries, Misfit, Version};

/// Which content this is, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// The version.
    pub version: Version,
    /// Of the content.
    pub digest: Digest,
    /// Over [`Seal::signed`], in hexadecimal; one for each key while keys rotate.
    #[serde(default)]
    pub signatures: Vec<Box<str>>,
}

impl Seal {
    /// What is signed.
    pub fn signed(&self) -> Vec<u8> {
        format!("mailflow directory {} {}", self.version, self.digest).into_bytes()
    }
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// What it is.
    pub seal: Seal,
    /// When its giver heard from a list host that it is the newest, in milliseconds since 1970. Not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<u64>,
    /// Domains that are ours.
    pub domains: Vec<Box<str>>,
    /// Lists.
    pub lists: Entries,
    /// Exact addresses.
    pub addresses: Entries,
}

impl Whole {
    /// As it is sent and stored. Names are shared with the content, not copied.
    pub fn new(seal: Seal, content: &Content) -> Self {
        let domains = content.domains.iter();
        Self {
            seal,
            confirmed: None,
            domains: domains.map(|domain| domain.as_str().into()).collect(),
            lists: content.lists.clone(),
            addresses: content.addresses.clone(),
        }
    }

    /// The content, if it is what the seal says; whether the seal is genuine is another question.
    pub fn content(self) -> Result<(Seal, Content), Misfit> {
        let mut domains = BTreeSet::new();
        for text in &self.domains {
            domains.insert(super::domain(text)?);
        }
        let content = Content {
            domains,
            lists: self.lists,
            addresses: self.addresses,
        };
        checked(self.seal, content)
    }
}

/// What changed since a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// Since which.
    pub from: Version,
    /// What comes out.
    pub seal: Seal,
    /// What comes and goes.
    pub change: Change,
}

impl Delta {
    /// The new content, if it is what the seal says.
    pub fn apply(&self, from: Version, content: &Content) -> Result<(Seal, Content), Misfit> {
        if from != self.from {
            let why = format!("it is made for version {}, here is {from}", self.from);
            return Err(Misfit(why));
        }
        let mut content = content.clone();
        content.apply(&self.change)?;
        checked(self.seal.clone(), content)
    }
}

fn checked(seal: Seal, content: Content) -> Result<(Seal, Content), Misfit> {
    let digest = content.digest();
    match digest == seal.digest {
        true => Ok((seal, content)),
        false => Err(Misfit(format!(
            "its digest is {digest}, stated is {}",
            seal.digest
        ))),
    }
}
