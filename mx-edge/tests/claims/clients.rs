//! What is otherwise for some clients: keywords that they are not offered, and what a bare newline of theirs meets.

use std::net::SocketAddr;

use mx_edge::config::{BareNewline, Clients};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::edge::Site;
use crate::encrypted::public;
use crate::inside::{Inside, Mode, PATIENCE};

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(edge: SocketAddr, source: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(source.parse().unwrap(), 0))
            .unwrap();
        let mut client = Self(BufReader::new(socket.connect(edge).await.unwrap()));
        client.hear().await;
        client
    }

    /// A whole reply.
    async fn hear(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            let read = self.0.read_line(&mut reply);
            tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
            if reply.as_bytes().get(start + 3) != Some(&b'-') {
                return reply;
            }
        }
    }

    async fn say(&mut self, bytes: &str) -> String {
        self.0.get_mut().write_all(bytes.as_bytes()).await.unwrap();
        self.hear().await
    }
}

fn clients(network: &str, bare_newline: Option<BareNewline>, off: Option<&[&str]>) -> Clients {
    Clients {
        networks: vec![network.parse().unwrap()],
        bare_newline,
        keywords_off: off.map(|off| off.iter().map(|&keyword| keyword.into()).collect()),
    }
}

#[tokio::test]
async fn a_client_may_be_served_otherwise() {
    let ca = tempfile::tempdir().unwrap();
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.tls = Some(public(ca.path()));
    site.config.mail.keywords_off = vec!["DSN".into()];
    let off: &[&str] = &["chunking", "STARTTLS"];
    site.config.mail.clients = vec![
        clients("127.0.0.9", Some(BareNewline::Refuse), Some(off)),
        clients("127.0.0.8/30", Some(BareNewline::Note), None),
        clients("127.0.0.12", None, Some(&[])),
    ];
    let edge = site.start().await;
    let keywords = ["CHUNKING", "STARTTLS", "DSN", "PIPELINING"];
    for (source, offered, data, bdat, starttls) in [
        (
            "127.0.0.1",
            &["CHUNKING", "STARTTLS", "PIPELINING"][..],
            "250",
            "250",
            "220",
        ),
        (
            "127.0.0.9",
            &["DSN", "PIPELINING"],
            "550 5.5.2",
            "502",
            "502",
        ),
        (
            "127.0.0.10",
            &["CHUNKING", "STARTTLS", "PIPELINING"],
            "250",
            "250",
            "220",
        ),
        ("127.0.0.12", &keywords, "250", "250", "220"),
    ] {
        let mut client = Client::connect(edge.address, source).await;
        let heard = client.say("EHLO client.elsewhere.example\r\n").await;
        let mut said: Vec<&str> = keywords.to_vec();
        said.retain(|keyword| {
            let mut lines = heard.lines();
            lines.any(|line| line.get(4..).is_some_and(|line| line.trim() == *keyword))
        });
        assert_eq!(said, offered, "{source}: {heard}");
        let begin = "MAIL FROM:<ann@elsewhere.example>\r\n";
        let to = "RCPT TO:<joe@b.example>\r\n";
        for line in [begin, to, "DATA\r\n"] {
            let reply = client.say(line).await;
            assert!(reply.starts_with(['2', '3']), "{source} {line}: {reply}");
        }
        let reply = client.say("Subject: x\r\n\r\none\ntwo\r\n.\r\n").await;
        assert!(reply.starts_with(data), "{source}: {reply}");
        client.say(begin).await;
        client.say(to).await;
        let reply = client.say("BDAT 4 LAST\r\na\r\n\n").await;
        let expected = match bdat {
            "502" => reply.starts_with("502") || reply.starts_with("500"),
            code => reply.starts_with(code),
        };
        assert!(expected, "{source}: {reply}");
        client.say("RSET\r\n").await;
        let reply = client.say("STARTTLS\r\n").await;
        let refused = reply.starts_with('5');
        assert_eq!(refused, starttls == "502", "{source}: {reply}");
    }
    // Of the one whose newlines are noted, each message is told; nobody's is passed on as it came.
    let warned = edge.metric("mx_edge_warned_recipients_total", "bare_newline");
    assert_eq!(warned, 2.0);
    assert_eq!(edge.metric("mx_edge_objections_total", "bare_newline"), 1.0);
    for got in inside.got() {
        let text = String::from_utf8_lossy(&got.message).replace("\r\n", "");
        assert!(!text.contains(['\r', '\n']), "{text:?}");
    }
    edge.stop().await;
}
