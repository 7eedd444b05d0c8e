//! A real postscreen and the edge with equal settings, before the same lists, driven by the same clients: both come to the same
//! verdict, and where the edge means not to, it does what docs/coming-from-postfix.md says it does.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use end_to_end::{Client, Harness, hurried, settings};
use local::process::Process;
use local::{daemons, postfix};

/// How long a client is made to wait for its greeting, and how long it may then take for a command.
const WAIT: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(3);
/// Sessions of one client at once.
const SESSIONS: usize = 5;

/// On the list that weighs 2 and on the one that weighs 1; on one of them each; on both, and vouched for.
const BOTH: u8 = 9;
const HEAVY: u8 = 10;
const LIGHT: u8 = 11;
const VOUCHED: u8 = 12;
/// In the access lists.
const PERMITTED: u8 = 13;
const REJECTED: u8 = 14;

const EHLO: &str = "EHLO client.example\r\n";
const MAIL: &str = "MAIL FROM:<author@sender.example>\r\n";
const RCPT: &str = "RCPT TO:<staff@old.example>\r\n";
const ROLE: &str = "RCPT TO:<postmaster@old.example>\r\n";
const UNKNOWN: &str = "RCPT TO:<nobody@old.example>\r\n";
const HASTY: &str =
    "HELO client.example\r\nMAIL FROM:<a@sender.example>\r\nRCPT TO:<staff@old.example>\r\n";
const BARE: &[Step] = &[
    Greeting,
    Say("EHLO client.example\n"),
    Say("MAIL FROM:<a@sender.example>\n"),
    Say("RCPT TO:<staff@old.example>\n"),
];
const MAILS: &[Step] = &[Greeting, Say(EHLO), Say(MAIL), Say(RCPT)];

#[derive(Clone, Copy)]
enum Step {
    /// Waits for the greeting.
    Greeting,
    /// Sends it and hears a reply.
    Say(&'static str),
    /// Sends it all at once and hears so many replies, or fewer when the session ends.
    Rush(&'static str, usize),
    /// Sends it before it is greeted, and hears the greeting and the reply.
    Early(&'static str),
    /// Says it until the session ends.
    Over(&'static str),
    /// Says nothing until the session ends.
    Idle,
    /// Comes so often more, and stays.
    Crowd(usize),
}
use Step::{Crowd, Early, Greeting, Idle, Over, Rush, Say};

/// What is heard last, of each; and whether the greeting came only after the wait, of each.
struct Case {
    /// Its row in the document, where the verdicts differ.
    name: &'static str,
    client: u8,
    /// How often it comes.
    visits: usize,
    steps: &'static [Step],
    theirs: &'static str,
    ours: &'static str,
    waits: Option<(bool, bool)>,
}

const fn case(
    name: &'static str,
    client: u8,
    steps: &'static [Step],
    (theirs, ours): (&'static str, &'static str),
    waits: Option<(bool, bool)>,
) -> Case {
    Case {
        name,
        client,
        visits: 1,
        steps,
        theirs,
        ours,
        waits,
    }
}

const fn again(case: Case) -> Case {
    Case { visits: 2, ..case }
}

/// A client is one row's own, but where it never passes.
#[rustfmt::skip]
const CASES: [Case; 20] = [
    // A new client that does all right.
    case("a good client's first visit", 20, MAILS, ("450 4.3.2", "250"), Some((true, true))),
    again(case("a good client's next visit", 21, MAILS, ("250", "250"), Some((false, false)))),
    case("one that the access list permits", PERMITTED, MAILS, ("250", "250"), Some((false, false))),
    case("one that the access list rejects", REJECTED, MAILS, ("550 5.3.2", "554 5.7.1"), None),
    case("postmaster and who is rejected", REJECTED, &[Greeting, Say(EHLO), Say(MAIL), Say(ROLE)], ("550 5.3.2", "250"), None),
    // Lists.
    case("on lists that weigh enough", BOTH, MAILS, ("550 5.7.1", "554 5.7.1"), None),
    case("the wait of one whom the lists have decided on", BOTH, &[Greeting], ("220", "220"), Some((true, false))),
    case("postmaster and who is listed", BOTH, &[Greeting, Say(EHLO), Say(MAIL), Say(ROLE)], ("550 5.7.1", "250"), None),
    case("an unknown recipient of one who is listed", BOTH, &[Greeting, Say(EHLO), Say(MAIL), Say(UNKNOWN)], ("550 5.7.1", "550 5.1.1"), None),
    again(case("on the heavy list alone", HEAVY, MAILS, ("250", "250"), Some((false, false)))),
    again(case("on the light list alone", LIGHT, MAILS, ("250", "250"), Some((false, false)))),
    case("listed and vouched for", VOUCHED, MAILS, ("250", "250"), Some((false, false))),
    // Manners.
    case("speaks before it is greeted", 22, &[Early(EHLO), Say(MAIL), Say(RCPT)], ("550 5.5.1", "554 5.5.1"), None),
    case("does not wait for the reply to HELO", 23, &[Greeting, Rush(HASTY, 3)], ("550 5.5.1", "554 5.5.0"), None),
    case("speaks HTTP", 24, &[Greeting, Say("GET / HTTP/1.1\r\n")], ("521 5.7.0", "554 5.5.1"), None),
    case("says header fields for commands", 25, &[Greeting, Say(EHLO), Say("Subject: hello\r\n")], ("521 5.7.0", "554 5.5.1"), None),
    case("ends its lines with a bare newline", 26, BARE, ("550 5.5.1", "50"), None),
    // Limits.
    case("says nothing for too long", 27, &[Greeting, Say(EHLO), Idle], ("421 4.4.2", "421 4.4.2"), None),
    case("says nonsense again and again", 28, &[Greeting, Over("WHAT\r\n")], ("421", "421 4.7.0"), None),
    case("comes too often at once", 29, &[Crowd(SESSIONS)], ("421 4.7.0", "421 4.7.0"), None),
];

/// A session of a client at this loopback address, and the last line of what it heard last, "" when that is nothing.
struct Session {
    client: Client,
    last: String,
}

impl Session {
    fn from(client: u8, server: SocketAddr) -> Self {
        let client = Client::from(Ipv4Addr::new(127, 0, 0, client), server);
        Self {
            client: client.expect("the server listens"),
            last: String::new(),
        }
    }

    /// False when the session has ended.
    fn hear(&mut self) -> bool {
        let reply = self.client.reply();
        if let Ok(reply) = &reply {
            self.last = reply.lines().last().unwrap_or_default().to_owned();
        }
        reply.is_ok()
    }

    fn say(&mut self, text: &str) -> bool {
        self.client.send(text.as_bytes()).is_ok()
    }

    fn take(&mut self, step: Step) {
        match step {
            Greeting => {
                self.hear();
            }
            Say(text) => {
                self.say(text);
                self.hear();
            }
            Rush(text, replies) => {
                self.say(text);
                for _ in 0..replies {
                    self.hear();
                }
            }
            Early(text) => {
                self.say(text);
                // One says the rest of its greeting first, the other never does.
                while self.hear() && self.last.starts_with("220") {}
            }
            Over(text) => while self.say(text) && self.hear() {},
            Idle => while self.hear() {},
            Crowd(_) => {}
        }
    }
}

/// What is heard last of all, and how long the first greeting took on the last visit.
fn visit(case: &Case, server: SocketAddr) -> (String, Duration) {
    let mut seen = (String::new(), Duration::ZERO);
    for _ in 0..case.visits {
        let crowd = match case.steps[0] {
            Crowd(count) => count,
            _ => 0,
        };
        let _crowd: Vec<Session> = (0..crowd)
            .map(|_| {
                let mut session = Session::from(case.client, server);
                // It counts once it has been told something.
                let told = session.client.is_spoken_to();
                assert!(told.expect("the greeting's first line"));
                session
            })
            .collect();
        let start = Instant::now();
        let mut client = Session::from(case.client, server);
        let mut greeted = None;
        for step in case.steps {
            client.take(*step);
            greeted.get_or_insert(start.elapsed());
        }
        if crowd > 0 {
            client.hear();
        }
        seen = (client.last.clone(), greeted.unwrap_or_default());
        client.say("QUIT\r\n");
        // To its end: only then has the other noted that the client has passed.
        while client.hear() {}
    }
    seen
}

/// An address of loopback whose port 53 is free: Postfix asks no other port.
fn name_server() -> Option<SocketAddr> {
    let [.., high, low] = std::process::id().to_be_bytes();
    let mut addresses = (1..=250).map(|third| Ipv4Addr::new(127, third, high.max(1), low.max(1)));
    let address = addresses.find(|address| UdpSocket::bind((*address, 53)).is_ok())?;
    Some(SocketAddr::new(address.into(), 53))
}

fn lists(harness: &Harness, address: SocketAddr) -> Process {
    let soa = "$SOA 300 ns.test. hostmaster.test. 0 600 300 86400 300\n$NS 300 ns.test.\n";
    let zone = |code: &str, clients: &[u8]| {
        let clients: String = clients
            .iter()
            .map(|last| format!("127.0.0.{last}\n"))
            .collect();
        format!("{soa}:{code}:listed\n127.0.0.2\n{clients}")
    };
    let zones = [
        (
            "secret-key.heavy.test",
            zone("127.0.0.4", &[BOTH, HEAVY, VOUCHED]),
        ),
        ("light.test", zone("127.0.0.4", &[BOTH, LIGHT, VOUCHED])),
        ("good.test", zone("127.0.10.2", &[VOUCHED])),
    ];
    let zones: Vec<(&str, &str)> = zones.iter().map(|(name, text)| (*name, &**text)).collect();
    let root = harness.site.root();
    daemons::rbldnsd(
        &root.join("rbldnsd"),
        &root.join("log/rbldnsd.log"),
        address,
        &zones,
    )
    .unwrap_or_else(|error| panic!("{error}"))
}

fn start_postscreen(harness: &Harness, resolver: SocketAddr) -> (Process, SocketAddr) {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = port.local_addr().expect("it has one");
    drop(port);
    let folder = harness.site.root().join("postfix");
    let access = harness.site.root().join("access.cidr");
    fs::write(
        &access,
        format!("127.0.0.{PERMITTED} permit\n127.0.0.{REJECTED} reject\n"),
    )
    .expect("a file");
    let (access, wait) = (format!("cidr:{}", access.display()), seconds(WAIT));
    let (idle, sessions) = (seconds(IDLE), SESSIONS.to_string());
    let settings = [
        ("mynetworks", "127.0.0.1/32"),
        ("relay_domains", "old.example"),
        (
            "relay_recipient_maps",
            "inline:{staff@old.example=x, postmaster@old.example=x}",
        ),
        ("relay_transport", "discard:"),
        ("postscreen_access_list", access.as_str()),
        ("postscreen_blacklist_action", "enforce"),
        ("postscreen_greet_wait", wait.as_str()),
        ("postscreen_greet_action", "enforce"),
        (
            "postscreen_dnsbl_sites",
            "secret-key.heavy.test=127.0.0.[2..11]*2, light.test*1, good.test=127.0.[0..255].[1..3]*-5",
        ),
        ("postscreen_dnsbl_threshold", "3"),
        ("postscreen_dnsbl_whitelist_threshold", "-1"),
        ("postscreen_dnsbl_action", "enforce"),
        (
            "postscreen_dnsbl_reply_map",
            "inline:{secret-key.heavy.test=heavy}",
        ),
        ("postscreen_pipelining_enable", "yes"),
        ("postscreen_non_smtp_command_enable", "yes"),
        ("postscreen_bare_newline_enable", "yes"),
        ("postscreen_bare_newline_action", "enforce"),
        ("postscreen_command_time_limit", idle.as_str()),
        ("postscreen_command_count_limit", "20"),
        (
            "postscreen_client_connection_count_limit",
            sessions.as_str(),
        ),
    ];
    let process = postfix::postscreen(&folder, address, resolver.ip(), &settings);
    (process.unwrap_or_else(|error| panic!("{error}")), address)
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

fn start_edge(harness: &mut Harness, resolver: SocketAddr) -> SocketAddr {
    let root = harness.site.root().to_owned();
    fs::write(root.join("recipients"), "staff@old.example\n").expect("a file");
    let access = format!("127.0.0.{PERMITTED} permit\n127.0.0.{REJECTED} reject\n");
    fs::write(root.join("access"), access).expect("a file");
    let (wait, idle) = (seconds(WAIT), seconds(IDLE));
    let config = format!(
        "[mail]\nbare_newline = 'refuse'\n[directory]\nservers = []\n[recipients]\nfiles = ['{root}/recipients']\n\
         [spf]\nenabled = false\n[access]\nfiles = ['{root}/access']\n\
         [limits]\ncommand_timeout = '{idle}'\nerrors_soft = 20\nsessions_per_client_max = {SESSIONS}\n\
         [screen]\nwait = '{wait}'\nwait_stressed = '{wait}'\nskip_networks = []\n\
         [dns]\nservers = ['{resolver}']\n\
         [dnsbl]\nthreshold = 3\nallow_threshold = -1\nskip_networks = []\nself_test_interval = '1s'\n\
         [[dnsbl.lists]]\nzone = 'secret-key.heavy.test'\nname = 'heavy'\ncodes = '127.0.0.[2..11]'\nweight = 2\n\
         [[dnsbl.lists]]\nzone = 'light.test'\nweight = 1\n\
         [[dnsbl.lists]]\nzone = 'good.test'\ncodes = '127.0.[0..255].[1..3]'\nweight = -5\n",
        root = root.display()
    );
    harness.site.lay_over("mx-edge", &config);
    harness.site.start("mx-edge").expect("the edge starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    harness.wait("the lists' self-tests pass", || {
        let up = harness.metric("mx-edge", "mx_edge_dnsbl_list_up", "");
        (up == 3.0).then_some(())
    });
    harness.site.address("mx-edge")
}

/// Postscreen counts in whole seconds, and this machine may be slow: whatever is nearer to the whole wait than to none.
fn is_wait(time: Duration) -> bool {
    time >= WAIT / 2
}

/// Refused, put off, or served, by the reply's first digit.
fn verdict(reply: &str) -> u8 {
    reply.as_bytes().first().copied().unwrap_or_default()
}

fn judge(
    case: &Case,
    (theirs, their_wait): (String, Duration),
    (ours, our_wait): (String, Duration),
    document: &str,
) -> Option<String> {
    let heard = theirs.starts_with(case.theirs) && ours.starts_with(case.ours);
    let waited = case
        .waits
        .is_none_or(|waits| waits == (is_wait(their_wait), is_wait(our_wait)));
    let differs =
        verdict(case.theirs) != verdict(case.ours) || case.waits.is_some_and(|(a, b)| a != b);
    let told = !differs || document.contains(&format!("| {} |", case.name));
    (!heard || !waited || !told).then(|| {
        format!(
            "{}: postscreen {theirs:?} after {their_wait:?}, the edge {ours:?} after {our_wait:?}; in the document: {told}",
            case.name
        )
    })
}

#[test]
fn it_decides_as_postscreen_does() {
    let resolver = match (postfix::no_resolver_of_its_own(), name_server()) {
        (None, Some(resolver)) => resolver,
        (why, _) => {
            let why = why.unwrap_or_else(|| "no port 53".into());
            eprintln!(
                "SKIPPED: it_decides_as_postscreen_does: no Postfix with lists of its own: {why}"
            );
            return;
        }
    };
    let mut harness = Harness::laid_out(hurried(settings()), true);
    // Postfix gives up root, and must still reach its folder.
    fs::set_permissions(harness.site.root(), fs::Permissions::from_mode(0o755)).expect("ours");
    let _lists = lists(&harness, resolver);
    let (mut postscreen, theirs) = start_postscreen(&harness, resolver);
    let ours = start_edge(&mut harness, resolver);
    let document = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/coming-from-postfix.md"
    );
    let document = fs::read_to_string(document).expect("the document");
    let wrong: Vec<String> = thread::scope(|scope| {
        let visits: Vec<_> = CASES
            .iter()
            .map(|case| {
                let there = scope.spawn(move || visit(case, theirs));
                let here = scope.spawn(move || visit(case, ours));
                (case, there, here)
            })
            .collect();
        let judged = visits.into_iter().map(|(case, there, here)| {
            let (there, here) = (there.join(), here.join());
            judge(
                case,
                there.expect("no panic"),
                here.expect("no panic"),
                &document,
            )
        });
        judged.flatten().collect()
    });
    postscreen.stop();
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", harness.logs());
}
