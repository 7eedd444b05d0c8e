//! Starts the example program, reads its log, asks it, and never leaves it behind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take on a busy machine; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A log that says nothing for so long is silent.
const SILENCE: Duration = Duration::from_millis(100);

/// A folder with a configuration, outliving the processes that run on it.
pub struct Site {
    pub dir: TempDir,
}

impl Site {
    /// One whose configuration has these lines above its control socket.
    pub fn new(lines: &str) -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        site.configure(lines);
        site
    }

    pub fn configure(&self, lines: &str) {
        let socket = self.socket();
        let text = format!("{lines}\n[control]\nsocket = {socket:?}\n");
        fs::write(self.config(), text).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("echo.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// Runs a command to its end.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = program();
        command.arg("--config").arg(self.config()).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(&self) -> Running {
        self.ready(self.start_only())
    }

    /// The same with so many file descriptors and no more.
    pub fn start_with_descriptors(&self, max: u32) -> Running {
        let daemon = program();
        let mut limited = Command::new("sh");
        let script = format!("ulimit -n {max}; exec \"$@\"");
        limited
            .args(["-c", &script, "sh"])
            .arg(daemon.get_program());
        self.ready(self.spawn(limited))
    }

    fn ready(&self, mut running: Running) -> Running {
        let deadline = Instant::now() + PATIENCE;
        while !self.command(&["ready"]).status.success() {
            let ended = running.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended while starting: {ended:?}");
            assert!(Instant::now() < deadline, "not ready");
        }
        running
    }

    pub fn start_only(&self) -> Running {
        self.spawn(program())
    }

    fn spawn(&self, mut command: Command) -> Running {
        command.arg("--config").arg(self.config());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (lines, log) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody may be listening any more.
                let _ = lines.send(line);
            }
        });
        Running { child, log }
    }

    pub fn status(&self) -> serde_json::Value {
        let output = self.command(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Connects to a listener by its name in `/status`.
    pub fn connect(&self, listener: &str) -> Session {
        let status = self.status();
        let address = status["listeners"][listener].as_str().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Session(BufReader::new(stream))
    }

    /// GET on the HTTP listener: the status line and the body.
    pub fn get(&self, path: &str) -> (String, String) {
        let Session(mut stream) = self.connect("control");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().into(), body.into())
    }
}

/// A connection in lines.
pub struct Session(BufReader<TcpStream>);

impl Session {
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().into()
    }

    pub fn say(&mut self, line: &str) {
        let stream = self.0.get_mut();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// A daemon; killed when dropped.
pub struct Running {
    child: Child,
    log: Receiver<String>,
}

impl Running {
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for a log line with all of these in it; the lines before it.
    pub fn logged(&self, parts: &[&str]) -> Vec<String> {
        self.logged_while(parts, || {})
    }

    /// The same, doing something again whenever the log is silent.
    pub fn logged_while(&self, parts: &[&str], again: impl Fn()) -> Vec<String> {
        let mut before = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.log.recv_timeout(SILENCE) {
                Ok(line) if parts.iter().all(|part| line.contains(part)) => return before,
                Ok(line) => before.push(line),
                Err(RecvTimeoutError::Timeout) => again(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        panic!("no log line with {parts:?} in {before:#?}");
    }

    /// Closes the reading end of its stderr after the next line.
    pub fn forget_log(&mut self) {
        self.log = channel().1;
    }

    pub fn alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "does not end");
            std::thread::yield_now();
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.ended();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `cargo test` builds examples beside the tests; naming a single test target does not.
pub fn program() -> Command {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap().parent().unwrap();
    let program = folder.join("examples/echo");
    assert!(
        program.exists(),
        "build it first: cargo build -p service --examples"
    );
    Command::new(program)
}
