//! Grants: bearer tokens of which only the SHA-256 is kept.

use std::fmt;
use subtle::ConstantTimeEq;

/// Every token starts with this, so that secret scanners can find one that leaked.
pub const TOKEN_PREFIX: &str = "tg_";
/// Random bytes behind a token.
pub const TOKEN_BYTES: usize = 32;
/// Length of a whole token: the prefix and 43 characters of unpadded base64url.
pub const TOKEN_CHARS: usize = TOKEN_PREFIX.len() + 43;

/// The SHA-256 of a whole token, prefix included. Comparison takes the same time wherever two hashes differ.
#[derive(Clone, Copy, Eq)]
pub struct TokenHash(pub [u8; 32]);

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        // In words: byte by byte takes eight times as long. Every word is looked at, whatever the first ones say.
        let (a, b) = (self.0.as_chunks::<8>().0, other.0.as_chunks::<8>().0);
        let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
        let differing = a
            .iter()
            .zip(b)
            .fold(0, |all, (a, b)| all | (word(a) ^ word(b)));
        differing.ct_eq(&0).into()
    }
}
impl std::hash::Hash for TokenHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash(sha256:{:02x}{:02x}…)", self.0[0], self.0[1])
    }
}
impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl TokenHash {
    /// Parses `sha256:` and 64 hexadecimal digits, as `Display` writes it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let want = "expected `sha256:` and 64 hexadecimal digits; `tollgate grant new` prints one";
        let hex = text.strip_prefix("sha256:").ok_or(want)?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(want.into());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map_err(|_| want)?;
        }
        Ok(Self(bytes))
    }
}

/// Encodes 32 random bytes as a token.
pub fn token(random: &[u8; TOKEN_BYTES]) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random))
}

/// Whether this has the shape of a token (it says nothing about whether anybody holds it).
pub fn is_token_shaped(text: &[u8]) -> bool {
    text.len() == TOKEN_CHARS
        && text.starts_with(TOKEN_PREFIX.as_bytes())
        && text[TOKEN_PREFIX.len()..]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_documented_shape() {
        let token = token(&[0xfb; 32]);
        assert!(token.starts_with("tg_"));
        assert!(is_token_shaped(token.as_bytes()));
        assert!(!is_token_shaped(b"tg_short"));
    }

    #[test]
    fn a_hash_is_parsed_as_it_is_printed() {
        let hash = TokenHash([7; 32]);
        assert_eq!(TokenHash::parse(&hash.to_string()).unwrap(), hash);
        assert!(TokenHash::parse("sha256:zz").is_err());
        assert!(TokenHash::parse(&"a".repeat(64)).is_err());
    }
}
