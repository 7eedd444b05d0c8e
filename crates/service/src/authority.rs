//! The site's own CA: `PROGRAM ca init DIR`, `PROGRAM ca node DIR NAME --role ROLE [--address HOST_OR_IP ...]`.
//! It makes files and never replaces one.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use ring::rand::{SecureRandom, SystemRandom};
use time::{Duration, OffsetDateTime};

use crate::tls::Role;

/// The CA outlives several generations of nodes.
const AUTHORITY_DAYS: i64 = 3652;
/// The longest that TLS libraries believe a leaf.
const NODE_DAYS: i64 = 825;
/// Hosts whose clock is behind must still believe a fresh certificate.
const CLOCK_SKEW: Duration = Duration::hours(1);
/// 256 bits, written in hexadecimal.
const SECRET_BYTES: usize = 32;
/// What `init` makes beside the CA: one key each for verdict tokens, confirmation cookies and the directory.
const SECRETS: [&str; 3] = ["verdict.key", "cookie.key", "directory.key"];
/// By which edges know what was signed with `directory.key`.
const PUBLIC: &str = "directory.pub";

/// Makes `ca.pem`, `ca.key` (0600), the secrets `verdict.key`, `cookie.key` and `directory.key` (0600), and the last one's public key
/// `directory.pub` in `dir`. Refuses to replace any.
pub fn init(dir: &Path) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    let names = ["ca.pem", "ca.key", PUBLIC].into_iter().chain(SECRETS);
    refuse_existing(names.map(|name| dir.join(name)))?;

    let key = generate_key()?;
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(AUTHORITY_DAYS);
    // Two sites' CAs must not have one name: chains are found by it.
    let site = format!("Mailflow site CA {}", &random_hex()?[..8]);
    params.distinguished_name = named(&site);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params
        .self_signed(&key)
        .map_err(|error| error.to_string())?;

    write_new(&dir.join("ca.key"), 0o600, &key.serialize_pem())?;
    for name in SECRETS {
        write_new(&dir.join(name), 0o600, &format!("{}\n", random_hex()?))?;
    }
    let signing = crate::config::secret(&dir.join("directory.key"))?;
    let public = crate::signing::public_of(&signing)?;
    write_new(&dir.join(PUBLIC), 0o644, &format!("{public}\n"))?;
    write_new(&dir.join("ca.pem"), 0o644, &certificate.pem())?;
    sync_dir(dir)
}

/// Makes `NAME.pem` and `NAME.key` (0600) in `dir`, signed by its CA, naming the node, its roles and its addresses; valid 825 days.
pub fn node(dir: &Path, name: &str, roles: &[Role], addresses: &[String]) -> Result<(), String> {
    let now = OffsetDateTime::now_utc();
    let validity = (now - CLOCK_SKEW, now + Duration::days(NODE_DAYS));
    node_valid(dir, name, roles, addresses, validity)
}

/// [`node`] with a validity of its own; tests make expired ones.
pub(crate) fn node_valid(
    dir: &Path,
    name: &str,
    roles: &[Role],
    addresses: &[String],
    (not_before, not_after): (OffsetDateTime, OffsetDateTime),
) -> Result<(), String> {
    check_name(name, roles)?;
    if roles.is_empty() {
        return Err(format!(
            "node {name} has no role; give --role at least once"
        ));
    }
    let (chain, secret) = (
        dir.join(format!("{name}.pem")),
        dir.join(format!("{name}.key")),
    );
    refuse_existing([chain.clone(), secret.clone()])?;
    let (issuer, authority_ends) = authority(dir)?;

    let mut params = CertificateParams::default();
    params.not_before = not_before;
    params.not_after = not_after.min(authority_ends);
    params.distinguished_name = named(name);
    params.subject_alt_names = alternative_names(name, roles, addresses)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A node is both: an edge asks the directory, a scanner is asked by an edge.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = generate_key()?;
    let certificate = params.signed_by(&key, &issuer);
    let certificate = certificate.map_err(|error| error.to_string())?;

    write_new(&secret, 0o600, &key.serialize_pem())?;
    write_new(&chain, 0o644, &certificate.pem())?;
    sync_dir(dir)
}

/// Makes a secret that a program keeps for itself, durably, unless there is one: what it signed stays valid over restarts.
pub fn own_secret(path: &Path) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.try_exists().map_err(wrong)? {
        return Ok(());
    }
    let made = path.with_extension("new");
    // A crash may have left one half-written.
    if made.try_exists().map_err(wrong)? {
        fs::remove_file(&made).map_err(wrong)?;
    }
    write_new(&made, 0o600, &format!("{}\n", random_hex()?))?;
    fs::rename(&made, path).map_err(wrong)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// The CA's key with its name, and when it expires.
fn authority(dir: &Path) -> Result<(Issuer<'static, KeyPair>, OffsetDateTime), String> {
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path).map_err(|error| {
            format!(
                "cannot read {}: {error}; make the CA first (ca init {})",
                path.display(),
                dir.display()
            )
        })
    };
    let (certificate, key) = (read("ca.pem")?, read("ca.key")?);
    let damaged = |error: rcgen::Error| {
        format!(
            "the CA in {} cannot be used: {error}; restore ca.pem and ca.key",
            dir.display()
        )
    };
    let key = KeyPair::from_pem(&key).map_err(damaged)?;
    let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(damaged)?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes())
        .map_err(|error| format!("{}/ca.pem: {error}", dir.display()))?;
    let parsed = pem
        .parse_x509()
        .map_err(|error| format!("{}/ca.pem: {error}", dir.display()))?;
    Ok((issuer, parsed.validity().not_after.to_datetime()))
}

fn alternative_names(
    name: &str,
    roles: &[Role],
    addresses: &[String],
) -> Result<Vec<SanType>, String> {
    let mut names = vec![dns(name)?];
    for role in roles {
        names.push(dns(role.name())?);
    }
    for address in addresses {
        names.push(match address.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => {
                check_name(address, roles)?;
                dns(address)?
            }
        });
    }
    // A local run names a node as its role.
    let mut unique: Vec<SanType> = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    Ok(unique)
}

fn dns(name: &str) -> Result<SanType, String> {
    let name = name.try_into();
    name.map(SanType::DnsName)
        .map_err(|e: rcgen::Error| e.to_string())
}

/// A host name, and not one that would give the node a role or overwrite the CA's files.
fn check_name(name: &str, roles: &[Role]) -> Result<(), String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(format!(
            "{name:?} is no host name; use letters, digits, hyphens and dots, as in scan-2.example.net"
        ));
    }
    let name = name.to_ascii_lowercase();
    if ["ca", "verdict", "cookie", "directory"].contains(&name.as_str()) {
        return Err(format!(
            "{name}.key is a file of the CA; choose another name"
        ));
    }
    let granted = Role::ALL.into_iter().find(|role| role.name() == name);
    match granted {
        Some(role) if !roles.contains(&role) => Err(format!(
            "the name {name} would give the node the role {name}; give --role {name} as well, or choose another name"
        )),
        _ => Ok(()),
    }
}

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn generate_key() -> Result<KeyPair, String> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())
}

fn random_hex() -> Result<String, String> {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| "the system gives no random numbers".to_string())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn refuse_existing(paths: impl IntoIterator<Item = PathBuf>) -> Result<(), String> {
    let existing = paths
        .into_iter()
        .find(|path| path.symlink_metadata().is_ok());
    match existing {
        Some(path) => Err(format!(
            "{} exists and is never replaced; move it away first",
            path.display()
        )),
        None => Ok(()),
    }
}

/// Made with its mode, so that a key is at no time readable by others.
fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), String> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn sync_dir(dir: &Path) -> Result<(), String> {
    let sync = fs::File::open(dir).and_then(|dir| dir.sync_all());
    sync.map_err(|error| format!("cannot sync {}: {error}", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn makes_a_ca_once_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("ca");
        init(&dir).unwrap();
        for (name, mode) in [
            ("ca.pem", 0o644),
            ("ca.key", 0o600),
            ("verdict.key", 0o600),
            ("cookie.key", 0o600),
            ("directory.key", 0o600),
            ("directory.pub", 0o644),
        ] {
            let found = fs::metadata(dir.join(name)).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{name}");
        }
        let secret = fs::read_to_string(dir.join("verdict.key")).unwrap();
        assert_eq!(secret.trim_end().len(), 64);
        assert_ne!(secret, fs::read_to_string(dir.join("cookie.key")).unwrap());
        let before = fs::read(dir.join("ca.key")).unwrap();
        assert!(init(&dir).unwrap_err().contains("never replaced"));
        assert_eq!(fs::read(dir.join("ca.key")).unwrap(), before);
    }

    #[test]
    fn a_node_is_named_by_its_name_roles_and_addresses() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let addresses = ["127.0.0.1".into(), "SCAN-2.example.net".into()];
        node(dir.path(), "scan-2", &[Role::Scanner], &addresses).unwrap();
        let pem = fs::read(dir.path().join("scan-2.pem")).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        assert_eq!(
            crate::tls::names(&pem.contents),
            ["scan-2", "scanner", "scan-2.example.net"]
        );
        let error = node(dir.path(), "scan-2", &[Role::Scanner], &[]).unwrap_err();
        assert!(error.contains("never replaced"), "{error}");
    }

    #[test]
    fn refused_nodes() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        for (name, roles, address, wanted) in [
            ("a b", &[Role::Scanner][..], "", "no host name"),
            ("../x", &[Role::Scanner], "", "no host name"),
            ("", &[Role::Scanner], "", "no host name"),
            ("-x", &[Role::Scanner], "", "no host name"),
            ("ca", &[Role::Scanner], "", "file of the CA"),
            ("listserv", &[Role::Scanner], "", "--role listserv"),
            ("scan-1", &[Role::Scanner], "mx-edge", "--role mx-edge"),
            ("scan-1", &[], "", "no role"),
        ] {
            let addresses: Vec<String> = [address.to_owned()]
                .into_iter()
                .filter(|address| !address.is_empty())
                .collect();
            let error = node(dir.path(), name, roles, &addresses).unwrap_err();
            assert!(error.contains(wanted), "{name}: {error}");
        }
        let empty = tempfile::tempdir().unwrap();
        let error = node(empty.path(), "scan-1", &[Role::Scanner], &[]).unwrap_err();
        assert!(error.contains("ca init"), "{error}");
    }
}
