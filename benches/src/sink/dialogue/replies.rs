//! What the sink says, ready for the wire.

pub const GREETING: &[u8] = b"220 sink.invalid ESMTP\r\n";
pub const HELO: &[u8] = b"250 sink.invalid\r\n";
pub const OK: &[u8] = b"250 2.0.0 Ok\r\n";
pub const RECIPIENT_OK: &[u8] = b"250 2.1.5 Ok\r\n";
pub const START_DATA: &[u8] = b"354 End data with <CR><LF>.<CR><LF>\r\n";
pub const START_TLS: &[u8] = b"220 2.0.0 Ready\r\n";
pub const BYE: &[u8] = b"221 2.0.0 Bye\r\n";
pub const ENOUGH: &[u8] = b"421 4.7.0 Enough messages in this session\r\n";
pub const BUSY: &[u8] = b"421 4.7.0 Too many sessions\r\n";
pub const UNKNOWN: &[u8] = b"500 5.5.1 Command not known here\r\n";
pub const LINE_TOO_LONG: &[u8] = b"500 5.5.2 Line too long\r\n";
pub const SYNTAX: &[u8] = b"501 5.5.4 Syntax\r\n";
pub const SEQUENCE: &[u8] = b"503 5.5.1 Bad sequence of commands\r\n";
pub const TOO_MANY: &[u8] = b"452 4.5.3 Too many recipients\r\n";
pub const TOO_LARGE: &[u8] = b"552 5.3.4 Message is larger than SIZE allows\r\n";

/// DATA or BDAT for nobody; LMTP demands its own code (RFC 2033 4.2).
pub fn nobody(lmtp: bool) -> &'static [u8] {
    match lmtp {
        true => b"503 5.5.1 No valid recipients\r\n",
        false => b"554 5.5.1 No valid recipients\r\n",
    }
}
