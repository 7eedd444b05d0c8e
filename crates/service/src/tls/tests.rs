//! Identities of a generated CA, in force and reloaded; handshakes in memory.

use std::fs;

use rustls::{ClientConnection, ServerConnection};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::authority;

/// A CA with one node `n`.
fn site(roles: &[Role]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    authority::init(dir.path()).unwrap();
    authority::node(dir.path(), "n", roles, &[]).unwrap();
    dir
}

fn files(dir: &Path, name: &str) -> Files {
    Files {
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        authority: Some(dir.join("ca.pem")),
    }
}

/// Runs a handshake; what the server knows of the client, or the first error.
fn handshake(
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
) -> Result<Vec<Vec<u8>>, rustls::Error> {
    let mut client = ClientConnection::new(client, name)?;
    let mut server = ServerConnection::new(server)?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    let chain = server.peer_certificates().unwrap_or_default();
    Ok(chain
        .iter()
        .map(|certificate| certificate.to_vec())
        .collect())
}

#[test]
fn a_configuration_complains_of_files_that_would_not_load() {
    let dir = site(&[Role::Scanner]);
    authority::node(dir.path(), "other", &[Role::Scanner], &[]).unwrap();
    let good = files(dir.path(), "n");
    let check = |change: &dyn Fn(&mut Files), mutual: bool, wanted: &[&str]| {
        let mut files = good.clone();
        change(&mut files);
        let complaints = files.check("inside", mutual);
        let keys: Vec<_> = complaints.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, wanted, "{complaints:?}");
    };
    check(&|_| {}, true, &[]);
    check(&|files| files.authority = None, true, &["inside.authority"]);
    check(&|files| files.authority = None, false, &[]);
    check(
        &|files| {
            files.key = "n.key".into();
            files.authority = Some("ca.pem".into());
        },
        true,
        &["inside.key", "inside.authority"],
    );
    let missing = dir.path().join("missing.pem");
    check(
        &|files| files.authority = Some(missing.clone()),
        true,
        &["inside.certificate"],
    );
    let others = dir.path().join("other.key");
    check(
        &|files| files.key = others.clone(),
        true,
        &["inside.certificate"],
    );
}

#[test]
fn peers_of_one_site_know_each_others_roles() {
    let dir = site(&[Role::Scanner, Role::MxEdge]);
    let identity = Identity::load(&files(dir.path(), "n")).unwrap();
    assert!(identity.seconds_left() > 824 * 86_400);
    for (role, fits) in [
        (Role::Scanner, true),
        (Role::MxEdge, true),
        (Role::Listserv, false),
    ] {
        let result = handshake(identity.server(), identity.client(), role.server_name());
        assert_eq!(result.is_ok(), fits, "{role:?}");
        if let Ok(chain) = result {
            assert!(has_role(&chain, &[role]));
            assert!(!has_role(&chain, &[Role::Listserv, Role::Balancer]));
        }
    }
    assert!(!has_role(&[], &Role::ALL));
    assert!(!has_role(&[b"no certificate".to_vec()], &Role::ALL));
}

#[test]
fn a_foreign_site_is_believed_by_nobody() {
    let (ours, theirs) = (site(&[Role::Scanner]), site(&[Role::Scanner]));
    let ours = Identity::load(&files(ours.path(), "n")).unwrap();
    let theirs = Identity::load(&files(theirs.path(), "n")).unwrap();
    let name = Role::Scanner.server_name();
    assert!(handshake(ours.server(), theirs.client(), name.clone()).is_err());
    assert!(handshake(theirs.server(), ours.client(), name.clone()).is_err());
    let stranger = opportunistic_client();
    assert!(handshake(ours.server(), stranger, name).is_err());
}

#[test]
fn strangers_are_served_and_believed_only_in_public() {
    let dir = site(&[Role::Scanner]);
    let public = public_server(&Files {
        authority: None,
        ..files(dir.path(), "n")
    });
    let name = ServerName::try_from("mx.example.org").unwrap();
    let chain = handshake(public.unwrap(), opportunistic_client(), name.clone());
    assert_eq!(chain.unwrap(), Vec::<Vec<u8>>::new());
    let public = Identity::load_public(&files(dir.path(), "n")).unwrap();
    assert!(handshake(public.server(), public.client(), name).is_err());
}

#[test]
fn bad_files_are_told_apart() {
    let dir = site(&[Role::Scanner]);
    let at = dir.path();
    let now = OffsetDateTime::now_utc();
    let day = Duration::days(1);
    for (name, validity) in [
        ("old", (now - day * 3, now - day)),
        ("early", (now + day, now + day * 3)),
    ] {
        authority::node_valid(at, name, &[Role::Scanner], &[], validity).unwrap();
    }
    let foreign = site(&[Role::Scanner]);
    let ours = files(at, "n");
    fs::write(at.join("empty.pem"), "").unwrap();
    authority::node(at, "open", &[Role::Scanner], &[]).unwrap();
    let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(at.join("open.key"), mode).unwrap();
    let with = |change: fn(&mut Files, &Path), at: &Path| {
        let mut files = ours.clone();
        change(&mut files, at);
        files
    };
    for (files, wanted) in [
        (files(at, "old"), "expired at"),
        (files(at, "early"), "valid only from"),
        (files(at, "absent"), "absent.pem"),
        (files(at, "open"), "chmod"),
        (with(|f, at| f.key = at.join("old.key"), at), "does not fit"),
        (with(|f, at| f.key = at.join("n.pem"), at), "chmod"),
        (
            with(|f, at| f.certificate = at.join("empty.pem"), at),
            "no certificate",
        ),
        (with(|f, _| f.authority = None, at), "set `authority`"),
        (
            with(
                |f, at| f.authority = Some(at.join("ca.pem")),
                foreign.path(),
            ),
            "does not lead to",
        ),
    ] {
        let error = Identity::load(&files).unwrap_err();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn a_reload_takes_effect_for_the_next_handshake_and_a_bad_one_has_none() {
    let dir = site(&[Role::Scanner]);
    let at = dir.path();
    let identity = Identity::load(&files(at, "n")).unwrap();
    let (server, client) = (identity.server(), identity.client());
    let check = |role: Role| handshake(server.clone(), client.clone(), role.server_name()).is_ok();
    assert!(check(Role::Scanner) && !check(Role::Listserv));

    authority::node(at, "m", &[Role::Listserv], &[]).unwrap();
    fs::copy(at.join("m.pem"), at.join("n.pem")).unwrap();
    assert!(identity.reload().unwrap_err().contains("does not fit"));
    assert!(
        check(Role::Scanner) && !check(Role::Listserv),
        "the old one stays"
    );
    fs::copy(at.join("m.key"), at.join("n.key")).unwrap();
    identity.reload().unwrap();
    assert!(!check(Role::Scanner) && check(Role::Listserv));
}
