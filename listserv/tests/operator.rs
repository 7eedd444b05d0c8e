//! Claims about what an operator sets and sees: over the program's own commands, on the program itself.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Host, Sink, codes, until};
use serde_json::{Value, json};

const POST: &str = "From: ann@four.example\r\nSubject: s\r\n\r\nbody\r\n";
const DEV: &str = "dev@lists.example";

async fn host(sink: &Sink) -> Host {
    let host = Host::start(sink, "").await;
    host.command("list create dev@lists.example");
    host.command("member add dev@lists.example a@one.example b@one.example c@two.example");
    host
}

async fn post(host: &Host, ident: &str) {
    let replies = host.post(ident, "ann@four.example", &[DEV], POST).await;
    assert_eq!(codes(&replies), [250]);
}

/// Waits until so many recipients wait for members' hosts.
async fn waiting(host: &Host, recipients: u64) {
    until("expanded mail", async || {
        let tally = host.command("queue tally");
        let lines = tally.as_array().unwrap();
        let of_members = lines.iter().filter(|line| line["destination"] != "expand");
        let sum: u64 = of_members
            .map(|line| line["recipients"].as_u64().unwrap())
            .sum();
        (sum == recipients && lines.iter().all(|line| line["destination"] != "expand"))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_a_limit_outlast_a_crash() {
    let sink = Sink::start().await;
    let mut host = host(&sink).await;
    let paused = host.command("queue pause");
    assert_eq!(paused["paused"], true);
    host.command("queue drain --rate 120/m");
    post(&host, "mx1.a.1").await;
    waiting(&host, 3).await;
    host.kill_and_start().await;
    let state = host.command("queue state");
    assert_eq!(
        (&state["paused"], &state["drain_rate"]),
        (&json!(true), &json!(2.0))
    );
    assert!(
        host.log().contains("delivery is paused"),
        "it is told at the start"
    );
    waiting(&host, 3).await;
    assert!(sink.taken().is_empty());

    host.command("queue drain --rate off");
    host.command("queue resume");
    sink.wait(3).await;
    host.idle().await;
    host.kill_and_start().await;
    let state = host.command("queue state");
    assert_eq!(
        (&state["paused"], &state["drain_rate"]),
        (&json!(false), &Value::Null)
    );

    let account = host.command("reconcile");
    assert_eq!(account["balances"], true);
    let figures = ["accepted", "expanded", "made", "delivered", "waiting"];
    assert_eq!(
        figures.map(|name| account[name].as_u64().unwrap()),
        [1, 1, 3, 3, 0]
    );
    for (words, expected) in [
        ("queue drain --rate fast", "50/s"),
        ("queue hold", "--all"),
        ("queue list --older long", "--older"),
    ] {
        let error = host.try_command(words).unwrap_err();
        assert!(error.contains(expected), "{words}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_backlog_is_seen_held_released_and_dropped() {
    let sink = Sink::start().await;
    let mut host = host(&sink).await;
    host.command("queue pause");
    for n in 0..3 {
        post(&host, &format!("mx1.a.{n}")).await;
    }
    waiting(&host, 9).await;
    let top = host.command("queue top --by domain --list dev@lists.example");
    assert_eq!(top["total"]["recipients"], 9);
    assert_eq!(
        (&top["lines"][0]["name"], &top["lines"][0]["recipients"]),
        (&json!("one.example"), &json!(6))
    );

    let would = host.command("queue hold --recipient a@one.example --dry-run");
    assert_eq!(
        (&would["recipients"], &would["batches"]),
        (&json!(3), &json!(3))
    );
    let held = host.command("queue hold --recipient a@one.example");
    assert_eq!((&held["recipients"], &held["hold"]), (&json!(3), &json!(1)));
    let refused = host.try_command("queue drop --domain two.example");
    let refused = refused.unwrap_err();
    assert!(
        refused.contains("3 recipients") && refused.contains("--yes"),
        "{refused}"
    );
    let dropped = host.command("queue drop --ident mx1.a.2 --domain two.example --yes");
    assert_eq!(dropped["recipients"], 1);
    host.kill_and_start().await;
    let holds = host.command("queue holds");
    assert_eq!(
        (&holds[0]["recipients"], &holds[0]["where"]),
        (&json!(3), &json!("--recipient a@one.example"))
    );

    // All but what is held and what was dropped goes out.
    host.command("queue resume");
    sink.wait(5).await;
    until("only held mail is left", async || {
        let account = host.command("reconcile");
        (account["waiting"] == 3 && account["held"] == 3).then_some(())
    })
    .await;
    assert!(sink.taken().iter().all(|mail| mail.to != ["a@one.example"]));
    let why = host.command("why a@one.example");
    assert_eq!(why["waiting"].as_array().unwrap().len(), 3);
    assert_eq!(why["waiting"][0]["hold"], 1);

    let released = host.command("queue release --hold 1");
    assert_eq!(released["recipients"], 3);
    sink.wait(8).await;
    host.idle().await;
    let why = host.command("why a@one.example");
    assert_eq!(why["ended"].as_array().unwrap().len(), 3);
    assert_eq!(why["ended"][0]["end"], "delivered");
    let account = host.command("reconcile");
    let figures = ["delivered", "dropped", "waiting", "unaccounted"];
    assert_eq!(
        figures.map(|name| account[name].as_u64().unwrap()),
        [8, 1, 0, 0]
    );
    assert_eq!(account["balances"], true);
    assert!(host.log().contains("event=\"dropped\"") || host.log().contains("event=dropped"));
}
