//! `mailload`: load and rehearsal for mail pipelines.

fn main() -> std::process::ExitCode {
    mailload::main()
}
