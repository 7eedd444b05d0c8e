//! Scan slots: so many scans at once for a daemon, of which spooled mail takes at most half (design, invariant 3).
//!
//! A daemon that is asked more than it has children for queues inside its kernel backlog, where nobody sees it; here it is seen.

use mail::trace::Custody;
use tokio::sync::{Semaphore, SemaphorePermit};

/// One daemon's slots.
pub struct Slots {
    all: Semaphore,
    spooled: Semaphore,
}

/// Held while a scan runs.
pub struct Slot<'a> {
    _spooled: Option<SemaphorePermit<'a>>,
    _all: SemaphorePermit<'a>,
}

impl Slots {
    /// `scans_max` in all; half of them, but at least one, for spooled mail.
    pub fn new(scans_max: usize) -> Self {
        Self {
            all: Semaphore::new(scans_max),
            spooled: Semaphore::new((scans_max / 2).max(1)),
        }
    }

    /// Waits for a slot; first come, first served among equals. The caller holds the deadline.
    pub async fn take(&self, custody: Custody) -> Slot<'_> {
        let open = "the semaphores are never closed";
        let spooled = match custody {
            Custody::Live => None,
            Custody::Spooled => Some(self.spooled.acquire().await.expect(open)),
        };
        Slot {
            _spooled: spooled,
            _all: self.all.acquire().await.expect(open),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::time::{Duration, timeout};

    #[tokio::test(start_paused = true)]
    async fn spooled_mail_takes_half() {
        let slots = Slots::new(4);
        let _one = slots.take(Custody::Spooled).await;
        let two = slots.take(Custody::Spooled).await;
        let mut third = pin!(slots.take(Custody::Spooled));
        assert!(timeout(Duration::from_secs(60), &mut third).await.is_err());
        let _three = slots.take(Custody::Live).await;
        let _four = slots.take(Custody::Live).await;
        let mut fifth = pin!(slots.take(Custody::Live));
        assert!(timeout(Duration::from_secs(60), &mut fifth).await.is_err());
        drop(two);
        let _fifth = fifth.await;
        assert!(timeout(Duration::from_secs(60), third).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn one_slot_is_enough_for_both() {
        let slots = Slots::new(1);
        drop(slots.take(Custody::Spooled).await);
        drop(slots.take(Custody::Live).await);
    }
}
