//! Greylisting (RFC 6647): a client that is not known comes again for the same sender and recipient before it is believed. Remembers who
//! came; bounded, kept on disk over restarts. A client is its organisation where SPF vouches for that, else its network, since the next
//! attempt of a large sender often comes from another host.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use mail::Timestamp;

use crate::config;
use crate::passes::{Kept, Passes};

/// Where it is kept, in the state folder.
const FILE: &str = "greylist";

/// What is remembered, over reloads.
pub type Memory = Kept;

/// Opens what was remembered.
pub fn open(state: &Path, entries_max: usize) -> Memory {
    Kept::open(state.join(FILE), entries_max)
}

/// The rules, on what is remembered.
pub struct Greylist {
    settings: config::Greylist,
    memory: Arc<Memory>,
}

/// An attempt.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// From where.
    pub client: IpAddr,
    /// The domain that SPF vouches for.
    pub organisation: Option<&'a str>,
    /// The reverse-path.
    pub sender: &'a str,
    /// The forward-path.
    pub recipient: &'a str,
}

impl Greylist {
    /// As configured.
    pub fn new(settings: &config::Greylist, memory: &Arc<Memory>) -> Self {
        Self {
            settings: settings.clone(),
            memory: Arc::clone(memory),
        }
    }

    /// How many seconds this client has to wait; none when it need not. `dry`: nothing is remembered of it.
    pub fn visit(&self, visit: &Visit<'_>, dry: bool) -> Option<u64> {
        let mut passes = self.memory.passes();
        visit_at(&self.settings, &mut passes, visit, Timestamp::now(), dry)
    }
}

fn visit_at(
    settings: &config::Greylist,
    passes: &mut Passes,
    visit: &Visit<'_>,
    now: Timestamp,
    dry: bool,
) -> Option<u64> {
    let client = match visit.organisation {
        Some(organisation) => format!("o:{organisation}"),
        None => format!("n:{}", network(visit.client)),
    };
    let sender = visit.sender.to_lowercase();
    let recipient = visit.recipient.to_lowercase();
    let triplet = |kind: &str| key(&[kind, &client, &sender, &recipient]);
    let round = |count: u32| key(&["known", &client, &count.to_string()]);
    let (known_after, until) = (settings.known_after, now.after(settings.valid));
    if known_after > 0 && passes.has_key(round(known_after), now) {
        if !dry {
            passes.grant_key(round(known_after), until, now);
        }
        return None;
    }
    if passes.has_key(triplet("passed"), now) {
        if !dry {
            passes.grant_key(triplet("passed"), until, now);
        }
        return None;
    }
    let waiting = triplet("waiting");
    let Some(ends) = passes.until(waiting).filter(|ends| *ends > now.seconds()) else {
        if !dry {
            passes.grant_key(waiting, now.after(settings.window), now);
        }
        return Some(settings.delay.as_secs());
    };
    // Its window began when it first came.
    let open = ends.saturating_sub(settings.window.as_secs()) + settings.delay.as_secs();
    if now.seconds() < open {
        return Some(open - now.seconds());
    }
    if !dry {
        passes.forget(waiting);
        passes.grant_key(triplet("passed"), until, now);
        // One more that came again.
        let next = (1..=known_after).find(|count| !passes.has_key(round(*count), now));
        if let Some(count) = next {
            passes.grant_key(round(count), until, now);
        }
    }
    None
}

/// The /24 or /64 a client is in: the hosts of one sender mostly share it.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & 0xffff_ff00).into()),
        v6 => crate::network::client_key(v6),
    }
}

/// What is remembered instead of addresses: 128 bits of a digest over the parts, each with its length, so that no sender can make two
/// of them alike.
fn key(parts: &[&str]) -> u128 {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    let (half, _) = digest.as_ref().split_at(16);
    u128::from_be_bytes(half.try_into().expect("16 of 32 octets"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> config::Greylist {
        config::Greylist {
            delay: Duration::from_secs(300),
            window: Duration::from_secs(7200),
            valid: Duration::from_secs(100_000),
            known_after: 2,
            ..config::Greylist::default()
        }
    }

    struct Case {
        passes: Passes,
        settings: config::Greylist,
    }

    impl Case {
        fn new() -> Self {
            Self {
                passes: Passes::new(1000),
                settings: settings(),
            }
        }

        fn come(
            &mut self,
            at: u64,
            client: &str,
            organisation: Option<&str>,
            to: &str,
        ) -> Option<u64> {
            let visit = Visit {
                client: client.parse().unwrap(),
                organisation,
                sender: "Ann@sender.example",
                recipient: to,
            };
            let now = Timestamp(at * 1000);
            visit_at(&self.settings, &mut self.passes, &visit, now, false)
        }
    }

    #[test]
    fn who_comes_again_in_time_passes_and_is_remembered() {
        let mut case = Case::new();
        assert_eq!(
            case.come(1000, "192.0.2.1", None, "joe@a.example"),
            Some(300)
        );
        assert_eq!(
            case.come(1100, "192.0.2.1", None, "joe@a.example"),
            Some(200)
        );
        assert_eq!(case.come(1299, "192.0.2.9", None, "Joe@a.example"), Some(1));
        assert_eq!(case.come(1300, "192.0.2.9", None, "joe@a.example"), None);
        assert_eq!(case.come(1301, "192.0.2.200", None, "joe@a.example"), None);
        assert_eq!(
            case.come(1301, "198.51.100.1", None, "joe@a.example"),
            Some(300)
        );
    }

    #[test]
    fn who_comes_too_late_begins_anew() {
        let mut case = Case::new();
        case.come(1000, "192.0.2.1", None, "joe@a.example");
        assert_eq!(
            case.come(8200, "192.0.2.1", None, "joe@a.example"),
            Some(300)
        );
    }

    #[test]
    fn a_pool_is_one_client_where_spf_vouches_for_it() {
        let mut case = Case::new();
        let organisation = Some("pool.example");
        assert_eq!(
            case.come(1000, "192.0.2.1", organisation, "joe@a.example"),
            Some(300)
        );
        assert_eq!(
            case.come(1400, "2001:db8::1", organisation, "joe@a.example"),
            None
        );
    }

    #[test]
    fn who_came_again_often_enough_is_known() {
        let mut case = Case::new();
        for (round, to) in ["one@a.example", "two@a.example"].into_iter().enumerate() {
            let at = 1000 + 1000 * round as u64;
            assert_eq!(case.come(at, "192.0.2.1", None, to), Some(300));
            assert_eq!(case.come(at + 300, "192.0.2.1", None, to), None);
        }
        assert_eq!(case.come(5000, "192.0.2.77", None, "new@a.example"), None);
        assert_eq!(
            case.come(5000, "192.0.3.1", None, "new@a.example"),
            Some(300)
        );
    }

    #[test]
    fn a_dry_visit_leaves_no_trace() {
        let settings = settings();
        let mut passes = Passes::new(10);
        let visit = Visit {
            client: "192.0.2.1".parse().unwrap(),
            organisation: None,
            sender: "",
            recipient: "joe@a.example",
        };
        for at in [1000, 2000] {
            let wait = visit_at(&settings, &mut passes, &visit, Timestamp(at * 1000), true);
            assert_eq!(wait, Some(300));
        }
        assert_eq!(passes.len(), 0);
    }
}
