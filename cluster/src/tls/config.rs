//! TLS 1.3 for QUIC, in three kinds: heard by others, connecting to a voter, and joining.

use super::{Credentials, Error, sha256};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};
use std::sync::Arc;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// Between nodes, both certified.
    Cluster,
    /// To be let in: the one who connects has no certificate yet.
    Join,
}

impl Alpn {
    const ALL: [Self; 2] = [Alpn::Cluster, Alpn::Join];

    const fn bytes(self) -> &'static [u8] {
        match self {
            Alpn::Cluster => b"tollgate/1",
            Alpn::Join => b"tollgate-join/1",
        }
    }

    /// Which one was agreed on.
    pub(crate) fn of(connection: &quinn::Connection) -> Option<Self> {
        let data = connection.handshake_data()?;
        let data = data
            .downcast::<quinn::crypto::rustls::HandshakeData>()
            .ok()?;
        let agreed = data.protocol?;
        Self::ALL.into_iter().find(|alpn| alpn.bytes() == agreed)
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(ca: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(Arc::new(roots))
}

fn tls(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

/// For the socket on which a node is heard. Who comes without a certificate gets no further than [`Alpn::Join`]: the
/// transport sees to that, because TLS offers both before it knows which one is wanted.
pub(crate) fn server(credentials: &Credentials) -> Result<QuicServerConfig, Error> {
    let roots = roots(&credentials.ca)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(tls)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![credentials.cert.clone(), credentials.ca.clone()],
            PrivateKeyDer::Pkcs8(credentials.key.clone_key()),
        )?;
    config.alpn_protocols = Alpn::ALL.map(|alpn| alpn.bytes().to_vec()).into();
    // Every connection shows its certificate anew.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(tls)
}

/// For connections to voters: the name asked for ([`super::Who::name`]) must be in the certificate.
pub(crate) fn client(credentials: &Credentials) -> Result<QuicClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(&credentials.ca)?)
        .with_client_auth_cert(
            vec![credentials.cert.clone()],
            PrivateKeyDer::Pkcs8(credentials.key.clone_key()),
        )?;
    config.alpn_protocols = vec![Alpn::Cluster.bytes().to_vec()];
    config.resumption = Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(tls)
}

/// For a node that wants in: it believes whoever shows a certificate under the CA that has this fingerprint.
pub(crate) fn joining(ca_sha256: [u8; 32]) -> Result<QuicClientConfig, Error> {
    let verifier = Pinned {
        ca_sha256,
        provider: provider(),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![Alpn::Join.bytes().to_vec()];
    config.resumption = Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(tls)
}

/// Knows the CA by its SHA-256 alone. Any node of the cluster will do: the name is not looked at.
#[derive(Debug)]
struct Pinned {
    ca_sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|cert| sha256(cert) == self.ca_sha256)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            &[],
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
