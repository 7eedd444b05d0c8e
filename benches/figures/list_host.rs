//! A list host to measure: the real `listserv`, built for release, with a name server and a sink that stands for all mail exchangers:
//! [`DOMAINS`] domains whose members' numbers fall as Zipf's law has it, on [`SITES`] sites.

#![allow(dead_code)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use local::Process;
use local::process::wait_for;
use mailload::sink::{self, Sink};
use mailload::source::{Pattern, Settings, Sizes, Source, Way, Zipf};
use smtp::Protocol;

/// Recipients' domains.
pub const DOMAINS: usize = 250;
/// Sites: each domain's exchanger is one of these.
pub const SITES: u32 = 32;
/// A usual message.
pub const MESSAGE_BYTES: u64 = 6000;
/// How old a backlog is: what is younger than an hour is live mail.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Until a program answers, or a command.
const PATIENCE: Duration = Duration::from_secs(120);
/// Members of one command line.
const MEMBERS_EACH: usize = 5000;

pub type Failure = Box<dyn std::error::Error>;

/// See the module.
pub struct ListHost {
    folder: tempfile::TempDir,
    binary: PathBuf,
    pub lmtp: SocketAddr,
    control: SocketAddr,
    publish: SocketAddr,
    dns: SocketAddr,
    pub sink: Sink,
    pub process: Option<Process>,
    _unbound: Process,
}

fn free_port() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The domain of a rank.
fn domain(rank: u64) -> String {
    format!("d{rank}.example")
}

/// The member of a number among so many: its domain's rank has the share that Zipf's law gives it.
fn member(zipf: &Zipf, number: usize, count: usize) -> String {
    let rank = zipf.rank((number as f64 + 0.5) / count as f64);
    format!("m{number}@{}", domain(rank))
}

impl ListHost {
    /// Starts sink and name server; `listserv` is started by [`Self::start`]. `first` is the first site's address.
    pub fn new(first: [u8; 4], remember: usize) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("figures-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let sink = Sink::start(&sink::Settings {
            listen: vec![(first, 0).into()],
            sites: SITES,
            remember,
            ..sink::Settings::default()
        })?;
        let sites = sink.addresses();
        let mut records = Vec::new();
        for (nth, site) in sites.iter().enumerate() {
            records.push(format!("mx{nth}.example. 3600 IN A {}", site.ip()));
        }
        for rank in 1..=DOMAINS {
            let site = (rank - 1) % sites.len();
            records.push(format!(
                "{}. 3600 IN MX 10 mx{site}.example.",
                domain(rank as u64)
            ));
        }
        let dns = free_port()?;
        let unbound = local::daemons::unbound(
            &folder.path().join("unbound"),
            &folder.path().join("unbound.log"),
            dns,
            &records,
        )?;
        let test = std::env::current_exe()?;
        let binary = test
            .parent()
            .and_then(Path::parent)
            .map(|folder| folder.join("listserv"))
            .filter(|binary| binary.exists())
            .ok_or("no listserv beside this program; `make figures` builds it")?;
        Ok(Self {
            binary,
            lmtp: free_port()?,
            control: free_port()?,
            publish: free_port()?,
            dns,
            sink,
            process: None,
            _unbound: unbound,
            folder,
        })
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("listserv.toml")
    }

    /// Starts `listserv`, with the lines of `DELIVERY` in its `[delivery]`; returns when it was started.
    pub fn start(&mut self) -> Result<Instant, Failure> {
        let folder = self.folder.path().display();
        let port = self.sink.addresses()[0].port();
        let text = format!(
            "state = '{folder}/state'\nhostname = 'lists.invalid'\n\
             [lmtp]\nlisten = '{}'\n[publish]\nlisten = '{}'\n[control]\nsocket = '{folder}/listserv.sock'\nlisten = '{}'\n\
             [delivery]\ndns = ['{}']\nport = {port}\n{}\n",
            self.lmtp,
            self.publish,
            self.control,
            self.dns,
            std::env::var("DELIVERY").unwrap_or_default()
        );
        fs::write(self.config(), text)?;
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.config());
        let began = Instant::now();
        let log = self.folder.path().join("listserv.log");
        self.process = Some(Process::start("listserv", command, &log)?);
        Ok(began)
    }

    /// Waits until it takes mail.
    pub fn wait_ready(&mut self) -> Result<(), Failure> {
        let (control, lmtp) = (self.control, self.lmtp);
        let ready = wait_for(PATIENCE, || {
            let answer = local::http::get(control, "/readyz")?;
            (answer.0 == 200 && std::net::TcpStream::connect(lmtp).is_ok()).then_some(())
        });
        ready.ok_or_else(|| format!("listserv is not ready:\n{}", self.log_tail()).into())
    }

    fn log_tail(&self) -> String {
        let log = self.process.as_ref().map(Process::log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// A command of `listserv`; what it printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = Command::new(&self.binary)
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(said),
            false => {
                let why = String::from_utf8_lossy(&output.stderr);
                let what = arguments.iter().take(4).copied().collect::<Vec<_>>();
                Err(format!("listserv {}: {why}", what.join(" ")).into())
            }
        }
    }

    /// Makes a list of so many members; `domain`: all in this domain, otherwise as Zipf's law has it.
    pub fn make_list(&self, list: &str, members: usize, rank: Option<u64>) -> Result<(), Failure> {
        self.ask(&["list", "create", list])?;
        let zipf = Zipf::new(DOMAINS);
        let all: Vec<String> = (0..members)
            .map(|number| match rank {
                Some(rank) => format!("m{number}@{}", domain(rank)),
                None => member(&zipf, number, members),
            })
            .collect();
        for some in all.chunks(MEMBERS_EACH) {
            let mut arguments = vec!["member", "add", list];
            arguments.extend(some.iter().map(String::as_str));
            self.ask(&arguments)?;
        }
        Ok(())
    }

    /// Recipients that wait; those of a list that is not expanded yet count as one.
    pub fn queued(&self) -> Result<u64, Failure> {
        let said = self.ask(&["--json", "queue", "tally"])?;
        let answer: serde_json::Value = serde_json::from_str(&said)?;
        let lines = answer.as_array().ok_or("queue tally gives no list")?;
        Ok(lines
            .iter()
            .filter_map(|line| line["recipients"].as_u64())
            .sum())
    }

    /// What goes to a list: settings to be changed.
    pub fn posts(&self, list: &str, kind: &str, count: u64) -> Result<Settings, Failure> {
        let from: Pattern = "author{1..1000}@sender.example".parse()?;
        let mut settings = Settings::new(self.lmtp, from, list.parse()?);
        settings.protocol = Protocol::Lmtp;
        settings.sizes = Sizes::Even(MESSAGE_BYTES, MESSAGE_BYTES);
        settings.kind = kind.into();
        settings.count = count;
        settings.sessions = 4;
        Ok(settings)
    }

    /// Posts to an idle list host as an edge that kept them for a day, and pauses delivery before; returns when all that must come of it
    /// waits in the queue.
    pub fn fill(&self, list: &str, kind: &str, posts: u64, members: u64) -> Result<(), Failure> {
        // What the sink has taken may not be settled yet.
        self.wait_queued(0, PATIENCE)?;
        self.ask(&["queue", "pause"])?;
        let mut old = self.posts(list, kind, posts)?;
        old.kept = Some(KEPT);
        let report = Source::start(old)?.join();
        if report.accepted != posts {
            return Err(format!("of {posts} posts: {report}").into());
        }
        let all = posts * members;
        self.wait_queued(all, Duration::from_secs(1800))
    }

    /// Waits until so many recipients wait.
    pub fn wait_queued(&self, wanted: u64, most: Duration) -> Result<(), Failure> {
        let until = Instant::now() + most;
        loop {
            let queued = self.queued()?;
            if queued == wanted {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("{queued} wait, not {wanted}, after {most:?}").into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Copies of a kind that the sink has taken, and how many of them came twice.
    pub fn taken(&self, kind: &str) -> (u64, u64) {
        let kind = self.sink.counts().kind(kind);
        kind.map_or((0, 0), |kind| {
            (
                kind.recipients.load(Ordering::Relaxed),
                kind.duplicates.load(Ordering::Relaxed),
            )
        })
    }

    /// Waits until the sink has taken so many copies of a kind; returns when it had.
    pub fn wait_taken(&self, kind: &str, count: u64, most: Duration) -> Result<Instant, Failure> {
        let until = Instant::now() + most;
        while self.taken(kind).0 < count {
            if Instant::now() > until {
                let (taken, _) = self.taken(kind);
                return Err(format!("{taken} of {count} copies of {kind} after {most:?}").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Instant::now())
    }

    /// SIGKILL; then its files leave the page cache, as after a restart of the machine.
    pub fn kill_cold(&mut self) -> Result<u64, Failure> {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        let mut bytes = 0;
        for_each_file(&self.state(), &mut |path| {
            let file = fs::File::open(path)?;
            // What is not on the disk cannot leave the cache.
            file.sync_all()?;
            bytes += file.metadata()?.len();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Processor time of `listserv` so far, seconds.
    pub fn processor_seconds(&self) -> f64 {
        let pid = self.process.as_ref().map_or(0, Process::pid);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = behind_name.split_whitespace().skip(11).take(2);
        let ticks = ticks.filter_map(|ticks| ticks.parse::<f64>().ok());
        ticks.sum::<f64>() / 100.0
    }

    /// The most memory that `listserv` had, MiB.
    pub fn memory_mib(&self) -> f64 {
        let pid = self.process.as_ref().map_or(0, Process::pid);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    }

    /// The bare limit: a pipelined client against the same sink, in one flight a message; messages a second.
    pub fn bare(&self, kind: &str, count: u64) -> Result<f64, Failure> {
        let from: Pattern = "dev-return-{n}-m=d.example@lists.example".parse()?;
        let to: Pattern = format!("m{{1..100000}}@d{{zipf:{DOMAINS}}}.example").parse()?;
        let mut settings = Settings::new(self.lmtp, from, to);
        settings.to = self.sink.addresses();
        settings.way = Way::Chunked;
        settings.sizes = Sizes::Even(MESSAGE_BYTES, MESSAGE_BYTES);
        settings.sessions = 2 * SITES as usize;
        settings.kind = kind.into();
        settings.count = count;
        let report = Source::start(settings)?.join();
        match report.accepted == count {
            true => Ok(report.rate()),
            false => Err(format!("the bare pair: {report}").into()),
        }
    }

    /// The address of the site that takes a domain's mail.
    pub fn site_of(&self, rank: u64) -> IpAddr {
        let sites = self.sink.addresses();
        sites[(rank as usize - 1) % sites.len()].ip()
    }

    /// The status page of the running program.
    pub fn status(&self) -> Option<serde_json::Value> {
        let (200, text) = local::http::get(self.control, "/status")? else {
            return None;
        };
        serde_json::from_str(&text).ok()
    }
}

fn for_each_file(
    folder: &Path,
    act: &mut impl FnMut(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => for_each_file(&entry.path(), act)?,
            kind if kind.is_file() => act(&entry.path())?,
            _ => {}
        }
    }
    Ok(())
}
