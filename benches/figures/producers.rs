//! Producers in a closed loop, each with one message under way, and the bodies that they send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::Failure;

/// How many there are.
pub const PRODUCERS: usize = 64;
/// Lengths of bodies, KB, each as likely as the others: what list traffic looks like, half of it below 7 KB, a tenth in
/// pictures and patches.
pub const BODIES_KB: &[usize] = &[
    2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 12, 15, 20, 28, 45, 90, 300,
];

/// Runs the producers for a turn; how many messages were answered, in how many seconds.
pub async fn produce<F, W>(turn: Duration, make: impl Fn() -> W) -> Result<(u64, f64), Failure>
where
    W: Fn() -> F + Send + 'static,
    F: Future<Output = bool> + Send,
{
    let over = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let tasks: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let (work, over, count) = (make(), over.clone(), count.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    if !work().await {
                        return false;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                true
            })
        })
        .collect();
    tokio::time::sleep(turn).await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        let _ = task.await;
    }
    Ok((count.load(Ordering::Relaxed), start.elapsed().as_secs_f64()))
}

/// Bodies in turn, the same ones in the same order for everybody.
#[derive(Clone, Debug)]
pub struct Bodies(Arc<[Bytes]>, Arc<AtomicU64>);

impl Bodies {
    /// Of these lengths.
    pub fn new(kilobytes: &[usize]) -> Self {
        let bodies = kilobytes.iter().map(|kb| vec![b'x'; kb * 1024].into());
        Self(bodies.collect(), Arc::default())
    }

    /// The next one.
    pub fn next(&self) -> Bytes {
        // Far from each other, so that no group is made of large ones alone.
        let number = self.1.fetch_add(7, Ordering::Relaxed) as usize;
        self.0
            .get(number % self.0.len())
            .cloned()
            .unwrap_or_default()
    }
}
