//! spamd: one SYMBOLS request a connection, its answer read leniently, under the caller's deadline.
//!
//! SYMBOLS only: HEADERS and PROCESS rewrite the message, and what passes here must stay byte for byte what was signed.
//! Owns the dialogue; never decides what a score means.

use std::borrow::Cow;
use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::endpoint::{Endpoint, Stream};
use crate::trouble::{Cause, Kind, Trouble};

/// Largest answer that is read, bytes; SpamAssassin's 2,000 rule names together are about 40 KiB.
pub const ANSWER_BYTES_MAX: usize = 131_072;

/// The rule name that marks a score made from the message's beginning alone.
pub const TRUNCATED: &str = "TRUNCATED_SCAN";

/// What spamd said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The score in hundredths of a point.
    pub score_hundredths: i32,
    /// Names of the rules that hit; the first is [`TRUNCATED`] when only the beginning was shown to spamd.
    pub tests: Vec<Box<str>>,
}

/// What spamd is asked.
pub struct Question<'a> {
    /// Put before the message: our `Return-Path` and results.
    pub preamble: &'a [u8],
    /// The message.
    pub message: &'a [u8],
    /// Of it at most so many bytes are shown.
    pub bytes_max: usize,
    /// Whose preferences and Bayes data are used (`User`); empty: spamd's own.
    pub user: &'a str,
    /// Whether it travels compressed.
    pub compress: bool,
}

/// Asks about a message.
pub async fn ask(
    endpoint: &Endpoint,
    question: &Question<'_>,
    deadline: Instant,
) -> Result<Finding, Trouble> {
    let shown = shown(question.message, question.bytes_max);
    let request = Request {
        parts: question.parts(shown),
        ends: question.compress,
    };
    let mut result = once(endpoint, &request, deadline).await;
    // A child that was killed closes its connection without a word; its parent has another one in milliseconds.
    if matches!(result, Err(Cause::Closed)) {
        result = once(endpoint, &request, deadline).await;
    }
    let mut finding = result.map_err(|cause| Trouble {
        daemon: Kind::Spamd,
        cause,
    })?;
    if shown.len() < question.message.len() {
        finding.tests.insert(0, TRUNCATED.into());
    }
    Ok(finding)
}

/// The message, or its beginning up to the end of the last whole line within `bytes_max`.
fn shown(message: &[u8], bytes_max: usize) -> &[u8] {
    if message.len() <= bytes_max {
        return message;
    }
    let head = &message[..bytes_max];
    let end = head
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(bytes_max, |at| at + 1);
    &message[..end]
}

/// What goes over the wire.
struct Request<'a> {
    parts: [Cow<'a, [u8]>; 3],
    /// Whether our side is closed then.
    ends: bool,
}

impl Question<'_> {
    /// Head and content, in pieces that are written one after another.
    fn parts<'a>(&'a self, shown: &'a [u8]) -> [Cow<'a, [u8]>; 3] {
        let content = match self.compress {
            true => [Cow::Owned(zlib(&[self.preamble, shown])), Cow::default()],
            false => [self.preamble.into(), shown.into()],
        };
        let length = content[0].len() + content[1].len();
        let mut head = format!("SYMBOLS SPAMC/1.5\r\nContent-length: {length}\r\n");
        if !self.user.is_empty() {
            head += &format!("User: {}\r\n", self.user);
        }
        if self.compress {
            head += "Compress: zlib\r\n";
        }
        head += "\r\n";
        let [first, second] = content;
        [Cow::Owned(head.into_bytes()), first, second]
    }
}

fn zlib(parts: &[&[u8]]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    for part in parts {
        encoder.write_all(part).expect("memory takes all");
    }
    encoder.finish().expect("memory takes all")
}

async fn once(
    endpoint: &Endpoint,
    request: &Request<'_>,
    deadline: Instant,
) -> Result<Finding, Cause> {
    match timeout_at(deadline, dialogue(endpoint, request)).await {
        Ok(result) => result,
        Err(_) => Err(Cause::TimedOut),
    }
}

async fn dialogue(endpoint: &Endpoint, request: &Request<'_>) -> Result<Finding, Cause> {
    let mut stream = endpoint
        .connect()
        .await
        .map_err(|error| Cause::Connect(error.to_string()))?;
    // After a failed write the daemon may have said why: its answer counts more than our error.
    let written = write(&mut *stream, request).await;
    match (read(&mut *stream).await, written) {
        (Ok(finding), _) => Ok(finding),
        (Err(Cause::Closed), Err(error)) => Err(Cause::Broken(error.to_string())),
        (Err(cause), _) => Err(cause),
    }
}

async fn write(stream: &mut dyn Stream, request: &Request<'_>) -> std::io::Result<()> {
    for part in &request.parts {
        stream.write_all(part).await?;
    }
    // What is compressed spamd reads to the end of the stream, whatever length it was told.
    match request.ends {
        true => stream.shutdown().await,
        false => stream.flush().await,
    }
}

async fn read(stream: &mut dyn Stream) -> Result<Finding, Cause> {
    let mut answer = Vec::with_capacity(1024);
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) => return parse(&answer, true)?.ok_or(Cause::Closed),
            Ok(_) => {}
            Err(error) => return Err(Cause::Broken(error.to_string())),
        }
        if let Some(finding) = parse(&answer, false)? {
            return Ok(finding);
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(Cause::Protocol(format!(
                "more than {ANSWER_BYTES_MAX} bytes"
            )));
        }
    }
}

/// Reads an answer as far as it has come; `None` means more must come. `ended` says that nothing more will.
///
/// The version after `SPAMD/` is not looked at: spamd 4.0.1 answers 1.0, 1.1 and 1.5, depending on what it says.
pub fn parse(answer: &[u8], ended: bool) -> Result<Option<Finding>, Cause> {
    let Some(status_end) = line_end(answer, 0) else {
        return short(answer, ended);
    };
    let status = String::from_utf8_lossy(&answer[..status_end]);
    let mut words = status.trim_end().splitn(3, ' ');
    let (banner, code) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if !banner.starts_with("SPAMD/") {
        return Err(Cause::Protocol(printable(&status)));
    }
    match code.parse::<u32>() {
        Ok(0) => {}
        Ok(_) => return Err(Cause::Refused(printable(&status))),
        Err(_) => return Err(Cause::Protocol(printable(&status))),
    }
    let mut at = status_end;
    let (mut score, mut length) = (None, None);
    loop {
        let Some(end) = line_end(answer, at) else {
            return short(answer, ended);
        };
        let line = String::from_utf8_lossy(&answer[at..end]);
        let line = line.trim_end();
        at = end;
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(Cause::Protocol(printable(line)));
        };
        if name.eq_ignore_ascii_case("Spam") {
            score = Some(spam(value).ok_or_else(|| Cause::Protocol(printable(line)))?);
        } else if name.eq_ignore_ascii_case("Content-length") {
            let value = value.trim().parse::<usize>();
            length = Some(value.map_err(|_| Cause::Protocol(printable(line)))?);
        }
    }
    let score = score.ok_or_else(|| Cause::Protocol("no Spam field".into()))?;
    let body = &answer[at..];
    let body = match length {
        Some(length) if body.len() >= length => &body[..length],
        None if ended => body,
        _ => return short(answer, ended),
    };
    Ok(Some(Finding {
        score_hundredths: score,
        tests: tests(body),
    }))
}

/// More must come, unless nothing will.
fn short(answer: &[u8], ended: bool) -> Result<Option<Finding>, Cause> {
    match ended {
        false => Ok(None),
        true if answer.is_empty() => Err(Cause::Closed),
        true => Err(Cause::Protocol(format!(
            "ends after {} bytes",
            answer.len()
        ))),
    }
}

fn line_end(answer: &[u8], from: usize) -> Option<usize> {
    let at = answer[from..].iter().position(|&b| b == b'\n')?;
    Some(from + at + 1)
}

/// The score of ` True ; 1004.2 / 5.0`, in hundredths. Its word and its limit are SpamAssassin's own policy; ours is in `decide`.
fn spam(value: &str) -> Option<i32> {
    let (_, numbers) = value.split_once(';')?;
    let (score, _) = numbers.split_once('/')?;
    hundredths(score.trim())
}

/// `-0.0`, `1004.2`, `5`: a decimal number in hundredths, saturating; more decimals are cut.
fn hundredths(text: &str) -> Option<i32> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let cents = format!("{fraction:0<2}")[..2].parse::<i64>().ok()?;
    let points = whole.parse::<i64>().unwrap_or(i64::from(i32::MAX));
    let value = points.saturating_mul(100).saturating_add(cents);
    let value = if negative { -value } else { value };
    Some(value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
}

/// Rule names, comma-separated; anything that is no rule name is left out, since it would go into a header.
fn tests(body: &[u8]) -> Vec<Box<str>> {
    let is_name = |name: &&str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    String::from_utf8_lossy(body)
        .split([',', '\r', '\n', ' '])
        .filter(is_name)
        .map(Into::into)
        .collect()
}

fn printable(text: &str) -> String {
    let clean = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    clean.take(200).collect()
}

#[cfg(test)]
mod answers {
    use super::*;

    /// Whole, and byte by byte: no prefix may be taken for the answer, nor for an error.
    fn check(answer: &str, ended: bool, expected: Result<(i32, &str), &str>) {
        let bytes = answer.as_bytes();
        let read = parse(bytes, ended).map(|finding| finding.expect("whole"));
        match (&read, expected) {
            (Ok(finding), Ok((score, tests))) => {
                assert_eq!(finding.score_hundredths, score, "{answer:?}");
                assert_eq!(finding.tests.join(","), tests, "{answer:?}");
                for end in 0..bytes.len() {
                    assert_eq!(parse(&bytes[..end], false), Ok(None), "{answer:?} {end}");
                }
            }
            (Err(cause), Err(label)) => assert_eq!(cause.label(), label, "{answer:?}"),
            _ => panic!("{answer:?}: {read:?}"),
        }
    }

    #[test]
    fn answers_of_spamd() {
        let ok =
            "SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\nSpam: True ; 1004.2 / 5.0\r\n\r\nGTUBE,A_1";
        check(ok, false, Ok((100_420, "GTUBE,A_1")));
        let negative = "SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; -0.0 / 5.0\r\n\r\n";
        check(negative, false, Ok((0, "")));
        let order = "SPAMD/1.5 0 EX_OK\nspam: False ; -2.35 / 5.0\ncontent-LENGTH: 3\n\nA,B";
        check(order, false, Ok((-235, "A,B")));
        let until_eof = "SPAMD/1.1 0 EX_OK\r\nSpam: False ; 5 / 5.0\r\n\r\nA, B\r\n";
        check(until_eof, true, Ok((500, "A,B")));
        let unsafe_names = "SPAMD/1.1 0 EX_OK\r\nSpam: False ; 0.1 / 5.0\r\n\r\nA,<b>,C\u{7},D";
        check(unsafe_names, true, Ok((10, "A,D")));
    }

    #[test]
    fn answers_that_are_trouble() {
        check("", true, Err("closed"));
        check(
            "SPAMD/1.0 76 Bad header line: (Content-Length mismatch)\r\n",
            false,
            Err("refused"),
        );
        check(
            "SPAMD/1.0 79 Timeout: (30 second socket timeout)\r\n",
            false,
            Err("refused"),
        );
        check(
            "SPAMD/1.0 69 Service Unavailable\r\n",
            false,
            Err("refused"),
        );
        check("220 hello\r\n", false, Err("protocol"));
        check("SPAMD/1.1 zero EX_OK\r\n", false, Err("protocol"));
        check("SPAMD/1.1 0 EX_OK\r\n\r\n", false, Err("protocol"));
        check(
            "SPAMD/1.1 0 EX_OK\r\nSpam: yes\r\n\r\n",
            false,
            Err("protocol"),
        );
        check(
            "SPAMD/1.1 0 EX_OK\r\nSpam: True ; x / 5\r\n\r\n",
            false,
            Err("protocol"),
        );
        check("SPAMD/1.1 0 EX_OK\r\nno colon\r\n", false, Err("protocol"));
        check(
            "SPAMD/1.1 0 EX_OK\r\nContent-length: -1\r\n",
            false,
            Err("protocol"),
        );
        check("SPAMD/1.1 0 EX_OK\r\nSpam: T", true, Err("protocol"));
        let cut = "SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\nSpam: True ; 9 / 5.0\r\n\r\nGTU";
        check(cut, true, Err("protocol"));
    }

    #[test]
    fn numbers_in_hundredths() {
        let table = [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("+1.5", Some(150)),
            ("1.999", Some(199)),
            ("-12.3", Some(-1230)),
            ("99999999999", Some(i32::MAX)),
            ("-99999999999999999999999", Some(i32::MIN)),
            (".5", None),
            ("1e3", None),
            ("nan", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(hundredths(text), expected, "{text}");
        }
    }

    #[test]
    fn a_truncated_message_ends_at_a_line() {
        assert_eq!(shown(b"one\r\ntwo\r\n", 10), b"one\r\ntwo\r\n");
        assert_eq!(shown(b"one\r\ntwo\r\n", 9), b"one\r\n");
        assert_eq!(shown(b"onetwo", 3), b"one");
    }
}
