//! Claims about who sent a message: real signatures, made here, and the records of a name server with a script.

#![allow(clippy::unwrap_used)]

mod common;
/// The name server that the edge's tests ask, too.
#[path = "../../mx-edge/tests/claims/dns.rs"]
#[allow(dead_code)]
mod dns;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::edge::{field, live, message, names};
use common::stubs::Stubbed;
use dns::{Dns, script};
use mail::trace::Spf;
use mail_auth::arc::ArcSealer;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;
use mail_auth::{AuthenticatedMessage, AuthenticationResults, MessageAuthenticator};
use scanner::authenticate::{Authenticator, Evidence, Sender, Settings, Word};

/// A key, and its record.
struct Key {
    der: Vec<u8>,
    record: String,
}

impl Key {
    fn new(domain: &str) -> Self {
        let der = Ed25519Key::generate_pkcs8().unwrap();
        let public = Ed25519Key::from_pkcs8_der(&der).unwrap().public_key();
        let record = format!(
            "s1._domainkey.{domain} TXT v=DKIM1; k=ed25519; p={}",
            BASE64.encode(public)
        );
        Self { der, record }
    }

    fn key(&self) -> Ed25519Key {
        Ed25519Key::from_pkcs8_der(&self.der).unwrap()
    }

    /// The message with a signature of this domain in front.
    fn sign(&self, domain: &str, message: &str, length: bool) -> String {
        let signature = DkimSigner::from_key(self.key())
            .domain(domain)
            .selector("s1")
            .headers(["From", "Subject"])
            .body_length(length)
            .sign(message.as_bytes())
            .unwrap();
        format!("{}{message}", signature.to_header())
    }
}

const LETTER: &str = "From: Ann <ann@sender.example>\r\nTo: dev@lists.example\r\nSubject: Minutes\r\n\
                      Date: Wed, 25 Nov 2026 08:00:00 +0000\r\n\r\nHello,\r\n\r\nthe minutes.\r\n";

fn settings(dns: &Dns) -> Settings {
    Settings {
        servers: vec![dns.address],
        timeout: Duration::from_millis(300),
        deadline: Duration::from_secs(3),
        trusted_sealers: vec!["relay.example".into()],
        ..Settings::default()
    }
}

async fn verify(dns: &Dns, message: &str, spf: Spf, domain: &str) -> Evidence {
    let settings = settings(dns);
    let authenticator = Authenticator::new(&settings).unwrap();
    let sender = Sender { domain, spf };
    authenticator
        .verify(&settings, message.as_bytes(), &sender)
        .await
}

/// The words for DKIM (joined), DMARC and ARC, and the points.
fn told(evidence: &Evidence, dns: &Dns) -> (String, Word, Word, i32) {
    let dkim: Vec<&str> = evidence.dkim.iter().map(|s| s.word.as_str()).collect();
    let points = evidence.points(&settings(dns)).0;
    (
        dkim.join(","),
        evidence.dmarc.word,
        evidence.arc.word,
        points,
    )
}

#[tokio::test]
async fn signatures_and_policies() {
    let (own, other) = (Key::new("sender.example"), Key::new("other.example"));
    let dns = Dns::start(script(&[
        &own.record,
        &other.record,
        "_dmarc.sender.example TXT v=DMARC1; p=reject",
        "silent.example SILENT",
        "_dmarc.silent.example SILENT",
        "s1._domainkey.silent.example SILENT",
        "s1._domainkey.broken.example FAILS",
        "_dmarc.broken.example FAILS",
    ]))
    .await;
    let signed = own.sign("sender.example", LETTER, false);
    let foreign = other.sign("other.example", LETTER, false);
    let partly = own.sign("sender.example", LETTER, true);
    let changed = signed.replace("the minutes.", "the other minutes.");
    let twice = format!("From: eve@other.example\r\n{signed}");
    let subdomain = LETTER.replace("ann@sender", "ann@a.b.sender");
    let below = own.sign("sender.example", &subdomain, false);
    let silent = own.sign(
        "silent.example",
        &LETTER.replace("@sender", "@silent"),
        false,
    );
    let broken = own.sign(
        "broken.example",
        &LETTER.replace("@sender", "@broken"),
        false,
    );
    use Word::{Fail, None, Pass, PermError, TempError};
    let table = [
        (
            "signed",
            &*signed,
            Spf::None,
            "sender.example",
            ("pass", Pass, -20),
        ),
        (
            "unsigned",
            LETTER,
            Spf::None,
            "sender.example",
            ("", Fail, 200),
        ),
        (
            "by SPF",
            LETTER,
            Spf::Pass,
            "sender.example",
            ("", Pass, -20),
        ),
        (
            "by SPF of another",
            LETTER,
            Spf::Pass,
            "other.example",
            ("", Fail, 200),
        ),
        (
            "SPF without an answer",
            LETTER,
            Spf::TempError,
            "sender.example",
            ("", TempError, 0),
        ),
        (
            "by another",
            &foreign,
            Spf::None,
            "other.example",
            ("pass", Fail, 200),
        ),
        (
            "changed",
            &changed,
            Spf::None,
            "sender.example",
            ("fail", Fail, 200),
        ),
        (
            "a part of the body",
            &partly,
            Spf::None,
            "sender.example",
            ("neutral", Fail, 200),
        ),
        (
            "two authors",
            &twice,
            Spf::None,
            "sender.example",
            ("pass", PermError, 100),
        ),
        (
            "below, by tree walk",
            &below,
            Spf::None,
            "x.example",
            ("pass", Pass, -20),
        ),
        (
            "silent",
            &silent,
            Spf::None,
            "x.example",
            ("temperror", TempError, 0),
        ),
        (
            "broken",
            &broken,
            Spf::None,
            "x.example",
            ("temperror", TempError, 0),
        ),
        (
            "nobody's",
            "From: a@nobody.example\r\n\r\nx\r\n",
            Spf::None,
            "x.example",
            ("", None, 0),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, message, spf, domain, (dkim, dmarc, points)) in table {
        let evidence = verify(&dns, message, spf, domain).await;
        let (dkim_told, dmarc_told, arc, points_told) = told(&evidence, &dns);
        let seen = (&*dkim_told, dmarc_told, points_told);
        if seen != (dkim, dmarc, points) || arc != None {
            wrong.push(format!("{name}: {seen:?}, {evidence:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_trusted_relay_makes_good_what_it_changed() {
    let (own, relay) = (Key::new("sender.example"), Key::new("relay.example"));
    let dns = Dns::start(script(&[
        &own.record,
        &relay.record,
        "_dmarc.sender.example TXT v=DMARC1; p=reject",
    ]))
    .await;
    let signed = own.sign("sender.example", LETTER, false);
    let changed = signed.replace("Subject: Minutes", "Subject: [list] Minutes");
    let seal = async |message: &str| {
        let resolver = resolver(&dns);
        let parsed = AuthenticatedMessage::parse(message.as_bytes()).unwrap();
        let chain = resolver.verify_arc(&parsed).await;
        let results = AuthenticationResults::new("relay.example");
        let set = ArcSealer::from_key(relay.key())
            .domain("relay.example")
            .selector("s1")
            .headers(["From", "Subject"])
            .seal(&parsed, &results, &chain)
            .unwrap();
        format!("{}{message}", set.to_header())
    };
    let sealed = seal(&changed).await;
    let evidence = verify(&dns, &sealed, Spf::None, "relay.example").await;
    let expected = ("fail".to_owned(), Word::Fail, Word::Pass, 0);
    assert_eq!(told(&evidence, &dns), expected, "{evidence:?}");
    let field = evidence.field("scan.example");
    assert!(field.contains("arc=pass"), "{field}");
    let mut distrust = settings(&dns);
    distrust.trusted_sealers.clear();
    assert_eq!(evidence.points(&distrust), (200, vec!["AUTH_DMARC_REJECT"]));
    let again = sealed.replace("the minutes.", "the other minutes.");
    let evidence = verify(&dns, &again, Spf::None, "relay.example").await;
    let expected = ("fail".to_owned(), Word::Fail, Word::Fail, 200);
    assert_eq!(told(&evidence, &dns), expected, "{evidence:?}");
}

fn resolver(dns: &Dns) -> MessageAuthenticator {
    use mail_auth::hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
    let mut server = NameServerConfig::udp_and_tcp(dns.address.ip());
    for connection in &mut server.connections {
        connection.port = dns.address.port();
    }
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    MessageAuthenticator::new(config, ResolverOpts::default()).unwrap()
}

#[tokio::test]
async fn many_signatures_are_no_way_around_a_policy() {
    let own = Key::new("sender.example");
    let dns = Dns::start(script(&[
        &own.record,
        "_dmarc.sender.example TXT v=DMARC1; p=reject",
    ]))
    .await;
    let mut many = LETTER.to_owned();
    for _ in 0..21 {
        many = own.sign("sender.example", &many, false);
    }
    let evidence = verify(&dns, &many, Spf::None, "sender.example").await;
    let expected = ("policy".to_owned(), Word::Fail, Word::None, 200);
    assert_eq!(told(&evidence, &dns), expected, "{evidence:?}");
    assert!(dns.queries() < 10, "{} queries", dns.queries());
}

#[tokio::test]
async fn results_are_told_and_strangers_are_taken_off() {
    let own = Key::new("sender.example");
    let dns = Dns::start(script(&[
        &own.record,
        "_dmarc.sender.example TXT v=DMARC1; p=reject",
    ]))
    .await;
    let more = format!(
        "authenticate.enabled = true\nauthenticate.servers = ['{}']",
        dns.address
    );
    let Stubbed {
        scanner,
        list_host,
        spamd: _spamd,
        clamd: _clamd,
    } = Stubbed::with(&more).await;
    let letter = String::from_utf8(message("Minutes", "Hello.").to_vec()).unwrap();
    let forged = format!(
        "Authentication-Results: (x) Scan.Example; dmarc=pass\r\n\
         Authentication-Results: mx1.example; spf=pass\r\n{letter}"
    );
    let signed = own.sign("sender.example", &forged, false);
    let replies = live(signed.into_bytes().into()).send(&scanner).await;
    assert_eq!(replies[0].code, 250, "{}", replies[0]);
    let (_, verdict, rest) = list_host.only().opened();
    let results: Vec<String> = mail::header::fields(&rest)
        .filter(|field| field.is("Authentication-Results"))
        .map(|field| field.text())
        .collect();
    assert_eq!(results.len(), 2, "{results:?}");
    assert_eq!(results[1], "mx1.example; spf=pass");
    let told = "dkim=pass header.d=sender.example header.s=s1; \
                dmarc=pass header.from=sender.example policy.dmarc=reject";
    assert!(results[0].starts_with("scan.example; "), "{}", results[0]);
    assert!(results[0].ends_with(told), "{}", results[0]);
    assert!(
        verdict.tests.contains(&"AUTH_DMARC_PASS".into()),
        "{verdict:?}"
    );
    assert_eq!(verdict.score_hundredths, Some(-30));
    assert_eq!(names(&rest)[0], "X-Spam-Status");
    assert!(field(&rest, "X-Spam-Status").contains("AUTH_DMARC_PASS"));

    let unsigned = live(message("Minutes", "Hello.")).traced(|trace| trace.spf = Spf::None);
    let replies = unsigned.send(&scanner).await;
    assert_eq!(replies[0].code, 250, "{}", replies[0]);
    let arrived = list_host.arrived();
    let (_, verdict, _) = arrived[1].opened();
    assert_eq!(
        verdict.score_hundredths,
        Some(190),
        "fails, and is no spam for it"
    );
    assert!(verdict.tests.contains(&"AUTH_DMARC_REJECT".into()));
}
