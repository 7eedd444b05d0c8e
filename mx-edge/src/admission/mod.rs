//! Who may come in, and how often: what is decided about a client before anything is asked about it. Memory alone, no DNS and no
//! disk. What is decided here never hits our own hosts, and a proxy is never taken for the clients behind it.

pub mod access;
pub mod added;
pub mod clients;
pub mod places;
pub mod pressure;
pub mod rates;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::config::Measure;
use crate::network::{Network, contains};
use crate::policy::decide::Finding;
use crate::reason::Reason;
use access::{Access, Entry as Line, Word};
use added::Added;
use clients::{Admitted, Clients};
use places::Places;
use pressure::Pressure;
use rates::{Limit, Of, Rates};

/// What all sessions share; outlives reloads.
pub struct Admission {
    /// Sessions open, in all.
    pub sessions: Places,
    /// So many there may be.
    pub sessions_max: usize,
    /// Of them those that wait for their greeting.
    pub screening: Places,
    /// Sessions open, by client.
    pub clients: Arc<Clients>,
    /// What operators have added to the access list.
    pub added: Arc<Added>,
    /// What clients have done lately.
    pub rates: Rates,
    /// Whether there is too much of anything.
    pub pressure: Arc<Pressure>,
}

/// What is admitted by; may change on reload.
#[derive(Debug)]
pub struct Door {
    /// Clients by name of their network.
    pub access: Access,
    /// What is done with whom a line of it rejects.
    pub rejects: Measure,
    /// Who speaks for clients by the PROXY protocol, always.
    pub proxies: Vec<Network>,
    /// Who may speak for clients by XCLIENT.
    pub xclient_networks: Vec<Network>,
    /// Ours: nothing here stops them.
    pub own_networks: Vec<Network>,
    /// How often.
    pub limits: Vec<Limit>,
    /// Whom neither these limits concern nor the one on sessions at once.
    pub unlimited: Vec<Network>,
    /// At once, of one client.
    pub sessions_per_client_max: usize,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            access: Access::default(),
            rejects: Measure::Enforce,
            proxies: Vec::new(),
            xclient_networks: Vec::new(),
            own_networks: Vec::new(),
            limits: Vec::new(),
            unlimited: Vec::new(),
            sessions_per_client_max: usize::MAX,
        }
    }
}

/// How a client stands.
#[derive(Debug, Default)]
pub enum Standing {
    /// As everybody.
    #[default]
    Ordinary,
    /// One of our own, a proxy or a trusted host for itself, or permitted: no test and no limit meets it.
    Exempt,
    /// Rejected by the access list, with its note: refused at RCPT, so that the log says whom it wrote to.
    Rejected(Box<str>),
    /// The same, told and not done.
    Warned(Box<str>),
    /// A proxy that looks whether we live.
    Check,
}

impl Standing {
    /// Whether no test meets it.
    pub fn is_exempt(&self) -> bool {
        matches!(self, Self::Exempt)
    }
}

/// Comes in.
#[derive(Default)]
pub struct Entry {
    /// How it stands.
    pub standing: Standing,
    /// Held while its session is open.
    pub admitted: Option<Admitted>,
    /// What would have turned it away if it were enforced.
    pub warned: Vec<Refused>,
}

impl From<Standing> for Entry {
    fn from(standing: Standing) -> Self {
        Self {
            standing,
            ..Self::default()
        }
    }
}

/// Does not, why, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// For the client and the log.
    pub evidence: String,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            evidence: String::new(),
        }
    }
}

impl From<Finding> for Refused {
    fn from(Finding { reason, evidence }: Finding) -> Self {
        Self { reason, evidence }
    }
}

/// The line of the access list that decides about a client.
pub struct Found {
    /// It.
    pub line: Line,
    /// An operator added it at run time; else it stands in a file.
    pub at_run_time: bool,
}

impl Door {
    /// Why nothing here may stop a client, whatever it does: it is one of ours, or speaks for many others.
    pub fn spares(&self, client: IpAddr) -> Option<&'static str> {
        [
            (&self.own_networks, "mail.own_networks"),
            (&self.proxies, "mail.proxies"),
            (&self.xclient_networks, "mail.xclient_networks"),
        ]
        .into_iter()
        .find_map(|(networks, key)| contains(networks, client).then_some(key))
    }

    /// The line that decides about a client; none for whom no list can hit.
    pub fn line(&self, added: &Added, client: IpAddr) -> Option<Found> {
        if self.spares(client).is_some() {
            return None;
        }
        let now = mail::Timestamp::now();
        let at_run_time = added.lookup(client, now).map(|line| Found {
            line,
            at_run_time: true,
        });
        at_run_time.or_else(|| {
            let line = self.access.lookup(client, now)?.clone();
            Some(Found {
                line,
                at_run_time: false,
            })
        })
    }

    /// How the access list has a client; before it, whether it is one that no list can hit.
    fn entry(&self, added: &Added, client: IpAddr) -> Result<Entry, Refused> {
        if self.spares(client).is_some() {
            return Ok(Standing::Exempt.into());
        }
        let Some(Found { line, .. }) = self.line(added, client) else {
            return Ok(Entry::default());
        };
        let dropped = Refused {
            reason: Reason::AccessDropped,
            evidence: line.note.to_string(),
        };
        Ok(match (self.rejects, line.word) {
            (_, Word::Permit) => Standing::Exempt.into(),
            (_, Word::Dunno) | (Measure::Off, _) => Entry::default(),
            (Measure::Warn, Word::Drop) => Entry {
                warned: vec![dropped],
                ..Entry::default()
            },
            (_, Word::Warn) | (Measure::Warn, Word::Reject) => Standing::Warned(line.note).into(),
            (Measure::Enforce, Word::Reject) => Standing::Rejected(line.note).into(),
            (_, Word::Drop) | (Measure::Drop, Word::Reject) => return Err(dropped),
        })
    }
}

impl Admission {
    /// Another one of the same host: what is added, memory and spool are the same, and what is counted is counted apart.
    pub fn apart(&self, rates_entries_max: usize) -> Self {
        Self {
            sessions: Places::default(),
            sessions_max: self.sessions_max,
            screening: Places::default(),
            clients: Arc::default(),
            added: Arc::clone(&self.added),
            rates: Rates::new(rates_entries_max),
            pressure: Arc::clone(&self.pressure),
        }
    }

    /// How the access list has a client.
    pub fn entry(&self, door: &Door, client: IpAddr) -> Result<Entry, Refused> {
        door.entry(&self.added, client)
    }

    /// A client has connected.
    pub fn admit(&self, door: &Door, client: IpAddr) -> Result<Entry, Refused> {
        let mut entry = self.entry(door, client)?;
        if entry.standing.is_exempt() {
            return Ok(entry);
        }
        if self.pressure.memory_is_short() {
            return Err(Reason::Overloaded.into());
        }
        if self.pressure.spool_is_short() {
            return Err(Reason::SpoolShort.into());
        }
        if !contains(&door.unlimited, client) {
            let admitted = self.clients.admit(client, door.sessions_per_client_max);
            entry.admitted = Some(admitted.ok_or(Reason::ClientSessions)?);
        }
        let warned = self.count(door, &entry.standing, Of::Connections, client)?;
        entry.warned.extend(warned);
        Ok(entry)
    }

    /// A client does something that is counted. A limit that only warns is returned.
    pub fn count(
        &self,
        door: &Door,
        standing: &Standing,
        of: Of,
        client: IpAddr,
    ) -> Result<Option<Refused>, Refused> {
        if standing.is_exempt() || contains(&door.unlimited, client) {
            return Ok(None);
        }
        let reached = |limit: &Limit| Refused {
            reason: match of {
                Of::Connections => Reason::ConnectionRate,
                Of::Messages => Reason::MessageRate,
                Of::Recipients => Reason::RecipientRate,
                Of::Tls => Reason::TlsRate,
            },
            evidence: limit.to_string(),
        };
        let taken = self.rates.take(&door.limits, of, client, Instant::now());
        taken.map(|warns| warns.map(reached)).map_err(reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn admission() -> Admission {
        Admission {
            sessions: Places::default(),
            sessions_max: 100,
            screening: Places::default(),
            clients: Arc::default(),
            added: Arc::default(),
            rates: Rates::new(100),
            pressure: Arc::default(),
        }
    }

    fn door(list: &str) -> Door {
        Door {
            access: Access::parse(list).unwrap(),
            proxies: networks(&["192.0.2.80"]),
            own_networks: networks(&["198.51.100.0/24"]),
            sessions_per_client_max: 10,
            ..Door::default()
        }
    }

    #[test]
    fn no_list_hits_a_proxy_or_a_host_of_ours() {
        let (all, door) = (admission(), door("0.0.0.0/0 drop the world\n::/0 drop"));
        let word = |client: &str| match all.admit(&door, client.parse().unwrap()) {
            Ok(entry) => format!("{:?}", entry.standing),
            Err(refused) => format!("{:?} {}", refused.reason, refused.evidence),
        };
        assert_eq!(word("198.51.100.7"), "Exempt");
        assert_eq!(word("::ffff:198.51.100.7"), "Exempt");
        assert_eq!(word("192.0.2.80"), "Exempt");
        assert_eq!(word("192.0.2.81"), "AccessDropped the world");
        assert_eq!(word("2001:db8::1"), "AccessDropped ");
    }

    #[test]
    fn a_rejection_is_done_as_it_is_configured() {
        let list = "203.0.113.1 reject one\n203.0.113.2 drop two\n203.0.113.3 warn three\n203.0.113.4 permit\n";
        let all = admission();
        for (rejects, expected) in [
            (
                Measure::Enforce,
                [
                    "rejected one",
                    "AccessDropped two",
                    "warned three",
                    "exempt",
                ],
            ),
            (
                Measure::Drop,
                [
                    "AccessDropped one",
                    "AccessDropped two",
                    "warned three",
                    "exempt",
                ],
            ),
            (
                Measure::Warn,
                [
                    "warned one",
                    "would AccessDropped two",
                    "warned three",
                    "exempt",
                ],
            ),
            (Measure::Off, ["ordinary", "ordinary", "ordinary", "exempt"]),
        ] {
            let door = Door {
                rejects,
                ..door(list)
            };
            let found =
                ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"].map(|client| {
                    let told =
                        |refused: &Refused| format!("{:?} {}", refused.reason, refused.evidence);
                    match all.admit(&door, client.parse().unwrap()) {
                        Err(refused) => told(&refused),
                        Ok(entry) => match (&entry.standing, entry.warned.first()) {
                            (_, Some(refused)) => format!("would {}", told(refused)),
                            (Standing::Rejected(note), _) => format!("rejected {note}"),
                            (Standing::Warned(note), _) => format!("warned {note}"),
                            (Standing::Exempt, _) => "exempt".into(),
                            _ => "ordinary".into(),
                        },
                    }
                });
            assert_eq!(found, expected, "{rejects:?}");
        }
    }

    #[test]
    fn no_limit_hits_whom_it_must_not() {
        let mut door = door("");
        door.sessions_per_client_max = 1;
        door.xclient_networks = networks(&["192.0.2.90"]);
        door.unlimited = networks(&["192.0.2.100"]);
        let all_of = ["connections", "messages", "recipients", "tls"];
        let limits = all_of.map(|of| format!("1 {of} a minute").parse().unwrap());
        door.limits = limits.to_vec();
        let all = admission();
        for (client, spared) in [
            ("198.51.100.7", true),
            ("192.0.2.80", true),
            ("192.0.2.90", true),
            ("192.0.2.100", true),
            ("192.0.2.110", false),
        ] {
            let client = client.parse().unwrap();
            let (first, second) = (all.admit(&door, client), all.admit(&door, client));
            assert_eq!(second.is_ok(), spared, "{client} twice at once");
            drop(second);
            let standing = first.ok().unwrap().standing;
            assert_eq!(all.admit(&door, client).is_ok(), spared, "{client} again");
            for of in [Of::Messages, Of::Recipients, Of::Tls] {
                let counts = [0; 3].map(|_| all.count(&door, &standing, of, client).is_ok());
                assert_eq!(counts, [true, spared, spared], "{client}: {of:?}");
            }
        }
    }

    #[test]
    fn who_is_permitted_meets_no_limit() {
        let mut door = door("203.0.113.1 permit\n203.0.113.2 reject go away\n");
        door.sessions_per_client_max = 1;
        door.limits = vec!["1 connections a minute".parse().unwrap()];
        let all = admission();
        let admit = |client: &str| all.admit(&door, client.parse().unwrap());
        let open: Vec<_> = (0..5).map(|_| admit("203.0.113.1").ok()).collect();
        assert!(open.iter().all(Option::is_some));
        let rejected = admit("203.0.113.2").ok().unwrap();
        assert!(matches!(&rejected.standing, Standing::Rejected(note) if &**note == "go away"));
        let again = admit("203.0.113.2").err().unwrap();
        assert_eq!(again.reason, Reason::ClientSessions);
        drop(rejected);
        let again = admit("203.0.113.2").err().unwrap();
        assert_eq!(again.reason, Reason::ConnectionRate);
        assert!(
            again.evidence.contains("1 connections"),
            "{}",
            again.evidence
        );
        all.pressure.memory(2, 1);
        assert_eq!(
            admit("203.0.113.3").err().unwrap().reason,
            Reason::Overloaded
        );
        assert!(admit("203.0.113.1").is_ok());
    }
}
