//! A real day of a real mail hub, a hundredth of it, played against a whole site: what the edge reports of that day is what the clients did and
//! were told, line by line, and there is no line that nobody did.

mod day;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::thread;

use end_to_end::{Client, Harness, settings};
use local::daemons;
use local::process::Process;
use serde_json::{Value, json};

use day::{
    CONFIRMED, CROWD, ERRORS, Kind, LISTED, OWN, REJECTED, SESSIONS, Session, TURNS, UNCONFIRMED,
    WORMS, bytes, clean, client, malware, message, passed, scaled,
};

/// Clients come through a proxy, since what the DNS says of loopback is everywhere the same.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

fn connect(client: Ipv4Addr, server: SocketAddr) -> Client {
    let mut connection = Client::from(PROXY, server).expect("the edge listens");
    let header = format!("PROXY TCP4 {client} 192.0.2.1 4711 25\r\n");
    connection.send(header.as_bytes()).expect("it is read");
    connection
}

/// What clients were told of the forward-paths that they named, by the reply's first digit.
type Told = BTreeMap<u8, u64>;

/// A session under way.
struct Talk {
    client: Client,
    told: Told,
}

impl Talk {
    /// The reply, "" when there is none.
    fn say(&mut self, line: &str) -> String {
        self.client.say(line).unwrap_or_default()
    }

    fn tell(&mut self, reply: &str) {
        let digit = reply.as_bytes().first().copied().unwrap_or_default();
        *self.told.entry(digit).or_default() += 1;
    }

    fn transaction(&mut self, from: &str, to: &str) -> bool {
        self.say(&format!("MAIL FROM:<{from}>"));
        let reply = self.say(&format!("RCPT TO:<{to}>"));
        let taken = reply.starts_with("250");
        if !taken {
            self.tell(&reply);
        }
        taken
    }

    fn mail(&mut self, number: usize, text: &str) {
        assert!(
            self.transaction("author@sender.example", LIST),
            "its recipient is ours"
        );
        self.say("DATA");
        let bytes = [&message(number, text), b".\r\n".as_slice()].concat();
        let sent = self.client.send(&bytes).and_then(|()| self.client.reply());
        self.tell(&sent.unwrap_or_default());
    }
}

const LIST: &str = "dev@lists.example";

fn play(number: usize, session: &Session, server: SocketAddr) -> Told {
    let client = connect(session.client, server);
    let mut talk = Talk {
        client,
        told: Told::new(),
    };
    let greeting = talk.client.reply().unwrap_or_default();
    assert!(greeting.starts_with("220"), "{session:?}: {greeting:?}");
    talk.say(match session.kind {
        Kind::Number => "HELO 192.0.2.7",
        _ => "EHLO client.sender.example",
    });
    let author = "author@sender.example";
    match &session.kind {
        Kind::Guesses(count) => {
            talk.say(&format!("MAIL FROM:<{author}>"));
            for guess in 0..*count {
                let reply = talk.say(&format!("RCPT TO:<guess{guess}@lists.example>"));
                talk.tell(&reply);
            }
        }
        Kind::BadRecipients(count) => {
            talk.say(&format!("MAIL FROM:<{author}>"));
            for _ in 0..*count {
                let reply = talk.say("RCPT TO:<a@b@lists.example>");
                talk.tell(&reply);
            }
        }
        Kind::BadSenders(count) => (0..*count).for_each(|_| drop(talk.say("MAIL FROM:<a b@c>"))),
        Kind::OutOfTurn => drop(talk.say(&format!("RCPT TO:<{LIST}>"))),
        Kind::Listed | Kind::Number | Kind::Rejected => drop(talk.transaction(author, LIST)),
        Kind::NoDomain => drop(talk.transaction("author@gone.example", LIST)),
        Kind::NoAnswer => drop(talk.transaction("author@silent.test", LIST)),
        Kind::NoPolicy => drop(talk.transaction("author@plain.example", LIST)),
        Kind::Relay => drop(talk.transaction(author, "someone@relay.example")),
        Kind::Mail(text) => talk.mail(number, text),
        Kind::Own => talk.mail(number, "\r\n"),
        Kind::Idle => while talk.client.reply().is_ok() {},
        Kind::Nothing => {}
    }
    if session.quits {
        talk.say("QUIT");
        while talk.client.reply().is_ok() {}
    }
    talk.told
}

/// One client more than may be, and all of them leave.
fn crowd(server: SocketAddr) {
    let come = |number: u64| {
        let mut client = connect(client(CROWD, 0), server);
        let told = client.is_spoken_to().expect("a greeting");
        assert!(told, "{number}");
        client
    };
    let held: Vec<Client> = (0..SESSIONS).map(come).collect();
    for _ in 0..scaled("concurrency limit") {
        let mut client = come(SESSIONS);
        let reply = client.reply().expect("a reply");
        assert!(reply.starts_with("421 4.7.0"), "{reply}");
    }
    drop(held);
}

/// All of it, some sessions at once.
fn play_day(server: SocketAddr) -> Told {
    crowd(server);
    let day = Mutex::new(day::sessions().into_iter().enumerate());
    let next = || day.lock().expect("nobody panics with it").next();
    let worker = || {
        let mut told = Told::new();
        while let Some((number, session)) = next() {
            for (digit, count) in play(number, &session, server) {
                *told.entry(digit).or_default() += count;
            }
        }
        told
    };
    let mut all = Told::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(worker)).collect();
        for told in workers {
            for (digit, count) in told.join().expect("a client that went through") {
                *all.entry(digit).or_default() += count;
            }
        }
    });
    all
}

/// What the report of the day has to say, all of it.
fn expected() -> Value {
    let spam = scaled("spam blocked");
    let content = day::refused();
    let refused_by = json!({
        "unknown user": scaled("unknown user"),
        "RBL": scaled("RBL"),
        "recipient address": scaled("recipient address, 5xx"),
        "HELO": scaled("HELO"),
        "sender address": scaled("sender address, 5xx"),
        "relay denied": scaled("relay denied"),
        "header": scaled("header"),
        "client host": scaled("client host"),
        "content": content,
    });
    let refused_for = json!({
        "unknown_recipient": scaled("unknown user"),
        "dnsbl": scaled("RBL"),
        "recipient_syntax": scaled("recipient address, 5xx"),
        "helo_syntax": scaled("HELO"),
        "sender_unknown": scaled("sender address, 5xx"),
        "relay_denied": scaled("relay denied"),
        "header": scaled("header"),
        "access": scaled("client host"),
        "spam": spam,
        "malware": malware(),
        "banned": scaled("banned"),
        "unscanned": scaled("MIME errors"),
    });
    let refused: u64 = refused_by
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, count)| count.as_u64())
        .sum();
    let put_off = scaled("sender address, 4xx") + scaled("recipient address, 4xx");
    let (accepted, errors) = (scaled("accepted"), scaled("excessive errors"));
    let (idle, crowd) = (scaled("inbound time-outs"), scaled("concurrency limit"));
    let names = WORMS.map(|name| (format!("Worm.{name}"), scaled(&format!("malware {name}"))));
    let names = BTreeMap::from(names);
    json!({
        "door": {
            "paths": accepted + refused + put_off,
            "accepted": accepted,
            "refused": refused,
            "refused_by": refused_by,
            "refused_for": refused_for,
            "put_off": put_off,
            "put_off_by": {"recipient address": put_off},
            "put_off_for": {"greylisted": put_off},
        },
        "sessions": {
            "made": scaled("connections"),
            "by_end": {
                "lost": scaled("lost"),
                "errors": errors,
                "timed_out": idle,
                "refused": crowd,
                "quit": scaled("connections") - scaled("lost") - errors - idle - crowd,
            },
            "turned_away": {"client_sessions": crowd},
            "limits": {"client_sessions": crowd, "errors of a session": errors, "time": idle},
            "objections": {
                "sender_syntax": scaled("illegal address syntax"),
                "recipient_syntax": scaled("recipient address, 5xx"),
                "sequence": scaled("dialogue errors"),
                "too_many_errors": errors,
                "timed_out": idle,
            },
            "screened": {"exempt": scaled("connections")},
        },
        "mail": {
            "messages": {"passed": accepted, "refused": content + scaled("header")},
            "bytes_accepted": accepted * bytes(),
            "taken": {"through": accepted},
            "done": {"passed": passed(), "exempt": accepted - passed()},
        },
        "scanner": {
            "verdicts": {
                "clean": clean(),
                "spammy": scaled("spam passed"),
                "spam": spam,
                "bad_header": scaled("bad header"),
                "banned": scaled("banned"),
                "unscanned": scaled("MIME errors"),
                "malware": malware(),
            },
            "malware": names,
            "unchecked": {
                "nested deeper than 50 levels": scaled("MIME errors"),
            },
        },
        "rules": {"worm refused": scaled("header")},
        "warned": {"client_unconfirmed": scaled("hostname verification")},
        "spf": {"pass": scaled("scanned")},
    })
}

/// Without what was never counted.
fn counted(value: &Value) -> Option<Value> {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), counted(value)?)));
            let fields: serde_json::Map<String, Value> = fields.collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        value => (value.as_u64() != Some(0)).then(|| value.clone()),
    }
}

/// A list, and before it the names of clients and senders.
fn name_servers(harness: &Harness) -> (Process, Process) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let lists = socket.local_addr().expect("it has one");
    drop(socket);
    let zone = format!(
        "$SOA 300 ns.test. hostmaster.test. 0 600 300 86400 300\n$NS 300 ns.test.\n\
         :127.0.0.4:listed\n127.0.0.2\n198.18.{LISTED}.0/24\n"
    );
    let root = harness.site.root();
    let rbldnsd = daemons::rbldnsd(
        &root.join("rbldnsd"),
        &root.join("log/rbldnsd.log"),
        lists,
        &[("bl.test", &zone)],
    );
    let mut records = vec![
        "sender.example. MX 10 mail.sender.example.".to_owned(),
        // Blanks would part it into strings that are joined without any.
        r"sender.example. TXT v=spf1\032ip4:198.18.0.0/16\032-all".to_owned(),
        "plain.example. MX 10 mail.plain.example.".to_owned(),
    ];
    for turn in 1..=TURNS {
        for (network, name) in [(CONFIRMED, "confirmed"), (UNCONFIRMED, "unconfirmed")] {
            records.push(format!(
                "{turn}.{network}.18.198.in-addr.arpa. PTR {name}-{turn}.sender.example."
            ));
        }
        records.push(format!(
            "confirmed-{turn}.sender.example. A 198.18.{CONFIRMED}.{turn}"
        ));
    }
    // The list's server refuses to talk of a zone that is not its own: nobody answers.
    let unbound = daemons::unbound_before(
        &root.join("unbound"),
        &root.join("log/unbound.log"),
        harness.site.address("dns"),
        &records,
        &[("bl.test", lists), ("silent.test", lists)],
    );
    let started =
        |process: Result<Process, String>| process.unwrap_or_else(|error| panic!("{error}"));
    (started(rbldnsd), started(unbound))
}

#[test]
fn a_days_report_explains_every_line() {
    let mut options = settings();
    // A band that is marked and passed, as that hub had.
    let levels = "[levels]\nkill = 10.0\n";
    options.overrides.push(("scanner".into(), levels.into()));
    // What becomes of it behind the list host's door is no matter of this report.
    let deliver = "[delivery]\npaused = true\n";
    options.overrides.push(("listserv".into(), deliver.into()));
    let mut harness = Harness::laid_out(options, true);
    let _name_servers = name_servers(&harness);
    let root = harness.site.root().to_owned();
    std::fs::write(
        root.join("access"),
        format!("198.18.{REJECTED}.0/24 reject\n"),
    )
    .expect("a file");
    let config = format!(
        "[mail]\nown_networks = ['198.18.{OWN}.0/24']\nproxies = ['{PROXY}']\n[access]\nfiles = ['{}/access']\n[dns]\nservers = ['{}']\n\
         [limits]\ncommand_timeout = '8s'\nerrors_soft = {ERRORS}\n[screen]\naction = 'off'\n\
         [greylist]\naction = 'enforce'\n\
         [policy]\nclient_name = 'off'\nclient_unconfirmed = 'warn'\n\
         [[policy.headers]]\nname = 'worm'\nfield = 'Subject'\npattern = 'worm of the day'\n\
         [dnsbl]\nself_test_interval = '1s'\n[[dnsbl.lists]]\nzone = 'bl.test'\n",
        root.display(),
        harness.site.address("dns"),
    );
    harness.site.lay_over("mx-edge", &config);
    harness
        .site
        .start_all()
        .unwrap_or_else(|error| panic!("{error}"));
    harness.wait("the list's self-test passes", || {
        (harness.metric("mx-edge", "mx_edge_dnsbl_list_up", "") == 1.0).then_some(())
    });
    harness.wait("the list is known", || {
        let said = harness
            .site
            .ask("mx-edge", &["recipients", "lookup", LIST])
            .ok()?;
        said.contains("yes").then_some(())
    });
    let report = || {
        let said = harness.site.ask("mx-edge", &["--json", "report"]).ok()?;
        serde_json::from_str::<Value>(&said).ok()
    };
    let before = report().expect("a report of nothing");
    let told = play_day(harness.site.address("mx-edge"));
    let report = harness.wait("all sessions end", || {
        report().filter(|report| report["sessions"]["open"] == 0)
    });
    if report["day"] != before["day"] {
        eprintln!("SKIPPED: a_days_report_explains_every_line: midnight (UTC) fell into it");
        return;
    }
    let mut shown = counted(&report).expect("something was counted");
    // Names in the order of their counts, many of them alike; what they add up to is below.
    assert_eq!(shown["top"]["senders"]["all"], shown["door"]["accepted"]);
    for name in ["day", "starts", "top"] {
        shown.as_object_mut().and_then(|fields| fields.remove(name));
    }
    assert_eq!(shown, expected(), "{shown:#}\n{:#}", expected());
    let door = &report["door"];
    for (digit, line) in [(b'2', "accepted"), (b'4', "put_off"), (b'5', "refused")] {
        let told_so = told.get(&digit).copied().unwrap_or(0);
        assert_eq!(door[line], told_so, "{line}: {told:?}");
    }
    let text = harness.site.ask("mx-edge", &["report"]);
    let text = text.expect("the same for a person");
    for line in door["refused_by"].as_object().into_iter().flatten() {
        assert!(
            text.contains(&format!("    {} ", line.0)),
            "{}: {text}",
            line.0
        );
    }
}
