//! strace at a running program, to make chosen system calls on chosen files fail or last as those of a bad disk do. Where one process may not
//! trace another, a test fails and says what to allow (`local::missing`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use local::missing::Missing;
use local::process::wait_for;

/// Attached; lets go when dropped.
pub struct Tracer {
    child: Child,
    output: PathBuf,
}

impl Tracer {
    /// Attaches to a process: of its calls in `calls` on `file` the `when`-th goes as `how` says (strace(1), `inject`). `log` is where
    /// strace writes what it saw.
    pub fn attach(test: &str, pid: u32, fault: &Fault<'_>, log: &Path) -> Option<Self> {
        let Fault {
            calls,
            how,
            when,
            file,
        } = fault;
        let said = log.with_extension("strace-said");
        let errors = fs::File::create(&said).expect("a file");
        let started = Command::new("strace")
            .args(["-f", "-q", "-p", &pid.to_string(), "-P"])
            .arg(file)
            .args(["-e", &format!("trace={calls}"), "-e"])
            .arg(format!("inject={calls}:{how}:when={when}"))
            .arg("-o")
            .arg(log)
            .stdin(Stdio::null())
            .stderr(errors)
            .spawn();
        let mut tracer = match started {
            Ok(child) => Self {
                child,
                output: log.to_owned(),
            },
            Err(why) => {
                Missing::Trace.end(test, &format!("no strace: {why}"));
                return None;
            }
        };
        let traced = wait_for(Duration::from_secs(30), || {
            if tracer.child.try_wait().ok()?.is_some() {
                return Some(false);
            }
            all_traced(pid).then_some(true)
        });
        if traced == Some(true) {
            return Some(tracer);
        }
        let why = fs::read_to_string(&said).unwrap_or_default();
        assert!(
            why.contains("ptrace") || why.contains("not permitted"),
            "strace does not attach: {why}"
        );
        Missing::Trace.end(test, &format!("no process may be traced: {why}"));
        None
    }

    /// Whether a call was made to fail; a delay is not told.
    pub fn has_struck(&self) -> bool {
        let seen = fs::read_to_string(&self.output).unwrap_or_default();
        seen.contains("(INJECTED)")
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Killed, it lets go of the traced process, which goes on.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What goes wrong.
pub struct Fault<'a> {
    /// Names of system calls, with commas.
    pub calls: &'a str,
    /// `error=EIO`, `delay_enter=2000000` (microseconds).
    pub how: &'a str,
    /// `3`: the third; `3+`: that and all that follow.
    pub when: &'a str,
    /// On this file alone.
    pub file: &'a Path,
}

fn all_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    let mut count = 0;
    let all = tasks.flatten().all(|task| {
        count += 1;
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    });
    all && count > 0
}
