//! The walk itself: line after line, with a stack of what is open.

use super::content::Kind;
use super::delimiter::{self, Boundary, Budget, Delimiter, Sought, State};
use super::head::{Encoding, Head, Line};
use super::{Limits, Objection, Structure};

/// Encoded messages inside encoded messages. RFC 2046 5.2.1 allows no encoding of a message at all; mailers do it once.
const ENCODED_MAX: usize = 3;
/// Multiparts whose boundary never comes. Parsers read to the end of the message for each of them.
const UNFOUND_MAX: usize = 10;
/// Multiparts that an outer delimiter ended. Bounces cut their message off like that, once each.
const ABANDONED_MAX: usize = 32;
/// All headers together, as a multiple of the limits for one.
const HEADER_BYTES_FACTOR: usize = 16;
/// All fields together, as a multiple of the limit for one header.
const FIELDS_FACTOR: usize = 64;

/// What is counted over a message and everything decoded out of it.
pub(super) struct Tally<'a> {
    pub(super) structure: Structure,
    limits: &'a Limits,
    header_bytes: usize,
    fields: usize,
    unfound: usize,
}

impl<'a> Tally<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self {
            structure: Structure::default(),
            limits,
            header_bytes: 0,
            fields: 0,
            unfound: 0,
        }
    }

    fn part(&mut self) -> Result<(), Objection> {
        self.structure.parts += 1;
        if self.structure.parts > self.limits.parts {
            return Err(Objection::TooManyParts(self.limits.parts));
        }
        Ok(())
    }

    fn depth(&mut self, depth: usize) -> Result<(), Objection> {
        if depth > self.limits.depth {
            return Err(Objection::TooDeep(self.limits.depth));
        }
        self.structure.depth = self.structure.depth.max(depth);
        Ok(())
    }

    fn line(&mut self, bytes: usize) -> Result<(), Objection> {
        if bytes > self.limits.line_bytes {
            return Err(Objection::LineTooLong(self.limits.line_bytes));
        }
        self.structure.line_bytes = self.structure.line_bytes.max(bytes);
        Ok(())
    }

    fn header(&mut self, head: &Head) -> Result<(), Objection> {
        if self.structure.parts == 1 {
            self.structure.header_bytes = head.bytes;
            self.structure.header_fields = head.fields;
            self.structure.received = head.received;
        }
        self.header_bytes += head.bytes;
        self.fields += head.fields;
        let bytes_max = self.limits.header_bytes.saturating_mul(HEADER_BYTES_FACTOR);
        if self.header_bytes > bytes_max {
            return Err(Objection::HeaderTooLong(bytes_max));
        }
        let fields_max = self.limits.header_fields.saturating_mul(FIELDS_FACTOR);
        if self.fields > fields_max {
            return Err(Objection::TooManyFields(fields_max));
        }
        Ok(())
    }
}

/// Where the walked bytes stand: zero for the message itself, deeper for what was decoded out of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    depth: usize,
    encoded: usize,
}

/// Something that is open around the present line.
enum Frame {
    Message,
    Multipart {
        boundary: Boundary,
        digest: bool,
        found: bool,
        closed: bool,
    },
}

impl Frame {
    /// What readers look for while this frame, `at` deep, is open.
    fn sought(&self, at: usize) -> Option<Sought<'_>> {
        let Self::Multipart {
            boundary, closed, ..
        } = self
        else {
            return None;
        };
        let state = if *closed {
            State::Closed(at)
        } else {
            State::Open(at)
        };
        Some(Sought { boundary, state })
    }
}

/// What the next line is expected to be part of.
enum Mode {
    Header(Head),
    /// The lines between a broken header and the next blank line: body to some readers, header to others.
    Doubt(Head),
    Body,
}

/// A nested message in an encoding: it is walked as it stands by readers that ignore the encoding, and decoded by the others.
struct Encoded {
    encoding: Encoding,
    start: usize,
    /// It ends when fewer frames are open.
    frames: usize,
}

struct Walk<'a, 'b> {
    message: &'a [u8],
    tally: &'a mut Tally<'b>,
    place: Place,
    frames: Vec<Frame>,
    /// Boundaries of multiparts that ended without their closing delimiter.
    abandoned: Vec<Boundary>,
    budget: Budget,
    encoded: Option<Encoded>,
}

/// Walks a message, or what was decoded out of one.
pub(super) fn walk(message: &[u8], tally: &mut Tally<'_>, place: Place) -> Result<(), Objection> {
    tally.part()?;
    let mut walk = Walk {
        message,
        tally,
        place,
        frames: Vec::new(),
        abandoned: Vec::new(),
        budget: Budget::new(message.len()),
        encoded: None,
    };
    let mut mode = Mode::Header(Head::default());
    let mut at = 0;
    while at < message.len() {
        let rest = &message[at..];
        let len = (rest.iter().position(|b| *b == b'\n')).map_or(rest.len(), |lf| lf + 1);
        mode = walk.line(mode, at, at + len)?;
        at += len;
    }
    walk.end(mode)
}

impl Walk<'_, '_> {
    fn line(&mut self, mode: Mode, start: usize, end: usize) -> Result<Mode, Objection> {
        let line = &self.message[start..end];
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        self.tally.line(text.len())?;
        match delimiter::find(
            text,
            sought(&self.frames, &self.abandoned),
            &mut self.budget,
        )? {
            Some(delimiter) => self.delimiter(mode, delimiter, start),
            None => self.content(mode, start, end),
        }
    }

    /// A line that is no delimiter.
    fn content(&mut self, mode: Mode, start: usize, end: usize) -> Result<Mode, Objection> {
        match mode {
            Mode::Body => Ok(Mode::Body),
            Mode::Header(mut head) => {
                match head.line(self.message, start..end, self.tally.limits)? {
                    Line::Taken => Ok(Mode::Header(head)),
                    Line::Blank => self.enter(&head, end),
                    Line::Junk => match self.enter(&head, start)? {
                        // Its header would start at this line, or behind the next blank one.
                        Mode::Header(_) => Err(Objection::Ambiguous(
                            "broken header before a nested message",
                        )),
                        Mode::Body | Mode::Doubt(_) => Ok(Mode::Doubt(Head::default())),
                    },
                }
            }
            Mode::Doubt(mut head) => {
                // Lax readers step over white space where no field could go on.
                let line = &self.message[start..end];
                let indent = match line.trim_ascii_start() {
                    field if field.is_empty() || head.in_field() => 0,
                    field => line.len() - field.len(),
                };
                match head.line(self.message, start + indent..end, self.tally.limits)? {
                    Line::Blank => self.resolve(&head).map(|()| Mode::Body),
                    Line::Taken | Line::Junk => Ok(Mode::Doubt(head)),
                }
            }
        }
    }

    /// Objects when the lines behind a broken header hold structure to those who read on.
    fn resolve(&self, head: &Head) -> Result<(), Objection> {
        match head.kind(self.message)? {
            Kind::Untyped | Kind::Leaf => Ok(()),
            Kind::Multipart { .. } | Kind::Message => {
                Err(Objection::Ambiguous("Content-Type behind a broken header"))
            }
        }
    }

    /// A header is whole; what follows at `body`?
    fn enter(&mut self, head: &Head, body: usize) -> Result<Mode, Objection> {
        self.tally.header(head)?;
        let kind = match head.kind(self.message)? {
            Kind::Untyped if self.in_digest() => Kind::Message,
            kind => kind,
        };
        let encoding = head.encoding(self.message)?;
        match kind {
            Kind::Untyped | Kind::Leaf => Ok(Mode::Body),
            Kind::Multipart { boundary, digest } => {
                let boundary = Boundary::new(&boundary);
                if sought(&self.frames, &self.abandoned).any(|other| *other.boundary == boundary) {
                    return Err(Objection::Ambiguous("boundary that is still in use"));
                }
                self.push(Frame::Multipart {
                    boundary,
                    digest,
                    found: false,
                    closed: false,
                })?;
                Ok(Mode::Body)
            }
            Kind::Message => {
                self.push(Frame::Message)?;
                self.tally.part()?;
                if encoding != Encoding::Plain && self.encoded.is_none() {
                    self.encoded = Some(Encoded {
                        encoding,
                        start: body,
                        frames: self.frames.len(),
                    });
                }
                Ok(Mode::Header(Head::default()))
            }
        }
    }

    /// Whether a part without a type is a message (RFC 2046 5.1.5).
    fn in_digest(&self) -> bool {
        matches!(
            self.frames.last(),
            Some(Frame::Multipart { digest: true, .. })
        )
    }

    fn push(&mut self, frame: Frame) -> Result<(), Objection> {
        self.frames.push(frame);
        self.tally.depth(self.place.depth + self.frames.len())
    }

    fn delimiter(
        &mut self,
        mode: Mode,
        Delimiter { at, close }: Delimiter,
        start: usize,
    ) -> Result<Mode, Objection> {
        self.finish(mode, start)?;
        self.truncate(at + 1, start)?;
        let mut empty = false;
        if let Some(Frame::Multipart { found, closed, .. }) = self.frames.last_mut() {
            if *closed && !close {
                return Err(Objection::Ambiguous("part behind the closing delimiter"));
            }
            empty = close && !*found;
            *found = true;
            *closed = close;
        }
        if close && !empty {
            return Ok(Mode::Body);
        }
        self.tally.part()?;
        Ok(match close {
            // Lax readers take the first delimiter for the start of a part, even a closing one.
            true => Mode::Doubt(Head::default()),
            false => Mode::Header(Head::default()),
        })
    }

    /// A header that ends without its blank line still says what its part is.
    fn finish(&mut self, mode: Mode, end: usize) -> Result<(), Objection> {
        match mode {
            Mode::Header(head) => {
                if let Mode::Header(head) = self.enter(&head, end)? {
                    // A message without a line: its empty header was entered, and says nothing.
                    self.tally.header(&head)?;
                }
                Ok(())
            }
            Mode::Doubt(head) => self.resolve(&head),
            Mode::Body => Ok(()),
        }
    }

    /// Closes what is open beyond `frames`; its bytes ended before `end`.
    fn truncate(&mut self, frames: usize, end: usize) -> Result<(), Objection> {
        for frame in self.frames.drain(frames.min(self.frames.len())..) {
            if let Frame::Multipart {
                boundary,
                found,
                closed,
                ..
            } = frame
            {
                self.tally.unfound += usize::from(!found);
                if !closed {
                    self.abandoned.push(boundary);
                }
            }
        }
        if self.tally.unfound > UNFOUND_MAX || self.abandoned.len() > ABANDONED_MAX {
            return Err(Objection::Ambiguous("multiparts that never begin or end"));
        }
        match self.encoded.take_if(|encoded| frames < encoded.frames) {
            Some(encoded) => self.decode(&encoded, end),
            None => Ok(()),
        }
    }

    fn decode(&mut self, encoded: &Encoded, end: usize) -> Result<(), Objection> {
        if self.place.encoded == ENCODED_MAX {
            return Err(Objection::Ambiguous("messages encoded inside each other"));
        }
        let bytes = self.message.get(encoded.start..end).unwrap_or_default();
        let decoded = match encoded.encoding {
            Encoding::Plain => return Ok(()),
            Encoding::Base64 => base64(bytes),
            Encoding::QuotedPrintable => quoted_printable(bytes),
        };
        let place = Place {
            depth: self.place.depth + encoded.frames,
            encoded: self.place.encoded + 1,
        };
        walk(&decoded, self.tally, place)
    }

    fn end(mut self, mode: Mode) -> Result<(), Objection> {
        let end = self.message.len();
        self.finish(mode, end)?;
        self.truncate(0, end)
    }
}

/// All boundaries that some reader may be looking for.
fn sought<'a>(
    frames: &'a [Frame],
    abandoned: &'a [Boundary],
) -> impl Iterator<Item = Sought<'a>> + Clone {
    let over = abandoned.iter().map(|boundary| Sought {
        boundary,
        state: State::Abandoned,
    });
    let open = frames.iter().enumerate();
    open.filter_map(|(at, frame)| frame.sought(at)).chain(over)
}

/// Decodes base64 as the laxest reader does: what is no letter of it is stepped over.
fn base64(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for b in text {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                held = 0;
                continue;
            }
            _ => continue,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

/// Decodes quoted-printable as the laxest reader does: a `=` that starts nothing stands for itself.
fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((b, behind)) = rest.split_first() {
        rest = behind;
        if *b != b'=' {
            out.push(*b);
            continue;
        }
        let digit = |at: usize| behind.get(at).and_then(|b| char::from(*b).to_digit(16));
        if let (Some(high), Some(low)) = (digit(0), digit(1)) {
            out.push((high * 16 + low) as u8);
            rest = &behind[2..];
        } else if let Some(soft) = soft_break(behind) {
            rest = &behind[soft..];
        } else {
            out.push(b'=');
        }
    }
    out
}

/// The length of white space and line break behind a `=` (RFC 2045 6.7, rule 5).
fn soft_break(text: &[u8]) -> Option<usize> {
    let spaces = (text.iter())
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    match &text[spaces..] {
        [b'\r', b'\n', ..] => Some(spaces + 2),
        [b'\n', ..] => Some(spaces + 1),
        _ => None,
    }
}
