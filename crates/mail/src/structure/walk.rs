//! The walk itself: line after line, with a stack of what is open.

use std::ops::Range;

use super::content::Kind;
use super::delimiter::{self, Boundary, Budget, Delimiter};
use super::frame::{Frame, Progress, sought};
use super::head::{Encoding, Head, Line};
use super::tally::Tally;
use super::{Objection, Part, transfer};

/// Encoded messages inside encoded messages. RFC 2046 5.2.1 allows no encoding of a message at all; mailers do it once.
const ENCODED_MAX: usize = 3;
/// Multiparts that an outer delimiter ended. Bounces cut their message off like that, once each.
const ABANDONED_MAX: usize = 32;

/// Where the walked bytes stand: zero for the message itself, deeper for what was decoded out of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    depth: usize,
    encoded: usize,
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

/// A part whose body has begun.
struct Leaf {
    header: Range<usize>,
    body: usize,
    encoding: Encoding,
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
    leaf: Option<Leaf>,
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
        leaf: None,
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
                        // The encoded message that is decoded later, as it stands: no header of anything.
                        _ if self.encoded.is_some() => Ok(Mode::Body),
                        Mode::Body | Mode::Doubt(_) => self.doubt(Head::default(), start, end),
                    },
                }
            }
            Mode::Doubt(head) => self.doubt(head, start, end),
        }
    }

    /// A line behind a broken header, as those see it who read on.
    fn doubt(&mut self, mut head: Head, start: usize, end: usize) -> Result<Mode, Objection> {
        // Lax readers step over white space where no field could go on.
        let line = &self.message[start..end];
        let indent = match line.trim_ascii_start() {
            field if field.is_empty() || head.in_field() => 0,
            field => line.len() - field.len(),
        };
        match head.line(self.message, start + indent..end, self.tally.limits)? {
            Line::Blank => self.resolve(&head, end).map(|()| Mode::Body),
            Line::Taken | Line::Junk => Ok(Mode::Doubt(head)),
        }
    }

    /// Objects when the lines behind a broken header hold structure to those who read on.
    fn resolve(&mut self, head: &Head, end: usize) -> Result<(), Objection> {
        self.show(head.span(end), end..end, Encoding::Plain);
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
        let header = head.span(body);
        match kind {
            Kind::Untyped | Kind::Leaf => {
                self.leaf = Some(Leaf {
                    header,
                    body,
                    encoding,
                });
                Ok(Mode::Body)
            }
            Kind::Multipart { boundary, digest } => {
                self.show(header, body..body, Encoding::Plain);
                let boundary = Boundary::new(&boundary);
                if sought(&self.frames, &self.abandoned).any(|other| *other.boundary == boundary) {
                    return Err(Objection::Ambiguous("boundary that is still in use"));
                }
                self.push(Frame::Multipart {
                    boundary,
                    digest,
                    progress: Progress::Preamble,
                })?;
                Ok(Mode::Body)
            }
            Kind::Message => {
                self.show(header, body..body, Encoding::Plain);
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

    fn show(&mut self, header: Range<usize>, body: Range<usize>, encoding: Encoding) {
        if let (Some(header), Some(body)) = (self.message.get(header), self.message.get(body)) {
            (self.tally.visit)(Part {
                header,
                body,
                encoding,
            });
        }
    }

    /// The part under way is over.
    fn close_leaf(&mut self, end: usize) {
        if let Some(leaf) = self.leaf.take() {
            self.show(leaf.header, leaf.body..end.max(leaf.body), leaf.encoding);
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
        let in_body = matches!(mode, Mode::Body);
        self.cut_header(&mode)?;
        self.finish(mode, start)?;
        self.close_leaf(start);
        self.truncate(at + 1, start)?;
        let Some(Frame::Multipart { progress, .. }) = self.frames.last_mut() else {
            return Ok(Mode::Body);
        };
        *progress = match (*progress, close) {
            (Progress::Preamble | Progress::Parts, false) => Progress::Parts,
            (Progress::Parts, true) if in_body => Progress::Epilogue,
            (Progress::Preamble | Progress::Parts, true) => Progress::Doubtful,
            (Progress::Epilogue | Progress::Doubtful, true) => return Ok(Mode::Body),
            (Progress::Epilogue | Progress::Doubtful, false) => {
                return Err(Objection::Ambiguous("part behind the closing delimiter"));
            }
        };
        let now = *progress;
        match now {
            Progress::Parts => {
                self.tally.part()?;
                Ok(Mode::Header(Head::default()))
            }
            // Lax readers take the first delimiter for the start of a part, even a closing one; others see none in a header.
            Progress::Doubtful if self.in_digest() => {
                Err(Objection::Ambiguous("digest that is closed in a header"))
            }
            Progress::Doubtful => {
                self.tally.part()?;
                Ok(Mode::Doubt(Head::default()))
            }
            Progress::Preamble | Progress::Epilogue => Ok(Mode::Body),
        }
    }

    /// A delimiter where a header has not ended: lax readers step over it and read on, into the next part's header.
    fn cut_header(&mut self, mode: &Mode) -> Result<(), Objection> {
        match mode {
            Mode::Body => Ok(()),
            Mode::Header(head) => match head.kind(self.message)? {
                Kind::Message => Err(Objection::Ambiguous("nested message without a start")),
                // Attached messages are cut down to their headers like that.
                Kind::Multipart { .. } => self.tally.cut_header(),
                Kind::Untyped | Kind::Leaf if self.in_message() => self.tally.cut_header(),
                Kind::Untyped | Kind::Leaf => Ok(()),
            },
            // The header of a multipart goes on, to them, into its first part.
            Mode::Doubt(_)
                if matches!(
                    self.frames.last(),
                    Some(Frame::Multipart {
                        progress: Progress::Preamble,
                        ..
                    })
                ) =>
            {
                Err(Objection::Ambiguous("delimiter in a broken header"))
            }
            Mode::Doubt(_) => self.tally.cut_header(),
        }
    }

    fn in_message(&self) -> bool {
        matches!(self.frames.last(), Some(Frame::Message))
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
            Mode::Doubt(head) => self.resolve(&head, end),
            Mode::Body => Ok(()),
        }
    }

    /// Closes what is open beyond `frames`; its bytes ended before `end`.
    fn truncate(&mut self, frames: usize, end: usize) -> Result<(), Objection> {
        for frame in self.frames.drain(frames.min(self.frames.len())..) {
            if let Frame::Multipart {
                boundary, progress, ..
            } = frame
            {
                if progress == Progress::Preamble {
                    self.tally.unfound()?;
                }
                if progress != Progress::Epilogue {
                    self.abandoned.push(boundary);
                }
            }
        }
        if self.abandoned.len() > ABANDONED_MAX {
            return Err(Objection::Ambiguous("multiparts that never end"));
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
            Encoding::Base64 => transfer::base64(bytes),
            Encoding::QuotedPrintable => transfer::quoted_printable(bytes),
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
        self.close_leaf(end);
        self.truncate(0, end)
    }
}
