//! Mail that an alias passes on to a real Postfix: what its sender asked of reports goes on with it, what Postfix does not take is not
//! sent and reported, and where a verified way was asked for, nothing leaves by another.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use end_to_end::{Harness, client, hurried, settings};
use local::postfix::postfix;

const SENDER: &str = "ann@lists.example";
const AT_HOME: &str = "ann@one.example";

/// Postfix takes no message above 20 kB, knows no SMTPUTF8, has a certificate for `localhost`, throws mail for its domain away, and
/// sends its reports to our sink.
fn next_hop(harness: &Harness, address: SocketAddr) -> local::Process {
    let (root, sink) = (harness.site.root(), harness.site.address("sink"));
    let public = root.join("public");
    let made = Command::new(harness.site.options().binaries.join("balancer"))
        .args(["ca", "node"])
        .arg(&public)
        .args(["localhost", "--role", "mx-edge"])
        .output()
        .expect("balancer runs");
    assert!(made.status.success(), "{made:?}");
    let file = |name: &str| public.join(name).display().to_string();
    let settings = [
        ("relay_domains", "pf.example".to_owned()),
        ("relay_recipient_maps", String::new()),
        ("relay_transport", "discard:".to_owned()),
        ("relayhost", format!("[{}]:{}", sink.ip(), sink.port())),
        ("smtp_bind_address", sink.ip().to_string()),
        ("message_size_limit", "20000".to_owned()),
        ("smtputf8_enable", "no".to_owned()),
        ("smtpd_tls_security_level", "may".to_owned()),
        ("smtpd_tls_cert_file", file("localhost.pem")),
        ("smtpd_tls_key_file", file("localhost.key")),
        ("smtpd_tls_loglevel", "1".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
    postfix(&root.join("postfix"), address, &settings).unwrap_or_else(|error| panic!("{error}"))
}

fn says(client: &mut client::Client, line: &str, code: &str) {
    let reply = client.say(line).expect("a reply");
    assert!(reply.starts_with(code), "{line}: {reply}");
}

/// One message from [`SENDER`] with these parameters.
fn send(harness: &Harness, to: &str, mail: &str, rcpt: &str, subject: &str, body: &str) {
    let door = harness.site.address("mx-edge");
    let mut client = client::Client::hello(door).expect("the edge greets");
    says(&mut client, &format!("MAIL FROM:<{SENDER}>{mail}"), "250");
    says(&mut client, &format!("RCPT TO:<{to}>{rcpt}"), "250");
    says(&mut client, "DATA", "354");
    let message = format!(
        "From: <{SENDER}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nMessage-ID: <{}@lists.example>\r\n\
         Date: Fri, 20 Nov 2026 12:00:00 +0000\r\n\r\n{body}\r\n.\r\n",
        to.split('@').next().unwrap_or_default()
    );
    client.send(message.as_bytes()).expect("it is written");
    let reply = client.reply().expect("a reply");
    assert!(reply.starts_with("250"), "{reply}");
}

/// The first report that arrived at `member` and holds this.
fn report(harness: &Harness, member: &str, text: &str) -> String {
    harness.wait(&format!("a report with {text:?}"), || {
        let arrived = harness.arrived(member).into_iter();
        let mut texts = arrived.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        texts.find(|report| report.contains(text))
    })
}

#[test]
fn a_foreign_next_hop_gets_what_it_takes() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = port.local_addr().expect("it has one");
    drop(port);
    let mut options = hurried(settings());
    let port = address.port();
    options.overrides.push((
        "listserv".into(),
        format!(
            "[dsn]\nmerge = '0s'\n[delivery.pinned]\n'pf.example' = 'named'\n'other.example' = 'unnamed'\n\
             [delivery.routes.named]\nhosts = ['localhost:{port}']\ntls = 'verify'\n\
             [delivery.routes.unnamed]\nhosts = ['127.0.0.1:{port}']\ntls = 'verify'\n"
        ),
    ));
    let mut harness = Harness::laid_out(options, true);
    let authorities = harness.site.root().join("public/ca.pem");
    harness.site.lay_over(
        "listserv",
        &format!(
            "[delivery]\ntls_authorities_file = '{}'\n",
            authorities.display()
        ),
    );
    let mut next_hop = next_hop(&harness, address);
    harness
        .site
        .start_all()
        .unwrap_or_else(|error| panic!("{error}"));
    for (alias, to) in [
        (SENDER, AT_HOME),
        ("pf@lists.example", "user@pf.example"),
        ("large@lists.example", "user@pf.example"),
        ("global@lists.example", "user@pf.example"),
        ("other@lists.example", "user@other.example"),
    ] {
        let added = harness.site.ask("listserv", &["alias", "add", alias, to]);
        added.unwrap_or_else(|error| panic!("{error}"));
    }
    let known = ["recipients", "lookup", "other@lists.example"];
    harness.wait("the edge knows the aliases", || {
        let said = harness.site.ask("mx-edge", &known).ok()?;
        said.contains("yes").then_some(())
    });

    // Postfix offers DSN: it is told what was asked, and says itself that it has passed the mail on.
    let asked = " NOTIFY=SUCCESS ORCPT=rfc822;someone@old.example";
    send(
        &harness,
        "pf@lists.example",
        " RET=HDRS ENVID=QQ314",
        asked,
        "asked",
        "x",
    );
    let told = report(&harness, SENDER, "Original-Envelope-Id: QQ314");
    assert!(
        told.contains("Reporting-MTA: dns; mx.postfix.example"),
        "{told}"
    );
    assert!(
        told.contains("Original-Recipient: rfc822;someone@old.example"),
        "{told}"
    );
    let log = || std::fs::read_to_string(harness.site.root().join("postfix/mail.log"));
    let log = log().expect("Postfix logs");
    assert!(log.contains("TLS connection established from"), "{log}");
    assert_eq!(harness.count(AT_HOME), 0, "nor do we say it too");

    let body = "0123456789\r\n".repeat(2500);
    send(&harness, "large@lists.example", "", "", "large", &body);
    let large = report(&harness, AT_HOME, "5.3.4");
    assert!(large.contains("the next hop takes 20000"), "{large}");
    assert!(
        large.contains("Action: failed") && large.contains("said at "),
        "{large}"
    );

    send(
        &harness,
        "global@lists.example",
        " SMTPUTF8 BODY=8BITMIME",
        "",
        "größer",
        "x",
    );
    let global = report(&harness, AT_HOME, "5.6.7");
    assert!(global.contains("Action: failed"), "{global}");

    // The certificate is for another name than the one that this route asks for.
    send(&harness, "other@lists.example", "", "", "other", "x");
    harness.wait("it waits", || {
        let log = harness.site.log("listserv");
        let mut lines = log
            .lines()
            .filter(|line| line.contains("to=user@other.example"));
        lines
            .any(|line| line.contains("event=deferred") && line.contains("4.7.5"))
            .then_some(())
    });
    assert_eq!(harness.queued("listserv"), Some(1));
    let log = std::fs::read_to_string(harness.site.root().join("postfix/mail.log"));
    assert!(!log.expect("Postfix logs").contains("other.example"));
    next_hop.stop();
}
