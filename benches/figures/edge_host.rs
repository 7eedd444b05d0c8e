//! An edge to measure: the real `mx-edge`, built for release, on loopback, with what it knows in files; and what its peer needs to be
//! measured beside it.

#![allow(dead_code)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use local::Process;
use local::process::wait_for;

pub type Failure = Box<dyn std::error::Error>;

/// Recipients' domain, on both sides.
pub const DOMAIN: &str = "lists.example";
/// Recipients that exist, on both sides: `member0@` and so on.
pub const RECIPIENTS: usize = 10_000;
/// Until a program answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the peer can be measured here; a line on stdout says why not.
pub fn can_measure(figure: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| !Path::new(program).exists())
        .collect();
    let root = rustix::process::getuid().is_root();
    let why = match (root, missing.as_slice()) {
        (false, _) => "Postfix as the peer needs root".to_owned(),
        (true, []) => return true,
        (true, missing) => format!("{} not installed", missing.join(", ")),
    };
    println!("{figure:<32} skipped: {why}");
    false
}

/// Postfix, and what it needs for postscreen.
pub const POSTFIX: &str = "/usr/lib/postfix/sbin/master";
pub const RBLDNSD: &str = "/usr/sbin/rbldnsd";

/// What `postconf` says that Postfix is.
pub fn postfix_version() -> String {
    let output = Command::new("/usr/sbin/postconf")
        .args(["-d", "-h", "mail_version"])
        .output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("Postfix {}", version.unwrap_or_default())
}

/// A peer's settings, for a figure's detail.
pub fn said(settings: &[(&str, &str)]) -> String {
    let said = settings.iter().map(|(key, value)| format!("{key}={value}"));
    said.collect::<Vec<_>>().join(" ")
}

pub fn free_port() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A folder of the build's, for everything of one figure. Postfix's own users must be able to go into it.
pub fn folder() -> Result<tempfile::TempDir, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new()
        .prefix("figures-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    Ok(folder)
}

/// A loopback address whose port 53 is free: postscreen can ask no other port.
pub fn name_server_address() -> Result<SocketAddr, Failure> {
    let pid = std::process::id();
    let mut addresses = (0..200).map(|turn| {
        let number = pid.wrapping_mul(251).wrapping_add(turn);
        Ipv4Addr::new(127, 53, (number >> 8) as u8, (number as u8).clamp(1, 254))
    });
    addresses
        .find(|address| UdpSocket::bind((*address, 53)).is_ok())
        .map(|address| (address, 53).into())
        .ok_or_else(|| "no loopback address with a free port 53".into())
}

/// The list: everybody in 127.64.0.0/10 is on it, nobody else but the test entry (RFC 5782 5).
pub const ZONE: &str = "bl.example.test";
/// See [`ZONE`].
pub fn list(folder: &Path, address: SocketAddr) -> Result<Process, Failure> {
    let zone = "$SOA 300 ns.test. hostmaster.test. 0 600 300 86400 300\n$NS 300 ns.test.\n:127.0.0.4:listed\n127.0.0.2\n127.64.0.0/10\n";
    let log = folder.join("rbldnsd.log");
    let process = local::daemons::rbldnsd(&folder.join("rbldnsd"), &log, address, &[(ZONE, zone)])?;
    Ok(process)
}

/// The n-th client: listed ones in 127.64.0.0/10, others in 127.128.0.0/10.
pub fn client(number: u64, listed: bool) -> IpAddr {
    let base = if listed { 0x7f40_0000 } else { 0x7f80_0000 };
    // No first and no last address of a network, for those who look for such.
    let number = (number % 4_000_000) as u32;
    IpAddr::V4(Ipv4Addr::from_bits(base + 1 + number))
}

/// The running program.
pub struct EdgeHost {
    pub mail: SocketAddr,
    pub process: Process,
}

impl EdgeHost {
    /// Starts it with these settings beside what it needs, and waits until it is ready.
    pub fn start(folder: &Path, settings: &str) -> Result<Self, Failure> {
        let test = std::env::current_exe()?;
        let binary: PathBuf = test
            .parent()
            .and_then(Path::parent)
            .map(|folder| folder.join("mx-edge"))
            .filter(|binary| binary.exists())
            .ok_or("no mx-edge beside this program; `make figures` builds it")?;
        let folder = folder.join("mx-edge");
        fs::create_dir_all(&folder)?;
        let recipients: String = (0..RECIPIENTS)
            .map(|number| format!("member{number}@{DOMAIN}\n"))
            .collect();
        fs::write(folder.join("recipients"), recipients)?;
        let (mail, control, inside) = (free_port()?, free_port()?, free_port()?);
        let text = settings
            .replace("FOLDER", &folder.display().to_string())
            .replace("MAIL", &mail.to_string())
            .replace("CONTROL", &control.to_string())
            .replace("INSIDE", &inside.to_string());
        let config = folder.join("mx-edge.toml");
        fs::write(&config, text)?;
        let mut command = Command::new(binary);
        command.arg("--config").arg(&config);
        let process = Process::start("mx-edge", command, &folder.join("mx-edge.log"))?;
        let ready = wait_for(PATIENCE, || {
            let answer = local::http::get(control, "/readyz")?;
            (answer.0 == 200).then_some(())
        });
        match ready {
            Some(()) => Ok(Self { mail, process }),
            None => Err(format!("mx-edge is not ready:\n{}", process.log()).into()),
        }
    }
}

/// Waits until the edge believes its list, after its self-test.
pub fn wait_list(edge: &EdgeHost) -> Result<(), Failure> {
    let counts = || edge.process.log().contains("outcome=counts").then_some(());
    wait_for(PATIENCE, counts).ok_or_else(|| "the list failed its self-test".into())
}

/// What every edge here is told. The inside does not answer, so that all mail is spooled.
pub const SETTINGS: &str = "name = 'figures'\nhostname = 'mx.edge.example'\nstate = 'FOLDER/state'\n\
    mail.listen = ['MAIL']\nrecipients.files = ['FOLDER/recipients']\nrecipients.domains = ['lists.example']\n\
    directory.servers = []\nnext_hop.hosts = ['INSIDE']\n\
    control.socket = 'FOLDER/control.sock'\ncontrol.listen = 'CONTROL'\n";
