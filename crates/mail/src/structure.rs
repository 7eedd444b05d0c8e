//! The structural pre-scan: how deep, how many parts, how long, before any full parser may see a message.
//!
//! Full MIME parsers have died of deep nesting and ballooned on many parts. This one walks the bytes once, with a stack that
//! is bounded by [`Limits::depth`], and collects the union of what different readers would see as structure. It never decides
//! what a message means: where two readers could see two structures it objects.

mod content;
mod delimiter;
mod frame;
mod head;
mod tally;
mod transfer;
mod walk;

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
    let mut tally = tally::Tally::new(limits);
    walk::walk(message, &mut tally, walk::Place::default())?;
    Ok(tally.structure)
}

#[cfg(test)]
mod tests;
