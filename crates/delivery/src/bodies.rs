//! Bodies of messages under way: read from the spool once, shared by all batches of a message that are attempted at about
//! the same time, within a bound of memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mail::MessageId;
use spool::{Head, Spool};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// Memory of all bodies being attempted, KiB [256 MiB]. A body larger than that takes all of it and goes alone.
const MEMORY_KIB: u32 = 256 * 1024;
/// Bodies kept after their attempt for the next batch of the same message, bytes [32 MiB].
const KEPT_BYTES: u64 = 32 << 20;
/// Bodies kept, at most.
const KEPT_MAX: usize = 1024;

/// See the module.
pub(crate) struct Bodies {
    spool: Arc<dyn Spool>,
    memory: Arc<Semaphore>,
    kept: Mutex<Kept>,
}

/// A body with the memory it may take.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

type Cell = Arc<OnceCell<Bytes>>;

#[derive(Default)]
struct Kept {
    cells: HashMap<MessageId, (Cell, u64)>,
    order: VecDeque<MessageId>,
    bytes: u64,
}

impl Bodies {
    pub(crate) fn new(spool: Arc<dyn Spool>) -> Self {
        Self {
            spool,
            memory: Arc::new(Semaphore::new(MEMORY_KIB as usize)),
            kept: Mutex::default(),
        }
    }

    /// The body of a message; waits for memory. Two batches that ask at once make one read.
    pub(crate) async fn get(&self, head: &Head) -> Result<Body, spool::Error> {
        let kib = u32::try_from(head.body_bytes / 1024 + 1).unwrap_or(MEMORY_KIB);
        let memory = self
            .memory
            .clone()
            .acquire_many_owned(kib.min(MEMORY_KIB))
            .await
            .map_err(|_| spool::Error::Closed)?;
        let cell = self.cell(head);
        let bytes = cell
            .get_or_try_init(|| self.spool.body(head.id))
            .await
            .inspect_err(|_| self.drop(head.id))?
            .clone();
        Ok(Body {
            bytes,
            _memory: memory,
        })
    }

    fn cell(&self, head: &Head) -> Cell {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cell, _)) = kept.cells.get(&head.id) {
            return cell.clone();
        }
        let cell = Cell::default();
        if head.body_bytes > KEPT_BYTES / 4 {
            return cell;
        }
        while kept.bytes + head.body_bytes > KEPT_BYTES || kept.cells.len() >= KEPT_MAX {
            let Some(oldest) = kept.order.pop_front() else {
                break;
            };
            if let Some((_, bytes)) = kept.cells.remove(&oldest) {
                kept.bytes -= bytes;
            }
        }
        kept.bytes += head.body_bytes;
        kept.order.push_back(head.id);
        kept.cells.insert(head.id, (cell.clone(), head.body_bytes));
        cell
    }

    fn drop(&self, id: MessageId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = kept.cells.remove(&id) {
            kept.bytes -= bytes;
            kept.order.retain(|kept| *kept != id);
        }
    }
}
