//! After a clean close, and after an end without one, all that was acknowledged is there as it was left.

#![allow(clippy::unwrap_used)]

mod shared;

use std::time::Duration;

use shared::*;
use spool::{Destination, Outcome, Path, Spool};

/// Accepts, settles in all ways, ends, opens again, looks.
async fn story(close: bool) {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let options = spool::embedded::Options {
        clock: clock.clock(),
        ..options(folder.path())
    };
    let spool = spool::embedded::Embedded::open(options.clone()).unwrap();
    let now = clock.now();
    for name in ["done", "deferred", "expanded", "leased", "fresh"] {
        let to = format!("{name}@x.org");
        let ident = format!("edge.1.{}", name.len());
        spool.accept(simple(now, &to), Some(&ident)).await.unwrap();
        if name == "fresh" {
            break;
        }
        let lease = claim_all(&spool).await.remove(0);
        let outcome = match name {
            "done" => Outcome::Finished,
            "deferred" => deferred(&lease, now.after(Duration::from_secs(60))),
            "expanded" => {
                let children =
                    ["one@y.org", "two@y.org"].map(|to| batch(domain("y.org"), now, &[to]));
                let outcome = Outcome::Replaced(children.to_vec());
                spool
                    .settle(vec![settlement(&lease, outcome)])
                    .await
                    .unwrap();
                let child = claim_all(&spool).await.remove(0);
                assert_eq!(names(std::slice::from_ref(&child)).len(), 1);
                continue;
            }
            _ => continue,
        };
        assert_eq!(
            spool
                .settle(vec![settlement(&lease, outcome)])
                .await
                .unwrap(),
            1
        );
    }
    let before = spool.tally().await.unwrap();
    if close {
        spool.close().await;
    }
    drop(spool);
    let spool = spool::embedded::Embedded::open(options).unwrap();
    let after = spool.tally().await.unwrap();
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            (
                &before.destination,
                before.batches,
                before.recipients,
                before.oldest
            ),
            (
                &after.destination,
                after.batches,
                after.recipients,
                after.oldest
            )
        );
        assert_eq!(after.leased, 0, "leases end with the process");
    }
    // Idents are still known.
    let again = spool
        .accept(simple(now, "done@x.org"), Some("edge.1.4"))
        .await
        .unwrap();
    assert_eq!(again.paths, [Path::Again]);
    clock.advance(60_000);
    let contents = contents(&spool).await;
    let found: Vec<_> = contents
        .iter()
        .map(|(name, (attempts, recipients, _))| (name.as_str(), *attempts, *recipients))
        .collect();
    let expected = [
        ("deferred@x.org", 1, 1),
        ("fresh@x.org", 0, 1),
        ("leased@x.org", 0, 1),
        ("one@y.org", 0, 1),
        ("two@y.org", 0, 1),
    ];
    assert_eq!(found, expected);
    assert!(contents["leased@x.org"].2.ends_with(b"leased@x.org"));
}

#[tokio::test]
async fn after_close() {
    story(true).await;
}

#[tokio::test]
async fn after_drop() {
    story(false).await;
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let second = spool::embedded::Embedded::open(options(folder.path()));
    let error = second.err().map(|error| error.to_string()).unwrap();
    assert!(error.contains("another process"), "{error}");
    drop(first);
    open(folder.path());
}

#[tokio::test]
async fn a_foreign_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let new = message(
        mail::Timestamp(1),
        "x",
        vec![batch(Destination::Inside, mail::Timestamp(1), &["a@x.org"])],
    );
    spool.accept(new, None).await.unwrap();
    spool.close().await;
    let format = folder.path().join("spool/format");
    // Rows: what stands in the file, what is said.
    for (content, said) in [
        (
            Some("mailflow spool 2 00"),
            "not a spool that this program can read",
        ),
        (Some(""), "not a spool that this program can read"),
        (None, "put it back"),
    ] {
        match content {
            Some(content) => std::fs::write(&format, content).unwrap(),
            None => std::fs::remove_file(&format).unwrap(),
        }
        let opened = spool::embedded::Embedded::open(options(folder.path()));
        let error = opened.err().map(|error| error.to_string()).unwrap();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn the_folder_is_nobody_elses_business() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let spool = runtime.block_on(async { open(folder.path()) });
    let mode = std::fs::metadata(folder.path().join("spool"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(spool);
}
