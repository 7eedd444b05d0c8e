//! The real spamd and clamd, started offline with rules from the package and a small signature database of our own.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, wait_for};

/// How long a daemon may take until it answers.
const START: Duration = Duration::from_secs(60);

/// Local settings of SpamAssassin: no network, no learning, the message never rewritten.
const LOCAL_CF: &str = "\
use_bayes 0
use_pyzor 0
use_razor2 0
skip_rbl_checks 1
skip_uribl_checks 1
dns_available no
report_safe 0
required_score 5.0
";

/// Starts spamd on a Unix socket in `folder` and waits for its PONG.
pub fn spamd(folder: &Path, log: &Path, children: usize) -> Result<(Process, PathBuf), String> {
    let (home, site, run) = (folder.join("home"), folder.join("site"), folder.join("run"));
    for path in [&home, &site, &run] {
        make(path)?;
    }
    copy_presets(&site)?;
    write(&site.join("local.cf"), LOCAL_CF)?;
    // spamd's children run as the package's user where there is one and we may become it.
    let user = if rustix::process::getuid().is_root() {
        "debian-spamd"
    } else {
        ""
    };
    if !user.is_empty() {
        run_to_end(
            Command::new("chown")
                .arg("-R")
                .arg(user)
                .arg(&home)
                .arg(&run),
        )?;
    }
    let socket = run.join("spamd.sock");
    let mut command = Command::new(program("spamd"));
    command.args([
        "--local",
        "--nouser-config",
        "--syslog",
        "stderr",
        "--socketmode",
        "0666",
    ]);
    if !user.is_empty() {
        command.args(["--username", user]);
    }
    command
        .arg(format!("--helper-home-dir={}", home.display()))
        .arg(format!("--siteconfigpath={}", site.display()))
        .arg(format!("--socketpath={}", socket.display()))
        .arg(format!("--pidfile={}", run.join("spamd.pid").display()))
        .arg(format!("--max-children={children}"))
        .arg(format!("--min-children={children}"))
        .args(["--min-spare=1", &format!("--max-spare={children}")]);
    let mut process = Process::start("spamd", command, log)?;
    answers(&mut process, &socket, b"PING SPAMC/1.5\r\n\r\n", "PONG")?;
    Ok((process, socket))
}

/// Starts clamd on a Unix socket in `folder` and waits for its PONG.
pub fn clamd(folder: &Path, log: &Path) -> Result<(Process, PathBuf), String> {
    let (database, temporary) = (folder.join("db"), folder.join("tmp"));
    make(&database)?;
    make(&temporary)?;
    signatures(&database)?;
    let socket = folder.join("clamd.sock");
    let config = folder.join("clamd.conf");
    let user = if rustix::process::getuid().is_root() {
        "User root\n"
    } else {
        ""
    };
    write(
        &config,
        &format!(
            "Foreground yes\nLogFile {}\nPidFile {}\nTemporaryDirectory {}\nDatabaseDirectory {}\nLocalSocket {}\n\
             LocalSocketMode 666\nMaxThreads 4\nMaxQueue 50\nStreamMaxLength 64M\nReadTimeout 30\nCommandReadTimeout 10\n\
             SelfCheck 0\nConcurrentDatabaseReload yes\n{user}",
            folder.join("clamd.log").display(),
            folder.join("clamd.pid").display(),
            temporary.display(),
            database.display(),
            socket.display(),
        ),
    )?;
    let mut command = Command::new(program("clamd"));
    command.arg("-c").arg(&config);
    let mut process = Process::start("clamd", command, log)?;
    answers(&mut process, &socket, b"zPING\0", "PONG")?;
    Ok((process, socket))
}

/// Debian keeps daemons where a person's PATH does not always look.
fn program(name: &str) -> PathBuf {
    let packaged = Path::new("/usr/sbin").join(name);
    if packaged.exists() {
        packaged
    } else {
        name.into()
    }
}

/// Starts unbound as the name server of zones of our own: everything but `records` (lines of its `local-data`) does not exist.
/// Ready when it answers; the address must be free for UDP.
pub fn unbound(
    folder: &Path,
    log: &Path,
    address: SocketAddr,
    records: &[String],
) -> Result<Process, String> {
    unbound_before(folder, log, address, records, &[])
}

/// The same before others: each of these zones is asked of the name server at its address.
pub fn unbound_before(
    folder: &Path,
    log: &Path,
    address: SocketAddr,
    records: &[String],
    others: &[(&str, SocketAddr)],
) -> Result<Process, String> {
    make(folder)?;
    let mut config = format!(
        "server:\n interface: {}@{}\n access-control: 127.0.0.0/8 allow\n chroot: \"\"\n username: \"\"\n directory: \"{}\"\n \
         pidfile: \"\"\n do-daemonize: no\n use-syslog: no\n do-not-query-localhost: no\n module-config: \"iterator\"\n \
         local-zone: \".\" static\n",
        address.ip(),
        address.port(),
        folder.display()
    );
    for record in records {
        config.push_str(&format!(" local-data: \"{record}\"\n"));
    }
    for (zone, _) in others {
        config.push_str(&format!(" local-zone: \"{zone}\" transparent\n"));
    }
    for (zone, other) in others {
        let (host, port) = (other.ip(), other.port());
        config.push_str(&format!(
            "stub-zone:\n name: \"{zone}\"\n stub-addr: {host}@{port}\n"
        ));
    }
    let path = folder.join("unbound.conf");
    write(&path, &config)?;
    let mut command = Command::new(program("unbound"));
    command.arg("-d").arg("-c").arg(&path);
    let mut process = Process::start("unbound", command, log)?;
    let ready = wait_for(START, || {
        if !process.running() {
            return Some(false);
        }
        dns_answers(address).then_some(true)
    });
    match ready {
        Some(true) => Ok(process),
        _ => Err(format!("unbound does not answer:\n{}", process.log())),
    }
}

/// Starts rbldnsd as the name server of block lists: for each zone the lines of its `ip4set` file, or of a `dnset` for a zone that is named
/// `dnset:ZONE`, read again within a second when the file in `folder` changes. Ready when it answers; the address must be free for UDP.
pub fn rbldnsd(
    folder: &Path,
    log: &Path,
    address: SocketAddr,
    zones: &[(&str, &str)],
) -> Result<Process, String> {
    make(folder)?;
    let mut command = Command::new(program("rbldnsd"));
    let port = format!("{}/{}", address.ip(), address.port());
    command.args(["-n", "-q", "-c", "1s", "-w"]).arg(folder);
    command.args(["-b", &port]);
    if rustix::process::getuid().is_root() {
        // It refuses to serve as root.
        command.args(["-u", "nobody"]);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder, mode).map_err(|error| error.to_string())?;
    }
    for (zone, lines) in zones {
        let (kind, zone) = zone.split_once(':').unwrap_or(("ip4set", zone));
        write(&folder.join(zone), lines)?;
        command.arg(format!("{zone}:{kind}:{zone}"));
    }
    let mut process = Process::start("rbldnsd", command, log)?;
    let ready = wait_for(START, || {
        if !process.running() {
            return Some(false);
        }
        dns_answers(address).then_some(true)
    });
    match ready {
        Some(true) => Ok(process),
        _ => Err(format!("rbldnsd does not answer:\n{}", process.log())),
    }
}

/// Asks for the root's SOA; any answer will do.
fn dns_answers(address: SocketAddr) -> bool {
    let question = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x01";
    let ask = || {
        let socket = UdpSocket::bind((address.ip(), 0)).ok()?;
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .ok()?;
        socket.send_to(question, address).ok()?;
        socket.recv(&mut [0; 512]).ok()
    };
    ask().is_some()
}

/// A database that knows EICAR, as a file and inside others. The strings are split, so that this source trips no scanner.
fn signatures(database: &Path) -> Result<(), String> {
    write(
        &database.join("site.hdb"),
        "44d88612fea8a8f36de82e1278abb02f:68:Test.Eicar.File\naa15bcf478d165efd2065190eb473bcb:544:ClamAV-Test-File\n",
    )?;
    let body: String = ["EICAR-STANDARD", "-ANTIVIRUS-TEST-", "FILE!"].concat();
    let hex: String = body.bytes().map(|byte| format!("{byte:02x}")).collect();
    write(
        &database.join("site.ndb"),
        &format!("Test.Eicar.Body:0:*:{hex}\n"),
    )
}

/// The package's plugin lists, without the one that needs compiled rules.
fn copy_presets(site: &Path) -> Result<(), String> {
    let packaged = Path::new("/etc/spamassassin");
    let entries = fs::read_dir(packaged).map_err(|error| {
        format!(
            "{}: {error}; install the package spamassassin",
            packaged.display()
        )
    })?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text.ends_with(".pre") && text != "sa-compile.pre" {
            fs::copy(entry.path(), site.join(&name)).map_err(|error| format!("{text}: {error}"))?;
        }
    }
    Ok(())
}

/// Waits until a daemon answers `question` on its socket; tells its log when it ended instead.
fn answers(
    process: &mut Process,
    socket: &Path,
    question: &[u8],
    expected: &str,
) -> Result<(), String> {
    let outcome = wait_for(START, || {
        if !process.running() {
            return Some(Err(format!(
                "{} ended while starting:\n{}",
                process.name(),
                process.log()
            )));
        }
        ask(socket, question)
            .filter(|answer| answer.contains(expected))
            .map(|_| Ok(()))
    });
    outcome.unwrap_or_else(|| {
        Err(format!(
            "{} did not answer in time:\n{}",
            process.name(),
            process.log()
        ))
    })
}

fn ask(socket: &Path, question: &[u8]) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(question).ok()?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

pub(crate) fn make(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, open).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) fn run_to_end(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?}: {}: {said}", output.status))
}
