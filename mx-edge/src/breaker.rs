//! Whether passing through is worth a try: shut after so many failures in a row, then one message at a time probes the inside.
//! Without it every client would wait out the whole budget while the inside hangs. Pure; the clock is handed in.

use std::time::Duration;

use tokio::time::Instant;

/// The memory of the last tries.
#[derive(Debug)]
pub struct Breaker {
    failures_max: u32,
    probe_interval: Duration,
    failures: u32,
    next_probe: Option<Instant>,
}

impl Breaker {
    /// Open. `failures_max` failures in a row shut it; every `probe_interval` one message may then try.
    pub fn new(failures_max: u32, probe_interval: Duration) -> Self {
        Self {
            failures_max,
            probe_interval,
            failures: 0,
            next_probe: None,
        }
    }

    /// Whether a message may try now. While shut, a yes is also the probe of this interval.
    pub fn admits(&mut self, now: Instant) -> bool {
        match self.next_probe {
            None => true,
            Some(next) if now < next => false,
            Some(_) => {
                self.next_probe = Some(now + self.probe_interval);
                true
            }
        }
    }

    /// Whether a message that came now would not be admitted; asking is no probe.
    pub fn refuses(&self, now: Instant) -> bool {
        self.next_probe.is_some_and(|next| now < next)
    }

    /// The inside answered, whatever it said. Returns whether this opened the breaker.
    pub fn answered(&mut self) -> bool {
        self.failures = 0;
        self.next_probe.take().is_some()
    }

    /// The inside did not answer. Returns whether this shut the breaker.
    pub fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.failures_max || self.next_probe.is_some() {
            return false;
        }
        self.next_probe = Some(now + self.probe_interval);
        true
    }

    /// Whether it is shut.
    pub fn is_shut(&self) -> bool {
        self.next_probe.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuts_probes_and_opens() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(3, Duration::from_secs(5));
        assert!(breaker.admits(at(0)));
        assert!(!breaker.failed(at(0)));
        assert!(!breaker.failed(at(0)));
        assert!(!breaker.answered(), "it was open");
        assert!(!breaker.failed(at(1)));
        assert!(!breaker.failed(at(1)));
        assert!(breaker.failed(at(1)), "three in a row");
        assert!(!breaker.failed(at(1)), "told once");
        assert!(breaker.is_shut());
        assert!(breaker.refuses(at(5)) && !breaker.refuses(at(6)));
        assert!(!breaker.admits(at(5)));
        assert!(breaker.admits(at(6)), "the probe");
        assert!(!breaker.admits(at(6)), "one probe an interval");
        assert!(!breaker.failed(at(7)));
        assert!(breaker.admits(at(11)));
        assert!(breaker.answered());
        assert!(breaker.admits(at(11)));
        assert!(breaker.admits(at(11)));
    }
}
