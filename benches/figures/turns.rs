//! The edge and its peer in turns: what each did for a second of its processors' time, and how these compare, turn by turn.

use std::fmt;

use mailload::figures::median;

use crate::server_time::ServerTime;

/// One turn of one server.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Sessions, recipients or messages.
    pub count: u64,
    /// What it cost.
    pub time: ServerTime,
}

impl Turn {
    /// What is done meanwhile by a server: `work` returns how much.
    pub async fn of<E>(pid: u32, work: impl Future<Output = Result<u64, E>>) -> Result<Self, E> {
        let before = ServerTime::of(pid);
        let count = work.await?;
        assert!(
            count > 0,
            "nothing was done, so that nothing can be compared"
        );
        Ok(Self {
            count,
            time: ServerTime::of(pid).since(before),
        })
    }

    /// Milliseconds of processor time for one.
    fn each(&self) -> f64 {
        self.time.work * 1e3 / self.count as f64
    }
}

/// Turns side by side.
#[derive(Debug, Default)]
pub struct Turns(pub Vec<(Turn, Turn)>);

impl Turns {
    /// How much more the edge does in the same processor time; the median of the turns.
    pub fn ratio(&self) -> f64 {
        let ratios = self.0.iter().map(|(edge, peer)| peer.each() / edge.each());
        median(&ratios.collect::<Vec<_>>())
    }
}

impl fmt::Display for Turns {
    /// `0.011 and 0.120 ms each (of 20,000 and 3,000)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let middle =
            |of: fn(&(Turn, Turn)) -> f64| median(&self.0.iter().map(of).collect::<Vec<_>>());
        let sum = |of: fn(&(Turn, Turn)) -> u64| self.0.iter().map(of).sum::<u64>();
        write!(
            f,
            "{:.4} and {:.4} ms (and {:.4} for its log's writer) each, of {} and {} in {} turns",
            middle(|(edge, _)| edge.each()),
            middle(|(_, peer)| peer.each()),
            middle(|(_, peer)| peer.time.log * 1e3 / peer.count as f64),
            sum(|(edge, _)| edge.count),
            sum(|(_, peer)| peer.count),
            self.0.len(),
        )
    }
}
