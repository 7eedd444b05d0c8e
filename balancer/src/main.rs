//! The balancer's entry; the wiring is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::program::main::<balancer::Balancer>()
}
