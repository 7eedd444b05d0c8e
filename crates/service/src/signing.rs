//! Signatures that only their maker can make (Ed25519, RFC 8032): a secret file signs, and who checks needs the public key alone.

use std::fmt;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// The shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;
/// Of a public key.
const PUBLIC_BYTES: usize = 32;
/// So that one secret never makes the same key for two purposes.
const PURPOSE: &[u8] = b"mailflow signing key 1\n";

/// Makes signatures with one key, or with several while they rotate.
pub struct Signer(Vec<Ed25519KeyPair>);

impl Signer {
    /// A key for each of these secrets; none without any.
    pub fn read(files: &[PathBuf]) -> Result<Option<Self>, String> {
        let keys = files.iter().map(|file| {
            let secret = crate::config::secret(file)?;
            pair(&secret).map_err(|why| format!("{}: {why}", file.display()))
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        Ok((!keys.is_empty()).then_some(Self(keys)))
    }

    /// A key for each of these secrets.
    pub fn new(secrets: &[Vec<u8>]) -> Result<Self, String> {
        let keys = secrets.iter().map(|secret| pair(secret));
        Ok(Self(keys.collect::<Result<_, _>>()?))
    }

    /// Signatures over a message in hexadecimal, one of each key.
    pub fn sign(&self, message: &[u8]) -> Vec<Box<str>> {
        let signed = self.0.iter().map(|key| key.sign(message));
        signed.map(|made| hex(made.as_ref()).into()).collect()
    }

    /// The public keys in hexadecimal, in the order of the secrets.
    pub fn public(&self) -> Vec<String> {
        let keys = self.0.iter();
        keys.map(|key| hex(key.public_key().as_ref())).collect()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?})", self.public())
    }
}

/// Knows signatures by their public keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier(Vec<[u8; PUBLIC_BYTES]>);

impl Verifier {
    /// The public keys in these files, each as 64 hexadecimal digits; none without any.
    pub fn read(files: &[PathBuf]) -> Result<Option<Self>, String> {
        let keys = files.iter().map(|file| public_key(file));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        Ok((!keys.is_empty()).then_some(Self(keys)))
    }

    /// Whether any of these signatures over the message is of any of the keys.
    pub fn verify(&self, message: &[u8], signatures: &[Box<str>]) -> bool {
        signatures.iter().any(|signature| {
            let signature = unhex(signature).unwrap_or_default();
            self.0.iter().any(|key| {
                let key = UnparsedPublicKey::new(&ED25519, key);
                key.verify(message, &signature).is_ok()
            })
        })
    }
}

impl From<&Signer> for Verifier {
    fn from(signer: &Signer) -> Self {
        let keys = signer.0.iter().filter_map(|key| {
            let key: &[u8] = key.public_key().as_ref();
            key.try_into().ok()
        });
        Self(keys.collect())
    }
}

/// The public key that belongs to a secret, as 64 hexadecimal digits.
pub fn public_of(secret: &[u8]) -> Result<String, String> {
    Ok(hex(pair(secret)?.public_key().as_ref()))
}

fn pair(secret: &[u8]) -> Result<Ed25519KeyPair, String> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err("the secret is shorter than 16 bytes".into());
    }
    let seed = digest(&SHA256, &[PURPOSE, secret].concat());
    Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|error| error.to_string())
}

fn public_key(file: &Path) -> Result<[u8; PUBLIC_BYTES], String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))?;
    let key = unhex(text.trim()).and_then(|key| key.try_into().ok());
    key.ok_or_else(|| format!("{shown}: not a public key of 64 hexadecimal digits"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(secrets: &[u8]) -> Signer {
        let secrets: Vec<_> = secrets.iter().map(|byte| vec![*byte; 32]).collect();
        Signer::new(&secrets).unwrap()
    }

    #[test]
    fn keys_rotate_with_overlap() {
        let message = b"directory 7";
        let (old, both, new) = (signer(&[1]), signer(&[2, 1]), signer(&[2]));
        let table = [
            (&old, &old, true),
            (&both, &old, true),
            (&both, &new, true),
            (&old, &both, true),
            (&new, &both, true),
            (&new, &old, false),
            (&old, &new, false),
        ];
        for (signs, checks, expected) in table {
            let verifier = Verifier::from(checks);
            let made = signs.sign(message);
            assert_eq!(
                verifier.verify(message, &made),
                expected,
                "{signs:?} {checks:?}"
            );
            assert!(!verifier.verify(b"directory 8", &made));
        }
        let verifier = Verifier::from(&old);
        for none in ["", "00", "zz", &"00".repeat(64)] {
            assert!(!verifier.verify(message, &[none.into()]), "{none}");
        }
        assert!(!verifier.verify(message, &[]));
    }

    #[test]
    fn a_public_key_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.pub");
        let public = public_of(&[1; 32]).unwrap();
        std::fs::write(&path, format!("{public}\n")).unwrap();
        let read = Verifier::read(std::slice::from_ref(&path)).unwrap();
        assert_eq!(read, Some(Verifier::from(&signer(&[1]))));
        std::fs::write(&path, "no key\n").unwrap();
        let error = Verifier::read(std::slice::from_ref(&path)).unwrap_err();
        assert!(error.contains("directory.pub: not a public key"), "{error}");
        assert_eq!(Verifier::read(&[]), Ok(None));
        assert!(public_of(b"short").is_err());
    }
}
