//! One source of recipients: what it said last that is in force, and the guard in front of it. Owns the copy on disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mail::Timestamp;
use mail::directory::Delta;
use tracing::{error, info, warn};

use super::catalog::{Catalog, Loss};
use super::guard::{Cause, Guard, Objection};
use super::stored::Stored;
use super::summary::Summary;

/// How often it is noted on disk that a source was confirmed.
const NOTE_INTERVAL: Duration = Duration::from_secs(600);

/// What came of an offered version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is in force.
    Applied,
    /// It is what was in force.
    Same,
    /// The guard objects to it; it waits for an operator.
    Blocked(Cause),
}

/// One source.
pub struct Source {
    name: Box<str>,
    /// Held while a version is judged, stored and put in force, so that look-ups never wait for the disk.
    stored: Mutex<Option<Stored>>,
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
    objection: Objection,
}

impl Source {
    /// Not loaded yet. `stored` is where what is in force is kept, for sources that may be absent at start.
    pub fn new(name: &str, guard: Guard, stored: Option<PathBuf>) -> Self {
        Self {
            name: name.into(),
            stored: Mutex::new(stored.map(Stored::new)),
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

    /// The version that is held back.
    pub fn held_back(&self) -> Option<Box<str>> {
        let state = self.read();
        let blocked = state.blocked.as_ref();
        blocked.map(|blocked| blocked.catalog.version.clone())
    }

    /// Why that one is held back.
    pub fn held_back_for(&self) -> Option<Cause> {
        let state = self.read();
        let blocked = state.blocked.as_ref();
        blocked.map(|blocked| blocked.objection.cause)
    }

    /// Puts in force what was stored; none when nothing was. An error says why that cannot be read.
    pub fn restore(&self) -> Result<Option<Arc<Catalog>>, String> {
        let mut stored = self.stored();
        let Some(stored) = stored.as_mut() else {
            return Ok(None);
        };
        let Some(catalog) = stored.read()? else {
            return Ok(None);
        };
        let confirmed = std::fs::metadata(stored.path()).and_then(|facts| facts.modified());
        let catalog = Arc::new(catalog);
        let mut state = self.write();
        state.current = Some(Arc::clone(&catalog));
        state.heard = confirmed.ok().map(|time| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp(since.as_millis() as u64)
        });
        info!(
            event = "recipients_restored",
            source = %self.name,
            version = %catalog.version,
            entries = catalog.entries()
        );
        Ok(Some(catalog))
    }

    /// Takes a version, and the change that made it of what is in force, if it came so; `force` passes the guard by. Blocks while it is
    /// stored.
    pub fn offer(&self, catalog: Catalog, delta: Option<&Delta>, force: bool) -> Offered {
        let mut stored = self.stored();
        let (current, guard) = {
            let mut state = self.write();
            state.trouble = None;
            (state.current.clone(), state.guard)
        };
        if current.as_deref() == Some(&catalog) {
            self.settled();
            return Offered::Same;
        }
        let judged = match &current {
            Some(current) => guard.judge(current, &catalog),
            None => Ok(Loss::default()),
        };
        let loss = match judged {
            Ok(loss) => loss,
            Err(objection) if force => objection.loss,
            Err(objection) => return self.hold_back(catalog, objection),
        };
        self.apply(&mut stored, catalog, delta, &loss);
        self.settled();
        Offered::Applied
    }

    fn hold_back(&self, catalog: Catalog, objection: Objection) -> Offered {
        let Objection { cause, loss } = &objection;
        let cause = *cause;
        error!(
            event = "recipients_blocked",
            source = %self.name,
            version = %catalog.version,
            cause = cause.as_str(),
            lost_entries = loss.entries,
            entries = loss.of,
            lost_domains = %join(&loss.domains),
            "a new version was not applied: {}; look at it with `mx-edge recipients show`, apply it with \
             `mx-edge recipients accept --force`",
            cause.explained()
        );
        self.write().blocked = Some(Blocked { catalog, objection });
        Offered::Blocked(cause)
    }

    /// What is in force is what the source says.
    fn settled(&self) {
        let mut state = self.write();
        state.blocked = None;
        state.heard = Some(Timestamp::now());
    }

    /// Puts the version that is held back in force; `None` when there is none.
    pub fn accept(&self) -> Option<Summary> {
        let mut stored = self.stored();
        let Blocked { catalog, objection } = self.write().blocked.take()?;
        warn!(event = "recipients_forced", source = %self.name, version = %catalog.version);
        self.apply(&mut stored, catalog, None, &objection.loss);
        self.settled();
        drop(stored);
        Some(self.summary())
    }

    /// Notes that the source has answered and that nothing is newer than what is in force.
    pub fn confirmed(&self) {
        let now = Timestamp::now();
        let mut state = self.write();
        state.trouble = None;
        state.heard = Some(now);
        state.blocked = None;
        let due = state
            .noted
            .is_none_or(|noted| now.since(noted) >= NOTE_INTERVAL);
        if !due {
            return;
        }
        state.noted = Some(now);
        drop(state);
        if let Some(stored) = self.stored().as_ref() {
            note(stored.path(), SystemTime::now());
        }
    }

    /// Takes back that the source itself said this now: it was confirmed last at this time.
    pub fn heard_at(&self, when: Timestamp) {
        if let Some(stored) = self.stored().as_ref() {
            note(stored.path(), UNIX_EPOCH + Duration::from_millis(when.0));
        }
        self.write().heard = Some(when);
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
        let blocked = state.blocked.as_ref();
        Summary::new(
            &self.name,
            state.current.as_deref(),
            state.trouble.clone(),
            blocked.map(|blocked| (&blocked.catalog, &blocked.objection)),
        )
    }

    /// First disk, then memory: after a restart there is at least what was in force. A disk that refuses does not stop the
    /// new version, it only makes the next start depend on the source.
    fn apply(
        &self,
        stored: &mut Option<Stored>,
        catalog: Catalog,
        delta: Option<&Delta>,
        loss: &Loss,
    ) {
        if let Some(stored) = stored
            && let Err(error) = stored.write(&catalog, delta)
        {
            error!(event = "recipients_not_stored", source = %self.name, path = %stored.path().display(), %error);
        }
        info!(
            event = "recipients_applied",
            source = %self.name,
            version = %catalog.version,
            entries = catalog.entries(),
            lost_entries = loss.entries
        );
        // What was in force is let go of outside the lock: a million names take their time.
        let before = self.write().current.replace(Arc::new(catalog));
        drop(before);
    }

    fn stored(&self) -> MutexGuard<'_, Option<Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().expect("no holder panics")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().expect("no holder panics")
    }
}

/// The copy's own time; that it cannot be set is told when the copy cannot be written.
fn note(path: &Path, when: SystemTime) {
    let copy = std::fs::File::options().write(true).open(path);
    let _ = copy.and_then(|copy| copy.set_modified(when));
}

fn join(domains: &[mail::Domain]) -> String {
    let names: Vec<_> = domains.iter().map(mail::Domain::as_str).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipients::text;
    use mail::directory::{Seal, Version};

    fn catalog(count: usize, domain: &str) -> Catalog {
        let lines: String = (0..count).map(|n| format!("u{n}@{domain}\n")).collect();
        text::file(&lines).unwrap()
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
            Offered::Blocked(Cause::Shrunken)
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
            Offered::Blocked(Cause::Shrunken)
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

    /// A directory of so many addresses.
    fn directory(epoch: u64, serial: u64, count: usize) -> Catalog {
        let content = catalog(count, "a.example").content;
        let seal = Seal {
            version: Version { epoch, serial },
            digest: content.digest(),
            signatures: Vec::new(),
        };
        Catalog::of_directory(seal, content)
    }

    #[test]
    fn only_what_is_in_force_is_stored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.json");
        let stored = || {
            let source = Source::new("test", Guard::default(), Some(path.clone()));
            source.restore().unwrap().map(|catalog| catalog.entries())
        };
        let source = Source::new("test", Guard::default(), Some(path.clone()));
        source.offer(directory(1, 1, 100), None, false);
        source.offer(directory(1, 2, 1), None, false);
        assert_eq!(stored(), Some(100));
        source.accept();
        assert_eq!(stored(), Some(1));
    }

    #[test]
    fn what_does_not_follow_waits_and_is_forgotten_when_it_is_taken_back() {
        let source = Source::new("test", Guard::default(), None);
        source.offer(directory(1, 5, 100), None, false);
        for (offered, cause) in [
            (directory(1, 4, 100), Cause::Older),
            (directory(1, 5, 101), Cause::Forked),
            (directory(2, 9, 101), Cause::Foreign),
        ] {
            let version = offered.version.clone();
            assert_eq!(source.offer(offered, None, false), Offered::Blocked(cause));
            assert_eq!(source.held_back(), Some(version));
            assert_eq!(
                source.current().unwrap().version,
                directory(1, 5, 0).version
            );
        }
        // The list host of what is in force answers again.
        source.confirmed();
        assert_eq!(source.held_back(), None);
        // An operator goes back all the same, and on from there.
        source.offer(directory(1, 4, 90), None, false);
        assert_eq!(&*source.accept().unwrap().version, "0000000000000001.4");
        let on = source.offer(directory(1, 5, 91), None, false);
        assert_eq!(on, Offered::Applied);
    }

    #[test]
    fn what_is_held_back_confirms_nothing() {
        let hour = Duration::from_secs(3600);
        let source = Source::new("test", Guard::default(), None).stale_after(hour);
        source.offer(directory(1, 5, 100), None, false);
        source.heard_at(Timestamp(Timestamp::now().0 - 3_700_000));
        source.offer(directory(1, 4, 100), None, false);
        assert!(source.is_stale());
        source.offer(directory(1, 6, 100), None, false);
        assert!(!source.is_stale());
    }

    #[test]
    fn the_time_of_the_last_word_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.json");
        let open = || Source::new("test", Guard::default(), Some(path.clone()));
        let source = open();
        source.offer(directory(1, 5, 100), None, false);
        let then = Timestamp(Timestamp::now().0 - 3_700_000);
        source.heard_at(then);
        let source = open();
        source.restore().unwrap();
        let age = source.age(then).unwrap();
        assert!(age < Duration::from_secs(1), "{age:?}");
    }
}
