//! The message on the wire: reading DATA and BDAT, writing with dots stuffed (RFC 5321 4.5.2, RFC 3030).
//!
//! Readers and writer are incremental values: bytes may come in any pieces. What comes out of a reader, and what goes out of the
//! writer, is CRLF lines without a bare CR or LF, so that no hop behind us can see an end of data that we did not see.

mod chunk;
mod content;
mod dot;
mod writer;

pub use chunk::ChunkReader;
pub use content::{BareNewline, Content, Fault};
pub use dot::DotReader;
pub use writer::{Stuffer, canonical};
