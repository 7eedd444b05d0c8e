//! The canary: known spam, known malware and a known ham through the real daemons, again and again.
//!
//! A daemon that connects, or answers PING, may still have no rules, no signatures, or no free child. Only a right verdict is
//! health. Owns the `scan` gate and the signatures' version; never looks at real mail, save for who answered lately.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use service::gate::{self, Gate, Keeper, State};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::trouble::{Cause, Kind, Trouble};
use crate::{clamd, spamd};

/// SpamAssassin's test pattern, in two pieces so that no scanner takes this file for spam.
const GTUBE: [&str; 2] = [
    "XJS*C4JDBQADN1.NSBN3*2IDNEN*",
    "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X",
];

/// The anti-malware test file, in two pieces for the same reason.
const EICAR: [&str; 2] = [
    r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-",
    "ANTIVIRUS-TEST-FILE!$H+H*",
];

/// A canary round that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A daemon gave the wrong verdict.
    Wrong(Kind, String),
    /// A daemon gave none.
    Unanswered(Trouble),
}

impl Failure {
    fn daemon(&self) -> Kind {
        match self {
            Self::Wrong(daemon, _) => *daemon,
            Self::Unanswered(trouble) => trouble.daemon,
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Wrong(_, what) => what.clone(),
            Self::Unanswered(trouble) => trouble.cause.to_string(),
        }
    }
}

/// What is known of the daemons.
pub struct Health {
    spamd: Watched,
    clamd: Watched,
    signatures: Mutex<Arc<str>>,
    /// The largest message that clamd looks at, once it has been measured.
    clamd_bytes: Mutex<Option<u64>>,
    doubt: Notify,
    metrics: Metrics,
}

struct Watched {
    keeper: Keeper,
    gate: Gate,
    answered: Mutex<Option<Instant>>,
}

impl Watched {
    fn new() -> Self {
        let (keeper, gate) = gate::gate(State::Shut("no canary has come back yet".into()));
        let answered = Mutex::new(None);
        Self {
            keeper,
            gate,
            answered,
        }
    }
}

impl Health {
    /// Nothing is fit before its first canary has come back.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            spamd: Watched::new(),
            clamd: Watched::new(),
            signatures: Mutex::new("ClamAV".into()),
            clamd_bytes: Mutex::new(None),
            doubt: Notify::new(),
            metrics,
        }
    }

    fn watched(&self, daemon: Kind) -> &Watched {
        match daemon {
            Kind::Spamd => &self.spamd,
            Kind::Clamd => &self.clamd,
        }
    }

    /// Whether a daemon may be asked.
    pub fn fit(&self, daemon: Kind) -> Result<(), Trouble> {
        match self.watched(daemon).gate.try_pass() {
            Ok(_) => Ok(()),
            Err(reason) => Err(Trouble {
                daemon,
                cause: Cause::Unfit(reason.to_string()),
            }),
        }
    }

    /// Whether both may be asked; the reason why not.
    pub fn fit_both(&self) -> Result<(), String> {
        for daemon in [Kind::Spamd, Kind::Clamd] {
            self.fit(daemon).map_err(|trouble| trouble.to_string())?;
        }
        Ok(())
    }

    /// A real scan was answered.
    pub fn answered(&self, daemon: Kind) {
        *lock(&self.watched(daemon).answered) = Some(Instant::now());
    }

    /// A real scan was not: look at once.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// clamd's answer to VERSION, as of the last canary.
    pub fn signatures(&self) -> Arc<str> {
        lock(&self.signatures).clone()
    }

    /// What was found out about clamd's limits; `None`: nothing yet, or no longer.
    pub fn measured(&self, bytes: Option<u64>) {
        let told = bytes.and_then(|bytes| i64::try_from(bytes).ok());
        self.metrics.clamd_bytes_max.set(told.unwrap_or(0));
        *lock(&self.clamd_bytes) = bytes;
    }

    /// The largest message that clamd looks at, as far as is known.
    pub fn clamd_bytes(&self) -> Option<u64> {
        *lock(&self.clamd_bytes)
    }

    /// Runs canaries for ever; `config` gives the configuration in force, `changed` is called after each round.
    pub async fn watch(&self, config: impl Fn() -> Config, changed: impl Fn(&Self)) {
        loop {
            let config = config();
            let (spamd, (version, clamd)) =
                tokio::join!(spamd_canary(&config), clamd_canary(&config));
            if let Some(version) = version {
                *lock(&self.signatures) = version.as_ref().into();
            }
            let spamd = self.judge(Kind::Spamd, spamd, &config);
            let clamd = self.judge(Kind::Clamd, clamd, &config);
            let open = i64::from(self.fit_both().is_ok());
            self.metrics.gates.with_label_values(&["scan"]).set(open);
            changed(self);
            if spamd && clamd {
                // The retry interval bounds how often doubts make us look.
                tokio::time::sleep(config.scan.canary_retry.min(config.scan.canary_interval)).await;
                let rest = config
                    .scan
                    .canary_interval
                    .saturating_sub(config.scan.canary_retry);
                let _ = tokio::time::timeout(rest, self.doubt.notified()).await;
            } else {
                tokio::time::sleep(config.scan.canary_retry).await;
            }
        }
    }

    /// Opens or shuts a daemon's gate by what its canary brought back; whether it was right.
    fn judge(&self, daemon: Kind, result: Result<(), Failure>, config: &Config) -> bool {
        let name = daemon.as_str();
        let watched = self.watched(daemon);
        let outcome = match &result {
            Ok(()) => "right",
            Err(Failure::Wrong(..)) => "wrong",
            Err(Failure::Unanswered(_)) => "unanswered",
        };
        self.metrics.canaries.with_label_values(&[outcome]).inc();
        match result {
            Ok(()) => {
                if watched.keeper.set(State::Open) {
                    tracing::info!(event = "gate", gate = "scan", daemon = name, state = "open");
                }
                true
            }
            Err(failure) => {
                let answered = *lock(&watched.answered);
                if excused(&failure, answered, config.scan.canary_interval) {
                    return false;
                }
                let reason = failure.reason();
                debug_assert_eq!(failure.daemon(), daemon);
                if watched.keeper.set(State::Shut(reason.as_str().into())) {
                    let state = "shut";
                    tracing::error!(event = "gate", gate = "scan", daemon = name, state, reason);
                }
                false
            }
        }
    }
}

/// A canary that waits behind real mail which is being answered says that the daemon is busy, not that it is broken: taking
/// the node out would push its load on to the next one.
fn excused(failure: &Failure, answered: Option<Instant>, interval: Duration) -> bool {
    let Failure::Unanswered(trouble) = failure else {
        return false;
    };
    let is_recent = answered.is_some_and(|at| at.elapsed() < interval);
    trouble.cause == Cause::TimedOut && is_recent
}

/// A message that must be judged as what it is.
fn message(subject: &str, body: &str) -> Vec<u8> {
    let date = mail::Timestamp::now().rfc5322();
    let id = mail::Timestamp::now().0;
    format!(
        "Received: from canary.invalid (canary.invalid [10.0.0.1]) by localhost with ESMTP; {date}\r\n\
         From: Canary <canary@canary.invalid>\r\nTo: Scanner <scanner@canary.invalid>\r\n\
         Subject: {subject}\r\nDate: {date}\r\nMessage-ID: <{id}.canary@canary.invalid>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{body}\r\n"
    )
    .into_bytes()
}

fn ham() -> Vec<u8> {
    message(
        "Minutes of the meeting",
        "Hello,\r\n\r\nthe minutes of our last meeting are ready. Please read them before Friday.",
    )
}

/// The message that every spamd must call spam.
pub fn gtube() -> Vec<u8> {
    message("Test of the filter", &GTUBE.concat())
}

/// The message that every clamd must find malware in.
pub fn eicar() -> Vec<u8> {
    EICAR.concat().into_bytes()
}

/// A mail with the test file as its attachment, in two pieces between which any text may stand.
pub fn behind_text() -> (Vec<u8>, Vec<u8>) {
    let date = mail::Timestamp::now().rfc5322();
    let head = format!(
        "Received: from canary.invalid (canary.invalid [10.0.0.1]) by localhost with ESMTP; {date}\r\n\
         From: Canary <canary@canary.invalid>\r\nTo: Scanner <scanner@canary.invalid>\r\n\
         Subject: A long letter\r\nDate: {date}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=canary\r\n\r\n--canary\r\n\r\n"
    );
    let tail = format!(
        "\r\n--canary\r\nContent-Type: application/octet-stream\r\n\r\n{}\r\n--canary--\r\n",
        EICAR.concat()
    );
    (head.into(), tail.into())
}

async fn spamd_canary(config: &Config) -> Result<(), Failure> {
    let levels = config.levels.levels();
    let score = async |message: &[u8]| {
        let deadline = Instant::now() + config.scan.canary_deadline;
        let finding = spamd::ask(&config.spamd.address, b"", message, usize::MAX, deadline).await;
        finding
            .map(|finding| finding.score_hundredths)
            .map_err(Failure::Unanswered)
    };
    if score(&gtube()).await? < levels.kill {
        let what = "lets its own test pattern pass: its rules are not loaded";
        return Err(Failure::Wrong(Kind::Spamd, what.into()));
    }
    let ham = score(&ham()).await?;
    if ham >= levels.tag2 {
        let what = format!(
            "calls a plain letter spam (score {}.{:02})",
            ham / 100,
            ham % 100
        );
        return Err(Failure::Wrong(Kind::Spamd, what));
    }
    Ok(())
}

async fn clamd_canary(config: &Config) -> (Option<Box<str>>, Result<(), Failure>) {
    let address = &config.clamd.address;
    let deadline = || Instant::now() + config.scan.canary_deadline;
    let version = match clamd::version(address, deadline()).await {
        Ok(version) => version,
        Err(trouble) => return (None, Err(Failure::Unanswered(trouble))),
    };
    let round = async {
        let ask = async |message: Vec<u8>| {
            let answer = clamd::ask(address, &message, u64::MAX, deadline()).await;
            answer.map_err(Failure::Unanswered)
        };
        if !matches!(ask(eicar()).await?, clamd::Finding::Infected(_)) {
            let what = "does not find the test file: its signatures are not loaded";
            return Err(Failure::Wrong(Kind::Clamd, what.into()));
        }
        match ask(ham()).await? {
            clamd::Finding::Clean => Ok(()),
            other => {
                let what = format!("does not call a plain letter clean: {other:?}");
                Err(Failure::Wrong(Kind::Clamd, what))
            }
        }
    };
    let result = round.await;
    (Some(version), result)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_silence_under_load_is_excused() {
        let unanswered = |cause| {
            let daemon = Kind::Spamd;
            Failure::Unanswered(Trouble { daemon, cause })
        };
        let interval = Duration::from_secs(60);
        let recently = Some(Instant::now());
        tokio::time::advance(Duration::from_secs(59)).await;
        let silent = unanswered(Cause::TimedOut);
        assert!(excused(&silent, recently, interval));
        assert!(!excused(&silent, None, interval));
        let refused = unanswered(Cause::Connect("refused".into()));
        assert!(!excused(&refused, recently, interval));
        let wrong = Failure::Wrong(Kind::Spamd, "passes GTUBE".into());
        assert!(!excused(&wrong, recently, interval));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!excused(&silent, recently, interval));
    }

    #[test]
    fn the_canaries_are_whole() {
        assert_eq!(eicar().len(), 68);
        assert!(
            String::from_utf8(gtube())
                .unwrap()
                .contains("*C4JDBQADN1.NSBN3*2IDNEN*GTUBE")
        );
    }
}
