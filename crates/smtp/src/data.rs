//! The message on the wire: reading DATA and BDAT, writing with dots stuffed (RFC 5321 4.5.2, RFC 3030).
