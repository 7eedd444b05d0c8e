//! How refusals are worded for strangers: with the token by which an operator finds them and where to ask, and softly while
//! `soft_bounce` is on. Every 4xx and 5xx that a session says goes through here, whoever says it first: the policy, the session
//! itself, the inside.

use mail::reply::LINES_MAX;
use mail::{Reply, Severity};
use smtp::server::{Facts, Wording};

/// See the module.
#[derive(Debug, Default)]
pub struct Words {
    /// Where to ask; nothing is said of it when empty.
    pub contact: String,
    /// Nothing is refused for good: the sender keeps it while a mistake of ours is looked for. As Postfix does it, syntax errors and
    /// commands out of order are no exception.
    pub soft: bool,
}

impl Words {
    /// The reply as the client is told it; `token` finds it in the records.
    pub fn told(&self, mut reply: Reply, token: &str) -> Reply {
        if reply.is_positive() {
            return reply;
        }
        if self.soft && reply.severity() == Severity::Permanent {
            reply.code -= 100;
            if let Some(enhanced) = &mut reply.enhanced {
                enhanced.0 = 4;
            }
        }
        // A reply of the inside may name it already.
        let contact = match &self.contact {
            contact if contact.is_empty() || reply.text().contains(contact) => "",
            contact => contact,
        };
        reply.lines.truncate(LINES_MAX - 2);
        let text = format!("{} [{token}] {contact}", reply.lines.join("\n"));
        // Folded anew.
        reply.lines = Reply::plain(reply.code, text).lines;
        reply
    }
}

impl Wording for Words {
    fn refusal(&self, facts: &Facts, reply: Reply) -> Reply {
        self.told(reply, &facts.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn told(soft: bool, reply: Reply) -> Reply {
        let contact = "https://help.example/".into();
        Words { contact, soft }.told(reply, TOKEN)
    }

    #[test]
    fn a_refusal_has_its_token_and_where_to_ask() {
        for (code, text, hard, soft) in [
            (
                550,
                "no such user",
                "550 5.1.1 no such user [0123456789abcdef] https://help.example/",
                "450 4.1.1 no such user [0123456789abcdef] https://help.example/",
            ),
            (
                554,
                "spam\nsee https://help.example/",
                "554 5.1.1 spam see https://help.example/ [0123456789abcdef]",
                "454 4.1.1 spam see https://help.example/ [0123456789abcdef]",
            ),
            (
                500,
                "what?",
                "500 5.1.1 what? [0123456789abcdef] https://help.example/",
                "400 4.1.1 what? [0123456789abcdef] https://help.example/",
            ),
        ] {
            let reply = Reply::new(code, (5, 1, 1), text);
            assert_eq!(told(false, reply.clone()).to_string(), hard);
            assert_eq!(told(true, reply).to_string(), soft);
        }
        let later = Reply::new(451, (4, 3, 0), "later");
        assert_eq!(told(true, later.clone()), told(false, later));
        let taken = Reply::new(250, (2, 0, 0), "taken");
        assert_eq!(told(true, taken.clone()), taken);
        let plain = Words::default().told(Reply::plain(550, "no"), TOKEN);
        assert_eq!(plain.to_string(), "550 no [0123456789abcdef]");
    }

    #[test]
    fn whatever_it_says_its_lines_fit_and_the_token_is_in_them() {
        for text in ["word ".repeat(300), "x".repeat(480), "line\n".repeat(500)] {
            let mut out = Vec::new();
            let reply = told(false, Reply::new(550, (5, 7, 1), text));
            reply.write(&mut out);
            let wire = String::from_utf8(out).unwrap();
            let lines: Vec<&str> = wire.split_terminator("\r\n").collect();
            let last = lines.len() - 1;
            for (at, line) in lines.iter().enumerate() {
                assert!(line.len() <= 510, "{line}");
                let head = if at == last {
                    "550 5.7.1 "
                } else {
                    "550-5.7.1 "
                };
                assert!(line.starts_with(head), "{line}");
            }
            assert!(wire.contains("[0123456789abcdef]"), "{wire}");
            assert!(wire.contains("https://help.example/"), "{wire}");
        }
    }
}
