//! A crash between an expansion and its settlement: expanded again, to the same batches under the same number.

use std::path::Path;

use mail::{Domain, MailParameters, ReversePath};
use spool::NewMessage;
use spool::embedded::{Embedded, Options};

use super::*;
use crate::secrets::Secrets;

fn open(folder: &Path) -> Arc<dyn Spool> {
    let options = Options {
        segment_bytes: 1 << 20,
        free_bytes_min: 0,
        free_inodes_min: 0,
        ..Options::new(folder.join("spool"))
    };
    Arc::new(Embedded::open(options).unwrap())
}

async fn expander(folder: &Path, spool: Arc<dyn Spool>) -> Expander {
    let config = Config {
        state: folder.into(),
        ..Config::default()
    };
    let secrets = watch::channel(Secrets::read(&config).unwrap()).1;
    let config = watch::channel(config).1;
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let directory = Directory::new(folder.join("directory.sqlite"), true);
    directory.refresh().await.unwrap();
    let hostname = Domain::parse("host.example").unwrap();
    Expander {
        quarantine: Quarantine::open(&folder.join("quarantine.sqlite"), 1 << 20).unwrap(),
        commander: Commander {
            spool: spool.clone(),
            directory: directory.clone(),
            config: config.clone(),
            hostname: hostname.clone(),
            secrets,
            metrics: metrics.clone(),
        },
        notifier: Notifier {
            spool: spool.clone(),
            directory: directory.clone(),
            config: config.clone(),
            hostname,
            metrics: metrics.clone(),
            begun: Arc::default(),
        },
        spool,
        directory,
        config,
        metrics,
    }
}

async fn claim(spool: &Arc<dyn Spool>, destinations: Destinations) -> Vec<Lease> {
    let wanted = Wanted {
        destinations,
        lanes: [100; 4],
    };
    spool.claim("host", &wanted).await.unwrap()
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

#[tokio::test]
async fn a_crash_before_the_settlement_expands_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let expand = || Destinations::Only(vec![Destination::Expand]);
    let list = address("dev@lists.example");

    let spool = open(folder);
    let before = expander(folder, spool.clone()).await;
    let made = list.clone();
    before
        .directory
        .rename(move |store| {
            store.create_list(&made, &[])?;
            store.add_members(&made, &[address("a@one.example"), address("b@two.example")])
        })
        .await
        .unwrap();
    let new = NewMessage {
        arrival: Timestamp::now(),
        reverse_path: ReversePath::parse("ann@four.example").unwrap(),
        parameters: MailParameters::default(),
        facts: Bytes::new(),
        body: vec!["Subject: s\r\n\r\nbody\r\n".into()],
        batches: vec![arrival(list.into(), Class::Ordinary, Timestamp::now())],
    };
    spool.accept(new, Some("mx1.a.1")).await.unwrap();
    let leases = claim(&spool, expand()).await;
    let (first, _) = before.expand(&leases[0]).await.unwrap();
    assert_eq!(first.len(), 2);
    spool.close().await; // and nothing was settled
    drop((before, spool));

    let spool = open(folder);
    let after = expander(folder, spool.clone()).await;
    let leases = claim(&spool, expand()).await;
    assert_eq!(leases.len(), 1);
    for lease in leases {
        after.work(lease).await;
    }
    let ledger = spool.ledger().await.unwrap();
    assert_eq!((ledger.accepted, ledger.expanded, ledger.made), (1, 1, 2));
    assert_eq!((ledger.unaccounted, ledger.difference()), (0, 0));
    assert_eq!(claim(&spool, expand()).await.len(), 0);
    let batches = claim(&spool, Destinations::Except([].into())).await;
    assert_eq!(batches.len(), 2);
    for (lease, first) in batches.iter().zip(&first) {
        let template = Template::read(&lease.batch.template);
        assert_eq!(template, Template::read(&first.template));
        assert!(matches!(template, Some(Template::Post { number: 1, .. })));
    }
    spool.close().await;
}

/// What ends here ends as something: a command is answered, a list that is gone is refused.
#[tokio::test]
async fn everybody_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let expander = expander(folder.path(), spool.clone()).await;
    let list = address("dev@lists.example");
    expander
        .directory
        .rename(move |store| store.create_list(&list, &[]))
        .await
        .unwrap();
    // Rows: to whom, delivered, bounced, expanded, what was made of it.
    for (to, expected) in [
        ("dev-help@lists.example", (1, 0, 0, 0)),
        ("gone@lists.example", (0, 1, 0, 0)),
        ("dev@lists.example", (1, 0, 0, 0)),
    ] {
        let before = spool.ledger().await.unwrap();
        let new = NewMessage {
            arrival: Timestamp::now(),
            reverse_path: ReversePath::parse("ann@four.example").unwrap(),
            parameters: MailParameters::default(),
            facts: Bytes::new(),
            body: vec!["Subject: help\r\n\r\nbody\r\n".into()],
            batches: vec![arrival(
                address(to).into(),
                Class::Ordinary,
                Timestamp::now(),
            )],
        };
        spool.accept(new, None).await.unwrap();
        for lease in claim(&spool, Destinations::Only(vec![Destination::Expand])).await {
            expander.work(lease).await;
        }
        let after = spool.ledger().await.unwrap();
        let found = (
            after.ends.delivered - before.ends.delivered,
            after.ends.bounced - before.ends.bounced,
            after.expanded - before.expanded,
            after.made - before.made,
        );
        assert_eq!(found, expected, "{to}");
        assert_eq!((after.unaccounted, after.difference()), (0, 0), "{to}");
    }
    spool.close().await;
}

/// A post whose body the disk has changed: it is set aside with its envelope, counted, and holds up no other.
#[tokio::test]
async fn a_corrupt_post_is_set_aside_and_the_next_one_expands() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let list = address("dev@lists.example");
    let spool = open(folder);
    for text in ["this one is spoilt", "this one is whole"] {
        let new = NewMessage {
            arrival: Timestamp::now(),
            reverse_path: ReversePath::parse("ann@four.example").unwrap(),
            parameters: MailParameters::default(),
            facts: Bytes::new(),
            body: vec![format!("Subject: s\r\n\r\n{text}\r\n").into()],
            batches: vec![arrival(
                list.clone().into(),
                Class::Ordinary,
                Timestamp::now(),
            )],
        };
        spool.accept(new, None).await.unwrap();
    }
    spool.close().await;
    drop(spool);
    spoil(&folder.join("spool/journal"), b"this one is spoilt");

    let spool = open(folder);
    let expander = expander(folder, spool.clone()).await;
    let made = list.clone();
    expander
        .directory
        .rename(move |store| {
            store.create_list(&made, &[])?;
            store.add_members(&made, &[address("a@one.example"), address("b@two.example")])
        })
        .await
        .unwrap();
    let leases = claim(&spool, Destinations::Only(vec![Destination::Expand])).await;
    assert_eq!(leases.len(), 2);
    for lease in leases {
        expander.work(lease).await;
    }
    let ledger = spool.ledger().await.unwrap();
    assert_eq!((ledger.accepted, ledger.ends.set_aside), (2, 1));
    assert_eq!((ledger.expanded, ledger.made, ledger.waiting), (1, 2, 2));
    assert_eq!((ledger.unaccounted, ledger.difference()), (0, 0));
    let ended = |outcome| expander.metrics.ended.with_label_values(&[outcome]).get();
    assert_eq!((ended("corrupt"), ended("expanded")), (1, 1));
    assert_eq!(spool.vitals().set_aside, 1);
    let kept = std::fs::read_dir(folder.join("spool/corrupt")).unwrap();
    let envelope = kept.map(|entry| entry.unwrap().path());
    let envelope = envelope.filter(|path| path.extension().is_some_and(|is| is == "envelope"));
    let envelope = std::fs::read_to_string(envelope.last().unwrap()).unwrap();
    for line in [
        "reverse-path <ann@four.example>",
        "forward-path <dev@lists.example>",
    ] {
        assert!(envelope.contains(line), "{envelope}");
    }
    spool.close().await;
}

/// Flips a bit of the bytes that stand once in a journal.
fn spoil(journal: &Path, what: &[u8]) {
    for entry in std::fs::read_dir(journal).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let mut windows = bytes.windows(what.len());
        if let Some(at) = windows.position(|window| window == what) {
            bytes[at] ^= 4;
            return std::fs::write(path, bytes).unwrap();
        }
    }
    panic!("it is not there");
}
