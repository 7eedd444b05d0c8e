//! The power goes while the spool is under load, on a real file system: what was not synced is not there afterwards, and all that
//! was acknowledged is. An ext4 on a loop device, shut down by ioctl.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mail::Timestamp;
use shared::mounts::Mount;
use shared::*;
use spool::embedded::disk::{Disk, File, Free, System};
use spool::embedded::{Embedded, Options};
use spool::{Destination, Outcome, Seen, Spool};

const DISK_BYTES: u64 = 96 << 20;
const ROUNDS: u64 = 6;

fn small(path: &Path) -> Options {
    Options {
        segment_bytes: 256 * 1024,
        ..options(path)
    }
}

#[derive(Debug, Default)]
struct Told {
    there: BTreeSet<String>,
    gone: BTreeSet<String>,
    /// The power is going: what is answered from now on may be of either side.
    cut: bool,
}

/// Accepts in four tasks and settles in one, until it is refused.
async fn load(spool: Arc<Embedded>, round: u64, told: Arc<Mutex<Told>>) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4 {
        let (spool, told) = (spool.clone(), told.clone());
        tasks.spawn(async move {
            for number in 0.. {
                let name = format!("m{round}-{task}-{number}@x.org");
                let now = Timestamp::now();
                let batches = vec![batch(Destination::Inside, now, &[&name])];
                let new = message(now, &format!("{name} {}", "x".repeat(3000)), batches);
                if spool.accept(new, None).await.is_err() {
                    return;
                }
                let mut told = told.lock().unwrap();
                if !told.cut && !told.gone.contains(&name) {
                    told.there.insert(name);
                }
            }
        });
    }
    tasks.spawn(async move {
        let mut wanted = everything();
        wanted.lanes = [4; 4];
        let mut seen = Seen::default();
        loop {
            spool.ready(&mut seen).await;
            let Ok(leases) = spool.claim("here", &wanted).await else {
                return;
            };
            for lease in leases {
                let name = lease.batch.recipients[0].address.to_string();
                // Unanswered, it may be either.
                told.lock().unwrap().there.remove(&name);
                let settlements = vec![settlement(&lease, Outcome::Finished)];
                let settled = spool.settle(settlements).await;
                // Whoever is told of its acceptance only now must not expect it.
                let mut told = told.lock().unwrap();
                told.there.remove(&name);
                told.gone.insert(name);
                if settled.is_err() {
                    return;
                }
            }
        }
    });
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

async fn cut_under_load(mount: &Mount, path: &Path, round: u64, disk: Arc<dyn Disk>) -> Told {
    let spool = Arc::new(Embedded::open_on(small(path), disk).unwrap());
    let told = Arc::new(Mutex::new(Told::default()));
    let loading = tokio::spawn(load(spool.clone(), round, told.clone()));
    // Different moments; what is claimed does not depend on which.
    tokio::time::sleep(Duration::from_millis(150 + round * 211 % 300)).await;
    mount.cut_power(|| told.lock().unwrap().cut = true);
    tokio::time::timeout(Duration::from_secs(60), loading)
        .await
        .expect("a dead disk is noticed")
        .unwrap();
    drop(spool);
    mount.restore_power();
    Arc::try_unwrap(told).unwrap().into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_acknowledged_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let Some(mount) = Mount::ext4("power_cut", &path, DISK_BYTES) else {
        return;
    };
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let told = cut_under_load(&mount, &path, round, Arc::new(System)).await;
        accepted += told.there.len() + told.gone.len();
        if round % 3 == 2 {
            lose_index(&path);
        }
        let spool = Embedded::open(small(&path)).unwrap();
        let leases = claim_all(&spool).await;
        let found: BTreeSet<_> = names(&leases).into_iter().collect();
        assert_eq!(
            found.len(),
            leases.len(),
            "round {round}: something is there twice"
        );
        let lost: Vec<_> = told.there.difference(&found).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        for lease in &leases {
            let body = spool.body(lease.head.id).await.unwrap();
            let name = lease.batch.recipients[0].address.to_string();
            assert!(body.starts_with(format!("Subject: test\r\n\r\n{name}").as_bytes()));
        }
        assert_eq!(
            folder_bytes(&path.join("spool/corrupt")),
            0,
            "nothing is damaged"
        );
        finish(&spool, &leases).await;
        spool.close().await;
    }
    assert!(accepted > 50, "{accepted}");
}

/// A disk that says that it has synced.
#[derive(Clone, Copy, Debug)]
struct Liar;

#[derive(Debug)]
struct LiarFile(Arc<dyn File>);

impl Disk for Liar {
    fn make_folder(&self, path: &Path) -> std::io::Result<()> {
        System.make_folder(path)
    }

    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn File>> {
        Ok(Arc::new(LiarFile(System.open(path)?)))
    }

    fn open_to_read(&self, path: &Path) -> std::io::Result<Arc<dyn File>> {
        System.open_to_read(path)
    }

    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        System.read(path)
    }

    fn list(&self, path: &Path) -> std::io::Result<Vec<PathBuf>> {
        System.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        System.rename(from, to)
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        System.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> std::io::Result<()> {
        System.remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> std::io::Result<()> {
        System.sync_folder(path)
    }

    fn free(&self, path: &Path) -> std::io::Result<Free> {
        System.free(path)
    }
}

impl File for LiarFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.0.read_at(bytes, offset)
    }

    fn sync(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> std::io::Result<()> {
        self.0.allocate(bytes)
    }

    fn set_length(&self, bytes: u64) -> std::io::Result<()> {
        self.0.set_length(bytes)
    }

    fn length(&self) -> std::io::Result<u64> {
        self.0.length()
    }
}

/// Without syncs mail is lost here: what the other test finds it has not found by luck.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_mail_would_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let Some(mount) = Mount::ext4("power_cut", &path, DISK_BYTES) else {
        return;
    };
    // Made on a good disk: what is lost is mail.
    Embedded::open(small(&path)).unwrap().close().await;
    let told = cut_under_load(&mount, &path, 0, Arc::new(Liar)).await;
    // The index may point at what is not there; only the journal is asked.
    lose_index(&path);
    let spool = Embedded::open(small(&path)).unwrap();
    let found: BTreeSet<_> = names(&claim_all(&spool).await).into_iter().collect();
    assert!(!told.there.is_subset(&found), "all is there without a sync");
    drop(spool);
}
