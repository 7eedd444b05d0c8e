//! The list host: LMTP in, lists and aliases expanded, delivered to the internet; commands, returns, quarantine, directory.
//!
//! Owns mail from the 250 it gave until the next host has said 250, a report was accepted, or an operator ended it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ask;
mod bounce;
mod cli;
mod command;
pub mod config;
mod control;
mod deliver;
mod directory;
mod expansion;
mod facts;
mod metrics;
mod posting;
mod publish;
mod quarantine;
mod receive;
mod run;
mod secrets;
mod wire;

pub use cli::Command;
use service::program::{Daemon, Invocation, Program, StartError};

/// The program.
pub struct Listserv;

impl Program for Listserv {
    const NAME: &'static str = "listserv";
    const ABOUT: &'static str =
        "Mailing lists and aliases: takes mail from scanners, expands it, delivers it.";
    type Config = config::Config;
    type Command = Command;

    fn command(command: Self::Command, config: &Self::Config) -> Invocation {
        cli::invocation(command, config)
    }

    async fn run(config: Self::Config, daemon: Daemon<Self::Config>) -> Result<(), StartError> {
        run::run(config, daemon).await
    }
}
