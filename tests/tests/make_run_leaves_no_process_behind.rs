//! `make run`'s site on its documented ports says ready, takes a first mail from swaks, shows a line for it, and after ^C has
//! left no process.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use end_to_end::{client, settings};
use local::Process;
use local::process::wait_for;

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn make_run_leaves_no_process_behind() {
    let folder = tempfile::Builder::new()
        .prefix("mailflow-run-")
        .tempdir()
        .expect("a folder");
    let root = folder.path().join("run");
    let log = folder.path().join("terminal");
    let mut command = Command::new(settings().binaries.join("mailflow-local"));
    command.arg(&root).stdin(Stdio::null());
    let mut run = Process::start("make run", command, &log).expect("it starts");
    let ready = wait_for(PATIENCE, || match run.log().contains("\nready\n") {
        true => Some(true),
        false => (!run.running()).then_some(false),
    });
    assert_eq!(ready, Some(true), "not ready:\n{}", run.log());

    // The command that it prints, word for word.
    let shown = run.log();
    let swaks = shown
        .lines()
        .find_map(|line| line.split_once("first mail:"))
        .expect("it says how")
        .1;
    let said = client::run(Command::new("sh").arg("-c").arg(swaks));
    assert!(said.contains("250 2."), "{said}\n{}", run.log());
    wait_for(PATIENCE, || {
        run.log().contains("delivered to 3").then_some(())
    })
    .unwrap_or_else(|| panic!("no line for the mail:\n{}", run.log()));

    let before = processes_of(&root);
    assert!(
        before >= 8,
        "spamd, clamd, the sink and five programs run: {before}"
    );
    run.interrupt();
    let status = run.wait(PATIENCE);
    assert!(
        status.is_some_and(|status| status.success()),
        "{status:?}\n{}",
        run.log()
    );
    assert_eq!(processes_of(&root), 0, "something was left");
}

/// Processes whose command line names the site's folder.
fn processes_of(root: &Path) -> usize {
    let root = root.display().to_string();
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|byte| byte.is_ascii_digit())
        })
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|command| String::from_utf8_lossy(&command).replace('\0', " "))
        .filter(|command| command.contains(&root) && !command.starts_with(&mailflow_local()))
        .count()
}

fn mailflow_local() -> String {
    settings()
        .binaries
        .join("mailflow-local")
        .display()
        .to_string()
}
