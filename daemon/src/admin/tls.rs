//! Mutual TLS of the admin plane's TCP listener.

use super::Tls;
use anyhow::Context as _;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_rustls::TlsAcceptor;

/// How often the files are read again.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// Makes acceptors from files that may change.
pub(super) struct Certificates {
    files: Tls,
    acceptor: TlsAcceptor,
    read: Instant,
}

impl Certificates {
    /// Reads the files. Errors name the file.
    pub(super) fn read(files: Tls) -> anyhow::Result<Self> {
        Ok(Self {
            acceptor: acceptor(&files)?,
            read: Instant::now(),
            files,
        })
    }

    /// The acceptor; files older than a minute are read again, and the old ones stay when that fails.
    pub(super) fn acceptor(&mut self) -> TlsAcceptor {
        if self.read.elapsed() >= READ_AGAIN {
            self.read = Instant::now();
            match acceptor(&self.files) {
                Ok(acceptor) => self.acceptor = acceptor,
                Err(error) => tracing::warn!("admin: {error:#}; the certificates read before stay"),
            }
        }
        self.acceptor.clone()
    }
}

fn acceptor(files: &Tls) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(&files.client_ca)? {
        authorities
            .add(certificate)
            .with_context(|| format!("{}", files.client_ca.display()))?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone())
            .build()
            .with_context(|| format!("{}", files.client_ca.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("{}: no private key", files.key.display()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.cert)?, key)
        .with_context(|| format!("{} and {}", files.cert.display(), files.key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("{}: no certificates", path.display()))?;
    anyhow::ensure!(!read.is_empty(), "{}: no certificates", path.display());
    Ok(read)
}
