//! Encoded replies, decoded in pieces and within bounds. The gateway asks for none; some servers compress all the same.

use flate2::write::{GzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use std::io::Write;

/// Bytes of input at a time, so that a bomb is noticed before it has grown.
const STEP: usize = 1 << 10;

/// A decoder for one reply.
pub enum Decoder {
    /// `gzip`
    Gzip(GzDecoder<Vec<u8>>),
    /// `deflate` (zlib, RFC 9110 §8.4.1.2)
    Deflate(ZlibDecoder<Vec<u8>>),
    /// `br`
    Brotli(Box<brotli_decompressor::DecompressorWriter<Vec<u8>>>),
}

impl Decoder {
    /// The decoder that these headers call for; an encoding that is not known comes back as the error.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let name = value.to_str().unwrap_or("?").trim().to_ascii_lowercase();
        if values.next().is_some() {
            return Err("several encodings".into());
        }
        match name.as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip(GzDecoder::new(Vec::new())))),
            "deflate" => Ok(Some(Self::Deflate(ZlibDecoder::new(Vec::new())))),
            "br" => Ok(Some(Self::Brotli(Box::new(
                brotli_decompressor::DecompressorWriter::new(Vec::new(), 4096),
            )))),
            other => Err(other.chars().take(32).collect()),
        }
    }

    /// Decodes a piece onto `out`; at most `room` bytes (and one step's worth) are added.
    pub fn push(&mut self, input: &[u8], room: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let mut added = 0;
        for step in input.chunks(STEP) {
            let done = match self {
                Self::Gzip(d) => d.write_all(step).map(|()| std::mem::take(d.get_mut())),
                Self::Deflate(d) => d.write_all(step).map(|()| std::mem::take(d.get_mut())),
                Self::Brotli(d) => d.write_all(step).map(|()| std::mem::take(d.get_mut())),
            };
            let done = done.map_err(|error| format!("cannot decode: {error}"))?;
            added += done.len();
            out.extend_from_slice(&done);
            if added > room {
                return Err("decoded reply over bounds.reply_bytes".into());
            }
        }
        let flushed = match self {
            Self::Gzip(d) => d.flush().map(|()| std::mem::take(d.get_mut())),
            Self::Deflate(d) => d.flush().map(|()| std::mem::take(d.get_mut())),
            Self::Brotli(d) => d.flush().map(|()| std::mem::take(d.get_mut())),
        };
        out.extend_from_slice(&flushed.map_err(|error| format!("cannot decode: {error}"))?);
        Ok(())
    }

    /// Checks the end (a truncated stream is an error) and adds what is left.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), String> {
        let rest = match self {
            Self::Gzip(d) => d.finish(),
            Self::Deflate(d) => d.finish(),
            Self::Brotli(mut d) => d.close().map(|()| std::mem::take(d.get_mut())),
        };
        out.extend_from_slice(&rest.map_err(|error| format!("cannot decode: {error}"))?);
        Ok(())
    }
}
