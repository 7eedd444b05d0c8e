//! Moves bytes between one connection and its dialogue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::Shared;
use super::dialogue::{self, Dialogue, Next};
use super::site;

/// Read at once: a message of the usual size with its envelope.
const READ_BYTES: usize = 16 * 1024;
/// A client that says nothing for so long is gone (RFC 5321 4.5.3.2.7).
const IDLE_MAX: Duration = Duration::from_secs(300);
/// For a handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Serves a session until it ends or its site goes down.
pub async fn serve(shared: &Arc<Shared>, nth: usize, mut stream: TcpStream) {
    let site = &shared.sites[nth];
    let most = shared.site_sessions_max;
    if most > 0 && site.sessions.load(Ordering::Relaxed) > most {
        shared.counts.deferred.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(dialogue::BUSY).await;
        return;
    }
    let mut state = site.watch();
    let mut dialogue = Dialogue::new(shared.clone(), site.address.ip());
    tokio::select! {
        biased;
        () = talk(shared, &mut dialogue, stream) => {}
        () = site::is_down(&mut state) => {}
    }
}

async fn talk(shared: &Shared, dialogue: &mut Dialogue, mut stream: TcpStream) {
    let wants_tls = exchange(dialogue, &mut stream).await;
    let (true, Some(tls)) = (wants_tls, &shared.tls) else {
        return;
    };
    if let Ok(Ok(mut stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
        dialogue.secured();
        exchange(dialogue, &mut stream).await;
        let _ = timeout(HANDSHAKE, stream.shutdown()).await;
    }
}

/// To the end of the session, or to where TLS starts: then true.
async fn exchange<S>(dialogue: &mut Dialogue, stream: &mut S) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = vec![0; READ_BYTES];
    let (mut start, mut end) = (0, 0);
    let mut out = Vec::new();
    loop {
        let (taken, next) = dialogue.step(&buffer[start..end], &mut out);
        start += taken;
        if !out.is_empty() {
            let said = timeout(IDLE_MAX, async {
                stream.write_all(&out).await?;
                stream.flush().await
            });
            if !matches!(said.await, Ok(Ok(()))) {
                return false;
            }
            out.clear();
        }
        match next {
            // What came behind STARTTLS in the clear is not to be believed (CVE-2011-0411).
            Next::StartTls => return start == end,
            Next::Close => return false,
            Next::Wait(duration) => tokio::time::sleep(duration).await,
            Next::Read => match timeout(IDLE_MAX, stream.read(&mut buffer)).await {
                Ok(Ok(bytes @ 1..)) => (start, end) = (0, bytes),
                _ => return false,
            },
        }
    }
}

/// With a certificate of its own, made now; nobody can verify it, as is usual between mail exchangers.
pub fn acceptor() -> Result<TlsAcceptor, String> {
    let made = rcgen::generate_simple_self_signed(["sink.invalid".to_owned()]);
    let made = made.map_err(|error| format!("certificate: {error}"))?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let key = key.map_err(|error| format!("certificate: {error}"))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(|error| format!("certificate: {error}"))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
