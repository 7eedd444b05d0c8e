//! What a session costs in memory while its client waits: before the greeting, with the lists asked about each client; and after STARTTLS.
//! The clients are in processes of their own, since a process has no descriptors for both ends.

mod callers;
mod edge_host;
mod server_time;

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailload::figures::{Figure, Goal, is_wanted, report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use callers::Line;
use edge_host::{EdgeHost, Failure, RBLDNSD, ZONE};
use server_time::memory_kib;

const PLAIN: &str = "edge_idle_session_kib";
const SECURED: &str = "edge_idle_session_tls_kib";
/// Held before the greeting; a process may have 20,000 descriptors where this was measured.
const SESSIONS: u64 = 19_000;
/// Held after STARTTLS.
const SESSIONS_TLS: u64 = 4_000;
/// Processes of clients.
const HOLDERS: u64 = 2;
/// Connections that are opened at once.
const OPENING: usize = 100;

/// Until memory stands still.
const SETTLE: Duration = Duration::from_secs(1);

const EDGE: &str = "limits.sessions_max = 19800\nlimits.command_timeout = '10m'\nstress.sessions_percent_high = 100\nscreen.sessions_percent_max = 100\n\
    stress.sessions_percent_low = 99\nscreen.wait = '29s'\nscreen.wait_stressed = '29s'\n";

/// `--hold PLAIN|TLS ADDRESS FIRST COUNT`: holds so many sessions until its standard input ends.
async fn hold(arguments: &[String]) -> Result<(), Failure> {
    let [way, to, first, count] = arguments else {
        return Err("--hold WAY ADDRESS FIRST COUNT".into());
    };
    let (to, first, count): (SocketAddr, u64, u64) = (to.parse()?, first.parse()?, count.parse()?);
    let tls = (way == "TLS").then(service::tls::opportunistic_client);
    let places = Arc::new(tokio::sync::Semaphore::new(OPENING));
    let mut opening = JoinSet::new();
    for number in first..first + count {
        let (tls, place) = (tls.clone(), Arc::clone(&places).acquire_owned().await?);
        opening.spawn(async move {
            let _place = place;
            open(to, number, tls).await
        });
    }
    let mut held = Vec::new();
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    println!("held {}", held.len());
    tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

type Held = Box<dyn std::any::Any + Send>;

/// A session that waits: for its greeting, or for its first command after STARTTLS.
async fn open(
    to: SocketAddr,
    number: u64,
    tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
) -> io::Result<Held> {
    let mut line = Line::dial(to, edge_host::client(number, false)).await?;
    let Some(tls) = tls else {
        // The teaser has come, the greeting has not.
        line.stream.readable().await?;
        return Ok(Box::new(line));
    };
    line.expect(b"220").await?;
    line.stream.write_all(b"EHLO client.example\r\n").await?;
    line.expect(b"250").await?;
    line.stream.write_all(b"STARTTLS\r\n").await?;
    line.expect(b"220").await?;
    let name = ServerName::IpAddress(to.ip().into());
    let mut stream = TlsConnector::from(tls).connect(name, line.stream).await?;
    stream.write_all(b"EHLO client.example\r\n").await?;
    stream.flush().await?;
    let mut reply = [0; 512];
    let read = stream.read(&mut reply).await?;
    match reply[..read].starts_with(b"250") {
        true => Ok(Box::new(stream)),
        false => Err(io::Error::other("no reply to EHLO")),
    }
}

/// Processes that hold sessions; they end when their standard input does.
struct Holders(Vec<Child>);

impl Holders {
    fn start(way: &str, to: SocketAddr, count: u64) -> Result<Self, Failure> {
        let each = count / HOLDERS;
        let mut holders = Self(Vec::new());
        for nth in 0..HOLDERS {
            let child = Command::new(std::env::current_exe()?)
                .args(["--hold", way, &to.to_string()])
                .args([(nth * each).to_string(), each.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            holders.0.push(child);
        }
        for child in &mut holders.0 {
            let stdout = child.stdout.take().ok_or("no standard output")?;
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            if line.trim() != format!("held {each}") {
                return Err(format!("a holder of {each} sessions says {line:?}").into());
            }
        }
        Ok(holders)
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What so many sessions add to an edge's memory.
struct Grown {
    /// KiB a session, while all are held.
    each: f64,
    /// The same, at the most while they came.
    most: f64,
    /// MiB of the whole process before.
    before: f64,
    /// From the first client to the measurement.
    held: Duration,
}

fn measure(way: &str, count: u64, settings: &str, folder: &Path) -> Result<Grown, Failure> {
    let edge = EdgeHost::start(folder, settings)?;
    let pid = edge.process.pid();
    if settings.contains(ZONE) {
        edge_host::wait_list(&edge)?;
    }
    // A few first: what the first ones of a kind load is no session's.
    drop(Holders::start(way, edge.mail, 100)?);
    std::thread::sleep(SETTLE);
    let before = memory_kib(pid, "VmRSS");
    let began = Instant::now();
    let _holders = Holders::start(way, edge.mail, count)?;
    std::thread::sleep(SETTLE);
    let held = began.elapsed();
    let each = |line| (memory_kib(pid, line) - before) / count as f64;
    Ok(Grown {
        each: each("VmRSS"),
        most: each("VmHWM"),
        before: before / 1024.0,
        held,
    })
}

fn state(name: &'static str, goal: Goal, grown: &Grown, how: String) -> io::Result<()> {
    report(&Figure {
        name,
        value: grown.each,
        unit: "KiB",
        goal,
        peer: "",
        detail: format!(
            "{how}, {:.0} s after the first came; resident memory above the {:.1} MiB before, {:.2} KiB at the most; the kernel's own of a \
             socket not counted",
            grown.held.as_secs_f64(),
            grown.before,
            grown.most
        ),
    })
}

/// A certificate of our own making, in PEM.
fn certificate(folder: &Path) -> Result<String, Failure> {
    let made = rcgen::generate_simple_self_signed(["mx.edge.example".to_owned()])?;
    let (certificate, key) = (folder.join("mx.pem"), folder.join("mx.key"));
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
    Ok(format!(
        "[tls]\ncertificate = '{}'\nkey = '{}'\n",
        certificate.display(),
        key.display()
    ))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == "--hold"
    {
        return hold(rest).await;
    }
    if is_wanted(PLAIN) && edge_host::can_measure(PLAIN, &[RBLDNSD]) {
        let folder = edge_host::folder()?;
        let dns = edge_host::free_port()?;
        let _list = edge_host::list(folder.path(), dns)?;
        let lists = format!(
            "screen.skip_networks = []\n[dns]\nservers = ['{dns}']\n[dnsbl]\nskip_networks = []\n\
             [[dnsbl.lists]]\nzone = '{ZONE}'\n"
        );
        let settings = format!("{}{EDGE}{lists}", edge_host::SETTINGS);
        let grown = measure("PLAIN", SESSIONS, &settings, folder.path())?;
        let how = format!(
            "{SESSIONS} clients of {SESSIONS} addresses that wait for the greeting (29 s, the longest there is), each asked about at a list"
        );
        state(PLAIN, Goal::AtMost(8.0), &grown, how)?;
    }
    if is_wanted(SECURED) {
        let folder = edge_host::folder()?;
        let tls = certificate(folder.path())?;
        let settings = format!("{}{EDGE}{tls}", edge_host::SETTINGS);
        let grown = measure("TLS", SESSIONS_TLS, &settings, folder.path())?;
        let how = format!("{SESSIONS_TLS} clients that are silent after STARTTLS and EHLO");
        state(SECURED, Goal::Stated, &grown, how)?;
    }
    Ok(())
}
