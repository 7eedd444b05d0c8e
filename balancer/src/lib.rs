//! The balancer: TCP in front of scanners, each connection to the ready node where it ends first, its greeting read before splicing.
//!
//! Knows no mail: what passes is bytes. Owns nothing but what operators said: two side by side share nothing, and either may die.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
pub mod config;
pub mod control;
pub mod dial;
pub mod flow;
pub mod greeting;
pub mod latency;
pub mod metrics;
pub mod moves;
pub mod node;
pub mod pick;
pub mod pool;
pub mod probe;
pub mod proxy;
mod run;
pub mod shared;
pub mod splice;
pub mod words;

use service::program::{Daemon, Invocation, Program, StartError};

/// The program.
pub struct Balancer;

impl Program for Balancer {
    const NAME: &'static str = "balancer";
    const ABOUT: &'static str = "Spreads connections over the scanners that are ready.";
    type Config = config::Config;
    type Command = control::Command;

    fn command(command: Self::Command, _config: &Self::Config) -> Invocation {
        control::command(command)
    }

    async fn run(config: Self::Config, daemon: Daemon<Self::Config>) -> Result<(), StartError> {
        run::run(config, daemon).await
    }
}
