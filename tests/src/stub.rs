//! Stubs that speak SPAMC and clamd's INSTREAM as the real daemons were seen to, for volume and for faults. They find GTUBE and
//! EICAR as the real ones do, count what they scanned, and can be told to be silent.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// GTUBE, put together here so that this source is not spam itself.
pub fn gtube() -> String {
    [
        "XJS*C4JDBQADN1.NSBN3*2IDNEN*",
        "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X",
    ]
    .concat()
}

/// EICAR, likewise.
pub fn eicar() -> String {
    [
        r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-",
        "ANTIVIRUS-TEST-FILE!$H+H*",
    ]
    .concat()
}

/// A line for which the stub of spamd gives so many points.
pub fn points(points: f32) -> String {
    format!("STUB-POINTS {points} ")
}

/// A word in which the stub of clamd finds malware of this name.
pub fn malware(name: &str) -> String {
    format!("STUB-MALWARE {name} ")
}

/// A pair of stubs on Unix sockets.
pub struct Stubs {
    /// spamd's socket.
    pub spamd: PathBuf,
    /// clamd's socket.
    pub clamd: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    spamd_scans: AtomicU64,
    clamd_scans: AtomicU64,
    silent: AtomicBool,
    forgetful: AtomicBool,
    ended: AtomicBool,
}

impl Stubs {
    /// Starts both in a folder.
    pub fn start(folder: &Path) -> Self {
        let state = Arc::new(State::default());
        let (spamd, clamd) = (
            folder.join("stub-spamd.sock"),
            folder.join("stub-clamd.sock"),
        );
        serve(&spamd, state.clone(), spamd_answers);
        serve(&clamd, state.clone(), clamd_answers);
        Self {
            spamd,
            clamd,
            state,
        }
    }

    /// Messages that spamd's stub has scanned.
    pub fn spamd_scans(&self) -> u64 {
        self.state.spamd_scans.load(Ordering::Relaxed)
    }

    /// Messages that clamd's stub has scanned.
    pub fn clamd_scans(&self) -> u64 {
        self.state.clamd_scans.load(Ordering::Relaxed)
    }

    /// While silent, both accept connections and answer nothing, as a clamd does while it reloads its database.
    pub fn silence(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::Relaxed);
    }

    /// Without rules spamd's stub calls everything ham, as the real one does when they were not loaded.
    pub fn forget(&self, forgetful: bool) {
        self.state.forgetful.store(forgetful, Ordering::Relaxed);
    }
}

impl Drop for Stubs {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        for socket in [&self.spamd, &self.clamd] {
            // Wakes the accepting thread so that it sees the end.
            let _ = UnixStream::connect(socket);
        }
    }
}

fn serve(socket: &Path, state: Arc<State>, answer: fn(&State, UnixStream) -> std::io::Result<()>) {
    let listener =
        UnixListener::bind(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if state.ended.load(Ordering::Relaxed) {
                return;
            }
            let state = state.clone();
            thread::spawn(move || {
                while state.silent.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(20));
                }
                let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
                let _ = answer(&state, stream);
            });
        }
    });
}

/// One SPAMC request a connection (spamd 4.0.1): PING, SYMBOLS, CHECK.
fn spamd_answers(state: &State, stream: UnixStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line)? > 0 && line != "\r\n" {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    if request.starts_with("PING") {
        return reader.get_mut().write_all(b"SPAMD/1.5 0 PONG\r\n");
    }
    let mut message = vec![0; length];
    reader.read_exact(&mut message)?;
    state.spamd_scans.fetch_add(1, Ordering::Relaxed);
    let forgetful = state.forgetful.load(Ordering::Relaxed);
    let spam = !forgetful && contains(&message, gtube().as_bytes());
    let (word, score, tests) = match word_behind(&message, b"STUB-POINTS ") {
        _ if spam => ("True", "1000.0".into(), "GTUBE"),
        Some(points) => ("True", points, "STUB_POINTS"),
        None => ("False", "0.1".into(), "STUB_HAM"),
    };
    let body = if request.starts_with("SYMBOLS") {
        tests
    } else {
        ""
    };
    write!(
        reader.get_mut(),
        "SPAMD/1.1 0 EX_OK\r\nContent-length: {}\r\nSpam: {word} ; {score} / 5.0\r\n\r\n{body}",
        body.len()
    )
}

/// clamd 1.4.6: zPING, zVERSION, zINSTREAM; the answer ends as the command did.
fn clamd_answers(state: &State, stream: UnixStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut command = Vec::new();
    reader.read_until(0, &mut command)?;
    match command.as_slice() {
        b"zPING\0" => reader.get_mut().write_all(b"PONG\0"),
        b"zVERSION\0" => reader.get_mut().write_all(b"ClamAV 1.4.6/stub\0"),
        b"zINSTREAM\0" => {
            let mut message = Vec::new();
            loop {
                let mut length = [0; 4];
                reader.read_exact(&mut length)?;
                let length = u32::from_be_bytes(length) as usize;
                if length == 0 {
                    break;
                }
                let start = message.len();
                message.resize(start + length, 0);
                reader.read_exact(&mut message[start..])?;
            }
            state.clamd_scans.fetch_add(1, Ordering::Relaxed);
            let found = match contains(&message, eicar().as_bytes()) {
                true => Some("Test.Eicar.Body.UNOFFICIAL".to_owned()),
                false => word_behind(&message, b"STUB-MALWARE "),
            };
            let answer = match found {
                Some(name) => format!("stream: {name} FOUND\0"),
                None => "stream: OK\0".to_owned(),
            };
            reader.get_mut().write_all(answer.as_bytes())
        }
        _ => reader.get_mut().write_all(b"UNKNOWN COMMAND\0"),
    }
}

fn word_behind(text: &[u8], mark: &[u8]) -> Option<String> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    let rest = &text[at + mark.len()..];
    let word = rest.split(u8::is_ascii_whitespace).next()?;
    Some(String::from_utf8_lossy(word).into_owned())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
