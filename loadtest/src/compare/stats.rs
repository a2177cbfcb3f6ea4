//! Ratios of two series of rounds with their confidence intervals.
//!
//! Logarithms of what was measured are compared, so that "twice" and "half" weigh the same. Rounds that alternated are
//! compared in pairs (Student, "The probable error of a mean", 1908); others by Welch's method, which assumes no equal
//! variances (Welch, "The generalization of Student's problem", 1947). Nothing is drawn at random.

use std::f64::consts::FRAC_PI_2;

/// How B stands to A.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// B / A, the geometric mean over the rounds.
    pub ratio: f64,
    /// The interval's ends; none with too few rounds.
    pub interval: Option<(f64, f64)>,
}

/// Compares round by round: the n-th of A with the n-th of B. None where a value is not positive, or the lengths differ.
pub fn paired(a: &[f64], b: &[f64], confidence: f64) -> Option<Ratio> {
    if a.len() != b.len() || a.is_empty() {
        return None;
    }
    let (a, b) = (logarithms(a)?, logarithms(b)?);
    let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b - a).collect();
    let (mean, variance) = moments(&differences);
    let n = differences.len() as f64;
    let half = variance.map(|v| t_quantile(confidence, n - 1.0) * (v / n).sqrt());
    Some(around(mean, half))
}

/// Compares all of A with all of B. None where a value is not positive.
pub fn unpaired(a: &[f64], b: &[f64], confidence: f64) -> Option<Ratio> {
    let (a, b) = (logarithms(a)?, logarithms(b)?);
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let ((mean_a, var_a), (mean_b, var_b)) = (moments(&a), moments(&b));
    let half = var_a.zip(var_b).map(|(var_a, var_b)| {
        let (n_a, n_b) = (a.len() as f64, b.len() as f64);
        let (part_a, part_b) = (var_a / n_a, var_b / n_b);
        let sum = part_a + part_b;
        if sum == 0.0 {
            return 0.0;
        }
        // Welch–Satterthwaite.
        let freedom = sum * sum / (part_a * part_a / (n_a - 1.0) + part_b * part_b / (n_b - 1.0));
        t_quantile(confidence, freedom.max(1.0)) * sum.sqrt()
    });
    Some(around(mean_b - mean_a, half))
}

fn logarithms(values: &[f64]) -> Option<Vec<f64>> {
    let logs = values.iter().map(|value| {
        let log = value.ln();
        log.is_finite().then_some(log)
    });
    logs.collect()
}

fn around(mean: f64, half: Option<f64>) -> Ratio {
    Ratio {
        ratio: mean.exp(),
        interval: half.map(|half| ((mean - half).exp(), (mean + half).exp())),
    }
}

/// Mean and, of two values or more, the unbiased variance.
fn moments(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>();
    (mean, (values.len() > 1).then(|| squares / (n - 1.0)))
}

/// The t below whose magnitude this share of Student's distribution lies (`freedom` ≥ 1).
///
/// With t = √ν·tan θ the distribution's density is proportional to cos^(ν−1) θ, so that no gamma function is needed.
pub fn t_quantile(confidence: f64, freedom: f64) -> f64 {
    let area = |to: f64| simpson(|theta| theta.cos().max(0.0).powf(freedom - 1.0), to);
    let wanted = confidence.clamp(0.0, 0.9999) * area(FRAC_PI_2);
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if area(middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    freedom.sqrt() * low.tan()
}

/// ∫ from 0, by Simpson's rule.
fn simpson(f: impl Fn(f64) -> f64, to: f64) -> f64 {
    const PARTS: usize = 1_000;
    let step = to / PARTS as f64;
    let inner = (1..PARTS).map(|at| f(at as f64 * step) * if at % 2 == 1 { 4.0 } else { 2.0 });
    (f(0.0) + f(to) + inner.sum::<f64>()) * step / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two-sided 95 % and 99 % points of Student's distribution (any table).
    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (confidence, freedom, expected) in [
            (0.95, 1.0, 12.7062),
            (0.95, 2.0, 4.3027),
            (0.95, 5.0, 2.5706),
            (0.95, 11.0, 2.2010),
            (0.95, 30.0, 2.0423),
            (0.99, 10.0, 3.1693),
            (0.95, 1000.0, 1.9623),
        ] {
            let found = t_quantile(confidence, freedom);
            assert!(
                (found - expected).abs() < 2e-4 * expected,
                "{confidence} {freedom}: {found} is not {expected}"
            );
        }
    }

    #[test]
    fn pairs_see_a_difference_that_drift_hides_from_the_whole() {
        // Each round is slower than the one before, for both; B is 10 % slower in every round, give or take 1 %.
        let a: Vec<f64> = (0..8).map(|at| 100.0 * 1.2_f64.powi(at)).collect();
        let wobble = [1.0, 1.01, 0.99, 1.0, 1.01, 0.99, 1.0, 1.0];
        let b: Vec<f64> = a.iter().zip(wobble).map(|(a, w)| a * 1.1 * w).collect();
        let (low, high) = paired(&a, &b, 0.95).unwrap().interval.unwrap();
        assert!(low > 1.08 && high < 1.12, "{low} {high}");
        let (low, high) = unpaired(&a, &b, 0.95).unwrap().interval.unwrap();
        assert!(low < 1.0 && high > 1.2, "{low} {high}");
    }

    #[test]
    fn an_interval_holds_the_truth_about_as_often_as_it_says() {
        // Pairs with a true ratio of 1.3 and noise from a fixed generator (SplitMix64, seed 7).
        let mut state = 7_u64;
        let mut uniform = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut noise = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        let runs = 400;
        let held = (0..runs)
            .filter(|_| {
                let a: Vec<f64> = (0..6).map(|_| (noise() * 0.1).exp()).collect();
                let b: Vec<f64> = (0..6).map(|_| 1.3 * (noise() * 0.1).exp()).collect();
                let (low, high) = paired(&a, &b, 0.95).unwrap().interval.unwrap();
                low <= 1.3 && 1.3 <= high
            })
            .count();
        let share = held as f64 / runs as f64;
        assert!((0.92..=0.98).contains(&share), "seed 7: {share}");
    }

    #[test]
    fn one_round_has_no_interval_and_nothing_has_no_ratio() {
        assert_eq!(
            paired(&[2.0], &[3.0], 0.95),
            Some(Ratio {
                ratio: (3.0_f64.ln() - 2.0_f64.ln()).exp(),
                interval: None
            })
        );
        assert_eq!(paired(&[0.0, 1.0], &[1.0, 1.0], 0.95), None);
        assert_eq!(unpaired(&[], &[1.0], 0.95), None);
        assert_eq!(paired(&[1.0], &[1.0, 2.0], 0.95), None);
    }
}
