//! What senders are told of mail that an alias passes on: by attempts that ended as told, over the real spool and directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use delivery::{Attempted, Owner, Result as Attempt};
use mail::envelope::Notify;
use mail::{Address, Domain, MailParameters, Recipient, Reply, ReversePath, Timestamp};
use service::shutdown::Shutdown;
use smtp::client::Phase;
use spool::embedded::{Embedded, Options};
use spool::{Class, Destination, Destinations, Lease, NewBatch, NewMessage, Spool, Wanted};
use tokio::sync::watch;

use super::notify::Notifier;
use super::{Deliverer, Leaving};
use crate::config::Config;
use crate::directory::Directory;
use crate::facts::{Facts, SpfWord, Template};
use crate::metrics::Metrics;

const SENDER: &str = "ann@four.example";

struct Bench {
    spool: Arc<dyn Spool>,
    deliverer: Deliverer,
    shutdown: Shutdown,
    reporting: tokio::task::JoinHandle<()>,
}

impl Bench {
    async fn start(folder: &Path, dsn: &str) -> Self {
        let spool: Arc<dyn Spool> = Arc::new(
            Embedded::open(Options {
                segment_bytes: 1 << 20,
                free_bytes_min: 0,
                free_inodes_min: 0,
                ..Options::new(folder.join("spool"))
            })
            .unwrap(),
        );
        let directory = Directory::new(folder.join("directory.sqlite"), true);
        directory.refresh().await.unwrap();
        let config: Config = toml::from_str(&format!("[dsn]\n{dsn}")).unwrap();
        let notifier = Notifier {
            spool: spool.clone(),
            directory,
            config: watch::channel(config).1,
            hostname: Domain::parse("host.example").unwrap(),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            begun: Arc::default(),
        };
        let shutdown = Shutdown::new();
        Self {
            spool,
            reporting: tokio::spawn(notifier.clone().run(shutdown.clone())),
            deliverer: Deliverer {
                notifier,
                leaving: Leaving::default(),
            },
            shutdown,
        }
    }

    async fn stop(self) {
        self.shutdown.begin();
        self.reporting.await.unwrap();
        self.spool.close().await;
    }

    /// Accepts one message from this sender that SPF verified, with a batch for each of these recipients, and claims them.
    async fn accept(&self, sender: &str, recipients: &[Recipient]) -> Vec<Lease> {
        let facts = Facts {
            spf: SpfWord::Pass,
            ..Facts::default()
        };
        let template = Template::Forward {
            by: "all@lists.example".into(),
        };
        let batch = |recipient: &Recipient| NewBatch {
            destination: Destination::Domain(recipient.address.domain().clone()),
            class: Class::Ordinary,
            due: Timestamp::now(),
            recipients: vec![recipient.clone()],
            template: template.to_bytes(),
            replies: Default::default(),
        };
        let new = NewMessage {
            arrival: Timestamp::now(),
            reverse_path: ReversePath::parse(sender).unwrap(),
            parameters: MailParameters {
                envid: Some("QQ1".into()),
                ..MailParameters::default()
            },
            facts: facts.to_bytes(),
            body: vec!["Subject: s\r\n\r\nbody\r\n".into()],
            batches: recipients.iter().map(batch).collect(),
        };
        self.spool.accept(new, None).await.unwrap();
        self.claim().await
    }

    async fn claim(&self) -> Vec<Lease> {
        let wanted = Wanted {
            destinations: Destinations::Except([Destination::Expand].into()),
            lanes: [100; 4],
        };
        self.spool.claim("host", &wanted).await.unwrap()
    }

    /// An attempt ends like this for everybody in the batch.
    async fn conclude(&self, lease: &Lease, result: &Attempt, dsn: bool) -> Bytes {
        let recipients = lease.batch.recipients.iter().enumerate();
        let attempted: Vec<Attempted> = recipients
            .map(|(index, recipient)| Attempted {
                recipient: recipient.clone(),
                index,
                result: result.clone(),
                remote: Some("mx.one.example[192.0.2.1]".into()),
                phase: Some(Phase::Rcpt),
                dsn,
                policy: false,
            })
            .collect();
        self.deliverer.conclude(lease, &attempted).await.unwrap()
    }

    /// The reports that were sent, when so many are there.
    async fn reports(&self, count: usize) -> Vec<String> {
        let end = std::time::Instant::now() + Duration::from_secs(30);
        let mut found = Vec::new();
        while found.len() < count {
            assert!(std::time::Instant::now() < end, "{found:#?}");
            for lease in self.claim().await {
                assert_eq!(lease.head.reverse_path, ReversePath::Null);
                let body = self.spool.body(lease.head.id).await.unwrap();
                found.push(String::from_utf8(body.to_vec()).unwrap());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        found
    }

    async fn suppressed(&self) -> Vec<String> {
        let directory = &self.deliverer.notifier.directory;
        let lines = directory.read(|store| store.suppressed(100)).await.unwrap();
        lines.into_iter().map(|line| line.reason).collect()
    }

    /// Nothing is gathered, or not yet sent.
    async fn is_quiet(&self) -> bool {
        let directory = &self.deliverer.notifier.directory;
        let next = directory.read(|store| store.next_report()).await.unwrap();
        next.is_none() && self.claim().await.is_empty()
    }
}

fn to(text: &str) -> Recipient {
    Address::parse(text).unwrap().into()
}

/// `s`, `f`, `d`: SUCCESS, FAILURE, DELAY; nothing: NEVER.
fn asking(text: &str, notify: &str) -> Recipient {
    let mut recipient = to(text);
    recipient.parameters.notify = Some(Notify {
        success: notify.contains('s'),
        failure: notify.contains('f'),
        delay: notify.contains('d'),
    });
    recipient
}

fn failed() -> Attempt {
    Attempt::Failed(Reply::new(550, (5, 1, 1), "no such user"))
}

fn deferred() -> Attempt {
    Attempt::Deferred(Reply::new(451, (4, 4, 1), "no connection"))
}

fn delivered() -> Attempt {
    Attempt::Delivered(Reply::new(250, (2, 0, 0), "ok"))
}

#[tokio::test]
async fn what_fails_of_one_message_is_told_in_one_report() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::start(folder.path(), "merge = \"300ms\"").await;
    let all = ["a@one.example", "b@two.example", "c@three.example"].map(to);
    let leases = bench.accept(SENDER, &all).await;
    assert_eq!(leases.len(), 3);
    for lease in &leases {
        bench.conclude(lease, &failed(), false).await;
        // As after a crash before the settlement.
        bench.conclude(lease, &failed(), false).await;
    }
    let reports = bench.reports(1).await;
    assert_eq!(reports.len(), 1);
    for text in [
        "Final-Recipient: rfc822; a@one.example",
        "Final-Recipient: rfc822; b@two.example",
        "Final-Recipient: rfc822; c@three.example",
        "Original-Envelope-Id: QQ1",
        "Remote-MTA: dns; mx.one.example[192.0.2.1]",
        "said at RCPT:",
        "Last-Attempt-Date: ",
        "Subject: s",
    ] {
        assert!(reports[0].contains(text), "{text}: {}", reports[0]);
    }
    assert_eq!(reports[0].matches("Final-Recipient").count(), 3);
    bench.stop().await;
}

#[tokio::test]
async fn what_was_gathered_before_a_stop_is_sent_after_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::start(folder.path(), "merge = \"1h\"").await;
    let leases = bench.accept(SENDER, &[to("a@one.example")]).await;
    bench.conclude(&leases[0], &failed(), false).await;
    assert!(!bench.is_quiet().await);
    bench.stop().await;

    let bench = Bench::start(folder.path(), "merge = \"1h\"").await;
    let left = bench.claim().await;
    assert_eq!(
        left.len(),
        1,
        "the failed one was not settled, nothing was sent"
    );
    let directory = &bench.deliverer.notifier.directory;
    // The hour has passed, and what was settled to be sent was not known to be when the host died.
    let due = directory
        .write(|store| store.due_reports(Timestamp::now().after(Duration::from_secs(3600))))
        .await
        .unwrap();
    assert_eq!(due.len(), 1);
    bench.deliverer.notifier.begun.notify_one();
    assert_eq!(bench.reports(1).await.len(), 1);
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while !bench.is_quiet().await {
        assert!(std::time::Instant::now() < end);
    }
    bench.stop().await;
}

#[tokio::test]
async fn notify_says_what_is_told() {
    let table = [
        // What is asked; the attempt; whether the host speaks DSN; the action that is reported, or why not.
        (None, failed(), false, "failed"),
        (Some("f"), failed(), false, "failed"),
        (Some("sf"), failed(), true, "failed"),
        (Some("s"), failed(), false, "not-asked"),
        (Some(""), failed(), false, "not-asked"),
        (None, delivered(), false, ""),
        (Some("f"), delivered(), false, ""),
        (Some("s"), delivered(), false, "relayed"),
        (Some("s"), delivered(), true, ""),
        (None, deferred(), false, "delayed"),
        (Some("d"), deferred(), false, "delayed"),
        (Some("f"), deferred(), false, ""),
        (Some(""), deferred(), false, ""),
    ];
    for (notify, result, dsn, expected) in table {
        let told = format!("{notify:?} {result:?} {dsn}");
        let folder = tempfile::tempdir().unwrap();
        // Nothing waits so long: it is overdue at once.
        let bench = Bench::start(folder.path(), "merge = \"0s\"\ndelay_after = \"1ms\"").await;
        let recipient = match notify {
            None => to("a@one.example"),
            Some(notify) => asking("a@one.example", notify),
        };
        let leases = bench.accept(SENDER, &[recipient]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        bench.conclude(&leases[0], &result, dsn).await;
        match expected {
            "" => assert!(
                bench.is_quiet().await && bench.suppressed().await.is_empty(),
                "{told}"
            ),
            "not-asked" => assert_eq!(bench.suppressed().await, ["not-asked"], "{told}"),
            action => {
                let report = bench.reports(1).await.remove(0);
                assert!(
                    report.contains(&format!("Action: {action}\r\n")),
                    "{told}: {report}"
                );
            }
        }
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_delay_is_told_once_and_with_it_who_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let dsn = "merge = \"0s\"\ndelay_after = \"1ms\"";
    let bench = Bench::start(folder.path(), dsn).await;
    let leases = bench.accept(SENDER, &[to("a@one.example")]).await;
    let mut lease = leases[0].clone();
    tokio::time::sleep(Duration::from_millis(2)).await;
    let overdue = |lease: &Lease| {
        let now = Timestamp::now();
        bench.deliverer.is_overdue(&lease.head, &lease.batch, now)
    };
    assert!(overdue(&lease));
    lease.batch.note = bench.conclude(&lease, &deferred(), false).await;
    let report = bench.reports(1).await.remove(0);
    assert!(
        report.contains("Action: delayed") && report.contains("Will-Retry-Until: "),
        "{report}"
    );
    let note: serde_json::Value = serde_json::from_slice(&lease.batch.note).unwrap();
    assert_eq!(note["remote"], "mx.one.example[192.0.2.1]");
    assert_eq!(
        (&note["phase"], &note["told"]),
        (&"RCPT".into(), &true.into())
    );
    assert!(!overdue(&lease));
    lease.batch.note = bench.conclude(&lease, &deferred(), false).await;
    assert!(bench.is_quiet().await, "told once");
    assert!(!overdue(&lease));

    // A post's author is told nothing, nor is anybody where it is not wanted.
    let mut post = lease.clone();
    post.batch.note = Bytes::new();
    assert!(overdue(&post));
    let template = Template::Post {
        list: "dev@lists.example".into(),
        number: 1,
    };
    post.batch.template = template.to_bytes();
    assert!(!overdue(&post));
    bench.stop().await;
    let off = tempfile::tempdir().unwrap();
    let bench = Bench::start(off.path(), "").await;
    lease.batch.note = Bytes::new();
    let now = Timestamp::now().after(Duration::from_secs(86_400));
    assert!(!bench.deliverer.is_overdue(&lease.head, &lease.batch, now));
    bench.stop().await;
}

#[tokio::test]
async fn nobody_is_told_of_mail_that_was_not_his() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::start(folder.path(), "merge = \"0s\"\ndelay_after = \"1ms\"").await;
    let leases = bench
        .accept(SENDER, &[asking("a@one.example", "sfd")])
        .await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let mut lease = leases[0].clone();
    let forged = Facts {
        spf: SpfWord::Fail,
        ..Facts::default()
    };
    Arc::make_mut(&mut lease.head).facts = forged.to_bytes();
    for result in [failed(), deferred(), delivered()] {
        bench.conclude(&lease, &result, false).await;
    }
    assert!(bench.is_quiet().await);
    assert_eq!(
        bench.suppressed().await,
        ["spf-fail", "spf-fail"],
        "what failed and what arrived is listed; of a delay nobody was to hear"
    );
    bench.stop().await;
}
