//! Who is seated, on a paused clock; a scan lasts until it is let go.

use std::pin::{Pin, pin};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;
use crate::endpoint::Endpoint;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A pool whose daemons are all in service, and what lets its scans go.
struct World {
    pool: Arc<Pool>,
    go: Semaphore,
}

impl World {
    fn new(daemons: usize, scans_max: usize, waiting_max: usize) -> Self {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let daemon = |number: usize| {
            let path = format!("/run/clamd-{number}.ctl");
            let daemon = Daemon::new(Endpoint::Unix(path.into()), "ClamAV");
            daemon.judged(Ok(()));
            Arc::new(daemon)
        };
        let limits = Limits {
            scans_max,
            waiting_max,
        };
        let daemons = (0..daemons).map(daemon).collect();
        Self {
            pool: Pool::new(Kind::Clamd, daemons, limits, metrics),
            go: Semaphore::new(0),
        }
    }

    /// Which daemon scanned.
    async fn scan(&self, custody: Custody, bytes: u64) -> Result<Arc<str>, Trouble> {
        let demand = Demand {
            custody,
            bytes,
            deadline: Instant::now() + MINUTE,
            attempt: MINUTE,
        };
        let scan = |daemon: Arc<Daemon>, _| async move {
            self.go.acquire().await.unwrap().forget();
            Ok(daemon.endpoint.to_string())
        };
        let (name, _) = self.pool.ask(demand, scan).await?;
        Ok(name.as_str().into())
    }

    async fn live(&self) -> Result<Arc<str>, Trouble> {
        self.scan(Custody::Live, 0).await
    }

    async fn spooled(&self) -> Result<Arc<str>, Trouble> {
        self.scan(Custody::Spooled, 0).await
    }
}

/// Lets a scan run as far as it comes.
async fn begun<T>(mut scan: Pin<&mut impl Future<Output = T>>) {
    assert!(timeout(Duration::from_millis(1), &mut scan).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_daemon_with_the_fewest_scans_is_next() {
    let world = World::new(3, 2, 8);
    let mut scans: Vec<_> = (0..6).map(|_| Box::pin(world.live())).collect();
    let mut seen = Vec::new();
    for scan in &mut scans {
        begun(scan.as_mut()).await;
        seen.push(world.pool.running());
    }
    let most = |running: &Vec<usize>| running.iter().max().copied();
    let least = |running: &Vec<usize>| running.iter().min().copied();
    for running in &seen {
        assert!(
            most(running) <= least(running).map(|least| least + 1),
            "{seen:?}"
        );
    }
    assert_eq!(world.pool.running(), [2, 2, 2]);
    drop(scans);
    assert_eq!(
        world.pool.running(),
        [0, 0, 0],
        "a scan that is given up gives its slot back"
    );
}

#[tokio::test(start_paused = true)]
async fn spooled_mail_takes_half() {
    let world = World::new(1, 4, 8);
    let (mut one, mut two) = (pin!(world.spooled()), pin!(world.spooled()));
    let (mut three, mut four) = (pin!(world.live()), pin!(world.live()));
    begun(one.as_mut()).await;
    begun(two.as_mut()).await;
    let mut waits = pin!(world.spooled());
    begun(waits.as_mut()).await;
    assert_eq!(world.pool.running(), [2]);
    // Live mail does not wait behind it.
    begun(three.as_mut()).await;
    begun(four.as_mut()).await;
    assert_eq!(world.pool.running(), [4]);
    world.go.add_permits(1);
    one.await.unwrap();
    begun(waits.as_mut()).await;
    assert_eq!(world.pool.running(), [4], "its slot went to who waited");
}

#[tokio::test(start_paused = true)]
async fn one_slot_is_enough_for_both() {
    let world = World::new(1, 1, 1);
    world.go.add_permits(2);
    world.spooled().await.unwrap();
    world.live().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_may() {
    let world = World::new(1, 1, 4);
    let mut scans: Vec<_> = (0..5).map(|_| Box::pin(world.live())).collect();
    for scan in &mut scans {
        begun(scan.as_mut()).await;
    }
    assert_eq!(world.live().await.unwrap_err().cause, Cause::Full);
    // Whoever goes makes room.
    scans.pop();
    let mut fifth = pin!(world.live());
    begun(fifth.as_mut()).await;
    assert_eq!(world.spooled().await.unwrap_err().cause, Cause::Full);
}

#[tokio::test(start_paused = true)]
async fn spooled_mail_takes_half_of_the_waiting_room() {
    let world = World::new(1, 1, 4);
    let mut scans: Vec<_> = (0..3).map(|_| Box::pin(world.spooled())).collect();
    for scan in &mut scans {
        begun(scan.as_mut()).await;
    }
    assert_eq!(world.spooled().await.unwrap_err().cause, Cause::Full);
    let mut live = pin!(world.live());
    begun(live.as_mut()).await;
}

#[tokio::test(start_paused = true)]
async fn first_come_first_served() {
    let world = World::new(1, 1, 4);
    let mut first = pin!(world.live());
    begun(first.as_mut()).await;
    let mut second = pin!(world.live());
    begun(second.as_mut()).await;
    world.go.add_permits(1);
    first.await.unwrap();
    // The slot is the second one's already.
    let mut third = pin!(world.live());
    begun(third.as_mut()).await;
    world.go.add_permits(1);
    second.await.unwrap();
    world.go.add_permits(1);
    third.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_hears_that_nobody_is_left() {
    let world = World::new(2, 1, 4);
    let mut scans: Vec<_> = (0..3).map(|_| Box::pin(world.live())).collect();
    for scan in &mut scans {
        begun(scan.as_mut()).await;
    }
    world.pool.daemons[0].judged(Err("it is gone"));
    world.pool.serve();
    begun(scans[2].as_mut()).await;
    world.pool.daemons[1].judged(Err("it is gone, too"));
    world.pool.serve();
    let trouble = scans.remove(2).await.unwrap_err();
    assert_eq!(trouble.cause, Cause::Unfit("it is gone".into()));
    // One that comes back takes those who come then.
    world.pool.daemons[1].judged(Ok(()));
    world.pool.serve();
    drop(scans);
    world.go.add_permits(1);
    assert_eq!(&*world.live().await.unwrap(), "/run/clamd-1.ctl");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_back_takes_who_waits() {
    let world = World::new(2, 1, 4);
    world.pool.daemons[0].judged(Err("not yet"));
    let mut first = pin!(world.live());
    begun(first.as_mut()).await;
    let mut second = pin!(world.live());
    begun(second.as_mut()).await;
    world.pool.daemons[0].judged(Ok(()));
    world.pool.serve();
    begun(second.as_mut()).await;
    assert_eq!(world.pool.running(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn large_mail_waits_for_who_takes_it() {
    let world = World::new(2, 1, 4);
    world.go.add_permits(10);
    let daemons = &world.pool.daemons;
    assert_eq!(world.pool.bytes_max(), None);
    daemons[0].measured(Some(2 << 20));
    assert_eq!(world.pool.bytes_max(), None, "the other one may take more");
    daemons[1].measured(Some(8 << 20));
    assert_eq!(world.pool.bytes_max(), Some(8 << 20));
    for (bytes, expected) in [
        (3 << 20, Ok("/run/clamd-1.ctl")),
        (8 << 20, Ok("/run/clamd-1.ctl")),
        ((8 << 20) + 1, Err("unfit")),
    ] {
        let found = world.scan(Custody::Live, bytes).await;
        let found = found.as_deref().map_err(|trouble| trouble.cause.label());
        assert_eq!(found, expected, "{bytes}");
    }
    // Before a limit is known no more is given than any daemon takes.
    daemons[1].measured(None);
    let found = world.scan(Custody::Live, 3 << 20).await;
    assert_eq!(found.unwrap_err().cause.label(), "unfit");
}

#[tokio::test(start_paused = true)]
async fn another_is_asked_within_the_deadline() {
    let world = World::new(3, 1, 4);
    let start = Instant::now();
    let demand = Demand {
        custody: Custody::Live,
        bytes: 0,
        deadline: start + 18 * SECOND,
        attempt: 10 * SECOND,
    };
    let mute = |_, deadline| async move {
        tokio::time::sleep_until(deadline).await;
        let daemon = Kind::Clamd;
        Err::<(), _>(Trouble {
            daemon,
            cause: Cause::TimedOut,
        })
    };
    let found = world.pool.ask(demand, mute);
    assert_eq!(found.await.unwrap_err().cause, Cause::TimedOut);
    assert_eq!(start.elapsed(), 18 * SECOND);
    let asked = Mutex::new(0);
    let refusing = |_, _| async {
        *asked.lock().unwrap() += 1;
        let cause = Cause::Refused("busy".into());
        let daemon = Kind::Clamd;
        Err::<(), _>(Trouble { daemon, cause })
    };
    let deadline = Instant::now() + 18 * SECOND;
    let demand = Demand { deadline, ..demand };
    assert!(world.pool.ask(demand, refusing).await.is_err());
    assert_eq!(*asked.lock().unwrap(), 3, "each of them once");
}
