//! Numbers that mean the same to every parser, compared exactly (policies.md §2).

use std::{cmp::Ordering, fmt};

/// Integers up to this magnitude are exact in every parser, 2^53.
const EXACT_MAX: u64 = 1 << 53;
/// Decimal digits that survive every binary64 parser.
const DIGITS_MAX: u32 = 15;
/// Digits of [`EXACT_MAX`].
const DIGITS_EXACT_MAX: u32 = 16;
/// Powers of ten between which a magnitude must lie.
const POWER_MAX: i64 = 300;

/// A decimal number: `mantissa · 10^exponent`, the mantissa at most 16 digits without trailing zeros; zero is 0 · 10^0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    mantissa: u64,
    digits: u32,
    exponent: i32,
}

/// Why a text is no number that a policy can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// Not the grammar of RFC 8259 §6.
    #[error("not a number")]
    Grammar,
    /// More than 15 significant digits and no integer up to 2^53, or a magnitude outside 1e-300 … 1e300.
    #[error("parsers disagree about this number: at most 15 significant digits, 1e-300 to 1e300")]
    Ambiguous,
}

impl Decimal {
    /// Reads a JSON number's text.
    pub fn read(text: &str) -> Result<Self, NumberError> {
        let parts = Parts::split(text.as_bytes()).ok_or(NumberError::Grammar)?;
        let (mut mantissa, mut digits, mut zeros) = (0u64, 0u32, 0u32);
        let mut last = 0;
        for (place, digit) in (1i64..).zip(parts.whole.iter().chain(parts.fraction)) {
            if *digit == b'0' {
                zeros = zeros.saturating_add(u32::from(digits > 0));
                continue;
            }
            digits = digits.saturating_add(zeros).saturating_add(1);
            if digits > DIGITS_EXACT_MAX {
                return Err(NumberError::Ambiguous);
            }
            mantissa = mantissa * 10u64.pow(zeros + 1) + u64::from(digit - b'0');
            (zeros, last) = (0, place);
        }
        if mantissa == 0 {
            return Ok(Self::from_units(0, 0));
        }
        let whole = i64::try_from(parts.whole.len()).unwrap_or(i64::MAX);
        let exponent = parts.power.saturating_add(whole - last);
        let power = exponent.saturating_add(i64::from(digits) - 1);
        let exact = digits <= DIGITS_MAX || (exponent == 0 && mantissa <= EXACT_MAX);
        let sized =
            (-POWER_MAX..POWER_MAX).contains(&power) || (power == POWER_MAX && mantissa == 1);
        if !exact || !sized {
            return Err(NumberError::Ambiguous);
        }
        Ok(Self {
            negative: parts.negative,
            mantissa,
            digits,
            exponent: i32::try_from(exponent).map_err(|_| NumberError::Ambiguous)?,
        })
    }

    /// `units · 10^exponent`, for counters.
    pub fn from_units(units: u64, exponent: i32) -> Self {
        let (mut mantissa, mut exponent) = (units, if units == 0 { 0 } else { exponent });
        while mantissa != 0 && mantissa.is_multiple_of(10) {
            mantissa /= 10;
            exponent += 1;
        }
        Self {
            negative: false,
            mantissa,
            digits: mantissa.checked_ilog10().map_or(0, |log| log + 1),
            exponent,
        }
    }

    /// Whether this is an integer.
    pub fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    fn cmp_magnitude(&self, other: &Self) -> Ordering {
        let power = |n: &Self| n.digits as i32 + n.exponent;
        match (self.mantissa, other.mantissa) {
            (0, 0) => Ordering::Equal,
            (0, _) => Ordering::Less,
            (_, 0) => Ordering::Greater,
            _ => power(self).cmp(&power(other)).then_with(|| {
                let digits = self.digits.max(other.digits);
                let scaled = |n: &Self| u128::from(n.mantissa) * 10u128.pow(digits - n.digits);
                scaled(self).cmp(&scaled(other))
            }),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.cmp_magnitude(other),
            (true, true) => other.cmp_magnitude(self),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

/// Canonical: equal numbers are written alike.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        let (mantissa, digits) = (self.mantissa, self.digits as usize);
        match self.exponent {
            0 => write!(f, "{mantissa}"),
            zeros @ 1..=20 => write!(f, "{mantissa}{:0<1$}", "", zeros as usize),
            places @ -20..=-1 => {
                let places = places.unsigned_abs();
                let (whole, rest) = match 10u64.checked_pow(places) {
                    Some(one) => (mantissa / one, mantissa % one),
                    None => (0, mantissa),
                };
                write!(f, "{whole}.{rest:00$}", places as usize)
            }
            exponent if digits == 1 => write!(f, "{mantissa}e{exponent}"),
            exponent => {
                let text = mantissa.to_string();
                let (first, rest) = text.split_at_checked(1).unwrap_or((&text, ""));
                write!(f, "{first}.{rest}e{}", exponent + digits as i32 - 1)
            }
        }
    }
}

impl serde::Serialize for Decimal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number's text, taken apart by RFC 8259 §6.
struct Parts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Saturates.
    power: i64,
}

impl<'a> Parts<'a> {
    fn split(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (whole, rest) = digits(rest);
        if whole.is_empty() || (whole.len() > 1 && whole.first() == Some(&b'0')) {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => digits(rest),
            rest => (&[][..], rest),
        };
        let power = match rest {
            [] => 0,
            [b'e' | b'E', b'-', rest @ ..] => -power(rest)?,
            [b'e' | b'E', b'+', rest @ ..] | [b'e' | b'E', rest @ ..] => power(rest)?,
            _ => return None,
        };
        let dot = text.contains(&b'.');
        (dot != fraction.is_empty()).then_some(Self {
            negative,
            whole,
            fraction,
            power,
        })
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|c| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

fn power(text: &[u8]) -> Option<i64> {
    let (all, []) = digits(text) else { return None };
    (!all.is_empty()).then(|| {
        all.iter().fold(0i64, |n, c| {
            n.saturating_mul(10).saturating_add(i64::from(c - b'0'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Decimal {
        Decimal::read(text).unwrap()
    }

    #[test]
    fn numbers_on_which_parsers_disagree_are_refused() {
        for text in [
            "9007199254740993",
            "-9007199254740993",
            "0.10000000000000000555",
            "1e301",
            "1.1e300",
            "1e400",
            "1e-301",
            "9.9e-301",
            "1e-400",
            "1234567890.1234567",
            "12345678901234567890",
            "1e99999999999999999999",
            "1e-99999999999999999999",
        ] {
            assert_eq!(Decimal::read(text), Err(NumberError::Ambiguous), "{text}");
        }
        for text in [
            "9007199254740992",
            "-9007199254740992",
            "9007199254740991.0",
            "1e300",
            "-1e300",
            "1e-300",
            "1e21",
            "123456789012345",
            "0.00000000000000000000123456789012345",
            "1000000000000000000000000",
            "0",
            "-0",
            "0e999",
            "0.000",
            "9.007199254740992e15",
        ] {
            assert!(Decimal::read(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_number_is_none() {
        for text in [
            "", "-", "+1", "01", "1.", ".5", "1e", "1e+", "1e1.5", "NaN", "0x1", "1 ", "1.e5",
            "1e5.", "-01",
        ] {
            assert_eq!(Decimal::read(text), Err(NumberError::Grammar), "{text:?}");
        }
    }

    #[test]
    fn comparison_is_exact() {
        for (less, more) in [
            ("-1e300", "-1e299"),
            ("-2", "-1.5"),
            ("-1", "0"),
            ("0", "1e-300"),
            ("0.1", "0.10000000000001"),
            ("9007199254740991", "9007199254740992"),
            ("50000", "50000.0000001"),
            ("9", "10"),
            ("99", "1e2"),
            ("0.3", "0.300000000000001"),
            ("-5", "4"),
        ] {
            assert!(number(less) < number(more), "{less} < {more}");
            assert!(number(more) > number(less), "{more} > {less}");
        }
        for (one, two) in [
            ("5", "5.0"),
            ("5", "50e-1"),
            ("-0", "0"),
            ("1e2", "100"),
            ("0.50", "5e-1"),
            ("0e5", "0.0"),
        ] {
            assert_eq!(number(one), number(two), "{one} = {two}");
            assert_eq!(number(one).to_string(), number(two).to_string());
        }
        assert_eq!(number("41.5"), Decimal::from_units(41_500_000, -6));
        assert_eq!(number("0"), Decimal::from_units(0, -6));
    }

    #[test]
    fn numbers_are_written_canonically() {
        for (text, canonical) in [
            ("5.0", "5"),
            ("-1e3", "-1000"),
            ("0.050", "0.05"),
            ("1e-7", "0.0000001"),
            ("1e300", "1e300"),
            ("1.5e-300", "1.5e-300"),
            ("123.25", "123.25"),
            ("-0.0", "0"),
            ("1e20", "100000000000000000000"),
            ("1.2e-20", "1.2e-20"),
        ] {
            assert_eq!(number(text).to_string(), canonical, "{text}");
        }
    }

    proptest! {
        #[test]
        fn order_agrees_with_integers(a in -9_007_199_254_740_992i64..=9_007_199_254_740_992, b in -9_007_199_254_740_992i64..=9_007_199_254_740_992) {
            prop_assert_eq!(number(&a.to_string()).cmp(&number(&b.to_string())), a.cmp(&b));
        }
        #[test]
        fn what_is_written_reads_back(text in "-?[0-9]{1,8}(\\.[0-9]{1,7})?(e[-+]?[0-9]{1,2})?") {
            if let Ok(n) = Decimal::read(&text) {
                prop_assert_eq!(number(&n.to_string()), n);
            }
        }
        #[test]
        fn no_text_panics(text in "[-+0-9.eE]{0,40}") {
            let _ = Decimal::read(&text);
        }
    }
}
