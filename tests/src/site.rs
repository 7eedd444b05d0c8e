//! A site for one test: its own folder, its own ports, ended with the test; and what arrived in its Maildirs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use local::process::wait_for;
use local::{Layout, Options, Scanning, Site, configs};
use tempfile::TempDir;

use crate::stub::Stubs;

/// How long mail may take to arrive before a test calls it lost. Not a claim about speed.
const ARRIVAL: Duration = Duration::from_secs(120);

/// A site, its stubs if it has any, and its folder, which is kept when the test fails.
pub struct Harness {
    /// The site.
    pub site: Site,
    /// The stub daemons, when the site scans with them.
    pub stubs: Option<Stubs>,
    folder: Option<TempDir>,
}

/// What a test's site is made of; change what the claim needs.
pub fn settings() -> Options {
    Options {
        binaries: binaries(),
        layout: Layout::Any,
        scanners: 2,
        scanning: Scanning::Real { children: 2 },
        tls: true,
        json_logs: false,
        overrides: Vec::new(),
        by_dns: false,
        sink: Vec::new(),
    }
}

/// Deadlines that nest as the defaults do (edge > scanner > daemons and list host), but in seconds, and short waits between
/// attempts, so that a test of an outage need not last as long as one.
pub fn hurried(mut options: Options) -> Options {
    let edge = "[through]\nbudget = '5s'\nprobe_interval = '200ms'\n[next_hop]\nconnect_timeout = '1s'\nreply_timeout = '3s'\n\
                [forward]\nreply_timeout = '6s'\nretry_first = '200ms'\nretry_longest = '1s'\n";
    let scanner = "[receive]\nbudget = '4s'\n[archives]\ntime_max = '1s'\n[scan]\ndeadline = '2s'\ncanary_interval = '1s'\ncanary_retry = '200ms'\n\
                   [relay]\nbudget = '2s'\nconnect = '1s'\nretry = '200ms'\n[announce]\nretry = '200ms'\ndrain_notice = '500ms'\n";
    let balancer = "[registration]\nlease = '2s'\n[pick]\nwait = '500ms'\ngreeting = '500ms'\n[probe]\nbackoff_min = '100ms'\nbackoff_max = '500ms'\n";
    let listserv = "[dsn]\nmerge = '0s'\n[delivery]\nretry_first = '200ms'\nretry_longest = '1s'\n";
    for (program, text) in [
        ("mx-edge", edge),
        ("scanner", scanner),
        ("balancer", balancer),
        ("listserv", listserv),
    ] {
        options.overrides.push((program.into(), text.into()));
    }
    options
}

impl Harness {
    /// A site with the real daemons, started and ready.
    pub fn real(options: Options) -> Self {
        let mut harness = Self::laid_out(options, false);
        harness
            .site
            .start_all()
            .unwrap_or_else(|error| panic!("{error}"));
        harness
    }

    /// A site with stub daemons, started and ready.
    pub fn stubbed(options: Options) -> Self {
        let mut harness = Self::laid_out(options, true);
        harness
            .site
            .start_all()
            .unwrap_or_else(|error| panic!("{error}"));
        harness
    }

    /// A site with nothing started yet.
    pub fn laid_out(mut options: Options, stubbed: bool) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("mailflow-")
            .tempdir()
            .expect("a temporary folder");
        let stubs = stubbed.then(|| Stubs::start(folder.path()));
        if let Some(stubs) = &stubs {
            options.scanning = Scanning::Sockets {
                spamd: stubs.spamd.clone(),
                clamd: stubs.clamd.clone(),
            };
        }
        let site = Site::new(folder.path(), options).unwrap_or_else(|error| panic!("{error}"));
        Self {
            site,
            stubs,
            folder: Some(folder),
        }
    }

    /// Everything in a member's Maildir.
    pub fn arrived(&self, member: &str) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.site.maildir(member).join("new")) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| fs::read(entry.path()).ok())
            .collect()
    }

    /// How many messages arrived for a member.
    pub fn count(&self, member: &str) -> usize {
        fs::read_dir(self.site.maildir(member).join("new")).map_or(0, Iterator::count)
    }

    /// Waits until every member of the demonstration list has so many messages; panics, with what there is, when it takes too long.
    pub fn wait_arrived(&self, each: usize) {
        let counts = || configs::MEMBERS.map(|member| self.count(member));
        let done = wait_for(ARRIVAL, || {
            counts().iter().all(|&count| count >= each).then_some(())
        });
        assert!(
            done.is_some(),
            "{:?} of {each} messages arrived\n{}",
            counts(),
            self.logs()
        );
    }

    /// How often each subject arrived for a member.
    pub fn subjects(&self, member: &str) -> BTreeMap<String, usize> {
        let mut subjects = BTreeMap::new();
        for message in self.arrived(member) {
            let text = String::from_utf8_lossy(&message).into_owned();
            let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
            *subjects
                .entry(subject.unwrap_or_default().to_owned())
                .or_default() += 1;
        }
        subjects
    }

    /// Waits for a condition; panics with the logs when it does not come true.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        wait_for(ARRIVAL, condition)
            .unwrap_or_else(|| panic!("{what} did not happen\n{}", self.logs()))
    }

    /// Waits until a program is ready (`""`), or not ready for a reason with this word in it.
    pub fn wait_readiness(&self, program: &str, word: &str) {
        let address = self.site.address(&format!("{program}.control"));
        self.wait(&format!("readiness {word:?} of {program}"), || {
            let (code, body) = local::http::get(address, "/readyz")?;
            let is = match word {
                "" => code == 200,
                word => code != 200 && body.contains(word),
            };
            is.then_some(())
        });
    }

    /// What a running program says of itself.
    pub fn status(&self, program: &str) -> serde_json::Value {
        let address = self.site.address(&format!("{program}.control"));
        let (_, text) = local::http::get(address, "/status").expect("it answers");
        serde_json::from_str(&text).expect("a status is JSON")
    }

    /// The segment in use of a program's journal; there is one after the first message.
    pub fn segment(&self, program: &str) -> PathBuf {
        let state = self.site.root().join("state").join(program);
        let mut found: Vec<PathBuf> = fs::read_dir(state.join("spool/journal"))
            .expect("a journal")
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|is| is == "segment"))
            .collect();
        found.sort();
        found.pop().expect("a segment in use")
    }

    /// The value of a metric of a program, all series of the name summed where their labels contain `labels`; NaN while the
    /// program does not answer. Panics when it answers and has no such metric.
    pub fn metric(&self, program: &str, name: &str, labels: &str) -> f64 {
        let address = self.site.address(&format!("{program}.control"));
        let Some((200, text)) = local::http::get(address, "/metrics") else {
            return f64::NAN;
        };
        let values: Vec<f64> = text
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter(|line| line.contains(labels))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        assert!(
            !values.is_empty(),
            "{program} has no metric {name} with {labels}:\n{text}"
        );
        values.iter().sum()
    }

    /// Recipients that wait in a program's queue.
    pub fn queued(&self, program: &str) -> Option<u64> {
        let said = self.site.ask(program, &["--json", "queue", "tally"]).ok()?;
        let answer: serde_json::Value = serde_json::from_str(&said).ok()?;
        let lines = answer
            .get("queue")
            .or(answer.get("tally"))
            .unwrap_or(&answer)
            .as_array()?;
        Some(
            lines
                .iter()
                .filter_map(|line| line["recipients"].as_u64())
                .sum(),
        )
    }

    /// The ends of all logs, for a failing test.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for name in self.site.programs() {
            let log = self.site.log(&name);
            text.push_str(&format!("--- {name}\n{}\n", local::site::tail(&log)));
        }
        text
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.site.stop_all();
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the site's folder is kept: {}", folder.keep().display());
        }
    }
}

/// Where cargo put the programs: beside the folder of this test.
fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its file");
    let folder = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("target/PROFILE/deps/TEST");
    assert!(
        folder.join("mx-edge").exists(),
        "{} has no programs; make test builds them",
        folder.display()
    );
    folder.to_owned()
}
