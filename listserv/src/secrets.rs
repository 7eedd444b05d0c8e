//! Secrets: read from files, made where it is safe to make one, read anew on SIGHUP.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mail::verdict::Keys;
use ring::rand::{SecureRandom, SystemRandom};

use crate::config::Config;
use crate::directory::hex;

/// Bytes of a secret that we make.
const SECRET_BYTES: usize = 32;

/// All secrets in force.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Verifies verdicts.
    pub verdict: Option<Keys>,
    /// Makes and verifies confirmations.
    pub cookie: Keys,
    /// Signs the directory.
    pub directory: Option<Keys>,
}

impl Secrets {
    /// Reads them all.
    pub fn read(config: &Config) -> Result<Self, String> {
        let cookie = match config.cookie_key_files.as_slice() {
            [] => vec![own(&config.state.join("cookie.key"))?],
            files => files.to_vec(),
        };
        let directory: Vec<PathBuf> = config.directory_key_file.iter().cloned().collect();
        Ok(Self {
            verdict: keys(&config.verdict_key_files)?,
            cookie: keys(&cookie)?.ok_or("no secret for confirmations")?,
            directory: keys(&directory)?,
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

/// Our own secret of confirmations, made once: they stay valid over restarts.
fn own(path: &Path) -> Result<PathBuf, String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.try_exists().map_err(wrong)? {
        return Ok(path.to_owned());
    }
    let mut secret = [0; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| "no randomness".to_owned())?;
    let hex = hex(&secret);
    let made = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&made)
        .map_err(wrong)?;
    writeln!(file, "{hex}").map_err(wrong)?;
    file.sync_all().map_err(wrong)?;
    std::fs::rename(&made, path).map_err(wrong)?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(wrong)?;
    }
    Ok(path.to_owned())
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
