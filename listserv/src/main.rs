//! The program `listserv`. Does nothing: the wiring is `listserv::run`.

fn main() -> std::process::ExitCode {
    service::program::main::<listserv::Listserv>()
}
