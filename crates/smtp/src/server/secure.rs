//! STARTTLS from the server's side: the handshake, and what it tells of the client.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ProtocolVersion, ServerConnection};

use super::{Settings, Tls};
use crate::wire::Wire;

/// Makes the handshake; `None` when it fails or takes too long.
pub async fn secure<S>(wire: Wire<S>, settings: &Settings) -> Option<(Wire<S>, Tls)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (Wire::Plain(stream), Some(config)) = (wire, &settings.tls) else {
        return None;
    };
    let handshake = TlsAcceptor::from(config.clone()).accept(stream);
    let stream = timeout(settings.handshake_now(), handshake)
        .await
        .ok()?
        .ok()?;
    let tls = describe(stream.get_ref().1);
    Some((Wire::Tls(Box::new(stream.into())), tls))
}

fn describe(connection: &ServerConnection) -> Tls {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3".into(),
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2".into(),
        other => format!("{other:?}").into(),
    };
    let cipher = connection.negotiated_cipher_suite();
    let certificates = connection.peer_certificates().unwrap_or_default();
    Tls {
        version,
        cipher: cipher
            .map(|suite| format!("{:?}", suite.suite()))
            .unwrap_or_default()
            .into(),
        peer_certificates: Arc::new(certificates.iter().map(|der| der.to_vec()).collect()),
    }
}
