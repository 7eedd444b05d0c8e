//! How often clients come, counted by network over a sliding window, in bounded memory. The clock is passed in.
//!
//! Only what is let through is counted, so that a client gets exactly its share however often it asks for more.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::duration;
use tokio::time::Instant;

use crate::config::Action;
use crate::network::{Network, contains};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// Sessions that begin.
    Connections,
    /// MAIL commands.
    Messages,
    /// RCPT commands, whatever is answered.
    Recipients,
    /// STARTTLS commands.
    Tls,
}

impl Of {
    /// As configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Messages => "messages",
            Self::Recipients => "recipients",
            Self::Tls => "tls",
        }
    }
}

/// `[[rates.limits]]`: so many of something in a time, from one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Of what.
    pub of: Of,
    /// So many ...
    pub most: u32,
    /// ... in so long.
    #[serde(with = "duration", default = "minute")]
    pub per: Duration,
    /// Clients whose first so many bits agree are one.
    #[serde(default = "whole")]
    pub ipv4_prefix: u8,
    /// Likewise; a host has a /64 to choose from.
    #[serde(default = "host")]
    pub ipv6_prefix: u8,
    /// What is done with who reaches it.
    #[serde(default = "enforce")]
    pub action: Action,
    /// Whom it does not concern.
    #[serde(default)]
    pub skip_networks: Vec<Network>,
}

impl Limit {
    /// Whether it is counted for a client that does this.
    fn concerns(&self, of: Of, client: IpAddr) -> bool {
        self.of == of && self.action != Action::Off && !contains(&self.skip_networks, client)
    }
}

fn enforce() -> Action {
    Action::Enforce
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn whole() -> u8 {
    32
}

fn host() -> u8 {
    64
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, per) = (self.of.as_str(), self.per.as_secs_f32());
        write!(f, "{} {of} in {per} s", self.most)
    }
}

/// `10 messages a minute`, for tests.
impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let [most, of, "a", "minute"] = words[..] else {
            return Err(format!("{text:?} is not like \"10 messages a minute\""));
        };
        Ok(Self {
            of: match of {
                "connections" => Of::Connections,
                "messages" => Of::Messages,
                "recipients" => Of::Recipients,
                "tls" => Of::Tls,
                other => return Err(format!("{other:?} is not counted")),
            },
            most: most.parse().map_err(|_| format!("{most:?} is no number"))?,
            per: minute(),
            ipv4_prefix: whole(),
            ipv6_prefix: host(),
            action: enforce(),
            skip_networks: Vec::new(),
        })
    }
}

/// By what is counted; the same over reloads while the limit's network and time stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    of: Of,
    per: Duration,
    network: Network,
}

/// In the window that runs, and in the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    window: u64,
    now: u32,
    before: u32,
}

impl Count {
    /// Moved on to `window`.
    fn at(self, window: u64) -> Self {
        match window.saturating_sub(self.window) {
            0 => self,
            1 => Self {
                window,
                now: 0,
                before: self.now,
            },
            _ => Self {
                window,
                ..Self::default()
            },
        }
    }

    /// Of the last whole time, `share` of the running window being over.
    fn lately(self, share: f64) -> f64 {
        f64::from(self.before) * (1.0 - share) + f64::from(self.now)
    }
}

/// Counts by client.
#[derive(Debug)]
pub struct Rates {
    began: Instant,
    entries_max: usize,
    counts: Mutex<HashMap<Key, Count>>,
}

impl Rates {
    /// Nothing counted; at most so many counts are kept.
    pub fn new(entries_max: usize) -> Self {
        Self {
            began: Instant::now(),
            entries_max: entries_max.max(1),
            counts: Mutex::default(),
        }
    }

    /// Counts one more in every limit on this, or in none when one is reached that is enforced: that is the error. One that is
    /// reached and only warns is returned, and does not count what it would have refused.
    pub fn take<'a>(
        &self,
        limits: &'a [Limit],
        of: Of,
        client: IpAddr,
        now: Instant,
    ) -> Result<Option<&'a Limit>, &'a Limit> {
        let mut limits = (limits.iter())
            .filter(|limit| limit.concerns(of, client))
            .peekable();
        if limits.peek().is_none() {
            return Ok(None);
        }
        let since = now.saturating_duration_since(self.began);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut more, mut warns) = (Vec::new(), None);
        for limit in limits {
            let (key, window, share) = place(limit, client, since);
            let count = counts.get(&key).copied().unwrap_or_default().at(window);
            if count.lately(share) < f64::from(limit.most) {
                let now = count.now + 1;
                more.push((key, Count { now, ..count }));
            } else if limit.action == Action::Enforce {
                return Err(limit);
            } else {
                warns = warns.or(Some(limit));
            }
        }
        for (key, count) in more {
            if counts.len() >= self.entries_max && !counts.contains_key(&key) {
                forget(&mut counts, self.entries_max, since);
            }
            counts.insert(key, count);
        }
        Ok(warns)
    }

    /// How much a client has done lately of what a limit counts; none when the limit does not concern it.
    pub fn lately(&self, limit: &Limit, client: IpAddr, now: Instant) -> Option<f64> {
        if !limit.concerns(limit.of, client) {
            return None;
        }
        let since = now.saturating_duration_since(self.began);
        let (key, window, share) = place(limit, client, since);
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&key).copied().unwrap_or_default();
        Some(count.at(window).lately(share))
    }

    /// How many counts there are.
    pub fn len(&self) -> usize {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a client is counted: by what, in which window, and how much of that is over.
fn place(limit: &Limit, client: IpAddr, since: Duration) -> (Key, u64, f64) {
    let address = Network::from(client);
    let (v6, ..) = address.bits();
    let prefix = if v6 {
        limit.ipv6_prefix
    } else {
        limit.ipv4_prefix
    };
    let key = Key {
        of: limit.of,
        per: limit.per,
        network: address.widened(prefix),
    };
    let windows = since.as_secs_f64() / limit.per.as_secs_f64();
    (key, windows as u64, windows.fract())
}

/// Makes room for a tenth: first what is over, then those who did least, since nothing is lost by counting them anew.
fn forget(counts: &mut HashMap<Key, Count>, entries_max: usize, since: Duration) {
    counts.retain(|key, count| {
        let windows = since.as_secs_f64() / key.per.as_secs_f64();
        (windows as u64).saturating_sub(count.window) < 2
    });
    let room = entries_max - (entries_max / 10).clamp(1, entries_max);
    let mut least = 1;
    while counts.len() > room {
        counts.retain(|_, count| count.now.saturating_add(count.before) > least);
        least = least.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Limit {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_gets_its_share_and_no_more() {
        let rates = Rates::new(100);
        let limits = [limit("10 messages a minute")];
        let client = "192.0.2.1".parse().unwrap();
        let mut taken = Vec::new();
        // Asks once a second for ten minutes, having begun in the middle of a window.
        tokio::time::advance(Duration::from_secs(30)).await;
        for second in 0..600_u64 {
            if rates
                .take(&limits, Of::Messages, client, Instant::now())
                .is_ok()
            {
                taken.push(second);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((95..=105).contains(&taken.len()), "{}", taken.len());
        for start in 0..540 {
            let in_a_minute = taken.iter().filter(|at| (start..start + 60).contains(*at));
            // The window before is taken as evenly spread, so that a burst may count for a little less.
            assert!(in_a_minute.count() <= 15, "from {start}: {taken:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_counted_by_network_and_by_what_they_do() {
        let rates = Rates::new(100);
        let limits = [
            limit("1 connections a minute"),
            Limit {
                ipv4_prefix: 24,
                ipv6_prefix: 48,
                ..limit("3 connections a minute")
            },
        ];
        let now = Instant::now();
        let take = |client: &str, of| {
            let taken = rates.take(&limits, of, client.parse().unwrap(), now);
            taken.map(drop).map_err(|limit| limit.most)
        };
        assert_eq!(take("192.0.2.1", Of::Connections), Ok(()));
        assert_eq!(take("192.0.2.1", Of::Connections), Err(1));
        assert_eq!(take("::ffff:192.0.2.1", Of::Connections), Err(1));
        assert_eq!(take("192.0.2.1", Of::Messages), Ok(()));
        assert_eq!(take("192.0.2.2", Of::Connections), Ok(()));
        assert_eq!(take("192.0.2.3", Of::Connections), Ok(()));
        assert_eq!(take("192.0.2.4", Of::Connections), Err(3));
        assert_eq!(take("192.0.3.4", Of::Connections), Ok(()));
        assert_eq!(take("2001:db8:0:1::1", Of::Connections), Ok(()));
        assert_eq!(take("2001:db8:0:1::2", Of::Connections), Err(1));
        assert_eq!(take("2001:db8:0:2::1", Of::Connections), Ok(()));
    }

    #[test]
    fn a_limit_may_warn_and_has_exceptions() {
        let rates = Rates::new(100);
        let limits = [
            Limit {
                action: Action::Warn,
                ..limit("1 tls a minute")
            },
            Limit {
                skip_networks: vec!["192.0.2.0/25".parse().unwrap()],
                ..limit("3 tls a minute")
            },
            Limit {
                action: Action::Off,
                ..limit("1 tls a minute")
            },
        ];
        let now = Instant::now();
        let take = |client: &str| {
            let taken = rates.take(&limits, Of::Tls, client.parse().unwrap(), now);
            match taken {
                Ok(warns) => warns.map_or(0, |limit| limit.most),
                Err(limit) => limit.most + 100,
            }
        };
        let all: Vec<u32> = (0..5).map(|_| take("192.0.2.200")).collect();
        assert_eq!(all, [0, 1, 1, 103, 103]);
        let spared: Vec<u32> = (0..5).map(|_| take("192.0.2.1")).collect();
        assert_eq!(spared, [0, 1, 1, 1, 1]);
        let lately = |at: usize, client: &str| {
            let count = rates.lately(&limits[at], client.parse().unwrap(), now);
            count.map(|count| count as u32)
        };
        assert_eq!(lately(1, "192.0.2.200"), Some(3));
        assert_eq!(lately(1, "192.0.2.1"), None);
        assert_eq!(lately(2, "192.0.2.200"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_who_did_most_is_remembered() {
        let rates = Rates::new(1000);
        let limits = [limit("5 messages a minute")];
        let busy: IpAddr = "192.0.2.1".parse().unwrap();
        let now = Instant::now();
        for _ in 0..5 {
            rates.take(&limits, Of::Messages, busy, now).unwrap();
        }
        for number in 0..20_000_u32 {
            let client = IpAddr::V4((0x0a00_0000 + number).into());
            rates.take(&limits, Of::Messages, client, now).unwrap();
            assert!(rates.len() <= 1000);
        }
        assert!(rates.take(&limits, Of::Messages, busy, now).is_err());
        tokio::time::advance(Duration::from_secs(121)).await;
        let later = Instant::now();
        assert!(rates.take(&limits, Of::Messages, busy, later).is_ok());
    }
}
