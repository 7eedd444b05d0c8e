//! The source's side against canned servers: all replies are there from the start, and what the client has sent is compared at its end.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

const GREETED: &str = "220 x\r\n250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n";

/// Says everything at once; returns what it was sent.
fn serve(listener: TcpListener, replies: &str) -> std::thread::JoinHandle<String> {
    let canned = format!("{GREETED}{replies}");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(canned.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut sent = String::new();
        stream.read_to_string(&mut sent).unwrap();
        sent
    })
}

fn opening(way: Way, protocol: Protocol) -> Opening {
    Opening {
        protocol,
        helo: "me".into(),
        way,
        tls: None,
    }
}

/// Plays one transaction to two recipients; returns its codes (or whether the message may have been taken) and what was sent after EHLO.
fn play(way: Way, protocol: Protocol, replies: &str) -> (Result<Vec<u16>, bool>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let server = serve(listener, replies);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ended = runtime.block_on(async {
        let mut wire = Wire::open(to, None, &opening(way, protocol)).await.unwrap();
        let recipients = [b"c@d".to_vec(), b"e@f".to_vec()];
        wire.send(b"a@b", &recipients, b"A: 1\r\n\r\nx\r\n").await
    });
    let sent = server.join().unwrap();
    let codes = ended.map(|replies| replies.iter().map(|reply| reply.code).collect());
    let (_, sent) = sent.split_once("me\r\n").unwrap();
    (
        codes.map_err(|broken| broken.at_end),
        sent.replace("\r\n", "|"),
    )
}

/// Two transactions; all codes, and what was sent.
fn play_twice(way: Way, replies: &str) -> ([u16; 4], String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let server = serve(listener, replies);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let codes = runtime.block_on(async {
        let mut wire = Wire::open(to, None, &opening(way, Protocol::Smtp))
            .await
            .unwrap();
        let recipients = [b"c@d".to_vec(), b"e@f".to_vec()];
        let first = wire.send(b"a@b", &recipients, b"x\r\n").await.unwrap();
        let second = wire.send(b"a@b", &recipients, b"x\r\n").await.unwrap();
        [first[0].code, first[1].code, second[0].code, second[1].code]
    });
    (codes, server.join().unwrap().replace("\r\n", "|"))
}

const ENVELOPE: &str = "MAIL FROM:<a@b>|RCPT TO:<c@d>|RCPT TO:<e@f>|";

fn check(way: Way, replies: &[&str], codes: Result<&[u16], bool>, sent: &str) {
    let lines: String = replies.iter().map(|reply| format!("{reply}\r\n")).collect();
    let (ended, said) = play(way, Protocol::Smtp, &lines);
    assert_eq!(ended, codes.map(<[u16]>::to_vec), "{way:?} {replies:?}");
    assert_eq!(said, sent, "{way:?} {replies:?}");
}

#[test]
fn a_message_goes_out_in_each_way() {
    let message = "A: 1||x|";
    check(
        Way::Stepwise,
        &["250 a", "250 b", "250-c", "250 c", "354 go", "250 done"],
        Ok(&[250, 250]),
        &format!("{ENVELOPE}DATA|{message}.|"),
    );
    check(
        Way::Pipelined,
        &["250 a", "250 b", "550 no", "354 go", "250 done"],
        Ok(&[250, 550]),
        &format!("{ENVELOPE}DATA|{message}.|"),
    );
    check(
        Way::Chunked,
        &["250 a", "450 later", "250 c", "452 full"],
        Ok(&[450, 452]),
        &format!("{ENVELOPE}BDAT 11 LAST|{message}"),
    );
}

#[test]
fn refusals_leave_the_dialogue_in_step() {
    check(
        Way::Stepwise,
        &["550 no"],
        Ok(&[550, 550]),
        "MAIL FROM:<a@b>|",
    );
    check(
        Way::Stepwise,
        &["250 a", "550 b", "550 c"],
        Ok(&[550, 550]),
        ENVELOPE,
    );
    check(
        Way::Pipelined,
        &["450 no", "503 b", "503 c", "503 d"],
        Ok(&[450, 450]),
        &format!("{ENVELOPE}DATA|"),
    );
    check(
        Way::Pipelined,
        &["250 a", "550 b", "550 c", "354 go", "554 nobody"],
        Ok(&[550, 550]),
        &format!("{ENVELOPE}DATA|.|"),
    );
    check(
        Way::Pipelined,
        &["250 a", "250 b", "550 c", "451 busy"],
        Ok(&[451, 550]),
        &format!("{ENVELOPE}DATA|"),
    );
    check(
        Way::Chunked,
        &["550 no", "503 b", "503 c", "503 d"],
        Ok(&[550, 550]),
        &format!("{ENVELOPE}BDAT 11 LAST|A: 1||x|"),
    );
}

#[test]
fn an_open_transaction_is_reset_before_the_next() {
    let replies =
        "250 a\r\n550 b\r\n550 c\r\n554 d\r\n250 reset\r\n250 a\r\n250 b\r\n250 c\r\n250 e\r\n";
    let (mut stream, mut heard) = (Vec::new(), Vec::new());
    for way in [Way::Stepwise, Way::Chunked] {
        // Step by step there is no reply to a message that nobody is sent.
        let skipped = if way == Way::Stepwise {
            ""
        } else {
            "554 d\r\n"
        };
        let replies = replies.replace("554 d\r\n", skipped);
        let replies = match way {
            Way::Stepwise => replies.replace("250 e\r\n", "354 go\r\n250 e\r\n"),
            _ => replies,
        };
        let (codes, sent) = play_twice(way, &replies);
        heard.push(codes);
        stream.push(sent);
    }
    assert_eq!(heard, [[550, 550, 250, 250]; 2]);
    for sent in stream {
        assert_eq!(sent.matches("RSET|MAIL").count(), 1, "{sent}");
    }
}

#[test]
fn a_broken_connection_says_whether_the_message_may_be_there() {
    check(
        Way::Stepwise,
        &["250 a"],
        Err(false),
        "MAIL FROM:<a@b>|RCPT TO:<c@d>|",
    );
    check(
        Way::Pipelined,
        &["250 a", "250 b", "250 c", "354 go"],
        Err(true),
        &format!("{ENVELOPE}DATA|A: 1||x|.|"),
    );
    check(
        Way::Pipelined,
        &["250 a", "hello"],
        Err(false),
        &format!("{ENVELOPE}DATA|"),
    );
    check(
        Way::Chunked,
        &["250 a", "250 b"],
        Err(true),
        &format!("{ENVELOPE}BDAT 11 LAST|A: 1||x|"),
    );
}

#[test]
fn lmtp_is_answered_for_each_recipient() {
    let replies = "250 a\r\n250 b\r\n250 c\r\n354 go\r\n250 one\r\n450 two\r\n";
    let (codes, sent) = play(Way::Pipelined, Protocol::Lmtp, replies);
    assert_eq!(codes, Ok(vec![250, 450]));
    assert!(sent.ends_with(".|"), "{sent}");
}

#[test]
fn replies_are_read_whole() {
    for (input, expected) in [
        ("", None),
        ("250 o", None),
        ("250 ok\r\n", Some((250, "", 8))),
        ("250-a\r\n", None),
        ("250-a\r\n250 b\r\n354", Some((250, "", 14))),
        ("550-a\r\n550 b\r\n", Some((550, "550 b", 14))),
        ("450\r\n", Some((450, "450", 5))),
    ] {
        let read = parse(input.as_bytes()).unwrap();
        let read = read
            .as_ref()
            .map(|(reply, bytes)| (reply.code, reply.text.as_str(), *bytes));
        assert_eq!(read, expected, "{input:?}");
    }
    assert!(parse(b"hello\r\n").is_err());
    assert!(parse(b"25\r\n").is_err());
}
