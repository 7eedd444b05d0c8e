//! What an operator can ask of the running program, as it goes over the control socket: one type for both ends.

use serde::{Deserialize, Serialize};

/// The path of the control socket that takes an [`Ask`].
pub const PATH: &str = "/ask";

/// A request. Addresses are texts: the program answers what is wrong with one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Makes a list.
    ListCreate {
        /// Its address.
        list: String,
        /// Who runs it.
        #[serde(default)]
        owners: Vec<String>,
    },
    /// Shows a list.
    ListShow {
        /// Its address.
        list: String,
    },
    /// Ends a list.
    ListDelete {
        /// Its address.
        list: String,
    },
    /// Shows all lists.
    Lists,
    /// Adds owners.
    OwnerAdd {
        /// The list.
        list: String,
        /// Whom.
        addresses: Vec<String>,
    },
    /// Removes owners.
    OwnerRemove {
        /// The list.
        list: String,
        /// Whom.
        addresses: Vec<String>,
    },
    /// Shows owners.
    Owners {
        /// The list.
        list: String,
    },
    /// Adds members.
    MemberAdd {
        /// The list.
        list: String,
        /// Whom.
        addresses: Vec<String>,
    },
    /// Removes members.
    MemberRemove {
        /// The list.
        list: String,
        /// Whom.
        addresses: Vec<String>,
    },
    /// Shows members.
    Members {
        /// The list.
        list: String,
    },
    /// Makes an alias or adds forward-paths to it.
    AliasAdd {
        /// Its address.
        alias: String,
        /// Where its mail goes.
        addresses: Vec<String>,
    },
    /// Removes forward-paths, or the alias when none are named.
    AliasRemove {
        /// Its address.
        alias: String,
        /// Which paths.
        addresses: Vec<String>,
    },
    /// Shows all aliases.
    Aliases,
    /// Shows what bounced of a list's members.
    Bounces {
        /// The list.
        list: String,
    },
    /// Shows reports that were not sent.
    Suppressed {
        /// How many, newest first.
        limit: u32,
    },
    /// Shows what is in quarantine.
    QuarantineList {
        /// Also what has ended.
        all: bool,
        /// How many, newest first.
        limit: u32,
    },
    /// Shows one item with its message.
    QuarantineShow {
        /// Which.
        id: i64,
    },
    /// Lets one go its way.
    QuarantineRelease {
        /// Which.
        id: i64,
    },
    /// Ends one.
    QuarantineDrop {
        /// Which.
        id: i64,
    },
}
