//! Fuzz targets: each is a function from bytes to nothing that panics when a promise of the crate is broken.
//!
//! scan, jsonrpc, sse and lines read what peers send; native, intercept and catalogue read policies and judge calls by them.
//! `cargo fuzz run --fuzz-dir proto/fuzz jsonrpc proto/fuzz/seeds/jsonrpc` fuzzes one; plain
//! `cargo run -p tollgate-proto-fuzz --bin jsonrpc` replays its seeds (or the files named) on a stable compiler.

mod jsonrpc;
mod lines;
mod oracle;
mod policy;
mod scan;
mod sse;

#[cfg(fuzzing)]
pub use libfuzzer_sys;

pub use jsonrpc::jsonrpc;
pub use lines::lines;
pub use policy::{catalogue, intercept, native};
pub use scan::scan;
pub use sse::sse;

use std::path::{Path, PathBuf};

/// Makes a binary of a target: a fuzzer under cargo-fuzz, else a replay of its seeds.
#[macro_export]
macro_rules! target {
    ($target:ident) => {
        #[cfg(fuzzing)]
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::$target(bytes));

        #[cfg(not(fuzzing))]
        fn main() -> std::process::ExitCode {
            $crate::replay(stringify!($target), $crate::$target)
        }
    };
}

/// Runs a target over the files named on the command line, or over all of its seeds.
pub fn replay(name: &str, target: fn(&[u8])) -> std::process::ExitCode {
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        files = seeds(name);
    }
    for file in &files {
        match std::fs::read(file) {
            Ok(bytes) => target(&bytes),
            Err(e) => {
                eprintln!("{}: {e}", file.display());
                return std::process::ExitCode::FAILURE;
            }
        }
    }
    println!("{name}: {} inputs", files.len());
    if files.is_empty() {
        return std::process::ExitCode::FAILURE;
    }
    std::process::ExitCode::SUCCESS
}

/// The committed seeds of a target, in order of their names.
pub fn seeds(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(name);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pieces that parsers trip over.
    const PIECES: &[&[u8]] = &[
        b"\"",
        b"\\",
        b"\\u0061",
        b"\\ud800",
        b"\\udc00",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"1e400",
        b"-0",
        b"0.1",
        b"null",
        b"true",
        b"NaN",
        b"\"id\":1,",
        b"\"name\":\"x\",",
        b"\"Name\":\"x\",",
        b"\"__proto__\":{},",
        b"\"params\":{},",
        b"\"result\":{},",
        b"data:",
        b"event:",
        b"&a ",
        b"*a",
        b"\n  ",
        b"- ",
        b": ",
        b"'",
        b"[*]",
        b"(",
        b"{2,9}",
        b"\"deny\"",
        b"99999999999",
    ];

    /// One change: at a place of the bytes, remove some, put a piece there, or copy what stands elsewhere.
    fn change() -> impl Strategy<Value = (usize, usize, usize, usize)> {
        (any::<usize>(), 0usize..24, any::<usize>(), 0usize..4)
    }

    fn mutated(seed: &[u8], changes: &[(usize, usize, usize, usize)]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for &(place, length, other, how) in changes {
            let at = place % (bytes.len() + 1);
            let to = (at + length).min(bytes.len());
            let from = other % (bytes.len() + 1);
            match how {
                0 => drop(bytes.drain(at..to)),
                1 => drop(bytes.splice(at..at, PIECES[other % PIECES.len()].iter().copied())),
                2 => {
                    let copy = bytes[from..(from + length).min(bytes.len())].to_vec();
                    drop(bytes.splice(at..at, copy));
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << (other % 8);
                    }
                }
            }
        }
        bytes
    }

    fn all_hold(
        name: &str,
        target: fn(&[u8]),
        seed: usize,
        changes: &[(usize, usize, usize, usize)],
    ) {
        let files = seeds(name);
        let bytes = std::fs::read(&files[seed % files.len()]).unwrap();
        target(&mutated(&bytes, changes));
    }

    type Target = (&'static str, fn(&[u8]));

    /// Every target by its name.
    const TARGETS: &[Target] = &[
        ("catalogue", catalogue),
        ("intercept", intercept),
        ("jsonrpc", jsonrpc),
        ("lines", lines),
        ("native", native),
        ("scan", scan),
        ("sse", sse),
    ];

    #[test]
    fn every_seed_holds() {
        for (name, target) in TARGETS {
            assert!(!seeds(name).is_empty(), "{name}");
            for file in seeds(name) {
                target(&std::fs::read(file).unwrap());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn mutated_messages_mean_the_same_to_every_strict_parser(
            seed in any::<usize>(), changes in proptest::collection::vec(change(), 0..4),
        ) {
            all_hold("jsonrpc", jsonrpc, seed, &changes);
        }

        #[test]
        fn both_kernels_read_mutated_messages_alike(
            seed in any::<usize>(), changes in proptest::collection::vec(change(), 0..4),
        ) {
            all_hold("scan", scan, seed, &changes);
        }

        #[test]
        fn mutated_event_streams_lose_nothing(
            seed in any::<usize>(), changes in proptest::collection::vec(change(), 0..6),
        ) {
            all_hold("sse", sse, seed, &changes);
        }

        #[test]
        fn mutated_line_streams_lose_nothing(
            seed in any::<usize>(), changes in proptest::collection::vec(change(), 0..6),
        ) {
            all_hold("lines", lines, seed, &changes);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn mutated_policies_judge_every_call_or_say_what_is_wrong(
            dialect in 0usize..3,
            seed in any::<usize>(),
            changes in proptest::collection::vec(change(), 0..4),
        ) {
            let names = ["native", "intercept", "catalogue"];
            all_hold(names[dialect], native, seed, &changes);
        }
    }
}
