//! Turns: how long a task that is ready to run waits for a processor, measured while somebody is to be held back for it.
//!
//! A task of its own asks for turns and tells what they waited for. It owns nothing else, and sleeps while nobody is to be held back.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// From one turn that is measured to the next.
const INTERVAL: Duration = Duration::from_millis(10);
/// Turns whose mean is told.
const TURNS: u32 = 10;

/// What was measured, and whether it is to be measured.
pub(crate) struct Turns {
    measured: watch::Receiver<Duration>,
    wanted: watch::Sender<bool>,
}

impl Turns {
    /// Starts to measure; ends with what is returned.
    pub(crate) fn start() -> Self {
        let (sender, measured) = watch::channel(Duration::ZERO);
        let wanted = watch::Sender::new(false);
        tokio::spawn(measure(sender, wanted.subscribe()));
        Self { measured, wanted }
    }

    /// Measures from now on, or no longer.
    pub(crate) fn want(&self, wanted: bool) {
        self.wanted
            .send_if_modified(|old| std::mem::replace(old, wanted) != wanted);
    }

    /// The mean of the last turns, once.
    pub(crate) async fn measured(&mut self) -> Duration {
        match self.measured.changed().await {
            Ok(()) => *self.measured.borrow_and_update(),
            // The task ends only with its runtime.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Ends when nobody can want it any more.
async fn measure(sender: watch::Sender<Duration>, mut wanted: watch::Receiver<bool>) {
    while wanted.wait_for(|wanted| *wanted).await.is_ok() {
        let mut sum = Duration::ZERO;
        for _ in 0..TURNS {
            tokio::time::sleep(INTERVAL).await;
            let ready = Instant::now();
            turn().await;
            sum += ready.elapsed();
        }
        sender.send_replace(sum / TURNS);
    }
}

/// Waits for a turn behind all that are ready to run. Not tokio's `yield_now`, which comes back as soon as the driver was asked.
async fn turn() {
    let mut had = false;
    poll_fn(|context| match std::mem::replace(&mut had, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// On the real clock, with a bound far from what is asserted: a turn waits behind what is ready to run.
    #[tokio::test]
    async fn a_turn_waits_behind_what_is_ready_to_run() {
        let mut turns = Turns::start();
        turns.want(true);
        let busy = Arc::new(AtomicBool::new(true));
        for _ in 0..10 {
            let busy = busy.clone();
            tokio::spawn(async move {
                while busy.load(Ordering::Relaxed) {
                    let until = Instant::now() + Duration::from_millis(3);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    turn().await;
                }
            });
        }
        turns.measured().await;
        let waited = turns.measured().await;
        busy.store(false, Ordering::Relaxed);
        assert!(waited >= Duration::from_millis(25), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_measured_unless_it_is_wanted() {
        let mut turns = Turns::start();
        let hour = Duration::from_secs(3600);
        let told = tokio::time::timeout(hour, turns.measured()).await;
        assert!(told.is_err());
        turns.want(true);
        turns.measured().await;
        turns.want(false);
        turns.measured().await; // what was begun
        assert!(tokio::time::timeout(hour, turns.measured()).await.is_err());
    }
}
