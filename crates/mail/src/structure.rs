//! The structural pre-scan: how deep, how many parts, how long, before any full parser may see a message.
//!
//! Full MIME parsers have died of deep nesting and ballooned on many parts. This one walks the bytes once, with a stack that
//! is bounded by [`Limits::depth`], and collects the union of what different readers would see as structure. It never decides
//! what a message means: where two readers could see two structures it objects.

mod content;
mod delimiter;
mod faults;
mod frame;
mod head;
mod inline;
pub mod names;
mod tally;
mod transfer;
mod walk;
pub(crate) mod words;

use std::borrow::Cow;

pub use faults::{Fault, faults};
pub use head::Encoding;
pub use inline::{Inline, inline};

/// What a message may look like to be handed to a full parser. Defaults in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nested multiparts and message/rfc822 [50].
    pub depth: usize,
    /// Parts in all [1000].
    pub parts: usize,
    /// Bytes of any one header; 16 times as many in all of them [262144].
    pub header_bytes: usize,
    /// Fields of any one header; 64 times as many in all of them [1000].
    pub header_fields: usize,
    /// Bytes of one line without its CRLF [65536]. RFC 5321 says 998; the real world says otherwise.
    pub line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 50,
            parts: 1000,
            header_bytes: 262_144,
            header_fields: 1000,
            line_bytes: 65_536,
        }
    }
}

/// What the walk counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// Deepest nesting seen.
    pub depth: usize,
    /// Parts in all.
    pub parts: usize,
    /// Bytes of the outermost header.
    pub header_bytes: usize,
    /// Fields of the outermost header.
    pub header_fields: usize,
    /// Received fields: the hop count (RFC 5321 6.3).
    pub received: usize,
    /// Longest line.
    pub line_bytes: usize,
}

/// Why a message must not reach a full parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// Nested deeper than [`Limits::depth`].
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// More parts than [`Limits::parts`].
    #[error("more than {0} parts")]
    TooManyParts(usize),
    /// A header longer than [`Limits::header_bytes`].
    #[error("header longer than {0} bytes")]
    HeaderTooLong(usize),
    /// More fields than [`Limits::header_fields`].
    #[error("more than {0} header fields")]
    TooManyFields(usize),
    /// A boundary longer than anybody's.
    #[error("boundary longer than {0} bytes")]
    BoundaryTooLong(usize),
    /// A line longer than [`Limits::line_bytes`].
    #[error("line longer than {0} bytes")]
    LineTooLong(usize),
    /// Two readers would see two structures (repeated Content-Type or boundary parameter that differ).
    #[error("ambiguous structure: {0}")]
    Ambiguous(&'static str),
}

/// Walks a message (CRLF lines) once. Time is linear in its length, memory constant but for the stack of boundaries and what a
/// nested message in base64 or quoted-printable decodes to (three of them inside each other at most).
pub fn scan(message: &[u8], limits: &Limits) -> Result<Structure, Objection> {
    each(message, limits, &mut |_| {})
}

/// A header, as the walk comes upon it, and what belongs to it.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The header's lines as they stand. Lines behind a broken one come by themselves, since some readers read on.
    pub header: &'a [u8],
    /// What follows up to the next delimiter, as it stands; empty where that is parts or a message, which come by themselves.
    pub body: &'a [u8],
    /// How the body is encoded.
    pub encoding: Encoding,
}

impl<'a> Part<'a> {
    /// The body without its transfer encoding, as the laxest reader undoes it.
    pub fn decoded(&self) -> Cow<'a, [u8]> {
        match self.encoding {
            Encoding::Plain => Cow::Borrowed(self.body),
            Encoding::Base64 => Cow::Owned(transfer::base64(self.body)),
            Encoding::QuotedPrintable => Cow::Owned(transfer::quoted_printable(self.body)),
        }
    }
}

/// [`scan`], which shows every header and what belongs to it on the way; of nested messages in an encoding too, as they stand and
/// decoded. What was shown before an objection is not all there is.
pub fn each(
    message: &[u8],
    limits: &Limits,
    visit: &mut dyn FnMut(Part<'_>),
) -> Result<Structure, Objection> {
    let mut tally = tally::Tally::new(limits, visit);
    walk::walk(message, &mut tally, walk::Place::default())?;
    Ok(tally.structure)
}

#[cfg(test)]
mod tests;
