//! What mx-edge counts. A metric's help text is its documentation; labels come from the enums that make the decisions.
//!
//! Forward-paths are accounted for: taken + spooled at start = passed + exempt + ended + handed over + discarded + spooled now (waiting and held).

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use smtp::server::Objection;

use crate::dnsbl::ListMetrics;
use crate::reason::Reason;
use crate::recipients::guard::Cause;

/// All of them.
pub struct Metrics {
    /// Sessions by how they ended.
    pub sessions: IntCounterVec,
    /// Sessions open now.
    pub sessions_open: IntGauge,
    /// Clients turned away before the greeting.
    pub turned_away: IntCounterVec,
    /// Reloads of the rules.
    pub reloads: IntCounterVec,
    /// Connections from proxies by what their header was.
    pub proxied: IntCounterVec,
    /// Whether limits are short now.
    pub stressed: IntGauge,
    /// Memory of this process.
    pub resident_bytes: IntGauge,
    /// RCPT commands by decision.
    pub recipients: IntCounterVec,
    /// Messages by outcome.
    pub messages: IntCounterVec,
    /// Tries to pass through.
    pub through: IntCounterVec,
    /// How long the inside took to answer one.
    pub through_seconds: Histogram,
    /// Bytes being passed through now.
    pub through_bytes: IntGauge,
    /// Whether passing through is shut.
    pub through_shut: IntGauge,
    /// How long the spool took to make one message durable.
    pub spool_accept_seconds: Histogram,
    /// Forward-paths answered 250.
    pub taken: IntCounterVec,
    /// Forward-paths that are no longer this edge's.
    pub done: IntCounterVec,
    /// Forward-paths in the spool.
    pub spooled: IntGaugeVec,
    /// Forward-paths that were in the spool when this process started.
    pub spooled_at_start: IntGauge,
    /// Age of the oldest spooled message.
    pub spooled_oldest_seconds: IntGauge,
    /// Forward-paths that an operator must look at.
    pub held: IntCounterVec,
    /// Sources of recipients.
    pub sources: SourceMetrics,
    /// SPF results.
    pub spf: IntCounterVec,
    /// Lists of clients in the DNS.
    pub lists: ListMetrics,
    /// Connections, each with its session.
    pub connections: IntCounter,
    /// Octets of messages answered 250.
    pub accepted_bytes: IntCounter,
    /// How forward-paths that were let in at RCPT ended.
    pub path_ends: IntCounterVec,
    /// The scanner's verdicts.
    pub verdicts: IntCounterVec,
    /// Malware by name.
    pub malware: IntCounterVec,
    /// Messages that could not be checked, by why.
    pub unchecked: IntCounterVec,
    /// What sessions refused without asking.
    pub objections: IntCounterVec,
    /// MAIL commands by decision.
    pub senders: IntCounterVec,
    /// RCPT commands that were told a softer reply than their reason has.
    pub softened: IntCounterVec,
    /// RCPT commands that a rule would have refused.
    pub warned: IntCounterVec,
    /// Named rules that hit.
    pub rule_hits: IntCounterVec,
    /// Sessions and commands that something at `warn` would have refused.
    pub warned_sessions: IntCounterVec,
    /// STARTTLS commands by decision.
    pub handshakes: IntCounterVec,
    /// Clients that wait for their greeting now.
    pub screening: IntGauge,
    /// Questions of the policy.
    pub questions: IntCounterVec,
    /// Differences of the second policy.
    pub shadow: IntCounterVec,
    /// Differences of the second policy's door.
    pub shadow_admissions: IntCounterVec,
    /// Sessions by how the client stood before its greeting.
    pub screened: IntCounterVec,
}

/// What is counted of sources of recipients.
pub struct SourceMetrics {
    /// Entries in force.
    pub entries: IntGaugeVec,
    /// When they were confirmed.
    pub age: IntGaugeVec,
    /// Whose newest version is held back.
    pub blocked: IntGaugeVec,
    /// Which cannot be read.
    pub failing: IntGaugeVec,
    /// Polls of the directory.
    pub polls: IntCounterVec,
    /// Versions of the directory that the guard held back.
    pub held_back: IntCounterVec,
}

impl Metrics {
    /// Registers them; refuses a second registration in the same registry.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let maker = Maker(registry);
        let metrics = Self {
            sessions: maker.counters("sessions_total", "SMTP sessions by how they ended", "outcome")?,
            sessions_open: maker.gauge("sessions_open", "SMTP sessions open now")?,
            turned_away: maker.counters(
                "turned_away_sessions_total",
                "Sessions refused before the greeting, by reason; among those that ended as refused",
                "reason",
            )?,
            reloads: maker.counters(
                "reloads_total",
                "Reloads of the rules and the access list: applied, failed (the old ones stay)",
                "outcome",
            )?,
            proxied: maker.counters(
                "proxied_connections_total",
                "Connections from listed proxies: client (served), check (the proxy looks whether we live; in no other figure), \
                 bad (no PROXY header), timed_out, lost (closed before it said one)",
                "header",
            )?,
            stressed: maker.gauge(
                "stressed",
                "1 while deadlines are short and few errors are borne, since sessions or memory are nearly used up",
            )?,
            resident_bytes: maker.gauge("resident_bytes", "Memory that this process holds")?,
            recipients: maker.counters(
                "recipients_total",
                "RCPT commands by decision: accepted, or why not",
                "reason",
            )?,
            messages: maker.counters(
                "messages_total",
                "Messages by what the client was told and why: passed, spooled, held and discarded (by a rule, told 250), refused, deferred",
                "outcome",
            )?,
            through: maker.counters(
                "through_total",
                "Messages by what came of passing them through: answered, busy (limits reached), shut, trouble",
                "outcome",
            )?,
            through_seconds: maker.histogram(
                "through_seconds",
                "From the end of a message to the inside's reply, when it answered",
            )?,
            through_bytes: maker.gauge("through_bytes", "Bytes of messages being passed through now")?,
            through_shut: maker.gauge(
                "through_shut",
                "1 while the inside does not answer and messages are spooled at once",
            )?,
            spool_accept_seconds: maker.histogram(
                "spool_accept_seconds",
                "How long it took to make one message durable",
            )?,
            taken: maker.counters(
                "taken_recipients_total",
                "Forward-paths of messages answered 250, by whether they went through, to the spool, or nowhere by a rule (discard); those that a sibling handed over",
                "way",
            )?,
            done: maker.counters(
                "done_recipients_total",
                "Forward-paths that are no longer this edge's: passed, exempt (passed unscanned by rule), ended, handed_over (to a sibling), discarded (by a rule)",
                "outcome",
            )?,
            spooled: maker.gauges(
                "spooled_recipients",
                "Forward-paths in the spool: waiting, or held for an operator",
                "state",
            )?,
            spooled_at_start: maker.gauge(
                "spooled_at_start_recipients",
                "Forward-paths that were in the spool when this process started",
            )?,
            spooled_oldest_seconds: maker.gauge(
                "spooled_oldest_seconds",
                "Age of the oldest message that waits in the spool; 0 when none does",
            )?,
            held: maker.counters(
                "held_recipients_total",
                "Forward-paths in the spool that wait for `mx-edge queue release` or `drop --yes`: refused (for good by the inside after they \
                 were spooled), unreadable, rule (of the policy)",
                "reason",
            )?,
            sources: SourceMetrics::new(&maker)?,
            spf: maker.counters("spf_total", "SPF checks by result", "result")?,
            lists: maker.lists()?,
            connections: maker.counter("connections_total", "Connections; each ends as one of sessions_total")?,
            accepted_bytes: maker.counter(
                "accepted_bytes_total",
                "Octets of messages answered 250, as the client sent them",
            )?,
            path_ends: maker.pairs(
                "path_ends_total",
                "Forward-paths answered 250 at RCPT by what became of them: passed, spooled, held, discarded, refused, deferred, abandoned (no message came, or it was \
                 refused in the dialogue); their sum is recipients_total{reason=\"accepted\"} once no session is open",
                ["outcome", "reason"],
            )?,
            verdicts: maker.counters(
                "verdicts_total",
                "Messages by the scanner's verdict, where its reply told it while the client waited",
                "verdict",
            )?,
            malware: maker.counters(
                "malware_total",
                "Messages refused for malware by its name; `other` when there are too many names",
                "name",
            )?,
            unchecked: maker.counters(
                "unchecked_total",
                "Messages that the scanner could not check, by why; `other` when there are too many reasons",
                "reason",
            )?,
            objections: maker.counters(
                "objections_total",
                "Commands and messages that a session refused on its own account, before any policy was asked",
                "objection",
            )?,
            senders: maker.counters(
                "senders_total",
                "MAIL commands by decision: accepted, or why not",
                "reason",
            )?,
            softened: maker.counters(
                "softened_recipients_total",
                "RCPT commands that soft_bounce answered with a 4xx in place of the 5xx that their reason in recipients_total has",
                "reason",
            )?,
            warned: maker.counters(
                "warned_recipients_total",
                "RCPT commands and messages that a rule at `warn` would have refused, by rule",
                "reason",
            )?,
            rule_hits: maker.pairs(
                "rule_hits_total",
                "RCPT commands and messages that a named rule (tables, header and body checks) hit, by what came of it: permitted, refused, held, discarded, redirected, prepended, warned",
                ["rule", "outcome"],
            )?,
            warned_sessions: maker.counters(
                "warned_sessions_total",
                "Connections, STARTTLS, MAIL and RCPT commands that the access list or a rate at `warn` would have refused, by reason",
                "reason",
            )?,
            handshakes: maker.counters(
                "starttls_total",
                "STARTTLS commands by decision: accepted, or why not",
                "reason",
            )?,
            screening: maker.gauge("screening_sessions", "SMTP sessions that wait for their greeting now")?,
            questions: maker.pairs(
                "policy_questions_total",
                "Questions that the policy asked, by whether an answer came; silence counts against nobody",
                ["question", "outcome"],
            )?,
            shadow: maker.pairs(
                "shadow_recipients_total",
                "Recipients and messages by what the second policy would have done: same, would_refuse, would_accept, would_hold, would_discard, other_reason; skipped \
                 when too many wait",
                ["outcome", "reason"],
            )?,
            shadow_admissions: maker.pairs(
                "shadow_admissions_total",
                "Connections by what the second policy's access list and rates would have done: same, would_refuse, would_accept, other_reason; with \
                 STARTTLS, MAIL and RCPT commands where they differ, and would_wait and would_not_wait where the wait does",
                ["outcome", "reason"],
            )?,
            screened: maker.counters(
                "screened_sessions_total",
                "Sessions by how the client stood before its greeting: exempt, known (passed lately), passed, backup (waited at a \
                 backup address, which is not remembered), cut (the lists had decided), spoke_first, left (before it was greeted)",
                "outcome",
            )?,
        };
        metrics.zero();
        Ok(metrics)
    }

    /// A label that has never been counted is shown as 0, so that alerts on rates work from the start.
    fn zero(&self) {
        self.recipients.with_label_values(&["accepted"]);
        for reason in Reason::ALL.into_iter().filter(|one| one.is_of_recipient()) {
            self.recipients.with_label_values(&[reason.label()]);
        }
        for objection in Objection::ALL {
            self.objections.with_label_values(&[objection.label()]);
        }
        for label in ["accepted", Reason::TlsRate.label()] {
            self.handshakes.with_label_values(&[label]);
        }
        self.senders.with_label_values(&["accepted"]);
        for reason in Reason::AT_SENDER {
            self.senders.with_label_values(&[reason.label()]);
        }
        for reason in Reason::BEFORE_GREETING {
            self.turned_away.with_label_values(&[reason.label()]);
        }
        for (counters, labels) in [
            (
                &self.proxied,
                &["client", "check", "bad", "timed_out", "lost"][..],
            ),
            (&self.reloads, &["applied", "failed"]),
            (
                &self.messages,
                &[
                    "passed",
                    "spooled",
                    "held",
                    "discarded",
                    "refused",
                    "deferred",
                ],
            ),
            (&self.through, &["answered", "busy", "shut", "trouble"]),
            (&self.taken, &["through", "spool", "handed_over", "discard"]),
            (
                &self.done,
                &["passed", "exempt", "ended", "handed_over", "discarded"],
            ),
            (&self.held, &["refused", "unreadable", "rule"]),
            (
                &self.lists.clients,
                &["listed", "allowed", "neutral", "known"],
            ),
            (
                &self.screened,
                &[
                    "exempt",
                    "known",
                    "passed",
                    "backup",
                    "cut",
                    "spoke_first",
                    "left",
                ],
            ),
            (
                &self.sources.polls,
                &[
                    "applied",
                    "delta",
                    "unchanged",
                    "blocked",
                    "misfit",
                    "failed",
                    "sibling",
                ],
            ),
            (&self.sources.held_back, &Cause::ALL.map(Cause::as_str)),
        ] {
            for label in labels {
                counters.with_label_values(&[label]);
            }
        }
        for state in ["waiting", "held"] {
            self.spooled.with_label_values(&[state]);
        }
    }
}

impl SourceMetrics {
    fn new(maker: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            entries: maker.gauges(
                "source_entries",
                "Entries in force of a source of recipients; -1 before the first load",
                "source",
            )?,
            age: maker.gauges(
                "source_age_seconds",
                "Time since a source of recipients was confirmed last; -1 before the first time",
                "source",
            )?,
            blocked: maker.gauges(
                "source_blocked",
                "1 while the newest version of a source is held back by the guard",
                "source",
            )?,
            failing: maker.gauges(
                "source_failing",
                "1 while a source of recipients cannot be read",
                "source",
            )?,
            polls: maker.counters(
                "directory_polls_total",
                "Polls of the directory: applied (the whole), delta (what changed), unchanged, blocked, misfit (a change that did not \
                 fit), failed, sibling (a sibling's copy taken)",
                "outcome",
            )?,
            held_back: maker.counters(
                "directory_versions_held_back_total",
                "Versions of the directory not applied unasked: shrunken, older, forked, foreign",
                "cause",
            )?,
        })
    }
}

struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntCounterVec, prometheus::Error> {
        let counters = IntCounterVec::new(options(name, help), &[label])?;
        self.0.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::with_opts(options(name, help))?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn pairs(
        &self,
        name: &str,
        help: &str,
        labels: [&str; 2],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let counters = IntCounterVec::new(options(name, help), &labels)?;
        self.0.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn lists(&self) -> Result<ListMetrics, prometheus::Error> {
        let answers = self.pairs(
            "dnsbl_answers_total",
            "Answers of lists: listed, unlisted, error (not to be believed), failed (none came), skipped (the list does not count)",
            ["list", "answer"],
        )?;
        Ok(ListMetrics {
            answers,
            up: self.gauges(
                "dnsbl_list_up",
                "1 while a list counts; 0 before its self-test has passed, while that fails, and while it lists too many",
                "list",
            )?,
            clients: self.counters(
                "dnsbl_clients_total",
                "Clients that were to be asked about, by what their listings add up to; known: no list had them lately, so that nobody was asked",
                "outcome",
            )?,
        })
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::with_opts(options(name, help))?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntGaugeVec, prometheus::Error> {
        let gauges = IntGaugeVec::new(options(name, help), &[label])?;
        self.0.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    /// From a fast disk's sync to the budget.
    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let buckets = vec![
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
            30.0, 60.0,
        ];
        let name = format!("mx_edge_{name}");
        let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
        self.0.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("mx_edge_{name}"), help)
}
