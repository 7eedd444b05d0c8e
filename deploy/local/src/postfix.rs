//! A private Postfix instance as a next hop that is not ours: everything of it in one folder, ended with the test.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::daemons::{make, run_to_end, write};
use crate::process::{Process, wait_for};

/// How long it may take until it greets.
const START: Duration = Duration::from_secs(60);

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

/// Starts Postfix on `address` with these settings of main.cf beside what a private instance needs. Ready when it greets.
/// Needs root, as Postfix does.
pub fn postfix(
    folder: &Path,
    address: SocketAddr,
    settings: &[(&str, &str)],
) -> Result<Process, String> {
    let (etc, queue, data) = (
        folder.join("etc"),
        folder.join("queue"),
        folder.join("data"),
    );
    for path in [&etc, &queue, &data] {
        make(path)?;
    }
    run_to_end(Command::new("chown").arg("postfix").arg(&data))?;
    let log = folder.join("mail.log");
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
    let master = format!("{address} inet n - n - - smtpd\n{SERVICES}");
    write(&etc.join("master.cf"), &master)?;
    // It makes its queue's folders; started by it, master would leave our process group and outlive the test.
    run_to_end(
        Command::new("/usr/sbin/postfix")
            .arg("-c")
            .arg(&etc)
            .arg("check"),
    )?;
    let mut command = Command::new("/usr/lib/postfix/sbin/master");
    command.arg("-c").arg(&etc).arg("-d");
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
            fs::read_to_string(&log).unwrap_or_default()
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
