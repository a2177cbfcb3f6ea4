//! SHELL. Who a node is to its peers: a private CA, node certificates, and TLS 1.3 with both sides authenticated.
//!
//! A node's certificate has one name, `n<node>.c<cluster>.<role>.tollgate.internal` (hexadecimal, 16 and 32 digits), good
//! for both sides of a connection. Who connects to a voter demands that voter's name of this cluster, and so cannot be led
//! to another node; who is connected to reads from it which node asks. What that node may do is membership's to say.
//!
//! The CA lasts 30 years and a node 10: a node is shut out by its removal from the cluster, not by a date. Both begin long
//! before they were made, because a clock that is wrong must not end a cluster.

mod authority;
mod config;
mod pem;
#[cfg(test)]
mod tests;

pub use authority::Authority;
pub(crate) use authority::PublicKey;
pub(crate) use config::{Alpn, client, joining, server};
pub use pem::cert_pem;

use aws_lc_rs::digest::{SHA256, digest};
use proto::command::{NodeId, Role};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::fmt;

/// What one node shows to its peers, and whom it believes.
pub struct Credentials {
    /// What the certificate says.
    pub who: Who,
    /// The cluster's CA, the only one that is believed.
    pub ca: CertificateDer<'static>,
    /// This node's certificate, signed by the CA.
    pub cert: CertificateDer<'static>,
    /// Its private key, PKCS #8.
    pub key: PrivatePkcs8KeyDer<'static>,
}

/// What a certificate says of its holder; membership has the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The cluster.
    pub cluster: u128,
    /// The node.
    pub node: NodeId,
    /// What it joined as.
    pub role: Role,
}

/// Why a certificate or a key was not made or not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is none.
    #[error("not a {0} in PEM")]
    NotPem(&'static str),
    /// It is of another kind.
    #[error("the certificate is not one of a tollgate node")]
    NotANode,
    /// They do not belong together.
    #[error("the private key is not that of the certificate")]
    Key,
    /// The library's words.
    #[error("{0}")]
    Tls(String),
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Error::Tls(error.to_string())
    }
}
impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Error::Tls(error.to_string())
    }
}

impl Who {
    /// The certificate's name.
    pub fn name(&self) -> String {
        let role = match self.role {
            Role::Voter => "voter",
            Role::Client => "client",
        };
        format!(
            "n{:016x}.c{:032x}.{role}.tollgate.internal",
            self.node.0, self.cluster
        )
    }

    fn parse(name: &str) -> Option<Self> {
        let (node, rest) = name.strip_prefix('n')?.split_once(".c")?;
        let (cluster, rest) = rest.split_once('.')?;
        let who = Self {
            node: NodeId(u64::from_str_radix(node, 16).ok()?),
            cluster: u128::from_str_radix(cluster, 16).ok()?,
            role: match rest.split_once('.')?.0 {
                "voter" => Role::Voter,
                "client" => Role::Client,
                _ => return None,
            },
        };
        // One way to write it.
        (who.name() == name).then_some(who)
    }

    /// What a certificate says. Whether it may be believed is for the handshake to find out.
    pub fn of(cert: &CertificateDer<'_>) -> Result<Self, Error> {
        let cert = webpki::EndEntityCert::try_from(cert).map_err(|_| Error::NotANode)?;
        let mut names = cert.valid_dns_names();
        let who = names.next().and_then(Self::parse);
        who.filter(|_| names.next().is_none())
            .ok_or(Error::NotANode)
    }
}

impl Credentials {
    /// From what a node keeps in its data directory.
    pub fn from_pem(ca: &str, cert: &str, key: &str) -> Result<Self, Error> {
        let ca = CertificateDer::from_pem_slice(ca.as_bytes())
            .map_err(|_| Error::NotPem("certificate"))?;
        let cert = CertificateDer::from_pem_slice(cert.as_bytes())
            .map_err(|_| Error::NotPem("certificate"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| Error::NotPem("private key (PKCS #8)"))?;
        let credentials = Self {
            who: Who::of(&cert)?,
            ca,
            cert,
            key,
        };
        credentials.check()?;
        Ok(credentials)
    }

    /// That key and certificate belong together.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let key = config::provider()
            .key_provider
            .load_private_key(PrivateKeyDer::Pkcs8(self.key.clone_key()))?;
        let chain = vec![self.cert.clone()];
        (rustls::sign::CertifiedKey::new(chain, key).keys_match()).map_err(|_| Error::Key)
    }

    /// The key as it is written to its file (0600).
    pub fn key_pem(&self) -> String {
        pem::write("PRIVATE KEY", self.key.secret_pkcs8_der())
    }

    /// When the certificate ends, milliseconds since 1970; `None`: it cannot be read.
    pub fn expires_ms(&self) -> Option<u64> {
        pem::not_after_ms(&self.cert)
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            who: self.who,
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("who", &self.who.name())
            .finish_non_exhaustive()
    }
}

/// SHA-256 of a certificate, or of anything else.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
