//! Latencies: HdrHistograms (Gil Tene, hdrhistogram.org) as they are kept and as they are written down.

use hdrhistogram::Histogram as Hdr;
use serde::{Deserialize, Serialize};

/// Significant decimal digits: a value is known to 0.1 %.
pub const DIGITS: u8 = 3;
/// Values beyond are counted as this, ns (one hour).
pub const VALUE_MAX_NS: u64 = 3_600_000_000_000;

/// More values than any run has (2^53), so that sums over rounds cannot overflow.
const COUNT_MAX: u64 = 1 << 53;

/// A histogram for recording.
pub fn recorder() -> Hdr<u64> {
    // The bounds are constants that satisfy the library's rules; the test below makes one.
    Hdr::new_with_bounds(1, VALUE_MAX_NS, DIGITS).expect("invariant: constant bounds are valid")
}

/// A recorded distribution, as JSON: only buckets that hold something.
///
/// `buckets` is sorted; each has the highest value that its bucket stands for and how many values fell into it. Values
/// are rounded up to at most 0.1 % (`digits` = 3 significant digits).
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Histogram {
    /// The unit of values: `ns`.
    pub unit: String,
    /// Significant decimal digits.
    pub digits: u8,
    /// How many values.
    pub count: u64,
    /// The smallest; 0 without any.
    pub min: u64,
    /// The largest.
    pub max: u64,
    /// The mean.
    pub mean: f64,
    /// `[highest equivalent value, count]`, ascending.
    pub buckets: Vec<(u64, u64)>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            unit: "ns".into(),
            digits: DIGITS,
            count: 0,
            min: 0,
            max: 0,
            mean: 0.0,
            buckets: Vec::new(),
        }
    }
}

impl From<&Hdr<u64>> for Histogram {
    fn from(hdr: &Hdr<u64>) -> Self {
        if hdr.is_empty() {
            return Self::default();
        }
        Self {
            count: hdr.len(),
            min: hdr.min(),
            max: hdr.max(),
            mean: hdr.mean(),
            buckets: hdr
                .iter_recorded()
                .map(|v| (v.value_iterated_to(), v.count_at_value()))
                .collect(),
            ..Self::default()
        }
    }
}

impl Histogram {
    /// The value at or below which this share (0 to 1) of all values lies; 0 without any.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let rank = (quantile.clamp(0.0, 1.0) * self.count as f64)
            .ceil()
            .max(1.0) as u64;
        let mut seen = 0;
        for &(value, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return value.min(self.max);
            }
        }
        self.max
    }

    /// Whether this is what [`recorder`] can have made: anything else would be shown as if it had been measured.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.unit != "ns" {
            return Err("a histogram's unit is not ns".to_owned());
        }
        let mut sum = 0_u64;
        let mut last = None;
        for &(value, count) in &self.buckets {
            if last.is_some_and(|last| value <= last) {
                return Err(format!("a histogram's buckets are not in order at {value}"));
            }
            last = Some(value);
            sum = sum
                .checked_add(count)
                .filter(|sum| *sum <= COUNT_MAX)
                .ok_or("a histogram has more values than can be counted")?;
        }
        if sum != self.count {
            return Err(format!(
                "a histogram says {} values and has {sum}",
                self.count
            ));
        }
        Ok(())
    }

    /// Back into a form that can be added to.
    pub fn to_hdr(&self) -> Hdr<u64> {
        let mut hdr = recorder();
        for &(value, count) in &self.buckets {
            hdr.saturating_record_n(value, count);
        }
        hdr
    }

    /// Both distributions as one.
    pub fn merged(&self, other: &Self) -> Self {
        if other.count == 0 {
            return self.clone();
        }
        if self.count == 0 {
            return other.clone();
        }
        let mut hdr = self.to_hdr();
        // Equal bounds: nothing can be lost.
        let _ = hdr.add(other.to_hdr());
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            mean: (self.mean * self.count as f64 + other.mean * other.count as f64)
                / (self.count + other.count) as f64,
            ..Self::from(&hdr)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_tenth_of_a_percent_after_writing_and_reading() {
        let mut hdr = recorder();
        for value in 1..=100_000_u64 {
            hdr.record(value * 1_000).unwrap();
        }
        let json = serde_json::to_string(&Histogram::from(&hdr)).unwrap();
        let read: Histogram = serde_json::from_str(&json).unwrap();
        for (quantile, exact) in [(0.5, 5e7), (0.99, 9.9e7), (0.999, 9.99e7), (1.0, 1e8)] {
            let error = (read.quantile(quantile) as f64 - exact).abs() / exact;
            assert!(error <= 0.001, "{quantile}: {error}");
            assert_eq!(
                read.quantile(quantile),
                hdr.value_at_quantile(quantile).min(hdr.max())
            );
        }
        let twice = read.merged(&read);
        assert_eq!(twice.count, 200_000);
        assert_eq!(twice.quantile(0.5), read.quantile(0.5));
    }

    #[test]
    fn an_empty_histogram_has_no_values_and_does_not_divide_by_zero() {
        let empty = Histogram::from(&recorder());
        assert_eq!(empty, Histogram::default());
        assert_eq!(empty.quantile(0.99), 0);
        assert_eq!(empty.merged(&empty), empty);
    }
}
