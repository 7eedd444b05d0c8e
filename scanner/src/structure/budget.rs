//! What looking into archives may cost: files, levels, bytes that come out, bytes held, time. One budget a message.

use std::cell::Cell;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// `[archives]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Archives inside each other.
    pub levels_max: usize,
    /// Files in all archives of a message.
    pub files_max: usize,
    /// Bytes that may come out of any message's archives.
    #[serde(with = "service::config::bytes")]
    pub expanded_bytes_min: u64,
    /// And of the largest's.
    #[serde(with = "service::config::bytes")]
    pub expanded_bytes_max: u64,
    /// As a multiple of the message's size, between the two.
    pub expansion_max: u64,
    /// Bytes of inner archives that are held at once.
    #[serde(with = "service::config::bytes")]
    pub held_bytes_max: u64,
    /// For all archives of a message.
    #[serde(with = "service::config::duration")]
    pub time_max: Duration,
    /// Messages that are looked into at once.
    pub messages_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            levels_max: 14,
            files_max: 1500,
            expanded_bytes_min: 100 << 10,
            expanded_bytes_max: 300 << 20,
            expansion_max: 500,
            held_bytes_max: 32 << 20,
            time_max: Duration::from_secs(5),
            messages_max: 4,
        }
    }
}

/// Why it was given up. A finding, never trouble: the message's own fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Archives nested too deep.
    #[error("archives inside each other, more than {0} levels")]
    Levels(usize),
    /// Too many files.
    #[error("more than {0} files in archives")]
    Files(usize),
    /// Too much came out.
    #[error("archives expand to more than {0} bytes")]
    Expanded(u64),
    /// An inner archive too large to be held.
    #[error("an archive inside an archive is larger than {0} bytes")]
    Held(u64),
    /// It took too long.
    #[error("looking into archives takes more than {0:?}")]
    Time(Duration),
}

/// What is left.
pub struct Budget<'a> {
    limits: &'a Limits,
    files: Cell<usize>,
    expanded: Cell<u64>,
    expanded_max: u64,
    held: Cell<u64>,
    began: Instant,
    excess: Cell<Option<Excess>>,
}

impl<'a> Budget<'a> {
    /// For a message of this size.
    pub fn new(limits: &'a Limits, message_bytes: u64) -> Self {
        let wanted = message_bytes.saturating_mul(limits.expansion_max);
        let most = limits.expanded_bytes_max.max(limits.expanded_bytes_min);
        Self {
            limits,
            files: Cell::new(0),
            expanded: Cell::new(0),
            expanded_max: wanted.clamp(limits.expanded_bytes_min, most),
            held: Cell::new(0),
            began: Instant::now(),
            excess: Cell::new(None),
        }
    }

    fn exceed(&self, excess: Excess) -> Excess {
        self.excess.set(Some(self.excess.get().unwrap_or(excess)));
        excess
    }

    /// Why it was given up, when it was.
    pub fn excess(&self) -> Option<Excess> {
        self.excess.get()
    }

    /// One more file.
    pub fn file(&self) -> Result<(), Excess> {
        self.files.set(self.files.get() + 1);
        match self.files.get() > self.limits.files_max {
            true => Err(self.exceed(Excess::Files(self.limits.files_max))),
            false => self.time(),
        }
    }

    /// An archive at this level.
    pub fn level(&self, level: usize) -> Result<(), Excess> {
        match level > self.limits.levels_max {
            true => Err(self.exceed(Excess::Levels(self.limits.levels_max))),
            false => Ok(()),
        }
    }

    /// The clock.
    pub fn time(&self) -> Result<(), Excess> {
        match self.began.elapsed() > self.limits.time_max {
            true => Err(self.exceed(Excess::Time(self.limits.time_max))),
            false => Ok(()),
        }
    }

    fn expand(&self, bytes: usize) -> Result<(), Excess> {
        self.expanded.set(self.expanded.get() + bytes as u64);
        match self.expanded.get() > self.expanded_max {
            true => Err(self.exceed(Excess::Expanded(self.expanded_max))),
            false => self.time(),
        }
    }

    /// Reads all of an inner archive into memory and lets `work` look at it.
    pub fn hold<T>(
        &self,
        reader: &mut dyn Read,
        work: impl FnOnce(&[u8]) -> Result<T, Excess>,
    ) -> Result<T, Excess> {
        let left = self.limits.held_bytes_max.saturating_sub(self.held.get());
        let mut bytes = Vec::new();
        // What is broken is looked at as far as it goes.
        let _ = reader.take(left + 1).read_to_end(&mut bytes);
        if let Some(excess) = self.excess.get() {
            return Err(excess);
        }
        if bytes.len() as u64 > left {
            return Err(self.exceed(Excess::Held(self.limits.held_bytes_max)));
        }
        self.held.set(self.held.get() + bytes.len() as u64);
        let result = work(&bytes);
        self.held.set(self.held.get() - bytes.len() as u64);
        result
    }

    /// A reader whose bytes count as expanded, and that ends with the budget.
    pub fn metered<R: Read>(&self, inner: R) -> Metered<'_, R> {
        Metered {
            inner,
            budget: self,
        }
    }
}

/// The reader of [`Budget::metered`].
pub struct Metered<'a, R> {
    /// What is read.
    pub inner: R,
    budget: &'a Budget<'a>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.budget.expand(count).map_err(io::Error::other)?;
        Ok(count)
    }
}
