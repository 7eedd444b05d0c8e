//! What the operator publishes in the DNS and on the web so that strangers encrypt to us and tell us when they cannot: TLSA
//! (RFC 7672), the MTA-STS policy (RFC 8461) and where TLS reports go (RFC 8460). Prints; publishes nothing itself.

use std::collections::BTreeSet;
use std::fmt::Write;

use ring::digest::{SHA256, digest};
use service::tls::{Identity, covers};

use crate::config::Config;

/// `mx-edge dns ...`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A domain whose mail comes here; again for more. Without: those of recipients.domains
    #[arg(long)]
    domain: Vec<String>,
    /// Every MX of these domains, this host included; again for more. Without: this host
    #[arg(long)]
    mx: Vec<String>,
    /// The MTA-STS policy's mode: testing, enforce or none
    #[arg(long, default_value = "testing", value_parser = ["testing", "enforce", "none"])]
    mode: String,
    /// How long senders keep the policy, in seconds; a week, until it has proved itself
    #[arg(long, default_value_t = 604_800)]
    max_age: u32,
    /// Where TLS reports go: mailto:tls@lists.example or https://...
    #[arg(long)]
    report: Option<String>,
}

/// The text; an error says what is missing.
pub fn print(arguments: &Arguments, config: &Config) -> Result<String, String> {
    let host = config.hostname.as_str();
    let domains = match arguments.domain.as_slice() {
        [] => config.recipients.domains.as_slice(),
        named => named,
    };
    if domains.is_empty() {
        return Err("no domain: name some with --domain, or in recipients.domains".into());
    }
    for name in domains.iter().chain(&arguments.mx) {
        mail::Domain::parse(name).map_err(|error| format!("{name:?}: {error}"))?;
    }
    let own = vec![host.to_owned()];
    let exchangers = if arguments.mx.is_empty() {
        &own
    } else {
        &arguments.mx
    };
    let mut text = String::new();
    let _ = writeln!(text, "{}", tlsa(host, config)?);
    let policy = policy(&arguments.mode, exchangers, arguments.max_age);
    let _ = writeln!(
        text,
        "; The policy, the same for each domain, at https://mta-sts.DOMAIN/.well-known/mta-sts.txt (text/plain, CRLF allowed).\n{}",
        policy
            .lines()
            .fold(String::new(), |all, line| all + ";   " + line + "\n")
    );
    let id = id(&policy);
    for domain in domains {
        let _ = writeln!(text, "_mta-sts.{domain}. IN TXT \"v=STSv1; id={id}\"");
        match &arguments.report {
            Some(report) => {
                let _ = writeln!(
                    text,
                    "_smtp._tls.{domain}. IN TXT \"v=TLSRPTv1; rua={report}\""
                );
            }
            None => {
                let _ = writeln!(
                    text,
                    "; no TLS reports for {domain}: name an address with --report"
                );
            }
        }
    }
    Ok(text)
}

/// The policy as it is served (RFC 8461 3.2).
fn policy(mode: &str, exchangers: &[String], max_age: u32) -> String {
    let mx: String = exchangers.iter().map(|mx| format!("mx: {mx}\n")).collect();
    format!("version: STSv1\nmode: {mode}\n{mx}max_age: {max_age}\n")
}

/// Changes with the policy and with nothing else, as RFC 8461 3.1 wants it.
fn id(policy: &str) -> String {
    hex(&digest(&SHA256, policy.as_bytes()).as_ref()[..16])
}

/// `3 1 1` (RFC 7672 3.1.1): the key, so that a renewal with the same key changes nothing.
fn tlsa(host: &str, config: &Config) -> Result<String, String> {
    let Some(public) = &config.tls else {
        return Err("no [tls]: without a certificate there is nothing to encrypt with".into());
    };
    let mut lines = BTreeSet::new();
    let mut named = false;
    for files in public.files() {
        let identity = Identity::load_public(&files)?;
        named |= identity.names().iter().any(|own| covers(own, host));
        let hash = digest(&SHA256, &identity.public_key()?);
        lines.insert(format!(
            "_25._tcp.{host}. IN TLSA 3 1 1 {}",
            hex(hash.as_ref())
        ));
    }
    let mut text = String::from(
        "; TLSA is of use only in a zone signed by DNSSEC. Before a new key is used, publish its line beside the old one and wait for\n\
         ; the TTL; run this with the new certificate in [tls] of another file to get it.\n",
    );
    if !named {
        let _ = writeln!(
            text,
            "; WARNING: no certificate names {host}: MTA-STS would fail."
        );
    }
    text.extend(lines.into_iter().map(|line| line + "\n"));
    Ok(text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_and_its_id() {
        let mx = ["mx1.example".to_owned(), "mx2.example".to_owned()];
        let testing = policy("testing", &mx, 86_400);
        assert_eq!(
            testing,
            "version: STSv1\nmode: testing\nmx: mx1.example\nmx: mx2.example\nmax_age: 86400\n"
        );
        assert_eq!(id(&testing), id(&policy("testing", &mx, 86_400)));
        assert_ne!(id(&testing), id(&policy("enforce", &mx, 86_400)));
        // 1 to 32 letters and digits.
        assert_eq!(id(&testing).len(), 32);
    }

    #[test]
    fn without_a_certificate_or_a_domain_it_says_what_is_missing() {
        let arguments = |domain: &[&str]| Arguments {
            domain: domain.iter().map(|&name| name.to_owned()).collect(),
            mx: Vec::new(),
            mode: "testing".into(),
            max_age: 1,
            report: None,
        };
        let config = Config::default();
        let error = print(&arguments(&[]), &config).unwrap_err();
        assert!(error.contains("--domain"), "{error}");
        let error = print(&arguments(&["lists.example"]), &config).unwrap_err();
        assert!(error.contains("[tls]"), "{error}");
        let error = print(&arguments(&["a..b"]), &config).unwrap_err();
        assert!(error.contains("a..b"), "{error}");
    }
}
