//! The site: which programs there are, where each listens, and starting and ending them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::configs;
use crate::daemons;
use crate::http;
use crate::process::{Process, wait_for};

/// How long a program may take from its start until it is ready.
const READY: Duration = Duration::from_secs(60);

/// Who scans for the site's scanners.
#[derive(Clone, Debug)]
pub enum Scanning {
    /// The real spamd, with so many children, and the real clamd; both are started with the site.
    Real {
        /// spamd's children.
        children: usize,
    },
    /// Whatever listens on these Unix sockets.
    Sockets {
        /// Speaks SPAMC.
        spamd: PathBuf,
        /// Speaks clamd's protocol.
        clamd: PathBuf,
    },
}

/// Ports of the site's programs.
#[derive(Clone, Debug)]
pub enum Layout {
    /// The documented ones on 127.0.0.1 (`make run`).
    Documented,
    /// Chosen by the system, on a loopback address that no other site uses.
    Any,
}

/// What a site is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the programs' binaries are.
    pub binaries: PathBuf,
    /// Ports.
    pub layout: Layout,
    /// How many scanners.
    pub scanners: usize,
    /// Who scans.
    pub scanning: Scanning,
    /// Mutual TLS on the inner hops, with a CA made for this site.
    pub tls: bool,
    /// Logs as JSON instead of text.
    pub json_logs: bool,
    /// For a program's name (`scanner` is for all of them): TOML that is laid over its configuration, in this order.
    pub overrides: Vec<(String, String)>,
    /// Members' hosts are found by DNS, asked at the site's address `dns`, instead of by the pinned route to the sink.
    pub by_dns: bool,
    /// Arguments of the sink that follow `mailload sink`; by default it writes Maildirs.
    pub sink: Vec<String>,
}

/// A site on this machine. Dropping it ends every process it started.
pub struct Site {
    root: PathBuf,
    options: Options,
    addresses: BTreeMap<String, SocketAddr>,
    processes: BTreeMap<String, Process>,
    sockets: Option<(PathBuf, PathBuf)>,
}

impl Site {
    /// Lays out folders, certificates and configurations under `root`; starts nothing yet.
    pub fn new(root: &Path, options: Options) -> Result<Self, String> {
        // spamd's children run as another user and must reach their folders.
        for folder in ["", "log", "etc", "state", "ca", "control"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let mut site = Self {
            root: root.to_owned(),
            options,
            addresses: BTreeMap::new(),
            processes: BTreeMap::new(),
            sockets: None,
        };
        site.choose_addresses()?;
        site.make_authority()?;
        Ok(site)
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it is made of.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where something listens: `mx-edge`, `balancer`, `registration`, `scanner-1`, `scanner-1.agent`, `listserv`,
    /// `directory`, `sink`, and `NAME.control` of each program.
    pub fn address(&self, name: &str) -> SocketAddr {
        *self
            .addresses
            .get(name)
            .unwrap_or_else(|| panic!("the site has no listener {name}"))
    }

    /// The Maildir of a member, below which `new/` fills.
    pub fn maildir(&self, member: &str) -> PathBuf {
        self.root.join("mail").join(member.to_lowercase())
    }

    /// The spamd and clamd sockets in use.
    pub fn scan_sockets(&self) -> (PathBuf, PathBuf) {
        match (&self.options.scanning, &self.sockets) {
            (Scanning::Sockets { spamd, clamd }, _) => (spamd.clone(), clamd.clone()),
            (_, Some(sockets)) => sockets.clone(),
            (_, None) => (
                self.root.join("spamd/run/spamd.sock"),
                self.root.join("clamd/clamd.sock"),
            ),
        }
    }

    /// The four programs' instances, in the order in which mail meets them from its end.
    pub fn programs(&self) -> Vec<String> {
        let mut names = vec!["listserv".to_owned()];
        names.extend((1..=self.options.scanners).map(|number| format!("scanner-{number}")));
        names.extend(["balancer".to_owned(), "mx-edge".to_owned()]);
        names
    }

    /// Starts everything and waits until all of it is ready, with the demonstration list and its three members.
    pub fn start_all(&mut self) -> Result<(), String> {
        self.start_all_but(&[])
    }

    /// Likewise, but does not start what runs already.
    pub fn start_all_but(&mut self, running: &[&str]) -> Result<(), String> {
        self.start_daemons()?;
        self.start_sink()?;
        for name in self
            .programs()
            .iter()
            .filter(|name| !running.contains(&name.as_str()))
        {
            self.start(name)?;
        }
        self.wait_ready("listserv")?;
        self.make_demonstration_list()?;
        for name in self.programs() {
            self.wait_ready(&name)?;
        }
        Ok(())
    }

    /// Starts spamd and clamd, where the real ones are wanted.
    pub fn start_daemons(&mut self) -> Result<(), String> {
        let Scanning::Real { children } = self.options.scanning else {
            return Ok(());
        };
        let (spamd, spamd_socket) =
            daemons::spamd(&self.root.join("spamd"), &self.log_file("spamd"), children)?;
        self.processes.insert("spamd".into(), spamd);
        let (clamd, clamd_socket) =
            daemons::clamd(&self.root.join("clamd"), &self.log_file("clamd"))?;
        self.processes.insert("clamd".into(), clamd);
        self.sockets = Some((spamd_socket, clamd_socket));
        Ok(())
    }

    /// Starts the sink that takes what listserv delivers.
    pub fn start_sink(&mut self) -> Result<(), String> {
        let mut command = Command::new(self.options.binaries.join("mailload"));
        command.args(["sink", "--listen", &self.address("sink").to_string()]);
        if self.options.sink.is_empty() {
            command.arg("--maildir").arg(self.root.join("mail"));
        } else {
            command.args(&self.options.sink);
        }
        let process = Process::start("sink", command, &self.log_file("sink"))?;
        self.processes.insert("sink".into(), process);
        let address = self.address("sink");
        wait_for(READY, || std::net::TcpStream::connect(address).ok())
            .map(|_| ())
            .ok_or_else(|| format!("the sink does not listen:\n{}", self.log("sink")))
    }

    /// Writes a program's configuration and starts it. A scanner whose number is new gets addresses of its own.
    pub fn start(&mut self, name: &str) -> Result<(), String> {
        if !self.addresses.contains_key(name) {
            self.add_scanner_addresses(name)?;
        }
        let config = self.configure(name)?;
        let mut command = Command::new(self.options.binaries.join(program_of(name)));
        command.arg("--config").arg(&config);
        let process = Process::start(name, command, &self.log_file(name))?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    fn configure(&self, name: &str) -> Result<PathBuf, String> {
        let config = self.config_file(name);
        daemons::write(&config, &configs::render(self, name)?)?;
        Ok(config)
    }

    /// Writes a running program's configuration anew and sends it SIGHUP.
    pub fn reload(&mut self, name: &str) -> Result<(), String> {
        self.configure(name)?;
        self.process(name).reload();
        Ok(())
    }

    /// Lays more keys over a program's configuration, from its next start or reload on.
    pub fn lay_over(&mut self, program: &str, text: &str) {
        self.options
            .overrides
            .push((program.to_owned(), text.to_owned()));
    }

    /// Waits until `/readyz` of a program says yes.
    pub fn wait_ready(&mut self, name: &str) -> Result<(), String> {
        let address = self.address(&format!("{name}.control"));
        let mut last = String::from("no answer");
        let ready = wait_for(READY, || {
            let process = self.processes.get_mut(name)?;
            if !process.running() {
                last = "it has ended".into();
                return Some(false);
            }
            let (code, body) = http::get(address, "/readyz")?;
            last = body;
            (code == 200).then_some(true)
        });
        match ready {
            Some(true) => Ok(()),
            _ => Err(format!(
                "{name} does not get ready: {last}\n{}",
                tail(&self.log(name))
            )),
        }
    }

    /// A process by its name.
    pub fn process(&mut self, name: &str) -> &mut Process {
        self.processes
            .get_mut(name)
            .unwrap_or_else(|| panic!("{name} was not started"))
    }

    /// Stops a program in its own time.
    pub fn stop(&mut self, name: &str) {
        if let Some(mut process) = self.processes.remove(name) {
            process.stop();
        }
    }

    /// Kills a program with SIGKILL.
    pub fn kill(&mut self, name: &str) {
        if let Some(mut process) = self.processes.remove(name) {
            process.kill();
        }
    }

    /// Stops everything, doors first, so that nothing inside is missed before its users have gone.
    pub fn stop_all(&mut self) {
        let mut names = self.programs();
        names.reverse();
        for name in names {
            self.stop(&name);
        }
        let rest: Vec<String> = self.processes.keys().cloned().collect();
        for name in rest {
            self.stop(&name);
        }
    }

    /// Runs a command of a program against its running instance: `command("balancer", &["nodes", "--json"])`.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Result<Output, String> {
        Command::new(self.options.binaries.join(program_of(name)))
            .arg("--config")
            .arg(self.config_file(name))
            .args(arguments)
            .output()
            .map_err(|error| format!("{name}: {error}"))
    }

    /// Like [`Site::command`], for one that must succeed; returns what it printed.
    pub fn ask(&self, name: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(name, arguments)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "{name} {}: {}\n{said}{complaint}",
            arguments.join(" "),
            output.status
        ))
    }

    /// What a program has logged.
    pub fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.log_file(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The file a process logs to.
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    /// A program's configuration.
    pub fn config_file(&self, name: &str) -> PathBuf {
        self.root.join("etc").join(format!("{name}.toml"))
    }

    fn make_demonstration_list(&self) -> Result<(), String> {
        if self
            .ask("listserv", &["list", "list"])?
            .contains(configs::LIST)
        {
            return Ok(());
        }
        self.ask("listserv", &["list", "create", configs::LIST])?;
        let mut arguments = vec!["member", "add", configs::LIST];
        arguments.extend(configs::MEMBERS);
        self.ask("listserv", &arguments).map(|_| ())
    }

    fn make_authority(&self) -> Result<(), String> {
        let folder = self.root.join("ca");
        if folder.join("ca.pem").exists() {
            return Ok(());
        }
        let text = folder.display().to_string();
        self.authority(&["ca", "init", &text])?;
        for (node, role) in [
            ("edge-1", "mx-edge"),
            ("list-1", "listserv"),
            ("balancer-1", "balancer"),
        ] {
            self.authority(&["ca", "node", &text, node, "--role", role])?;
        }
        for number in 1..=self.options.scanners {
            self.make_scanner_certificate(number)?;
        }
        // What the world sees comes from another CA, so that it opens nothing inside.
        let public = self.root.join("public").display().to_string();
        self.authority(&["ca", "init", &public])?;
        self.authority(&[
            "ca",
            "node",
            &public,
            "mx.lists.example",
            "--role",
            "mx-edge",
        ])
    }

    fn make_scanner_certificate(&self, number: usize) -> Result<(), String> {
        let text = self.root.join("ca").display().to_string();
        self.authority(&[
            "ca",
            "node",
            &text,
            &format!("scan-{number}"),
            "--role",
            "scanner",
        ])
    }

    fn authority(&self, arguments: &[&str]) -> Result<(), String> {
        daemons::run_to_end(Command::new(self.options.binaries.join("balancer")).args(arguments))
            .map(|_| ())
    }

    fn choose_addresses(&mut self) -> Result<(), String> {
        match self.options.layout {
            Layout::Documented => {
                let ports = [
                    ("mx-edge", 2525),
                    ("mx-edge.control", 9125),
                    ("balancer", 10024),
                    ("balancer.control", 9124),
                    ("registration", 10023),
                    ("listserv", 10027),
                    ("directory", 10028),
                    ("listserv.control", 9127),
                    ("sink", 2600),
                    ("dns", 5300),
                ];
                for (name, port) in ports {
                    self.addresses
                        .insert(name.into(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
                }
            }
            Layout::Any => {
                let names = [
                    "mx-edge",
                    "mx-edge.control",
                    "balancer",
                    "balancer.control",
                    "registration",
                    "listserv",
                    "directory",
                    "listserv.control",
                    "sink",
                    "dns",
                ];
                let host = own_loopback();
                for name in names {
                    let address = self.free_address(host)?;
                    self.addresses.insert(name.into(), address);
                }
            }
        }
        for number in 1..=self.options.scanners {
            self.scanner_addresses(number)?;
        }
        Ok(())
    }

    /// Scanner 1 listens on 10025, 10026 (agent-check) and 9126, each next one ten higher.
    fn scanner_addresses(&mut self, number: usize) -> Result<(), String> {
        let offset = 10 * (number as u16 - 1);
        let host = self.address("mx-edge").ip();
        let documented = [("", 10025), (".agent", 10026), (".control", 9126)];
        for (suffix, port) in documented {
            let address = match self.options.layout {
                Layout::Documented => SocketAddr::new(host, port + offset),
                Layout::Any => self.free_address(host)?,
            };
            self.addresses
                .insert(format!("scanner-{number}{suffix}"), address);
        }
        Ok(())
    }

    /// An address that the system has free, and that none of the site's programs will want.
    fn free_address(&self, host: IpAddr) -> Result<SocketAddr, String> {
        loop {
            let listener = TcpListener::bind((host, 0));
            let address = listener.and_then(|listener| listener.local_addr());
            let address = address.map_err(|error| format!("no free port on {host}: {error}"))?;
            if !self.addresses.values().any(|taken| *taken == address) {
                return Ok(address);
            }
        }
    }

    fn add_scanner_addresses(&mut self, name: &str) -> Result<(), String> {
        let number = name
            .strip_prefix("scanner-")
            .and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| format!("the site has no program {name}"))?;
        self.scanner_addresses(number)?;
        self.make_scanner_certificate(number)
    }
}

/// The last lines of a log.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// `scanner-2` is a `scanner`.
fn program_of(name: &str) -> &str {
    if name.starts_with("scanner-") {
        "scanner"
    } else {
        name
    }
}

/// A loopback address that belongs to this process: its ports never meet those of outgoing connections, which come
/// from 127.0.0.1, so that a program that was killed gets its port back.
fn own_loopback() -> IpAddr {
    let [.., high, middle, low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 64 | high, middle, low.clamp(1, 254)))
}
