//! Who may ask: no browser, and over TCP only who has the token or a client certificate.

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, StatusCode, header};
use proto::grant::TokenHash;
use std::sync::Arc;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// How it proves that it may ask.
    pub(super) proof: Proof,
    /// What audit lines and resources call it: `uid:0`, `token`, `certificate:` and 16 digits of its SHA-256.
    pub(super) name: Arc<str>,
}

impl Caller {
    /// A process of this machine, known by its user.
    pub(super) fn local(uid: Option<u32>) -> Self {
        let name = uid.map_or_else(|| "local".to_owned(), |uid| format!("uid:{uid}"));
        Self {
            proof: Proof::Connection,
            name: name.into(),
        }
    }

    /// Somebody over TCP, known by a certificate that was verified, or else by the token that every request must carry.
    pub(super) fn remote(proof: Proof, certificate: Option<&[u8]>) -> Self {
        let name = match certificate {
            Some(der) => {
                let digits = hash(der).to_string();
                let digits = digits.trim_start_matches("sha256:");
                format!("certificate:{}", digits.get(..16).unwrap_or_default())
            }
            None => "token".to_owned(),
        };
        Self {
            proof,
            name: name.into(),
        }
    }
}

/// How the caller of a connection proves who it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    /// It could open the socket, or its certificate was verified in the handshake.
    Connection,
    /// Every request carries the token with this hash.
    Token(TokenHash),
}

/// Turns a request away with a status and a sentence.
pub(super) fn admit(headers: &HeaderMap, proof: Proof) -> Result<(), (StatusCode, &'static str)> {
    // Browsers send at least one of these with every request that a page can cause; no admin client sends any.
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Err((StatusCode::FORBIDDEN, "not for browsers"));
    }
    let Proof::Token(expected) = proof else {
        return Ok(());
    };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let token = match (values.next(), values.next()) {
        (Some(value), None) => bearer(value.as_bytes()),
        _ => None,
    };
    // Comparing hashes takes the same time wherever they differ.
    match token.map(|token| hash(token) == expected) {
        Some(true) => Ok(()),
        _ => Err((StatusCode::UNAUTHORIZED, "an admin token is needed")),
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn hash(token: &[u8]) -> TokenHash {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    TokenHash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn browsers_are_refused_and_tokens_are_asked_for_where_the_connection_proves_nothing() {
        let token = Proof::Token(hash(b"tg_right"));
        let right = ("authorization", "Bearer tg_right");
        let wrong = ("authorization", "Bearer tg_wrong");
        for (pairs, proof, expected) in [
            (&[][..], Proof::Connection, None),
            (&[("origin", "null")], Proof::Connection, Some(403)),
            (&[("sec-fetch-site", "none")], Proof::Connection, Some(403)),
            (&[right], token, None),
            (&[("authorization", "bearer tg_right")], token, None),
            (&[right, ("origin", "http://localhost")], token, Some(403)),
            (&[], token, Some(401)),
            (&[wrong], token, Some(401)),
            (&[right, wrong], token, Some(401)),
            (&[("authorization", "Basic tg_right")], token, Some(401)),
            (&[("authorization", "tg")], token, Some(401)),
        ] {
            let status = admit(&headers(pairs), proof).err().map(|(s, _)| s.as_u16());
            assert_eq!(status, expected, "{pairs:?} {proof:?}");
        }
    }
}
