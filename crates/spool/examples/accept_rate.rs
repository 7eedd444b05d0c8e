//! Durable accepts a second of 6 KB messages by 64 producers, while one task claims and settles them all, over what the same
//! disk takes from a bare loop in the same run: a thread that gathers what waits, writes it over preallocated segments and
//! syncs. `cargo run --release --example accept_rate -- FOLDER [MILLISECONDS]`: so much longer every sync takes, for both.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mail::{Address, MailParameters, ReversePath, Timestamp};
use spool::embedded::disk::{Disk, File, Free, System, write_all_at};
use spool::embedded::{Embedded, Options};
use spool::{
    Class, Destination, Destinations, Ends, NewBatch, NewMessage, Outcome, Seen, Settlement, Spool,
    Wanted,
};
use tokio::sync::oneshot;

const PRODUCERS: usize = 64;
const BODY_BYTES: usize = 6 * 1024;
const ROUND: Duration = Duration::from_secs(4);
const SEGMENT_BYTES: u64 = 64 << 20;

/// The system's disk with a longer sync.
#[derive(Clone, Copy, Debug)]
struct SlowDisk(Duration);

#[derive(Debug)]
struct SlowFile(Arc<dyn File>, Duration);

impl Disk for SlowDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        System.make_folder(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(SlowFile(System.open(path)?, self.0)))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        System.read(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        System.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        System.remove(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        System.sync_folder(path)
    }
    fn free(&self, path: &Path) -> io::Result<Free> {
        System.free(path)
    }
}

impl File for SlowFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(self.1);
        self.0.sync()
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

/// Claims and finishes whatever there is.
async fn consume(spool: Arc<Embedded>) {
    let wanted = Wanted {
        destinations: Destinations::Except(Vec::new()),
        lanes: [500; 4],
    };
    let mut seen = Seen::default();
    loop {
        spool.ready(&mut seen).await;
        let Ok(leases) = spool.claim("here", &wanted).await else {
            return;
        };
        let finished = leases.iter().map(|lease| Settlement {
            batch: lease.batch.id,
            token: lease.token,
            outcome: Outcome::Finished,
            ends: Ends::default(),
        });
        if spool.settle(finished.collect()).await.is_err() {
            return;
        }
    }
}

fn message(body: &Bytes) -> Result<NewMessage, mail::address::AddressError> {
    let now = Timestamp::now();
    Ok(NewMessage {
        arrival: now,
        reverse_path: ReversePath::Address(Address::parse("sender@example.org")?),
        parameters: MailParameters::default(),
        facts: Bytes::from_static(b"{\"client\":\"192.0.2.1\"}"),
        body: vec![body.clone()],
        batches: vec![NewBatch {
            destination: Destination::Inside,
            class: Class::Ordinary,
            due: now,
            recipients: vec![Address::parse("someone@example.net")?.into()],
            template: Bytes::new(),
        }],
    })
}

/// Runs `PRODUCERS` tasks for a round; how often a second one of them was answered.
async fn produce<F, W>(make: impl Fn() -> W) -> f64
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
                while !over.load(Ordering::Relaxed) && work().await {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        let _ = task.await;
    }
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

type Waiting = (Bytes, oneshot::Sender<()>);

/// The bare loop: no format, no index, no names; two segments in turn.
fn bare_writer(
    disk: SlowDisk,
    folder: &Path,
    jobs: &std::sync::mpsc::Receiver<Waiting>,
) -> io::Result<()> {
    let mut files = Vec::new();
    for name in ["one", "two"] {
        let file = disk.open(&folder.join(name))?;
        write_all_at(file.as_ref(), &vec![1; SEGMENT_BYTES as usize], 0)?;
        file.sync()?;
        files.push(file);
    }
    let (mut which, mut offset) = (0, 0);
    let mut buffer = Vec::new();
    while let Ok(first) = jobs.recv() {
        let mut answers = Vec::new();
        buffer.clear();
        for (body, answer) in std::iter::once(first).chain(jobs.try_iter()) {
            buffer.extend_from_slice(&body);
            answers.push(answer);
        }
        buffer.resize(buffer.len().next_multiple_of(4096), 0);
        if offset + buffer.len() as u64 > SEGMENT_BYTES {
            (which, offset) = (1 - which, 0);
        }
        let file: &Arc<dyn File> = files.get(which).expect("there are two");
        write_all_at(file.as_ref(), &buffer, offset)?;
        file.sync()?;
        offset += buffer.len() as u64;
        for answer in answers {
            let _ = answer.send(());
        }
    }
    Ok(())
}

async fn bare(disk: SlowDisk, folder: PathBuf, body: &Bytes) -> io::Result<f64> {
    std::fs::create_dir_all(&folder)?;
    let (jobs, waiting) = std::sync::mpsc::channel::<Waiting>();
    let for_writer = folder.clone();
    let writer = std::thread::spawn(move || bare_writer(disk, &for_writer, &waiting));
    // The segments are there once the first is answered.
    let (answer, answered) = oneshot::channel();
    let _ = jobs.send((body.clone(), answer));
    let _ = answered.await;
    let rate = produce(|| {
        let (jobs, body) = (jobs.clone(), body.clone());
        move || {
            let (answer, answered) = oneshot::channel();
            let sent = jobs.send((body.clone(), answer)).is_ok();
            async move { sent && answered.await.is_ok() }
        }
    })
    .await;
    drop(jobs);
    let _ = writer.join();
    std::fs::remove_dir_all(folder)?;
    Ok(rate)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "accept-rate".into()));
    let slower = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let disk = SlowDisk(Duration::from_millis(slower));
    let body: Bytes = vec![b'x'; BODY_BYTES].into();
    let before = bare(disk, folder.join("bare"), &body).await?;
    let options = Options::new(folder.join("spool"));
    let spool = Arc::new(Embedded::open_on(options, Arc::new(disk))?);
    let consumer = tokio::spawn(consume(spool.clone()));
    let new = message(&body)?;
    let rate = produce(|| {
        let (spool, new) = (spool.clone(), new.clone());
        move || {
            let (spool, new) = (spool.clone(), new.clone());
            async move { spool.accept(new, None).await.is_ok() }
        }
    })
    .await;
    let left: u64 = spool.tally().await?.iter().map(|line| line.batches).sum();
    spool.close().await;
    consumer.await?;
    let after = bare(disk, folder.join("bare"), &body).await?;
    let bare = f64::midpoint(before, after);
    println!("bare loop   {before:8.0} and {after:.0} messages a second");
    println!("spool       {rate:8.0} messages a second, {left} not settled yet");
    println!("ratio       {:8.2}", rate / bare);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
