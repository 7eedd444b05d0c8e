//! An edge: writes the trace, says LMTP by the house's own client, keeps verdicts.

use bytes::Bytes;
use mail::trace::{Custody, Spf, Trace};
use mail::verdict::{Token, Verdict, digest};
use mail::{Address, Envelope, Ident, MailParameters, Reply, ReversePath, Timestamp, header};
use smtp::Protocol;
use smtp::client::{Client, Options, Timeouts, TlsPolicy};
use smtp::xforward::Xforward;

use super::Scanner;

/// One attempt to pass a message on.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub trace: Option<Trace>,
    pub recipients: Vec<String>,
    pub message: Bytes,
}

/// A message with this subject and body, as an edge has it: with its own Received on top.
pub fn message(subject: &str, body: &str) -> Bytes {
    let date = Timestamp::now().rfc5322();
    format!(
        "Received: from client.example (client.example [10.1.2.3]) by mx.example with ESMTP; {date}\r\n\
         From: Ann <ann@sender.example>\r\nTo: dev@lists.example\r\nSubject: {subject}\r\nDate: {date}\r\n\
         Message-ID: <{subject}@sender.example>\r\n\r\n{body}\r\n"
    )
    .into_bytes()
    .into()
}

/// Live mail to one list.
pub fn live(message: Bytes) -> Attempt {
    let trace = Trace {
        ident: Ident::new("mx1", 0x5f, 0x2a).unwrap(),
        custody: Custody::Live,
        arrival: Timestamp::now(),
        client: "10.1.2.3".parse().unwrap(),
        helo: "client.example".into(),
        spf: Spf::Pass,
        exempt: false,
        verdict: None,
    };
    Attempt {
        trace: Some(trace),
        recipients: vec!["dev@lists.example".into()],
        message,
    }
}

impl Attempt {
    /// Kept by the edge, whose client has gone long ago.
    pub fn spooled(self) -> Self {
        self.traced(|trace| trace.custody = Custody::Spooled)
    }

    /// With another trace.
    pub fn traced(mut self, change: impl FnOnce(&mut Trace)) -> Self {
        self.trace.as_mut().map(change);
        self
    }

    /// To others.
    pub fn to(mut self, locals: &[&str]) -> Self {
        let recipients = locals.iter().map(|local| format!("{local}@lists.example"));
        self.recipients = recipients.collect();
        self
    }

    pub fn envelope(&self) -> Envelope {
        let recipients = self.recipients.iter();
        Envelope {
            reverse_path: ReversePath::parse("ann@sender.example").unwrap(),
            parameters: MailParameters::default(),
            recipients: recipients
                .map(|to| Address::parse(to).unwrap().into())
                .collect(),
        }
    }

    /// The whole message as it goes over the wire.
    pub fn parts(&self) -> Vec<Bytes> {
        let trace = self.trace.as_ref().map(Trace::header).unwrap_or_default();
        vec![trace.into(), self.message.clone()]
    }

    /// Sends it; a reply a recipient.
    pub async fn send(&self, scanner: &Scanner) -> Vec<Reply> {
        super::soon("replies", self.send_by(scanner, TlsPolicy::Never)).await
    }

    pub async fn send_by(&self, scanner: &Scanner, tls: TlsPolicy) -> Vec<Reply> {
        let options = Options {
            protocol: Protocol::Lmtp,
            helo: "mx1.example".into(),
            tls,
            timeouts: Timeouts::default(),
            source: None,
            chunking: false,
        };
        let mut client = Client::connect(scanner.lmtp, &options).await.unwrap();
        let xforward = Xforward {
            ident: self.trace.as_ref().map(|trace| trace.ident.clone()),
            helo: Some("client.example".into()),
            ..Xforward::default()
        };
        client.xforward(&xforward).await.unwrap();
        let replies = client.send(&self.envelope(), &self.parts()).await.unwrap();
        client.quit().await;
        replies
    }

    /// Sends it to one recipient; `550 5.7.1`, and the reply.
    pub async fn code(&self, scanner: &Scanner) -> (String, Reply) {
        let replies = self.send(scanner).await;
        assert_eq!(replies.len(), 1, "{replies:?}");
        (code(&replies[0]), replies[0].clone())
    }

    /// The verdict that a deferral brought back, checked against what was sent.
    pub fn verdict(&self, reply: &Reply) -> (String, Verdict) {
        let token = Token::from_lines(&reply.lines).expect("a token in the reply");
        let verdict = Token::verify(&token, &digest(&self.message), &super::keys());
        (token, verdict.expect("our token about this message"))
    }
}

/// `550 5.7.1`.
pub fn code(reply: &Reply) -> String {
    let enhanced = reply.enhanced.map(|enhanced| enhanced.to_string());
    format!("{} {}", reply.code, enhanced.unwrap_or_default())
}

/// Those of all replies.
pub fn codes(replies: &[Reply]) -> Vec<String> {
    replies.iter().map(code).collect()
}

/// The names of a message's fields, in order.
pub fn names(message: &Bytes) -> Vec<String> {
    let fields = header::fields(message);
    fields
        .map(|field| String::from_utf8_lossy(field.name).into_owned())
        .collect()
}

/// A field's text.
pub fn field(message: &Bytes, name: &str) -> String {
    let mut fields = header::fields(message);
    let field = fields.find(|field| field.is(name));
    field.unwrap_or_else(|| panic!("no {name}")).text()
}
