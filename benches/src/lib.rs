//! Load and rehearsal for mail pipelines: a source that sends mail at a pace or as fast as it is taken; a sink that takes it,
//! counts it or keeps it in Maildirs, and answers as it is told; and how the benchmarks in `figures/` state what they measured.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod figures;
pub mod histogram;
mod lock;
pub mod maildir;
mod random;
pub mod rules;
mod seen;
pub mod sink;
pub mod source;
pub mod stamp;

use std::process::ExitCode;

use clap::Parser;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "mailload",
    about = "Load and rehearsal for mail pipelines",
    version
)]
enum Command {
    /// Sends mail over SMTP or LMTP, checks the replies, prints what came of it.
    Source(source::Arguments),
    /// Takes mail over SMTP or LMTP until SIGTERM, then prints what it took.
    Sink(sink::Arguments),
    /// Shows the figures that benchmarks have stated so far (`make figures`).
    Figures,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let command = Command::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mailload: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        match command {
            Command::Sink(arguments) => sink::run(arguments).await,
            Command::Source(arguments) => source::run(arguments).await,
            Command::Figures => figures::show().map_err(|error| error.to_string()),
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mailload: {error}");
            ExitCode::FAILURE
        }
    }
}
