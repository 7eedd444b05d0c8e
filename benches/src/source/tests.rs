//! Source and sink agree on what was sent and taken, in every way that mail can travel.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::sink::{self, Sink};

fn settings(sink: &Sink) -> Settings {
    let pattern = |text: &str| text.parse().unwrap();
    let mut settings = Settings::new(
        sink.addresses()[0],
        pattern("author@sender.example"),
        pattern("member{n}-{r}@d{zipf:20}.example"),
    );
    settings.to = sink.addresses();
    settings.count = 200;
    settings.sessions = 5;
    settings
}

fn check(sink: &sink::Settings, change: impl FnOnce(&mut Settings)) -> (Report, Value) {
    let sink = Sink::start(sink).unwrap();
    let mut settings = settings(&sink);
    change(&mut settings);
    let (count, each) = (settings.count, settings.recipients_each as u64);
    let report = Source::start(settings).unwrap().join();
    let taken = sink.json();
    let said = format!("{report}\n{taken}");
    assert_eq!(report.accepted, taken["recipients"], "{said}");
    let ended = [
        report.accepted,
        report.deferred,
        report.refused,
        report.unknown,
        report.unsent,
    ];
    assert_eq!(ended.iter().sum::<u64>(), count * each, "{said}");
    assert_eq!(taken["duplicates"], 0, "{said}");
    assert_eq!(taken["unknown"], 0, "{said}");
    (report, taken)
}

#[test]
fn they_agree_in_every_way() {
    for way in [Way::Stepwise, Way::Pipelined, Way::Chunked] {
        for protocol in [Protocol::Smtp, Protocol::Lmtp] {
            let wanted = sink::Settings {
                protocol,
                ..sink::Settings::default()
            };
            let (report, taken) = check(&wanted, |settings| {
                settings.way = way;
                settings.protocol = protocol;
                settings.recipients_each = 3;
            });
            assert_eq!(report.accepted, 600, "{way:?} {protocol:?} {report}");
            assert_eq!(report.sessions, 5);
            assert_eq!(taken["kinds"]["load"]["delay"]["count"], 600);
            let stuffed = taken["bytes"].as_u64().unwrap() - report.bytes;
            assert!(stuffed <= 3 * 200, "only the final dot is added: {stuffed}");
        }
    }
}

#[test]
fn they_agree_over_tls_threads_sites_and_a_connection_a_message() {
    let wanted = sink::Settings {
        listen: vec![([127, 9, 1, 1], 0).into()],
        sites: 3,
        threads: 2,
        tls: true,
        ..sink::Settings::default()
    };
    let (report, taken) = check(&wanted, |settings| {
        settings.tls = true;
        settings.threads = 2;
        settings.session_messages_max = 1;
        settings.sources = ["127.9.2.1", "127.9.2.2"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
    });
    assert_eq!(report.accepted, 200, "{report}");
    assert_eq!(report.sessions, 200);
    let sites = taken["sites"].as_object().unwrap();
    assert!(
        sites
            .values()
            .all(|count| (60..75).contains(&count.as_u64().unwrap())),
        "{taken}"
    );
}

#[test]
fn they_agree_on_refusals_and_lost_connections() {
    let rules = [
        "rcpt%10=450 4.2.0 later",
        "data%10=552 5.2.2 full",
        "mail%5=drop",
    ];
    let wanted = sink::Settings {
        rules: rules.map(|text| text.parse().unwrap()).to_vec(),
        session_messages_max: 30,
        ..sink::Settings::default()
    };
    for way in [Way::Stepwise, Way::Pipelined, Way::Chunked] {
        let (report, taken) = check(&wanted, |settings| {
            settings.way = way;
            settings.count = 500;
        });
        assert!(report.deferred > 20 && report.refused > 20, "{report}");
        assert!(taken["dropped"].as_u64() > Some(5), "{taken}");
        assert!(report.refusals.contains_key("450 4.2.0 later"), "{report}");
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let (report, _) = check(&sink::Settings::default(), |settings| {
        settings.pace = Some(Pace::steady(400.0));
    });
    let seconds = report.elapsed.as_secs_f64();
    assert!(
        seconds >= 0.49,
        "200 messages at 400 a second take half a second: {seconds}"
    );
}

#[test]
fn a_run_ends_in_time_and_when_told() {
    let sink = Sink::start(&sink::Settings::default()).unwrap();
    let mut wanted = settings(&sink);
    wanted.count = u64::MAX;
    wanted.pace = Some(Pace::steady(0.01));
    let source = Source::start(wanted).unwrap();
    source.stop();
    assert!(source.join().messages <= 1);

    let mut wanted = settings(&sink);
    wanted.count = u64::MAX;
    wanted.duration = Duration::from_millis(100);
    let source = Source::start(wanted).unwrap();
    let began = std::time::Instant::now();
    source.join();
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "it ends by itself"
    );
}

#[test]
fn nobody_listens() {
    let sink = Sink::start(&sink::Settings::default()).unwrap();
    let mut wanted = settings(&sink);
    drop(sink);
    wanted.count = 3;
    wanted.patience = Duration::from_millis(10);
    let report = Source::start(wanted).unwrap().join();
    assert_eq!((report.unsent, report.accepted), (3, 0), "{report}");
}

#[test]
fn the_same_seed_sends_the_same() {
    let recipients = |seed| {
        let pattern: Pattern = "m{1..1000}@d{zipf:20}.example".parse().unwrap();
        let all = (0..50).map(|number| {
            let mut out = Vec::new();
            pattern.write(
                number,
                0,
                &mut crate::random::Random::new(seed, number),
                &mut out,
            );
            out
        });
        all.collect::<BTreeSet<_>>()
    };
    assert_eq!(recipients(1), recipients(1));
    assert_ne!(recipients(1), recipients(2));
}
