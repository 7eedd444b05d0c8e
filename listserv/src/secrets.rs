//! Secrets: read from files, made where it is safe to make one, read anew on SIGHUP.

use std::path::PathBuf;
use std::sync::Arc;

use mail::verdict::Keys;
use service::signing::Signer;

use crate::config::Config;

/// All secrets in force.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Verifies verdicts.
    pub verdict: Option<Keys>,
    /// Makes and verifies confirmations.
    pub cookie: Keys,
    /// Signs the directory.
    pub directory: Option<Arc<Signer>>,
}

impl Secrets {
    /// Reads them all.
    pub fn read(config: &Config) -> Result<Self, String> {
        let cookie = match config.cookie_key_files.as_slice() {
            [] => {
                let own = config.state.join("cookie.key");
                service::authority::own_secret(&own)?;
                vec![own]
            }
            files => files.to_vec(),
        };
        Ok(Self {
            verdict: keys(&config.verdict_key_files)?,
            cookie: keys(&cookie)?.ok_or("no secret for confirmations")?,
            directory: Signer::read(&config.directory_key_files)?.map(Arc::new),
        })
    }
}

fn keys(files: &[PathBuf]) -> Result<Option<Keys>, String> {
    let secrets = files
        .iter()
        .map(|file| service::config::secret(file))
        .collect::<Result<Vec<_>, _>>()?;
    if secrets.is_empty() {
        return Ok(None);
    }
    match Keys::new(&secrets) {
        Some(keys) => Ok(Some(keys)),
        None => Err(format!("{files:?}: a secret is shorter than 16 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            state: folder.path().into(),
            ..Config::default()
        };
        let first = Secrets::read(&config).unwrap();
        let second = Secrets::read(&config).unwrap();
        let tag = first.cookie.sign(&[b"x"]);
        assert!(second.cookie.verify(&[b"x"], &tag));
        assert!(first.verdict.is_none());
    }
}
