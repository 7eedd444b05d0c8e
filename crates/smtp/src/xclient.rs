//! XCLIENT: a trusted peer speaks for a client (Postfix XCLIENT_README). Parses the attributes; who may say it is the server's decision.

use std::net::{IpAddr, SocketAddr};

use crate::xforward::{XforwardError, address};
use crate::xtext;

/// The attributes that we offer and understand, in the order of the EHLO keyword.
pub const ATTRIBUTES: &str = "NAME ADDR PORT PROTO HELO DESTADDR DESTPORT";

const UNKNOWN: [&str; 2] = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"];

/// What one command changes. NAME, PROTO and HELO are read and not used: names are looked up here, and HELO is said again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xclient {
    addr: Option<IpAddr>,
    port: Option<u16>,
    local_addr: Option<IpAddr>,
    local_port: Option<u16>,
}

impl Xclient {
    /// Reads the arguments of one command.
    pub fn read(arguments: &str) -> Result<Self, XforwardError> {
        let mut read = Self::default();
        let mut some = false;
        for attribute in arguments.split_ascii_whitespace() {
            let (name, value) = attribute.split_once('=').ok_or(XforwardError::Syntax)?;
            read.set(name, value)?;
            some = true;
        }
        some.then_some(read).ok_or(XforwardError::Syntax)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), XforwardError> {
        let known = ATTRIBUTES
            .split(' ')
            .find(|known| known.eq_ignore_ascii_case(name));
        let Some(name) = known else {
            return Err(XforwardError::Unknown(name.chars().take(40).collect()));
        };
        let bad = || XforwardError::Value(name);
        let value = xtext::decode(value.as_bytes()).ok_or_else(bad)?;
        if UNKNOWN.iter().any(|word| word.eq_ignore_ascii_case(&value)) {
            return Ok(());
        }
        match name {
            "ADDR" => self.addr = Some(address(&value).ok_or_else(bad)?),
            "PORT" => self.port = Some(value.parse().map_err(|_| bad())?),
            "DESTADDR" => self.local_addr = Some(address(&value).ok_or_else(bad)?),
            "DESTPORT" => self.local_port = Some(value.parse().map_err(|_| bad())?),
            _ => {}
        }
        Ok(())
    }

    /// The ends of the connection as told; what was not told stays.
    pub fn ends(&self, client: SocketAddr, local: SocketAddr) -> (SocketAddr, SocketAddr) {
        let end = |was: SocketAddr, addr: Option<IpAddr>, port: Option<u16>| {
            SocketAddr::new(addr.unwrap_or(was.ip()), port.unwrap_or(was.port()))
        };
        (
            end(client, self.addr, self.port),
            end(local, self.local_addr, self.local_port),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &str, expected: Result<(&str, &str), XforwardError>) {
        let ends = Xclient::read(arguments).map(|read| {
            read.ends(
                "192.0.2.9:9".parse().unwrap(),
                "192.0.2.8:25".parse().unwrap(),
            )
        });
        let expected =
            expected.map(|(client, local)| (client.parse().unwrap(), local.parse().unwrap()));
        assert_eq!(ends, expected, "{arguments:?}");
    }

    #[test]
    fn attributes() {
        check("ADDR=192.0.2.1", Ok(("192.0.2.1:9", "192.0.2.8:25")));
        check(
            "addr=IPV6:2001:db8::1 PORT=4711",
            Ok(("[2001:db8::1]:4711", "192.0.2.8:25")),
        );
        check(
            "ADDR=::ffff:192.0.2.1 DESTADDR=192.0.2.2 DESTPORT=2525",
            Ok(("192.0.2.1:9", "192.0.2.2:2525")),
        );
        check(
            "NAME=[UNAVAILABLE] ADDR=[TEMPUNAVAIL] HELO=spike.example PROTO=ESMTP",
            Ok(("192.0.2.9:9", "192.0.2.8:25")),
        );
        check("", Err(XforwardError::Syntax));
        check("ADDR", Err(XforwardError::Syntax));
        check("ADDR=lists.example", Err(XforwardError::Value("ADDR")));
        check("PORT=70000", Err(XforwardError::Value("PORT")));
        check("LOGIN=joe", Err(XforwardError::Unknown("LOGIN".into())));
    }
}
