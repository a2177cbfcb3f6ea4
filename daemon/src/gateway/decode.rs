//! Encoded replies, decoded in pieces and within bounds. The gateway asks for none; some servers compress all the same.

use flate2::write::{GzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use std::io::Write;

/// Bytes of input at a time.
const STEP: usize = 1 << 10;

/// What has been decoded and not taken yet; a bomb is noticed while it grows.
#[derive(Default)]
pub struct Decoded {
    bytes: Vec<u8>,
    room: usize,
}

impl Decoded {
    fn take(&mut self) -> Vec<u8> {
        self.room = self.room.saturating_sub(self.bytes.len());
        std::mem::take(&mut self.bytes)
    }
}

impl Write for Decoded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > self.room {
            return Err(std::io::Error::other(
                "decoded reply over bounds.reply_bytes",
            ));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A decoder for one reply.
pub enum Decoder {
    /// `gzip`
    Gzip(GzDecoder<Decoded>),
    /// `deflate` (zlib, RFC 9110 §8.4.1.2)
    Deflate(ZlibDecoder<Decoded>),
    /// `br`
    Brotli(Box<brotli_decompressor::DecompressorWriter<Decoded>>),
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
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip(GzDecoder::new(Decoded::default())))),
            "deflate" => Ok(Some(Self::Deflate(ZlibDecoder::new(Decoded::default())))),
            "br" => Ok(Some(Self::Brotli(Box::new(
                brotli_decompressor::DecompressorWriter::new(Decoded::default(), 4096),
            )))),
            other => Err(other.chars().take(32).collect()),
        }
    }

    /// Decodes a piece onto `out`; more than `room` bytes are an error.
    pub fn push(&mut self, input: &[u8], room: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let refused = |error| format!("cannot decode: {error}");
        self.sink().room = room;
        for step in input.chunks(STEP) {
            match self {
                Self::Gzip(d) => d.write_all(step),
                Self::Deflate(d) => d.write_all(step),
                Self::Brotli(d) => d.write_all(step),
            }
            .map_err(refused)?;
            out.append(&mut self.sink().take());
        }
        match self {
            Self::Gzip(d) => d.flush(),
            Self::Deflate(d) => d.flush(),
            Self::Brotli(d) => d.flush(),
        }
        .map_err(refused)?;
        out.append(&mut self.sink().take());
        Ok(())
    }

    fn sink(&mut self) -> &mut Decoded {
        match self {
            Self::Gzip(d) => d.get_mut(),
            Self::Deflate(d) => d.get_mut(),
            Self::Brotli(d) => d.get_mut(),
        }
    }

    /// Checks the end (a truncated stream is an error) and adds what is left.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), String> {
        let rest = match self {
            Self::Gzip(d) => d.finish().map(|mut rest| rest.take()),
            Self::Deflate(d) => d.finish().map(|mut rest| rest.take()),
            Self::Brotli(mut d) => d.close().map(|()| d.get_mut().take()),
        };
        out.extend_from_slice(&rest.map_err(|error| format!("cannot decode: {error}"))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(coded: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        let mut decoder = Decoder::of(&headers).unwrap().unwrap();
        let mut out = Vec::new();
        for part in coded.chunks(piece) {
            let left = room - out.len();
            decoder.push(part, left, &mut out)?;
        }
        decoder.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn a_reply_decodes_in_any_pieces_up_to_its_bound_and_no_further() {
        let text = "some text ".repeat(10_000).into_bytes();
        let coded = gzip(&text);
        for piece in [1, 7, 1024, coded.len()] {
            assert_eq!(decode(&coded, piece, text.len()).as_ref(), Ok(&text));
            assert!(decode(&coded, piece, text.len() - 1).is_err());
            assert!(decode(&coded[..coded.len() - 9], piece, text.len()).is_err());
        }
    }
}
