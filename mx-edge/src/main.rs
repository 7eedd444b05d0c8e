//! The program mx-edge; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::program::main::<mx_edge::MxEdge>()
}
