//! What is known of a client and its sender when a recipient is decided upon, and what can still be asked. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mail::trace::Spf;
use mail::{Domain, ReversePath, Timestamp};

use crate::config::Subject;
use crate::dnsbl::Listing;
use crate::names::{ClientName, MailDomain};

/// Something that costs a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asked<T> {
    /// Nobody asked yet.
    #[default]
    No,
    /// No answer came. That counts against nobody: a resolver that is down must not refuse mail.
    Silent,
    /// The answer.
    Known(T),
}

impl<T> From<Option<T>> for Asked<T> {
    fn from(answer: Option<T>) -> Self {
        answer.map_or(Self::Silent, Self::Known)
    }
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// What the lists of clients say.
    Listing,
    /// The client's name.
    ClientName,
    /// Whether the host that HELO names exists.
    HeloHost,
    /// Whether the sender's domain takes mail.
    SenderDomain,
    /// What the lists of domains say.
    DomainLists,
    /// SPF.
    Spf,
    /// The addresses that a table is about.
    Hosts(Subject),
    /// Whether the client has to come again for this recipient.
    Greylist,
}

impl Question {
    /// The word in metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Listing => "dnsbl",
            Self::ClientName => "client_name",
            Self::HeloHost => "helo_host",
            Self::SenderDomain => "sender_domain",
            Self::DomainLists => "domain_lists",
            Self::Spf => "spf",
            Self::Hosts(subject) => subject.as_str(),
            Self::Greylist => "greylist",
        }
    }
}

/// What came of a question.
#[derive(Clone, Debug)]
pub enum Answer {
    /// See [`Question::Listing`].
    Listing(Listing),
    /// See [`Question::ClientName`].
    ClientName(Option<ClientName>),
    /// See [`Question::HeloHost`].
    HeloHost(Option<bool>),
    /// See [`Question::SenderDomain`].
    SenderDomain(Option<MailDomain>),
    /// See [`Question::DomainLists`]: `sender.example by list` each.
    DomainLists(Vec<Box<str>>),
    /// See [`Question::Spf`].
    Spf(Spf),
    /// See [`Question::Hosts`].
    Hosts(Subject, Option<Vec<IpAddr>>),
    /// See [`Question::Greylist`]: how many seconds it has to wait; none when it need not.
    Greylist(Option<u64>),
}

impl Answer {
    /// Whether nobody answered.
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::ClientName(None)
                | Self::HeloHost(None)
                | Self::SenderDomain(None)
                | Self::Hosts(_, None)
                | Self::Spf(Spf::TempError)
        )
    }
}

/// What HELO named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Helo {
    /// A host.
    Host(Domain),
    /// An address, in brackets as RFC 5321 4.1.3 wants it.
    Literal(IpAddr),
    /// An address without brackets.
    Number,
    /// Neither.
    Nonsense,
}

impl Helo {
    /// Reads the argument of HELO or EHLO.
    pub fn parse(said: &str) -> Self {
        if said.parse::<IpAddr>().is_ok() {
            return Self::Number;
        }
        if let Some(literal) = said.strip_prefix('[') {
            let literal = literal.strip_suffix(']').unwrap_or_default();
            let tagged = literal
                .get(..5)
                .filter(|tag| tag.eq_ignore_ascii_case("IPv6:"));
            let address = tagged.map_or(literal, |_| &literal[5..]);
            return address.parse().map_or(Self::Nonsense, Self::Literal);
        }
        Domain::parse(said).map_or(Self::Nonsense, Self::Host)
    }
}

/// All that is known.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The client's address.
    pub client: IpAddr,
    /// Of a network that the policy is not for.
    pub exempt: bool,
    /// What the client said before it was greeted.
    pub spoke_first: Option<Box<str>>,
    /// The argument of HELO.
    pub said: Box<str>,
    /// What that is.
    pub helo: Helo,
    /// It is this host's name or address.
    pub helo_is_ours: bool,
    /// The sender.
    pub reverse_path: ReversePath,
    /// The forward-path that is decided upon.
    pub forward_path: Box<str>,
    /// When it is decided: lines of tables have an end.
    pub time: Timestamp,
    /// See [`Question::Listing`].
    pub listing: Asked<Listing>,
    /// See [`Question::ClientName`].
    pub client_name: Asked<ClientName>,
    /// See [`Question::HeloHost`].
    pub helo_host: Asked<bool>,
    /// See [`Question::SenderDomain`].
    pub sender_domain: Asked<MailDomain>,
    /// See [`Question::DomainLists`].
    pub domain_lists: Asked<Vec<Box<str>>>,
    /// See [`Question::Spf`].
    pub spf: Asked<Spf>,
    /// See [`Question::Hosts`].
    pub hosts: BTreeMap<Subject, Asked<Vec<IpAddr>>>,
    /// See [`Question::Greylist`].
    pub greylist: Asked<Option<u64>>,
}

impl Evidence {
    /// Just connected.
    pub fn new(client: IpAddr) -> Self {
        Self {
            client,
            exempt: false,
            spoke_first: None,
            said: Box::default(),
            helo: Helo::Nonsense,
            helo_is_ours: false,
            reverse_path: ReversePath::Null,
            forward_path: Box::default(),
            time: Timestamp(0),
            listing: Asked::No,
            client_name: Asked::No,
            helo_host: Asked::No,
            sender_domain: Asked::No,
            domain_lists: Asked::No,
            spf: Asked::No,
            hosts: BTreeMap::new(),
            greylist: Asked::No,
        }
    }

    /// HELO: what depends on it is to be asked anew.
    pub fn greeted(&mut self, said: &str, ours: bool) {
        if *self.said != *said {
            self.said = said.into();
            self.helo = Helo::parse(said);
            self.helo_host = Asked::No;
            self.hosts.retain(|subject, _| subject.is_of_sender());
        }
        self.helo_is_ours = ours;
        self.sender(&ReversePath::Null);
    }

    /// MAIL: what depends on it is to be asked anew.
    pub fn sender(&mut self, reverse_path: &ReversePath) {
        self.reverse_path = reverse_path.clone();
        self.sender_domain = Asked::No;
        self.domain_lists = Asked::No;
        self.spf = Asked::No;
        self.hosts.retain(|subject, _| !subject.is_of_sender());
    }

    /// RCPT: the same.
    pub fn recipient(&mut self, forward_path: &str, now: Timestamp) {
        self.forward_path = forward_path.into();
        self.time = now;
        self.greylist = Asked::No;
    }

    /// The sender's domain, where it is a name.
    pub fn domain(&self) -> Option<&Domain> {
        let domain = self.reverse_path.address().map(mail::Address::domain);
        domain.filter(|domain| !domain.is_literal())
    }

    /// The domain whose hosts a table is about, where it is a name.
    pub fn hosts_of(&self, subject: Subject) -> Option<&Domain> {
        match &self.helo {
            _ if subject.is_of_sender() => self.domain(),
            Helo::Host(name) if !name.is_literal() => Some(name),
            _ => None,
        }
    }

    /// Takes an answer in.
    pub fn learn(&mut self, answer: Answer) {
        match answer {
            Answer::Listing(listing) => self.listing = Asked::Known(listing),
            Answer::ClientName(name) => self.client_name = name.into(),
            Answer::HeloHost(exists) => self.helo_host = exists.into(),
            Answer::SenderDomain(domain) => self.sender_domain = domain.into(),
            Answer::DomainLists(hits) => self.domain_lists = Asked::Known(hits),
            Answer::Spf(result) => self.spf = Asked::Known(result),
            Answer::Hosts(subject, addresses) => {
                self.hosts.insert(subject, addresses.into());
            }
            Answer::Greylist(wait) => self.greylist = Asked::Known(wait),
        }
    }

    /// Nobody will answer any more.
    pub fn give_up(&mut self, question: Question) {
        match question {
            Question::Listing => self.listing = Asked::Silent,
            Question::ClientName => self.client_name = Asked::Silent,
            Question::HeloHost => self.helo_host = Asked::Silent,
            Question::SenderDomain => self.sender_domain = Asked::Silent,
            Question::DomainLists => self.domain_lists = Asked::Silent,
            Question::Spf => self.spf = Asked::Silent,
            Question::Hosts(subject) => {
                self.hosts.insert(subject, Asked::Silent);
            }
            Question::Greylist => self.greylist = Asked::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helo_names() {
        let host = |name: &str| Helo::Host(Domain::parse(name).unwrap());
        for (said, expected) in [
            ("mail.example", host("mail.example")),
            ("MAIL.example.", host("mail.example")),
            ("pc", host("pc")),
            ("a_b.example", host("a_b.example")),
            ("[192.0.2.1]", Helo::Literal("192.0.2.1".parse().unwrap())),
            (
                "[IPv6:2001:db8::1]",
                Helo::Literal("2001:db8::1".parse().unwrap()),
            ),
            ("[ipv6:::1]", Helo::Literal("::1".parse().unwrap())),
            ("192.0.2.1", Helo::Number),
            ("2001:db8::1", Helo::Number),
            ("[192.0.2.1", Helo::Nonsense),
            ("[]", Helo::Nonsense),
            ("", Helo::Nonsense),
            ("a b", Helo::Nonsense),
            ("-x-.example", Helo::parse("-x-.example")),
        ] {
            assert_eq!(Helo::parse(said), expected, "{said:?}");
        }
    }
}
