//! The Received field that this edge puts on a message (RFC 5321 4.4, RFC 3848, RFC 6531 4.3). Pure.

use std::net::IpAddr;

use mail::{Domain, Envelope, Ident, Timestamp};
use smtp::server::Facts;

use crate::recipients::literal;

/// The whole field, folded, with its CRLF. `for` is named when there is one recipient only: with several it would tell each of
/// the others (RFC 5321 7.2).
pub fn field(
    facts: &Facts,
    envelope: &Envelope,
    hostname: &Domain,
    ident: &Ident,
    now: Timestamp,
) -> String {
    let mut field = format!(
        "Received: from {} ({})\r\n\tby {hostname} (Mailflow) with {} id {ident}",
        helo(&facts.helo, facts.client.ip()),
        literal(facts.client.ip()),
        with(
            facts.extended,
            facts.tls.is_some(),
            envelope.parameters.smtputf8
        ),
    );
    if let Some(tls) = &facts.tls {
        let (version, cipher) = (word(&tls.version), word(&tls.cipher));
        field.push_str(&format!("\r\n\t(using {version} with cipher {cipher})"));
    }
    if let [recipient] = envelope.recipients.as_slice() {
        field.push_str(&format!("\r\n\tfor <{}>", recipient.address));
    }
    field.push_str(&format!(";\r\n\t{}\r\n", now.rfc5322()));
    field
}

/// The name of the dialogue as RFC 3848 and RFC 6531 register it.
fn with(extended: bool, tls: bool, smtputf8: bool) -> &'static str {
    match (smtputf8, extended, tls) {
        (true, _, false) => "UTF8SMTP",
        (true, _, true) => "UTF8SMTPS",
        (false, true, false) => "ESMTP",
        (false, true, true) => "ESMTPS",
        (false, false, _) => "SMTP",
    }
}

/// What the client called itself, if that is a domain or a literal; otherwise its address, since the grammar of the field
/// allows nothing else there.
fn helo(said: &str, client: IpAddr) -> String {
    match Domain::parse(said) {
        Ok(domain) => domain.to_string(),
        Err(_) => literal(client),
    }
}

fn word(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    text.chars().filter(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::{Address, MailParameters, ReversePath};
    use smtp::server::Tls;
    use smtp::xforward::Xforward;

    fn check(helo: &str, tls: bool, recipients: &[&str], expected: &str) {
        let facts = Facts {
            session: "s1".into(),
            client: "198.51.100.7:4711".parse().unwrap(),
            local: "192.0.2.1:25".parse().unwrap(),
            helo: helo.into(),
            extended: true,
            tls: tls.then(|| Tls {
                version: "TLSv1.3".into(),
                cipher: "TLS13_AES_256_GCM_SHA384".into(),
                peer_certificates: Vec::new().into(),
            }),
            xforward: Xforward::default(),
            bare_newline: false,
        };
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            parameters: MailParameters::default(),
            recipients: recipients
                .iter()
                .map(|address| Address::parse(address).unwrap().into())
                .collect(),
        };
        let hostname = Domain::parse("mx1.example").unwrap();
        let ident = Ident::new("mx1", 10, 11).unwrap();
        let now = Timestamp(1_795_176_245_000);
        assert_eq!(
            field(&facts, &envelope, &hostname, &ident, now),
            format!("{expected};\r\n\t{}\r\n", now.rfc5322())
        );
    }

    #[test]
    fn fields() {
        check(
            "client.example",
            false,
            &["dev@lists.example"],
            "Received: from client.example ([198.51.100.7])\r\n\tby mx1.example (Mailflow) with ESMTP id mx1.a.b\
             \r\n\tfor <dev@lists.example>",
        );
        check(
            "client.example",
            true,
            &["dev@lists.example", "joe@lists.example"],
            "Received: from client.example ([198.51.100.7])\r\n\tby mx1.example (Mailflow) with ESMTPS id mx1.a.b\
             \r\n\t(using TLSv1.3 with cipher TLS13_AES_256_GCM_SHA384)",
        );
        // What is no domain does not get into the field.
        for hostile in ["", "x) (y", "a b", "[1.2.3", "a\r\nX: y"] {
            check(
                hostile,
                false,
                &[],
                "Received: from [198.51.100.7] ([198.51.100.7])\r\n\tby mx1.example (Mailflow) with ESMTP id mx1.a.b",
            );
        }
    }

    #[test]
    fn dialogues() {
        for (extended, tls, utf8, expected) in [
            (false, false, false, "SMTP"),
            (true, false, false, "ESMTP"),
            (true, true, false, "ESMTPS"),
            (true, false, true, "UTF8SMTP"),
            (true, true, true, "UTF8SMTPS"),
        ] {
            assert_eq!(with(extended, tls, utf8), expected);
        }
    }
}
