//! What the disk takes when there is nothing but segments: the peers of the spool's journal.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spool::embedded::disk::{Disk, File, write_all_at};
use tokio::sync::oneshot;

use crate::producers::{Bodies, produce};
use crate::slow_disk::SlowDisk;

const SEGMENT_BYTES: u64 = 64 << 20;

/// Two segments that were written before, in turn.
#[derive(Debug)]
pub struct Bare {
    files: Vec<Arc<dyn File>>,
    at: u64,
}

impl Bare {
    /// Makes and writes them.
    pub fn new(disk: &SlowDisk, folder: &Path, name: &str) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut files = Vec::new();
        for number in 0..2 {
            let file = disk.open(&folder.join(format!("{name}-{number}")))?;
            write_all_at(file.as_ref(), &vec![1; SEGMENT_BYTES as usize], 0)?;
            file.sync()?;
            files.push(file);
        }
        Ok(Self { files, at: 0 })
    }

    fn group(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.at % SEGMENT_BYTES + bytes.len() as u64 > SEGMENT_BYTES {
            self.at = self.at.next_multiple_of(SEGMENT_BYTES);
        }
        let which = (self.at / SEGMENT_BYTES) as usize % self.files.len();
        let file = self.files.get(which).ok_or(io::ErrorKind::NotFound)?;
        write_all_at(file.as_ref(), bytes, self.at % SEGMENT_BYTES)?;
        self.at += bytes.len() as u64;
        file.sync()
    }

    /// Writes groups of these lengths; how long it took.
    pub fn replay(&mut self, groups: &[u64]) -> io::Result<f64> {
        let longest = groups.iter().max().copied().unwrap_or(0) as usize;
        let bytes = vec![b'x'; longest];
        let start = Instant::now();
        for length in groups {
            self.group(bytes.get(..*length as usize).unwrap_or_default())?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Gathers what waits, writes it, syncs, answers.
    fn log(&mut self, jobs: &std::sync::mpsc::Receiver<Waiting>) -> io::Result<()> {
        let mut buffer = Vec::new();
        while let Ok(first) = jobs.recv() {
            let mut answers = Vec::new();
            buffer.clear();
            for (body, answer) in std::iter::once(first).chain(jobs.try_iter()) {
                buffer.extend_from_slice(&body);
                answers.push(answer);
            }
            buffer.resize(buffer.len().next_multiple_of(4096), 0);
            self.group(&buffer)?;
            for answer in answers {
                let _ = answer.send(());
            }
        }
        Ok(())
    }
}

type Waiting = (Bytes, oneshot::Sender<()>);

/// The same producers hand over to a bare log; how many messages it takes in a second.
pub async fn log_turn(
    mut bare: Bare,
    turn: Duration,
    bodies: &Bodies,
) -> Result<(Bare, f64), crate::Failure> {
    let (jobs, waiting) = std::sync::mpsc::channel::<Waiting>();
    let writer = std::thread::spawn(move || bare.log(&waiting).map(|()| bare));
    let (count, seconds) = produce(turn, || {
        let (jobs, bodies) = (jobs.clone(), bodies.clone());
        move || {
            let body = bodies.next();
            let (answer, answered) = oneshot::channel();
            let sent = jobs.send((body, answer)).is_ok();
            async move { sent && answered.await.is_ok() }
        }
    })
    .await?;
    drop(jobs);
    let bare = writer.join().map_err(|_| "the bare log panicked")??;
    Ok((bare, count as f64 / seconds))
}
