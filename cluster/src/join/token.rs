//! One-time tokens.

use crate::{identity::random, tls::sha256};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::CertificateDer;
use std::fmt;

const PREFIX: &str = "tgj_";
const CA_BYTES: usize = 32;
const SECRET_BYTES: usize = 16;

/// A one-time token as it is handed over: `tgj_`, then the CA's fingerprint and 128 random bits in URL-safe base64.
/// Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the CA's certificate.
    pub(super) ca_sha256: [u8; CA_BYTES],
    pub(super) secret: [u8; SECRET_BYTES],
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: `tgj_` and 64 characters of URL-safe base64")]
pub struct NotAToken;

impl Token {
    /// Makes one. Whoever makes it has the ledger take its [`Token::hash`] (`Operate::Token`).
    pub fn new(ca: &CertificateDer<'_>) -> Self {
        Self {
            ca_sha256: sha256(ca),
            secret: random(),
        }
    }

    /// Reads one; white space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, NotAToken> {
        let text = text.trim().strip_prefix(PREFIX).ok_or(NotAToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotAToken)?;
        let (ca_sha256, secret) = bytes.split_first_chunk().ok_or(NotAToken)?;
        Ok(Self {
            ca_sha256: *ca_sha256,
            secret: secret.try_into().map_err(|_| NotAToken)?,
        })
    }

    /// As it is handed over. Secret.
    pub fn reveal(&self) -> String {
        let bytes = [&self.ca_sha256[..], &self.secret[..]].concat();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What the ledger knows of it: SHA-256 of its text.
    pub fn hash(&self) -> [u8; 32] {
        sha256(self.reveal().as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_handed_over_and_is_not_shown() {
        let ca = CertificateDer::from(b"certificate".to_vec());
        let token = Token::new(&ca);
        let text = token.reveal();
        assert_eq!(text.len(), PREFIX.len() + 64);
        let read = Token::parse(&format!("\n {text} \n")).unwrap();
        assert_eq!((&read, read.hash()), (&token, token.hash()));
        assert_ne!(Token::new(&ca).hash(), token.hash());
        assert_eq!(format!("{token:?}"), "Token(…)");
        for wrong in [
            "",
            "tgj_",
            "tgj_!",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}AAAA"),
        ] {
            assert_eq!(Token::parse(wrong), Err(NotAToken), "{wrong}");
        }
    }
}
