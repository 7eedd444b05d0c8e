//! The index's file system is full while the journal's is not: SQLite goes its own way to the disk. Mail is accepted, claimed and
//! settled all the same until memory would run out, that is told, and all passes by itself or with a new index.

#![allow(clippy::unwrap_used)]

mod shared;

use std::path::Path;
use std::time::{Duration, Instant};

use mail::Timestamp;
use shared::mounts::Mount;
use shared::*;
use spool::embedded::{Embedded, Options};
use spool::{Error, Spool};

const UNINDEXED_MAX: usize = 400;

/// A spool whose index stands on a file system of its own.
struct Split {
    folder: tempfile::TempDir,
    _mount: Mount,
}

impl Split {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index");
        let mount = Mount::tmpfs("index_fails", &index, 4 << 20, 100)?;
        std::fs::create_dir(folder.path().join("spool")).unwrap();
        // SQLite puts its log beside what the link leads to.
        let link = folder.path().join("spool/index.sqlite");
        std::os::unix::fs::symlink(index.join("index.sqlite"), link).unwrap();
        Some(Self {
            folder,
            _mount: mount,
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Embedded {
        Embedded::open(Options {
            unindexed_max: UNINDEXED_MAX,
            ..options(self.path())
        })
        .unwrap()
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.path().join("index/ballast")
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        let full = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(30), "never {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Accepts until it is refused; how many.
async fn accept_until_full(spool: &Embedded, round: u64, names: &mut Vec<String>) {
    loop {
        let name = format!("m{round}-{}@x.org", names.len());
        match spool
            .accept(simple(Timestamp::now(), &name), Some(&name))
            .await
        {
            Ok(_) => names.push(name),
            Err(Error::Full(why)) => {
                assert!(why.contains("the index is too far behind"), "{why}");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(names.len() < 20 * UNINDEXED_MAX, "memory is not bounded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_on_and_the_index_catches_up() {
    let Some(split) = Split::new() else { return };
    let spool = split.open();
    let mut accepted = vec!["m0@x.org".to_owned()];
    let first = simple(Timestamp::now(), "m0@x.org");
    spool.accept(first, Some("m0@x.org")).await.unwrap();
    split.fill();
    accept_until_full(&spool, 0, &mut accepted).await;
    assert!(accepted.len() > 50, "{} before it was full", accepted.len());
    let why = spool.unhealthy().unwrap();
    assert!(why.starts_with("index: "), "{why}");
    assert!(matches!(spool.refuses(), Some(Error::Full(_))));
    assert!(spool.vitals().index_behind > UNINDEXED_MAX as u64);
    // What is there is worked off, and idents are known.
    let mut wanted = everything();
    wanted.lanes = [10; 4];
    let leases = spool.claim("here", &wanted).await.unwrap();
    assert!(!leases.is_empty());
    assert_eq!(finish(&spool, &leases).await, leases.len());
    let done = names(&leases);
    accepted.retain(|name| !done.contains(name));

    split.make_room();
    until("well again", || spool.unhealthy().is_none()).await;
    until("caught up", || spool.vitals().index_behind == 0).await;
    let again = simple(Timestamp::now(), &accepted[0]);
    let again = spool.accept(again, Some(&accepted[0])).await.unwrap();
    assert_eq!(again.paths, [spool::Path::Again]);
    spool.close().await;
    let found: Vec<_> = contents(&split.open()).await.into_keys().collect();
    accepted.sort();
    assert_eq!(found, accepted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_index_never_had_is_read_from_the_journal() {
    let Some(split) = Split::new() else { return };
    for rebuilt in [false, true] {
        let spool = split.open();
        let leases = claim_all(&spool).await;
        finish(&spool, &leases).await;
        let mut accepted = Vec::new();
        split.fill();
        accept_until_full(&spool, u64::from(rebuilt), &mut accepted).await;
        // As by a crash.
        drop(spool);
        split.make_room();
        if rebuilt {
            for suffix in ["", "-wal", "-shm"] {
                let file = format!("index/index.sqlite{suffix}");
                let _ = std::fs::remove_file(split.path().join(file));
            }
        }
        let found: Vec<_> = contents(&split.open()).await.into_keys().collect();
        accepted.sort();
        assert_eq!(found, accepted, "rebuilt {rebuilt}");
    }
}
