//! The scanner: LMTP in, structure, clamd and spamd, a verdict, its own header fields, LMTP on to the list host.
//!
//! Owns no mail: a 250 is the list host's, and whatever happens here, the edge keeps or its client comes again.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod announce;
pub mod authenticate;
pub mod canary;
pub mod clamd;
pub mod config;
pub mod control;
pub mod daemon;
pub mod decide;
pub mod endpoint;
pub mod headers;
pub mod health;
pub mod metrics;
pub mod policy;
pub mod pool;
pub mod receive;
pub mod relay;
pub mod replies;
mod run;
pub mod scan;
pub mod size;
pub mod spamd;
pub mod standing;
pub mod structure;
pub mod transaction;
pub mod trouble;

use service::program::{Daemon, Invocation, Program, StartError};

/// The program.
pub struct Scanner;

impl Program for Scanner {
    const NAME: &'static str = "scanner";
    const ABOUT: &'static str =
        "Scans mail with SpamAssassin and ClamAV between the edge and the list host.";
    type Config = config::Config;
    type Command = control::Command;

    fn command(command: Self::Command, _config: &Self::Config) -> Invocation {
        control::command(command)
    }

    async fn run(config: Self::Config, daemon: Daemon<Self::Config>) -> Result<(), StartError> {
        run::run(config, daemon).await
    }
}
