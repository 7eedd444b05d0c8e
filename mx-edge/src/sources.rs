//! Opens the sources of recipients that the configuration names, and starts those who keep them fresh.

use std::path::PathBuf;
use std::sync::Arc;

use mail::verdict::Keys;
use service::program::StartError;
use service::shutdown::Shutdown;
use service::signing::Verifier;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::recipients::Recipients;
use crate::recipients::directory;
use crate::recipients::guard::Guard;
use crate::recipients::poll::{self, Format, Watched};
use crate::recipients::pull::Puller;
use crate::recipients::source::Source;
use crate::wiring::Certificates;

/// The sources, and what keeps them fresh.
pub struct Sources {
    /// What sessions ask.
    pub recipients: Arc<Recipients>,
    files: Vec<Watched>,
    puller: Option<Puller>,
    /// The directory, when there are list hosts: what siblings may have.
    pub directory: Option<Arc<Source>>,
}

impl Sources {
    /// Opens them: the directory from its copy on disk, files at once. What is absent now is not loaded, and no reason not to start.
    pub fn open(
        config: &Config,
        certificates: &Certificates,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let mut sources = Vec::new();
        let (mut puller, mut directory) = (None, None);
        if !config.directory.servers.is_empty() {
            let (source, verifier, resign) = open_directory(config)?;
            sources.push(Arc::clone(&source));
            directory = Some(Arc::clone(&source));
            puller = Some(Puller {
                source,
                servers: config.directory.servers.clone(),
                identity: certificates.inside.clone(),
                siblings: config.directory.siblings.clone(),
                verifier,
                resign,
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
            directory,
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

/// The directory with what its copy on disk says, its keys, and whether it should be fetched anew.
fn open_directory(config: &Config) -> Result<(Arc<Source>, Option<Verifier>, bool), StartError> {
    let verifier = Verifier::read(&config.directory.public_key_files);
    let verifier = verifier.map_err(|why| StartError {
        what: "directory.public_key_files".into(),
        why,
        remedy: "copy directory.pub from where `ca init` made it".into(),
    })?;
    let path = config.state.join("directory.json");
    let source = Source::new("directory", guard(config), Some(path));
    let source = Arc::new(source.stale_after(config.directory.stale_after));
    let known = directory::restore(&source, verifier.as_ref());
    Ok((source, verifier, !known))
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
