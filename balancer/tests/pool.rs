//! Claims about a balancer as a process, with nodes that behave well and badly.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use common::{Agent, Balancer, CLOSE, DIE, GREET, MUTE, Node, REFUSE, VANISH, soon, until};
use serde_json::json;
use tokio::io::AsyncWriteExt;

/// A lease that no test outlives.
const LONG: &str = "lease = '5m'\n";

#[tokio::test]
async fn connections_go_to_the_node_with_the_fewest() {
    let balancer = Balancer::start(LONG).await;
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    balancer.join("a", &a).await;
    balancer.join("b", &b).await;
    let mut held = BTreeMap::from([("a".to_owned(), Vec::new()), ("b".to_owned(), Vec::new())]);
    for _ in 0..6 {
        let (session, name) = balancer.greeted_by(&["a", "b"]).await;
        held.get_mut(&name).unwrap().push(session);
    }
    assert_eq!((held["a"].len(), held["b"].len()), (3, 3));
    held.get_mut("b").unwrap().clear();
    until("b's sessions are given back", async || {
        let nodes = balancer.ask("GET", "/nodes").await;
        (nodes["nodes"][1]["in_flight"] == 0).then_some(())
    })
    .await;
    for _ in 0..3 {
        let (session, name) = balancer.greeted_by(&["b"]).await;
        held.get_mut(&name).unwrap().push(session);
    }
    for (name, sessions) in &mut held {
        for session in sessions {
            assert_eq!(session.say("NOOP").await, format!("250 {name} NOOP\r\n"));
        }
    }
}

/// A node that goes bad after it had joined costs no client its greeting, and is back when it is good again.
async fn skips_a_node_that(behaviour: u8, reason: &str) {
    let balancer = Balancer::start(LONG).await;
    let (bad, good) = (Node::start("bad").await, Node::start("good").await);
    balancer.join("bad", &bad).await;
    balancer.join("good", &good).await;
    bad.turns(behaviour);
    for _ in 0..4 {
        balancer.greeted_by(&["good"]).await;
    }
    assert_eq!(balancer.state("bad").await, "down");
    let nodes = balancer.ask("GET", "/nodes").await;
    let told = nodes["nodes"][0]["reason"].as_str().unwrap().to_owned();
    assert!(told.contains(reason), "{told}");
    bad.turns(GREET);
    balancer.reaches("bad", "ready").await;
}

#[tokio::test]
async fn a_mute_node_is_skipped() {
    skips_a_node_that(MUTE, "no greeting in time").await;
}

#[tokio::test]
async fn a_refusing_node_is_skipped() {
    skips_a_node_that(REFUSE, "421 4.3.2 busy").await;
}

#[tokio::test]
async fn a_closing_node_is_skipped() {
    skips_a_node_that(CLOSE, "closed before its greeting").await;
}

#[tokio::test]
async fn a_node_that_dies_midway_ends_that_connection_alone() {
    let balancer = Balancer::start(LONG).await;
    let dying = Node::start("dying").await;
    balancer.join("dying", &dying).await;
    let (mut before, _) = balancer.greeted_by(&["dying"]).await;
    assert_eq!(before.say("NOOP").await, "250 dying NOOP\r\n");
    dying.turns(DIE);
    let (mut session, _) = balancer.greeted_by(&["dying"]).await;
    assert_eq!(
        session.say("DATA").await,
        "250-half an ans",
        "what came is handed on"
    );
    assert_eq!(session.line().await, "", "and then the connection ends");
    assert_eq!(before.say("RSET").await, "250 dying RSET\r\n");
    dying.turns(GREET);
    let (mut after, _) = balancer.greeted_by(&["dying"]).await;
    assert_eq!(after.say("NOOP").await, "250 dying NOOP\r\n");
}

#[tokio::test]
async fn draining_a_node_loses_nothing() {
    let balancer = Balancer::start(LONG).await;
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    balancer.join("a", &a).await;
    let (mut old, _) = balancer.greeted_by(&["a"]).await;
    balancer.join("b", &b).await;
    balancer.say("a", json!({ "mode": "drain" })).await;
    balancer.register("a", a.address, "ready").await;
    for _ in 0..4 {
        balancer.greeted_by(&["b"]).await;
    }
    assert_eq!(balancer.state("a").await, "draining");
    assert_eq!(old.say("NOOP").await, "250 a NOOP\r\n");
    balancer.say("a", json!({ "mode": "ready" })).await;
    let (_one, one) = balancer.greeted_by(&["a", "b"]).await;
    let (_two, two) = balancer.greeted_by(&["a", "b"]).await;
    assert!([one, two].contains(&"a".to_owned()));
    let answer = balancer.say("c", json!({ "mode": "drain" })).await;
    assert!(answer["error"].as_str().unwrap().contains("no node"));
}

#[tokio::test]
async fn an_operators_word_outlasts_a_restart() {
    let balancer = Balancer::start(LONG).await;
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    balancer.join("a", &a).await;
    balancer.join("b", &b).await;
    balancer.say("a", json!({ "mode": "maint" })).await;
    balancer.say("b", json!({ "weight": 50 })).await;
    assert_eq!(balancer.state("a").await, "maint");
    let balancer = balancer.again(LONG).await;
    balancer.register("a", a.address, "ready").await;
    balancer.join("b", &b).await;
    assert_eq!(balancer.state("a").await, "maint");
    assert_eq!(balancer.shown("b").await["weight"], 50);
    for _ in 0..3 {
        balancer.greeted_by(&["b"]).await;
    }
    balancer.say("b", json!({ "weight": 0 })).await;
    assert_eq!(balancer.state("b").await, "draining");
    balancer.say("a", json!({ "mode": "ready" })).await;
    balancer.reaches("a", "ready").await;
    balancer.greeted_by(&["a"]).await;
    let answer = balancer.say("b", json!({ "weight": 201 })).await;
    assert!(answer["error"].as_str().unwrap().contains("0 to 200"));
}

#[tokio::test]
async fn a_node_that_leaves_clients_without_an_answer_is_set_aside() {
    let balancer = Balancer::start(LONG).await;
    let (bad, good) = (Node::start("bad").await, Node::start("good").await);
    balancer.join("bad", &bad).await;
    balancer.join("good", &good).await;
    bad.turns(VANISH);
    let mut unanswered = 0;
    until("it is out", async || {
        let (mut session, name) = balancer.greeted_by(&["bad", "good"]).await;
        let answer = session.say("MAIL FROM:<>").await;
        assert_eq!(answer.is_empty(), name == "bad", "{answer}");
        unanswered += usize::from(answer.is_empty());
        (balancer.state("bad").await == "down").then_some(())
    })
    .await;
    assert_eq!(unanswered, 3);
    bad.turns(GREET);
    balancer.reaches("bad", "ready").await;
}

#[tokio::test]
async fn stopping_the_balancer_loses_nothing() {
    let mut balancer = Balancer::start(LONG).await;
    let node = Node::start("a").await;
    balancer.join("a", &node).await;
    let (mut session, _) = balancer.greeted_by(&["a"]).await;
    balancer.terminate();
    until("the listener is closed", async || {
        tokio::net::TcpStream::connect(balancer.mail).await.err()
    })
    .await;
    assert_eq!(session.say("NOOP").await, "250 a NOOP\r\n");
    drop(session);
    let exit = soon("the balancer ends", balancer.child.wait())
        .await
        .unwrap();
    assert!(exit.success(), "{exit}");
}

#[tokio::test]
async fn a_silent_node_is_out_when_its_lease_lapses() {
    let balancer = Balancer::start("lease = '300ms'\n").await;
    let node = Node::start("a").await;
    balancer.join("a", &node).await;
    balancer.greeted_by(&["a"]).await;
    balancer.reaches("a", "down").await;
    let mut session = balancer.connect().await;
    assert_eq!(session.line().await, "421 4.3.2 no scanner is ready\r\n");
    assert_eq!(session.line().await, "");
    assert_eq!(node.sessions.load(Ordering::SeqCst), 0);
    balancer.join("a", &node).await;
}

#[tokio::test]
async fn a_connection_waits_for_a_node_a_moment() {
    let balancer = Balancer::start(LONG).await;
    let node = Node::start("a").await;
    let mut waiting = balancer.connect().await;
    balancer.join("a", &node).await;
    assert_eq!(waiting.line().await, "220 a\r\n");
}

#[tokio::test]
async fn a_node_that_says_so_gets_nothing() {
    let balancer = Balancer::start(LONG).await;
    let node = Node::start("a").await;
    balancer.join("a", &node).await;
    for (told, state) in [
        ("down", "down"),
        ("draining", "draining"),
        ("leaving", "none"),
    ] {
        assert_eq!(balancer.register("a", node.address, told).await.0, 200);
        assert_eq!(balancer.state("a").await, state);
    }
}

#[tokio::test]
async fn greetings_of_many_lines_and_half_closed_clients_pass() {
    let balancer = Balancer::start(LONG).await;
    let node = Node::greeting("a", "220-one\r\n220-two\r\n220 three\r\n").await;
    balancer.join("a", &node).await;
    let mut session = balancer.connect().await;
    for line in ["220-one\r\n", "220-two\r\n", "220 three\r\n"] {
        assert_eq!(session.line().await, line);
    }
    session.0.shutdown().await.unwrap();
    assert_eq!(
        session.line().await,
        "221 a\r\n",
        "the node answers after our half is closed"
    );
    assert_eq!(session.line().await, "");
}

#[tokio::test]
async fn idle_connections_end() {
    let balancer = Balancer::start(&format!("{LONG}[splice]\nidle = '200ms'\n")).await;
    let node = Node::start("a").await;
    balancer.join("a", &node).await;
    let (mut session, _) = balancer.greeted_by(&["a"]).await;
    assert_eq!(session.line().await, "");
}

#[tokio::test]
async fn no_connection_lasts_for_ever() {
    let balancer = Balancer::start(&format!("{LONG}[splice]\ntotal = '300ms'\n")).await;
    let node = Node::start("a").await;
    balancer.join("a", &node).await;
    let (mut session, _) = balancer.greeted_by(&["a"]).await;
    // However busy it is.
    let busy = async {
        while !session.say("NOOP").await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("the connection ends", busy).await;
    assert_eq!(
        balancer.state("a").await,
        "ready",
        "that is not the node's fault"
    );
}

#[tokio::test]
async fn an_agent_speaks_for_a_static_node() {
    let node = Node::start("s").await;
    let agent = Agent::saying("50% up #warming up\n").await;
    let nodes = format!(
        "[[nodes]]\nname = 's'\naddress = '{}'\nslots = 8\nagent = '{}'\n",
        node.address, agent.address
    );
    let balancer = Balancer::start(&nodes).await;
    balancer.reaches("s", "ready").await;
    assert_eq!(balancer.shown("s").await["percent"], 50);
    for (line, state) in [
        ("drain\n", "draining"),
        ("maint\n", "maint"),
        ("ready down\n", "down"),
        ("up 100%\n", "ready"),
    ] {
        agent.says(line);
        balancer.reaches("s", state).await;
    }
    drop(agent);
    balancer.greeted_by(&["s"]).await;
}

#[tokio::test]
async fn a_node_is_told_who_the_client_is() {
    let node = Node::behind_proxy("s").await;
    let nodes = format!(
        "[[nodes]]\nname = 's'\naddress = '{}'\nproxy_protocol = true\n",
        node.address
    );
    let balancer = Balancer::start(&nodes).await;
    balancer.reaches("s", "ready").await;
    let (mut session, _) = balancer.greeted_by(&["s"]).await;
    let client = session.0.get_ref().local_addr().unwrap();
    assert_eq!(session.say("WHO").await, format!("250 s WHO {client}\r\n"));
}

#[tokio::test]
async fn static_nodes_are_probed_in_and_out() {
    let node = Node::start("s").await;
    let nodes = format!("[[nodes]]\nname = 's'\naddress = '{}'\n", node.address);
    let balancer = Balancer::start(&nodes).await;
    balancer.reaches("s", "ready").await;
    balancer.greeted_by(&["s"]).await;
    node.turns(CLOSE);
    balancer.reaches("s", "down").await;
    node.turns(GREET);
    balancer.reaches("s", "ready").await;
    let (code, answer) = balancer.register("s", node.address, "ready").await;
    assert_eq!(code, 409, "{answer}");
}

#[tokio::test]
async fn two_nodes_cannot_share_a_name() {
    let balancer = Balancer::start(LONG).await;
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    balancer.join("a", &a).await;
    let (code, answer) = balancer.register("a", b.address, "ready").await;
    assert_eq!(code, 409);
    let held = a.address.to_string();
    assert!(
        answer["error"].as_str().unwrap().contains(&held),
        "{answer}"
    );
    assert_eq!(
        balancer.register("no name", b.address, "ready").await.0,
        400
    );
}
