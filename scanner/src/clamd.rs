//! clamd: one zINSTREAM a connection, its answer mapped; zVERSION for the version of its signatures.
//!
//! Never IDSESSION: there one oversize stream takes its siblings' answers with it. Never more than the size that clamd was
//! configured for: sizes are checked before sending. Owns the dialogue; never decides what a finding means for a message.

use mail::Timestamp;
use time::PrimitiveDateTime;
use time::macros::format_description;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, Instant, timeout_at};

use crate::endpoint::{Endpoint, Stream};
use crate::trouble::{Cause, Kind, Trouble};

/// Largest answer that is read, bytes; a signature's name is far shorter.
pub const ANSWER_BYTES_MAX: usize = 4096;

/// Bytes in one chunk of a stream: few system calls, and small beside the socket's buffer.
const CHUNK_BYTES: usize = 65_536;

/// What clamd said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// `OK`.
    Clean,
    /// `NAME FOUND`.
    Infected(Box<str>),
    /// It could not look inside: beyond its limits, or encrypted (and configured to say so).
    Unscanned(Box<str>),
    /// Larger than what it takes.
    Oversized(Box<str>),
}

impl Finding {
    /// About a message that was not sent.
    pub fn oversized(bytes: u64, bytes_max: u64) -> Self {
        let reason = format!("{bytes} bytes, clamd is given at most {bytes_max}");
        Self::Oversized(reason.into())
    }
}

/// Asks about a message. One larger than `bytes_max` is not sent.
pub async fn ask(
    endpoint: &Endpoint,
    message: &[u8],
    bytes_max: u64,
    deadline: Instant,
) -> Result<Finding, Trouble> {
    let length = message.len() as u64;
    if length > bytes_max {
        return Ok(Finding::oversized(length, bytes_max));
    }
    let answer = timeout_at(deadline, instream(endpoint, message)).await;
    answer
        .unwrap_or(Err(Cause::TimedOut))
        .and_then(|answer| parse(&answer))
        .map_err(trouble)
}

/// Asks about `head`, so many bytes of text, and `tail`. What it says of its limits is a finding too.
pub async fn ask_padded(
    endpoint: &Endpoint,
    head: &[u8],
    text_bytes: u64,
    tail: &[u8],
    deadline: Instant,
) -> Result<Finding, Trouble> {
    let asked = async {
        let mut stream = connect(endpoint).await?;
        let written = write_padded(&mut *stream, head, text_bytes, tail).await;
        answered(&mut *stream, written).await
    };
    let answer = timeout_at(deadline, asked).await;
    answer
        .unwrap_or(Err(Cause::TimedOut))
        .and_then(|answer| parse(&answer))
        .map_err(trouble)
}

/// Whether a stream of this size is taken: one that is too large is refused as soon as it is announced.
pub async fn takes(endpoint: &Endpoint, bytes: u64, silence: Duration) -> Result<bool, Trouble> {
    let asked = async {
        let mut stream = connect(endpoint).await?;
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        let announced = async {
            stream.write_all(b"zINSTREAM\0").await?;
            stream.write_all(&length.to_be_bytes()).await?;
            stream.flush().await
        };
        let announced = announced.await;
        announced.map_err(|error| Cause::Broken(error.to_string()))?;
        match tokio::time::timeout(silence, read(&mut *stream)).await {
            Err(_) => Ok(true),
            Ok(Ok(answer)) => Ok(!matches!(parse(&answer), Ok(Finding::Oversized(_)))),
            Ok(Err(cause)) => Err(cause),
        }
    };
    asked.await.map_err(trouble)
}

/// The version of the engine and its signatures, `ClamAV 1.4.6/27771/Mon Sep  8 ...`; without the latter for a database of one's own.
pub async fn version(endpoint: &Endpoint, deadline: Instant) -> Result<Box<str>, Trouble> {
    let asked = async {
        let mut stream = connect(endpoint).await?;
        let written = stream.write_all(b"zVERSION\0").await;
        written.map_err(|error| Cause::Broken(error.to_string()))?;
        read(&mut *stream).await
    };
    let answer = timeout_at(deadline, asked).await;
    let answer = answer.unwrap_or(Err(Cause::TimedOut)).map_err(trouble)?;
    match answer.starts_with("ClamAV ") {
        true => Ok(printable(&answer).into()),
        false => Err(trouble(Cause::Protocol(printable(&answer)))),
    }
}

/// When the signatures of a version were made; `None` without a date, as for a database of one's own.
pub fn signatures_made(version: &str) -> Option<Timestamp> {
    let format = format_description!(
        "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]"
    );
    let date = version.splitn(3, '/').nth(2)?;
    let made = PrimitiveDateTime::parse(date.trim(), format).ok()?;
    let seconds = u64::try_from(made.assume_utc().unix_timestamp()).ok()?;
    Some(Timestamp(seconds * 1000))
}

fn trouble(cause: Cause) -> Trouble {
    Trouble {
        daemon: Kind::Clamd,
        cause,
    }
}

async fn connect(endpoint: &Endpoint) -> Result<Box<dyn Stream>, Cause> {
    let connected = endpoint.connect().await;
    connected.map_err(|error| Cause::Connect(error.to_string()))
}

async fn instream(endpoint: &Endpoint, message: &[u8]) -> Result<String, Cause> {
    let mut stream = connect(endpoint).await?;
    // A refusal in mid-stream shows up as EPIPE here first; what clamd said stands in the socket.
    let written = write(&mut *stream, message).await;
    answered(&mut *stream, written).await
}

async fn answered(stream: &mut dyn Stream, written: std::io::Result<()>) -> Result<String, Cause> {
    match (read(stream).await, written) {
        (Ok(answer), _) => Ok(answer),
        (Err(_), Err(error)) => Err(Cause::Broken(error.to_string())),
        (Err(cause), Ok(())) => Err(cause),
    }
}

async fn write(stream: &mut dyn Stream, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(b"zINSTREAM\0").await?;
    chunks(stream, message).await?;
    stream.write_all(&0u32.to_be_bytes()).await?;
    stream.flush().await
}

async fn chunks(stream: &mut dyn Stream, bytes: &[u8]) -> std::io::Result<()> {
    for chunk in bytes.chunks(CHUNK_BYTES) {
        stream
            .write_all(&(chunk.len() as u32).to_be_bytes())
            .await?;
        stream.write_all(chunk).await?;
    }
    Ok(())
}

async fn write_padded(
    stream: &mut dyn Stream,
    head: &[u8],
    text_bytes: u64,
    tail: &[u8],
) -> std::io::Result<()> {
    const LINE: &[u8] = b"The quick brown fox jumps over the lazy dog, again and again.\r\n\r\n";
    let text = LINE.repeat(CHUNK_BYTES / LINE.len());
    stream.write_all(b"zINSTREAM\0").await?;
    chunks(stream, head).await?;
    let mut left = usize::try_from(text_bytes).unwrap_or(usize::MAX);
    while left > 0 {
        let piece = &text[..left.min(text.len())];
        chunks(stream, piece).await?;
        left -= piece.len();
    }
    chunks(stream, tail).await?;
    stream.write_all(&0u32.to_be_bytes()).await?;
    stream.flush().await
}

/// Reads up to the NUL (or the LF of the few answers that ignore the `z`).
async fn read(stream: &mut dyn Stream) -> Result<String, Cause> {
    let mut answer = Vec::with_capacity(256);
    loop {
        if let Some(text) = whole(&answer) {
            return Ok(text);
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(Cause::Protocol(format!(
                "more than {ANSWER_BYTES_MAX} bytes"
            )));
        }
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err(Cause::Closed),
            Ok(_) => {}
            Err(error) => return Err(Cause::Broken(error.to_string())),
        }
    }
}

/// The answer once its terminator has come.
pub fn whole(answer: &[u8]) -> Option<String> {
    let end = answer.iter().position(|&b| b == 0 || b == b'\n')?;
    Some(String::from_utf8_lossy(&answer[..end]).into_owned())
}

/// Maps an answer to zINSTREAM.
pub fn parse(answer: &str) -> Result<Finding, Cause> {
    let text = answer.trim_end();
    if text == "stream: OK" {
        return Ok(Finding::Clean);
    }
    let found = text
        .strip_prefix("stream: ")
        .and_then(|t| t.strip_suffix(" FOUND"));
    if let Some(name) = found.filter(|name| !name.is_empty()) {
        // AlertExceedsMax and AlertEncrypted report what clamd could not open as if it were found.
        let is_unopened = name.starts_with("Heuristics.Limits.Exceeded")
            || name.starts_with("Heuristics.Encrypted");
        return Ok(match is_unopened {
            true => Finding::Unscanned(printable(name).into()),
            false => Finding::Infected(printable(name).into()),
        });
    }
    if text == "INSTREAM size limit exceeded. ERROR" {
        let reason = "larger than clamd's StreamMaxLength";
        return Ok(Finding::Oversized(reason.into()));
    }
    let is_error =
        text.ends_with("ERROR") || text == "COMMAND READ TIMED OUT" || text == "UNKNOWN COMMAND";
    match is_error {
        true => Err(Cause::Refused(printable(text))),
        false => Err(Cause::Protocol(printable(text))),
    }
}

fn printable(text: &str) -> String {
    let clean = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    clean.take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole, and byte by byte: nothing is an answer before its terminator.
    fn check(wire: &[u8], expected: Result<Finding, &str>) {
        for end in 0..wire.len() {
            assert_eq!(whole(&wire[..end]), None, "{wire:?} {end}");
        }
        let read = parse(&whole(wire).unwrap());
        assert_eq!(
            read.as_ref().map_err(Cause::label),
            expected.as_ref().map_err(|l| *l)
        );
    }

    #[test]
    fn answers_of_clamd() {
        let infected = |name: &str| Ok(Finding::Infected(name.into()));
        let unscanned = |name: &str| Ok(Finding::Unscanned(name.into()));
        check(b"stream: OK\0", Ok(Finding::Clean));
        check(b"stream: Eicar-Test FOUND\0", infected("Eicar-Test"));
        check(
            b"stream: Test.Eicar.File.UNOFFICIAL FOUND\0",
            infected("Test.Eicar.File.UNOFFICIAL"),
        );
        check(
            b"stream: Odd name with FOUND FOUND\n",
            infected("Odd name with FOUND"),
        );
        check(
            b"stream: Heuristics.Limits.Exceeded.MaxRecursion FOUND\0",
            unscanned("Heuristics.Limits.Exceeded.MaxRecursion"),
        );
        check(
            b"stream: Heuristics.Encrypted.Zip FOUND\0",
            unscanned("Heuristics.Encrypted.Zip"),
        );
        check(
            b"INSTREAM size limit exceeded. ERROR\0",
            Ok(Finding::Oversized(
                "larger than clamd's StreamMaxLength".into(),
            )),
        );
    }

    #[test]
    fn answers_that_are_trouble() {
        check(b"stream: Can't allocate memory ERROR\0", Err("refused"));
        check(b"COMMAND READ TIMED OUT\n", Err("refused"));
        check(b"UNKNOWN COMMAND\0", Err("refused"));
        check(b"stream:  FOUND\0", Err("protocol"));
        check(b"stream: OK but not quite\0", Err("protocol"));
        check(b"OK\0", Err("protocol"));
        check(b"\0", Err("protocol"));
    }

    #[test]
    fn the_date_of_signatures() {
        for (version, expected) in [
            (
                "ClamAV 1.4.6/27771/Mon Sep  8 08:29:07 2025",
                Some(1_757_320_147_000),
            ),
            (
                "ClamAV 1.4.6/27999/Fri Apr 24 11:00:00 2026",
                Some(1_777_028_400_000),
            ),
            ("ClamAV 1.4.6", None),
            ("ClamAV 1.4.6/1/stub", None),
            ("ClamAV 1.4.6/1/", None),
        ] {
            assert_eq!(
                signatures_made(version).map(|made| made.0),
                expected,
                "{version}"
            );
        }
    }

    #[tokio::test]
    async fn an_oversize_message_is_not_sent() {
        let nowhere = Endpoint::Unix("/nonexistent/clamd.ctl".into());
        let deadline = Instant::now() + std::time::Duration::from_secs(1);
        let answer = ask(&nowhere, b"12345", 4, deadline).await;
        assert!(matches!(answer, Ok(Finding::Oversized(_))), "{answer:?}");
        let answer = ask(&nowhere, b"1234", 4, deadline).await;
        assert_eq!(answer.unwrap_err().cause.label(), "connect");
    }
}
