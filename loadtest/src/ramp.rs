//! The highest rate that meets an objective: doubled until it is missed, then halved in on.

use crate::{
    drive::{Driver, Shape},
    plan::text::{Slo, Term, nanos},
    progress::Progress,
    result::{Class, Ramp, RampStep, Round},
};
use tokio::sync::watch;

/// Where the search begins unless it is said.
const FIRST: f64 = 100.0;
/// Below this there is no use in searching.
const LEAST: f64 = 1.0;
/// The answer is this near (as a ratio) to the lowest rate that failed.
const NEAR: f64 = 1.05;
/// Most steps.
const STEPS_MAX: usize = 40;

/// Which rate to try next.
#[derive(Debug, Default)]
struct Search {
    met: Option<f64>,
    failed: Option<f64>,
}

impl Search {
    fn next(&self, first: f64) -> Option<f64> {
        match (self.met, self.failed) {
            (None, None) => Some(first),
            (Some(met), None) => Some(met * 2.0),
            (None, Some(failed)) => (failed > LEAST).then(|| (failed / 2.0).max(LEAST)),
            (Some(met), Some(failed)) => (failed / met > NEAR).then(|| (met * failed).sqrt()),
        }
    }

    fn tried(&mut self, rate: f64, met: bool) {
        if met {
            self.met = Some(self.met.map_or(rate, |r| r.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |r| r.min(rate)));
        }
    }
}

/// Searches; returns a round for each step, and the verdict.
///
/// # Errors
/// A sentence: a round could not be made.
pub fn search(
    slo: &Slo,
    shape: &Shape,
    driver: &mut Driver,
    progress: &watch::Sender<Progress>,
) -> Result<(Vec<Round>, Ramp), String> {
    let first = shape.rate.unwrap_or(FIRST);
    let (mut search, mut rounds, mut steps) = (Search::default(), Vec::new(), Vec::new());
    let mut end = None;
    while let Some(rate) = search.next(first) {
        if steps.len() == STEPS_MAX || driver.interrupted() {
            break;
        }
        let rate = (rate * 10.0).round() / 10.0;
        let shape = Shape {
            name: format!("{rate}/s"),
            rate: Some(rate),
            ..shape.clone()
        };
        let round = driver.round(&shape, progress)?;
        if driver.interrupted() {
            // A part of a step shows what was measured, and decides nothing.
            let why = "interrupted".into();
            let met = false;
            steps.push(RampStep { rate, met, why });
            rounds.push(round);
            break;
        }
        let (met, why) = judge(slo, &round);
        let bottleneck = !met && round.client.bottleneck;
        if bottleneck {
            end = Some(format!(
                "At {rate}/s the client was the bottleneck, so the limit of the target was not found. {}",
                round.client.verdict
            ));
        }
        search.tried(rate, met);
        steps.push(RampStep { rate, met, why });
        rounds.push(round);
        if bottleneck {
            break;
        }
    }
    let verdict = end.unwrap_or_else(|| {
        let failed = || {
            steps
                .iter()
                .rev()
                .find(|s| !s.met && Some(s.rate) == search.failed)
        };
        match (search.met, failed()) {
            (Some(met), Some(step)) => {
                format!(
                    "{met}/s meets {}; {}/s does not: {}.",
                    slo.text, step.rate, step.why
                )
            }
            (Some(met), None) => format!("{met}/s meets {}; more was not tried.", slo.text),
            (None, Some(step)) => {
                format!("No rate met {}: at {}/s {}.", slo.text, step.rate, step.why)
            }
            (None, None) => {
                "Interrupted before the first step was over: no rate was judged.".into()
            }
        }
    });
    let ramp = Ramp {
        slo: slo.text.clone(),
        steps,
        rate_met: search.met,
        rate_failed: search.failed,
        verdict,
    };
    Ok((rounds, ramp))
}

/// Whether a round meets the objective, and why (not).
fn judge(slo: &Slo, round: &Round) -> (bool, String) {
    let total: u64 = round.classes.iter().map(|c| c.count).sum();
    if total == 0 {
        return (false, "nothing was answered".into());
    }
    if round.unsent > 0 {
        let why = format!(
            "{} of {} requests could not be sent",
            round.unsent, round.due
        );
        return (false, why);
    }
    let ok = round.classes.iter().filter(|c| c.class == Class::Ok);
    let ok: u64 = ok.map(|c| c.count).sum();
    let errors = 1.0 - ok as f64 / total as f64;
    let (mut met, mut said) = (true, Vec::new());
    for term in &slo.terms {
        let (holds, text) = match *term {
            Term::Errors(bound) => (
                errors < bound || errors == 0.0,
                format!("errors were {:.3} %", errors * 100.0),
            ),
            Term::Latency(quantile, bound) => {
                let value = round.latency.quantile(quantile);
                let name = match quantile {
                    1.0 => "the longest".into(),
                    q => format!("p{}", (q * 1e6).round() / 1e4),
                };
                (value < bound, format!("{name} was {}", nanos(value)))
            }
        };
        if met && !holds {
            (met, said) = (false, Vec::new());
        }
        if met || !holds {
            said.push(text);
        }
    }
    (met, said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::text::slo,
        result::{ClassResult, Histogram},
    };

    #[test]
    fn the_search_ends_within_five_percent_of_the_truth() {
        for truth in [1.5_f64, 90.0, 100.0, 777.0, 123_456.0] {
            let mut search = Search::default();
            let mut steps = 0;
            while let Some(rate) = search.next(FIRST) {
                search.tried(rate, rate <= truth);
                steps += 1;
            }
            let met = search.met.unwrap();
            assert!(met <= truth && truth / met <= NEAR, "{truth}: {met}");
            assert!(steps <= STEPS_MAX, "{truth}: {steps}");
        }
        let mut never = Search::default();
        while let Some(rate) = never.next(FIRST) {
            never.tried(rate, false);
        }
        assert_eq!(never.met, None);
    }

    #[test]
    fn an_objective_is_missed_by_any_of_its_terms() {
        let mut hdr = crate::histogram::recorder();
        for ms in 1..=100_u64 {
            hdr.record(ms * 1_000_000).unwrap();
        }
        let latency = Histogram::from(&hdr);
        let class = |class, count| ClassResult {
            class,
            code: None,
            count,
            latency: Histogram::default(),
        };
        let round = Round {
            classes: vec![class(Class::Ok, 99), class(Class::Timeout, 1)],
            latency,
            ..Round::default()
        };
        for (text, met, why) in [
            ("p50<60ms,errors<2%", true, "p50 was"),
            ("p50<40ms,errors<2%", false, "p50 was"),
            ("p50<60ms,errors<0.5%", false, "errors were 1.000 %"),
            ("max<1s", true, "the longest was"),
        ] {
            let (holds, said) = judge(&slo(text).unwrap(), &round);
            assert_eq!(holds, met, "{text}: {said}");
            assert!(said.contains(why), "{text}: {said}");
        }
        let unsent = Round { unsent: 1, ..round };
        assert!(!judge(&slo("max<1s").unwrap(), &unsent).0);
    }
}
