//! XFORWARD: what a proxy knows of the original client, handed inward (Postfix XFORWARD_README).

use mail::Ident;

/// The attributes of XFORWARD. `None` is `[UNAVAILABLE]` or not sent. Values are decoded from xtext, cleaned, at most 255 octets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xforward {
    /// NAME: the client's verified host name.
    pub name: Option<Box<str>>,
    /// ADDR: the client's address; `IPV6:` before an IPv6 one on the wire.
    pub addr: Option<std::net::IpAddr>,
    /// PORT: the client's port.
    pub port: Option<u16>,
    /// PROTO: SMTP or ESMTP.
    pub proto: Option<Box<str>>,
    /// HELO: what the client called itself.
    pub helo: Option<Box<str>>,
    /// IDENT: the message's name, if it has our form.
    pub ident: Option<Ident>,
    /// SOURCE: LOCAL or REMOTE.
    pub source: Option<Box<str>>,
}
