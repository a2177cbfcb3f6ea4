//! What a thread counts.

use super::exchange::Exchange;
use crate::{
    histogram::{Histogram, recorder},
    result::{Class, ClassResult, Sample, TargetResult},
};
use hdrhistogram::Histogram as Hdr;
use std::time::{Duration, Instant};

/// Texts of one class that are kept.
const SAMPLES_MAX: usize = 3;
/// Codes of one class that are told apart; the rest is `other`.
const CODES_MAX: usize = 64;
/// How many classes there are.
pub const CLASSES: usize = Class::ALL.len();

/// What happened in one second.
#[derive(Clone, Debug)]
pub struct SecondPart {
    /// Counted from the start of measuring.
    pub second: u32,
    /// Requests sent.
    pub sent: u64,
    /// Requests that ended, by class.
    pub done: [u64; CLASSES],
    /// Their latency.
    pub latency: Hdr<u64>,
}

impl SecondPart {
    /// An empty one.
    pub fn new(second: u32) -> Self {
        Self {
            second,
            sent: 0,
            done: [0; CLASSES],
            latency: recorder(),
        }
    }

    /// Takes another thread's part of the same second in.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        for (mine, more) in self.done.iter_mut().zip(other.done) {
            *mine += more;
        }
        // Both have the same bounds.
        let _ = self.latency.add(&other.latency);
    }
}

/// What a thread counted in a round, or all of them together.
#[derive(Debug)]
pub struct Stats {
    classes: Vec<Kept>,
    targets: Vec<(Hdr<u64>, [u64; CLASSES])>,
    /// From the intended to the actual send.
    pub late: Hdr<u64>,
    /// From the intended send to when the pacer woke.
    pub lag: Hdr<u64>,
    /// To the first event of a stream.
    pub first_event: Hdr<u64>,
    /// Notifications of progress.
    pub progress: u64,
    /// Notifications on listen streams.
    pub listened: u64,
    /// Bytes out and in.
    pub bytes: (u64, u64),
    /// Connections made.
    pub connects: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Requests that were due.
    pub due: u64,
    /// Of them never sent.
    pub unsent: u64,
    /// Sent, and neither answered nor given up when the run was interrupted.
    pub abandoned: u64,
    /// When the last reply that counts came.
    pub last: Option<Instant>,
    /// In words.
    pub samples: Vec<Sample>,
}

#[derive(Debug)]
struct Kept {
    class: Class,
    code: Option<String>,
    latency: Hdr<u64>,
}

impl Stats {
    /// Nothing yet.
    pub fn new(targets: usize) -> Self {
        Self {
            classes: Vec::new(),
            targets: (0..targets).map(|_| (recorder(), [0; CLASSES])).collect(),
            late: recorder(),
            lag: recorder(),
            first_event: recorder(),
            progress: 0,
            listened: 0,
            bytes: (0, 0),
            connects: 0,
            sessions: 0,
            due: 0,
            unsent: 0,
            abandoned: 0,
            last: None,
            samples: Vec::new(),
        }
    }

    /// Counts a request that was due at `due`.
    pub fn record(&mut self, target: usize, due: Instant, exchange: &Exchange) {
        let latency = nanos(exchange.done.saturating_duration_since(due));
        let judged = &exchange.judged;
        self.kept(judged.class, judged.code.as_deref())
            .saturating_record(latency);
        if let Some((all, classes)) = self.targets.get_mut(target) {
            all.saturating_record(latency);
            if let Some(count) = classes.get_mut(judged.class as usize) {
                *count += 1;
            }
        }
        self.late
            .saturating_record(nanos(exchange.sent.saturating_duration_since(due)));
        if let Some(first) = exchange.first_event {
            self.first_event
                .saturating_record(nanos(first.saturating_duration_since(exchange.sent)));
        }
        self.progress += exchange.progress;
        self.bytes.0 += exchange.bytes.0;
        self.bytes.1 += exchange.bytes.1;
        self.connects += exchange.connects;
        self.sessions += exchange.opened;
        self.last = self.last.max(Some(exchange.done));
        if let Some(text) = &judged.text {
            self.sample(judged.class, target, text);
        }
    }

    fn sample(&mut self, class: Class, target: usize, text: &str) {
        let mut known = 0;
        for sample in self.samples.iter().filter(|s| s.class == class) {
            known += 1;
            if sample.text == text {
                return;
            }
        }
        if known < SAMPLES_MAX {
            self.samples.push(Sample {
                class,
                target,
                text: text.to_owned(),
            });
        }
    }

    fn kept(&mut self, class: Class, code: Option<&str>) -> &mut Hdr<u64> {
        let found = |kept: &Kept| kept.class == class && kept.code.as_deref() == code;
        let at = match self.classes.iter().position(found) {
            Some(at) => at,
            None => {
                let of_class = self.classes.iter().filter(|k| k.class == class).count();
                if of_class > CODES_MAX {
                    let rest = |k: &Kept| k.class == class && k.code.as_deref() == Some("other");
                    self.classes.iter().position(rest).unwrap_or(0)
                } else {
                    // The last one of a class takes whatever else there is.
                    let code = if of_class == CODES_MAX {
                        Some("other")
                    } else {
                        code
                    };
                    self.classes.push(Kept {
                        class,
                        code: code.map(str::to_owned),
                        latency: recorder(),
                    });
                    self.classes.len() - 1
                }
            }
        };
        &mut self.classes[at].latency
    }

    /// Takes what another thread counted in.
    pub fn add(&mut self, other: &Self) {
        for kept in &other.classes {
            let _ = self
                .kept(kept.class, kept.code.as_deref())
                .add(&kept.latency);
        }
        for (mine, more) in self.targets.iter_mut().zip(&other.targets) {
            let _ = mine.0.add(&more.0);
            for (mine, more) in mine.1.iter_mut().zip(more.1) {
                *mine += more;
            }
        }
        let _ = self.late.add(&other.late);
        let _ = self.lag.add(&other.lag);
        let _ = self.first_event.add(&other.first_event);
        self.progress += other.progress;
        self.listened += other.listened;
        self.bytes.0 += other.bytes.0;
        self.bytes.1 += other.bytes.1;
        self.connects += other.connects;
        self.sessions += other.sessions;
        self.due += other.due;
        self.unsent += other.unsent;
        self.abandoned += other.abandoned;
        self.last = self.last.max(other.last);
        for sample in &other.samples {
            self.sample(sample.class, sample.target, &sample.text);
        }
    }

    /// Requests that ended.
    pub fn total(&self) -> u64 {
        self.classes.iter().map(|k| k.latency.len()).sum()
    }

    /// Of a class.
    pub fn count(&self, class: Class) -> u64 {
        let of_class = self.classes.iter().filter(|k| k.class == class);
        of_class.map(|k| k.latency.len()).sum()
    }

    /// Of every class together.
    pub fn latency(&self) -> Hdr<u64> {
        let mut all = recorder();
        for kept in &self.classes {
            let _ = all.add(&kept.latency);
        }
        all
    }

    /// As results show it.
    pub fn classes(&self) -> Vec<ClassResult> {
        let mut classes: Vec<ClassResult> = self
            .classes
            .iter()
            .map(|kept| ClassResult {
                class: kept.class,
                code: kept.code.clone(),
                count: kept.latency.len(),
                latency: Histogram::from(&kept.latency),
            })
            .collect();
        classes.sort_by(|a, b| (a.class, &a.code).cmp(&(b.class, &b.code)));
        classes
    }

    /// As results show it.
    pub fn targets(&self) -> Vec<TargetResult> {
        let shown =
            |(target, (latency, classes)): (usize, &(Hdr<u64>, [u64; CLASSES]))| TargetResult {
                target,
                classes: by_class(classes),
                latency: Histogram::from(latency),
            };
        self.targets.iter().enumerate().map(shown).collect()
    }
}

/// Counts by class, those that are not zero.
pub fn by_class(counts: &[u64; CLASSES]) -> std::collections::BTreeMap<Class, u64> {
    let counts = Class::ALL.iter().zip(counts).filter(|(_, n)| **n > 0);
    counts.map(|(class, n)| (*class, *n)).collect()
}

/// Whole nanoseconds.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
