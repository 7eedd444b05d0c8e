//! A real day of a real mail hub in figures, and the sessions of a hundredth of it. Pure.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use end_to_end::stub;

/// So many of the day are one here; what happened at all happens at least once.
const SCALE: u64 = 100;

/// A line of that day's report (Monday 20 September 2010), its count, and what stands for it here.
#[rustfmt::skip]
const DAY: [(&str, u64, &str); 31] = [
    ("connections", 185_662, "sessions.made"),
    ("lost", 89_877, "sessions.by_end.lost"),
    ("accepted", 63_595, "door.accepted"),
    ("bytes accepted", 546_124_884, "mail.bytes_accepted, of 8,587 a message"),
    ("unknown user", 196_808, "door.refused_by, the same word"),
    ("RBL", 37_547, "the same"),
    ("recipient address, 5xx", 13_564, "recipient address: it cannot be read"),
    ("HELO", 7_655, "the same"),
    ("sender address, 5xx", 1_320, "sender address: the domain does not exist"),
    ("relay denied", 757, "the same"),
    ("header", 756, "the same"),
    ("client host", 318, "the same: the access list"),
    ("sender address, 4xx", 13_667, "recipient address: greylisted. That the DNS does not answer about a sender counts against nobody here"),
    ("recipient address, 4xx", 3_690, "recipient address: greylisted"),
    ("concurrency limit", 238, "sessions.turned_away and sessions.limits: client_sessions"),
    ("hostname verification", 40_629, "warned: client_unconfirmed"),
    ("illegal address syntax", 11_557, "sessions.objections: sender_syntax"),
    ("dialogue errors", 45, "sessions.objections: sequence"),
    ("excessive errors", 4_629, "sessions.by_end: errors"),
    ("inbound time-outs", 15, "sessions.by_end: timed_out"),
    ("scanned", 23_744, "scanner.verdicts; the others of the accepted came from our own networks"),
    ("spam blocked", 2_111, "verdict spam"),
    ("spam passed", 121, "verdict spammy"),
    ("bad header", 121, "verdict bad_header, passed"),
    ("banned", 1, "verdict banned"),
    ("MIME errors", 2, "verdict unscanned, and refused: nested too deep"),
    ("malware A", 7, "verdict malware, by name"),
    ("malware B", 5, "likewise"),
    ("malware C", 4, "likewise"),
    ("malware D", 2, "likewise"),
    ("malware E", 1, "likewise"),
];
// Not at this door: deliveries, deferrals and bounces are the list host's; authentication is not offered to strangers; nobody works around
// firewalls of 1998; a numeric host name is among HELO.

pub fn count(line: &str) -> u64 {
    let line = DAY.iter().find(|(name, ..)| *name == line);
    line.expect("a line of the day").1
}

pub fn scaled(line: &str) -> u64 {
    ((count(line) + SCALE / 2) / SCALE).max(1)
}

/// Of each message.
pub fn bytes() -> u64 {
    count("bytes accepted") / count("accepted")
}

/// How a session goes. Counts are of commands.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Names so many who do not exist.
    Guesses(u64),
    Listed,
    BadRecipients(u64),
    BadSenders(u64),
    /// RCPT before MAIL.
    OutOfTurn,
    /// HELO with a number.
    Number,
    /// From a domain that does not exist.
    NoDomain,
    /// From one about which nobody answers.
    NoAnswer,
    /// From one without an SPF policy.
    NoPolicy,
    Relay,
    Rejected,
    /// A message from a stranger, with this in it.
    Mail(String),
    /// One from our own networks.
    Own,
    /// Says nothing until it is shown out.
    Idle,
    /// Looks and leaves.
    Nothing,
}

/// A session, and whether it ends as it should, with QUIT.
#[derive(Clone, Debug)]
pub struct Session {
    pub kind: Kind,
    pub quits: bool,
    pub client: Ipv4Addr,
}

/// Whose name is confirmed, whose is not, who is listed, who is one of us, whom the access list rejects; of each some that take turns.
pub const CONFIRMED: u8 = 1;
pub const UNCONFIRMED: u8 = 2;
pub const LISTED: u8 = 3;
pub const OWN: u8 = 4;
pub const REJECTED: u8 = 5;
pub const CROWD: u8 = 6;
pub const TURNS: u64 = 16;
/// Errors that a session may make, and sessions that a client may have.
pub const ERRORS: u64 = 20;
pub const SESSIONS: u64 = 50;

pub fn client(network: u8, number: u64) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, network, 1 + (number % TURNS) as u8)
}

/// The day's sessions. Those that are lost are clients who were refused, or who looked and left.
pub fn sessions() -> Vec<Session> {
    let mut kinds: Vec<Kind> = Vec::new();
    let mut add = |kind: Kind, times: u64| kinds.extend((0..times).map(|_| kind.clone()));
    let errors = scaled("excessive errors");
    let rest = scaled("unknown user") - errors * ERRORS;
    add(Kind::Guesses(ERRORS), errors);
    add(Kind::Guesses(3), rest / 3);
    add(Kind::Guesses(1), rest % 3);
    add(Kind::Listed, scaled("RBL"));
    add(Kind::BadRecipients(4), scaled("recipient address, 5xx") / 4);
    add(Kind::BadRecipients(1), scaled("recipient address, 5xx") % 4);
    add(Kind::BadSenders(4), scaled("illegal address syntax") / 4);
    add(Kind::BadSenders(1), scaled("illegal address syntax") % 4);
    add(Kind::OutOfTurn, scaled("dialogue errors"));
    add(Kind::Number, scaled("HELO"));
    add(Kind::NoDomain, scaled("sender address, 5xx"));
    add(Kind::NoAnswer, scaled("sender address, 4xx"));
    add(Kind::NoPolicy, scaled("recipient address, 4xx"));
    add(Kind::Relay, scaled("relay denied"));
    add(Kind::Rejected, scaled("client host"));
    add(Kind::Idle, scaled("inbound time-outs"));
    for (text, count) in texts() {
        add(Kind::Mail(text), count);
    }
    add(Kind::Own, scaled("accepted") - passed());
    let crowd = SESSIONS + scaled("concurrency limit");
    let others = scaled("connections") - crowd - kinds.len() as u64;
    kinds.extend((0..others).map(|_| Kind::Nothing));
    let mut lost = scaled("lost") - SESSIONS;
    let mut unconfirmed = scaled("hostname verification");
    let mut all = Vec::new();
    for (number, kind) in (0..).zip(kinds) {
        let leaves = matches!(
            kind,
            Kind::Listed
                | Kind::Nothing
                | Kind::Number
                | Kind::BadRecipients(_)
                | Kind::Guesses(1 | 3)
        );
        let quits = !(leaves && lost > 0);
        lost -= u64::from(!quits);
        // Where a sender is refused, nobody waits for what is said of the client's name.
        let judged = matches!(kind, Kind::NoAnswer | Kind::NoPolicy | Kind::Mail(_));
        let network = match kind {
            Kind::Listed => LISTED,
            Kind::Own => OWN,
            Kind::Rejected => REJECTED,
            _ if judged && unconfirmed > 0 => UNCONFIRMED,
            _ => CONFIRMED,
        };
        unconfirmed -= u64::from(network == UNCONFIRMED);
        let client = client(network, number);
        all.push(Session {
            kind,
            quits,
            client,
        });
    }
    assert_eq!(
        (lost, unconfirmed),
        (0, 0),
        "the day has room for all of it"
    );
    all
}

pub const WORMS: [&str; 5] = ["A", "B", "C", "D", "E"];

/// What strangers' messages hold, and how many of each come.
fn texts() -> Vec<(String, u64)> {
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(100);
    let mut texts = vec![
        (
            "Subject: the worm of the day\r\n\r\n".into(),
            scaled("header"),
        ),
        (
            format!("\r\n{}\r\n", stub::points(1000.0)),
            scaled("spam blocked"),
        ),
        (
            format!("\r\n{}\r\n", stub::points(7.0)),
            scaled("spam passed"),
        ),
        (
            "Subject: once\r\nSubject: twice\r\n\r\n".into(),
            scaled("bad header"),
        ),
        (
            "Content-Type: application/octet-stream; name=invoice.exe\r\n\r\n".into(),
            scaled("banned"),
        ),
        (nested, scaled("MIME errors")),
        ("\r\n".into(), clean()),
    ];
    for name in WORMS {
        let count = scaled(&format!("malware {name}"));
        texts.push((
            format!("\r\n{}\r\n", stub::malware(&format!("Worm.{name}"))),
            count,
        ));
    }
    texts
}

pub fn malware() -> u64 {
    WORMS
        .map(|name| scaled(&format!("malware {name}")))
        .iter()
        .sum()
}

/// Of strangers' messages.
pub fn clean() -> u64 {
    scaled("scanned") - refused() - scaled("spam passed") - scaled("bad header")
}

/// Of strangers' messages, by the scanner.
pub fn refused() -> u64 {
    let lines = ["spam blocked", "MIME errors", "banned"].map(scaled);
    lines.iter().sum::<u64>() + malware()
}

/// Of strangers' messages.
pub fn passed() -> u64 {
    scaled("scanned") - refused()
}

/// A message of the day's average size.
pub fn message(number: usize, text: &str) -> Vec<u8> {
    let mut message = format!(
        "From: <author@sender.example>\r\nMessage-ID: <{number}@sender.example>\r\n\
         Date: Mon, 20 Sep 2010 12:00:00 +0000\r\n{text}"
    );
    let bytes = bytes() as usize;
    while message.len() < bytes {
        let left = bytes - message.len();
        let line = "a line of a message of that day, as they go on and on\r\n";
        match left >= 2 * line.len() {
            true => message.push_str(line),
            false => {
                let _ = write!(message, "{}\r\n", "x".repeat(left - 2));
            }
        }
    }
    message.into_bytes()
}
