//! The commands of `listserv`: each is one [`Ask`] to the running program.

use clap::Subcommand;
use delivery::{queue, safekeeping};
use serde_json::Value;
use service::control::Request;
use service::program::Invocation;

use crate::ask::{Ask, PATH};
use crate::config::Config;
use crate::deliver::copies;

/// How many lines a listing shows.
const LINES: u32 = 100;

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists: create, show, delete, list.
    #[command(subcommand)]
    List(List),
    /// Members of a list: add, remove, list.
    #[command(subcommand)]
    Member(People),
    /// Owners of a list: add, remove, list.
    #[command(subcommand)]
    Owner(People),
    /// Aliases: add, remove, list.
    #[command(subcommand)]
    Alias(Alias),
    /// What waits to be delivered, and what to do about it.
    #[command(subcommand)]
    Queue(queue::Command),
    /// How every recipient that was ever accepted ended, or that it waits; exits 1 when that does not add up.
    Reconcile,
    /// What is known of a message (its id or ident) or of mail to a recipient: what waits, and how it ended lately.
    Why {
        /// The id, ident or address.
        what: String,
    },
    /// What bounced, and which reports were not sent: show, suppressed.
    #[command(subcommand)]
    Bounce(Bounce),
    /// What was not let through: list, show, release, drop.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// The spool's files: backup, restore, check, export.
    #[command(subcommand)]
    Spool(safekeeping::Command),
}

/// `listserv list`.
// A subcommand is named as it is typed: `list list`.
#[allow(clippy::enum_variant_names)]
#[derive(Debug, Subcommand)]
pub enum List {
    /// Make a list; edges learn of it at once.
    Create {
        /// Its address, dev@lists.example.
        list: String,
        /// Who runs it; repeat for more.
        #[arg(long = "owner")]
        owners: Vec<String>,
    },
    /// Show a list.
    Show {
        /// Its address.
        list: String,
    },
    /// End a list, with its members and counts.
    Delete {
        /// Its address.
        list: String,
    },
    /// Show all lists.
    List,
}

/// `listserv member`, `listserv owner`.
#[derive(Debug, Subcommand)]
pub enum People {
    /// Add addresses, all or none.
    Add {
        /// The list.
        list: String,
        /// Whom.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Remove addresses.
    Remove {
        /// The list.
        list: String,
        /// Whom.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Show them.
    List {
        /// The list.
        list: String,
    },
}

/// `listserv alias`.
#[derive(Debug, Subcommand)]
pub enum Alias {
    /// Make an alias, or add forward-paths to it.
    Add {
        /// Its address.
        alias: String,
        /// Where its mail goes.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Remove forward-paths; the whole alias when none are named.
    Remove {
        /// Its address.
        alias: String,
        /// Which paths.
        addresses: Vec<String>,
    },
    /// Show all aliases.
    List,
}

/// `listserv bounce`.
#[derive(Debug, Subcommand)]
pub enum Bounce {
    /// Show what bounced of a list's members, worst first.
    Show {
        /// The list.
        list: String,
    },
    /// Show failure reports that were not sent, newest first.
    Suppressed {
        /// How many.
        #[arg(long, default_value_t = LINES)]
        limit: u32,
    },
}

/// `listserv quarantine`.
#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// Show what is held, newest first.
    List {
        /// Also what was released, dropped, or has expired.
        #[arg(long)]
        all: bool,
        /// How many.
        #[arg(long, default_value_t = LINES)]
        limit: u32,
    },
    /// Show one item with its message.
    Show {
        /// Its number.
        id: i64,
    },
    /// Let one go to those it was for.
    Release {
        /// Its number.
        id: i64,
    },
    /// Delete one.
    Drop {
        /// Its number.
        id: i64,
    },
}

/// Turns a command into its request, or into what is done with the spool of this configuration.
pub fn invocation(command: Command, config: &Config) -> Invocation {
    let ask = match command {
        Command::Spool(command) => {
            let hostname = config.hostname.clone();
            let render: safekeeping::Render =
                Box::new(move |head, batch, body| copies(&hostname, head, batch, body));
            let spool = config.spool_folder();
            let owned = safekeeping::Owned {
                render,
                waits_for_word: |_| false,
            };
            return safekeeping::invocation(command, spool, &config.hostname, owned);
        }
        Command::Queue(command) => return queue::invocation(command),
        Command::Reconcile => return queue::reconcile(),
        Command::Why { what } => return queue::why(what),
        command => ask(command),
    };
    Invocation::Control {
        request: Request::post(PATH, serde_json::to_value(ask).ok()),
        print,
    }
}

/// None for what is not asked of the running program.
fn ask(command: Command) -> Option<Ask> {
    Some(match command {
        Command::Spool(_) | Command::Queue(_) | Command::Reconcile | Command::Why { .. } => {
            return None;
        }
        Command::List(list) => match list {
            List::Create { list, owners } => Ask::ListCreate { list, owners },
            List::Show { list } => Ask::ListShow { list },
            List::Delete { list } => Ask::ListDelete { list },
            List::List => Ask::Lists,
        },
        Command::Member(people) => match people {
            People::Add { list, addresses } => Ask::MemberAdd { list, addresses },
            People::Remove { list, addresses } => Ask::MemberRemove { list, addresses },
            People::List { list } => Ask::Members { list },
        },
        Command::Owner(people) => match people {
            People::Add { list, addresses } => Ask::OwnerAdd { list, addresses },
            People::Remove { list, addresses } => Ask::OwnerRemove { list, addresses },
            People::List { list } => Ask::Owners { list },
        },
        Command::Alias(alias) => match alias {
            Alias::Add { alias, addresses } => Ask::AliasAdd { alias, addresses },
            Alias::Remove { alias, addresses } => Ask::AliasRemove { alias, addresses },
            Alias::List => Ask::Aliases,
        },
        Command::Bounce(bounce) => match bounce {
            Bounce::Show { list } => Ask::Bounces { list },
            Bounce::Suppressed { limit } => Ask::Suppressed { limit },
        },
        Command::Quarantine(quarantine) => match quarantine {
            Quarantine::List { all, limit } => Ask::QuarantineList { all, limit },
            Quarantine::Show { id } => Ask::QuarantineShow { id },
            Quarantine::Release { id } => Ask::QuarantineRelease { id },
            Quarantine::Drop { id } => Ask::QuarantineDrop { id },
        },
    })
}

/// A line an entry; a message in full.
fn print(answer: &Value) -> String {
    match answer {
        Value::Array(entries) if entries.is_empty() => "none".into(),
        Value::Array(entries) => entries.iter().map(line).collect::<Vec<_>>().join("\n"),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}: {}", plain(value)))
            .collect::<Vec<_>>()
            .join("\n"),
        other => plain(other),
    }
}

fn line(entry: &Value) -> String {
    match entry {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}={}", plain(value)))
            .collect::<Vec<_>>()
            .join(" "),
        other => plain(other),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn commands_become_requests() {
        let table = [
            (
                "list create dev@l.example --owner joe@one.example",
                json!({"do": "list-create", "list": "dev@l.example", "owners": ["joe@one.example"]}),
            ),
            (
                "member add dev@l.example a@b c@d",
                json!({"do": "member-add", "list": "dev@l.example", "addresses": ["a@b", "c@d"]}),
            ),
            ("list list", json!({"do": "lists"})),
            (
                "quarantine release 7",
                json!({"do": "quarantine-release", "id": 7}),
            ),
            (
                "alias remove joe@l.example",
                json!({"do": "alias-remove", "alias": "joe@l.example", "addresses": []}),
            ),
        ];
        for (words, expected) in table {
            let line = Line::try_parse_from(std::iter::once("x").chain(words.split(' '))).unwrap();
            let asked = ask(line.command).unwrap();
            let json = serde_json::to_value(&asked).unwrap();
            assert_eq!(json, expected, "{words}");
            assert_eq!(serde_json::from_value::<Ask>(json).unwrap(), asked);
        }
        assert!(Line::try_parse_from(["x", "member", "add", "dev@l.example"]).is_err());
    }

    #[test]
    fn answers_are_printed_a_line_an_entry() {
        let table = [
            (json!(["a@b", "c@d"]), "a@b\nc@d"),
            (
                json!([{"address": "a@b", "owners": ["x", "y"]}]),
                "address=a@b owners=x,y",
            ),
            (json!({"members": 3}), "members: 3"),
            (json!([]), "none"),
        ];
        for (answer, expected) in table {
            assert_eq!(print(&answer), expected);
        }
    }
}
