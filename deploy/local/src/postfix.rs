//! A private Postfix instance that is not ours, as a next hop or as a peer to compare with: everything of it in one folder, ended with
//! the test.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemons::{make, run_to_end, write};
use crate::process::{Process, wait_for};

/// How long it may take until it greets.
const START: Duration = Duration::from_secs(60);

/// Its first process, and where it logs.
const MASTER: &str = "/usr/lib/postfix/sbin/master";
const LOG: &str = "mail.log";

/// The services of master.cf that a relay needs, none in a chroot.
const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

/// How to run in a mount name space of its own that has another resolver; Postfix asks port 53 of those in /etc/resolv.conf.
const WITH_RESOLVER: &str = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";

/// Why no Postfix with a resolver of its own can be started here, if so.
pub fn no_resolver_of_its_own() -> Option<String> {
    let tried = Command::new("unshare")
        .args(["--mount", "sh", "-c", WITH_RESOLVER, "sh"])
        .args(["/dev/null", "true"])
        .output();
    match tried {
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(String::from_utf8_lossy(&tried.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Starts Postfix on `address` with these settings of main.cf beside what a private instance needs. Ready when it greets.
/// Needs root, as Postfix does.
pub fn postfix(
    folder: &Path,
    address: SocketAddr,
    settings: &[(&str, &str)],
) -> Result<Process, String> {
    let door = format!("{address} inet n - n - - smtpd\n");
    let etc = lay_out(folder, address, &door, settings)?;
    let mut command = Command::new(MASTER);
    command.arg("-c").arg(&etc).arg("-d");
    start(folder, address, command)
}

/// The same behind postscreen, which asks the lists at port 53 of `resolver`. Needs to mount, see [`no_resolver_of_its_own`].
pub fn postscreen(
    folder: &Path,
    address: SocketAddr,
    resolver: IpAddr,
    settings: &[(&str, &str)],
) -> Result<Process, String> {
    let door = format!(
        "{address} inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\ndnsblog unix - - n - 0 dnsblog\n\
         tlsproxy unix - - n - 0 tlsproxy\n"
    );
    let etc = lay_out(folder, address, &door, settings)?;
    let names = folder.join("resolv.conf");
    write(&names, &format!("nameserver {resolver}\n"))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", WITH_RESOLVER, "sh"]);
    command.arg(&names).args([MASTER, "-c"]).arg(&etc).arg("-d");
    start(folder, address, command)
}

/// Writes main.cf and master.cf and makes the queue's folders; the folder of the configuration.
fn lay_out(
    folder: &Path,
    address: SocketAddr,
    door: &str,
    settings: &[(&str, &str)],
) -> Result<PathBuf, String> {
    let (etc, queue, data) = (
        folder.join("etc"),
        folder.join("queue"),
        folder.join("data"),
    );
    for path in [&etc, &queue, &data] {
        make(path)?;
    }
    run_to_end(Command::new("chown").arg("postfix").arg(&data))?;
    let log = folder.join(LOG);
    let mut main = format!(
        "compatibility_level = 3.6\nqueue_directory = {}\ndata_directory = {}\ncommand_directory = /usr/sbin\n\
         daemon_directory = /usr/lib/postfix/sbin\nmail_owner = postfix\nsetgid_group = postdrop\nmaillog_file = {}\n\
         maillog_file_prefixes = {}\nmyhostname = mx.postfix.example\nmydestination =\ninet_interfaces = {}\n\
         inet_protocols = ipv4\nmynetworks = 127.0.0.0/8\nalias_maps =\nlocal_recipient_maps =\ndisable_dns_lookups = yes\n\
         smtp_host_lookup = native\nsmtpd_peername_lookup = no\nbiff = no\n",
        queue.display(),
        data.display(),
        log.display(),
        folder.display(),
        address.ip(),
    );
    for (key, value) in settings {
        main.push_str(&format!("{key} = {value}\n"));
    }
    write(&etc.join("main.cf"), &main)?;
    write(&etc.join("master.cf"), &format!("{door}{SERVICES}"))?;
    // It makes its queue's folders; started by it, master would leave our process group and outlive the test.
    run_to_end(
        Command::new("/usr/sbin/postfix")
            .arg("-c")
            .arg(&etc)
            .arg("check"),
    )?;
    Ok(etc)
}

fn start(folder: &Path, address: SocketAddr, command: Command) -> Result<Process, String> {
    let mut process = Process::start("postfix", command, &folder.join("out.log"))?;
    let ready = wait_for(START, || {
        if !process.running() {
            return Some(false);
        }
        greets(address).then_some(true)
    });
    match ready {
        Some(true) => Ok(process),
        _ => Err(format!(
            "postfix does not greet:\n{}{}",
            process.log(),
            fs::read_to_string(folder.join(LOG)).unwrap_or_default()
        )),
    }
}

fn greets(address: SocketAddr) -> bool {
    use std::io::Read;
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut code = [0; 3];
    stream.read_exact(&mut code).is_ok() && &code == b"220"
}
