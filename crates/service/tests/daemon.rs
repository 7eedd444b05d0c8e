//! The example program as a process: checked, started, asked, reloaded, drained, killed.
#![allow(missing_docs, clippy::unwrap_used)]

mod harness;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use rustix::process::Signal;

use harness::{Site, program};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_check_tells_every_mistake_with_its_line() {
    let site = Site::new("sessions_max = 0\n\ngreeting = \"\"");
    let output = site.command(&["--check"]);
    assert_eq!(output.status.code(), Some(78));
    let path = site.config();
    let path = path.display();
    assert_eq!(
        text(&output.stderr),
        format!(
            "{path}:3: greeting: empty, a client waits for it, give some text\n\
             {path}:1: sessions_max: 0, nobody would be served, give 1 or more\n"
        )
    );
    site.configure("greeting = \"hi\"\nsession_max = 1");
    let output = site.command(&["--check"]);
    assert_eq!(output.status.code(), Some(78));
    let told = text(&output.stderr);
    assert!(
        told.starts_with(&format!(
            "{path}:2: session_max: unknown field `session_max`"
        )),
        "{told}"
    );

    let mut started = site.start_only();
    assert_eq!(started.ended().code(), Some(78), "a daemon checks as well");

    site.configure("greeting = \"hi\"");
    let output = site.command(&["--check"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("{path}: good\n"));
}

#[test]
fn commands_here_and_the_configuration_shown() {
    let site = Site::new("greeting = \"hi\"");
    let output = site.command(&["say", "words"]);
    assert_eq!(text(&output.stdout), "words\n");
    let shown = text(&site.command(&["config", "show", "--non-default"]).stdout);
    assert!(shown.starts_with("greeting = \"hi\"\n"), "{shown}");
    assert!(!shown.contains("sessions_max"), "{shown}");
    let shown = site.command(&["config", "show", "--json"]).stdout;
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["sessions_max"], 10);
    let output = site.command(&["no-such-command"]);
    assert_eq!(output.status.code(), Some(2));
    let output = site.command(&["--version"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).starts_with("echo "));
    let help = text(&site.command(&["--help"]).stdout);
    for part in [
        "Greets and echoes\n",
        "/etc/mailflow/echo.toml",
        "  greeting ",
        "  status ",
        "  ca ",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn a_daemon_that_is_not_running_is_told() {
    let site = Site::new("");
    for command in ["status", "ready", "greeting"] {
        let output = site.command(&[command]);
        assert_eq!(output.status.code(), Some(1));
        let told = text(&output.stderr);
        assert!(
            told.contains("not running") && told.contains("control.sock"),
            "{told}"
        );
    }
}

#[test]
fn commands_reach_the_running_daemon() {
    let site = Site::new("greeting = \"hi\"");
    let _running = site.start();
    assert_eq!(text(&site.command(&["greeting"]).stdout), "\"hi\"\n");
    let output = site.command(&["greeting", "--json"]);
    assert_eq!(text(&output.stdout), "{\"greeting\":\"hi\"}\n");
    let output = site.command(&["refuse"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "refused, as told\n");

    let mut session = site.connect("echo");
    assert_eq!(session.line(), "hi");
    session.say("again");
    assert_eq!(session.line(), "again");
    let status = site.status();
    assert_eq!(status["name"], "echo");
    assert_eq!(status["ready"], true);
    assert_eq!(status["activities"]["session"], 1);
    assert_eq!(
        site.get("/healthz"),
        ("HTTP/1.1 200 OK".into(), "ok\n".into())
    );
    assert_eq!(
        site.get("/readyz"),
        ("HTTP/1.1 200 OK".into(), "ready\n".into())
    );
    let (_, metrics) = site.get("/metrics");
    assert!(
        metrics.contains("\nservice_listener_sessions{listener=\"echo\"} 1\n"),
        "{metrics}"
    );
    let (status, _) = site.get("/greeting");
    assert_eq!(
        status, "HTTP/1.1 404 Not Found",
        "a program's routes are not on TCP"
    );
}

#[test]
fn sighup_takes_a_good_configuration_and_keeps_the_old_one_for_a_bad_one() {
    let site = Site::new("greeting = \"first\"");
    let running = site.start();
    assert_eq!(site.connect("echo").line(), "first");

    site.configure("greeting = \"second\"");
    running.signal(Signal::HUP);
    running.logged(&["event=reloaded", "part=config"]);
    assert_eq!(site.connect("echo").line(), "second");

    site.configure("greeting = \"\"");
    running.signal(Signal::HUP);
    running.logged(&["event=reload_failed", "echo.toml:1: greeting: empty"]);
    assert_eq!(site.connect("echo").line(), "second");
    let (_, metrics) = site.get("/metrics");
    assert!(metrics.contains("\nservice_reload_failed 1\n"), "{metrics}");

    site.configure("greeting = \"third\"\n[log]\nformat = \"json\"");
    running.signal(Signal::HUP);
    running.logged(&["\"event\":\"reloaded\""]);
    assert_eq!(site.connect("echo").line(), "third");
    let (_, metrics) = site.get("/metrics");
    assert!(metrics.contains("\nservice_reload_failed 0\n"), "{metrics}");
}

#[test]
fn a_reload_names_what_waits_for_the_next_start() {
    let site = Site::new("greeting = \"first\"\nsessions_max = 5");
    let running = site.start();
    let waiting = |keys: &str| {
        let (_, status) = site.get("/status");
        let said = format!("\"waiting_for_start\":[{keys}]");
        assert!(status.contains(&said), "{status}");
        let (_, metrics) = site.get("/metrics");
        let count = keys.split(',').filter(|key| !key.is_empty()).count();
        let said = format!("\nservice_reload_waiting_keys {count}\n");
        assert!(metrics.contains(&said), "{metrics}");
    };
    waiting("");
    for (text, changed, keys) in [
        (
            "greeting = \"second\"\nsessions_max = 6",
            "changed=greeting",
            "sessions_max",
        ),
        // Told as long as it waits, whatever changes beside it.
        (
            "greeting = \"third\"\nsessions_max = 6",
            "changed=greeting",
            "sessions_max",
        ),
    ] {
        site.configure(text);
        running.signal(Signal::HUP);
        running.logged(&["event=reloaded", changed]);
        running.logged(&["event=reload_incomplete", &format!("keys={keys}")]);
        waiting(&format!("\"{keys}\""));
    }
    // Taken back, nothing waits.
    site.configure("greeting = \"third\"\nsessions_max = 5");
    running.signal(Signal::HUP);
    running.logged(&["event=reloaded", "part=config"]);
    waiting("");
    assert_eq!(site.connect("echo").line(), "third");
}

#[test]
fn sigterm_drains_and_exits_0() {
    let site = Site::new("");
    let mut running = site.start();
    let mut session = site.connect("echo");
    assert_eq!(session.line(), "hello");
    running.signal(Signal::TERM);
    running.logged(&["event=not_ready", "stopping"]);
    let output = site.command(&["ready"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the program is stopping"));
    assert_eq!(site.status()["draining"], true);
    session.say("still here");
    assert_eq!(session.line(), "still here");
    assert!(running.alive(), "waits for its session");
    drop(session);
    assert_eq!(running.ended().code(), Some(0));
    assert!(!site.socket().exists());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let site = Site::new("");
    let mut running = site.start();
    let mut session = site.connect("echo");
    assert_eq!(session.line(), "hello");
    running.signal(Signal::INT);
    running.logged(&["event=stopping"]);
    running.signal(Signal::INT);
    running.logged(&["second SIGINT"]);
    assert_eq!(running.ended().code(), Some(1));
}

#[test]
fn a_killed_ones_socket_is_replaced_and_a_living_ones_respected() {
    let site = Site::new("");
    let mut running = site.start();
    let mut second = site.start_only();
    second.logged(&["a running program answers there", "stop that one first"]);
    assert_eq!(second.ended().code(), Some(1));
    running.kill();
    assert!(site.socket().exists(), "what a kill leaves");
    let output = site.command(&["status"]);
    assert!(text(&output.stderr).contains("not running"));
    let _running = site.start();
    assert!(site.command(&["ready"]).status.success());
}

#[test]
fn a_taken_port_is_told_and_ends_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let site = Site::new(&format!("listen = \"{address}\""));
    let mut running = site.start_only();
    running.logged(&["event=failed", &address.to_string(), "another port"]);
    assert_eq!(running.ended().code(), Some(1));
    assert!(!site.socket().exists());
}

#[test]
fn a_closed_log_or_answer_pipe_ends_nothing() {
    let site = Site::new("");
    let mut running = site.start();
    running.forget_log();
    for _ in 0..3 {
        running.signal(Signal::HUP);
        assert_eq!(site.connect("echo").line(), "hello");
    }
    assert!(running.alive());
    let mut command = program();
    command.arg("--config").arg(site.config()).arg("status");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_command_at_a_socket_that_is_no_daemons_is_told() {
    let site = Site::new("");
    let other = UnixListener::bind(site.socket()).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        stream.write_all(b"220 not HTTP\r\n").unwrap();
    });
    let output = site.command(&["status"]);
    answering.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("control.sock"));
}

#[test]
fn certificates_are_made_used_and_renewed() {
    let site = Site::new("");
    let ca = site.dir.path().join("ca");
    let ca = ca.to_str().unwrap();
    let mut bare = program();
    let output = bare.args(["ca", "init", ca]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("ca.pem"));
    let output = site.command(&["ca", "init", ca]);
    assert_eq!(output.status.code(), Some(1));
    let node = |name: &str| {
        let role = [
            "--role",
            "scanner",
            "--role",
            "mx-edge",
            "--address",
            "127.0.0.1",
        ];
        let output = site.command(&[&["ca", "node", ca, name], &role[..]].concat());
        assert!(output.status.success(), "{output:?}");
    };
    node("a");
    let inside = format!(
        "[inside]\ncertificate = \"{ca}/a.pem\"\nkey = \"{ca}/a.key\"\nauthority = \"{ca}/ca.pem\""
    );
    site.configure(&inside);
    let running = site.start();
    let left = || {
        site.status()["certificates"]["inside"]["seconds_left"]
            .as_i64()
            .unwrap()
    };
    assert!(left() > 824 * 86_400);

    node("b");
    std::fs::copy(format!("{ca}/b.pem"), format!("{ca}/a.pem")).unwrap();
    running.signal(Signal::HUP);
    running.logged(&["event=reload_failed", "part=inside", "does not fit"]);
    std::fs::copy(format!("{ca}/b.key"), format!("{ca}/a.key")).unwrap();
    running.signal(Signal::HUP);
    running.logged(&["event=reloaded", "part=config"]);
    let (_, metrics) = site.get("/metrics");
    assert!(
        metrics.contains("service_certificate_left_seconds{name=\"inside\"} 7"),
        "{metrics}"
    );
}

#[test]
fn running_out_of_descriptors_is_told_once_and_waited_out() {
    let site = Site::new("sessions_max = 1000");
    let mut running = site.start_with_descriptors(40);
    let address = site.status()["listeners"]["echo"].clone();
    let address = address.as_str().unwrap();
    let open: Vec<_> = (0..60)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    running.logged(&["event=accept_starved", "listener=session", "LimitNOFILE"]);
    assert!(running.alive());
    drop(open);
    // It is over when a connection comes some time after the last failure.
    let told = running.logged_while(&["event=accept_recovered"], || {
        assert_eq!(site.connect("echo").line(), "hello");
    });
    let again = told.iter().any(|line| line.contains("accept_starved"));
    assert!(!again, "{told:?}");
    let (_, metrics) = site.get("/metrics");
    assert!(
        metrics.contains("\nservice_descriptors_max 40\n"),
        "{metrics}"
    );
    let failed = "service_listener_accept_failed_total{listener=\"echo\"} ";
    let failed = metrics
        .lines()
        .find_map(|line| line.strip_prefix(failed))
        .unwrap();
    assert_ne!(failed, "0");
}
