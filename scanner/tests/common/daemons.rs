//! The real spamd and clamd, on Unix sockets in a folder of their own, with a signature database of two lines.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Both daemons; dropped, they are gone.
pub struct Daemons {
    dir: TempDir,
    pub spamd: Option<Child>,
    pub clamd: Option<Child>,
    /// Lines of clamd's configuration.
    limits: String,
}

/// Half of what an anti-malware signature looks for, so that no scanner takes this file for malware.
const EICAR: &str = "EICAR-STANDARD-ANTIVIRUS-TEST";

impl Daemons {
    /// Starts both; they answer some time later.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("scan").tempdir().unwrap();
        // spamd's children run as another user.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut daemons = Self {
            dir,
            spamd: None,
            clamd: None,
            limits: "StreamMaxLength 25M\n".into(),
        };
        daemons.start_spamd();
        daemons.start_clamd();
        daemons
    }

    /// clamd alone, with limits of its own.
    pub fn with_clamd(limits: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("scan").tempdir().unwrap();
        let mut daemons = Self {
            dir,
            spamd: None,
            clamd: None,
            limits: limits.into(),
        };
        daemons.start_clamd();
        daemons
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub fn spamd_address(&self) -> String {
        self.path("spamd.sock")
    }

    pub fn clamd_address(&self) -> String {
        self.path("clamd.sock")
    }

    pub fn start_spamd(&mut self) {
        let site = self.dir.path().join("site");
        std::fs::create_dir_all(&site).unwrap();
        for entry in std::fs::read_dir("/etc/spamassassin").expect(INSTALL) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".pre") && name != "sa-compile.pre" {
                std::fs::copy(&path, site.join(name)).unwrap();
            }
        }
        let local = "use_bayes 0\nskip_rbl_checks 1\nskip_uribl_checks 1\ndns_available no\n\
                     report_safe 0\nrequired_score 5.0\n\
                     header CLIENT_SEEN X-Spam-Relays-Untrusted =~ /^\\[ ip=203\\.0\\.113\\.7 rdns=\\S* helo=client\\.example by=mx1\\.example /\n\
                     score CLIENT_SEEN 0.001\n";
        std::fs::write(site.join("local.cf"), local).unwrap();
        let child = run(
            "spamd",
            &self.path("spamd.log"),
            &[
                "-L",
                "-x",
                "--nouser-config",
                "-H",
                &self.path("home"),
                &format!("--siteconfigpath={}", site.display()),
                "-m",
                "2",
                "--socketpath",
                &self.spamd_address(),
                "--socketmode=0666",
                "-s",
                "stderr",
            ],
        );
        self.spamd = Some(child);
    }

    pub fn start_clamd(&mut self) {
        let (db, tmp) = (self.dir.path().join("db"), self.dir.path().join("tmp"));
        std::fs::create_dir_all(&db).unwrap();
        std::fs::create_dir_all(&tmp).unwrap();
        let hdb = "44d88612fea8a8f36de82e1278abb02f:68:Test.Eicar.File\n\
                   aa15bcf478d165efd2065190eb473bcb:544:ClamAV-Test-File\n";
        std::fs::write(db.join("test.hdb"), hdb).unwrap();
        let hex: String = EICAR.bytes().map(|b| format!("{b:02x}")).collect();
        let ndb = format!("Test.Eicar.Body:0:*:{hex}\n");
        std::fs::write(db.join("test.ndb"), ndb).unwrap();
        let config = format!(
            "Foreground yes\nLogFile {}\nTemporaryDirectory {}\nDatabaseDirectory {}\nLocalSocket {}\n\
             LocalSocketMode 666\nMaxThreads 2\nSelfCheck 0\nFixStaleSocket yes\n{}",
            self.path("clamd-own.log"),
            tmp.display(),
            db.display(),
            self.clamd_address(),
            self.limits,
        );
        let file = self.path("clamd.conf");
        std::fs::write(&file, config).unwrap();
        self.clamd = Some(run("clamd", &self.path("clamd.log"), &["-c", &file]));
    }

    /// Kills spamd, and waits until it is gone.
    pub async fn stop_spamd(&mut self) {
        end(self.spamd.take()).await;
        let _ = std::fs::remove_file(self.spamd_address());
    }

    /// Kills clamd, and waits until it is gone.
    pub async fn stop_clamd(&mut self) {
        end(self.clamd.take()).await;
    }

    /// What both have logged, for a test that waits in vain.
    pub fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.path(name)).unwrap_or_default();
        format!("{}\n{}", read("spamd.log"), read("clamd.log"))
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for child in [&self.spamd, &self.clamd].into_iter().flatten() {
            // spamd ends its children only when it is asked to.
            terminate(child);
        }
    }
}

const INSTALL: &str = "SpamAssassin and ClamAV are needed here: apt-get install spamassassin spamd clamav-daemon, \
                       or `make test`, which does it";

fn run(program: &str, log: &str, arguments: &[&str]) -> Child {
    let log = std::fs::File::create(log).unwrap();
    let sbin = Path::new("/usr/sbin").join(program);
    Command::new(sbin)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}. {INSTALL}"))
}

fn terminate(child: &Child) {
    if let Some(pid) = child.id() {
        let _ = std::process::Command::new("kill")
            .arg(pid.to_string())
            .status();
    }
}

async fn end(child: Option<Child>) {
    let mut child = child.unwrap();
    terminate(&child);
    super::soon("the daemon ends", child.wait()).await.unwrap();
}
