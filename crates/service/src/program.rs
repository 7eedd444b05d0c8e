//! How a program starts, reloads and ends: `PROGRAM --config FILE [--check] [COMMAND]` (design section 6).
//! It alone handles signals and the command line; what a program does in between is the program's affair.

mod cli;
mod command;
mod daemon;

use std::io::Write;
use std::process::ExitCode;

use tokio::sync::watch;

pub use crate::config::Configuration;
use crate::control::{Readiness, Request};
use crate::shutdown::Shutdown;
pub use crate::trouble::{Complaint, StartError};

/// One of the house's daemons. `main` is `service::program::main::<Edge>()` and nothing else.
pub trait Program: 'static {
    /// `mx-edge`; names the binary, its logs and its default configuration `/etc/mailflow/mx-edge.toml`.
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// The whole configuration; `Default` is what every missing key means, unknown keys are errors (`deny_unknown_fields`).
    type Config: Configuration;
    /// Its commands; `None` runs the daemon.
    type Command: clap::Subcommand;

    /// What a command does: a request to the running daemon's control socket, or something done here and now.
    fn command(command: Self::Command, config: &Self::Config) -> Invocation;

    /// Wires the rooms together and serves until `daemon.shutdown` says stop and the last activity has ended.
    fn run(
        config: Self::Config,
        daemon: Daemon<Self::Config>,
    ) -> impl Future<Output = Result<(), StartError>> + Send;
}

/// What a command turns into.
pub enum Invocation {
    /// Ask the running daemon; print its JSON with `--json`, otherwise through `print`.
    Control {
        /// What to ask.
        request: Request,
        /// How to show the answer to a person.
        print: fn(&serde_json::Value) -> String,
    },
    /// Ask the running daemon how something is; printed in the same way.
    Inquiry {
        /// What to ask.
        request: Request,
        /// How to show the answer to a person.
        print: fn(&serde_json::Value) -> String,
        /// Whether all is as it should be; otherwise it exits 1.
        good: fn(&serde_json::Value) -> bool,
    },
    /// Ask the running daemon to begin something, then look how far it is until it is over (exit 0): what has changed is printed, as
    /// JSON with `--json`. To stop looking ends nothing.
    Follow {
        /// What begins it.
        begin: Request,
        /// How far it is.
        look: Request,
        /// How to show that to a person.
        print: fn(&serde_json::Value) -> String,
        /// Whether there is nothing more to wait for.
        over: fn(&serde_json::Value) -> bool,
    },
    /// Do it here; the string is printed, an error goes to stderr and exits 1.
    Here(Box<dyn FnOnce() -> Result<String, String> + Send>),
    /// Look at something here; the finding is printed as JSON with `--json`, otherwise through `print`.
    Report {
        /// What to look at.
        act: Box<dyn FnOnce() -> Result<serde_json::Value, String> + Send>,
        /// How to show the finding to a person.
        print: fn(&serde_json::Value) -> String,
        /// Whether all is as it should be; otherwise it exits 1.
        good: fn(&serde_json::Value) -> bool,
    },
}

/// What a running program is given.
pub struct Daemon<C> {
    /// Says when to stop; holds activities that must end first.
    pub shutdown: Shutdown,
    /// The configuration in force; changes on SIGHUP when the new one is good.
    pub config: watch::Receiver<C>,
    /// Where `/readyz` looks.
    pub readiness: Readiness,
    /// Where all metrics are registered.
    pub metrics: prometheus::Registry,
    /// Adds the program's own routes to the control socket (once, before serving), its listeners and its certificates.
    pub control: crate::control::Control,
}

/// Parses the command line, reads and checks the configuration (exit 78 when it is wrong), runs a command, or the daemon until
/// SIGTERM or SIGINT has drained it (exit 0). SIGHUP reloads; a bad new configuration is told and the old one stays.
///
/// Every program has the commands `config`, `status`, `ready` and `ca`, and the options `--config`, `--check` and `--json`:
/// its own commands have other names. It is ready when it has published a listener or its routes
/// ([`Control`](crate::control::Control)) and every condition in [`Readiness`] is met.
pub fn main<P: Program>() -> ExitCode {
    let arguments = match cli::parse::<P>(std::env::args_os()) {
        Ok(arguments) => arguments,
        // Also `--help` and `--version`, which are no mistakes.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    match command::dispatch::<P>(arguments) {
        Ok(exit) => exit,
        Err(End { text, exit }) => {
            complain(&text);
            ExitCode::from(exit)
        }
    }
}

/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// Something could not be done.
const EXIT_FAILED: u8 = 1;
/// The configuration is wrong (`EX_CONFIG` of sysexits).
const EXIT_CONFIG: u8 = 78;

/// How a program ends when it has something to complain of.
struct End {
    text: String,
    exit: u8,
}

impl End {
    fn failed(text: impl ToString) -> Self {
        Self {
            text: text.to_string(),
            exit: EXIT_FAILED,
        }
    }

    fn config(text: String) -> Self {
        Self {
            text,
            exit: EXIT_CONFIG,
        }
    }
}

/// To stdout; whoever has closed it has seen enough.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
}

/// To stderr, the same.
fn complain(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
}
