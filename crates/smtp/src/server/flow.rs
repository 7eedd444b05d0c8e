//! How fast a message must come in: a deadline for each block, and an average that a client which sends just enough for each block
//! cannot stay below. Pure; time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use super::Settings;

/// So many bytes make a block: a client that sends fewer within `data_block` is too slow.
const BLOCK_BYTES: usize = 512;

/// A message, or a chunk of one, that is being read.
pub struct Flow {
    began: Instant,
    bytes: u64,
    block_began: Instant,
    block_bytes: usize,
}

impl Flow {
    /// Nothing has come yet.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            bytes: 0,
            block_began: now,
            block_bytes: 0,
        }
    }

    /// When the next bytes must have come.
    pub fn deadline(&self, settings: &Settings) -> Instant {
        let block = settings.data_block_now();
        let by_block = self.block_began + block;
        match settings.guard.data_rate_min {
            0 => by_block,
            rate => {
                let earned = Duration::from_secs(self.bytes / rate);
                by_block.min(self.began + block + earned)
            }
        }
    }

    /// Bytes have come.
    pub fn read(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes as u64;
        self.block_bytes += bytes;
        if self.block_bytes >= BLOCK_BYTES {
            self.block_began = now;
            self.block_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::testing;

    /// Seconds after which a client that sends `bytes` each `interval` is left; 0 when it is let finish 1 MiB.
    fn left_after(rate: u64, bytes: usize, interval: u64) -> u64 {
        let mut settings = testing::settings(Protocol::Smtp);
        settings.guard.data_rate_min = rate;
        let start = Instant::now();
        let mut now = start;
        let mut flow = Flow::new(now);
        let mut sent = 0;
        while sent < 1 << 20 {
            let next = now + Duration::from_secs(interval);
            let deadline = flow.deadline(&settings);
            if next > deadline {
                return (deadline - start).as_secs();
            }
            now = next;
            flow.read(bytes, now);
            sent += bytes;
        }
        0
    }

    #[tokio::test(start_paused = true)]
    async fn trickling_is_cut_and_slow_is_not() {
        // Within the block's deadline, and for ever: only the average ends it.
        assert_eq!(left_after(0, 512, 179), 0);
        assert_eq!(left_after(500, 512, 179), 181);
        // Too slow for a block of 512.
        assert_eq!(left_after(0, 1, 10), 180);
        // A modem.
        assert_eq!(left_after(500, 600, 1), 0);
        // 400 a second: begins with 180 s in hand and loses a fifth of a second each second; whole seconds are earned.
        assert_eq!(left_after(500, 400, 1), 896);
    }
}
