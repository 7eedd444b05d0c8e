//! Pulls the directory from the list hosts by long poll, and from a sibling edge while there is none at all. Owns the connections;
//! what an answer is worth `directory` and the [`Source`] say. While nobody answers, what was loaded stays in force.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::Timestamp;
use service::control::{Request, fetch};
use service::shutdown::Shutdown;
use service::signing::Verifier;
use service::tls::{Identity, Role};
use tracing::{info, warn};

use super::directory::{self, BadDirectory};
use super::guard::Cause;
use super::source::{Offered, Source};
use crate::metrics::Metrics;

/// Pulls the directory until shutdown.
pub struct Puller {
    /// Where it goes.
    pub source: Arc<Source>,
    /// List hosts; one is asked until it fails or turns out to be behind, then the next.
    pub servers: Vec<SocketAddr>,
    /// Edges that are asked for their copy while there is none here and no list host answers.
    pub siblings: Vec<SocketAddr>,
    /// Our certificate; plain on loopback without.
    pub identity: Option<Identity>,
    /// Checks signatures.
    pub verifier: Option<Verifier>,
    /// How long the list host may hold a poll open.
    pub wait: Duration,
    /// Longest pause after a failure.
    pub pause_max: Duration,
    /// Largest answer.
    pub bytes_max: usize,
    /// Whether the copy on disk is to be fetched anew, since its signature is of none of our keys.
    pub resign: bool,
    /// Counts polls.
    pub metrics: Arc<Metrics>,
}

/// First pause after a failure; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// What a poll may take beyond the time that the list host holds it open: connect, handshake, transfer.
const TRANSFER_MAX: Duration = Duration::from_secs(30);

/// What came of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Polled {
    /// A whole is in force.
    Whole,
    /// A change is in force.
    Delta,
    /// What is in force is the newest.
    Unchanged,
    /// The newest is held back: the list host has what it should not have, or too little.
    Blocked(Option<Cause>),
    /// A change that does not fit: the whole has to be fetched.
    Misfit,
}

impl Polled {
    fn label(self) -> &'static str {
        match self {
            Self::Whole => "applied",
            Self::Delta => "delta",
            Self::Unchanged => "unchanged",
            Self::Blocked(_) => "blocked",
            Self::Misfit => "misfit",
        }
    }
}

/// How the polls went.
#[derive(Default)]
struct Course {
    /// Which list host is asked.
    server: usize,
    /// Failures in a row.
    failures: u32,
    /// Answers in a row that were held back for their place in the history.
    strange: u32,
    /// Whether the next poll asks for the whole.
    whole: bool,
}

impl Course {
    /// How long to wait before the next poll. A failure turns to the next list host at once; only when all have failed in a row is
    /// there a pause.
    fn pause(&self, servers: usize, longest: Duration) -> Duration {
        let grown = |times: u32| {
            let pause = PAUSE_FIRST.saturating_mul(1 << times.min(16));
            pause.min(longest)
        };
        let rounds = self.failures / servers as u32;
        if self.strange > 0 {
            grown(self.strange - 1)
        } else if rounds > 0 && (self.failures as usize).is_multiple_of(servers) {
            grown(rounds)
        } else {
            Duration::ZERO
        }
    }

    fn note(&mut self, polled: Polled, servers: usize) {
        self.failures = 0;
        self.whole = polled == Polled::Misfit;
        // A list host that shrank is still the right one; one that is behind, or of another history, may have a better beside it.
        let strange = matches!(polled, Polled::Blocked(cause) if cause != Some(Cause::Shrunken));
        self.strange = if strange {
            self.strange.saturating_add(1)
        } else {
            0
        };
        if strange {
            self.server = (self.server + 1) % servers;
        }
    }
}

impl Puller {
    /// Polls until shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let servers = self.servers.len();
        let mut course = Course {
            whole: self.resign,
            ..Course::default()
        };
        loop {
            let server = self.servers[course.server];
            let polled = tokio::select! {
                polled = self.poll(server, &course) => polled,
                () = shutdown.wait() => return,
            };
            match polled {
                Ok(polled) => {
                    self.count(polled.label());
                    course.note(polled, servers);
                }
                Err(why) => {
                    self.count("failed");
                    self.source.failed(format!("{server}: {why}"));
                    course.failures = course.failures.saturating_add(1);
                    course.server = (course.server + 1) % servers;
                }
            }
            let all_failed = (course.failures as usize).is_multiple_of(servers);
            if self.source.current().is_none() && course.failures > 0 && all_failed {
                tokio::select! {
                    () = self.ask_siblings() => {}
                    () = shutdown.wait() => return,
                }
            }
            tokio::select! {
                () = tokio::time::sleep(course.pause(servers, self.pause_max)) => {}
                () = shutdown.wait() => return,
            }
        }
    }

    fn count(&self, outcome: &str) {
        let polls = &self.metrics.sources.polls;
        polls.with_label_values(&[outcome]).inc();
    }

    /// One poll. After a failure the list host is asked to answer at once, so that trouble ends when it does.
    async fn poll(&self, server: SocketAddr, course: &Course) -> Result<Polled, String> {
        let hold = course.failures == 0 && !course.whole;
        let wait = if hold { self.wait } else { Duration::ZERO };
        let held = self.source.current();
        let seal = held.as_ref().and_then(|held| held.seal.as_ref());
        let since = match seal {
            Some(seal) if !course.whole => {
                format!("since={}&digest={}&", seal.version, seal.digest)
            }
            _ => String::new(),
        };
        let seen = match self.source.held_back() {
            Some(version) => format!("seen={version}&"),
            None => String::new(),
        };
        let path = format!("/directory?{since}{seen}wait={}", wait.as_secs());
        let (code, body) = self
            .get(server, Role::Listserv, path, wait + TRANSFER_MAX)
            .await?;
        match code {
            304 => {
                self.source.confirmed();
                Ok(Polled::Unchanged)
            }
            409 => Ok(Polled::Blocked(self.source.held_back_for())),
            200 => self.take_whole(body).await,
            226 => self.take_delta(body).await,
            other => Err(format!("HTTP status {other}")),
        }
    }

    async fn get(
        &self,
        server: SocketAddr,
        role: Role,
        path: String,
        deadline: Duration,
    ) -> Result<(u16, Vec<u8>), String> {
        let request = Request::get(path);
        let identity = self.identity.as_ref();
        fetch(server, identity, role, &request, self.bytes_max, deadline).await
    }

    async fn take_whole(&self, body: Vec<u8>) -> Result<Polled, String> {
        let source = Arc::clone(&self.source);
        let verifier = self.verifier.clone();
        let offered = blocking(move || {
            let (catalog, _) = directory::whole(&body, verifier.as_ref())?;
            drop(body);
            Ok(source.offer(catalog, None, false))
        });
        Ok(match offered.await?.map_err(|error| error.to_string())? {
            Offered::Applied => Polled::Whole,
            Offered::Same => Polled::Unchanged,
            Offered::Blocked(cause) => self.held_back(cause),
        })
    }

    fn held_back(&self, cause: Cause) -> Polled {
        let counter = &self.metrics.sources.held_back;
        counter.with_label_values(&[cause.as_str()]).inc();
        Polled::Blocked(Some(cause))
    }

    async fn take_delta(&self, body: Vec<u8>) -> Result<Polled, String> {
        let source = Arc::clone(&self.source);
        let verifier = self.verifier.clone();
        let offered = blocking(move || {
            let current = source.current().unwrap_or_default();
            let (catalog, delta) = directory::changed(&body, &current, verifier.as_ref())?;
            Ok(source.offer(catalog, Some(&delta), false))
        });
        match offered.await? {
            Ok(Offered::Applied) => Ok(Polled::Delta),
            Ok(Offered::Same) => Ok(Polled::Unchanged),
            Ok(Offered::Blocked(cause)) => Ok(self.held_back(cause)),
            Err(error @ BadDirectory::Misfit(_)) => {
                warn!(event = "directory_delta_dropped", reason = %error, "the whole is fetched");
                Ok(Polled::Misfit)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes the first copy that a list host has signed. It counts as confirmed when its giver had it confirmed.
    async fn ask_siblings(&self) {
        for sibling in &self.siblings {
            match self.ask_sibling(*sibling).await {
                Ok(version) => {
                    self.count("sibling");
                    info!(event = "directory_from_sibling", %sibling, %version);
                    return;
                }
                Err(why) => {
                    warn!(event = "directory_from_sibling", %sibling, reason = %why, "not taken")
                }
            }
        }
    }

    async fn ask_sibling(&self, sibling: SocketAddr) -> Result<Box<str>, String> {
        let path = "/directory".to_owned();
        let answer = self.get(sibling, Role::MxEdge, path, TRANSFER_MAX);
        let (code, body) = answer.await?;
        if code != 200 {
            let why = String::from_utf8_lossy(&body).into_owned();
            return Err(format!("HTTP status {code}: {why}"));
        }
        let source = Arc::clone(&self.source);
        // Without a key there is nothing by which a sibling's word could be checked; the configuration is refused then.
        let verifier = self.verifier.clone().ok_or("no key to check it by")?;
        let taken = blocking(move || {
            let (catalog, confirmed) = directory::whole(&body, Some(&verifier))?;
            let version = catalog.version.clone();
            source.offer(catalog, None, false);
            let confirmed = Timestamp(confirmed.unwrap_or(0));
            source.heard_at(confirmed.min(Timestamp::now()));
            Ok(version)
        });
        taken.await?.map_err(|error| error.to_string())
    }
}

/// Parsing a million entries takes its time, so it is done off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BadDirectory> + Send + 'static,
) -> Result<Result<T, BadDirectory>, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_a_strange_list_host_is_left() {
        let longest = Duration::from_secs(30);
        let ms = Duration::from_millis;
        let mut course = Course::default();
        assert_eq!(course.pause(2, longest), Duration::ZERO);
        for (failures, pause) in [(1, 0), (2, 1000), (3, 0), (4, 2000), (40, 30_000)] {
            course.failures = failures;
            assert_eq!(course.pause(2, longest), ms(pause), "{failures}");
        }
        course.note(Polled::Unchanged, 2);
        assert_eq!((course.failures, course.server), (0, 0));
        course.note(Polled::Blocked(Some(Cause::Shrunken)), 2);
        assert_eq!((course.strange, course.server), (0, 0));
        for (times, pause) in [(1, 500), (2, 1000), (3, 2000)] {
            course.note(Polled::Blocked(Some(Cause::Older)), 2);
            assert_eq!(course.server, times % 2);
            assert_eq!(course.pause(2, longest), ms(pause), "{times}");
        }
        course.note(Polled::Misfit, 2);
        assert!(course.whole);
        assert_eq!(course.pause(2, longest), Duration::ZERO);
        course.note(Polled::Whole, 2);
        assert!(!course.whole);
    }
}
