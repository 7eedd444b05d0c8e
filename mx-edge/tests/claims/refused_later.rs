//! Who is refused inside after the message was spooled stays one recipient in the account, is held with what was said of him, and ends by
//! an operator's word alone; also over a kill -9.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::client::{codes, send};
use crate::edge::Site;
use crate::inside::{Got, Inside, Mode, PATIENCE};
use crate::killed::Program;

/// Taken, refused, and told to come again.
const TO: [&str; 3] = ["dev@lists.example", "spam@a.example", "later@a.example"];

async fn ask(program: &Program, words: &str) -> Value {
    let arguments: Vec<&str> = ["--json"].into_iter().chain(words.split(' ')).collect();
    let said = program.ask(&arguments).await;
    let answer = serde_json::from_slice(&said.stdout);
    answer.unwrap_or_else(|error| panic!("{words}: {error}: {said:?}"))
}

/// Waits for an account with these figures; it must balance meanwhile, and nobody may come twice.
async fn wait_account(program: &Program, expected: [(&str, u64); 4]) {
    let reached = async {
        loop {
            let account = ask(program, "reconcile").await;
            for (name, value) in [
                ("accepted", 3),
                ("made", 0),
                ("expanded", 0),
                ("bounced", 0),
                ("unaccounted", 0),
                ("difference", 0),
            ] {
                assert_eq!(account[name], value, "{name}: {account:#}");
            }
            if expected.iter().all(|(name, value)| account[name] == *value) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(PATIENCE, reached).await.is_err() {
        let account = ask(program, "reconcile").await;
        panic!("{expected:?}: {account:#}");
    }
}

fn account(delivered: u64, waiting: u64, held: u64, dropped: u64) -> [(&'static str, u64); 4] {
    [
        ("delivered", delivered),
        ("waiting", waiting),
        ("held", held),
        ("dropped", dropped),
    ]
}

/// What the inside said of each of those who wait.
async fn evidence(program: &Program) {
    for (to, said, listed) in [(TO[1], "550 5.7.1 spam", 1), (TO[2], "451 4.3.0", 0)] {
        let why = ask(program, &format!("why {to}")).await;
        let mut lines = why["waiting"].as_array().unwrap().iter();
        let line = lines.find(|line| line["first_recipient"] == to);
        let line = line.unwrap_or_else(|| panic!("{why:#}"));
        let reply = line["reply"].as_str().unwrap();
        assert!(reply.starts_with(said), "{why:#}");
        let ended = why["ended"].as_array().unwrap();
        assert!(ended.len() >= listed, "{why:#}");
        let shown = ask(
            program,
            &format!("queue show {}", line["batch"].as_str().unwrap()),
        )
        .await;
        let told = &shown["batches"][0]["replies"][0];
        assert_eq!(told["recipients"][0], to, "{shown:#}");
        assert_eq!(told["reply"], reply, "{shown:#}");
        let listed = ask(program, &format!("queue list --recipient {to}")).await;
        assert_eq!(listed["batches"][0]["reply"], reply, "{listed:#}");
    }
    let listed = ask(program, "queue list --reply 5.7.1").await;
    let batches = listed["batches"].as_array().unwrap();
    assert_eq!(batches.len(), 1, "{listed:#}");
    assert_eq!(batches[0]["first_recipient"], TO[1], "{listed:#}");
}

/// Got out of the dead edge's disk, it goes nowhere by itself.
async fn exported(program: &Program) {
    let taker = Inside::start(Mode::Listening).await;
    let to = format!("spool export --to lmtp:{}", taker.address);
    let told = ask(program, &to).await;
    assert_eq!(told["recipients_held_left_out"], 1, "{told:#}");
    let got = taker.got();
    let taken = got.iter().flat_map(Got::accepted);
    let taken: Vec<String> = taken.collect();
    assert!(!taken.contains(&TO[1].to_owned()), "{taken:?}");
}

#[tokio::test]
async fn who_is_refused_later_is_one_recipient_until_an_operator_ends_it() {
    let inside = Inside::start(Mode::Down).await;
    let site = Site::new(&inside);
    let folder = site.folder().to_owned();
    let mut program = Program::new(&site);
    let log = folder.join("log");
    let edge = program.start(&log).await;
    assert_eq!(codes(&send(edge, &TO).await), ["250 2.0.0"; 3]);
    inside.set(Mode::Listening);
    wait_account(&program, account(1, 2, 1, 0)).await;
    evidence(&program).await;

    // It is in the spool, not in the memory of a process.
    program.kill().await;
    exported(&program).await;
    program.start(&log).await;
    wait_account(&program, account(1, 2, 1, 0)).await;
    evidence(&program).await;

    // Released it is tried anew, and held again.
    let before = inside.got().len();
    let released = ask(&program, "queue release --refused").await;
    assert_eq!(released["recipients"], 1, "{released}");
    inside.wait(|got| got.len() > before).await;
    wait_account(&program, account(1, 2, 1, 0)).await;
    evidence(&program).await;

    let dropped = ask(&program, "queue drop --refused --yes").await;
    assert_eq!(dropped["recipients"], 1, "{dropped}");
    wait_account(&program, account(1, 1, 0, 1)).await;
    program.kill().await;
}
