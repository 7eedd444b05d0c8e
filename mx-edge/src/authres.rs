//! Authentication-Results (RFC 8601): ours is put on, and what strangers wrote in our name is taken off. Pure.

use mail::authres::{NAME, value};
use mail::header;
use mail::trace::Spf;
use mail::{Domain, ReversePath};

use crate::names::ClientName;

/// What this host has found out about a sender.
#[derive(Clone, Copy, Debug)]
pub struct Results<'a> {
    /// SPF; none where it was not checked.
    pub spf: Option<Spf>,
    /// The client's name, where it was asked for.
    pub client_name: Option<&'a ClientName>,
    /// Whom SPF was about.
    pub reverse_path: &'a ReversePath,
    /// And when there is none.
    pub helo: &'a str,
}

impl Results<'_> {
    /// The whole field with its CRLF; none when nothing was checked.
    pub fn field(&self, host: &Domain) -> Option<String> {
        let mut results = Vec::new();
        if let Some(spf) = self.spf {
            let about = match self.reverse_path.address() {
                Some(address) => format!("smtp.mailfrom={}", value(address.domain().as_str())),
                None => format!("smtp.helo={}", value(self.helo)),
            };
            results.push(format!("spf={} {about}", spf.as_str()));
        }
        match self.client_name {
            Some(ClientName::Confirmed(name)) => {
                results.push(format!("iprev=pass policy.iprev={}", value(name)));
            }
            Some(ClientName::Unconfirmed(_)) => results.push("iprev=fail".into()),
            Some(ClientName::Missing) => results.push("iprev=permerror".into()),
            None => {}
        }
        (!results.is_empty())
            .then(|| header::fold(NAME, &format!("{host}; {}", results.join("; "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Address;

    #[test]
    fn ours_says_what_was_checked() {
        let host = Domain::parse("mx1.example").unwrap();
        let sender = ReversePath::Address(Address::parse("ann@sender.example").unwrap());
        let confirmed = ClientName::Confirmed("out.sender.example".into());
        let field = |spf, client_name, reverse_path, helo| {
            let results = Results {
                spf,
                client_name,
                reverse_path,
                helo,
            };
            results.field(&host).map(|field| field.replace("\r\n", ""))
        };
        assert_eq!(field(None, None, &sender, "x"), None);
        assert_eq!(
            field(Some(Spf::Pass), Some(&confirmed), &sender, "x").unwrap(),
            "Authentication-Results: mx1.example; spf=pass smtp.mailfrom=sender.example; \
             iprev=pass policy.iprev=out.sender.example"
        );
        assert_eq!(
            field(Some(Spf::Fail), None, &ReversePath::Null, "a\" ; dkim=pass").unwrap(),
            "Authentication-Results: mx1.example; spf=fail smtp.helo=\"a;dkim=pass\""
        );
    }
}
