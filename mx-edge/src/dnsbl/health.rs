//! Whether a list can be believed. Pure; the clock is passed in.
//!
//! Lists die: their domain is sold and answers everything, their server tells us that we ask too much, a mistake lists the world. A
//! list counts only while its self-test passes (RFC 5782 5: 127.0.0.2 is listed, 127.0.0.1 is not) and while it does not
//! suddenly hit far more clients than it used to, or clients that were known as good.

use std::time::{Duration, Instant};

/// Hits are counted over so long.
const WINDOW: Duration = Duration::from_secs(60);
/// With fewer clients asked about in a window nothing is concluded.
const ASKED_MIN: u64 = 50;
/// A flood: so many times the usual share of hits ...
const USUAL_FACTOR: f64 = 5.0;
/// ... and at least this share. A list that hits most of what comes is of no use as one opinion among several.
const SHARE_MIN: f64 = 0.5;
/// How fast the usual share follows: the weight of a new window.
const FOLLOW: f64 = 0.1;
/// With fewer clients known as good in a window nothing is concluded from them.
const GOOD_ASKED_MIN: u64 = 10;
/// A flood: this share of clients known as good is hit.
const GOOD_SHARE_MAX: f64 = 0.2;
/// A list that flooded does not count for so long; then it is looked at anew.
pub const REST: Duration = Duration::from_secs(600);

/// Why a list does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// It was not tested yet.
    Untested,
    /// The self-test failed, and how.
    Test(Box<str>),
    /// It hits too much, and how much.
    Flood(Box<str>),
}

/// What has just changed, to be told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// It counts again.
    Up,
    /// It does not count any more.
    Down(Down),
}

/// One list's standing.
#[derive(Debug)]
pub struct Health {
    test: Option<Result<(), Box<str>>>,
    flooded: Option<(Instant, Box<str>)>,
    /// The usual share of hits; none before the first full window.
    usual: Option<f64>,
    window: Window,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    asked: u64,
    hit: u64,
    good_asked: u64,
    good_hit: u64,
}

impl Window {
    fn new(began: Instant) -> Self {
        Self {
            began,
            asked: 0,
            hit: 0,
            good_asked: 0,
            good_hit: 0,
        }
    }
}

impl Health {
    /// Nothing is known. A list without test entries counts at once.
    pub fn new(tested: bool, now: Instant) -> Self {
        Self {
            test: (!tested).then_some(Ok(())),
            flooded: None,
            usual: None,
            window: Window::new(now),
        }
    }

    /// Why it does not count now.
    pub fn down(&self, now: Instant) -> Option<Down> {
        match (&self.test, &self.flooded) {
            (None, _) => Some(Down::Untested),
            (Some(Err(why)), _) => Some(Down::Test(why.clone())),
            (_, Some((until, why))) if *until > now => Some(Down::Flood(why.clone())),
            _ => None,
        }
    }

    /// The self-test has ended.
    pub fn tested(&mut self, result: Result<(), Box<str>>, now: Instant) -> Option<Crossing> {
        let before = self.test.replace(result);
        match (before, &self.test) {
            (None | Some(Err(_)), Some(Ok(()))) => match self.down(now) {
                None => Some(Crossing::Up),
                Some(_) => None,
            },
            (None | Some(Ok(())), Some(Err(why))) => Some(Crossing::Down(Down::Test(why.clone()))),
            _ => None,
        }
    }

    /// A client was asked about and answered; `good` is one that has shown itself before.
    pub fn answered(&mut self, hit: bool, good: bool, now: Instant) -> Option<Crossing> {
        let mut crossing = None;
        if self
            .flooded
            .as_ref()
            .is_some_and(|(until, _)| *until <= now)
        {
            self.flooded = None;
            self.window = Window::new(now);
            crossing = self.down(now).is_none().then_some(Crossing::Up);
        }
        if now.duration_since(self.window.began) >= WINDOW {
            let window = std::mem::replace(&mut self.window, Window::new(now));
            if window.asked >= ASKED_MIN && self.flooded.is_none() {
                let share = window.hit as f64 / window.asked as f64;
                let usual = self.usual.unwrap_or(share);
                self.usual = Some(usual + FOLLOW * (share - usual));
            }
        }
        let window = &mut self.window;
        window.asked += 1;
        window.hit += u64::from(hit);
        window.good_asked += u64::from(good);
        window.good_hit += u64::from(hit && good);
        match self.flood() {
            Some(why) if self.flooded.is_none() => {
                let before = self.down(now);
                self.flooded = Some((now + REST, why.clone()));
                before.is_none().then_some(Crossing::Down(Down::Flood(why)))
            }
            _ => crossing,
        }
    }

    fn flood(&self) -> Option<Box<str>> {
        let window = &self.window;
        let share = |hit: u64, asked: u64| hit as f64 / asked.max(1) as f64;
        if window.good_asked >= GOOD_ASKED_MIN {
            let hit = share(window.good_hit, window.good_asked);
            if hit >= GOOD_SHARE_MAX {
                return Some(
                    format!(
                        "lists {} of {} clients that are known as good",
                        window.good_hit, window.good_asked
                    )
                    .into(),
                );
            }
        }
        let (hit, usual) = (share(window.hit, window.asked), self.usual?);
        let flood =
            window.asked >= ASKED_MIN && hit >= SHARE_MIN && hit >= USUAL_FACTOR * usual.max(0.01);
        flood.then(|| {
            format!(
                "lists {} of {} clients, usually {:.0} %",
                window.hit,
                window.asked,
                usual * 100.0
            )
            .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(now: Instant) -> Health {
        let mut health = Health::new(true, now);
        assert_eq!(health.down(now), Some(Down::Untested));
        assert_eq!(health.tested(Ok(()), now), Some(Crossing::Up));
        health
    }

    #[test]
    fn a_list_counts_while_its_self_test_passes() {
        let now = Instant::now();
        let mut health = up(now);
        assert_eq!(health.down(now), None);
        assert_eq!(health.tested(Ok(()), now), None);
        let why: Box<str> = "127.0.0.1 is listed".into();
        let down = Down::Test(why.clone());
        assert_eq!(
            health.tested(Err(why.clone()), now),
            Some(Crossing::Down(down.clone()))
        );
        assert_eq!(health.tested(Err(why), now), None);
        assert_eq!(health.down(now), Some(down));
        assert_eq!(health.tested(Ok(()), now), Some(Crossing::Up));
        assert_eq!(Health::new(false, now).down(now), None);
    }

    #[test]
    fn a_list_that_suddenly_hits_everybody_rests_and_is_looked_at_anew() {
        let start = Instant::now();
        let mut health = up(start);
        // Ten usual minutes with a tenth listed.
        for minute in 0..10 {
            for client in 0..100 {
                let now = start + WINDOW * minute;
                assert_eq!(health.answered(client % 10 == 0, false, now), None);
            }
        }
        let now = start + WINDOW * 10;
        let crossings: Vec<_> = (0..60)
            .filter_map(|_| health.answered(true, false, now))
            .collect();
        assert!(
            matches!(crossings.as_slice(), [Crossing::Down(Down::Flood(_))]),
            "{crossings:?}"
        );
        assert!(health.down(now).is_some());
        let later = now + REST;
        assert_eq!(health.down(later), None);
        assert_eq!(health.answered(false, false, later), Some(Crossing::Up));
        // It still lists the world: down again, and the flood has not become what is usual.
        let again = (0..60).find_map(|_| health.answered(true, false, later));
        assert!(matches!(again, Some(Crossing::Down(Down::Flood(_)))));
    }

    #[test]
    fn an_attack_by_listed_clients_is_no_flood() {
        let start = Instant::now();
        let mut health = up(start);
        // On a bad day most clients are listed; that has been so for long.
        for minute in 0..20 {
            for client in 0..100 {
                let now = start + WINDOW * minute;
                assert_eq!(health.answered(client % 10 < 7, false, now), None);
            }
        }
        let now = start + WINDOW * 20;
        assert!((0..500).all(|_| health.answered(true, false, now).is_none()));
    }

    #[test]
    fn listing_good_clients_is_a_flood_at_once() {
        let now = Instant::now();
        let mut health = up(now);
        let crossing = (0..20).find_map(|client| health.answered(client % 2 == 0, true, now));
        assert!(matches!(crossing, Some(Crossing::Down(Down::Flood(_)))));
    }
}
