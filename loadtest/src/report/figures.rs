//! Which charts a result has, and what they are made of.

use super::{
    bars::{Bars, Group},
    chart::{Axis, Chart, LINES_MAX, Line},
    format,
    model::{self, Run},
    scale::{Scale, Unit},
};
use crate::{
    histogram::Histogram,
    result::{Class, Limits, Round, Second, Verdict},
};

/// Most points of a line over time; beyond, neighbouring seconds are averaged.
const POINTS_MAX: usize = 300;
/// Most windows that are drawn; the tables have more.
const GROUPS_MAX: usize = 24;

/// The points of a percentile curve: the quantile below which a value lies, and the value.
fn curve(histogram: &Histogram, tail: f64) -> Vec<(f64, f64)> {
    if histogram.count == 0 {
        return Vec::new();
    }
    // Even on the axis, which is logarithmic in 1 − q: 60 points for each factor of ten.
    let points = (-tail.log10() * 60.0).round() as usize;
    let quantiles = (0..=points).map(|at| 1.0 - tail.powf(at as f64 / points as f64));
    quantiles
        .filter(|q| {
            // Beyond the last value that was measured there is nothing to draw.
            (1.0 - q) * histogram.count as f64 >= 0.5 || *q == 0.0
        })
        .map(|q| (q, histogram.quantile(q) as f64))
        .collect()
}

/// How far out the axis goes for so many values: to the nine beyond the last one measured, 99 % to 99.999 %.
fn tail(count: u64) -> f64 {
    let nines = (count.max(1) as f64).log10().ceil().clamp(2.0, 5.0);
    10f64.powf(-nines)
}

fn percentile_chart(
    title: String,
    caption: &str,
    curves: Vec<(String, Histogram, bool)>,
) -> Option<Chart> {
    let most = curves.iter().map(|(_, h, _)| h.count).max().unwrap_or(0);
    if most == 0 {
        return None;
    }
    let tail = tail(most);
    let mut style = 0;
    let mut lines = Vec::new();
    for (name, histogram, faint) in curves {
        let points = curve(&histogram, tail);
        if points.is_empty() {
            continue;
        }
        lines.push(Line {
            name,
            style: if faint { 0 } else { style },
            points,
            faint,
        });
        if !faint {
            style += 1;
        }
    }
    let values = lines.iter().flat_map(|line| &line.points).map(|p| p.1);
    let scale = Scale::of_latencies(values);
    Some(Chart {
        title,
        caption: caption.into(),
        x: Axis {
            title: "Percentile (each step to the right: ten times rarer)".into(),
            scale: Scale::Tail { tail },
            unit: Unit::Quantile,
        },
        y: Axis {
            title: latency_title(scale),
            scale,
            unit: Unit::Latency,
        },
        lines,
        borders: Vec::new(),
        level: None,
    })
}

fn latency_title(scale: Scale) -> String {
    if scale.is_log() {
        "Latency (logarithmic)".into()
    } else {
        "Latency".into()
    }
}

/// Percentile curves of one result: by class, its rounds behind them; or by step.
pub fn percentiles(run: &Run) -> Option<Chart> {
    let rounds = &run.document.rounds;
    if !model::repeated(&run.document) {
        let skipped = rounds.len().saturating_sub(LINES_MAX);
        let steps = rounds.iter().skip(skipped);
        let curves = steps.map(|r| (r.name.clone(), model::good(r), false));
        return percentile_chart(
            "Latency by percentile, step by step".into(),
            "Good replies. A point says: this share of them came within this time.",
            curves.collect(),
        );
    }
    let all = model::together(rounds);
    let mut curves = Vec::new();
    if rounds.len() > 1 && rounds.len() <= 50 {
        curves.extend(
            rounds
                .iter()
                .map(|r| (r.name.clone(), model::good(r), true)),
        );
    }
    for class in Class::ALL {
        let of_class = all.classes.iter().filter(|c| c.class == class);
        let histogram = of_class.fold(Histogram::default(), |h, c| h.merged(&c.latency));
        if histogram.count > 0 && curves.iter().filter(|c| !c.2).count() < LINES_MAX {
            curves.push((class.name().to_owned(), histogram, false));
        }
    }
    percentile_chart(
        "Latency by percentile".into(),
        if rounds.len() > 1 {
            "A point says: this share of the replies of its kind came within this time. Thin lines: each round's good replies."
        } else {
            "A point says: this share of the replies of its kind came within this time."
        },
        curves,
    )
}

/// Percentile curves of several results, one line each.
pub fn percentiles_of_all(runs: &[Run]) -> Option<Chart> {
    let curves = runs.iter().take(LINES_MAX).map(|run| {
        let all = model::together(&run.document.rounds);
        (run.title.clone(), model::good(&all), false)
    });
    percentile_chart(
        "Latency by percentile, all results".into(),
        "Good replies, all rounds together. A point says: this share of them came within this time.",
        curves.collect(),
    )
}

/// All rounds' seconds on one time axis, with the borders between rounds.
struct Timeline {
    /// Time and what happened.
    bins: Vec<(f64, Vec<Second>)>,
    borders: Vec<(f64, String)>,
    seconds: f64,
    /// Seconds that one point stands for.
    each: usize,
}

fn timeline(rounds: &[Round]) -> Timeline {
    let total: usize = rounds.iter().map(|round| round.series.len()).sum();
    let each = total.div_ceil(POINTS_MAX).max(1);
    let (mut bins, mut borders, mut start) = (Vec::new(), Vec::new(), 0.0);
    for round in rounds {
        if rounds.len() > 1 && borders.len() < 40 {
            borders.push((start, round.name.clone()));
        }
        // The last second of several may be a part of one: its rate would look like a fall.
        let whole = match round.series.len() {
            n if n > 1 && round.seconds < n as f64 - 0.05 => n - 1,
            n => n,
        };
        for (at, part) in round.series[..whole].chunks(each).enumerate() {
            bins.push((start + (at * each) as f64 + 0.5, part.to_vec()));
        }
        start += round.series.len() as f64;
    }
    Timeline {
        bins,
        borders,
        seconds: start,
        each,
    }
}

/// A chart over time; none where a second or less was measured.
fn over_time(
    rounds: &[Round],
    title: &str,
    caption: &str,
    y: Axis,
    lines: Vec<Line>,
) -> Option<Chart> {
    let time = timeline(rounds);
    if time.bins.len() < 2 {
        return None;
    }
    let mut caption = caption.to_owned();
    if time.each > 1 {
        caption += &format!(" Each point stands for {} seconds.", time.each);
    }
    Some(Chart {
        title: title.into(),
        caption,
        x: Axis {
            title: "Seconds measured".into(),
            scale: Scale::Linear {
                min: 0.0,
                max: time.seconds,
            },
            unit: Unit::Seconds,
        },
        y,
        lines,
        borders: time.borders,
        level: None,
    })
}

/// Requests that ended in each second, by class.
pub fn throughput(run: &Run) -> Option<Chart> {
    let rounds = &run.document.rounds;
    let time = timeline(rounds);
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &dyn Fn(&Second) -> u64| {
        let points: Vec<_> = time
            .bins
            .iter()
            .map(|(at, part)| {
                let sum = part
                    .iter()
                    .fold(0_u64, |sum, s| sum.saturating_add(value(s)));
                (*at, sum as f64 / part.len().max(1) as f64)
            })
            .collect();
        if points.iter().any(|p| p.1 > 0.0) && lines.len() < LINES_MAX {
            lines.push(Line {
                name: name.to_owned(),
                style: lines.len(),
                points,
                faint: false,
            });
        }
    };
    for class in Class::ALL {
        line(class.name(), &|second| {
            second.done.get(&class).copied().unwrap_or(0)
        });
    }
    line("sent", &|second| second.sent);
    let highest = lines
        .iter()
        .flat_map(|line| &line.points)
        .fold(0.0_f64, |most, p| most.max(p.1));
    let intended = run
        .all
        .rate_intended
        .filter(|_| model::repeated(&run.document));
    let mut chart = over_time(
        rounds,
        "Throughput over time",
        "Requests sent, and requests that ended by how they ended.",
        Axis {
            title: "Requests a second".into(),
            scale: Scale::from_zero(highest.max(intended.unwrap_or(0.0)) * 1.05),
            unit: Unit::Count,
        },
        lines,
    )?;
    chart.level = intended.map(|rate| (rate, format!("intended: {}/s", format::number(rate))));
    Some(chart)
}

/// Latency in each second.
pub fn latency_over_time(run: &Run) -> Option<Chart> {
    let rounds = &run.document.rounds;
    let time = timeline(rounds);
    type Read = fn(&Second) -> u64;
    let reads: [(&str, Read); 3] = [
        ("p50", |s| s.p50_ns),
        ("p99", |s| s.p99_ns),
        ("longest", |s| s.max_ns),
    ];
    let lines: Vec<_> = reads
        .iter()
        .enumerate()
        .map(|(style, (name, read))| Line {
            name: (*name).into(),
            style,
            // Of several seconds the worst: an average of percentiles would be none.
            points: time
                .bins
                .iter()
                .filter_map(|(at, part)| {
                    let worst = part.iter().map(read).max().filter(|ns| *ns > 0)?;
                    Some((*at, worst as f64))
                })
                .collect(),
            faint: false,
        })
        .collect();
    let values = lines.iter().flat_map(|line| &line.points).map(|p| p.1);
    let scale = Scale::of_latencies(values);
    over_time(
        rounds,
        "Latency over time",
        "Of everything that ended in a second. Where a point stands for several seconds it is the worst of them.",
        Axis {
            title: latency_title(scale),
            scale,
            unit: Unit::Latency,
        },
        lines,
    )
}

/// A verdict as a word and as a sign.
pub fn verdict(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Exact => ("exact", "✓"),
        Verdict::Short => ("short", "▼"),
        Verdict::Over => ("over", "▲"),
        Verdict::NotJudged => ("not judged", "?"),
    }
}

/// Windows with their keys, those that are wrong first, then in order of time.
pub fn windows(limits: &Limits) -> Vec<(&str, &crate::result::LimitWindow)> {
    let mut all: Vec<_> = limits
        .keys
        .iter()
        .flat_map(|key| key.windows.iter().map(|window| (key.key.as_str(), window)))
        .collect();
    let order = |verdict| match verdict {
        Verdict::Over => 0,
        Verdict::Short => 1,
        Verdict::Exact | Verdict::NotJudged => 2,
    };
    all.sort_by_key(|(_, window)| (order(window.verdict), window.starts_ms));
    all
}

fn of_asked<T>(asked: [bool; 3], all: [T; 3]) -> Vec<T> {
    let kept = all.into_iter().zip(asked).filter(|(_, asked)| *asked);
    kept.map(|(one, _)| one).collect()
}

/// Admissions in each window against the maximum.
pub fn admissions(limits: &Limits) -> Option<Bars> {
    let all = windows(limits);
    let shown = all.len().min(GROUPS_MAX);
    if shown == 0 {
        return None;
    }
    // Those that are wrong are among the shown; within these time orders.
    let mut chosen = all[..shown].to_vec();
    chosen.sort_by_key(|(key, window)| (window.starts_ms, *key));
    let keys = limits.keys.len();
    // A view that nobody asked for has no place of its own.
    let asked = [true, limits.upstream_record, !limits.audit_logs.is_empty()];
    let groups = chosen.into_iter().map(|(key, window)| {
        let at = format::time_of_day(window.starts_ms);
        let (word, sign) = verdict(window.verdict);
        Group {
            label: at.clone(),
            name: format!("{}, window of {at}: {word}", format::plain(key)),
            sign,
            bars: of_asked(
                asked,
                [
                    Some(window.admitted),
                    window.admitted_upstream,
                    window.admitted_audit,
                ],
            ),
        }
    });
    let mut caption =
        "✓ exact, ▼ short although more was asked for, ▲ over, ? not judged.".to_owned();
    if all.len() > shown {
        caption += &format!(
            " {shown} of {} windows: those that are not exact first, then the earliest.",
            format::count(all.len() as u64)
        );
    }
    Some(Bars {
        title: format!(
            "Admissions in each window against {} ({keys} {})",
            format::count(limits.max),
            if keys == 1 { "key" } else { "keys" }
        ),
        caption,
        x_title: "Window's start (UTC)".into(),
        y_title: "Calls admitted".into(),
        views: of_asked(asked, ["client's view", "upstream's record", "audit logs"])
            .into_iter()
            .map(Into::into)
            .collect(),
        groups: groups.collect(),
        max: (limits.max, format!("max {}", format::count(limits.max))),
    })
}
