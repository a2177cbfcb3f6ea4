//! SHELL. Who a node is to its peers: a private CA, node certificates, and TLS 1.3 with both sides authenticated.

use proto::command::{NodeId, Role};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;

/// What one node shows to its peers, and whom it believes.
pub struct Credentials {
    /// The cluster.
    pub cluster: u128,
    /// This node.
    pub node: NodeId,
    /// What the certificate says that it is; membership has the last word.
    pub role: Role,
    /// The cluster's CA, the only one that is believed.
    pub ca: CertificateDer<'static>,
    /// This node's certificate, signed by the CA.
    pub cert: CertificateDer<'static>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            cluster: self.cluster,
            node: self.node,
            role: self.role,
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("cluster", &format_args!("{:032x}", self.cluster))
            .field("node", &self.node)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// The cluster's private CA, with its key: where `init` ran, and nowhere else.
pub struct Authority {
    _private: (),
}

/// Why a certificate was not made or not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// It is for another cluster, node or role.
    #[error("the certificate is for {found}, not for {wanted}")]
    Other {
        /// What it is for.
        found: String,
        /// What it should be for.
        wanted: String,
    },
    /// The library says no.
    #[error("{0}")]
    Library(String),
}

impl Authority {
    /// A new CA for a new cluster.
    pub fn new(_cluster: u128, _unix_ms: u64) -> Result<Self, Error> {
        todo!()
    }
    /// From its two files.
    pub fn from_pem(_cluster: u128, _cert: &str, _key: &str) -> Result<Self, Error> {
        todo!()
    }
    /// The certificate, which every node knows.
    pub fn cert(&self) -> &CertificateDer<'static> {
        todo!()
    }
    /// The key as it is written to its file (0600).
    pub fn key_pem(&self) -> String {
        todo!()
    }
    /// Makes a key and a certificate for a node.
    pub fn issue(&self, _node: NodeId, _role: Role, _unix_ms: u64) -> Result<Credentials, Error> {
        todo!()
    }
}

impl Credentials {
    /// From what a node keeps in its data directory. Which cluster, node and role it is stands in the certificate.
    pub fn from_pem(_ca: &str, _cert: &str, _key: &str) -> Result<Self, Error> {
        todo!()
    }
    /// The key as it is written to its file (0600).
    pub fn key_pem(&self) -> String {
        todo!()
    }
    /// When the certificate ends, milliseconds since 1970.
    pub fn expires_ms(&self) -> u64 {
        todo!()
    }
}

/// A certificate as it is written to a file.
pub fn cert_pem(_cert: &CertificateDer<'_>) -> String {
    todo!()
}
