//! Bodies of messages under way: read from the spool once, shared by all batches of a message that are attempted at the same
//! time, however many and however large, within a bound of memory; and kept a little longer when they are small.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mail::MessageId;
use spool::{Head, Spool};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// The default of [`crate::engine::Settings::bodies_bytes_max`].
pub const BODIES_BYTES_MAX: u64 = 256 << 20;
/// Bodies kept after their attempt for the next batch of the same message, bytes [32 MiB].
const KEPT_BYTES: usize = 32 << 20;
/// Bodies kept, at most.
const KEPT_MAX: usize = 1024;

/// See the module.
pub(crate) struct Bodies {
    spool: Arc<dyn Spool>,
    memory: Arc<Semaphore>,
    /// All of it, KiB.
    memory_kib: u32,
    shelf: Arc<Mutex<Shelf>>,
}

/// A body; the memory that it may take is given back with the last of its message.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    _user: User,
}

struct Loaded {
    bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

type Cell = Arc<OnceCell<Loaded>>;

#[derive(Default)]
struct Shelf {
    /// With how many use it.
    under_way: HashMap<MessageId, (Cell, usize)>,
    kept: HashMap<MessageId, Bytes>,
    order: VecDeque<MessageId>,
    bytes: usize,
}

/// Somebody who uses a body, or waits for it.
struct User {
    shelf: Arc<Mutex<Shelf>>,
    message: MessageId,
}

impl Drop for User {
    fn drop(&mut self) {
        lock(&self.shelf).leave(self.message);
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    // Every change is whole before anything could panic.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bodies {
    /// At most so many bytes at once; a body larger than that takes all of them and goes alone.
    pub(crate) fn new(spool: Arc<dyn Spool>, bytes_max: u64) -> Self {
        let memory_kib = u32::try_from(bytes_max / 1024).unwrap_or(u32::MAX).max(1);
        Self {
            spool,
            memory: Arc::new(Semaphore::new(memory_kib as usize)),
            memory_kib,
            shelf: Arc::default(),
        }
    }

    /// The body of a message; waits for memory. Batches that ask for the same one share one read and one copy.
    pub(crate) async fn get(&self, head: &Head) -> Result<Body, spool::Error> {
        let (cell, user) = self.enter(head.id);
        let loaded = cell.get_or_try_init(|| self.load(head)).await?;
        Ok(Body {
            bytes: loaded.bytes.clone(),
            _user: user,
        })
    }

    fn enter(&self, message: MessageId) -> (Cell, User) {
        let mut shelf = lock(&self.shelf);
        let (cell, users) = shelf.under_way.entry(message).or_default();
        *users += 1;
        let user = User {
            shelf: Arc::clone(&self.shelf),
            message,
        };
        (Arc::clone(cell), user)
    }

    async fn load(&self, head: &Head) -> Result<Loaded, spool::Error> {
        let kib = u32::try_from(head.body_bytes / 1024 + 1).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory)
            .acquire_many_owned(kib.min(self.memory_kib))
            .await
            .map_err(|_| spool::Error::Closed)?;
        let kept = lock(&self.shelf).take(head.id);
        let bytes = match kept {
            Some(bytes) => bytes,
            None => self.spool.body(head.id).await?,
        };
        Ok(Loaded {
            bytes,
            _memory: memory,
        })
    }
}

impl Shelf {
    /// One uses it less; after the last one a small body is kept.
    fn leave(&mut self, message: MessageId) {
        let Some((cell, users)) = self.under_way.get_mut(&message) else {
            return;
        };
        *users -= 1;
        if *users > 0 {
            return;
        }
        let bytes = cell.get().map(|loaded| loaded.bytes.clone());
        self.under_way.remove(&message);
        if let Some(bytes) = bytes.filter(|bytes| bytes.len() <= KEPT_BYTES / 4) {
            self.keep(message, bytes);
        }
    }

    fn keep(&mut self, message: MessageId, bytes: Bytes) {
        while self.bytes + bytes.len() > KEPT_BYTES || self.kept.len() >= KEPT_MAX {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(dropped) = self.kept.remove(&oldest) {
                self.bytes -= dropped.len();
            }
        }
        self.bytes += bytes.len();
        self.order.push_back(message);
        self.kept.insert(message, bytes);
    }

    fn take(&mut self, message: MessageId) -> Option<Bytes> {
        let bytes = self.kept.remove(&message)?;
        self.bytes -= bytes.len();
        self.order.retain(|kept| *kept != message);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use mail::{Address, Timestamp};
    use spool::memory::Memory;
    use spool::{Class, Destination, NewBatch, NewMessage};

    use super::*;

    const LARGE: usize = 20 << 20;
    const MEMORY_KIB: usize = (BODIES_BYTES_MAX >> 10) as usize;

    async fn stored(spool: &Memory, bytes: usize) -> Head {
        let now = Timestamp::now();
        let accepted = spool.accept(
            NewMessage {
                arrival: now,
                reverse_path: mail::ReversePath::Null,
                parameters: Default::default(),
                facts: Bytes::new(),
                body: vec![Bytes::from(vec![b'x'; bytes])],
                batches: vec![NewBatch {
                    destination: Destination::Inside,
                    class: Class::Ordinary,
                    due: now,
                    recipients: vec![Address::parse("a@x.org").unwrap().into()],
                    template: Bytes::new(),
                    replies: Default::default(),
                }],
            },
            None,
        );
        Head {
            id: accepted.await.unwrap().id,
            arrival: now,
            accepted: now,
            reverse_path: mail::ReversePath::Null,
            parameters: Default::default(),
            facts: Bytes::new(),
            body_bytes: bytes as u64,
        }
    }

    fn kib_free(bodies: &Bodies) -> usize {
        bodies.memory.available_permits()
    }

    #[tokio::test]
    async fn a_large_body_is_there_once_however_many_use_it() {
        let spool = Arc::new(Memory::new());
        let head = stored(&spool, LARGE).await;
        let bodies = Bodies::new(spool, BODIES_BYTES_MAX);
        let mut users = Vec::new();
        for _ in 0..20 {
            users.push(bodies.get(&head).await.unwrap());
        }
        // Twenty copies would not fit.
        assert_eq!(kib_free(&bodies), MEMORY_KIB - LARGE / 1024 - 1);
        let first = users[0].bytes.as_ptr();
        assert!(users.iter().all(|user| user.bytes.as_ptr() == first));
        drop(users);
        assert_eq!(kib_free(&bodies), MEMORY_KIB);
        assert_eq!(lock(&bodies.shelf).bytes, 0, "too large to be kept");
    }

    #[tokio::test]
    async fn small_ones_are_kept_within_a_bound() {
        let spool = Arc::new(Memory::new());
        let mut heads = Vec::new();
        for _ in 0..6 {
            heads.push(stored(&spool, KEPT_BYTES / 4).await);
        }
        let bodies = Bodies::new(spool, BODIES_BYTES_MAX);
        for head in &heads {
            drop(bodies.get(head).await.unwrap());
        }
        let kept: Vec<_> = lock(&bodies.shelf).order.iter().copied().collect();
        let newest: Vec<_> = heads[2..].iter().map(|head| head.id).collect();
        assert_eq!(kept, newest);
        assert_eq!(kib_free(&bodies), MEMORY_KIB);
        // Used again, it is no longer the oldest.
        drop(bodies.get(&heads[2]).await.unwrap());
        drop(bodies.get(&heads[0]).await.unwrap());
        let kept: Vec<_> = lock(&bodies.shelf).order.iter().copied().collect();
        let expected = [4, 5, 2, 0].map(|at: usize| heads[at].id);
        assert_eq!(kept, expected);
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing_behind() {
        let spool = Arc::new(Memory::new());
        let (large, small) = (stored(&spool, LARGE).await, stored(&spool, 1000).await);
        let bodies = Bodies::new(spool, BODIES_BYTES_MAX);
        let all = Arc::clone(&bodies.memory).acquire_many_owned(MEMORY_KIB as u32);
        let all = all.await.unwrap();
        for head in [&large, &small] {
            let waits = tokio::time::timeout(std::time::Duration::from_millis(1), bodies.get(head));
            assert!(waits.await.is_err(), "no memory is left");
        }
        assert!(lock(&bodies.shelf).under_way.is_empty());
        drop(all);
        assert_eq!(bodies.get(&large).await.unwrap().bytes.len(), LARGE);
        let mut gone = small;
        gone.id = mail::MessageId(7);
        assert!(bodies.get(&gone).await.is_err());
        assert!(lock(&bodies.shelf).under_way.is_empty());
    }

    /// However many are attempted at once, the bodies in memory are within the limit; one that is larger goes alone.
    #[tokio::test]
    async fn fifty_large_ones_at_once_stay_within_the_limit() {
        let spool = Arc::new(Memory::new());
        let bytes = 1 << 20;
        let mut heads = Vec::new();
        for _ in 0..49 {
            heads.push(stored(&spool, bytes).await);
        }
        heads.push(stored(&spool, 9 * bytes).await);
        let limit = 8 * bytes;
        let bodies = Arc::new(Bodies::new(spool, limit as u64));
        let held = Arc::new(Mutex::new((0, 0)));
        let mut attempts = tokio::task::JoinSet::new();
        for head in heads {
            let (bodies, held) = (bodies.clone(), held.clone());
            attempts.spawn(async move {
                let body = bodies.get(&head).await.unwrap();
                let length = body.bytes.len();
                {
                    let mut held = held.lock().unwrap();
                    held.0 += length;
                    held.1 = held.0.max(held.1);
                    assert!(held.0 <= limit || held.0 == length, "{} at once", held.0);
                }
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                held.lock().unwrap().0 -= length;
            });
        }
        while let Some(ended) = attempts.join_next().await {
            ended.unwrap();
        }
        assert_eq!(held.lock().unwrap().1, 9 * bytes, "the largest went too");
    }
}
