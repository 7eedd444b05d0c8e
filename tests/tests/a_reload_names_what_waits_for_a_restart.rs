//! SIGHUP at each of the four running programs: what it takes up is named as changed, what it reads at its start alone is named as waiting, in
//! the log, in its status and as a metric, at every reload until it is taken back or the program starts again.

use end_to_end::{Harness, hurried, settings};

/// What is changed of a program.
struct Change {
    program: &'static str,
    /// A key that a reload takes up: its name, and two values other than that of the start.
    reload: (&'static str, [&'static str; 2]),
    /// A key that is read at start alone: its name, the value of the start, another one.
    start: (&'static str, &'static str, &'static str),
}

const CHANGES: [Change; 4] = [
    Change {
        program: "mx-edge",
        reload: (
            "limits.hops_max",
            ["[limits]\nhops_max = 40\n", "[limits]\nhops_max = 41\n"],
        ),
        start: (
            "spool.waiting_max",
            "[spool]\nwaiting_max = '3s'\n",
            "[spool]\nwaiting_max = '4s'\n",
        ),
    },
    Change {
        program: "balancer",
        reload: (
            "pick.wait",
            ["[pick]\nwait = '400ms'\n", "[pick]\nwait = '450ms'\n"],
        ),
        start: (
            "sessions_max",
            "sessions_max = 4000\n",
            "sessions_max = 3999\n",
        ),
    },
    Change {
        program: "scanner-1",
        reload: (
            "levels.kill",
            ["[levels]\nkill = 11.0\n", "[levels]\nkill = 12.0\n"],
        ),
        start: (
            "announce.retry",
            "[announce]\nretry = '200ms'\n",
            "[announce]\nretry = '300ms'\n",
        ),
    },
    Change {
        program: "listserv",
        reload: (
            "lists.hops_max",
            ["[lists]\nhops_max = 40\n", "[lists]\nhops_max = 41\n"],
        ),
        start: (
            "delivery.attempts_max",
            "[delivery]\nattempts_max = 500\n",
            "[delivery]\nattempts_max = 499\n",
        ),
    },
];

/// Reloads, and waits until so many reloads are told; the lines about the last one.
fn reload(harness: &mut Harness, program: &str, texts: [&str; 2], count: usize) -> String {
    for text in texts {
        harness.site.lay_over(program, text);
    }
    harness.site.reload(program).expect("a signal");
    let status = harness.wait("a reload", || {
        let log = harness.site.log(program);
        let told: Vec<_> = log.match_indices("event=reloaded part=config").collect();
        (told.len() >= count).then(|| log[told[count - 1].0..].to_owned())
    });
    status.lines().next().unwrap_or_default().to_owned()
}

/// In the status, as a metric, and in the log after a reload.
fn waits(harness: &Harness, program: &str, keys: &[&str]) {
    harness.wait("what waits is told", || {
        let status = harness.status(program);
        (status["waiting_for_start"] == serde_json::json!(keys)).then_some(())
    });
    let count = harness.metric(program, "service_reload_waiting_keys", "");
    assert_eq!(count, keys.len() as f64, "{program}");
    assert_eq!(harness.metric(program, "service_reload_failed", ""), 0.0);
}

#[test]
fn a_reload_names_what_waits_for_a_restart() {
    let mut options = hurried(settings());
    options.scanners = 1;
    let mut harness = Harness::stubbed(options);
    for change in &CHANGES {
        let program = change.program;
        let (name, [first, second]) = change.reload;
        let (start, before, after) = change.start;
        waits(&harness, program, &[]);
        for (at, text) in [first, second].into_iter().enumerate() {
            let line = reload(&mut harness, program, [text, after], at + 1);
            // Only what has changed since the last one is told as taken up.
            assert!(
                line.contains(&format!("changed={name}")),
                "{program}: {line}"
            );
            waits(&harness, program, &[start]);
            let told = format!("keys={start}\n");
            let log = harness.site.log(program);
            assert_eq!(log.matches(&told).count(), at + 1, "{program}: {log}");
        }
        reload(&mut harness, program, [second, before], 3);
        waits(&harness, program, &[]);
        // A start takes it up.
        reload(&mut harness, program, [second, after], 4);
        waits(&harness, program, &[start]);
        harness.site.stop(program);
        harness.site.start(program).expect("it starts again");
        harness.site.wait_ready(program).expect("it is ready again");
        waits(&harness, program, &[]);
    }
}
