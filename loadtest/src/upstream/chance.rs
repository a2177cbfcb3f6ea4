//! What a server leaves to chance: how long it takes, what fails. Drawn from a seed and the call's number.

use super::core::Emit;
use crate::plan::{rng::Rng, text};
use std::time::{Duration, Instant};

/// How long a call takes. Waits end with the runtime's timer, up to a millisecond late; the record's histogram has what
/// they really took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Delay {
    /// No wait at all.
    #[default]
    None,
    /// Always the same.
    Fixed(Duration),
    /// Anything between, equally likely.
    Uniform(Duration, Duration),
    /// Exponentially distributed with this mean.
    Exponential(Duration),
    /// Log-normally distributed with this median and 99th percentile: what services with a long tail look like.
    LogNormal(Duration, Duration),
}

/// The 99th percentile of the standard normal distribution.
const Z99: f64 = 2.326_347_9;
/// The steps of the runtime's timer: an end that falls between two is no lateness of the thread.
const TIMER_STEP: Duration = Duration::from_millis(1);
/// No wait is longer, s.
const DELAY_S_MAX: f64 = 600.0;

impl Delay {
    /// Reads `5ms`, `1ms..9ms`, `exp:5ms` or `lognormal:5ms:50ms`.
    ///
    /// # Errors
    /// A sentence with the forms.
    pub fn parse(written: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{written}` is no latency: write 5ms, 1ms..9ms, exp:MEAN or lognormal:MEDIAN:P99"
            )
        };
        let pair = |(a, b): (&str, &str)| -> Result<(Duration, Duration), String> {
            let (a, b) = (text::duration(a)?, text::duration(b)?);
            if a > b || a.is_zero() && written.starts_with('l') {
                return Err(bad());
            }
            Ok((a, b))
        };
        if let Some(mean) = written.strip_prefix("exp:") {
            return Ok(Self::Exponential(text::duration(mean)?));
        }
        if let Some(rest) = written.strip_prefix("lognormal:") {
            let (median, p99) = pair(rest.split_once(':').ok_or_else(bad)?)?;
            return Ok(Self::LogNormal(median, p99));
        }
        if let Some(range) = written.split_once("..") {
            let (from, to) = pair(range)?;
            return Ok(Self::Uniform(from, to));
        }
        match text::duration(written).map_err(|_| bad())? {
            Duration::ZERO => Ok(Self::None),
            fixed => Ok(Self::Fixed(fixed)),
        }
    }

    /// One wait.
    pub(super) fn draw(&self, rng: &mut Rng) -> Duration {
        let seconds = match self {
            Self::None => return Duration::ZERO,
            Self::Fixed(fixed) => return *fixed,
            Self::Uniform(from, to) => {
                from.as_secs_f64() + rng.unit() * (to.as_secs_f64() - from.as_secs_f64())
            }
            Self::Exponential(mean) => mean.as_secs_f64() * rng.exponential(),
            Self::LogNormal(median, p99) => {
                let sigma = (p99.as_secs_f64() / median.as_secs_f64()).ln() / Z99;
                median.as_secs_f64() * (sigma * rng.normal()).exp()
            }
        };
        Duration::from_secs_f64(seconds.clamp(0.0, DELAY_S_MAX))
    }
}

/// How every call of a tool ends otherwise than it should, and what is added to its reply.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Chance {
    /// How long it takes.
    pub delay: Delay,
    /// Share (0 to 1) of calls that end as tool errors.
    pub error_rate: f64,
    /// Share of calls that are rejected with a JSON-RPC error, nothing done.
    pub reject_rate: f64,
    /// Share of calls that are executed and never answered.
    pub hang_rate: f64,
    /// Bytes of a second text in every result, from … to.
    pub reply_bytes: (u64, u64),
    /// Progress notifications before every result, where the client asked for them; spread over the delay.
    pub progress_steps: u64,
    /// Of the random numbers.
    pub seed: u64,
}

/// What was drawn for one call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Drawn {
    pub(super) delay: Duration,
    pub(super) bytes: u64,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    #[default]
    Good,
    Error,
    Reject,
    Hang,
}

impl Chance {
    /// Whether nothing is left to chance, and nothing added.
    pub(super) fn is_none(&self) -> bool {
        *self
            == Self {
                seed: self.seed,
                ..Self::default()
            }
    }

    /// Draws for the `n`th call.
    pub(super) fn draw(&self, n: u64) -> Drawn {
        if self.is_none() {
            return Drawn::default();
        }
        let mut rng = Rng::new(self.seed ^ n.wrapping_mul(0xd134_2543_de82_ef95));
        let (from, to) = self.reply_bytes;
        let luck = rng.unit();
        Drawn {
            delay: self.delay.draw(&mut rng),
            bytes: from + rng.below(to.saturating_sub(from) + 1),
            fate: if luck < self.hang_rate {
                Fate::Hang
            } else if luck < self.hang_rate + self.reject_rate {
                Fate::Reject
            } else if luck < self.hang_rate + self.reject_rate + self.error_rate {
                Fate::Error
            } else {
                Fate::Good
            },
        }
    }
}

impl Drawn {
    /// Waits as long as was drawn, with this many notifications on the way where they are wanted; returns how much later
    /// than due it woke, or nothing when it was sent something meanwhile.
    pub(super) async fn wait(&self, steps: u64, emit: &Emit) -> Option<Duration> {
        if steps == 0 || emit.token.is_none() {
            if self.delay.is_zero() {
                return None;
            }
            let due = Instant::now() + self.delay;
            tokio::time::sleep_until(due.into()).await;
            return Some(due.elapsed().saturating_sub(TIMER_STEP));
        }
        let pause = self.delay.div_f64(steps as f64);
        for step in 1..=steps {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            emit.progress(step, steps).await;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_distributed_as_they_say() {
        let quantile = |text: &str, q: f64| {
            let delay = Delay::parse(text).unwrap();
            let chance = Chance {
                delay,
                seed: 7,
                ..Chance::default()
            };
            let mut all: Vec<f64> = (0..20_000)
                .map(|n| chance.draw(n).delay.as_secs_f64() * 1e3)
                .collect();
            all.sort_by(f64::total_cmp);
            all[(all.len() as f64 * q) as usize]
        };
        for (text, q, due) in [
            ("5ms", 0.01, 5.0),
            ("1ms..9ms", 0.5, 5.0),
            ("1ms..9ms", 0.99, 8.92),
            ("exp:10ms", 0.5, 6.93),
            ("exp:10ms", 0.99, 46.05),
            ("lognormal:5ms:50ms", 0.5, 5.0),
            ("lognormal:5ms:50ms", 0.99, 50.0),
        ] {
            let seen = quantile(text, q);
            assert!(
                (seen - due).abs() / due < 0.06,
                "{text} at {q}: {seen}, due {due}"
            );
        }
        for text in ["", "x", "9ms..1ms", "lognormal:0:5ms", "exp:"] {
            assert!(Delay::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fates_come_at_their_rates() {
        let chance = Chance {
            error_rate: 0.1,
            reject_rate: 0.05,
            hang_rate: 0.01,
            reply_bytes: (10, 20),
            ..Chance::default()
        };
        let drawn: Vec<Drawn> = (0..20_000).map(|n| chance.draw(n)).collect();
        let share = |fate| drawn.iter().filter(|d| d.fate == fate).count() as f64 / 20_000.0;
        for (fate, due) in [(Fate::Error, 0.1), (Fate::Reject, 0.05), (Fate::Hang, 0.01)] {
            assert!((share(fate) - due).abs() < 0.01, "{fate:?} {}", share(fate));
        }
        assert!(drawn.iter().all(|d| (10..=20).contains(&d.bytes)));
    }
}
