//! A copy that was put in place sends nothing of what waits in it, over a kill -9 too, while mail is taken: listserv and mx-edge say so in
//! readiness, status, metrics and log, no command of the queue changes it, and after `spool adopt` all of it leaves once.

use end_to_end::alone::{RECIPIENT, edge, send};
use end_to_end::{Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};
use serde_json::Value;

fn ask(harness: &Harness, program: &str, words: &[&str]) -> String {
    let said = harness.site.ask(program, words);
    said.unwrap_or_else(|error| panic!("{error}\n{}", harness.logs()))
}

/// What it says of itself while it is a copy nobody has adopted.
fn is_a_copy(harness: &Harness, program: &str) {
    let control = harness.site.address(&format!("{program}.control"));
    harness.wait("it is not ready, and says why", || {
        let (code, said) = local::http::get(control, "/readyz")?;
        (code == 503 && said.contains("spool adopt")).then_some(())
    });
    // Readiness is told a little before the program has a status of its own.
    let status = harness.wait("it says how it is", || {
        let status = harness.status(program)["program"].clone();
        status.is_object().then_some(status)
    });
    assert_eq!(status["queue"]["deliver"], "copy", "{status}");
    assert_eq!(status["vitals"]["copy"], true, "{status}");
    assert_eq!(harness.metric(program, "spool_copy", ""), 1.0);
    assert!(
        harness.logs().contains("spool_copy"),
        "the log tells of it\n{}",
        harness.logs()
    );
    let refused = harness.site.ask(program, &["queue", "resume"]);
    let refused = refused.expect_err("`queue resume` does not undo it");
    assert!(refused.contains("spool adopt"), "{refused}");
    ask(harness, program, &["queue", "nudge"]);
}

/// Makes a copy and puts it in place of the spool of the program, which is dead by then.
fn replace(harness: &mut Harness, program: &str) {
    let kept = harness.site.root().join(format!("{program}-copy"));
    let kept = kept.display().to_string();
    ask(harness, program, &["spool", "backup", &kept]);
    harness.site.kill(program);
    let report = ask(harness, program, &["--json", "spool", "check", &kept]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(
        (&report["copy"], &report["whole"]),
        (&true.into(), &true.into())
    );
    let said = ask(harness, program, &["spool", "restore", &kept, "--replace"]);
    assert!(said.contains("spool adopt"), "{said}");
}

#[test]
fn a_list_host_keeps_a_copys_mail_until_it_is_adopted() {
    let mut options = hurried(settings());
    let paused = "[delivery]\npaused = true\n";
    options.overrides.push(("listserv".into(), paused.into()));
    let mut harness = Harness::stubbed(options);
    let post = |harness: &Harness, subject: &str, waiting: usize| {
        let door = harness.site.address("mx-edge");
        let post = client::post(subject, LIST);
        let reply = client::submit(door, "author@sender.example", &[LIST], &post);
        let taken = reply.as_ref().is_ok_and(|reply| reply.starts_with("250"));
        assert!(taken, "{reply:?}\n{}", harness.logs());
        harness.wait("posts are expanded and wait", || {
            (harness.queued("listserv")? == waiting as u64).then_some(())
        });
    };
    post(&harness, "before", MEMBERS.len());
    replace(&mut harness, "listserv");
    // Nothing but the mark is left to keep it.
    harness
        .site
        .lay_over("listserv", "[delivery]\npaused = false\n");
    harness.site.start("listserv").expect("it starts");
    is_a_copy(&harness, "listserv");
    post(&harness, "after", 2 * MEMBERS.len());
    harness.site.kill("listserv");
    harness.site.start("listserv").expect("it starts again");
    is_a_copy(&harness, "listserv");
    assert_eq!(harness.queued("listserv"), Some(2 * MEMBERS.len() as u64));
    assert_eq!(MEMBERS.map(|member| harness.count(member)), [0, 0, 0]);

    let said = ask(&harness, "listserv", &["spool", "adopt"]);
    assert!(said.starts_with("adopted"), "{said}");
    harness.wait_arrived(2);
    harness.wait("the queue runs empty", || {
        (harness.queued("listserv")? == 0).then_some(())
    });
    harness.site.wait_ready("listserv").expect("it is ready");
    assert_eq!(harness.metric("listserv", "spool_copy", ""), 0.0);
    // Adopted once is adopted for good.
    harness.site.stop("listserv");
    harness.site.start("listserv").expect("it starts again");
    harness.site.wait_ready("listserv").expect("it is ready");
    let said = ask(&harness, "listserv", &["spool", "adopt"]);
    assert!(said.contains("no copy"), "{said}");
    assert_eq!(MEMBERS.map(|member| harness.count(member)), [2, 2, 2]);
}

#[test]
fn an_edge_keeps_a_copys_mail_until_it_is_adopted() {
    let mut harness = edge("");
    harness.site.start("mx-edge").expect("it starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    assert!(send(&harness, "spooled").starts_with("250"));
    assert_eq!(harness.queued("mx-edge"), Some(1));
    replace(&mut harness, "mx-edge");
    harness.site.start_sink().expect("a next hop");
    harness.site.start("mx-edge").expect("it starts");
    is_a_copy(&harness, "mx-edge");
    // What comes in now passes through: the way inside is open.
    harness.wait("live mail arrives", || {
        send(&harness, "live");
        harness.subjects(RECIPIENT).get("live").map(|_| ())
    });
    assert!(harness.queued("mx-edge") >= Some(1));
    assert_eq!(harness.subjects(RECIPIENT).get("spooled"), None);

    ask(&harness, "mx-edge", &["spool", "adopt"]);
    harness.wait("the spooled mail arrives", || {
        harness.subjects(RECIPIENT).get("spooled").map(|_| ())
    });
    harness.wait_readiness("mx-edge", "");
    assert_eq!(harness.subjects(RECIPIENT)["spooled"], 1);
}
