//! One source of recipients: what it said last that is in force, and the shrink guard in front of it. Owns the copy on disk.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use mail::Timestamp;
use serde::Serialize;
use tracing::{error, info, warn};

use super::catalog::{Catalog, Loss};
use crate::state;

/// How often it is noted on disk that a source was confirmed.
const NOTE_INTERVAL: Duration = Duration::from_secs(600);

/// How much a new version may take away without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Per cent of the entries in force.
    pub shrink_percent_max: u64,
    /// So many entries may always go: two members of a list of ten are 20 %.
    pub shrink_entries_floor: usize,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            shrink_percent_max: 2,
            shrink_entries_floor: 10,
        }
    }
}

impl Guard {
    /// Whether so much may go unasked. A whole domain never may.
    pub fn allows(&self, loss: &Loss) -> bool {
        let share = loss.entries as u64 * 100 <= loss.of as u64 * self.shrink_percent_max;
        loss.domains.is_empty() && (share || loss.entries <= self.shrink_entries_floor)
    }
}

/// What came of an offered version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is in force.
    Applied,
    /// It is what was in force.
    Same,
    /// It would take too much away; it waits for an operator.
    Blocked,
}

/// One source.
pub struct Source {
    name: Box<str>,
    stored: Option<PathBuf>,
    /// From this age on it makes nobody unknown.
    stale_after: Option<Duration>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    guard: Guard,
    current: Option<Arc<Catalog>>,
    blocked: Option<Blocked>,
    trouble: Option<String>,
    /// When it was confirmed last, by whoever publishes it.
    heard: Option<Timestamp>,
    /// When that was noted on disk.
    noted: Option<Timestamp>,
}

struct Blocked {
    catalog: Catalog,
    raw: Option<Vec<u8>>,
    loss: Loss,
}

/// A source as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// `directory`, or the file's path.
    pub source: Box<str>,
    /// Whether it has ever been loaded.
    pub loaded: bool,
    /// The version in force.
    pub version: Box<str>,
    /// Entries in force.
    pub entries: usize,
    /// Lists among them.
    pub lists: usize,
    /// Domains that are ours by it.
    pub domains: Vec<String>,
    /// Why it cannot be read at present.
    pub trouble: Option<String>,
    /// The version that the guard holds back.
    pub blocked: Option<BlockedSummary>,
}

/// A version that is held back.
#[derive(Clone, Debug, Serialize)]
pub struct BlockedSummary {
    /// Its name.
    pub version: Box<str>,
    /// Entries it has.
    pub entries: usize,
    /// Entries in force that it lacks.
    pub lost_entries: usize,
    /// Domains in force that it lacks.
    pub lost_domains: Vec<String>,
}

impl Source {
    /// Not loaded yet. `stored` is where the raw form of what is in force is kept, for sources that may be absent at start.
    pub fn new(name: &str, guard: Guard, stored: Option<PathBuf>) -> Self {
        Self {
            name: name.into(),
            stored,
            stale_after: None,
            state: RwLock::new(State {
                guard,
                ..State::default()
            }),
        }
    }

    /// One that is stale when nobody has confirmed it for so long; how long that is outlives restarts.
    #[must_use]
    pub fn stale_after(mut self, stale_after: Duration) -> Self {
        self.stale_after = (!stale_after.is_zero()).then_some(stale_after);
        self
    }

    /// How long ago it was confirmed last; none when it never was.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        self.read().heard.map(|heard| now.since(heard))
    }

    /// Whether it is too old to make anybody unknown.
    pub fn is_stale(&self) -> bool {
        let age = || self.age(Timestamp::now());
        self.stale_after
            .is_some_and(|after| age().is_none_or(|age| age > after))
    }

    /// Restored from a copy that was confirmed last at this time.
    pub fn heard_at(&self, when: Timestamp) {
        self.write().heard = Some(when);
    }

    /// `directory`, or the file's path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is in force; `None` before the first load.
    pub fn current(&self) -> Option<Arc<Catalog>> {
        self.read().current.clone()
    }

    /// Why it cannot be read at present.
    pub fn trouble(&self) -> Option<String> {
        self.read().trouble.clone()
    }

    /// Changes the guard (reload).
    pub fn set_guard(&self, guard: Guard) {
        self.write().guard = guard;
    }

    /// The version that was seen last, in force or held back: what a poll has to differ from.
    pub fn seen(&self) -> Option<Box<str>> {
        let state = self.read();
        let blocked = state.blocked.as_ref().map(|blocked| &blocked.catalog);
        blocked
            .or(state.current.as_deref())
            .map(|catalog| catalog.version.clone())
    }

    /// Takes a version in its parsed and raw form; `force` passes the guard by.
    pub fn offer(&self, catalog: Catalog, raw: Option<Vec<u8>>, force: bool) -> Offered {
        let mut state = self.write();
        state.trouble = None;
        state.heard = Some(Timestamp::now());
        let loss = match &state.current {
            Some(current) if **current == catalog => {
                state.blocked = None;
                return Offered::Same;
            }
            Some(current) => current.loss(&catalog),
            None => Loss::default(),
        };
        if force || state.guard.allows(&loss) {
            state.blocked = None;
            self.apply(&mut state, catalog, raw, &loss);
            return Offered::Applied;
        }
        error!(
            event = "recipients_blocked",
            source = %self.name,
            version = %catalog.version,
            lost_entries = loss.entries,
            entries = loss.of,
            lost_domains = %join(&loss.domains),
            "a new version takes too much away and was not applied; look at it with `mx-edge recipients show`, \
             apply it with `mx-edge recipients accept --force`"
        );
        state.blocked = Some(Blocked { catalog, raw, loss });
        Offered::Blocked
    }

    /// Puts the version that is held back in force; `None` when there is none.
    pub fn accept(&self) -> Option<Summary> {
        let mut state = self.write();
        let Blocked { catalog, raw, loss } = state.blocked.take()?;
        warn!(event = "recipients_forced", source = %self.name, version = %catalog.version);
        self.apply(&mut state, catalog, raw, &loss);
        drop(state);
        Some(self.summary())
    }

    /// Notes that the source has answered and has nothing new.
    pub fn confirmed(&self) {
        let now = Timestamp::now();
        let mut state = self.write();
        state.trouble = None;
        state.heard = Some(now);
        let due = state
            .noted
            .is_none_or(|noted| now.since(noted) >= NOTE_INTERVAL);
        if due && let Some(path) = &self.stored {
            state.noted = Some(now);
            drop(state);
            // The copy's own time; that it cannot be set is told when the copy cannot be written.
            let copy = std::fs::File::options().write(true).open(path);
            let _ = copy.and_then(|copy| copy.set_modified(SystemTime::now()));
        }
    }

    /// Notes that the source could not be read; what it said before stays in force.
    pub fn failed(&self, why: String) {
        let mut state = self.write();
        if state.trouble.as_deref() != Some(&why) {
            warn!(
                event = "recipients_failed",
                source = %self.name,
                loaded = state.current.is_some(),
                reason = %why
            );
        }
        state.trouble = Some(why);
    }

    /// As operators see it.
    pub fn summary(&self) -> Summary {
        let state = self.read();
        let current = state.current.as_deref();
        let mut domains: Vec<String> = current
            .map(|catalog| catalog.domains.iter().map(ToString::to_string).collect())
            .unwrap_or_default();
        domains.sort();
        Summary {
            source: self.name.clone(),
            loaded: current.is_some(),
            version: current
                .map(|catalog| catalog.version.clone())
                .unwrap_or_default(),
            entries: current.map_or(0, Catalog::entries),
            lists: current.map_or(0, |catalog| catalog.lists.len()),
            domains,
            trouble: state.trouble.clone(),
            blocked: state.blocked.as_ref().map(|blocked| BlockedSummary {
                version: blocked.catalog.version.clone(),
                entries: blocked.catalog.entries(),
                lost_entries: blocked.loss.entries,
                lost_domains: blocked
                    .loss
                    .domains
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            }),
        }
    }

    /// First disk, then memory: after a restart there is at least what was in force. A disk that refuses does not stop the
    /// new version, it only makes the next start depend on the source.
    fn apply(&self, state: &mut State, catalog: Catalog, raw: Option<Vec<u8>>, loss: &Loss) {
        if let (Some(path), Some(raw)) = (&self.stored, raw)
            && let Err(error) = state::write_synced(path, &raw)
        {
            error!(event = "recipients_not_stored", source = %self.name, path = %path.display(), %error);
        }
        info!(
            event = "recipients_applied",
            source = %self.name,
            version = %catalog.version,
            entries = catalog.entries(),
            lost_entries = loss.entries
        );
        state.current = Some(Arc::new(catalog));
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().expect("no holder panics")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().expect("no holder panics")
    }
}

fn join(domains: &[mail::Domain]) -> String {
    let names: Vec<_> = domains.iter().map(mail::Domain::as_str).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipients::text;

    fn catalog(count: usize, domain: &str) -> Catalog {
        let lines: String = (0..count).map(|n| format!("u{n}@{domain}\n")).collect();
        text::file(&lines).unwrap()
    }

    fn check_guard(entries: usize, of: usize, domains: &[&str], expected: bool) {
        let loss = Loss {
            entries,
            of,
            domains: domains
                .iter()
                .map(|name| mail::Domain::parse(name).unwrap())
                .collect(),
        };
        assert_eq!(Guard::default().allows(&loss), expected, "{loss:?}");
    }

    #[test]
    fn the_guard_knows_a_share_a_floor_and_domains() {
        check_guard(0, 0, &[], true);
        check_guard(10, 10, &[], true);
        check_guard(11, 100, &[], false);
        check_guard(20, 1_000, &[], true);
        check_guard(21, 1_000, &[], false);
        check_guard(20_000, 1_000_000, &[], true);
        check_guard(20_001, 1_000_000, &[], false);
        check_guard(0, 1_000, &["gone.example"], false);
        check_guard(1, 1_000, &["gone.example"], false);
    }

    #[test]
    fn too_small_a_version_waits_for_an_operator() {
        let source = Source::new("test", Guard::default(), None);
        assert_eq!(
            source.offer(catalog(1_000, "a.example"), None, false),
            Offered::Applied
        );
        assert_eq!(
            source.offer(catalog(900, "a.example"), None, false),
            Offered::Blocked
        );
        assert_eq!(source.summary().entries, 1_000);
        assert_eq!(source.summary().blocked.unwrap().lost_entries, 100);
        assert_eq!(source.accept().unwrap().entries, 900);
        assert!(source.accept().is_none());
    }

    #[test]
    fn a_source_that_recovers_lifts_the_block() {
        let source = Source::new("test", Guard::default(), None);
        source.offer(catalog(1_000, "a.example"), None, false);
        source.offer(Catalog::default(), None, false);
        assert!(source.summary().blocked.is_some());
        assert_eq!(
            source.offer(catalog(1_000, "a.example"), None, false),
            Offered::Same
        );
        assert!(source.summary().blocked.is_none());
    }

    #[test]
    fn an_empty_answer_empties_nothing() {
        let source = Source::new("test", Guard::default(), None);
        source.offer(catalog(3, "a.example"), None, false);
        assert_eq!(
            source.offer(Catalog::default(), None, false),
            Offered::Blocked
        );
        source.failed("connection refused".into());
        assert_eq!(source.summary().entries, 3);
        assert_eq!(source.trouble().unwrap(), "connection refused");
    }

    #[test]
    fn what_nobody_confirms_gets_stale() {
        let hour = Duration::from_secs(3600);
        let source = Source::new("test", Guard::default(), None).stale_after(hour);
        assert!(source.is_stale(), "never heard of");
        source.offer(catalog(3, "a.example"), None, false);
        assert!(!source.is_stale());
        source.heard_at(Timestamp(Timestamp::now().0 - 3_700_000));
        assert!(source.is_stale());
        source.failed("connection refused".into());
        assert!(source.is_stale());
        source.confirmed();
        assert!(!source.is_stale());
        let never = Source::new("test", Guard::default(), None).stale_after(Duration::ZERO);
        never.heard_at(Timestamp(0));
        assert!(!never.is_stale());
    }

    #[test]
    fn only_what_is_in_force_is_stored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.json");
        let source = Source::new("test", Guard::default(), Some(path.clone()));
        source.offer(catalog(100, "a.example"), Some(b"hundred".to_vec()), false);
        source.offer(catalog(1, "a.example"), Some(b"one".to_vec()), false);
        assert_eq!(std::fs::read(&path).unwrap(), b"hundred");
        source.accept();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
    }
}
