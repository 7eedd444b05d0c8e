//! A scripted list host: publishes the directory that a claim gives it, or breaks in its answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use mail::Domain;
use mail::directory::{Content, Delta, Seal, Version, Whole};
use serde::Deserialize;
use service::shutdown::Shutdown;
use service::signing::Signer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What a list host answers with.
#[derive(Clone)]
pub enum Told {
    /// This directory; to those who hold the first, the change between both.
    Directory(Box<(Option<Whole>, Whole)>),
    /// A change that does not lead to its seal, and to those who ask for the whole, that.
    BadDelta(Box<(Delta, Whole)>),
    /// A status and a body.
    Broken(u16, Vec<u8>),
}

type Published = watch::Receiver<Told>;

#[derive(Clone)]
struct Host {
    published: Published,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Asked {
    #[serde(default)]
    pub since: String,
    #[serde(default)]
    seen: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    wait: u64,
}

impl Asked {
    fn holds(&self, seal: &Seal) -> bool {
        self.since == seal.version.to_string() && self.digest == seal.digest.to_string()
    }
}

async fn answer(State(mut host): State<Host>, Query(asked): Query<Asked>) -> Response {
    host.asked.lock().unwrap().push(asked.clone());
    let fresh = |told: &Told| match told {
        Told::Directory(told) => {
            let seal = &told.1.seal;
            !asked.holds(seal) && seal.version.to_string() != asked.seen
        }
        _ => true,
    };
    let wait = Duration::from_secs(asked.wait);
    let Ok(told) = tokio::time::timeout(wait, host.published.wait_for(fresh)).await else {
        let same = matches!(&*host.published.borrow(), Told::Directory(told)
            if asked.holds(&told.1.seal));
        let code = if same {
            StatusCode::NOT_MODIFIED
        } else {
            StatusCode::CONFLICT
        };
        return code.into_response();
    };
    let told = told.unwrap().clone();
    match told {
        Told::Directory(told) => match *told {
            (Some(old), new) if old.seal.version.to_string() == asked.since => {
                (StatusCode::IM_USED, Json(delta(&old, &new))).into_response()
            }
            (_, new) => Json(new).into_response(),
        },
        Told::BadDelta(told) if asked.since == told.0.from.to_string() => {
            (StatusCode::IM_USED, Json(told.0)).into_response()
        }
        Told::BadDelta(told) if told.1.seal.version.to_string() == asked.since => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Told::BadDelta(told) => Json(told.1).into_response(),
        Told::Broken(code, body) => (StatusCode::from_u16(code).unwrap(), body).into_response(),
    }
}

pub struct ListHost {
    pub address: SocketAddr,
    pub publish: watch::Sender<Told>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl ListHost {
    pub async fn start(told: Told, shutdown: &Shutdown) -> Self {
        let (publish, published) = watch::channel(told);
        let asked = Arc::default();
        let host = Host {
            published,
            asked: Arc::clone(&asked),
        };
        let router = Router::new()
            .route("/directory", get(answer))
            .with_state(host);
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let serving = service::control::serve(anywhere, None, &[], router, shutdown.clone());
        Self {
            address: serving.await.unwrap(),
            publish,
            asked,
        }
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

pub fn signer(secret: u8) -> Signer {
    Signer::new(&[vec![secret; 32]]).unwrap()
}

/// Version `epoch.serial`: a list, and so many addresses.
pub fn whole(epoch: u64, serial: u64, members: usize) -> Whole {
    let names: Vec<String> = (0..members)
        .map(|n| format!("u{n}@lists.example"))
        .collect();
    let content = Content {
        domains: [Domain::parse("lists.example").unwrap()].into(),
        lists: ["dev@lists.example"].into_iter().collect(),
        addresses: names.iter().map(String::as_str).collect(),
    };
    let mut seal = Seal {
        version: Version { epoch, serial },
        digest: content.digest(),
        signatures: Vec::new(),
    };
    seal.signatures = signer(1).sign(&seal.signed());
    Whole::new(seal, &content)
}

pub fn told(epoch: u64, serial: u64, members: usize) -> Told {
    Told::Directory(Box::new((None, whole(epoch, serial, members))))
}

pub fn delta(old: &Whole, new: &Whole) -> Delta {
    let (_, before) = old.clone().content().unwrap();
    let (seal, after) = new.clone().content().unwrap();
    Delta {
        from: old.seal.version,
        seal,
        change: before.change_to(&after),
    }
}

/// Says that so many bytes come, and dies in their middle.
pub async fn dying_host(length: usize, body: Vec<u8>) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
        }
    });
    (address, serving)
}

/// A port that was free a moment ago.
pub async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
