//! The texts of answers, and how they are written. From the list's help address, to one person, Auto-Submitted (RFC 3834 3).

use mail::header;
use mail::recipient::Request;
use mail::{Address, Domain, Timestamp};

/// What an answer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A reply to the address confirms the request.
    Confirm(Request, Address),
    /// The person is a member now.
    Welcome,
    /// The person is none any more.
    Goodbye,
    /// The person is a member already, under this spelling.
    Already(Address),
    /// The person is no member.
    NotSubscribed,
    /// The address is too long for a confirmation.
    TooLong,
    /// How it all works.
    Help,
}

impl Subject {
    /// The word in logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Confirm(Request::Subscribe, _) => "confirm-subscribe",
            Self::Confirm(Request::Unsubscribe, _) => "confirm-unsubscribe",
            Self::Welcome => "welcome",
            Self::Goodbye => "goodbye",
            Self::Already(_) => "already-subscribed",
            Self::NotSubscribed => "not-subscribed",
            Self::TooLong => "too-long",
            Self::Help => "help",
        }
    }

    fn line(&self, list: &Address) -> String {
        match self {
            Self::Confirm(Request::Subscribe, _) => format!("confirm subscribe to {list}"),
            Self::Confirm(Request::Unsubscribe, _) => format!("confirm unsubscribe from {list}"),
            Self::Welcome => format!("WELCOME to {list}"),
            Self::Goodbye => format!("GOODBYE from {list}"),
            Self::Already(_) => format!("you are subscribed to {list}"),
            Self::NotSubscribed => format!("you are not subscribed to {list}"),
            Self::TooLong => format!("your address cannot be confirmed for {list}"),
            Self::Help => format!("{list}: how to use this list"),
        }
    }

    fn text(&self, list: &Address, to: &Address) -> String {
        match self {
            Self::Confirm(request, reply_to) => {
                let (wish, done) = match request {
                    Request::Subscribe => ("added to", "added"),
                    Request::Unsubscribe => ("removed from", "removed"),
                };
                format!(
                    "Somebody, probably you, asked that the address\n\n    {to}\n\nbe {wish} the mailing list\n\n    {list}\n\n\
                     If you want this, reply to this message. The reply goes to\n\n    {reply_to}\n\n\
                     and may be empty. If your program cuts long addresses, copy the whole of it.\n\
                     Unless you reply, nothing is {done}, and you need not do anything.\n"
                )
            }
            Self::Welcome => format!(
                "{to} is now a member of the mailing list {list}.\n\nKeep this message: it tells under which address you are subscribed.\n"
            ),
            Self::Goodbye => {
                format!("{to} is no longer a member of the mailing list {list}.\n")
            }
            Self::Already(member) => format!(
                "{member} is a member of the mailing list {list} already.\nNothing was changed.\n"
            ),
            Self::NotSubscribed => format!(
                "{to} is not a member of the mailing list {list}.\nNothing was changed.\n\n\
                 If you still get its mail, you are subscribed under another address. The first lines of\n\
                 such a message (Return-Path or Delivered-To) show which one; with user@host in its place, write to\n\n    {}\n",
                below(list, "unsubscribe-user=host")
            ),
            Self::TooLong => format!(
                "The address {to} is so long that no confirmation can be made for it.\nAsk the owners of the list: {}\n",
                below(list, "owner")
            ),
            Self::Help => format!("This is the mailing list {list}.\n"),
        }
    }
}

/// An answer to one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To whom.
    pub to: Address,
    /// What it says.
    pub subject: Subject,
}

impl Answer {
    /// An answer.
    pub fn new(to: &Address, subject: Subject) -> Self {
        Self {
            to: to.clone(),
            subject,
        }
    }

    /// The whole message, CRLF lines. `asked` is the message that is answered.
    pub fn write(&self, list: &Address, hostname: &Domain, unique: &str, asked: &[u8]) -> Vec<u8> {
        let text = format!(
            "{}\n-- \nTo post, write to           {list}\nTo subscribe, write to      {}\nTo unsubscribe, write to    {}\n\
             To reach the people who run the list, write to {}\n",
            self.subject.text(list, &self.to),
            below(list, "subscribe"),
            below(list, "unsubscribe"),
            below(list, "owner"),
        );
        let mut out = String::new();
        let mut put = |name: &str, value: &str| out.push_str(&header::fold(name, value));
        put("Date", &Timestamp::now().rfc5322());
        put("From", &below(list, "help"));
        put("To", &self.to.to_string());
        if let Subject::Confirm(_, reply_to) = &self.subject {
            put("Reply-To", &reply_to.to_string());
        }
        put("Subject", &self.subject.line(list));
        put("Message-ID", &format!("<{unique}@{hostname}>"));
        if let Some(id) = message_id(asked) {
            put("In-Reply-To", &id);
            put("References", &id);
        }
        put("Auto-Submitted", "auto-replied");
        put("MIME-Version", "1.0");
        put("Content-Type", "text/plain; charset=utf-8");
        let encoding = if text.is_ascii() { "7bit" } else { "8bit" };
        put("Content-Transfer-Encoding", encoding);
        out.push_str("\r\n");
        out.push_str(&text.replace('\n', "\r\n"));
        out.into_bytes()
    }
}

/// `dev-help@lists.example`.
fn below(list: &Address, extension: &str) -> String {
    let local = format!("{}-{extension}", list.local());
    Address::new(&local, list.domain().clone())
        .map_or_else(|_| list.to_string(), |address| address.to_string())
}

/// The Message-ID of the message that is answered, when it looks like one.
fn message_id(message: &[u8]) -> Option<String> {
    let field = header::fields(message).find(|field| field.is("Message-ID"))?;
    let id = field.text();
    let whole = id.starts_with('<') && id.ends_with('>') && id.len() <= 250;
    (whole && id.bytes().all(|byte| byte.is_ascii_graphic())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn a_confirmation_is_answered_by_a_reply() {
        let reply_to = address("dev-sc.1.abcdefghijklmnopabcd-joe=one.example@lists.example");
        let answer = Answer::new(
            &address("joe@one.example"),
            Subject::Confirm(Request::Subscribe, reply_to.clone()),
        );
        let asked = b"Message-ID: <m@one.example>\r\n\r\n";
        let host = Domain::parse("host.example").unwrap();
        let message = answer.write(&address("dev@lists.example"), &host, "answer.1", asked);
        let value = |name: &str| {
            header::fields(&message)
                .find(|field| field.is(name))
                .map(|field| field.text())
        };
        assert_eq!(value("Reply-To"), Some(reply_to.to_string()));
        assert_eq!(value("From").as_deref(), Some("dev-help@lists.example"));
        assert_eq!(value("To").as_deref(), Some("joe@one.example"));
        assert_eq!(value("Auto-Submitted").as_deref(), Some("auto-replied"));
        assert_eq!(value("In-Reply-To").as_deref(), Some("<m@one.example>"));
        assert_eq!(
            value("Message-ID").as_deref(),
            Some("<answer.1@host.example>")
        );
        let text = String::from_utf8(message).unwrap();
        assert!(text.lines().all(|line| !line.ends_with('\n')));
        assert!(text.contains(&format!("    {reply_to}\r\n")));
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    }

    #[test]
    fn strange_message_ids_are_not_repeated() {
        let table: [(&str, Option<&str>); 4] = [
            ("Message-ID: <a@b>\r\n\r\n", Some("<a@b>")),
            ("Message-ID: a@b\r\n\r\n", None),
            ("Message-ID: <a b@c>\r\n\r\n", None),
            ("\r\n", None),
        ];
        for (message, expected) in table {
            assert_eq!(message_id(message.as_bytes()).as_deref(), expected);
        }
    }
}
