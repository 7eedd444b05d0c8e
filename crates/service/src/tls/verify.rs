//! Certificate verifiers that follow a reload, and the one that believes anybody.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::identity::Shared;

/// A verifier's part on handshake signatures, the same for all: by what the provider can verify.
macro_rules! signatures_by {
    ($self:ident => $provider:expr) => {
        fn verify_tls12_signature(
            &$self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &$provider.signature_verification_algorithms;
            verify_tls12_signature(message, cert, dss, algorithms)
        }

        fn verify_tls13_signature(
            &$self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &$provider.signature_verification_algorithms;
            verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&$self) -> Vec<SignatureScheme> {
            $provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Clients verified by the CA of the identity in force.
#[derive(Debug)]
pub(super) struct Clients(pub(super) Arc<Shared>);

impl ClientCertVerifier for Clients {
    /// None: the peer has one certificate, and the list could not follow a reload.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let current = self.0.current();
        match &current.trust {
            Some(trust) => trust
                .clients
                .verify_client_cert(end_entity, intermediates, now),
            None => Err(Error::General("no authority to verify clients by".into())),
        }
    }

    signatures_by!(self => self.0.provider());
}

/// Servers verified by the CA of the identity in force, under the name asked for.
#[derive(Debug)]
pub(super) struct Servers(pub(super) Arc<Shared>);

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let current = self.0.current();
        match &current.trust {
            Some(trust) => {
                let servers = &trust.servers;
                servers.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
            }
            None => Err(Error::General("no authority to verify servers by".into())),
        }
    }

    signatures_by!(self => self.0.provider());
}

/// Any certificate, whoever signed it (RFC 7435); but whoever shows it must have its key, or the handshake means nothing.
#[derive(Debug)]
pub(super) struct AnyServer(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_by!(self => self.0);
}
