//! What has been done to other servers between two of their replies, done to this one: every way known to end a message early, and a
//! dictionary of addresses.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use mx_edge::config::BareNewline;
use service::tls::opportunistic_client;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::edge::{Edge, Site};
use crate::encrypted::public;
use crate::inside::{Inside, Mode, PATIENCE};

/// What some server somewhere has taken for the end of a message (SMTP smuggling, 2023). None is; one dot is taken off where a line begins.
const ENDS: [&[u8]; 11] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n..\r\n",
    LONG,
];

/// A dot, and a line as long as lines may be.
const LONG: &[u8] = &{
    let mut line = [b'x'; 1000];
    line[0] = b'\r';
    line[1] = b'\n';
    line[2] = b'.';
    line[998] = b'\r';
    line[999] = b'\n';
    line
};

/// A second message, as it would be read as commands if the first had ended.
const SECOND: &[u8] =
    b"MAIL FROM:<ceo@smuggled.example>\r\nRCPT TO:<dev@lists.example>\r\nDATA\r\n\
    From: ceo@smuggled.example\r\nSubject: smuggled\r\n\r\nPay at once.\r\n.\r\n";

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct Client(BufReader<Box<dyn Stream>>);

impl Client {
    async fn connect(edge: &Edge) -> Self {
        let stream = TcpStream::connect(edge.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Self(BufReader::new(Box::new(stream)));
        client.hear().await;
        client.say("EHLO client.elsewhere.example").await;
        client
    }

    /// Likewise by TLS, where each piece is a record of its own.
    async fn encrypted(edge: &Edge) -> Self {
        let mut client = Self::connect(edge).await;
        let reply = client.say("STARTTLS").await;
        assert!(reply.starts_with("220"), "{reply}");
        let name = ServerName::try_from("mx1.example").unwrap();
        let connector = TlsConnector::from(opportunistic_client());
        let stream = connector
            .connect(name, client.0.into_inner())
            .await
            .unwrap();
        let mut client = Self(BufReader::new(Box::new(stream)));
        client.say("EHLO client.elsewhere.example").await;
        client
    }

    /// The last line of a reply.
    async fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line);
            tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    async fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes(), usize::MAX)
            .await;
        self.hear().await
    }

    /// In pieces of so many octets, a segment each.
    async fn send(&mut self, bytes: &[u8], piece: usize) {
        for bytes in bytes.chunks(piece) {
            self.0.get_mut().write_all(bytes).await.unwrap();
            self.0.get_mut().flush().await.unwrap();
        }
    }

    async fn begin(&mut self) {
        for line in [
            "MAIL FROM:<ann@elsewhere.example>",
            "RCPT TO:<dev@lists.example>",
        ] {
            let reply = self.say(line).await;
            assert!(reply.starts_with("250"), "{reply}");
        }
    }
}

/// Sends each false end with a message behind it; the reply that the one message gets.
async fn check(
    bare_newline: BareNewline,
    (piece, tls): (usize, bool),
    expected: &dyn Fn(&[u8]) -> &'static str,
) {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.mail.bare_newline = bare_newline;
    let ca = tempfile::tempdir().unwrap();
    site.config.tls = Some(public(ca.path()));
    let edge = site.start().await;
    let mut taken = 0;
    for end in ENDS {
        let shown = end.escape_ascii();
        let mut client = match tls {
            true => Client::encrypted(&edge).await,
            false => Client::connect(&edge).await,
        };
        client.begin().await;
        let reply = client.say("DATA").await;
        assert!(reply.starts_with("354"), "{reply}");
        let message = [b"Subject: first\r\n\r\nHello.".as_slice(), end, SECOND].concat();
        client.send(&message, piece).await;
        let reply = client.hear().await;
        let wanted = expected(end);
        assert!(reply.starts_with(wanted), "{shown}: {reply}");
        // Had there been two messages, there would be more replies before this one.
        let reply = client.say("NOOP").await;
        assert!(reply.starts_with("250 2.0.0 Ok"), "{shown}: {reply}");
        taken += usize::from(wanted == "250");
        assert_eq!(inside.got().len(), taken, "{shown}");
    }
    for got in inside.got() {
        let text = got.message.escape_ascii().to_string();
        let lines = text.replace("\\r\\n", "");
        assert!(!lines.contains("\\r") && !lines.contains("\\n"), "{text}");
        assert!(text.contains("Pay at once"), "one whole message: {text}");
        let from = text.matches("Received: from").count();
        assert_eq!(from, 1, "{text}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn only_crlf_dot_crlf_ends_a_message() {
    let normalize = |_: &[u8]| "250";
    let (at_once, bytewise) = ((usize::MAX, false), (1, false));
    check(BareNewline::Normalize, at_once, &normalize).await;
    check(BareNewline::Normalize, bytewise, &normalize).await;
    check(BareNewline::Normalize, (usize::MAX, true), &normalize).await;
    check(BareNewline::Normalize, (1, true), &normalize).await;
    let refuse = |end: &[u8]| {
        let rest = end.escape_ascii().to_string().replace("\\r\\n", "");
        match rest.contains("\\r") || rest.contains("\\n") {
            true => "550 5.5.2",
            false => "250",
        }
    };
    check(BareNewline::Note, bytewise, &normalize).await;
    check(BareNewline::Refuse, at_once, &refuse).await;
    check(BareNewline::Refuse, bytewise, &refuse).await;
    check(BareNewline::Refuse, (1, true), &refuse).await;
}

#[tokio::test]
async fn who_stays_after_quit_is_shown_out() {
    let inside = Inside::start(Mode::Listening).await;
    let site = Site::new(&inside);
    let edge = site.start().await;
    let mut client = Client::connect(&edge).await;
    let reply = client.say("QUIT").await;
    assert!(reply.starts_with("221"), "{reply}");
    // Its own side stays open; ours does not wait for that, nor does the end of the program.
    let mut rest = Vec::new();
    let read = client.0.read_to_end(&mut rest);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    tokio::time::timeout(PATIENCE, edge.stop()).await.unwrap();
}

#[tokio::test]
async fn a_refused_chunk_is_no_commands() {
    let inside = Inside::start(Mode::Listening).await;
    let site = Site::new(&inside);
    let edge = site.start().await;
    let mut client = Client::connect(&edge).await;
    let chunk = |last: &str| {
        let command = format!("BDAT {}{last}\r\n", SECOND.len());
        [command.as_bytes(), SECOND].concat()
    };
    // Without a transaction, and without recipients.
    client.send(&chunk(" LAST"), 7).await;
    assert!(client.hear().await.starts_with("503"));
    client.say("MAIL FROM:<ann@elsewhere.example>").await;
    client.send(&chunk(""), 7).await;
    assert!(client.hear().await.starts_with("554"));
    client.say("RSET").await;
    // A message that ends with nothing; and neither kind continues the other.
    client.begin().await;
    client.send(b"BDAT 16\r\nSubject: x\r\n\r\n..", 3).await;
    assert!(client.hear().await.starts_with("250"));
    assert!(client.say("DATA").await.starts_with("503"));
    client.send(b"BDAT 0 LAST\r\n", 3).await;
    assert!(client.hear().await.starts_with("250"));
    assert!(client.say("NOOP").await.starts_with("250 2.0.0 Ok"));
    let got = inside.wait_for(1).await;
    let text = got[0].message.escape_ascii().to_string();
    assert!(
        text.contains("Subject: x\\r\\n\\r\\n..") && !text.contains("smuggled"),
        "{text}"
    );
    edge.stop().await;
}

/// Every file below the folder with its size and time.
fn files(folder: &Path, found: &mut BTreeMap<String, (u64, SystemTime)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let facts = entry.metadata().unwrap();
        if facts.is_dir() {
            files(&entry.path(), found);
        } else {
            let changed = (facts.len(), facts.modified().unwrap());
            found.insert(entry.path().display().to_string(), changed);
        }
    }
}

#[tokio::test]
async fn a_dictionary_attack_costs_no_disk() {
    let inside = Inside::start(Mode::Down).await;
    let mut site = Site::new(&inside);
    site.config.limits.errors_max = 10_000;
    site.config.limits.errors_soft = 10_000;
    let edge = site.start().await;
    let mut client = Client::connect(&edge).await;
    client.say("MAIL FROM:<ann@elsewhere.example>").await;
    let state = || {
        let mut found = BTreeMap::new();
        files(&site.config.state, &mut found);
        found
    };
    let before = state();
    assert!(!before.is_empty());
    let commands: String = (0..2_000)
        .map(|number| format!("RCPT TO:<guess{number}@b.example>\r\n"))
        .collect();
    client.send(commands.as_bytes(), usize::MAX).await;
    for _ in 0..2_000 {
        let reply = client.hear().await;
        assert!(reply.starts_with("550 5.1.1"), "{reply}");
    }
    assert_eq!(state(), before, "nothing was written");
    drop(client);
    edge.stop().await;
}
