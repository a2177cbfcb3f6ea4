//! The bench's bodies for readers that are not in Rust: writes them, and times our reader on what it wrote.
//!
//! ```text
//! bodies write FOLDER    one file a body, named by shape and size
//! bodies time FOLDER     a line a file: its name, a tab, nanoseconds of one read
//! ```

use proto::scan::{From, read};
use std::{
    fs,
    hint::black_box,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};
use tollgate_benches::bodies::{bounds, samples};

/// That of `benches/benches/scan`.
const SEED: u64 = 0x7011;
/// How long one body is read over and over; the fastest of [`PARTS`] counts.
const PART: Duration = Duration::from_millis(4);
const PARTS: usize = 12;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [what, folder] if what == "write" => write(Path::new(folder)),
        [what, folder] if what == "time" => time(Path::new(folder)),
        _ => Err("write FOLDER, or time FOLDER".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bodies: {error}");
            ExitCode::from(2)
        }
    }
}

fn name(shape: &str, size: &str) -> String {
    format!("{shape}, {size}").replace('/', " ")
}

fn write(folder: &Path) -> Result<(), String> {
    for sample in samples(SEED) {
        let path = folder.join(name(sample.shape, sample.size));
        fs::write(&path, &sample.bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

fn time(folder: &Path) -> Result<(), String> {
    for sample in samples(SEED) {
        let name = name(sample.shape, sample.size);
        let path = folder.join(&name);
        let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{name}\t{:.1}", fastest(&bytes, sample.from)?);
    }
    Ok(())
}

/// Nanoseconds of one read.
fn fastest(bytes: &[u8], from: From) -> Result<f64, String> {
    let mut best = f64::INFINITY;
    for _ in 0..PARTS {
        let begun = Instant::now();
        let mut reads = 0u32;
        while begun.elapsed() < PART {
            for _ in 0..8 {
                if read(black_box(bytes), &bounds(), from).is_err() {
                    return Err("a body was refused".into());
                }
            }
            reads += 8;
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / f64::from(reads));
    }
    Ok(best)
}
