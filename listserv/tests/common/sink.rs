//! A mail host on loopback that keeps what it takes. It refuses `refuse@` with 550, defers `defer@` with 451, and calls us too many once for
//! each `limited@`, as large providers do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use smtp::Protocol;
use smtp::server::{BareNewline, Facts, Handler, Presence, Settings, Timeouts, serve};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::until;

/// One transaction as it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub message: String,
}

impl Mail {
    /// A header field's value.
    pub fn field(&self, name: &str) -> Option<String> {
        mail::header::fields(self.message.as_bytes())
            .find(|field| field.is(name))
            .map(|field| field.text())
    }
}

/// The mail host.
pub struct Sink {
    pub address: SocketAddr,
    taken: Arc<Mutex<Vec<Mail>>>,
    _stop: watch::Sender<bool>,
}

#[derive(Clone)]
struct Keeper(Arc<Mutex<Vec<Mail>>>, Arc<Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl Handler for Keeper {
    async fn mail(
        &mut self,
        _: &Facts,
        _: &ReversePath,
        _: &MailParameters,
        _: Option<u64>,
    ) -> Result<(), Reply> {
        Ok(())
    }

    async fn rcpt(&mut self, _: &Facts, _: &Envelope, recipient: &Recipient) -> Result<(), Reply> {
        match recipient.address.local() {
            "refuse" => Err(Reply::new(550, (5, 1, 1), "no such user")),
            "defer" => Err(Reply::new(451, (4, 2, 0), "not now")),
            "limited" => {
                let (mut told, to) = (self.1.lock().unwrap(), recipient.address.to_string());
                if told.contains(&to) {
                    return Ok(());
                }
                told.push(to);
                let text = "RL000001 throttled, too many messages";
                Err(Reply::new(550, (5, 7, 1), text))
            }
            _ => Ok(()),
        }
    }

    async fn message(
        &mut self,
        _: &Facts,
        envelope: &Envelope,
        message: Bytes,
        _: &Presence,
    ) -> Vec<Reply> {
        self.0.lock().unwrap().push(Mail {
            from: envelope.reverse_path.to_string(),
            to: envelope
                .recipients
                .iter()
                .map(|recipient| recipient.address.to_string())
                .collect(),
            message: String::from_utf8(message.to_vec()).unwrap(),
        });
        vec![Reply::new(250, (2, 0, 0), "kept")]
    }
}

impl Sink {
    /// Starts one.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = watch::channel(false);
        let settings = Arc::new(settings());
        let keeper = Keeper(taken.clone(), Arc::default());
        tokio::spawn(async move {
            loop {
                let (stream, client) = listener.accept().await.unwrap();
                let (settings, stopped, mut keeper) =
                    (settings.clone(), stopped.clone(), keeper.clone());
                tokio::spawn(async move {
                    serve(stream, client, settings, &mut keeper, stopped).await;
                });
            }
        });
        Self {
            address,
            taken,
            _stop: stop,
        }
    }

    /// What was taken so far.
    pub fn taken(&self) -> Vec<Mail> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits until so much was taken.
    pub async fn wait(&self, count: usize) -> Vec<Mail> {
        until(&format!("{count} mails"), async || {
            let taken = self.taken();
            (taken.len() >= count).then_some(taken)
        })
        .await
    }
}

fn settings() -> Settings {
    Settings {
        protocol: Protocol::Smtp,
        hostname: Domain::parse("mx.example").unwrap(),
        message_bytes_max: 64 << 20,
        recipients_max: 1000,
        errors_max: 1000,
        bare_newline: BareNewline::Normalize,
        tls: None,
        tls_required: false,
        xforward: false,
        keywords_off: Vec::new(),
        timeouts: Timeouts::default(),
        guard: smtp::server::Guard::default(),
        memory_kib: Arc::new(Semaphore::new(1 << 20)),
    }
}
