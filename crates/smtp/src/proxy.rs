//! The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): what a proxy says of the client before the client speaks.
//!
//! Parses only. Who may say it is the program's decision, made before a byte is read: it is never guessed from what comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The header of version 1 ends within so many octets (section 2.1).
const V1_BYTES_MAX: usize = 107;
/// No header of version 1 is shorter: `PROXY UNKNOWN` and CRLF.
const V1_BYTES_MIN: usize = 15;
/// What version 2 begins with.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family, length.
const V2_HEAD_BYTES: usize = 16;
/// Octets of addresses and additions that are read; section 2.2 asks for 536 at least.
const V2_BODY_BYTES_MAX: usize = 4096;

/// Who is behind the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A client, and where it connected to. IPv4-mapped IPv6 is IPv4.
    Client {
        /// Its address and port.
        client: SocketAddr,
        /// The proxy's end.
        local: SocketAddr,
    },
    /// Nobody: `LOCAL`, `UNKNOWN`, or an address that is none of the internet's. The proxy looks whether we live.
    Check,
}

/// Why bytes are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Something else was said.
    #[error("no PROXY header")]
    Absent,
    /// The header breaks its own grammar.
    #[error("a PROXY header that cannot be read: {0}")]
    Form(&'static str),
}

/// Reads a header at the beginning of `bytes`. `None`: more must come, see [`missing`].
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(V2_SIGNATURE) {
        second(bytes)
    } else if begins(b"PROXY ") {
        first(bytes)
    } else {
        Err(ProxyError::Absent)
    }
}

/// How many more octets certainly belong to a header of which `bytes` are there; never 0, and never one of the client's.
pub fn missing(bytes: &[u8]) -> usize {
    let whole = match bytes {
        bytes if bytes.first() != Some(&V2_SIGNATURE[0]) => V1_BYTES_MIN,
        bytes if bytes.len() < V2_HEAD_BYTES => V2_HEAD_BYTES,
        bytes => V2_HEAD_BYTES + usize::from(u16::from_be_bytes([bytes[14], bytes[15]])),
    };
    whole.saturating_sub(bytes.len()).max(1)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 4711 25` and CRLF.
fn first(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    const FORM: ProxyError = ProxyError::Form("PROXY TCP4|TCP6|UNKNOWN addresses ports");
    let Some(end) = memchr::memchr2(b'\r', b'\n', bytes) else {
        return match bytes.len() {
            ..V1_BYTES_MAX => Ok(None),
            _ => Err(ProxyError::Form("longer than 107 octets")),
        };
    };
    match bytes.get(end..) {
        Some([b'\r', b'\n', ..]) if end + 2 <= V1_BYTES_MAX => {}
        Some(b"\r") => return Ok(None),
        // A receiver must not take a lone CR or LF for the end (section 2.1).
        _ => return Err(ProxyError::Form("it ends in CRLF")),
    }
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| FORM)?;
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(Some(Header::Check)),
        ["PROXY", family, client, local, client_port, local_port] => {
            let client = end_of(family, client, client_port).ok_or(FORM)?;
            let local = end_of(family, local, local_port).ok_or(FORM)?;
            Ok(Some(Header::Client { client, local }))
        }
        _ => Err(FORM),
    }
}

fn end_of(family: &str, address: &str, port: &str) -> Option<SocketAddr> {
    let address = match family {
        "TCP4" => IpAddr::V4(address.parse().ok()?),
        "TCP6" => IpAddr::V6(address.parse().ok()?),
        _ => return None,
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    // Zeros in front might mean an octal number (section 2.1).
    let padded = port.len() > 1 && port.starts_with('0');
    let port = (digits && !padded).then(|| port.parse().ok())??;
    Some(SocketAddr::new(address.to_canonical(), port))
}

/// Section 2.2.
fn second(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let Some(head) = bytes.get(..V2_HEAD_BYTES) else {
        return Ok(None);
    };
    if head[12] >> 4 != 2 {
        return Err(ProxyError::Form("neither version 1 nor 2"));
    }
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > V2_BODY_BYTES_MAX {
        return Err(ProxyError::Form("more than 4096 octets"));
    }
    let Some(body) = bytes.get(V2_HEAD_BYTES..V2_HEAD_BYTES + length) else {
        return Ok(None);
    };
    match head[12] & 15 {
        // A check: whatever addresses there are, they are to be ignored.
        0 => Ok(Some(Header::Check)),
        1 => proxied(head[13], body).map(Some),
        _ => Err(ProxyError::Form("neither LOCAL nor PROXY")),
    }
}

fn proxied(family: u8, body: &[u8]) -> Result<Header, ProxyError> {
    const SHORT: ProxyError = ProxyError::Form("the addresses are cut off");
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let (header, used) = match family {
        0x11 => {
            let v4 = |at: usize| {
                body.get(at..at + 4)
                    .and_then(|octets| octets.try_into().ok())
            };
            let (Some(client), Some(local), 12..) = (v4(0), v4(4), body.len()) else {
                return Err(SHORT);
            };
            let end = |octets: [u8; 4], port| SocketAddr::from((Ipv4Addr::from(octets), port));
            let (client, local) = (end(client, port(8)), end(local, port(10)));
            (Header::Client { client, local }, 12)
        }
        0x21 => {
            let v6 = |at: usize| {
                let octets = body
                    .get(at..at + 16)
                    .and_then(|octets| octets.try_into().ok());
                octets.map(|octets: [u8; 16]| Ipv6Addr::from(octets).to_canonical())
            };
            let (Some(client), Some(local), 36..) = (v6(0), v6(16), body.len()) else {
                return Err(SHORT);
            };
            let client = SocketAddr::new(client, port(32));
            let local = SocketAddr::new(local, port(34));
            (Header::Client { client, local }, 36)
        }
        // UNSPEC, datagrams, Unix sockets: the receiver has to ignore the addresses.
        _ if family >> 4 <= 3 && family & 15 <= 2 => return Ok(Header::Check),
        // Others must not be sent, and are to be refused.
        _ => return Err(ProxyError::Form("a family or protocol that there is not")),
    };
    additions(&body[used..])?;
    Ok(header)
}

/// Type, length, value, again and again; their lengths must add up.
fn additions(mut rest: &[u8]) -> Result<(), ProxyError> {
    while !rest.is_empty() {
        let value = match rest {
            [_, high, low, value @ ..] => {
                value.get(usize::from(u16::from_be_bytes([*high, *low]))..)
            }
            _ => None,
        };
        rest = value.ok_or(ProxyError::Form("an addition is longer than the header"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
