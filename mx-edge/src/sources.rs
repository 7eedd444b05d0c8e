//! Opens the sources of recipients that the configuration names, and starts those who keep them fresh.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use mail::Timestamp;
use mail::verdict::Keys;
use service::program::StartError;
use service::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::recipients::Recipients;
use crate::recipients::directory::{self, Puller};
use crate::recipients::poll::{self, Format, Watched};
use crate::recipients::source::{Guard, Source};
use crate::state;
use crate::wiring::{Certificates, io_error};

/// The sources, and what keeps them fresh.
pub struct Sources {
    /// What sessions ask.
    pub recipients: Arc<Recipients>,
    files: Vec<Watched>,
    puller: Option<Puller>,
}

impl Sources {
    /// Opens them: the directory from its copy on disk, files at once. What is absent now is not loaded, and no reason not to start.
    pub fn open(
        config: &Config,
        certificates: &Certificates,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let mut sources = Vec::new();
        let mut puller = None;
        if !config.directory.servers.is_empty() {
            let (source, keys) = open_directory(config)?;
            sources.push(Arc::clone(&source));
            puller = Some(Puller {
                source,
                servers: config.directory.servers.clone(),
                identity: certificates.inside.clone(),
                keys,
                wait: config.directory.wait,
                pause_max: config.directory.pause_max,
                bytes_max: usize::try_from(config.directory.bytes_max).unwrap_or(usize::MAX),
                metrics: Arc::clone(metrics),
            });
        }
        let mut files = Vec::new();
        let delimiter = config.recipients.recipient_delimiter.chars().next();
        let plain = config
            .recipients
            .files
            .iter()
            .map(|path| (path, Format::Plain));
        let maps = config.recipients.postfix_maps.iter();
        for (path, format) in plain.chain(maps.map(|path| (path, Format::Postfix(delimiter)))) {
            let source = Arc::new(Source::new(
                &path.display().to_string(),
                guard(config),
                None,
            ));
            let mut watched = Watched::new(path.clone(), format, Arc::clone(&source));
            watched.refresh();
            sources.push(source);
            files.push(watched);
        }
        let cookies = keys(
            "recipients.cookie_key_files",
            &config.recipients.cookie_key_files,
            "copy the key from the list host",
        )?;
        let recipients = Recipients::new(config.host(), config.domains(), sources);
        let recipients = recipients.with_cookies(cookies);
        Ok(Self {
            recipients: Arc::new(recipients),
            files,
            puller,
        })
    }

    /// Starts who keeps them fresh. A change of the returned value makes files be read at once.
    pub fn spawn(
        self,
        tasks: &mut JoinSet<()>,
        config: &Config,
        shutdown: &Shutdown,
    ) -> watch::Sender<u64> {
        let (reload, reloaded) = watch::channel(0);
        if let Some(puller) = self.puller {
            tasks.spawn(puller.run(shutdown.clone()));
        }
        if !self.files.is_empty() {
            let interval = config.recipients.reload_interval;
            tasks.spawn(poll::run(self.files, interval, reloaded, shutdown.clone()));
        }
        reload
    }
}

/// The guard as configured.
pub fn guard(config: &Config) -> Guard {
    Guard {
        shrink_percent_max: config.recipients.shrink_percent_max,
        shrink_entries_floor: config.recipients.shrink_entries_floor,
    }
}

fn open_directory(config: &Config) -> Result<(Arc<Source>, Option<Keys>), StartError> {
    let keys = keys(
        "directory.key_files",
        &config.directory.key_files,
        "copy directory.key from the list host",
    )?;
    let path = config.state.join("directory.json");
    let stored = state::read(&path).map_err(|error| io_error(&path, &error))?;
    let confirmed = std::fs::metadata(&path).and_then(|facts| facts.modified());
    let source = Source::new("directory", guard(config), Some(path));
    let source = Arc::new(source.stale_after(config.directory.stale_after));
    directory::restore(&source, stored, keys.as_ref());
    if let Ok(time) = confirmed {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        source.heard_at(Timestamp(since.as_millis() as u64));
    }
    Ok((source, keys))
}

/// The secrets in these files; none without any.
fn keys(key: &str, files: &[PathBuf], remedy: &str) -> Result<Option<Keys>, StartError> {
    if files.is_empty() {
        return Ok(None);
    }
    let error = |why: String| StartError {
        what: key.into(),
        why,
        remedy: remedy.into(),
    };
    let secrets: Result<Vec<_>, _> = files
        .iter()
        .map(|path| service::config::secret(path))
        .collect();
    match Keys::new(&secrets.map_err(error)?) {
        Some(keys) => Ok(Some(keys)),
        None => Err(error("a key is shorter than 16 bytes".into())),
    }
}
