//! What a mail to `-request@` asks for: a word in its subject, or in the first line of its text. Pure.

use mail::Address;
use mail::header::{self, Field};

/// Lines of the text that are looked at.
const LINES_MAX: usize = 20;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// To become a member.
    Subscribe,
    /// To be none any more.
    Unsubscribe,
    /// Everything else.
    Help,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What.
    pub verb: Verb,
    /// For which address, when it is not the sender's.
    pub address: Option<Address>,
}

/// Reads a mail to `-request@`.
pub fn read(message: &[u8]) -> Asked {
    let subject = header::fields(message)
        .find(|field| field.is("Subject"))
        .map(|field| field.text());
    subject
        .as_deref()
        .and_then(command)
        .or_else(|| first_line(message).as_deref().and_then(command))
        .unwrap_or(Asked {
            verb: Verb::Help,
            address: None,
        })
}

/// A line that is a command and nothing else, so that prose that starts with such a word is none.
fn command(line: &str) -> Option<Asked> {
    let mut line = line.trim();
    while let Some((start, rest)) = line.split_at_checked(3)
        && start.eq_ignore_ascii_case("re:")
    {
        line = rest.trim_start();
    }
    let mut words = line.split_whitespace();
    let verb = match words.next()?.to_ascii_lowercase().as_str() {
        "subscribe" | "sub" | "join" => Verb::Subscribe,
        "unsubscribe" | "unsub" | "signoff" | "remove" | "leave" => Verb::Unsubscribe,
        "help" | "info" | "faq" => Verb::Help,
        _ => return None,
    };
    let address = match words.next() {
        None => None,
        Some(word) => {
            let word = word.trim_start_matches('<').trim_end_matches('>');
            Some(Address::parse(word).ok()?)
        }
    };
    words.next().is_none().then_some(Asked { verb, address })
}

/// The first line of the text that is not empty; of a multipart, of its first part.
fn first_line(message: &[u8]) -> Option<String> {
    let mut body = &message[header::body_offset(message)..];
    let multipart = |field: &Field<'_>| {
        field.is("Content-Type") && field.text().to_ascii_lowercase().starts_with("multipart/")
    };
    if header::fields(message).any(|field| multipart(&field)) {
        let boundary = body
            .windows(4)
            .position(|window| window == b"\r\n--")
            .map(|at| at + 2)
            .filter(|_| !body.starts_with(b"--"))
            .unwrap_or(0);
        let part = &body[boundary..];
        let line_end = part.windows(2).position(|pair| pair == b"\r\n")? + 2;
        let part = &part[line_end..];
        body = &part[header::body_offset(part)..];
    }
    body.split(|byte| *byte == b'\n')
        .take(LINES_MAX)
        .map(|line| String::from_utf8_lossy(line).trim().to_owned())
        .find(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        use Verb::*;
        let table = [
            ("Subject: subscribe\r\n\r\n", Subscribe, None),
            ("Subject: Re: UNSUB\r\n\r\n", Unsubscribe, None),
            (
                "Subject: join <Joe@one.example>\r\n\r\n",
                Subscribe,
                Some("Joe@one.example"),
            ),
            ("Subject: subscribe me please\r\n\r\n", Help, None),
            (
                "Subject: hello\r\n\r\n\r\n leave \r\nsubscribe\r\n",
                Unsubscribe,
                None,
            ),
            (
                "\r\nsubscribe ann@two.example",
                Subscribe,
                Some("ann@two.example"),
            ),
            (
                "Content-Type: multipart/alternative; boundary=x\r\n\r\nprologue\r\n--x\r\nContent-Type: text/plain\r\n\r\nsub\r\n--x--",
                Subscribe,
                None,
            ),
            (
                "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x",
                Help,
                None,
            ),
            (
                "Subject: nothing\r\n\r\nnothing\r\nsubscribe\r\n",
                Help,
                None,
            ),
            ("Subject: r\u{e9}:\r\n\r\n", Help, None),
            ("", Help, None),
        ];
        for (message, verb, address) in table {
            let address = address.map(|text| Address::parse(text).unwrap());
            assert_eq!(
                read(message.as_bytes()),
                Asked { verb, address },
                "{message:?}"
            );
        }
    }
}
