//! The last write is cut at every byte: what was acknowledged before is whole, the last message is there whole or not at all,
//! and the journal goes on from there.

#![allow(clippy::unwrap_used)]

mod shared;

use mail::Timestamp;
use shared::*;
use spool::Spool;
use spool::embedded::{Embedded, Options};

#[tokio::test]
async fn cut_at_every_byte() {
    let origin = tempfile::tempdir().unwrap();
    let small = |path: &std::path::Path| Options {
        segment_bytes: 64 * 1024,
        ..options(path)
    };
    let spool = Embedded::open(small(origin.path())).unwrap();
    for name in ["a@x.org", "b@x.org", "last@x.org"] {
        spool
            .accept(simple(Timestamp::now(), name), None)
            .await
            .unwrap();
    }
    spool.close().await;
    drop(spool);
    lose_index(origin.path());
    let segment = segments(origin.path()).remove(0);
    let whole = std::fs::read(&segment).unwrap();
    let last = *groups(&whole).last().unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(used > last + 200 && used < last + 1000);
    for cut in last..=used {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(origin.path(), copy.path());
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        std::fs::write(&segments(copy.path())[0], &bytes).unwrap();
        let spool = Embedded::open(small(copy.path())).unwrap();
        let next = simple(Timestamp::now(), "next@x.org");
        spool.accept(next, None).await.unwrap();
        drop(spool);
        let spool = Embedded::open(small(copy.path())).unwrap();
        let found = contents(&spool).await;
        let mut expected = vec!["a@x.org", "b@x.org", "next@x.org"];
        if cut == used {
            expected.insert(2, "last@x.org");
        }
        assert_eq!(found.keys().collect::<Vec<_>>(), expected, "cut at {cut}");
    }
}
