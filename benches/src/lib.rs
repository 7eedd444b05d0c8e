//! Load and rehearsal for mail pipelines. So far its sink: servers that take mail, count it or keep it in Maildirs, and answer as
//! they are told; and how the benchmarks in `figures/` state what they measured.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod figures;
pub mod histogram;
mod lock;
pub mod maildir;
mod random;
pub mod rules;
mod seen;
pub mod sink;
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
