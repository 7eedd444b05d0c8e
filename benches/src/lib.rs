//! Load and rehearsal for mail pipelines. So far its sink: a server that takes mail, counts it or keeps it in Maildirs, and
//! answers as it is told; and how the benchmarks in `figures/` state what they measured.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod figures;
pub mod maildir;
pub mod rules;
pub mod sink;

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
    /// Takes mail over SMTP or LMTP until SIGTERM, then prints what it took.
    Sink(sink::Arguments),
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let Command::Sink(arguments) = Command::parse();
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
    match runtime.block_on(sink::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mailload: {error}");
            ExitCode::FAILURE
        }
    }
}
