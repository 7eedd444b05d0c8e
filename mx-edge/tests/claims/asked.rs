//! `mx-edge why`: what happened to a message, a recipient's mail or a client, after a kill -9 too; and a person taken out of what is
//! recorded.

use serde_json::Value;

use crate::client::send_from;
use crate::edge::{Site, until};
use crate::inside::{Inside, Mode};
use crate::killed::Program;

const MESSAGE: &str =
    "From: ann@elsewhere.example\r\nMessage-ID: <One.1@elsewhere.example>\r\n\r\nHello.\r\n";

/// The answer as JSON, and as a person reads it.
async fn why(program: &Program, what: &str) -> (Value, String) {
    let json = program.ask(&["--json", "why", what]).await;
    let text = program.ask(&["why", what]).await;
    let text = String::from_utf8(text.stdout).unwrap();
    let json = serde_json::from_slice(&json.stdout);
    (
        json.unwrap_or_else(|error| panic!("{what}: {error} {text}")),
        text,
    )
}

/// The events that an answer tells.
fn events(answer: &Value) -> Vec<&str> {
    let lines = answer["happened"].as_array().into_iter().flatten();
    lines.map(|line| line["event"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_happened_is_known_after_a_kill_9_and_can_be_forgotten() {
    let inside = Inside::start(Mode::Down).await;
    let site = Site::new(&inside);
    let folder = site.folder().to_owned();
    let mut program = Program::new(&site);
    let log = folder.join("log");
    let edge = program.start(&log).await;
    let (answer, text) = why(&program, "joe@b.example").await;
    assert!(
        answer["since"].is_null() && text.contains("no records yet"),
        "{text}"
    );

    let replies = send_from(
        edge,
        "ann@elsewhere.example",
        &["joe@b.example", "nobody@b.example"],
        MESSAGE,
    )
    .await;
    let said = replies[0].to_string();
    let (_, ident) = said.split_once("kept as ").unwrap();
    // What waits is shown from the spool.
    let (answer, text) = why(&program, "joe@b.example").await;
    assert_eq!(events(&answer), ["message"], "{answer:#}");
    assert_eq!(answer["happened"][0]["outcome"], "spooled");
    assert_eq!(answer["waiting"].as_array().unwrap().len(), 1, "{answer:#}");
    assert!(
        text.contains("waits:") && text.contains("records go back to"),
        "{text}"
    );

    program.kill().await;
    inside.set(Mode::Listening);
    program.start(&log).await;
    inside.wait_for(1).await;
    let passed = || {
        std::fs::read_dir(site.config.state.join("records"))
            .unwrap()
            .flatten()
            .any(|file| {
                std::fs::read_to_string(file.path())
                    .unwrap()
                    .contains("\"passed\"")
            })
    };
    until(passed, || "that it was passed in is not recorded".into()).await;
    // It leaves the spool with others that end, some milliseconds later.
    let left = async {
        while why(&program, ident).await.0["waiting"] != serde_json::json!([]) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let in_time = std::time::Duration::from_secs(30);
    let left = tokio::time::timeout(in_time, left).await;
    left.expect("what was passed in leaves the spool");
    for what in ["<one.1@elsewhere.example>", ident, "JOE@b.example"] {
        let (answer, text) = why(&program, what).await;
        assert_eq!(events(&answer), ["message", "passed"], "{what}: {text}");
        assert_eq!(
            answer["waiting"].as_array().unwrap().len(),
            0,
            "{what}: {text}"
        );
        assert!(text.contains(ident), "{what}: {text}");
    }
    // One name from the reply to the disposition; the session's leads to it.
    let got = inside.wait_for(1).await;
    assert_eq!(got[0].ident(), ident);
    let received = String::from_utf8_lossy(&got[0].message).into_owned();
    assert!(received.contains(&format!(" id {ident}\r\n")), "{received}");
    let (by_ident, _) = why(&program, ident).await;
    let token = by_ident["happened"][0]["session"].as_str().unwrap();
    let (by_token, text) = why(&program, token).await;
    assert_eq!(
        events(&by_token),
        ["message", "session", "passed"],
        "{text}"
    );
    assert_eq!(by_token["happened"][2]["ident"], ident, "{text}");
    let (answer, text) = why(&program, "127.0.0.1").await;
    assert_eq!(events(&answer), ["message", "session", "passed"], "{text}");
    let (answer, text) = why(&program, "nobody@b.example").await;
    assert_eq!(events(&answer), ["session"], "{text}");
    assert!(
        text.contains("refused nobody@b.example") && text.contains("unknown_recipient"),
        "{text}"
    );
    let session = answer["happened"][0]["session"].as_str().unwrap();
    assert!(why(&program, session).await.1.contains("unknown_recipient"));
    let (_, text) = why(&program, "eve@b.example").await;
    assert!(
        text.contains("nothing is known") && text.contains("records go back to 2"),
        "{text}"
    );

    let unsure = program.ask(&["person", "erase", "joe@b.example"]).await;
    assert!(
        String::from_utf8_lossy(&unsure.stderr).contains("--yes"),
        "{unsure:?}"
    );
    let erased = program
        .ask(&["person", "erase", "joe@b.example", "--yes"])
        .await;
    assert!(
        String::from_utf8_lossy(&erased.stdout).contains("2 lines erased"),
        "{erased:?}"
    );
    let (answer, text) = why(&program, "joe@b.example").await;
    assert!(events(&answer).is_empty(), "{text}");
    program.kill().await;
}
