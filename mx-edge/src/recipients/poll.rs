//! Recipients kept in files: read again when a file's time or length has changed. A file that is missing or cannot be read leaves
//! what was loaded in force.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use service::shutdown::Shutdown;
use tokio::sync::watch;

use super::source::Source;
use super::text;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// [`text::file`].
    Plain,
    /// [`text::postfix`], with its delimiter.
    Postfix(Option<char>),
}

/// A file and its source.
pub struct Watched {
    path: PathBuf,
    format: Format,
    source: Arc<Source>,
    stamp: Option<(SystemTime, u64)>,
}

impl Watched {
    /// Not read yet.
    pub fn new(path: PathBuf, format: Format, source: Arc<Source>) -> Self {
        Self {
            path,
            format,
            source,
            stamp: None,
        }
    }

    /// Reads the file if it has changed since the last time.
    pub fn refresh(&mut self) {
        if let Err(why) = self.try_refresh() {
            self.source.failed(why);
        }
    }

    fn try_refresh(&mut self) -> Result<(), String> {
        let said = |error: std::io::Error| format!("{}: {error}", self.path.display());
        let facts = std::fs::metadata(&self.path).map_err(said)?;
        let stamp = (facts.modified().map_err(said)?, facts.len());
        if self.stamp == Some(stamp) {
            return Ok(());
        }
        let content = std::fs::read_to_string(&self.path).map_err(said)?;
        let parsed = match self.format {
            Format::Plain => text::file(&content),
            Format::Postfix(delimiter) => text::postfix(&content, delimiter),
        };
        // A bad file is not read again before it has changed, its complaint stands until then.
        self.stamp = Some(stamp);
        let catalog = parsed.map_err(|bad| format!("{}: {bad}", self.path.display()))?;
        self.source.offer(catalog, None, false);
        Ok(())
    }
}

/// Looks at the files every `interval`, and when `reload` changes.
pub async fn run(
    mut files: Vec<Watched>,
    interval: Duration,
    mut reload: watch::Receiver<u64>,
    shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            Ok(()) = reload.changed() => {}
            () = shutdown.wait() => return,
        }
        let work = move || {
            files.iter_mut().for_each(Watched::refresh);
            files
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(same) => files = same,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipients::guard::Guard;

    #[test]
    fn a_file_that_goes_away_or_breaks_empties_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipients");
        let source = Arc::new(Source::new("file", Guard::default(), None));
        let mut watched = Watched::new(path.clone(), Format::Plain, Arc::clone(&source));

        watched.refresh();
        assert!(source.current().is_none());
        assert!(source.trouble().is_some());

        std::fs::write(&path, "joe@a.example\n").unwrap();
        watched.refresh();
        assert_eq!(source.summary().entries, 1);
        assert_eq!(source.trouble(), None);

        std::fs::write(&path, "joe@a.example\nbroken line\n").unwrap();
        watched.refresh();
        assert_eq!(source.summary().entries, 1);
        assert!(source.trouble().unwrap().contains("line 2"));

        std::fs::remove_file(&path).unwrap();
        watched.refresh();
        assert_eq!(source.summary().entries, 1);

        std::fs::write(&path, "joe@a.example\njim@a.example\n").unwrap();
        watched.refresh();
        assert_eq!(source.summary().entries, 2);
        assert_eq!(source.trouble(), None);
    }
}
