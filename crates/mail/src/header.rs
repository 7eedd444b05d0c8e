//! The header of a message as raw bytes: walking its fields, taking some out and putting some in front, without touching
//! any other octet (RFC 5322 2.2). A message that this module did not have to change keeps its signatures valid.

use bytes::{Bytes, BytesMut};

/// The longest line a header may have, without CRLF (RFC 5322 2.1.1).
const LINE_BYTES_MAX: usize = 998;
/// The line length to aim at (RFC 5322 2.1.1).
const LINE_BYTES_GOAL: usize = 78;

/// One header field as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, case as written, without the colon or white space before it.
    pub name: &'a [u8],
    /// All after the colon up to and with the last CRLF, folding included.
    pub value: &'a [u8],
    /// The whole field: name, colon, value.
    pub raw: &'a [u8],
}

impl Field<'_> {
    /// Whether the field has this name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// [`Self::text`] with its encoded words decoded (RFC 2047), as the laxest reader does.
    pub fn decoded(&self) -> String {
        let decoded = crate::structure::words::decode(self.text().as_bytes());
        String::from_utf8_lossy(&decoded).into_owned()
    }

    /// The value unfolded and trimmed, lossily as UTF-8.
    pub fn text(&self) -> String {
        // Unfolding takes the line breaks and leaves the white space (RFC 5322 2.2.3).
        let unfolded: Vec<u8> = (self.value.iter().copied())
            .filter(|b| !matches!(b, b'\r' | b'\n'))
            .collect();
        String::from_utf8_lossy(&unfolded).trim().to_owned()
    }
}

/// Walks the fields of a message from the top until the blank line, or the first line that is no field. An mbox `From ` line
/// on top is stepped over.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields {
        message,
        at: mbox_line(message),
    }
}

/// The walk of [`fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    message: &'a [u8],
    /// Where the next field would start.
    at: usize,
}

impl Fields<'_> {
    /// Where the next field would start: just behind the one that was given last.
    pub fn offset(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let rest = &self.message[self.at..];
        let (name_len, colon) = field_name(rest)?;
        let mut end = line_end(rest);
        while matches!(rest.get(end), Some(b' ' | b'\t')) {
            end += line_end(&rest[end..]);
        }
        self.at += end;
        Some(Field {
            name: &rest[..name_len],
            value: &rest[colon + 1..end],
            raw: &rest[..end],
        })
    }
}

/// The length of an mbox `From ` line on top of a message, else 0. Whoever puts fields in front cuts it off first: further down
/// it is no field, and the header would end there.
pub fn mbox_line(message: &[u8]) -> usize {
    if message.starts_with(b"From ") || message.starts_with(b">From ") {
        line_end(message)
    } else {
        0
    }
}

/// Length of the first line with its LF.
fn line_end(rest: &[u8]) -> usize {
    (rest.iter().position(|b| *b == b'\n')).map_or(rest.len(), |at| at + 1)
}

/// Length of the field name at the start of `rest` and the offset of its colon; `None` when no field starts here.
/// White space before the colon is obsolete (RFC 5322 4.5) and still read.
fn field_name(rest: &[u8]) -> Option<(usize, usize)> {
    let name = rest
        .iter()
        .position(|b| !(33..=126).contains(b) || *b == b':')?;
    let spaces = rest[name..]
        .iter()
        .position(|b| !matches!(b, b' ' | b'\t'))?;
    (name > 0 && rest[name + spaces] == b':').then_some((name, name + spaces))
}

/// The offset where the body starts: just behind the blank line; where there is none, at the first line that is no field.
pub fn body_offset(message: &[u8]) -> usize {
    let mut walk = fields(message);
    walk.by_ref().for_each(drop);
    let rest = &message[walk.at..];
    walk.at
        + match rest {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => 0,
        }
}

/// The message without the fields for which `drop` says so. The same `Bytes` comes back, uncopied, when none is dropped.
pub fn without(message: &Bytes, drop: impl Fn(&Field<'_>) -> bool) -> Bytes {
    let mut kept = BytesMut::new();
    let mut copied = 0;
    let mut walk = fields(message);
    let mut start = walk.at;
    while let Some(field) = walk.next() {
        if drop(&field) {
            if kept.is_empty() {
                kept.reserve(message.len());
            }
            kept.extend_from_slice(&message[copied..start]);
            copied = walk.at;
        }
        start = walk.at;
    }
    if copied == 0 {
        return message.clone();
    }
    kept.extend_from_slice(&message[copied..]);
    kept.freeze()
}

/// Formats one field `Name: value` folded at white space to lines of at most 78 octets where it can, 998 always, with its CRLF.
/// CR, LF and NUL in `value` become spaces. A word too long for any line is cut in two.
pub fn fold(name: &str, value: &str) -> String {
    let value = value.replace(['\r', '\n', '\0'], " ");
    let mut out = format!("{name}:");
    let mut line = out.len();
    let mut rest = value.trim();
    while !rest.is_empty() {
        let word_at = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let word_end = rest[word_at..]
            .find([' ', '\t'])
            .map_or(rest.len(), |at| word_at + at);
        // A run of spaces as long as a line could only be folded into lines of white space, which end a header for some readers.
        let space = match &rest[..word_at] {
            "" => " ",
            run if run.len() > LINE_BYTES_GOAL => " ",
            run => run,
        };
        let mut word = &rest[word_at..word_end];
        let first = line == name.len() + 1;
        if line + space.len() + word.len() > LINE_BYTES_GOAL && !first {
            out.push_str("\r\n");
            line = 0;
        }
        out.push_str(space);
        line += space.len();
        while line + word.len() > LINE_BYTES_MAX {
            let cut = word.floor_char_boundary(LINE_BYTES_MAX.saturating_sub(line));
            out.push_str(&word[..cut]);
            out.push_str("\r\n ");
            word = &word[cut..];
            line = 1;
        }
        out.push_str(word);
        line += word.len();
        rest = &rest[word_end..];
    }
    out.push_str("\r\n");
    out
}

#[cfg(test)]
mod tests;
