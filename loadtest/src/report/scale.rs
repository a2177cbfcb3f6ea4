//! Axes: from values to places between 0 and 1, and the ticks with their labels.

use super::format;

/// What an axis shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// Nanoseconds.
    Latency,
    /// A number.
    Count,
    /// Seconds since the start.
    Seconds,
    /// A quantile, 0 to 1.
    Quantile,
}

impl Unit {
    /// A value of it, for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Latency => format::latency(value.max(0.0) as u64),
            Unit::Count => format::number(value),
            Unit::Seconds => format!("{} s", format::number(value)),
            Unit::Quantile => format!("p{}", percent(value)),
        }
    }
}

/// A quantile as percent, with two digits of what lies beyond it: 0.999 → `99.9`, 0.95701 → `95.7`.
fn percent(quantile: f64) -> String {
    let beyond = (1.0 - quantile) * 100.0;
    let digits = match beyond {
        b if b >= 10.0 => 0,
        b if b >= 1e-6 => (1.0 - b.log10().floor()).clamp(0.0, 8.0) as usize,
        _ => 0,
    };
    let text = format!("{:.digits$}", quantile * 100.0);
    if digits == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Evenly.
    Linear { min: f64, max: f64 },
    /// By their logarithm; `min` > 0.
    Log { min: f64, max: f64 },
    /// Quantiles by the logarithm of what lies beyond them: 90 %, 99 % and 99.9 % are equally far apart (the way of
    /// HdrHistogram's plots). `tail` is 1 − the last quantile shown.
    Tail { tail: f64 },
}

impl Scale {
    /// From zero to a round number at or above the largest value.
    pub fn from_zero(max: f64) -> Self {
        let max = if max.is_finite() && max > 0.0 {
            max
        } else {
            1.0
        };
        let step = step(max, 5);
        Scale::Linear {
            min: 0.0,
            max: (max / step).ceil() * step,
        }
    }

    /// For latencies: logarithmic when the values are far apart, else from zero.
    pub fn of_latencies(values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            low = low.min(value);
            high = high.max(value);
        }
        if low.is_finite() && high / low > 20.0 {
            Scale::Log {
                min: round_log(low, false),
                max: round_log(high, true),
            }
        } else {
            Scale::from_zero(high)
        }
    }

    /// Where a value stands: 0 to 1 inside the axis; what is outside is moved to the nearest end.
    pub fn place(self, value: f64) -> f64 {
        let place = match self {
            Scale::Linear { min, max } => (value - min) / (max - min),
            Scale::Log { min, max } => (value.max(min) / min).ln() / (max / min).ln(),
            Scale::Tail { tail } => (1.0 - value).max(tail).ln() / tail.ln(),
        };
        if place.is_finite() {
            place.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// Whether distances on it are ratios.
    pub fn is_log(self) -> bool {
        !matches!(self, Scale::Linear { .. })
    }

    /// Values that get a line and a label, about as many as wanted.
    pub fn ticks(self, wanted: usize, unit: Unit) -> Vec<(f64, String)> {
        let values: Vec<f64> = match self {
            Scale::Linear { min, max } => {
                let step = step(max - min, wanted);
                let first = (min / step).ceil() as i64;
                let last = (max / step * (1.0 + 1e-9)).floor() as i64;
                (first..=last.min(first + 50))
                    .map(|at| at as f64 * step)
                    .collect()
            }
            Scale::Log { min, max } => {
                let decades = (max / min).log10();
                let steps: &[f64] = match decades {
                    d if d <= wanted as f64 / 3.0 => &[1.0, 2.0, 5.0],
                    _ => &[1.0],
                };
                let first = min.log10().floor() as i32;
                let last = max.log10().ceil() as i32;
                (first..=last)
                    .flat_map(|decade| steps.iter().map(move |s| s * 10f64.powi(decade)))
                    .filter(|value| (min * (1.0 - 1e-9)..=max * (1.0 + 1e-9)).contains(value))
                    .collect()
            }
            Scale::Tail { tail } => {
                let mut values = vec![0.0];
                if wanted > 4 {
                    values.push(0.5);
                }
                let mut beyond = 0.1;
                while beyond >= tail * (1.0 - 1e-9) && values.len() < 12 {
                    values.push(1.0 - beyond);
                    beyond /= 10.0;
                }
                values
            }
        };
        let label = |value: f64| match unit {
            Unit::Quantile => format!("{} %", percent(value)),
            Unit::Seconds => format::number(value),
            unit => unit.show(value),
        };
        values.into_iter().map(|v| (v, label(v))).collect()
    }
}

/// A step of 1, 2 or 5 times a power of ten with which a span has about so many parts.
fn step(span: f64, parts: usize) -> f64 {
    let raw = (span / parts.max(1) as f64).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(raw.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|times| times * power >= raw * (1.0 - 1e-9));
    times.unwrap_or(10.0) * power
}

/// The nearest of 1, 2, 5 times a power of ten, at or beyond the value.
fn round_log(value: f64, up: bool) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let times = value / power;
    let steps = [1.0, 2.0, 5.0, 10.0];
    let found = if up {
        steps.into_iter().find(|step| *step >= times * (1.0 - 1e-9))
    } else {
        steps
            .into_iter()
            .rev()
            .find(|step| *step <= times * (1.0 + 1e-9))
    };
    found.unwrap_or(1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_that_differ_by_a_nine_are_equally_far_apart() {
        let scale = Scale::Tail { tail: 1e-4 };
        for (value, place) in [
            (0.0, 0.0),
            (0.9, 0.25),
            (0.99, 0.5),
            (0.999, 0.75),
            (1.0, 1.0),
        ] {
            assert!((scale.place(value) - place).abs() < 1e-9, "{value}");
        }
        let labels: Vec<_> = scale
            .ticks(8, Unit::Quantile)
            .into_iter()
            .map(|t| t.1)
            .collect();
        assert_eq!(labels, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn percentiles_have_the_digits_that_tell_them_apart() {
        for (quantile, text) in [
            (0.0, "0"),
            (0.5, "50"),
            (0.957_01, "95.7"),
            (0.999, "99.9"),
            (0.999_570_1, "99.957"),
            (0.999_99, "99.999"),
            (1.0, "100"),
        ] {
            assert_eq!(percent(quantile), text, "{quantile}");
        }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::from_zero(137.0);
        assert_eq!(
            scale,
            Scale::Linear {
                min: 0.0,
                max: 150.0
            }
        );
        let ticks: Vec<_> = scale
            .ticks(5, Unit::Count)
            .into_iter()
            .map(|t| t.0)
            .collect();
        assert_eq!(ticks, [0.0, 50.0, 100.0, 150.0]);
        let scale = Scale::of_latencies([78_000.0, 169_000_000.0].into_iter());
        assert_eq!(
            scale,
            Scale::Log {
                min: 50_000.0,
                max: 200_000_000.0
            }
        );
        let labels: Vec<_> = scale
            .ticks(6, Unit::Latency)
            .into_iter()
            .map(|t| t.1)
            .collect();
        assert_eq!(labels, ["100 µs", "1 ms", "10 ms", "100 ms"]);
    }

    #[test]
    fn no_value_leaves_the_axis_or_is_no_number() {
        for scale in [
            Scale::from_zero(0.0),
            Scale::from_zero(f64::NAN),
            Scale::of_latencies(std::iter::empty()),
            Scale::of_latencies([5.0, 1e18].into_iter()),
            Scale::Tail { tail: 0.1 },
        ] {
            for value in [0.0, -1.0, 1e300, f64::NAN, f64::INFINITY] {
                let place = scale.place(value);
                assert!((0.0..=1.0).contains(&place), "{scale:?} {value}: {place}");
            }
            assert!(scale.ticks(5, Unit::Count).len() < 60);
        }
    }
}
