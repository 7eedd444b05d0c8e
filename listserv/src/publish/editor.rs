//! Makes a version of the directory whenever what edges must know has changed: the names, the configured domains, or the keys that
//! sign. The version is in the database before anybody is told of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mail::Domain;
use mail::directory::{Change, Content, Entries, Seal, Version};
use ring::rand::{SecureRandom, SystemRandom};
use service::signing::Signer;
use tokio::sync::watch;
use tracing::{info, warn};

use super::recall::Recall;
use crate::config::Config;
use crate::directory::{Directory, Error, Names};
use crate::secrets::Secrets;

/// After the database could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// One version of the directory.
#[derive(Debug)]
pub struct Edition {
    /// Its place, its digest, and the signatures.
    pub seal: Seal,
    /// Who exists.
    pub content: Content,
}

/// Where versions are told, and what changed between them.
#[derive(Clone)]
pub struct Editions {
    /// The newest; none while there is nothing that edges may be told.
    pub newest: watch::Receiver<Option<Arc<Edition>>>,
    recall: Arc<Mutex<Recall>>,
}

impl Editions {
    /// What changed since a version, when that is remembered.
    pub fn since(&self, version: Version) -> Option<Change> {
        let recall = self.recall.lock().unwrap_or_else(PoisonError::into_inner);
        recall.since(version)
    }
}

/// The one who makes versions.
pub struct Editor {
    /// The names.
    pub directory: Directory,
    /// Further domains.
    pub config: watch::Receiver<Config>,
    /// Who signs.
    pub secrets: watch::Receiver<Secrets>,
    newest: watch::Sender<Option<Arc<Edition>>>,
    recall: Arc<Mutex<Recall>>,
    /// The last one that was told, also while nothing may be told.
    last: Option<Arc<Edition>>,
}

impl Editor {
    /// Nothing is told before [`Editor::run`].
    pub fn new(
        directory: Directory,
        config: watch::Receiver<Config>,
        secrets: watch::Receiver<Secrets>,
    ) -> (Self, Editions) {
        let (newest, told) = watch::channel(None);
        let recall = Arc::default();
        let editions = Editions {
            newest: told,
            recall: Arc::clone(&recall),
        };
        let editor = Self {
            directory,
            config,
            secrets,
            newest,
            recall,
            last: None,
        };
        (editor, editions)
    }

    /// Until it is stopped.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut names = self.directory.watch();
        loop {
            let now = names.borrow_and_update().clone();
            self.config.mark_unchanged();
            self.secrets.mark_unchanged();
            let mut again = Duration::MAX;
            if let Err(error) = self.edit(now).await {
                warn!(event = "directory_not_published", reason = %error, "edges keep what they have");
                again = RETRY;
            }
            tokio::select! {
                changed = names.changed() => if changed.is_err() { return },
                changed = self.config.changed() => if changed.is_err() { return },
                changed = self.secrets.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Tells these names, if that is anything new. Names that were not read yet, or of which there is none, are never told: edges
    /// would refuse everybody.
    async fn edit(&mut self, names: Option<Arc<Names>>) -> Result<(), Error> {
        let Some(names) = names.filter(|names| !names.is_empty()) else {
            self.newest.send_replace(None);
            return Ok(());
        };
        let domains = self.config.borrow().domains.clone();
        let signer = self.secrets.borrow().directory.clone();
        let last = self.last.clone();
        // A million names take a second.
        let work = move || {
            let content = content(&names, &domains);
            let change = last.map(|last| last.content.change_to(&content));
            (content.digest(), content, change)
        };
        let (digest, content, change) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let signers = signer.as_ref().map(|signer| signer.public().join(","));
        let signers = signers.unwrap_or_default();
        let chance = chance()?;
        let of = signers.clone();
        let published = self
            .directory
            .write(move |store| match store.published()? {
                Some(now) if now.digest == digest && now.signers == of => Ok(now),
                _ => store.publish(digest, &of, chance),
            })
            .await?;
        let seal = sealed(published.version, &content, signer.as_deref());
        let told = Edition { seal, content };
        let entries = told.content.entries();
        let told = Arc::new(told);
        let before = self.last.replace(Arc::clone(&told));
        let before = before.map(|before| before.seal.version);
        if let (Some(before), Some(change)) = (before, change)
            && before != published.version
        {
            info!(event = "directory_published", version = %published.version, entries, names = change.len());
            let mut recall = self.recall.lock().unwrap_or_else(PoisonError::into_inner);
            recall.keep(before, change);
        } else if before.is_none() {
            info!(event = "directory_published", version = %published.version, entries);
        }
        self.newest.send_replace(Some(told));
        Ok(())
    }
}

/// What edges are told of these names.
pub fn content(names: &Names, domains: &[String]) -> Content {
    let own = names.domains().into_iter();
    let all = own.chain(domains.iter().cloned());
    Content {
        domains: all.filter_map(|text| Domain::parse(&text).ok()).collect(),
        lists: names.list_keys().collect::<Entries>(),
        addresses: names.alias_keys().collect::<Entries>(),
    }
}

/// Vouched for by each of the signer's keys.
pub fn sealed(version: Version, content: &Content, signer: Option<&Signer>) -> Seal {
    let mut seal = Seal {
        version,
        digest: content.digest(),
        signatures: Vec::new(),
    };
    if let Some(signer) = signer {
        seal.signatures = signer.sign(&seal.signed());
    }
    seal
}

fn chance() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Unavailable("the system gives no random numbers".into()))?;
    Ok(u64::from_be_bytes(bytes))
}
