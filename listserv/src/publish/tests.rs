//! What edges are told, through the router, out of a real directory.

use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use mail::Address;
use mail::directory::Content;
use prometheus::Registry;
use service::signing::{Signer, Verifier};
use tower_service::Service;

use super::*;
use crate::config::Config;
use crate::secrets::Secrets;

/// A list host's publishing side.
struct Host {
    directory: Directory,
    secrets: watch::Sender<Secrets>,
    config: watch::Sender<Config>,
    editions: Editions,
    router: Router,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn signer(bytes: &[u8]) -> Arc<Signer> {
    let secrets: Vec<_> = bytes.iter().map(|byte| vec![*byte; 32]).collect();
    Arc::new(Signer::new(&secrets).unwrap())
}

impl Host {
    async fn start(folder: &Path) -> Self {
        let directory = Directory::new(folder.join("directory.sqlite"), true);
        directory.refresh().await.unwrap();
        let config = Config {
            state: folder.into(),
            ..Config::default()
        };
        let mut secrets = Secrets::read(&config).unwrap();
        secrets.directory = Some(signer(&[1]));
        let (secrets, seen_secrets) = watch::channel(secrets);
        let (config, seen_config) = watch::channel(config);
        let (editor, editions) = Editor::new(directory.clone(), seen_config, seen_secrets);
        let (stop, stopped) = watch::channel(false);
        let publisher = Publisher {
            editions: editions.clone(),
            directory: directory.clone(),
            metrics: Metrics::new(&Registry::new()).unwrap(),
            stop: stopped.clone(),
            whole: Mutex::default(),
        };
        Self {
            router: publisher.router(),
            task: tokio::spawn(editor.run(stopped)),
            directory,
            secrets,
            config,
            editions,
            stop,
        }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }

    async fn alias(&self, name: &str) {
        let alias = Address::parse(name).unwrap();
        let to = [Address::parse("someone@home.example").unwrap()];
        let added = self.directory.rename(move |s| s.add_alias(&alias, &to));
        added.await.unwrap();
    }

    /// Waits until the newest version is another one.
    async fn after(&self, before: Option<Version>) -> Arc<Edition> {
        let mut newest = self.editions.newest.clone();
        let is_new = |edition: &Option<Arc<Edition>>| {
            edition
                .as_ref()
                .is_some_and(|edition| Some(edition.seal.version) != before)
        };
        newest.wait_for(is_new).await.unwrap().clone().unwrap()
    }

    async fn ask(&self, query: &str) -> (u16, Vec<u8>) {
        let request = Request::get(format!("/directory?{query}"))
            .body(Body::empty())
            .unwrap();
        let response = self.router.clone().call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, body.to_vec())
    }
}

fn held(edition: &Edition) -> String {
    format!(
        "since={}&digest={}",
        edition.seal.version, edition.seal.digest
    )
}

fn whole(body: &[u8]) -> Content {
    let whole: Whole = serde_json::from_slice(body).unwrap();
    whole.content().unwrap().1
}

#[tokio::test]
async fn an_edge_is_told_the_whole_and_then_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(folder.path()).await;
    // Nothing is said of an empty directory.
    assert_eq!(host.ask("").await.0, 503);

    host.alias("joe@lists.example").await;
    let first = host.after(None).await;
    let (status, body) = host.ask("").await;
    assert_eq!((status, whole(&body)), (200, first.content.clone()));
    assert!(Verifier::from(&*signer(&[1])).verify(&first.seal.signed(), &first.seal.signatures));
    assert_eq!(host.ask(&held(&first)).await.0, 304);

    host.alias("jim@lists.example").await;
    let second = host.after(Some(first.seal.version)).await;
    assert_eq!(second.seal.version.serial, first.seal.version.serial + 1);
    // Half of what there is: the whole is as good. With more beside it the difference is told.
    for n in 0..4 {
        let before = host.after(None).await.seal.version;
        host.alias(&format!("u{n}@lists.example")).await;
        host.after(Some(before)).await;
    }
    let newest = host.after(None).await;
    let (status, body) = host.ask(&held(&second)).await;
    assert_eq!(status, 200, "4 of 6 changed");
    assert_eq!(whole(&body), newest.content);
    let third = host.editions.since(second.seal.version).unwrap();
    assert_eq!(third.len(), 4);
    host.alias("late@lists.example").await;
    let last = host.after(Some(newest.seal.version)).await;
    let (status, body) = host.ask(&held(&newest)).await;
    assert_eq!(status, 226);
    let delta: Delta = serde_json::from_slice(&body).unwrap();
    let (seal, content) = delta.apply(newest.seal.version, &newest.content).unwrap();
    assert_eq!((seal, content), (last.seal.clone(), last.content.clone()));

    // After a restart the version is the same, and what changed before is told as the whole.
    host.end().await;
    let host = Host::start(folder.path()).await;
    assert_eq!(host.after(None).await.seal, last.seal);
    assert_eq!(host.ask(&held(&last)).await.0, 304);
    assert_eq!(host.ask(&held(&newest)).await.0, 200);
    host.end().await;
}

#[tokio::test]
async fn a_change_ends_the_wait() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(folder.path()).await;
    host.alias("joe@lists.example").await;
    let first = host.after(None).await;
    let query = format!("{}&wait=60", held(&first));
    let (answered, ()) = tokio::join!(host.ask(&query), host.alias("jim@lists.example"));
    assert!([200, 226].contains(&answered.0), "{answered:?}");
    host.end().await;
}

#[tokio::test]
async fn domains_and_keys_make_versions_too() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(folder.path()).await;
    host.alias("joe@lists.example").await;
    let first = host.after(None).await;
    host.config
        .send_modify(|config| config.domains.push("more.example".into()));
    let second = host.after(Some(first.seal.version)).await;
    assert_eq!(second.content.domains.len(), 2);

    // Keys rotate: both sign, then the new one alone; every edge gets the new signature at once.
    host.secrets
        .send_modify(|secrets| secrets.directory = Some(signer(&[2, 1])));
    let third = host.after(Some(second.seal.version)).await;
    assert_eq!(third.content, second.content);
    for known in [[1], [2]] {
        let verifier = Verifier::from(&*signer(&known));
        assert!(verifier.verify(&third.seal.signed(), &third.seal.signatures));
    }
    let (status, body) = host.ask(&held(&second)).await;
    assert_eq!(status, 226);
    let delta: Delta = serde_json::from_slice(&body).unwrap();
    assert!(delta.change.is_empty());
    host.end().await;
}

#[tokio::test]
async fn a_host_that_lags_behind_says_what_it_has_and_counts_on_apart() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(folder.path()).await;
    host.alias("joe@lists.example").await;
    let first = host.after(None).await;
    let version = first.seal.version;
    let ahead = Version {
        serial: version.serial + 7,
        ..version
    };
    let query = format!("since={ahead}&digest={}", Digest([9; 32]));
    assert_eq!(host.ask(&query).await.0, 200);
    // The edge holds it back, and is not sent it again.
    assert_eq!(host.ask(&format!("{query}&seen={version}")).await.0, 409);
    host.alias("jim@lists.example").await;
    let next = host.after(Some(version)).await;
    assert_ne!(next.seal.version.epoch, version.epoch);
    assert_eq!(host.ask(&format!("{query}&seen={version}")).await.0, 200);
    host.end().await;
}
