//! One header on the way: where its structural fields stand, and how long it is.
//!
//! It holds offsets into the message, never copies.

use std::ops::Range;

use super::content::{self, Kind};
use super::{Limits, Objection};

/// How a part's bytes are encoded, as far as structure is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// 7bit, 8bit, binary, or nothing known.
    #[default]
    Plain,
    /// base64.
    Base64,
    /// quoted-printable.
    QuotedPrintable,
}

/// A header while its lines come in.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where its first line stands.
    pub(super) start: usize,
    pub(super) bytes: usize,
    pub(super) fields: usize,
    pub(super) received: usize,
    /// Values of the Content-Type fields.
    types: Vec<Range<usize>>,
    /// Values of the Content-Transfer-Encoding fields.
    encodings: Vec<Range<usize>>,
    /// The field that a continuation line would belong to.
    last: Last,
    /// How many Content-Types came before the first line of white space, where some readers end the header.
    types_before_gap: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    #[default]
    None,
    Type,
    Encoding,
    Other,
}

/// What a line is to a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It belongs to it.
    Taken,
    /// The blank line.
    Blank,
    /// No field, though no blank line came.
    Junk,
}

impl Head {
    /// Takes the line at `span` (with its line break) in.
    pub(super) fn line(
        &mut self,
        message: &[u8],
        span: Range<usize>,
        limits: &Limits,
    ) -> Result<Line, Objection> {
        let line = &message[span.clone()];
        let text = line.trim_ascii_end();
        if matches!(line, [b'\n'] | [b'\r', b'\n']) {
            return Ok(Line::Blank);
        }
        let top = self.bytes == 0;
        if top {
            self.start = span.start;
        }
        self.bytes += line.len();
        if self.bytes > limits.header_bytes {
            return Err(Objection::HeaderTooLong(limits.header_bytes));
        }
        if matches!(line[0], b' ' | b'\t') && self.last != Last::None {
            self.continuation(span, text.is_empty());
            return Ok(Line::Taken);
        }
        if top && (line.starts_with(b"From ") || line.starts_with(b">From ")) {
            return Ok(Line::Taken);
        }
        let Some(field) = crate::header::fields(line).next() else {
            self.last = Last::None;
            return Ok(Line::Junk);
        };
        self.fields += 1;
        if self.fields > limits.header_fields {
            return Err(Objection::TooManyFields(limits.header_fields));
        }
        let value = span.end - field.value.len()..span.end;
        let spaced = field.name.len() + 1 + field.value.len() < line.len();
        self.last = if field.is("Content-Type") {
            if spaced && content::read(field.value) != Ok(Kind::Leaf) {
                return Err(Objection::Ambiguous(
                    "space before the colon of Content-Type",
                ));
            }
            self.types.push(value);
            Last::Type
        } else if field.is("Content-Transfer-Encoding") {
            self.encodings.push(value);
            Last::Encoding
        } else {
            self.received += usize::from(field.is("Received"));
            Last::Other
        };
        Ok(Line::Taken)
    }

    /// Its lines, when what follows it begins at `end`.
    pub(super) fn span(&self, end: usize) -> Range<usize> {
        if self.bytes == 0 {
            return end..end;
        }
        self.start..end
    }

    /// Whether white space at the start of a line would continue a field.
    pub(super) fn in_field(&self) -> bool {
        self.last != Last::None
    }

    fn continuation(&mut self, span: Range<usize>, empty: bool) {
        if empty && self.types_before_gap.is_none() {
            self.types_before_gap = Some(self.types.len());
        }
        let extended = match self.last {
            Last::Type => self.types.last_mut(),
            Last::Encoding => self.encodings.last_mut(),
            Last::Other | Last::None => None,
        };
        if let Some(value) = extended {
            value.end = span.end;
        }
    }

    /// What the header says the part is, when all readers must agree on it.
    pub(super) fn kind(&self, message: &[u8]) -> Result<Kind, Objection> {
        let whole = kind_of(message, &self.types)?;
        if let Some(before) = self.types_before_gap
            && kind_of(message, &self.types[..before])? != whole
        {
            return Err(Objection::Ambiguous("line of white space in a header"));
        }
        Ok(whole)
    }

    /// How the part is encoded.
    pub(super) fn encoding(&self, message: &[u8]) -> Result<Encoding, Objection> {
        let word = |value: &Range<usize>| -> Vec<u8> {
            (message[value.clone()].iter())
                .filter(|b| !b.is_ascii_whitespace())
                .map(u8::to_ascii_lowercase)
                .collect()
        };
        let Some(first) = self.encodings.first().map(word) else {
            return Ok(Encoding::Plain);
        };
        if self.encodings[1..].iter().any(|value| word(value) != first) {
            return Err(Objection::Ambiguous("repeated Content-Transfer-Encoding"));
        }
        match first.as_slice() {
            b"base64" => Ok(Encoding::Base64),
            b"quoted-printable" => Ok(Encoding::QuotedPrintable),
            other if other.starts_with(b"base64") || other.starts_with(b"quoted-printable") => {
                Err(Objection::Ambiguous("malformed Content-Transfer-Encoding"))
            }
            _ => Ok(Encoding::Plain),
        }
    }
}

fn kind_of(message: &[u8], values: &[Range<usize>]) -> Result<Kind, Objection> {
    let Some((first, more)) = values.split_first() else {
        return Ok(Kind::Untyped);
    };
    let first = &message[first.clone()];
    let kind = content::read(first)?;
    if more.is_empty() {
        return Ok(kind);
    }
    // Once, not for each: the first may be long, and the others many.
    let media_type = content::media_type(first);
    for value in more {
        let value = &message[value.clone()];
        if content::read(value)? != kind || content::media_type(value) != media_type {
            return Err(Objection::Ambiguous("repeated Content-Type"));
        }
    }
    Ok(kind)
}
