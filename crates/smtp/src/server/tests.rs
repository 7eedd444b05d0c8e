//! The driver on an in-memory stream with the clock paused: deadlines, presence, memory, shutdown; and TLS.

mod guard;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use std::time::Duration;

use super::*;
use crate::Protocol;
use crate::testing::{self, Decider, Taken};

const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 1], 4711);

/// A served session and its client's end.
struct Served {
    stream: DuplexStream,
    ending: JoinHandle<Ending>,
    stop: watch::Sender<bool>,
}

fn serve_with<H: Handler + 'static>(settings: Settings, mut handler: H) -> Served {
    let (stream, server) = duplex(64 * 1024);
    let (stop, stopped) = watch::channel(false);
    let ending = tokio::spawn(async move {
        let settings = Arc::new(settings);
        let local = ([192, 0, 2, 2], 25).into();
        driver::serve_on(
            server,
            CLIENT.into(),
            local,
            settings,
            &mut handler,
            stopped,
        )
        .await
    });
    Served {
        stream,
        ending,
        stop,
    }
}

fn serve_smtp(settings: Settings) -> Served {
    serve_with(settings, Decider::new(Protocol::Smtp))
}

fn smtp() -> Settings {
    testing::settings(Protocol::Smtp)
}

impl Served {
    /// Sends, then reads replies until one line starts with `expected`.
    async fn say(&mut self, bytes: &str, expected: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
        hear(&mut self.stream, expected).await;
    }

    /// Everything up to the server's closing.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        String::from_utf8(rest).unwrap()
    }

    async fn ending(self) -> Ending {
        drop(self.stream);
        self.ending.await.unwrap()
    }
}

async fn hear<S: tokio::io::AsyncRead + Unpin>(stream: &mut S, expected: &str) {
    let mut line = Vec::new();
    loop {
        let byte = stream.read_u8().await.unwrap_or_else(|_| {
            panic!(
                "{expected:?} did not come; {:?}",
                String::from_utf8_lossy(&line)
            );
        });
        line.push(byte);
        if byte == b'\n' {
            if line.starts_with(expected.as_bytes()) {
                return;
            }
            line.clear();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_told_and_left() {
    let mut served = serve_smtp(smtp());
    served.say("", "220").await;
    let began = Instant::now();
    assert!(served.rest().await.starts_with("421 4.4.2 "));
    assert_eq!(began.elapsed().as_secs(), 300);
    assert_eq!(served.ending().await, Ending::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_comes_drop_by_drop_has_one_deadline() {
    let mut served = serve_smtp(smtp());
    served.say("", "220").await;
    let began = Instant::now();
    let drip = async {
        let (mut reading, mut writing) = tokio::io::split(&mut served.stream);
        let drops = async {
            while writing.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        };
        tokio::select! {
            () = drops => {}
            () = hear(&mut reading, "421 4.4.2") => {}
        }
    };
    drip.await;
    assert_eq!(began.elapsed().as_secs(), 300);
    assert_eq!(served.ending().await, Ending::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_drop_by_drop_is_too_slow() {
    let mut served = serve_smtp(smtp());
    served.say("HELO x\r\n", "250").await;
    served
        .say("MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n", "354")
        .await;
    let began = Instant::now();
    // A full block is progress, then drops.
    tokio::time::sleep(Duration::from_secs(100)).await;
    served.stream.write_all(&[b'x'; 600]).await.unwrap();
    let drip = async {
        let (mut reading, mut writing) = tokio::io::split(&mut served.stream);
        let drops = async {
            while writing.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        };
        tokio::select! {
            () = drops => {}
            () = hear(&mut reading, "421 4.4.2") => {}
        }
    };
    drip.await;
    assert_eq!(began.elapsed().as_secs(), 280);
    assert_eq!(served.ending().await, Ending::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_session_has_an_end() {
    let mut settings = smtp();
    settings.timeouts.session = Duration::from_secs(1000);
    let mut served = serve_smtp(settings);
    served.say("", "220").await;
    let began = Instant::now();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(240)).await;
        served.say("NOOP\r\n", "250").await;
    }
    assert!(served.rest().await.starts_with("421 4.4.2 "));
    assert_eq!(began.elapsed().as_secs(), 1000);
    assert_eq!(served.ending().await, Ending::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_left() {
    let mut served = serve_smtp(smtp());
    let flood = async {
        while served
            .stream
            .write_all(&b"NOOP\r\n".repeat(1000))
            .await
            .is_ok()
        {}
    };
    let began = Instant::now();
    flood.await;
    assert!(began.elapsed().as_secs() >= 300);
    assert_eq!(served.ending().await, Ending::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_is_lost_and_one_that_quits_is_not() {
    let mut served = serve_smtp(smtp());
    served.say("HELO x\r\n", "250").await;
    served.stream.write_all(b"MAIL").await.unwrap();
    assert_eq!(served.ending().await, Ending::Lost);

    let mut served = serve_smtp(smtp());
    served.say("", "220").await;
    served.say("QUIT\r\n", "221").await;
    assert_eq!(served.rest().await, "");
    assert_eq!(served.ending().await, Ending::Quit);
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_idle_sessions_at_once_and_others_after_their_transaction() {
    let mut idle = serve_smtp(smtp());
    let mut busy = serve_smtp(smtp());
    idle.say("HELO x\r\n", "250").await;
    busy.say("HELO x\r\n", "250").await;
    busy.say("MAIL FROM:<>\r\n", "250 2.1.0").await;
    let began = Instant::now();
    idle.stop.send(true).unwrap();
    busy.stop.send(true).unwrap();
    assert!(idle.rest().await.starts_with("421 4.3.2 "));
    assert_eq!(idle.ending().await, Ending::Shutdown);
    busy.say("RCPT TO:<a@example.org>\r\n", "250 2.1.5").await;
    busy.say("DATA\r\n", "354").await;
    busy.say("x\r\n.\r\n", "250 2.0.0 taken").await;
    assert!(busy.rest().await.starts_with("421 4.3.2 "));
    assert_eq!(busy.ending().await, Ending::Shutdown);
    assert_eq!(began.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_does_not_stop_its_sessions() {
    let mut served = serve_smtp(smtp());
    served.say("", "220").await;
    served.stop = watch::channel(false).0;
    served.say("HELO x\r\n", "250").await;
    served.say("QUIT\r\n", "221").await;
    assert_eq!(served.ending().await, Ending::Quit);
}

/// Holds a message until its client has gone, or until it is let go on.
struct Waiting {
    proceed: watch::Receiver<bool>,
    gone: watch::Sender<Option<bool>>,
}

#[async_trait::async_trait]
impl Handler for Waiting {
    async fn mail(
        &mut self,
        _: &Facts,
        _: &ReversePath,
        _: &MailParameters,
        _: Option<u64>,
    ) -> Result<(), Reply> {
        Ok(())
    }

    async fn rcpt(&mut self, _: &Facts, _: &Envelope, _: &Recipient) -> Result<(), Reply> {
        Ok(())
    }

    async fn message(
        &mut self,
        _: &Facts,
        _: &Envelope,
        _: Bytes,
        presence: &Presence,
    ) -> Vec<Reply> {
        assert!(!presence.gone());
        self.gone.send(Some(false)).unwrap();
        let mut there = presence.0.clone();
        tokio::select! {
            _ = there.wait_for(|there| !there) => {}
            _ = self.proceed.wait_for(|proceed| *proceed) => {}
        }
        self.gone.send(Some(presence.gone())).unwrap();
        vec![Reply::new(250, (2, 0, 0), "waited")]
    }
}

async fn until_message(
    settings: Settings,
) -> (Served, watch::Sender<bool>, watch::Receiver<Option<bool>>) {
    let (proceed, proceeding) = watch::channel(false);
    let (gone, mut told) = watch::channel(None);
    let mut served = serve_with(
        settings,
        Waiting {
            proceed: proceeding,
            gone,
        },
    );
    served.say("HELO x\r\n", "250").await;
    served
        .say("MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n", "354")
        .await;
    served.stream.write_all(b"x\r\n.\r\n").await.unwrap();
    told.wait_for(Option::is_some).await.unwrap();
    (served, proceed, told)
}

#[tokio::test(start_paused = true)]
async fn a_handler_learns_that_its_client_has_gone() {
    let (served, _proceed, told) = until_message(smtp()).await;
    assert_eq!(served.ending().await, Ending::Lost);
    assert_eq!(*told.borrow(), Some(true));
}

#[tokio::test(start_paused = true)]
async fn what_is_pipelined_behind_a_message_is_kept_and_bounded() {
    let (mut served, proceed, told) = until_message(smtp()).await;
    let filler = "NOOP\r\n".repeat(30_000);
    let (mut reading, mut writing) = tokio::io::split(&mut served.stream);
    let write = async {
        writing.write_all(filler.as_bytes()).await.unwrap();
        writing.write_all(b"QUIT\r\n").await.unwrap();
    };
    let read = async {
        // The duplex stream holds 64 KiB, the session another 64: the client must wait.
        tokio::time::sleep(Duration::from_secs(1)).await;
        proceed.send(true).unwrap();
        hear(&mut reading, "250 2.0.0 waited").await;
        for _ in 0..30_000 {
            hear(&mut reading, "250 2.0.0 Ok").await;
        }
        hear(&mut reading, "221").await;
    };
    tokio::join!(write, read);
    assert_eq!(*told.borrow(), Some(false));
    assert_eq!(served.ending().await, Ending::Quit);
}

#[tokio::test(start_paused = true)]
async fn messages_share_memory_and_give_it_back() {
    let mut settings = smtp();
    settings.memory_kib = Arc::new(Semaphore::new(100));
    let memory = settings.memory_kib.clone();
    let mut served = serve_smtp(settings);
    served.say("HELO x\r\n", "250").await;
    for (bytes, expected) in [
        (30_000, "250 2.0.0"),
        (300_000, "452 4.3.1"),
        (30_000, "250 2.0.0"),
    ] {
        served
            .say("MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n", "354")
            .await;
        let message = format!("{}.\r\n", "0123456789abc\r\n".repeat(bytes / 15));
        served.say(&message, expected).await;
        served.say("NOOP\r\n", "250").await;
        assert_eq!(memory.available_permits(), 100);
    }
    // Another message holds it all.
    let permit = memory.clone().acquire_many_owned(100).await.unwrap();
    served
        .say(
            "MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nBDAT 4 LAST\r\nx\r\n\r\n",
            "452 4.3.1",
        )
        .await;
    drop(permit);
}

#[tokio::test]
async fn tls_brings_the_clients_certificates() {
    let (server, client, _) = testing::mutual();
    let mut settings = smtp();
    settings.tls = Some(server);
    settings.tls_required = true;
    let handler = Decider::new(Protocol::Smtp);
    let taken = handler.taken.clone();
    let mut served = serve_with(settings, handler);
    served.say("EHLO x\r\n", "250 STARTTLS").await;
    // What is sent in the clear behind STARTTLS is dropped, not read after the handshake.
    served.say("STARTTLS\r\nEHLO evil\r\n", "220 2.0.0").await;
    let mut stream = secure(served.stream, client).await.unwrap();
    stream.write_all(b"MAIL FROM:<>\r\n").await.unwrap();
    hear(&mut stream, "503 5.5.1").await;
    stream.write_all(b"EHLO x\r\n").await.unwrap();
    hear(&mut stream, "250 DSN").await;
    stream
        .write_all(b"MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nBDAT 0 LAST\r\n")
        .await
        .unwrap();
    hear(&mut stream, "250 2.0.0 taken").await;
    stream.write_all(b"QUIT\r\n").await.unwrap();
    hear(&mut stream, "221").await;
    assert_eq!(served.ending.await.unwrap(), Ending::Quit);
    let taken: Vec<Taken> = taken.lock().unwrap().drain(..).collect();
    let tls = taken[0].facts.tls.as_ref().unwrap();
    assert_eq!(
        (&*tls.version, &*tls.cipher),
        ("TLSv1.3", "TLS13_AES_256_GCM_SHA384")
    );
    assert_eq!(tls.peer_certificates.len(), 1);
    assert_eq!(taken[0].envelope.recipients.len(), 1);
}

async fn secure(
    stream: DuplexStream,
    config: Arc<ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<DuplexStream>> {
    TlsConnector::from(config)
        .connect("mx.example".try_into().unwrap(), stream)
        .await
}

#[tokio::test]
async fn a_client_without_a_certificate_is_not_served() {
    let (server, _, bare) = testing::mutual();
    let mut settings = smtp();
    settings.tls = Some(server);
    let mut served = serve_smtp(settings);
    served.say("EHLO x\r\n", "250 STARTTLS").await;
    served.say("STARTTLS\r\n", "220").await;
    // In TLS 1.3 the client learns of it only when it reads on.
    let mut stream = secure(served.stream, bare).await.unwrap();
    stream.write_all(b"EHLO x\r\n").await.unwrap();
    assert!(stream.read_u8().await.is_err());
    assert_eq!(served.ending.await.unwrap(), Ending::Tls);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_a_deadline() {
    let mut settings = smtp();
    settings.tls = Some(testing::certificate().0);
    let mut served = serve_smtp(settings);
    served.say("STARTTLS\r\n", "220 2.0.0").await;
    let began = Instant::now();
    assert_eq!(served.rest().await, "");
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(served.ending().await, Ending::Tls);
}
