//! What listserv counts. Every accepted forward-path ends in exactly one `outcome` of `listserv_paths_ended_total`; every
//! recipient that an expansion or a forward made ends as delivered or failed.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use service::program::StartError;

/// How an accepted forward-path ends here.
const ENDS: [&str; 7] = [
    "expanded",
    "forwarded",
    "answered",
    "returned",
    "quarantined",
    "refused",
    "corrupt",
];

/// All counters; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// Forward-paths accepted, by whether they are new or were accepted before under the same ident.
    pub accepted: IntCounterVec,
    /// Forward-paths refused or deferred at LMTP, by reason.
    pub refused: IntCounterVec,
    /// Accepted forward-paths that came to an end here, by how.
    pub ended: IntCounterVec,
    /// Recipients made by expansion and forwarding.
    pub created: IntCounter,
    /// Results of delivery attempts, a recipient each.
    pub delivered: IntCounterVec,
    /// Bounces of members counted, by where they came from.
    pub bounces: IntCounterVec,
    /// Reports to senders, sent or suppressed and why.
    pub dsn: IntCounterVec,
    /// Answers to commands, sent or not and why.
    pub answers: IntCounterVec,
    /// Expansions put off, by reason.
    pub put_off: IntCounterVec,
    /// Requests of edges for the directory, by reply.
    pub published: IntCounterVec,
    /// Edges that hold a version of the directory which was never published here.
    pub strange_versions: IntCounterVec,
}

impl Metrics {
    /// Registers everything.
    pub fn new(registry: &Registry) -> Result<Self, StartError> {
        let vector = |name: &str, help: &str, label: &str| -> Result<_, prometheus::Error> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let build = || -> Result<Self, prometheus::Error> {
            let created = IntCounter::new(
                "listserv_recipients_created_total",
                "Recipients made by expansion and forwarding.",
            )?;
            registry.register(Box::new(created.clone()))?;
            Ok(Self {
                accepted: vector(
                    "listserv_paths_accepted_total",
                    "Forward-paths answered 250, new ones and ones accepted before under the same ident.",
                    "path",
                )?,
                refused: vector(
                    "listserv_paths_refused_total",
                    "Forward-paths refused or deferred at LMTP, by reason.",
                    "reason",
                )?,
                ended: vector(
                    "listserv_paths_ended_total",
                    "Accepted forward-paths that came to an end here: expanded, forwarded, answered, returned, quarantined, refused, corrupt.",
                    "outcome",
                )?,
                created,
                delivered: vector(
                    "listserv_recipients_total",
                    "Recipients by the result of an attempt: delivered, deferred, failed.",
                    "outcome",
                )?,
                bounces: vector(
                    "listserv_bounces_total",
                    "Bounces of members: counted, and those that did not count.",
                    "outcome",
                )?,
                dsn: vector(
                    "listserv_dsn_total",
                    "Reports to senders: failures sent, delays and successes by kind, or suppressed and why.",
                    "outcome",
                )?,
                answers: vector(
                    "listserv_answers_total",
                    "Answers to commands by mail: sent, or not and why.",
                    "outcome",
                )?,
                put_off: vector(
                    "listserv_expansions_put_off_total",
                    "Expansions that have to be tried again, by reason.",
                    "reason",
                )?,
                published: vector(
                    "listserv_directory_requests_total",
                    "Requests of edges for the directory, by HTTP status.",
                    "status",
                )?,
                strange_versions: vector(
                    "listserv_directory_strange_versions_total",
                    "Times that an edge held a version of the directory never published here: of our epoch (parted), or another (foreign).",
                    "kin",
                )?,
            })
        };
        let metrics = build().map_err(|error| StartError {
            what: "metrics".into(),
            why: error.to_string(),
            remedy: "report this defect".into(),
        })?;
        metrics.zero();
        Ok(metrics)
    }

    /// A series that appears only with its first event cannot be alerted on. The words of bounces, reports and answers are their
    /// rooms' own, and nobody is woken by them.
    fn zero(&self) {
        for (counters, labels) in [
            (&self.accepted, &["new", "again", "released", "inside"][..]),
            (&self.refused, &["451", "452", "550"]),
            (&self.ended, &ENDS),
            (
                &self.delivered,
                &["delivered", "deferred", "failed", "expired"],
            ),
            (&self.put_off, &["unavailable"]),
            (&self.published, &["200", "304", "503"]),
            (&self.strange_versions, &["parted", "foreign"]),
        ] {
            for label in labels {
                counters.with_label_values(&[label]);
            }
        }
    }
}

/// Adds one to a labelled counter.
pub fn count(counters: &IntCounterVec, label: &str) {
    counters.with_label_values(&[label]).inc();
}
