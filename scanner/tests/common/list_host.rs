//! A list host: LMTP by the house's own server, keeping what comes and answering as the recipient's name says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mail::trace::Trace;
use mail::verdict::{Token, Verdict, digest};
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath, header};
use smtp::Protocol;
use smtp::server::{BareNewline, Facts, Handler, Presence, Settings, Timeouts};
use smtp::xforward::Xforward;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;

/// A message as it arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub envelope: Envelope,
    pub xforward: Xforward,
    pub message: Bytes,
}

impl Arrived {
    /// Its trace, with the verdict of its token, and all behind the trace.
    pub fn opened(&self) -> (Trace, Verdict, Bytes) {
        let field = header::fields(&self.message).next().unwrap();
        assert!(field.is("X-Mailflow-Trace"), "{:?}", field.text());
        let trace = Trace::parse(&field.text()).expect("a whole trace");
        let rest = self.message.slice(field.raw.len()..);
        let token = trace.verdict.clone().expect("a token");
        let verdict = Token::verify(&token, &digest(&rest), &super::keys());
        (trace, verdict.expect("our token about this message"), rest)
    }
}

/// A running list host; dropped, it is gone.
pub struct ListHost {
    pub address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    task: JoinHandle<()>,
}

impl Drop for ListHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ListHost {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0", None).await
    }

    /// On a chosen address, with a certificate where given.
    pub async fn at(address: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let settings = Arc::new(settings(tls));
        let task = tokio::spawn({
            let arrived = arrived.clone();
            async move {
                let (_stop, stop) = watch::channel(false);
                loop {
                    let (stream, client) = listener.accept().await.unwrap();
                    let (settings, stop) = (settings.clone(), stop.clone());
                    let mut keeper = Keeper(arrived.clone());
                    tokio::spawn(async move {
                        smtp::server::serve(stream, client, settings, &mut keeper, stop).await
                    });
                }
            }
        });
        Self {
            address,
            arrived,
            task,
        }
    }

    /// All that came.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// The one message that came.
    pub fn only(&self) -> Arrived {
        let arrived = self.arrived();
        assert_eq!(arrived.len(), 1, "{arrived:?}");
        arrived[0].clone()
    }
}

fn settings(tls: Option<Arc<ServerConfig>>) -> Settings {
    let minute = Duration::from_secs(60);
    Settings {
        protocol: Protocol::Lmtp,
        hostname: Domain::parse("lists.example").unwrap(),
        message_bytes_max: 64 << 20,
        recipients_max: 1000,
        errors_max: 20,
        bare_newline: BareNewline::Normalize,
        tls_required: tls.is_some(),
        tls,
        xforward: true,
        keywords_off: Vec::new(),
        timeouts: Timeouts {
            command: minute,
            data_block: minute,
            handshake: minute,
            session: minute,
        },
        guard: smtp::server::Guard::default(),
        memory_kib: Arc::new(Semaphore::new(1 << 18)),
    }
}

struct Keeper(Arc<Mutex<Vec<Arrived>>>);

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
            "closed" => Err(Reply::new(550, (5, 7, 2), "members only")),
            _ => Ok(()),
        }
    }

    async fn message(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        message: Bytes,
        _: &Presence,
    ) -> Vec<Reply> {
        self.0.lock().unwrap().push(Arrived {
            envelope: envelope.clone(),
            xforward: facts.xforward.clone(),
            message,
        });
        let recipients = envelope.recipients.iter();
        let answer = |recipient: &Recipient| match recipient.address.local() {
            "full" => Reply::new(452, (4, 3, 1), "spool is full"),
            _ => Reply::new(250, (2, 0, 0), "accepted"),
        };
        recipients.map(answer).collect()
    }
}
