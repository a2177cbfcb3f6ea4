//! Fixed-point amounts: integers, or six decimals, never rounded.

/// The fixed point of a limit's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scale {
    /// One unit is 1.
    Integer,
    /// One unit is 0.000001.
    Micro,
}

/// Why an amount was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a JSON number.
    #[error("the amount is not a number")]
    NotANumber,
    /// Below zero.
    #[error("the amount is negative")]
    Negative,
    /// More digits behind the point than the scale holds, or more than 15 significant digits.
    #[error("the amount is too precise: at most 6 decimals and 15 significant digits")]
    TooPrecise,
    /// Over 10^15 units.
    #[error("the amount is too large")]
    TooLarge,
}

/// Largest `max`, and so the largest amount, in units.
pub const UNITS_MAX: u64 = 1_000_000_000_000_000;

/// Micro units in one.
const MICRO: u64 = 1_000_000;

impl Scale {
    /// Reads a JSON number's text as units of this scale, exactly: `1e3` and `1000.0` are 1000, `-0` is 0.
    ///
    /// Every unit count up to [`UNITS_MAX`] has at most 15 significant digits (10^15 itself has one), so the digit
    /// bound of policies.md §2 follows from the other two.
    pub fn units(self, number: &str) -> Result<u64, AmountError> {
        let number = Decimal::read(number.as_bytes()).ok_or(AmountError::NotANumber)?;
        if number.digits.is_empty() {
            return Ok(0);
        }
        if number.negative {
            return Err(AmountError::Negative);
        }
        let power = number.exponent.saturating_add(self.decimals());
        if power < 0 {
            return Err(AmountError::TooPrecise);
        }
        let mut units: u64 = 0;
        for digit in &number.digits {
            units = units * 10 + u64::from(*digit);
            if units > UNITS_MAX {
                return Err(AmountError::TooLarge);
            }
        }
        for _ in 0..power {
            units *= 10;
            if units > UNITS_MAX {
                return Err(AmountError::TooLarge);
            }
        }
        Ok(units)
    }

    /// Writes units as a decimal number, e.g. `41.5`.
    pub fn show(self, units: u64) -> String {
        match self {
            Scale::Integer => units.to_string(),
            Scale::Micro if units.is_multiple_of(MICRO) => (units / MICRO).to_string(),
            Scale::Micro => {
                let text = format!("{}.{:06}", units / MICRO, units % MICRO);
                text.trim_end_matches('0').to_owned()
            }
        }
    }

    /// Digits behind the point.
    fn decimals(self) -> i64 {
        match self {
            Scale::Integer => 0,
            Scale::Micro => 6,
        }
    }
}

/// A JSON number taken apart: `digits` has neither leading nor trailing zeros, so zero has none.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    /// Power of ten of the last digit; saturates.
    exponent: i64,
}

impl Decimal {
    /// Strictly the grammar of RFC 8259 §6; `None` for anything else.
    fn read(text: &[u8]) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, rest) = digits(rest);
        if whole.is_empty() || (whole.len() > 1 && whole.first() == Some(&b'0')) {
            return None;
        }
        let (fraction, rest) = match rest.strip_prefix(b".") {
            Some(rest) => match digits(rest) {
                ([], _) => return None,
                found => found,
            },
            None => (&[][..], rest),
        };
        let power = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => power(rest)?,
            _ => return None,
        };
        let mut digits: Vec<u8> = whole
            .iter()
            .chain(fraction)
            .map(|c| c - b'0')
            .skip_while(|d| *d == 0)
            .collect();
        let mut exponent = power.saturating_sub(i64::try_from(fraction.len()).ok()?);
        while digits.pop_if(|d| *d == 0).is_some() {
            exponent = exponent.saturating_add(1);
        }
        Some(Self {
            negative,
            digits,
            exponent,
        })
    }
}

/// Splits the leading digits off.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(|c| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// The part behind `e`; saturates, so that a thousand digits of exponent are just very large.
fn power(text: &[u8]) -> Option<i64> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (digits, []) = digits(rest) else {
        return None;
    };
    if digits.is_empty() {
        return None;
    }
    let size = digits.iter().fold(0i64, |n, c| {
        n.saturating_mul(10).saturating_add(i64::from(c - b'0'))
    });
    Some(if negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use AmountError::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_exactly_or_refused() {
        for (text, integer, micro) in [
            ("0", Ok(0), Ok(0)),
            ("-0", Ok(0), Ok(0)),
            ("0.0e5", Ok(0), Ok(0)),
            ("0e999999999999999999999", Ok(0), Ok(0)),
            ("1", Ok(1), Ok(1_000_000)),
            ("1.0", Ok(1), Ok(1_000_000)),
            ("1e3", Ok(1000), Ok(1_000_000_000)),
            ("1.5E+1", Ok(15), Ok(15_000_000)),
            ("1500e-2", Ok(15), Ok(15_000_000)),
            ("1.5", Err(TooPrecise), Ok(1_500_000)),
            ("0.000001", Err(TooPrecise), Ok(1)),
            ("0.0000010", Err(TooPrecise), Ok(1)),
            ("0.0000001", Err(TooPrecise), Err(TooPrecise)),
            ("1e-400", Err(TooPrecise), Err(TooPrecise)),
            (
                "1e-99999999999999999999999",
                Err(TooPrecise),
                Err(TooPrecise),
            ),
            ("1000000000", Ok(1_000_000_000), Ok(UNITS_MAX)),
            ("1000000000.000001", Err(TooPrecise), Err(TooLarge)),
            ("1000000000000000", Ok(UNITS_MAX), Err(TooLarge)),
            ("1000000000000001", Err(TooLarge), Err(TooLarge)),
            ("1e400", Err(TooLarge), Err(TooLarge)),
            ("1e99999999999999999999999", Err(TooLarge), Err(TooLarge)),
            ("99999999999999999999999999", Err(TooLarge), Err(TooLarge)),
            ("-1", Err(Negative), Err(Negative)),
            ("-0.0000001", Err(Negative), Err(Negative)),
        ] {
            assert_eq!(Scale::Integer.units(text), integer, "{text} as an integer");
            assert_eq!(Scale::Micro.units(text), micro, "{text} with six decimals");
        }
    }

    #[test]
    fn what_is_no_json_number_is_no_amount() {
        for text in [
            "", " ", "1 ", " 1", "+1", "01", "-", "1.", ".5", "1e", "1e+", "1e1.5", "0x10", "NaN",
            "Infinity", "1_000", "\"1\"", "null", "1,5", "--1", "\u{0661}",
        ] {
            assert_eq!(Scale::Micro.units(text), Err(NotANumber), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn shown_units_read_back(units in 0..=UNITS_MAX) {
            for scale in [Scale::Integer, Scale::Micro] {
                prop_assert_eq!(scale.units(&scale.show(units)), Ok(units));
            }
        }
        #[test]
        fn no_text_panics(text in "[-+0-9.eE]{0,40}") {
            let _ = Scale::Integer.units(&text);
            let _ = Scale::Micro.units(&text);
        }
    }

    #[test]
    fn units_are_shown_without_needless_zeros() {
        assert_eq!(Scale::Micro.show(41_500_000), "41.5");
        assert_eq!(Scale::Micro.show(1), "0.000001");
        assert_eq!(Scale::Micro.show(100_000_000), "100");
        assert_eq!(Scale::Micro.show(u64::MAX), "18446744073709.551615");
        assert_eq!(Scale::Integer.show(30), "30");
    }
}
