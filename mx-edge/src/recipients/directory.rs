//! Reads the directory that listserv publishes: the whole of it or a change, checked before anybody is judged by it.

use mail::directory::{Delta, Seal, Whole};
use service::signing::Verifier;
use tracing::{info, warn};

use super::catalog::Catalog;
use super::source::Source;

/// Why an answer is no directory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDirectory {
    /// Not the JSON that was agreed on, or an entry that is no address or domain. One bad entry refuses the whole.
    #[error("not a directory: {0}")]
    Form(String),
    /// A public key is configured here, and nothing is signed with its secret.
    #[error(
        "the signature is missing or was made with another key; compare directory.public_key_files here with what \
         `listserv ca public FILE` says of the list host's directory_key_files"
    )]
    Signature,
    /// The content is not what was sealed.
    #[error(transparent)]
    Misfit(#[from] mail::directory::Misfit),
}

/// Reads and checks a whole directory; and when its giver had it confirmed, in milliseconds since 1970.
pub fn whole(
    body: &[u8],
    verifier: Option<&Verifier>,
) -> Result<(Catalog, Option<u64>), BadDirectory> {
    let form = |error: serde_json::Error| BadDirectory::Form(error.to_string());
    let whole: Whole = serde_json::from_slice(body).map_err(form)?;
    verify(&whole.seal, verifier)?;
    let confirmed = whole.confirmed;
    let (seal, content) = whole.content()?;
    Ok((Catalog::of_directory(seal, content), confirmed))
}

/// Reads and checks a change, and makes it to what is in force.
pub fn changed(
    body: &[u8],
    current: &Catalog,
    verifier: Option<&Verifier>,
) -> Result<(Catalog, Delta), BadDirectory> {
    let form = |error: serde_json::Error| BadDirectory::Form(error.to_string());
    let delta: Delta = serde_json::from_slice(body).map_err(form)?;
    verify(&delta.seal, verifier)?;
    let Some(seal) = &current.seal else {
        let why = "nothing is in force that a change could be made to".into();
        return Err(mail::directory::Misfit(why).into());
    };
    let (seal, content) = delta.apply(seal.version, &current.content)?;
    Ok((Catalog::of_directory(seal, content), delta))
}

fn verify(seal: &Seal, verifier: Option<&Verifier>) -> Result<(), BadDirectory> {
    match verifier {
        Some(verifier) if !verifier.verify(&seal.signed(), &seal.signatures) => {
            Err(BadDirectory::Signature)
        }
        _ => Ok(()),
    }
}

/// Puts what an earlier life of this edge had in force back in force. False when its signature is of none of the keys that are known
/// now: it was checked when it was taken and its digest is right, so it counts, but it should be fetched anew.
pub fn restore(source: &Source, verifier: Option<&Verifier>) -> bool {
    match source.restore() {
        Ok(Some(catalog)) => {
            let known = catalog
                .seal
                .as_ref()
                .is_some_and(|seal| verify(seal, verifier).is_ok());
            if !known {
                warn!(
                    event = "directory_signed_by_other_key",
                    version = %catalog.version,
                    "the copy on disk counts, and is fetched anew when a list host answers"
                );
            }
            known
        }
        Ok(None) => {
            info!(
                event = "directory_absent",
                "no directory on disk yet; recipients are answered 451 until one is loaded"
            );
            true
        }
        Err(error) => {
            warn!(event = "directory_unreadable", reason = %error, "the copy on disk is not used");
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipients::guard::Guard;
    use mail::Address;
    use mail::directory::{Content, Version};
    use service::signing::Signer;

    fn signer(secret: u8) -> Signer {
        Signer::new(&[vec![secret; 32]]).unwrap()
    }

    fn sealed(serial: u64, content: &Content, signer: Option<&Signer>) -> Seal {
        let mut seal = Seal {
            version: Version { epoch: 1, serial },
            digest: content.digest(),
            signatures: Vec::new(),
        };
        if let Some(signer) = signer {
            seal.signatures = signer.sign(&seal.signed());
        }
        seal
    }

    fn content(addresses: &[&str]) -> Content {
        Content {
            domains: [mail::Domain::parse("lists.example").unwrap()].into(),
            lists: ["dev@lists.example"].into_iter().collect(),
            addresses: addresses.iter().copied().collect(),
        }
    }

    fn body(serial: u64, content: &Content, signer: Option<&Signer>) -> Vec<u8> {
        serde_json::to_vec(&Whole::new(sealed(serial, content, signer), content)).unwrap()
    }

    #[test]
    fn a_directory_is_read() {
        let (catalog, _) = whole(&body(7, &content(&["joe@lists.example"]), None), None).unwrap();
        assert_eq!(&*catalog.version, "0000000000000001.7");
        assert!(catalog.knows(&Address::parse("joe@lists.example").unwrap()));
        assert!(catalog.knows(&Address::parse("dev-subscribe@lists.example").unwrap()));
        assert!(!catalog.knows(&Address::parse("jim@lists.example").unwrap()));
    }

    #[test]
    fn only_what_our_list_host_signed_counts() {
        let all = content(&["joe@lists.example"]);
        let (ours, other) = (signer(1), signer(2));
        let known = Verifier::from(&ours);
        let read = |body: &[u8]| whole(body, Some(&known)).map(|_| ());
        assert_eq!(read(&body(1, &all, Some(&ours))), Ok(()));
        for signer in [None, Some(&other)] {
            assert_eq!(read(&body(1, &all, signer)), Err(BadDirectory::Signature));
        }
        // Another content, version or digest under a genuine signature.
        let genuine = sealed(1, &all, Some(&ours));
        let less = content(&[]);
        let swapped = serde_json::to_vec(&Whole::new(genuine.clone(), &less)).unwrap();
        assert!(matches!(read(&swapped), Err(BadDirectory::Misfit(_))));
        let mut newer = genuine.clone();
        newer.version.serial = 9;
        let newer = serde_json::to_vec(&Whole::new(newer, &all)).unwrap();
        assert_eq!(read(&newer), Err(BadDirectory::Signature));
        let mut resealed = genuine;
        resealed.digest = less.digest();
        let resealed = serde_json::to_vec(&Whole::new(resealed, &less)).unwrap();
        assert_eq!(read(&resealed), Err(BadDirectory::Signature));
        // Who knows no key believes the connection.
        assert!(whole(&body(1, &all, Some(&ours)), None).is_ok());
    }

    #[test]
    fn a_change_counts_only_when_it_leads_to_what_was_sealed() {
        let ours = signer(1);
        let known = Verifier::from(&ours);
        let (old, new) = (
            content(&["joe@lists.example"]),
            content(&["jim@lists.example"]),
        );
        let current = Catalog::of_directory(sealed(1, &old, Some(&ours)), old.clone());
        let good = Delta {
            from: current.seal.as_ref().unwrap().version,
            seal: sealed(2, &new, Some(&ours)),
            change: old.change_to(&new),
        };
        let read = |delta: &Delta| {
            let body = serde_json::to_vec(delta).unwrap();
            changed(&body, &current, Some(&known)).map(|(catalog, _)| catalog.content)
        };
        assert_eq!(read(&good), Ok(new.clone()));
        let mut half = good.clone();
        half.change.remove = Default::default();
        assert!(matches!(read(&half), Err(BadDirectory::Misfit(_))));
        let mut elsewhere = good.clone();
        elsewhere.from.serial = 7;
        assert!(matches!(read(&elsewhere), Err(BadDirectory::Misfit(_))));
        let mut forged = good.clone();
        forged.seal = sealed(2, &new, Some(&signer(2)));
        assert_eq!(read(&forged), Err(BadDirectory::Signature));
    }

    #[test]
    fn half_an_answer_is_no_directory() {
        let all = body(1, &content(&["joe@lists.example"]), None);
        for end in 0..all.len() {
            assert!(
                matches!(whole(&all[..end], None), Err(BadDirectory::Form(_))),
                "{end} bytes"
            );
        }
        let text = String::from_utf8(all)
            .unwrap()
            .replace("joe@lists.example", "joe");
        assert!(matches!(
            whole(text.as_bytes(), None),
            Err(BadDirectory::Form(_))
        ));
    }

    #[test]
    fn a_stored_directory_is_restored_also_after_the_keys_have_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.json");
        let open = || Source::new("directory", Guard::default(), Some(path.clone()));
        let all = content(&["joe@lists.example"]);
        let ours = signer(1);
        let known = Verifier::from(&ours);
        let source = open();
        assert!(restore(&source, Some(&known)));
        assert!(source.current().is_none());
        let (catalog, _) = whole(&body(1, &all, Some(&ours)), Some(&known)).unwrap();
        source.offer(catalog, None, false);

        for (verifier, is_known) in [(&known, true), (&Verifier::from(&signer(2)), false)] {
            let source = open();
            assert_eq!(restore(&source, Some(verifier)), is_known);
            assert_eq!(source.summary().entries, 2);
        }
        std::fs::write(&path, &body(1, &all, None)[..40]).unwrap();
        let source = open();
        restore(&source, None);
        assert!(source.current().is_none());
    }
}
