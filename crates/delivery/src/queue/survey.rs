//! The queue looked at again and again, for `/status` and metrics: what the spool's counts say, every few seconds. Looks at no batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use mail::Timestamp;
use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use service::metrics::{counters, gauge, gauges, real_gauge};
use service::shutdown::Shutdown;
use spool::{Aged, Destination, Lane, Ledger, Tally};

use super::Queue;
use crate::lane;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// A look rests so many times as long as it took: with very many destinations it is not cheap.
const LOOK_REST: u32 = 20;
/// The drain is averaged over about this time.
const AVERAGE: Duration = Duration::from_secs(60);
/// Less than so many recipients a second is no drain that says anything about an end.
const STANDSTILL: f64 = 0.001;
/// Sites with a label of their own; all others are one.
const SITES_MAX: usize = 20;
/// The label of all others.
const OTHERS: &str = "others";

/// How the queue was at the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Recipients that wait, held ones too.
    pub waiting: u64,
    /// Of these, held by an operator.
    pub held: u64,
    /// Age of the oldest message.
    pub oldest_seconds: u64,
    /// Recipients that ended in a second (moving average); none before the second look.
    pub drained_per_second: Option<f64>,
    /// How long it takes until nothing waits but what is held, if it goes on like that and nothing more comes.
    pub eta_seconds: Option<u64>,
}

/// What is shown. A metric's help text is its documentation.
struct Metrics {
    lane_recipients: IntGaugeVec,
    lane_oldest: IntGaugeVec,
    site_recipients: IntGaugeVec,
    site_oldest: IntGaugeVec,
    waiting: IntGauge,
    held: IntGauge,
    oldest: IntGauge,
    drained: Gauge,
    eta: Gauge,
    paused: IntGauge,
    limit: Gauge,
    ledger: IntCounterVec,
    unaccounted: IntGauge,
    difference: IntGauge,
    /// Sites that have a label now.
    shown: BTreeSet<String>,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        let whole = |name: &str, help: &str| gauge(registry, name, help);
        let real = |name: &str, help: &str| real_gauge(registry, name, help);
        Self {
            lane_recipients: gauges(
                registry,
                "delivery_lane_recipients",
                "Recipients that wait and are not held, by lane; what arrived in the ten seconds in which live mail becomes backlog goes over together.",
                &["lane"],
            ),
            lane_oldest: gauges(
                registry,
                "delivery_lane_oldest_seconds",
                "Age of the oldest message that waits and is not held, by lane, since its arrival at the edge; 0 when none does.",
                &["lane"],
            ),
            site_recipients: gauges(
                registry,
                "delivery_site_recipients",
                "Recipients that wait for a site, for the 20 with most, all others together as `others`; a domain that was not tried \
                 since the start stands for its site.",
                &["site"],
            ),
            site_oldest: gauges(
                registry,
                "delivery_site_oldest_seconds",
                "Age of the oldest message that waits for a site, for the same sites.",
                &["site"],
            ),
            waiting: whole(
                "delivery_waiting_recipients",
                "Recipients in the spool that have not ended, held ones too.",
            ),
            held: whole(
                "delivery_held_recipients",
                "Recipients that an operator holds; `queue holds` lists the holds.",
            ),
            oldest: whole(
                "delivery_oldest_seconds",
                "Age of the oldest message in the spool since its arrival at the edge; 0 when it is empty.",
            ),
            drained: real(
                "delivery_drained_per_second",
                "Recipients that ended in a second, well or badly; moving average of a minute.",
            ),
            eta: real(
                "delivery_eta_seconds",
                "Until nothing waits but what is held, if it drains on like this and nothing more comes; 0 when nothing waits, -1 when it \
                 does not drain.",
            ),
            paused: whole(
                "delivery_paused",
                "1 while delivery is paused by an operator (`queue pause`) or the configuration.",
            ),
            limit: real(
                "delivery_drain_limit_per_second",
                "Recipients a second to which backlog and retries are limited (`queue drain --rate`); 0 without a limit.",
            ),
            ledger: counters(
                registry,
                "delivery_ledger_recipients_total",
                "The spool's account since it was made: recipients accepted, made (by lists, aliases), expanded (replaced by those), delivered, \
                 bounced, expired, dropped, set_aside.",
                &["entry"],
            ),
            unaccounted: whole(
                "delivery_unaccounted_recipients",
                "Recipients that are gone without an end being told; anything but 0 is a mistake of the program, report it.",
            ),
            difference: whole(
                "delivery_ledger_difference_recipients",
                "Accepted and made, less all that is known of them; anything but 0 means that mail was lost or doubled.",
            ),
            shown: BTreeSet::new(),
        }
    }

    fn sites(&mut self, lines: &[(String, u64, u64)]) {
        let now: BTreeSet<String> = lines.iter().map(|(site, ..)| site.clone()).collect();
        for gone in self.shown.difference(&now) {
            let _ = self.site_recipients.remove_label_values(&[gone]);
            let _ = self.site_oldest.remove_label_values(&[gone]);
        }
        for (site, recipients, oldest) in lines {
            let labels = &[site.as_str()];
            let set = |gauges: &IntGaugeVec, value: u64| {
                gauges.with_label_values(labels).set(value as i64);
            };
            set(&self.site_recipients, *recipients);
            set(&self.site_oldest, *oldest);
        }
        self.shown = now;
    }

    fn lanes(&self, ages: &[Aged], now: Timestamp) {
        let mut lanes = [(0, 0); 4];
        for aged in ages.iter().filter(|aged| !aged.held) {
            let (recipients, oldest) = &mut lanes[lane::index(aged.lane(now))];
            *recipients += aged.recipients;
            *oldest = now.since(aged.from).as_secs().max(*oldest);
        }
        for (lane, (recipients, oldest)) in Lane::ALL.into_iter().zip(lanes) {
            let labels = &[lane::label(lane)];
            let set = |gauges: &IntGaugeVec, value: u64| {
                gauges.with_label_values(labels).set(value as i64);
            };
            set(&self.lane_recipients, recipients);
            set(&self.lane_oldest, oldest);
        }
    }

    fn ledger(&self, ledger: &Ledger) {
        let ends = &ledger.ends;
        for (entry, value) in [
            ("accepted", ledger.accepted),
            ("made", ledger.made),
            ("expanded", ledger.expanded),
            ("delivered", ends.delivered),
            ("bounced", ends.bounced),
            ("expired", ends.expired),
            ("dropped", ends.dropped),
            ("set_aside", ends.set_aside),
        ] {
            let counter = self.ledger.with_label_values(&[entry]);
            counter.inc_by(value.saturating_sub(counter.get()));
        }
        self.held.set(ledger.held as i64);
        self.unaccounted.set(ledger.unaccounted as i64);
        self.difference.set(ledger.difference() as i64);
    }
}

/// The moving average of what ends.
#[derive(Debug, Default)]
struct Average {
    last: Option<(Instant, u64)>,
    rate: Option<f64>,
}

impl Average {
    /// So many had ended by now.
    fn add(&mut self, ended: u64, now: Instant) {
        if let Some((at, before)) = self.last {
            let seconds = now.saturating_duration_since(at).as_secs_f64();
            if seconds <= 0.0 {
                return;
            }
            let fresh = ended.saturating_sub(before) as f64 / seconds;
            let weight = 1.0 - (-seconds / AVERAGE.as_secs_f64()).exp();
            self.rate = Some(match self.rate {
                None => fresh,
                Some(rate) => rate + weight * (fresh - rate),
            });
        }
        self.last = Some((now, ended));
    }
}

impl Queue {
    /// Looks, until shutdown; registers `delivery_*` metrics.
    pub async fn watch(self, registry: Registry, shutdown: Shutdown) {
        let mut metrics = Metrics::new(&registry);
        let looks = async {
            let mut average = Average::default();
            loop {
                let began = Instant::now();
                self.look(&mut metrics, &mut average).await;
                tokio::time::sleep(LOOK.max(began.elapsed() * LOOK_REST)).await;
            }
        };
        tokio::select! {
            () = shutdown.wait() => {}
            () = looks => {}
        }
    }

    async fn look(&self, metrics: &mut Metrics, average: &mut Average) {
        metrics.paused.set(self.is_paused().into());
        metrics.limit.set(self.engine.rate().unwrap_or(0.0));
        let (Ok(tally), Ok(ledger), Ok(ages)) = (
            self.spool.tally().await,
            self.spool.ledger().await,
            self.spool.ages().await,
        ) else {
            return;
        };
        average.add(ledger.ends.sum(), Instant::now());
        let now = Timestamp::now();
        let survey = survey(&tally, &ledger, average.rate, now);
        metrics.waiting.set(survey.waiting as i64);
        metrics.oldest.set(survey.oldest_seconds as i64);
        metrics
            .drained
            .set(survey.drained_per_second.unwrap_or(0.0));
        metrics
            .eta
            .set(survey.eta_seconds.map_or(-1.0, |eta| eta as f64));
        metrics.ledger(&ledger);
        metrics.lanes(&ages, now);
        metrics.sites(&top_sites(&tally, now, |place| self.site_name(place)));
        *self.survey.lock().unwrap_or_else(PoisonError::into_inner) = survey;
    }
}

fn survey(tally: &[Tally], ledger: &Ledger, rate: Option<f64>, now: Timestamp) -> Survey {
    let waiting: u64 = tally.iter().map(|line| line.recipients).sum();
    let oldest = tally.iter().filter(|line| line.batches > 0);
    let goes = waiting.saturating_sub(ledger.held);
    Survey {
        waiting,
        held: ledger.held,
        oldest_seconds: oldest
            .map(|line| now.since(line.oldest).as_secs())
            .max()
            .unwrap_or(0),
        drained_per_second: rate,
        eta_seconds: match rate {
            _ if goes == 0 => Some(0),
            Some(rate) if rate > STANDSTILL => Some((goes as f64 / rate).ceil() as u64),
            _ => None,
        },
    }
}

/// Recipients and the age of the oldest message, seconds, for each site that has a label.
fn top_sites(
    tally: &[Tally],
    now: Timestamp,
    site: impl Fn(&Destination) -> String,
) -> Vec<(String, u64, u64)> {
    let mut sites: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for line in tally {
        let (recipients, oldest) = sites.entry(site(&line.destination)).or_default();
        *recipients += line.recipients;
        *oldest = now.since(line.oldest).as_secs().max(*oldest);
    }
    let mut lines: Vec<_> = sites
        .into_iter()
        .map(|(site, (recipients, oldest))| (site, recipients, oldest))
        .collect();
    lines.sort_by_key(|(_, recipients, _)| std::cmp::Reverse(*recipients));
    let rest = lines.split_off(lines.len().min(SITES_MAX));
    if !rest.is_empty() {
        let recipients = rest.iter().map(|(_, recipients, _)| recipients).sum();
        let oldest = rest.iter().map(|(.., oldest)| *oldest).max().unwrap_or(0);
        lines.push((OTHERS.into(), recipients, oldest));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Domain;
    use spool::Class;

    fn line(domain: &str, recipients: u64, oldest: u64) -> Tally {
        Tally {
            destination: Destination::Domain(Domain::parse(domain).unwrap()),
            class: Class::Ordinary,
            batches: 1,
            recipients,
            leased: 0,
            held: 0,
            held_recipients: 0,
            oldest: Timestamp(oldest),
            next_due: Timestamp(0),
        }
    }

    #[test]
    fn an_end_is_foretold_only_where_there_is_one() {
        let now = Timestamp(100_000);
        let tally = [line("a.example", 60, 40_000), line("b.example", 40, 90_000)];
        let ledger = |held| Ledger {
            held,
            ..Ledger::default()
        };
        for (rate, held, eta) in [
            (None, 0, None),
            (Some(0.0), 0, None),
            (Some(10.0), 0, Some(10)),
            (Some(10.0), 50, Some(5)),
            (None, 100, Some(0)),
        ] {
            let survey = survey(&tally, &ledger(held), rate, now);
            assert_eq!(survey.eta_seconds, eta, "{rate:?} {held}");
            assert_eq!((survey.waiting, survey.oldest_seconds), (100, 60));
        }
    }

    #[test]
    fn the_drain_is_a_moving_average() {
        let start = Instant::now();
        let mut average = Average::default();
        average.add(1000, start);
        assert_eq!(average.rate, None);
        for second in 1..=100 {
            average.add(1000 + second * 50, start + Duration::from_secs(second));
        }
        let rate = average.rate.unwrap();
        assert!((rate - 50.0).abs() < 0.01, "{rate}");
        average.add(6000, start + Duration::from_secs(160));
        let rate = average.rate.unwrap();
        assert!(
            rate > 10.0 && rate < 25.0,
            "a minute later a third is left: {rate}"
        );
    }

    #[test]
    fn labels_of_sites_are_bounded_and_nothing_is_left_out() {
        let names: Vec<String> = (0..50).map(|n| format!("d{n}.example")).collect();
        let tally: Vec<Tally> = names
            .iter()
            .enumerate()
            .map(|(n, name)| line(name, n as u64 + 1, 0))
            .collect();
        let lines = top_sites(&tally, Timestamp(5_000), super::super::destination);
        assert_eq!(lines.len(), SITES_MAX + 1);
        assert_eq!(lines[0], ("d49.example".into(), 50, 5));
        assert_eq!(lines.last().unwrap().0, OTHERS);
        let sum: u64 = lines.iter().map(|(_, recipients, _)| recipients).sum();
        assert_eq!(sum, 50 * 51 / 2);
    }
}
