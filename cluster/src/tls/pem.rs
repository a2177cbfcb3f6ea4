//! Texts and dates of certificates.

use base64::{Engine, engine::general_purpose::STANDARD};
use proto::time::parse_rfc3339;
use rustls::pki_types::CertificateDer;
use std::fmt::Write;

/// A certificate as it is written to a file.
pub fn cert_pem(cert: &CertificateDer<'_>) -> String {
    write("CERTIFICATE", cert)
}

pub(super) fn write(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    let _ = writeln!(pem, "-----END {label}-----");
    pem
}

/// The end of a certificate's validity, milliseconds since 1970.
pub(super) fn not_after_ms(cert: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(cert)?;
    let (_, mut fields, _) = element(certificate)?;
    // version, serial number, signature, issuer; then validity.
    for _ in 0..4 {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        // UTCTime; a CA of 30 years made before 2020 does not exist.
        0x17 => format!("20{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let part = |at: std::ops::Range<usize>| text.get(at);
    let rfc3339 = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(8..10)?,
        part(10..12)?,
        part(12..14)?
    );
    parse_rfc3339(&rfc3339).ok()
}

/// Tag, content and what comes after one DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if digits.len() > 4 {
                return None;
            }
            let number = digits.iter().fold(0, |n, d| n << 8 | usize::from(*d));
            (number, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}
