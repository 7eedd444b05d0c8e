//! What is never passed on to a list or an alias: loops, notifications and automatic answers (RFC 3834, RFC 2919, RFC 5321 6.3).
//! Pure: header bytes in, objection out. The same rules hold at LMTP, where the sender still hears, and at expansion.

use mail::header::{self, Field};
use mail::{Address, Reply, ReversePath};

/// Why a message does not go to a list or an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Objection {
    /// It carries our own loop mark or List-Id: it has been here.
    Loop,
    /// It has passed too many hosts.
    Hops,
    /// Its reverse-path is null: a notification.
    NullSender,
    /// It is an automatic answer.
    AutoReplied,
}

impl Objection {
    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loop => "loop",
            Self::Hops => "hops",
            Self::NullSender => "null-sender",
            Self::AutoReplied => "auto-replied",
        }
    }

    /// What the client is told.
    pub fn reply(self) -> Reply {
        match self {
            Self::Loop => Reply::new(
                554,
                (5, 4, 6),
                "mail loop: this message has been here before",
            ),
            Self::Hops => Reply::new(554, (5, 4, 6), "mail loop: too many Received fields"),
            Self::NullSender => Reply::new(
                550,
                (5, 7, 1),
                "a list takes no mail from the null reverse-path",
            ),
            Self::AutoReplied => Reply::new(550, (5, 7, 1), "a list takes no automatic answers"),
        }
    }
}

/// The loop mark's value in `Delivered-To`, ezmlm's: `mailing list dev@lists.example`.
pub fn list_mark(list: &Address) -> String {
    format!("mailing list {list}")
}

/// The value of List-Id between its angle brackets (RFC 2919 3): `dev.lists.example`.
pub fn list_id(list: &Address) -> String {
    let local: String = list
        .local()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.+".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("{local}.{}", list.domain())
}

/// What speaks against a message as a post to `list`.
pub fn to_list(
    list: &Address,
    reverse_path: &ReversePath,
    message: &[u8],
    hops_max: usize,
) -> Option<Objection> {
    if *reverse_path == ReversePath::Null {
        return Some(Objection::NullSender);
    }
    let (mark, id) = (list_mark(list), list_id(list));
    let ours = |field: &Field<'_>| {
        (field.is("Delivered-To") && same(&field.text(), &mark))
            || (field.is("List-Id")
                && bracketed(&field.text()).is_some_and(|text| same(&text, &id)))
    };
    if header::fields(message).any(|field| ours(&field)) {
        return Some(Objection::Loop);
    }
    if auto_submitted(message).as_deref() == Some("auto-replied") {
        return Some(Objection::AutoReplied);
    }
    hops(message, hops_max)
}

/// What speaks against passing a message on from the alias, owner or role address `by`. Notifications do pass: a person reads them.
pub fn to_forward(by: &Address, message: &[u8], hops_max: usize) -> Option<Objection> {
    let mark = by.to_string();
    let been =
        header::fields(message).any(|field| field.is("Delivered-To") && same(&field.text(), &mark));
    if been {
        return Some(Objection::Loop);
    }
    hops(message, hops_max)
}

/// The keyword of Auto-Submitted (RFC 3834 5) in lower case; none when it is missing or `no`.
pub fn auto_submitted(message: &[u8]) -> Option<String> {
    let field = header::fields(message).find(|field| field.is("Auto-Submitted"))?;
    let text = field.text();
    let keyword = text.split([';', ' ', '(']).next().unwrap_or_default();
    let keyword = keyword.trim().to_ascii_lowercase();
    (keyword != "no").then_some(keyword)
}

fn hops(message: &[u8], hops_max: usize) -> Option<Objection> {
    let received = header::fields(message)
        .filter(|field| field.is("Received"))
        .count();
    (received > hops_max).then_some(Objection::Hops)
}

fn bracketed(text: &str) -> Option<String> {
    let start = text.rfind('<')? + 1;
    let end = start + text[start..].find('>')?;
    Some(text[start..end].trim().to_owned())
}

fn same(one: &str, other: &str) -> bool {
    one.trim().eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: Option<Objection>) {
        let list = Address::parse("Dev@lists.example").unwrap();
        let from = ReversePath::parse("joe@one.example").unwrap();
        let message = format!(
            "Received: a\r\n{header}Subject: s\r\n\r\nDelivered-To: mailing list dev@lists.example\r\n"
        );
        assert_eq!(
            to_list(&list, &from, message.as_bytes(), 3),
            expected,
            "{header:?}"
        );
    }

    #[test]
    fn posts() {
        use Objection::*;
        check("", None);
        check(
            "Delivered-To: mailing list dev@lists.example\r\n",
            Some(Loop),
        );
        check(
            "delivered-to:\r\n mailing list DEV@lists.example \r\n",
            Some(Loop),
        );
        check("Delivered-To: mailing list other@lists.example\r\n", None);
        check("Delivered-To: dev@lists.example\r\n", None);
        check("List-Id: Development <dev.lists.example>\r\n", Some(Loop));
        check("List-Id: \"a <b>\" <DEV.lists.example>\r\n", Some(Loop));
        check("List-Id: <dev.other.example>\r\n", None);
        check("List-Id: <dev.lists.example\r\n", None);
        check("Auto-Submitted: auto-replied\r\n", Some(AutoReplied));
        check(
            "Auto-submitted: Auto-Replied (vacation); x=y\r\n",
            Some(AutoReplied),
        );
        check("Auto-Submitted: auto-generated\r\n", None);
        check("Auto-Submitted: no\r\n", None);
        check("Received: b\r\nReceived: c\r\n", None);
        check("Received: b\r\nReceived: c\r\nReceived: d\r\n", Some(Hops));
    }

    #[test]
    fn the_null_reverse_path_is_no_author() {
        let list = Address::parse("dev@lists.example").unwrap();
        let got = to_list(&list, &ReversePath::Null, b"Subject: s\r\n\r\n", 3);
        assert_eq!(got, Some(Objection::NullSender));
    }

    #[test]
    fn forwards() {
        let by = Address::parse("Joe@lists.example").unwrap();
        let table: [(&str, Option<Objection>); 4] = [
            ("Subject: s\r\n\r\n", None),
            (
                "Delivered-To: joe@lists.example\r\n\r\n",
                Some(Objection::Loop),
            ),
            ("Delivered-To: ann@lists.example\r\n\r\n", None),
            ("Received: a\r\nReceived: b\r\n\r\n", Some(Objection::Hops)),
        ];
        for (message, expected) in table {
            assert_eq!(
                to_forward(&by, message.as_bytes(), 1),
                expected,
                "{message:?}"
            );
        }
    }
}
