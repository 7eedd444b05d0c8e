//! The index is a view: lost, foreign or broken it is made anew, and the spool holds the same.

#![allow(clippy::unwrap_used)]

mod shared;

use std::time::Duration;

use mail::Timestamp;
use shared::*;
use spool::{Destination, Outcome, Path, Spool};

fn index(folder: &std::path::Path) -> std::path::PathBuf {
    folder.join("spool/index.sqlite")
}

#[tokio::test]
async fn it_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let now = Timestamp::now();
    for number in 0..30 {
        let to = format!("u{number}@x.org");
        let batches = vec![
            batch(Destination::Inside, now, &[&to]),
            batch(
                domain(&format!("d{}.example", number % 4)),
                now,
                &[&format!("d{number}@x.org")],
            ),
        ];
        let new = message(now, &to, batches);
        spool
            .accept(new, Some(&format!("e.1.{number}")))
            .await
            .unwrap();
    }
    let leases = claim_all(&spool).await;
    let later = now.after(Duration::from_secs(9));
    let settlements = leases.iter().enumerate().map(|(number, lease)| {
        let outcome = match number % 3 {
            0 => Outcome::Finished,
            1 => deferred(lease, later),
            _ => Outcome::Replaced(vec![batch(
                domain("new.example"),
                now,
                &[&format!("c{number}@x.org")],
            )]),
        };
        settlement(lease, outcome)
    });
    spool.settle(settlements.collect()).await.unwrap();
    let before = spool.tally().await.unwrap();
    let ledger = spool.ledger().await.unwrap();
    assert_eq!((ledger.accepted, ledger.waiting), (60, 40));
    spool.close().await;
    drop(spool);
    // How the index is lost.
    type Lose = fn(&std::path::Path);
    let ways: [(&str, Lose); 4] = [
        ("gone", |folder| lose_index(folder)),
        ("empty", |folder| std::fs::write(index(folder), "").unwrap()),
        ("garbage", |folder| {
            std::fs::write(index(folder), "x".repeat(9000)).unwrap()
        }),
        ("another spool's", |folder| {
            let other = tempfile::tempdir().unwrap();
            drop(open(other.path()));
            lose_index(folder);
            std::fs::copy(index(other.path()), index(folder)).unwrap();
        }),
    ];
    for (how, lose) in ways {
        lose(folder.path());
        let spool = open(folder.path());
        let after = spool.tally().await.unwrap();
        assert_eq!(spool.ledger().await.unwrap(), ledger, "{how}");
        let mut after: Vec<_> = after
            .iter()
            .map(|l| (&l.destination, l.class, l.batches, l.recipients, l.oldest))
            .collect();
        let mut expected: Vec<_> = before
            .iter()
            .map(|l| (&l.destination, l.class, l.batches, l.recipients, l.oldest))
            .collect();
        after.sort();
        expected.sort();
        assert_eq!(after, expected, "{how}");
        let again = spool
            .accept(simple(now, "u7@x.org"), Some("e.1.7"))
            .await
            .unwrap();
        assert_eq!(again.paths, [Path::Again], "{how}");
        assert_eq!(claim_all(&spool).await.len(), 20, "{how}");
        spool.close().await;
    }
}

/// The index was copied back from before: it reads on from where it stood.
#[tokio::test]
async fn an_old_one_reads_on() {
    let folder = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let spool = open(folder.path());
    spool.accept(simple(now, "a@x.org"), None).await.unwrap();
    spool.close().await;
    let old = std::fs::read(index(folder.path())).unwrap();
    let spool = open(folder.path());
    let lease = claim_all(&spool).await;
    finish(&spool, &lease).await;
    spool.accept(simple(now, "b@x.org"), None).await.unwrap();
    spool.close().await;
    lose_index(folder.path());
    std::fs::write(index(folder.path()), old).unwrap();
    let found = contents(&open(folder.path())).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["b@x.org"]);
}
