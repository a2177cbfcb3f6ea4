//! What people write on a command line: durations, objectives, steps, calls.

use crate::result::Step;
use std::time::Duration;

/// `250ms`, `10s`, `2m`, `1h`; a bare number is seconds.
///
/// # Errors
/// A sentence with examples.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no duration: write 250ms, 10s, 2m or 1h");
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| bad())
}

/// A window: `second`, `minute`, `hour`, `day`, or a duration.
///
/// # Errors
/// A sentence with examples.
pub fn window(text: &str) -> Result<Duration, String> {
    match text {
        "second" => Ok(Duration::from_secs(1)),
        "minute" => Ok(Duration::from_secs(60)),
        "hour" => Ok(Duration::from_secs(3_600)),
        "day" => Ok(Duration::from_secs(86_400)),
        _ => match duration(text) {
            Ok(window) if window.as_millis() > 0 && window.subsec_nanos() % 1_000_000 == 0 => {
                Ok(window)
            }
            _ => Err(format!(
                "`{text}` is no window: write second, minute, hour, day or a duration such as 90s"
            )),
        },
    }
}

/// `RATE:DURATION,RATE:DURATION…`
///
/// # Errors
/// A sentence with an example.
pub fn steps(text: &str) -> Result<Vec<Step>, String> {
    let step = |part: &str| {
        let (rate, length) = part.split_once(':')?;
        let rate: f64 = rate.trim().parse().ok()?;
        let seconds = duration(length.trim()).ok()?.as_secs_f64();
        (rate > 0.0 && rate.is_finite() && seconds > 0.0).then_some(Step { rate, seconds })
    };
    let steps: Option<Vec<Step>> = text.split(',').map(step).collect();
    steps.ok_or_else(|| {
        format!("`{text}` are no steps: write RATE:DURATION, e.g. 1000:10s,2000:10s")
    })
}

/// A service-level objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    /// As written.
    pub text: String,
    /// All of them must hold.
    pub terms: Vec<Term>,
}

/// One condition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Term {
    /// A quantile (0 to 1) of latency stays under this, ns.
    Latency(f64, u64),
    /// The share (0 to 1) of requests that did not get what was due stays under this.
    Errors(f64),
}

/// `p99<5ms,errors<0.1%`
///
/// # Errors
/// A sentence with an example.
pub fn slo(text: &str) -> Result<Slo, String> {
    let bad = || {
        format!(
            "`{text}` is no objective: write conditions like p99<5ms,errors<0.1% (p50 … p99.99, max, errors)"
        )
    };
    let term = |part: &str| {
        let (what, bound) = part.split_once('<')?;
        let (what, bound) = (what.trim(), bound.trim().trim_start_matches('='));
        if what == "errors" {
            let share = match bound.strip_suffix('%') {
                Some(percent) => percent.parse::<f64>().ok()? / 100.0,
                None => bound.parse().ok()?,
            };
            return (0.0..=1.0).contains(&share).then_some(Term::Errors(share));
        }
        let quantile = match what {
            "max" => 1.0,
            _ => what.strip_prefix('p')?.parse::<f64>().ok()? / 100.0,
        };
        let bound = duration(bound).ok()?.as_nanos() as u64;
        (0.0..=1.0)
            .contains(&quantile)
            .then_some(Term::Latency(quantile, bound))
    };
    let terms: Option<Vec<Term>> = text.split(',').map(term).collect();
    Ok(Slo {
        text: text.to_owned(),
        terms: terms.filter(|t| !t.is_empty()).ok_or_else(bad)?,
    })
}

/// `NAME[*WEIGHT] [ARGUMENTS]` taken apart; the arguments are not read yet.
///
/// # Errors
/// A sentence with an example.
pub fn call(text: &str) -> Result<(String, u32, String), String> {
    let text = text.trim();
    let (head, arguments) = text
        .split_once(char::is_whitespace)
        .map_or((text, "{}"), |(head, rest)| (head, rest.trim()));
    let (name, weight) = head.split_once('*').unwrap_or((head, "1"));
    match weight.parse() {
        Ok(weight @ 1..=1_000_000) if !name.is_empty() => {
            Ok((name.to_owned(), weight, arguments.to_owned()))
        }
        _ => Err(format!(
            "`{text}` is no call: write NAME, NAME*WEIGHT or NAME*WEIGHT ARGUMENTS, e.g. 'echo*3 {{\"message\":\"hi\"}}'"
        )),
    }
}

/// Nanoseconds for people: three digits and a unit.
pub fn nanos(ns: u64) -> String {
    let n = ns as f64;
    let (value, unit) = match ns {
        0..1_000 => (n, "ns"),
        1_000..1_000_000 => (n / 1e3, "µs"),
        1_000_000..1_000_000_000 => (n / 1e6, "ms"),
        _ => (n / 1e9, "s"),
    };
    let digits = if value >= 100.0 || unit == "ns" {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_windows_and_steps_are_read_as_written() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(window("minute"), Ok(Duration::from_secs(60)));
        assert_eq!(window("2s"), Ok(Duration::from_secs(2)));
        for text in ["", "5 parsecs", "ms", "-1s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(window("0s").is_err());
        let two = steps("100:5s, 200:500ms").unwrap();
        assert_eq!((two[0].rate, two[1].seconds), (100.0, 0.5));
        for text in ["", "100", "0:5s", "100:0s", "x:1s"] {
            assert!(steps(text).is_err(), "{text}");
        }
    }

    #[test]
    fn objectives_are_read_as_written() {
        let read = slo("p99<5ms,errors<0.1%, max<=1s").unwrap();
        assert_eq!(
            read.terms,
            [
                Term::Latency(0.99, 5_000_000),
                Term::Errors(0.001),
                Term::Latency(1.0, 1_000_000_000)
            ]
        );
        for text in ["", "p99", "p101<1ms", "errors<2", "q<1ms"] {
            assert!(slo(text).is_err(), "{text}");
        }
    }

    #[test]
    fn calls_have_a_name_a_weight_and_arguments() {
        assert_eq!(call("echo"), Ok(("echo".into(), 1, "{}".into())));
        assert_eq!(
            call("a.b*3 {\"x\": 1}"),
            Ok(("a.b".into(), 3, "{\"x\": 1}".into()))
        );
        for text in ["", "*2", "a*0", "a*b"] {
            assert!(call(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nanoseconds_are_written_with_three_digits() {
        for (ns, text) in [
            (0, "0 ns"),
            (1_234, "1.23 µs"),
            (45_678_900, "45.7 ms"),
            (200_000_000, "200 ms"),
        ] {
            assert_eq!(nanos(ns), text);
        }
    }
}
