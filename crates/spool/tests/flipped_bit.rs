//! A bit flips on the disk. In a body: that message alone is set aside, with its envelope. In a group in the middle of the
//! journal: the stretch is set aside, all others are there.

#![allow(clippy::unwrap_used)]

mod shared;

use std::sync::Arc;

use mail::Timestamp;
use shared::faults::{Fault, FaultyDisk};
use shared::*;
use spool::{Error, Spool};

/// A spool with three messages, a group each; its only segment.
async fn three(folder: &std::path::Path) -> (std::path::PathBuf, Vec<u8>) {
    let spool = open(folder);
    for name in ["a@x.org", "b@x.org", "c@x.org"] {
        spool
            .accept(simple(Timestamp::now(), name), None)
            .await
            .unwrap();
    }
    spool.close().await;
    let segment = segments(folder).remove(0);
    let bytes = std::fs::read(&segment).unwrap();
    (segment, bytes)
}

fn set_aside(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder.join("spool/corrupt"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn in_a_body() {
    let folder = tempfile::tempdir().unwrap();
    let (segment, mut bytes) = three(folder.path()).await;
    let group = groups(&bytes)[1];
    let body = b"Subject: test\r\n\r\nb@x.org";
    let at = bytes[group..]
        .windows(body.len())
        .position(|window| window == body)
        .unwrap();
    bytes[group + at + 20] ^= 4;
    std::fs::write(&segment, &bytes).unwrap();
    for rebuilt in [false, true] {
        if rebuilt {
            lose_index(folder.path());
        }
        let spool = open(folder.path());
        let leases = claim_all(&spool).await;
        assert_eq!(leases.len(), 3);
        for lease in &leases {
            let body = spool.body(lease.head.id).await;
            match lease.batch.recipients[0].address.local() {
                "b" => {
                    let Err(Error::Corrupt(id, path)) = body else {
                        panic!("{body:?}");
                    };
                    assert_eq!(id, lease.head.id);
                    assert!(spool.body(lease.head.id).await.is_err());
                    assert_eq!(spool.vitals().set_aside, 1, "once, however often");
                    assert_eq!(
                        std::fs::read(&path).unwrap().len(),
                        lease.head.body_bytes as usize
                    );
                    let envelope =
                        std::fs::read_to_string(path.with_extension("envelope")).unwrap();
                    assert!(
                        envelope.contains("reverse-path <sender@example.org>"),
                        "{envelope}"
                    );
                    assert!(envelope.contains("forward-path <b@x.org>"), "{envelope}");
                }
                _ => assert!(body.is_ok()),
            }
        }
        assert!(spool.unhealthy().is_none());
    }
}

#[tokio::test]
async fn in_a_group_in_the_middle() {
    // Header, its checksum, records.
    for offset in [9, 62, 80] {
        let folder = tempfile::tempdir().unwrap();
        let (segment, mut bytes) = three(folder.path()).await;
        let group = groups(&bytes)[1];
        bytes[group + offset] ^= 4;
        std::fs::write(&segment, &bytes).unwrap();
        lose_index(folder.path());
        let spool = open(folder.path());
        let found = contents(&spool).await;
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            ["a@x.org", "c@x.org"],
            "offset {offset}"
        );
        assert_eq!(
            set_aside(folder.path()),
            [format!("journal-{:016x}-{group}", 1)]
        );
        drop(spool);
        // Told once: the index stands behind it now.
        std::fs::remove_dir_all(folder.path().join("spool/corrupt")).unwrap();
        open(folder.path());
        assert!(set_aside(folder.path()).is_empty());
    }
}

/// A group of a later version is no garbage: the older program must not pass over it.
#[tokio::test]
async fn a_later_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (segment, mut bytes) = three(folder.path()).await;
    let group = groups(&bytes)[1];
    bytes[group + 4] = 9;
    let checksum = crc32c::crc32c(&bytes[group..group + 60]);
    bytes[group + 60..group + 64].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&segment, &bytes).unwrap();
    lose_index(folder.path());
    let opened = spool::embedded::Embedded::open(options(folder.path()));
    let error = opened.err().map(|error| error.to_string()).unwrap();
    assert!(error.contains("use the newer program"), "{error}");
}

/// What cannot be saved for an operator is not given up: the batch goes on holding what there is.
#[tokio::test]
async fn in_a_body_on_a_disk_that_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (segment, mut bytes) = three(folder.path()).await;
    let body = b"Subject: test\r\n\r\nb@x.org";
    let mut windows = bytes.windows(body.len());
    let at = windows.position(|window| window == body).unwrap();
    bytes[at + 20] ^= 4;
    std::fs::write(&segment, &bytes).unwrap();
    let disk = FaultyDisk::new(Fault::Dies, 0);
    let spool =
        spool::embedded::Embedded::open_on(options(folder.path()), Arc::new(disk.clone())).unwrap();
    let leases = claim_all(&spool).await;
    let bad = leases.iter().find(|lease| {
        let first = &lease.batch.recipients[0];
        first.address.local() == "b"
    });
    let bad = bad.unwrap().head.id;
    disk.set_failing("write");
    let error = spool.body(bad).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(spool.vitals().set_aside, 0);
    disk.set_failing("");
    let error = spool.body(bad).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt(..)), "{error}");
    assert_eq!(spool.vitals().set_aside, 1);
}
