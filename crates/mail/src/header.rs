//! The header of a message as raw bytes: walking its fields, taking some out and putting some in front, without touching
//! any other octet (RFC 5322 2.2). A message that this module did not have to change keeps its signatures valid.

use bytes::Bytes;

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

    /// The value unfolded and trimmed, lossily as UTF-8.
    pub fn text(&self) -> String {
        todo!()
    }
}

/// Walks the fields of a message from the top until the blank line, or the first line that is no field.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    todo!("{}", message.len());
    #[allow(unreachable_code)]
    std::iter::empty()
}

/// The offset where the body starts: just behind the blank line; the message's length when there is none.
pub fn body_offset(message: &[u8]) -> usize {
    todo!("{}", message.len())
}

/// The message without the fields for which `drop` says so. The same `Bytes` comes back, uncopied, when none is dropped.
pub fn without(message: &Bytes, drop: impl Fn(&Field<'_>) -> bool) -> Bytes {
    let _ = drop;
    todo!("{}", message.len())
}

/// Formats one field `Name: value` folded at white space to lines of at most 78 octets where it can, 998 always, with its CRLF.
/// CR, LF and NUL in `value` become spaces.
pub fn fold(name: &str, value: &str) -> String {
    todo!("{name} {value}")
}
