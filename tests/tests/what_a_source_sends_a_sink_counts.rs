//! Two programs that never meet agree on what went through the pipeline between them: `mailload source` on what it was told was
//! accepted, `mailload sink` on what arrived of it, for whom, and how often.

use std::process::Command;

use end_to_end::{Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};

#[test]
fn what_a_source_sends_a_sink_counts() {
    let mut options = hurried(settings());
    options.sink = vec!["--count".into()];
    let mailload = options.binaries.join("mailload");
    let mut harness = Harness::stubbed(options);

    let door = harness.site.address("mx-edge").to_string();
    let mut source = Command::new(mailload);
    source.args(["source", "--json", "--server", &door, "--to", LIST]);
    source.args(["--from", "author{n}@sender.example", "--kind", "post"]);
    source.args(["--count", "30", "--sessions", "3", "--size", "2000..20000"]);
    let said = client::run(&mut source);
    let report: serde_json::Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(report["accepted"], 30, "{report}");
    harness.wait("the queue runs empty", || {
        (harness.queued("listserv")? == 0).then_some(())
    });

    harness.site.stop("sink");
    let log = harness.site.log("sink");
    let counts = log.lines().last().unwrap_or_default();
    let counts: serde_json::Value =
        serde_json::from_str(counts).unwrap_or_else(|error| panic!("{error}: {log}"));
    let expected = 30 * MEMBERS.len();
    assert_eq!(counts["kinds"]["post"]["recipients"], expected, "{counts}");
    assert_eq!(counts["kinds"]["post"]["delay"]["count"], expected);
    assert_eq!(counts["recipients"], expected, "nothing else: {counts}");
    assert_eq!(counts["duplicates"], 0, "{counts}");
}
