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

impl Scale {
    /// Reads a JSON number's text as units of this scale, exactly.
    pub fn units(self, _number: &str) -> Result<u64, AmountError> {
        todo!()
    }
    /// Writes units as a decimal number, e.g. `41.5`.
    pub fn show(self, _units: u64) -> String {
        todo!()
    }
}
