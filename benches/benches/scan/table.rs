//! One table of all readers over all bodies: they take turns within a few milliseconds, and each one's fastest turn
//! counts, so that what else the machine does meets none of them more than the others.

use super::{SEED, readers::READERS};
use std::time::{Duration, Instant};
use tollgate_benches::bodies::{Sample, bounds, names, sample};

/// Turns of each reader on each body, and how long one is at least.
const TURNS: usize = 25;
const TURN: Duration = Duration::from_millis(2);

/// Prints it: gigabytes a second, and ours beside the fastest other reader's.
pub(crate) fn print() {
    // As criterion has it: every body once. With a filter somebody wants something else.
    let once = std::env::args().any(|argument| argument == "--test");
    if std::env::args()
        .skip(1)
        .any(|argument| !argument.starts_with("--"))
    {
        return;
    }
    let heads: Vec<&str> = READERS.iter().map(|reader| reader.0).collect();
    println!("| body | {} | ratio to the next |", heads.join(" | "));
    println!("|---|{}---|", "---|".repeat(heads.len()));
    for (shape, size) in names() {
        let Some(sample) = sample(SEED, shape, size) else {
            unreachable!("invariant: the names are those of samples");
        };
        let turns = if once { 1 } else { TURNS };
        let speeds = speeds(&sample, turns, if once { Duration::ZERO } else { TURN });
        let shown: Vec<String> = speeds.iter().map(|speed| format!("{speed:.2}")).collect();
        let next = speeds.iter().skip(1).fold(0.0, |a: f64, b| a.max(*b));
        let ours = speeds.first().copied().unwrap_or_default();
        println!(
            "| {shape}, {size} | {} | {:.2} |",
            shown.join(" | "),
            ours / next
        );
    }
}

/// Bytes a nanosecond of each reader in its fastest turn.
fn speeds(sample: &Sample, turns: usize, turn: Duration) -> Vec<f64> {
    let mut fastest = vec![f64::INFINITY; READERS.len()];
    for _ in 0..turns {
        for ((name, reads), fastest) in READERS.iter().zip(&mut fastest) {
            let (begun, mut times) = (Instant::now(), 0u32);
            loop {
                let read = reads(&sample.bytes, sample.from, &bounds());
                assert!(read, "{name} refuses {} {}", sample.shape, sample.size);
                times += 1;
                // The clock is read for a few small bodies together.
                if times % 8 == 0 || sample.bytes.len() > 4_096 {
                    let took = begun.elapsed();
                    if took >= turn {
                        *fastest = fastest.min(took.as_nanos() as f64 / f64::from(times));
                        break;
                    }
                }
            }
        }
    }
    let bytes = sample.bytes.len() as f64;
    fastest.iter().map(|ns| bytes / ns.max(1.0)).collect()
}
