//! A whole Mailflow site on one machine, on loopback: real spamd and clamd, the four programs, a sink that takes the members'
//! mail. `make run` starts one with fixed ports under `run/`; every end-to-end test starts its own in a temporary folder.
//!
//! Owns the processes it starts and ends them by pid; touches nothing else on the machine.

pub mod configs;
pub mod daemons;
pub mod http;
pub mod missing;
pub mod postfix;
pub mod process;
pub mod site;
pub mod watch;

pub use process::Process;
pub use site::{Layout, Options, Scanning, Site};
