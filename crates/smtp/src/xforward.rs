//! XFORWARD: what a proxy knows of the original client, handed inward (Postfix XFORWARD_README).
//!
//! Parses and writes the attributes. Whether they are believed is the server's decision, made before they are parsed.

use std::net::IpAddr;

use mail::Ident;

use crate::xtext;

/// The attributes that we offer and understand, in the order of the EHLO keyword.
pub const ATTRIBUTES: &str = "NAME ADDR PORT PROTO HELO IDENT SOURCE";

/// Octets of a value, decoded; XFORWARD_README allows 255.
const VALUE_BYTES_MAX: usize = 255;
/// Octets of a command line that we write (RFC 5321 4.5.3.1.4).
const LINE_BYTES_MAX: usize = 510;
const UNAVAILABLE: &str = "[UNAVAILABLE]";

/// The attributes of XFORWARD. `None` is `[UNAVAILABLE]` or not sent. Values are decoded from xtext, cleaned, at most 255 octets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xforward {
    /// NAME: the client's verified host name.
    pub name: Option<Box<str>>,
    /// ADDR: the client's address; `IPV6:` before an IPv6 one on the wire.
    pub addr: Option<IpAddr>,
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

/// Why an XFORWARD command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XforwardError {
    /// Not `NAME=value`.
    #[error("expected attribute=value")]
    Syntax,
    /// An attribute that was not offered.
    #[error("unknown attribute {0}")]
    Unknown(String),
    /// A value that its attribute does not allow.
    #[error("bad value for {0}")]
    Value(&'static str),
}

impl Xforward {
    /// Reads the arguments of one command into the attributes; several commands add up. Nothing changes on an error.
    pub fn read(&mut self, arguments: &str) -> Result<(), XforwardError> {
        let mut read = self.clone();
        let mut some = false;
        for attribute in arguments.split_ascii_whitespace() {
            let (name, value) = attribute.split_once('=').ok_or(XforwardError::Syntax)?;
            read.set(name, value)?;
            some = true;
        }
        if !some {
            return Err(XforwardError::Syntax);
        }
        *self = read;
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), XforwardError> {
        const NAMES: [&str; 7] = ["NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"];
        let known = NAMES
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(name));
        let Some(name) = known else {
            return Err(XforwardError::Unknown(name.chars().take(40).collect()));
        };
        let bad = || XforwardError::Value(name);
        let decoded = xtext::decode(value.as_bytes()).ok_or_else(bad)?;
        if decoded.len() > VALUE_BYTES_MAX {
            return Err(bad());
        }
        let value = (!decoded.eq_ignore_ascii_case(UNAVAILABLE) && !decoded.is_empty())
            .then_some(decoded.as_str());
        match name {
            "NAME" => self.name = value.map(Box::from),
            "ADDR" => {
                self.addr = value
                    .map(|text| address(text).ok_or_else(bad))
                    .transpose()?
            }
            "PORT" => {
                let port = value.map(|text| text.parse().map_err(|_| bad()));
                self.port = port.transpose()?;
            }
            "PROTO" => self.proto = value.map(Box::from),
            "HELO" => self.helo = value.map(Box::from),
            // Postfix puts its queue id here: no error, but not a name by which a message is accepted once.
            "IDENT" => self.ident = value.and_then(|text| Ident::parse(text).ok()),
            _ => {
                let source = value.map(str::to_ascii_uppercase);
                if source
                    .as_deref()
                    .is_some_and(|source| source != "LOCAL" && source != "REMOTE")
                {
                    return Err(bad());
                }
                self.source = source.map(Box::from);
            }
        }
        Ok(())
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The commands that tell the attributes which `offered` (the EHLO keyword's arguments) names; each with its CRLF.
    /// What is not known goes as `[UNAVAILABLE]`, so that the next hop does not take our own address for the client's.
    pub fn commands(&self, offered: &str) -> Vec<String> {
        let mut commands = Vec::new();
        let mut line = String::from("XFORWARD");
        for name in offered.split_ascii_whitespace() {
            let Some(value) = self.value(&name.to_ascii_uppercase()) else {
                continue;
            };
            let mut attribute = format!(" {}=", name.to_ascii_uppercase());
            match value.filter(|value| value.len() <= VALUE_BYTES_MAX) {
                Some(value) => xtext::encode(&value, &mut attribute),
                None => attribute.push_str(UNAVAILABLE),
            }
            // 255 octets of 8-bit text take 765 on the wire: what does not fit a line is not told.
            if "XFORWARD".len() + attribute.len() > LINE_BYTES_MAX {
                continue;
            }
            if line.len() + attribute.len() > LINE_BYTES_MAX {
                line.push_str("\r\n");
                commands.push(std::mem::replace(&mut line, String::from("XFORWARD")));
            }
            line.push_str(&attribute);
        }
        if line != "XFORWARD" {
            line.push_str("\r\n");
            commands.push(line);
        }
        commands
    }

    /// The value of an attribute; `None` for one that we don't know of.
    fn value(&self, name: &str) -> Option<Option<String>> {
        let text = |value: &Option<Box<str>>| value.as_deref().map(str::to_owned);
        Some(match name {
            "NAME" => text(&self.name),
            "ADDR" => self.addr.map(|addr| match addr {
                IpAddr::V4(addr) => addr.to_string(),
                IpAddr::V6(addr) => format!("IPV6:{addr}"),
            }),
            "PORT" => self.port.map(|port| port.to_string()),
            "PROTO" => text(&self.proto),
            "HELO" => text(&self.helo),
            "IDENT" => self.ident.as_ref().map(Ident::to_string),
            "SOURCE" => Some(self.source.as_deref().unwrap_or("REMOTE").to_owned()),
            _ => return None,
        })
    }
}

/// An address as XFORWARD and XCLIENT write it.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let address = match text.get(..5) {
        Some(prefix) if prefix.eq_ignore_ascii_case("IPV6:") => IpAddr::V6(text[5..].parse().ok()?),
        _ => text.parse().ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Xforward, XforwardError> {
        let mut attributes = Xforward::default();
        for line in lines {
            attributes.read(line)?;
        }
        Ok(attributes)
    }

    #[test]
    fn reads_attributes() {
        let read = read(&[
            "NAME=spike.example ADDR=192.0.2.1",
            "helo=a+2Bb PROTO=ESMTP port=4711 IDENT=edge-1.5f.2a SOURCE=remote",
        ]);
        let expected = Xforward {
            name: Some("spike.example".into()),
            addr: Some([192, 0, 2, 1].into()),
            port: Some(4711),
            proto: Some("ESMTP".into()),
            helo: Some("a+b".into()),
            ident: Some(Ident::parse("edge-1.5f.2a").unwrap()),
            source: Some("REMOTE".into()),
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("IPV6:2001:db8::1", Some("2001:db8::1")),
            ("ipv6:2001:DB8::1", Some("2001:db8::1")),
            ("IPV6:::ffff:192.0.2.1", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[UNAVAILABLE]", None),
        ] {
            let read = read(&[&format!("ADDR={text}")]).unwrap();
            assert_eq!(
                read.addr,
                expected.map(|text| text.parse().unwrap()),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses() {
        let long = format!("HELO={}", "x".repeat(256));
        for (line, expected) in [
            ("", XforwardError::Syntax),
            ("NAME", XforwardError::Syntax),
            ("LOGIN=joe", XforwardError::Unknown("LOGIN".to_owned())),
            ("ADDR=here", XforwardError::Value("ADDR")),
            ("ADDR=IPV6:192.0.2.1", XforwardError::Value("ADDR")),
            ("PORT=65536", XforwardError::Value("PORT")),
            ("NAME=a+0Ab", XforwardError::Value("NAME")),
            ("SOURCE=MOON", XforwardError::Value("SOURCE")),
            (&long, XforwardError::Value("HELO")),
        ] {
            assert_eq!(read(&[line]), Err(expected), "{line}");
        }
    }

    #[test]
    fn an_ident_of_another_form_is_dropped() {
        assert_eq!(read(&["IDENT=4XyZ1234"]).unwrap().ident, None);
    }

    #[test]
    fn an_error_changes_nothing() {
        let mut attributes = read(&["PORT=1"]).unwrap();
        assert!(attributes.read("PORT=2 ADDR=here").is_err());
        assert_eq!(attributes.port, Some(1));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let attributes = Xforward {
            name: Some("x".repeat(255).into()),
            addr: Some("2001:db8::1".parse().unwrap()),
            port: None,
            proto: Some("ESMTP".into()),
            helo: Some("a b+=é".into()),
            ident: Some(Ident::parse("edge.0.1").unwrap()),
            source: Some("REMOTE".into()),
        };
        let commands = attributes.commands(ATTRIBUTES);
        let mut back = Xforward::default();
        for command in &commands {
            assert!(command.len() <= 512, "{command}");
            let arguments = command.strip_prefix("XFORWARD ").unwrap();
            back.read(arguments.strip_suffix("\r\n").unwrap()).unwrap();
        }
        assert_eq!(back, attributes);
        assert!(
            commands.concat().contains("PORT=[UNAVAILABLE]"),
            "{commands:?}"
        );
        assert!(attributes.commands("LOGIN").is_empty());
        assert_eq!(
            attributes.commands("addr"),
            ["XFORWARD ADDR=IPV6:2001:db8::1\r\n"]
        );
    }
}
