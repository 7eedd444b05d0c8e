//! The client against servers that follow a script, well or badly, with the clock paused.
//!
//! `S: ` a line that the server says, `S> ` bytes without CRLF, `C: ` the start of a line that must come, `C= ` all of it, `M: ` a message that must come up
//! to the dot, `B: n` that many bytes of a chunk, `X` closes, `Z` says nothing more but stays. Everything the server says is played
//! a line at a time and a byte at a time.

mod connection;
mod transaction;

use mail::envelope::{Notify, OriginalRecipient, Ret};
use mail::{Address, Body};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::time::Instant;

use super::super::connection::Connection;
use super::super::*;
use crate::testing::{certificate, envelope};
use crate::xforward::Xforward;

/// Plays the server's part; what is wrong with the client's part is a panic.
async fn server(stream: DuplexStream, script: String, piece: usize) {
    let mut stream = BufReader::new(stream);
    for line in script
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty())
    {
        let (act, text) = line.split_at(line.len().min(3));
        match act {
            "S: " | "S> " => {
                let end = if act == "S: " { "\r\n" } else { "" };
                let text = text.replace("\\r", "\r").replace("\\n", "\n");
                for bytes in format!("{text}{end}").as_bytes().chunks(piece) {
                    // The client may have had enough.
                    let _ = stream.write_all(bytes).await;
                    tokio::task::yield_now().await;
                }
            }
            "C: " | "C= " => {
                let mut came = String::new();
                stream.read_line(&mut came).await.unwrap();
                assert!(came.starts_with(text), "{text:?} expected, {came:?} came");
                assert!(came.ends_with("\r\n"), "{came:?}");
                let whole = came.len() == text.len() + 2;
                assert!(act == "C: " || whole, "{text:?} expected, {came:?} came");
            }
            "M: " => {
                let mut came = Vec::new();
                while !came.ends_with(b"\r\n.\r\n") && came != b".\r\n" {
                    came.push(stream.read_u8().await.unwrap());
                }
                assert_eq!(came.escape_ascii().to_string(), text);
            }
            "B: " => {
                let mut came = vec![0; text.parse().unwrap()];
                stream.read_exact(&mut came).await.unwrap();
            }
            "X" => return,
            "Z" => std::future::pending().await,
            _ => panic!("what is {line:?}?"),
        }
    }
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "", "nothing more was expected");
}

struct Case<'a> {
    options: Options,
    envelope: Envelope,
    message: &'a [u8],
    script: &'a str,
}

fn options(protocol: Protocol) -> Options {
    Options {
        protocol,
        helo: "client.example".into(),
        tls: TlsPolicy::Never,
        timeouts: Timeouts::default(),
        source: None,
        chunking: true,
    }
}

fn case<'a>(script: &'a str) -> Case<'a> {
    Case {
        options: options(Protocol::Smtp),
        envelope: envelope("s@example.org", &["a@example.org", "b@example.org"]),
        message: b"x\r\n",
        script,
    }
}

/// What the client makes of it: codes, or the trouble with its phase; then a second transaction on the same connection.
async fn outcome(case: &Case<'_>, piece: usize) -> String {
    // Small, so that long messages meet a server that does not read.
    let (stream, theirs) = duplex(16 * 1024);
    let playing = tokio::spawn(server(theirs, case.script.to_owned(), piece));
    let client = async {
        let mut connection = Connection::open(stream, &case.options).await?;
        connection.xforward(&Xforward {
            port: Some(1),
            ..Xforward::default()
        });
        let message = [Bytes::copy_from_slice(case.message)];
        let answers = connection.send(&case.envelope, &message).await?;
        let codes: Vec<String> = (answers.iter().map(|a| a.reply.code.to_string())).collect();
        connection.quit().await;
        Ok::<_, Trouble>(codes.join(" "))
    };
    let told = match client.await {
        Ok(codes) => codes,
        Err(trouble) => trouble.to_string(),
    };
    if playing.is_finished() || !case.script.trim_end().ends_with('Z') {
        playing.await.unwrap();
    } else {
        playing.abort();
    }
    told
}

async fn check(case: Case<'_>, expected: &str) {
    for piece in [usize::MAX, 1] {
        assert_eq!(outcome(&case, piece).await, expected, "{}", case.script);
    }
}

const PIPELINING: &str = "S: 220 x\nC: EHLO client.example\nS: 250-x\nS: 250 PIPELINING\n";
const CHUNKING: &str =
    "S: 220 x\nC: EHLO client.example\nS: 250-x\nS: 250-PIPELINING\nS: 250 CHUNKING\n";
const PLAIN: &str = "S: 220 x\nC: EHLO client.example\nS: 250 x\n";
const ENVELOPE: &str =
    "C: MAIL FROM:<s@example.org>\nC: RCPT TO:<a@example.org>\nC: RCPT TO:<b@example.org>\n";

async fn checks(rows: &[(&str, &str, &str)]) {
    for (hello, script, expected) in rows {
        check(case(&format!("{hello}{script}")), expected).await;
    }
}
