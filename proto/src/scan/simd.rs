//! Strings 64 bytes at a time with AVX2, which the machine is asked for at run time; the first 16 bytes with SSE2,
//! which every x86-64 has. Elsewhere, and without AVX2, [`Plain`] does it.
//!
//! The project's only `unsafe` code. Every load is within the slice by the line above it; `plain.rs` is the twin.
#![allow(unsafe_code)]

use super::plain::{Kernel, Plain, StringEnd};

/// The fastest kernel of the machine.
#[derive(Debug)]
pub(super) struct Simd;

/// What this machine's strings are searched with: `avx2`, `sse2` (x86-64 without AVX2) or `portable`.
pub fn kernel() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    return if is_x86_feature_detected!("avx2") {
        "avx2"
    } else {
        "sse2"
    };
    #[cfg(not(target_arch = "x86_64"))]
    "portable"
}

#[cfg(not(target_arch = "x86_64"))]
impl Kernel for Simd {
    #[inline(always)]
    fn string(bytes: &[u8], from: usize) -> Option<StringEnd> {
        Plain::string(bytes, from)
    }

    fn piece(bytes: &[u8], from: usize) -> Result<usize, usize> {
        Plain::piece(bytes, from)
    }

    #[inline(always)]
    fn space(bytes: &[u8], from: usize) -> usize {
        Plain::space(bytes, from)
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel for Simd {
    #[inline(always)]
    fn string(bytes: &[u8], from: usize) -> Option<StringEnd> {
        match x86::short(bytes, from) {
            Some(end) => Some(end),
            None => x86::long(bytes, from).ok(),
        }
    }

    #[inline(always)]
    fn piece(bytes: &[u8], from: usize) -> Result<usize, usize> {
        match x86::short(bytes, from) {
            Some(end) => Ok(end.at()),
            None => match x86::long(bytes, from) {
                Ok(end) => Ok(end.at()),
                Err(upto) => Plain::piece(bytes, upto),
            },
        }
    }

    #[inline(always)]
    fn space(bytes: &[u8], from: usize) -> usize {
        x86::space(bytes, from)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{super::text, Kernel, Plain, StringEnd};
    use std::arch::x86_64::*;

    /// The end of a string of less than 16 bytes without escapes; `None` says nothing.
    #[inline(always)]
    pub(super) fn short(bytes: &[u8], from: usize) -> Option<StringEnd> {
        if bytes.len().checked_sub(16)? < from {
            return None;
        }
        // SAFETY: `from` is at most `len - 16`; SSE2 is a part of x86-64.
        let (quote, other, wide) = unsafe { marks(bytes.as_ptr().add(from).cast()) };
        // The bits up to the first quote: all of them where there is none.
        let upto = quote ^ quote.wrapping_sub(1);
        if quote == 0 || other & upto != 0 {
            return None;
        }
        let at = from + quote.trailing_zeros() as usize;
        // Bytes behind the string may count as wide: what is ASCII is validated for nothing then.
        Some(StringEnd::new(at, wide != 0, false))
    }

    /// Of 16 bytes: the quotes, the backslashes and control characters, and what is not ASCII, a bit for each byte.
    ///
    /// # Safety
    /// 16 bytes can be read there.
    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn marks(at: *const __m128i) -> (u32, u32, u32) {
        // SAFETY: the caller's promise.
        let chunk = unsafe { _mm_loadu_si128(at) };
        let is = |byte: u8| _mm_cmpeq_epi8(chunk, _mm_set1_epi8(byte as i8));
        let control = _mm_cmpeq_epi8(_mm_min_epu8(chunk, _mm_set1_epi8(0x1f)), chunk);
        let mask = |vector| _mm_movemask_epi8(vector) as u32;
        (
            mask(is(b'"')),
            mask(_mm_or_si128(is(b'\\'), control)),
            mask(chunk),
        )
    }

    /// Of 16 bytes: what is no white space, a bit for each byte.
    ///
    /// # Safety
    /// 16 bytes can be read there.
    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn no_space(at: *const __m128i) -> u32 {
        // SAFETY: the caller's promise.
        let chunk = unsafe { _mm_loadu_si128(at) };
        let is = |byte: u8| _mm_cmpeq_epi8(chunk, _mm_set1_epi8(byte as i8));
        let blank = _mm_or_si128(
            _mm_or_si128(is(b' '), is(b'\n')),
            _mm_or_si128(is(b'\r'), is(b'\t')),
        );
        !(_mm_movemask_epi8(blank) as u32) & 0xffff
    }

    /// The first byte at or after `from` that is no white space.
    #[inline(always)]
    pub(super) fn space(bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        // One space behind a colon or comma is the usual.
        if let Some(b' ') = bytes.get(at) {
            at += 1;
        }
        match bytes.get(at) {
            Some(b' ' | b'\n' | b'\r' | b'\t') => spaces(bytes, at),
            _ => at,
        }
    }

    #[inline(never)]
    fn spaces(bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        loop {
            if at + 16 > bytes.len() {
                return Plain::space(bytes, at);
            }
            // SAFETY: `at + 16` is at most the length; SSE2 is a part of x86-64.
            let other = unsafe { no_space(bytes.as_ptr().add(at).cast()) };
            if other != 0 {
                return at + other.trailing_zeros() as usize;
            }
            at += 16;
        }
    }

    /// The end of any string; `Err` is how far it was read without a fault and without an open escape, not always as far
    /// as it could be.
    #[inline(never)]
    pub(super) fn long(bytes: &[u8], from: usize) -> Result<StringEnd, usize> {
        if is_x86_feature_detected!("avx2") && bytes.len() >= BLOCK && from <= bytes.len() {
            // SAFETY: the machine has AVX2, the bytes are a block or more, and `from` is not behind them.
            return unsafe { avx2(bytes, from) };
        }
        Plain::string(bytes, from).ok_or(from)
    }

    /// Bytes that are looked at together.
    const BLOCK: usize = 64;

    /// Bytes of an escaped surrogate pair.
    const PAIR: usize = 12;

    /// A block: two vectors.
    #[derive(Clone, Copy)]
    struct Block(__m256i, __m256i);

    impl Block {
        /// # Safety
        /// `at + 64` is at most the length of `bytes`.
        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn load(bytes: &[u8], at: usize) -> Self {
            let start = bytes.as_ptr().wrapping_add(at).cast::<__m256i>();
            // SAFETY: the caller's promise.
            unsafe {
                Self(
                    _mm256_loadu_si256(start),
                    _mm256_loadu_si256(start.wrapping_add(1)),
                )
            }
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn mask(self) -> u64 {
            let half = |v| u64::from(_mm256_movemask_epi8(v) as u32);
            half(self.0) | half(self.1) << 32
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn equal(self, byte: u8) -> Self {
            let byte = _mm256_set1_epi8(byte as i8);
            Self(
                _mm256_cmpeq_epi8(self.0, byte),
                _mm256_cmpeq_epi8(self.1, byte),
            )
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn or(self, other: Self) -> Self {
            Self(
                _mm256_or_si256(self.0, other.0),
                _mm256_or_si256(self.1, other.1),
            )
        }

        /// The control characters.
        #[inline]
        #[target_feature(enable = "avx2")]
        fn control(self) -> Self {
            let last = _mm256_set1_epi8(0x1f);
            let is = |v| _mm256_cmpeq_epi8(_mm256_min_epu8(v, last), v);
            Self(is(self.0), is(self.1))
        }

        /// The bytes that may follow a backslash, `"\/bfnrtu`: a table for each half of the byte, whose common bits
        /// name the row (2x, 5x, 6x, 7x).
        #[inline]
        #[target_feature(enable = "avx2")]
        fn escapable(self) -> Self {
            let low = _mm256_broadcastsi128_si256(_mm_setr_epi8(
                0, 0, 13, 0, 8, 8, 4, 0, 0, 0, 0, 0, 2, 0, 4, 1,
            ));
            let high = _mm256_broadcastsi128_si256(_mm_setr_epi8(
                0, 0, 1, 0, 0, 2, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0,
            ));
            let is = |v| {
                let upper = _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
                let rows = _mm256_and_si256(
                    _mm256_shuffle_epi8(low, v),
                    _mm256_shuffle_epi8(high, upper),
                );
                _mm256_cmpgt_epi8(rows, _mm256_setzero_si256())
            };
            Self(is(self.0), is(self.1))
        }
    }

    /// # Safety
    /// The machine has AVX2; `bytes` are at least [`BLOCK`], and `from` is at most their length.
    #[target_feature(enable = "avx2")]
    unsafe fn avx2(bytes: &[u8], from: usize) -> Result<StringEnd, usize> {
        let last = bytes.len() - BLOCK;
        let mut at = from;
        let mut wide = Block(_mm256_setzero_si256(), _mm256_setzero_si256());
        // Without escapes nothing is carried from block to block.
        while at <= last {
            // SAFETY: `at` is at most `len - 64`.
            let block = unsafe { Block::load(bytes, at) };
            let stops = block.equal(b'"').or(block.equal(b'\\')).or(block.control());
            let any = _mm256_or_si256(stops.0, stops.1);
            if _mm256_testz_si256(any, any) == 0 {
                let stops = stops.mask();
                let stop = at + stops.trailing_zeros() as usize;
                if bytes.get(stop) != Some(&b'"') {
                    break;
                }
                let upto = stops ^ stops.wrapping_sub(1);
                let wide = wide.mask() | (block.mask() & upto) != 0;
                return Ok(StringEnd::new(stop, wide, false));
            }
            wide = wide.or(block);
            at += BLOCK;
        }
        let wide = wide.mask() != 0;
        // SAFETY: as promised to this function; `at` grew only while it was at most `len - 64`, by 64.
        unsafe { with_escapes(bytes, at, wide) }
    }

    const EVEN: u64 = 0x5555_5555_5555_5555;

    /// Goes on at `at`, where no escape is open.
    ///
    /// # Safety
    /// As for [`avx2`].
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn with_escapes(
        bytes: &[u8],
        mut at: usize,
        mut wide: bool,
    ) -> Result<StringEnd, usize> {
        let last = bytes.len() - BLOCK;
        let mut escaped_string = false;
        // 1 when the last byte of the block before is a backslash that is not escaped itself.
        let mut carried = 0u64;
        // The `u` of the second half of a surrogate pair, whose first half was met.
        let mut paired = 0;
        loop {
            // Near the end of the bytes the last 64 are loaded, and those before `at` shifted out.
            let base = at.min(last);
            let passed = (at - base) as u32;
            // SAFETY: `base` is at most `len - 64`.
            let block = unsafe { Block::load(bytes, base) };
            let mask = |block: Block| block.mask().checked_shr(passed).unwrap_or(0);
            let mut quote = mask(block.equal(b'"'));
            let backslash = mask(block.equal(b'\\'));
            let control = mask(block.control());
            let mut escaped = 0;
            let open = carried;
            if backslash | carried != 0 {
                (escaped, carried) = escaped_bytes(backslash, carried);
                quote &= !escaped;
            }
            let stops = quote | control;
            // The bits up to the first stop: all of them where there is none.
            let upto = stops ^ stops.wrapping_sub(1);
            wide |= mask(block) & upto != 0;
            escaped_string |= backslash & upto != 0;
            escaped &= upto;
            if escaped != 0 {
                if escaped & !mask(block.escapable()) != 0 {
                    return Err(between_escapes(at, open, paired));
                }
                let mut unicode = escaped & mask(block.equal(b'u'));
                while unicode != 0 {
                    let u = at + unicode.trailing_zeros() as usize;
                    unicode &= unicode - 1;
                    if u == paired {
                        continue;
                    }
                    match text::escape(bytes, u - 1) {
                        Some((_, PAIR)) => paired = u + PAIR / 2,
                        Some(_) => {}
                        None => return Err(between_escapes(at, open, paired)),
                    }
                }
            }
            if stops != 0 {
                let stop = at + stops.trailing_zeros() as usize;
                let end = StringEnd::new(stop, wide, escaped_string);
                return match bytes.get(stop) {
                    Some(b'"') => Ok(end),
                    _ => Err(between_escapes(at, open, paired)),
                };
            }
            at += BLOCK;
            if at >= bytes.len() {
                return Err(bytes.len() - carried as usize);
            }
        }
    }

    /// Where reading may begin again for the block at `at`: before the escape or pair that reaches into it.
    #[cold]
    fn between_escapes(at: usize, open: u64, paired: usize) -> usize {
        if paired >= at {
            // The backslash of the pair's first half; `paired` is the `u` of its second.
            return paired.saturating_sub(PAIR / 2 + 1);
        }
        at - open as usize
    }

    /// Which bytes of a block a backslash escapes, and whether one is open at its end. `carried` is 1 when the first
    /// byte is escaped from before.
    ///
    /// What follows a run of backslashes of odd length is escaped. Adding the starts of the runs at odd places carries
    /// through them, so that the parity of a run's end tells that of its length (Langdale and Lemire, "Parsing gigabytes
    /// of JSON per second", VLDB Journal 28, 2019, section 3.1.1).
    #[inline(always)]
    fn escaped_bytes(backslash: u64, carried: u64) -> (u64, u64) {
        let backslash = backslash & !carried;
        let follows = backslash << 1 | carried;
        let odd_starts = backslash & !EVEN & !follows;
        let (from_even, over) = odd_starts.overflowing_add(backslash);
        let inverted = from_even << 1;
        ((EVEN ^ inverted) & follows, u64::from(over))
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain::fault;
    use super::*;
    use proptest::prelude::*;

    /// Both kernels see the same at every place of these bytes, which lie alone in an allocation of their length.
    fn agree(bytes: &[u8]) {
        let alone: Box<[u8]> = bytes.into();
        (0..=alone.len()).for_each(|from| agree_from(&alone, from));
    }

    fn agree_from(alone: &[u8], from: usize) {
        let (fast, plain) = (Simd::string(alone, from), Plain::string(alone, from));
        // Of a short string more may be called wide than is.
        let wide = fast.is_some_and(|end| end.wide());
        let plain = plain.map(|end| StringEnd::new(end.at(), end.wide() || wide, end.escaped()));
        assert_eq!(fast, plain, "{:?} from {from}", alone.escape_ascii());
        assert_eq!(Simd::piece(alone, from), Plain::piece(alone, from));
        assert_eq!(Simd::space(alone, from), Plain::space(alone, from));
        if fast.is_none() {
            assert!(fault(alone, from).1 <= alone.len());
        }
    }

    /// What a string may hold or end with, valid or not.
    const PIECES: &[&[u8]] = &[
        b"\"",
        b"\\",
        b"\\\\",
        b"\\\"",
        b"\\n",
        b"\\u0041",
        b"\\ud83d\\ude00",
        b"\\ud83d",
        b"\\ude00",
        b"\\u00",
        b"\\x",
        b"u",
        b"\x1f",
        b"\0",
        b"\x7f",
        b"\xff",
        "世".as_bytes(),
        b" \n\t\r",
        b"plain text of some length, more than a vector",
    ];

    #[test]
    fn the_kernels_agree_on_every_piece_at_every_place_of_every_length() {
        for piece in PIECES {
            for before in 0..70 {
                for after in [0, 1, 15, 16, 17, 63, 64, 65, 130] {
                    let mut bytes = vec![b'a'; before];
                    bytes.extend_from_slice(piece);
                    bytes.resize(before + piece.len() + after, b'b');
                    bytes.push(b'"');
                    for end in [bytes.len() - 1, bytes.len()] {
                        let whole = &bytes[..end];
                        agree_from(whole, 0);
                        agree_from(whole, 1);
                    }
                }
            }
        }
    }

    #[test]
    fn the_kernels_agree_on_every_tail_length() {
        for length in 0..200 {
            for filler in [b'a', b' ', b'\\', 0x80, b'\n'] {
                let mut bytes = vec![filler; length];
                agree(&bytes);
                bytes.push(b'"');
                agree(&bytes);
            }
        }
    }

    #[test]
    fn runs_of_backslashes_end_where_their_parity_says() {
        for before in 0..130 {
            for run in 0..70 {
                let mut bytes = vec![b'a'; before];
                bytes.resize(before + run, b'\\');
                bytes.extend_from_slice(b"\"\"");
                let end = before + run + run % 2;
                let found = Simd::string(&bytes, 0).map(|end| end.at());
                assert_eq!(found, Some(end), "{run} after {before}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_kernels_agree_on_soups(picks in proptest::collection::vec(0..PIECES.len(), 0..40)) {
            let bytes: Vec<u8> = picks.iter().flat_map(|&n| PIECES[n]).copied().collect();
            agree(&bytes);
        }
    }
}
