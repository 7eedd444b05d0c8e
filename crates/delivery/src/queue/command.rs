//! The commands `PROGRAM queue ...` and `PROGRAM reconcile`: each is one request to the running program.

use clap::Subcommand;
use serde_json::{Value, json};
use service::control::Request;
use service::program::Invocation;

use super::routes::{ActAsked, DrainAsked, ListAsked, ShowAsked, TopAsked, WhyAsked};
use super::{Words, ledger, print, top};

/// `PROGRAM queue ...`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Counts by destination; costs the same however much waits
    Tally,
    /// How the queue is as a whole: paused, limited, how fast it drains, when it will be empty
    State,
    /// Show what waits, a batch a line
    List {
        /// Which
        #[command(flatten)]
        words: Box<Words>,
        /// So many lines
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on behind this batch, as the end of a listing says
        #[arg(long, value_name = "BATCH")]
        after: Option<String>,
    },
    /// Show a message with all its batches and recipients, or one batch
    Show {
        /// The id of a message or a batch, or an ident
        id: String,
    },
    /// Keep mail from being attempted until it is released; prints the hold's number, by which it is undone
    Hold(Act),
    /// Let held mail go on; `--hold N` undoes one hold. mx-edge without conditions: what the inside refused
    Release(Act),
    /// Try mail now, whatever its waiting time
    Retry(Act),
    /// End mail for good and without a report; counts only, unless --yes is given. mx-edge without conditions: what the inside refused
    Drop {
        /// Which
        #[command(flatten)]
        act: Act,
        /// Really end it
        #[arg(long)]
        yes: bool,
    },
    /// Show the holds, and how much each holds
    Holds,
    /// Show where the backlog is, in columns by age: recipients that are younger than the column's head
    Top {
        /// Of which mail
        #[command(flatten)]
        words: Box<Words>,
        /// A line for each: site, domain, list, sender
        #[arg(long, default_value = top::BY[0])]
        by: String,
        /// The heads of the columns
        #[arg(long, default_value = top::AGES)]
        ages: String,
        /// So many lines
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Show the sites that were met since the start: gate, window, rate, what waits, the last trouble
    Sites,
    /// Stop delivery, also after a restart; taking mail goes on
    Pause,
    /// Let delivery go on
    Resume,
    /// Probe every site that is shut, now
    Nudge,
    /// Limit how fast backlog and retries go, also after a restart; live mail is not held back
    Drain {
        /// Recipients: 50/s, 3000/m, or off; without it the limit in force is shown
        #[arg(long)]
        rate: Option<String>,
    },
}

/// What `hold`, `release`, `retry` and `drop` take.
#[derive(Debug, clap::Args)]
pub struct Act {
    /// Which
    #[command(flatten)]
    pub words: Box<Words>,
    /// Only say what is meant: how much, how old, where to
    #[arg(long)]
    pub dry_run: bool,
}

impl Command {
    /// The words of an act that says nothing of what is meant.
    pub fn unsaid(&mut self) -> Option<&mut Words> {
        match self {
            Self::Release(act) | Self::Drop { act, .. } if act.words.is_empty() => {
                Some(&mut act.words)
            }
            _ => None,
        }
    }
}

/// The request that a command is.
pub fn invocation(command: Command) -> Invocation {
    let (request, print): (Request, fn(&Value) -> String) = match command {
        Command::Tally => (Request::get("/queue/tally"), print::tally),
        Command::State => (Request::get("/queue"), print::state),
        Command::List {
            words,
            limit,
            after,
        } => {
            let asked = ListAsked {
                r#where: *words,
                after,
                limit,
            };
            (Request::post("/queue/list", json!(asked)), print::list)
        }
        Command::Show { id } => (
            Request::post("/queue/show", json!(ShowAsked { id })),
            print::show,
        ),
        Command::Hold(act) => (asked("/queue/hold", act, false), print::acted),
        Command::Release(act) => (asked("/queue/release", act, false), print::acted),
        Command::Retry(act) => (asked("/queue/retry", act, false), print::acted),
        Command::Drop { act, yes } => (asked("/queue/drop", act, yes), print::acted),
        Command::Holds => (Request::get("/queue/holds"), print::holds),
        Command::Top {
            words,
            by,
            ages,
            limit,
        } => {
            let asked = TopAsked {
                r#where: *words,
                by,
                ages,
                limit,
            };
            (Request::post("/queue/top", json!(asked)), print::top)
        }
        Command::Sites => (Request::get("/queue/sites"), print::sites),
        Command::Pause => (Request::post("/queue/pause", None), print::state),
        Command::Resume => (Request::post("/queue/resume", None), print::state),
        Command::Nudge => (Request::post("/queue/nudge", None), print::nudged),
        Command::Drain { rate } => (
            Request::post("/queue/drain", json!(DrainAsked { rate })),
            print::state,
        ),
    };
    Invocation::Control { request, print }
}

/// `PROGRAM why WHAT`: what waits of a message or for a recipient, and how it ended lately.
pub fn why(what: String) -> Invocation {
    Invocation::Control {
        request: Request::post("/queue/why", json!(WhyAsked { what })),
        print: print::why,
    }
}

/// `PROGRAM reconcile`: fails when the account does not balance.
pub fn reconcile() -> Invocation {
    Invocation::Inquiry {
        request: Request::get("/reconcile"),
        print: ledger::print,
        good: |account| account["balances"] == true,
    }
}

fn asked(path: &str, act: Act, sure: bool) -> Request {
    let asked = ActAsked {
        r#where: *act.words,
        dry_run: act.dry_run,
        sure,
    };
    Request::post(path, json!(asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(words: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("queue").chain(words.split(' '));
        Line::try_parse_from(words).map(|line| line.command)
    }

    #[test]
    fn commands_are_requests() {
        for (words, path, body) in [
            (
                "hold --domain a.example --older 2h",
                "POST /queue/hold",
                json!({"where": {"domains": ["a.example"], "older": "2h"}, "dry_run": false, "sure": false}),
            ),
            (
                "drop --all --yes",
                "POST /queue/drop",
                json!({"where": {"all": true}, "dry_run": false, "sure": true}),
            ),
            (
                "release --hold 3 --dry-run",
                "POST /queue/release",
                json!({"where": {"hold": 3}, "dry_run": true, "sure": false}),
            ),
            (
                "list --held --limit 5",
                "POST /queue/list",
                json!({"where": {"held": true}, "after": null, "limit": 5}),
            ),
            (
                "top --by list",
                "POST /queue/top",
                json!({"where": {}, "by": "list", "ages": top::AGES, "limit": 20}),
            ),
            (
                "drain --rate 50/s",
                "POST /queue/drain",
                json!({"rate": "50/s"}),
            ),
            ("pause", "POST /queue/pause", Value::Null),
            ("tally", "GET /queue/tally", Value::Null),
        ] {
            let Invocation::Control { request, .. } = invocation(parse(words).unwrap()) else {
                panic!("{words}");
            };
            assert_eq!(format!("{} {}", request.method, request.path), path);
            assert_eq!(request.body.unwrap_or_default(), body, "{words}");
        }
        assert!(parse("hold --colour blue").is_err());
        assert!(parse("show").is_err());
    }
}
