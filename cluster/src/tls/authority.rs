//! The private CA.

use super::{Credentials, Error, Who, pem};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::{fmt, time::Duration};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a CA lasts.
const CA_LIFETIME: Duration = DAY.saturating_mul(30 * 365);
/// How long a node's certificate lasts.
const NODE_LIFETIME: Duration = DAY.saturating_mul(10 * 365);
/// Bytes of a public key on the curve P-256, uncompressed.
const POINT_BYTES: usize = 65;

/// The cluster's private CA, with its key: where `init` ran, and nowhere else.
pub struct Authority {
    cluster: u128,
    cert: CertificateDer<'static>,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A node's public key as it is signed: an uncompressed point of P-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey([u8; POINT_BYTES]);

impl PublicKey {
    /// From a stranger's bytes. Whether it is on the curve shows when a signature is verified with it.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let point = <[u8; POINT_BYTES]>::try_from(bytes).ok()?;
        (point[0] == 4).then_some(Self(point))
    }
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &format_args!("{:032x}", self.cluster))
            .finish_non_exhaustive()
    }
}

/// What is the same whenever this cluster's CA is spoken of.
fn ca_params(cluster: u128) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&format!("tollgate cluster {cluster:032x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// From long ago: a clock that is behind must not shut a node out.
fn last(params: &mut CertificateParams, unix_ms: u64, lifetime: Duration) {
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    // A clock that is centuries ahead makes no date that cannot be written.
    let made = Duration::from_millis(unix_ms).min(DAY.saturating_mul(365 * 500));
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + made + lifetime;
}

impl Authority {
    /// A new CA for a new cluster.
    pub fn new(cluster: u128, unix_ms: u64) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = ca_params(cluster);
        last(&mut params, unix_ms, CA_LIFETIME);
        let cert = params.self_signed(&key)?.der().clone();
        Ok(Self {
            cluster,
            cert,
            key_pem: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// From its certificate and the file with its key.
    pub fn from_pem(cluster: u128, cert: &str, key: &str) -> Result<Self, Error> {
        let cert = CertificateDer::from_pem_slice(cert.as_bytes())
            .map_err(|_| Error::NotPem("certificate"))?;
        let key = KeyPair::from_pem(key).map_err(|_| Error::NotPem("private key (PKCS #8)"))?;
        let certified = webpki::EndEntityCert::try_from(&cert).map_err(|_| Error::Key)?;
        if certified.subject_public_key_info().as_ref() != key.subject_public_key_info() {
            return Err(Error::Key);
        }
        Ok(Self {
            cluster,
            cert,
            key_pem: key.serialize_pem(),
            issuer: Issuer::new(ca_params(cluster), key),
        })
    }

    /// The cluster.
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// The certificate, which every node knows.
    pub fn cert(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    /// The certificate as it is written to a file.
    pub fn cert_pem(&self) -> String {
        pem::cert_pem(&self.cert)
    }

    /// The key as it is written to its file (0600).
    pub fn key_pem(&self) -> String {
        self.key_pem.clone()
    }

    /// Makes a key and a certificate for a node: the first one of a cluster.
    pub fn issue(
        &self,
        node: proto::command::NodeId,
        role: proto::command::Role,
        unix_ms: u64,
    ) -> Result<Credentials, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let who = Who {
            cluster: self.cluster,
            node,
            role,
        };
        Ok(Credentials {
            who,
            ca: self.cert.clone(),
            cert: self.certify(who, &key, unix_ms)?,
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        })
    }

    /// Signs that a key is a node's.
    pub(crate) fn certify(
        &self,
        who: Who,
        key: &impl PublicKeyData,
        unix_ms: u64,
    ) -> Result<CertificateDer<'static>, Error> {
        let mut params = CertificateParams::new(vec![who.name()])?;
        params.distinguished_name = name(&format!("tollgate node {:016x}", who.node.0));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        last(&mut params, unix_ms, NODE_LIFETIME);
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}
