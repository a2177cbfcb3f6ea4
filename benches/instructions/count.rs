//! Counting with valgrind: cachegrind for whole processes, callgrind for what runs inside of certain functions.

use crate::cases::Case;
use std::process::Command;

/// What was counted in one process.
struct Counted {
    instructions: u64,
    /// Of one call's input.
    bytes: usize,
    /// The scanner's, on valgrind's machine.
    kernel: String,
}

/// Instructions of one call, the bytes it reads, and the scanner's kernel on valgrind's machine.
///
/// The difference between many calls and few: the start of the process, the making of the body and what the first call
/// allocates do not count.
pub fn per_call(case: &Case) -> Result<(u64, usize, String), String> {
    let few = process(case, 1)?;
    // About as many instructions for a small body as for a large one. Of whole processes more calls: what is made before
    // the first does not take the same number in two of them (hashes have seeds).
    let most = if case.within.is_none() { 4_000 } else { 400 };
    let times = (400_000 / few.bytes).clamp(2, most) as u64;
    let many = process(case, 1 + times)?;
    let instructions = many.instructions.saturating_sub(few.instructions) / times;
    Ok((instructions, few.bytes, few.kernel))
}

/// Instructions of a process that makes so many calls.
fn process(case: &Case, times: u64) -> Result<Counted, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut valgrind = Command::new("valgrind");
    match case.within {
        None => valgrind.args([
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
        ]),
        Some(function) => valgrind.args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            &format!("--toggle-collect=*{function}*"),
        ]),
    };
    let ran = valgrind
        .arg(own)
        .args(["run", &case.name, &times.to_string()])
        .output()
        .map_err(|e| {
            format!(
                "valgrind does not run ({e}): install it, e.g. apt-get install valgrind libc6-dbg"
            )
        })?;
    let said = String::from_utf8_lossy(&ran.stderr);
    if !ran.status.success() {
        return Err(format!("valgrind failed on {}:\n{said}", case.name));
    }
    let is_count = |line: &&str| line.contains(" I ") && line.contains("refs:");
    let line = said.lines().find(is_count);
    let digits = |line: &str| line.rsplit(':').next().map(|n| n.replace([',', ' '], ""));
    let count = line.and_then(digits).and_then(|digits| digits.parse().ok());
    let out = String::from_utf8_lossy(&ran.stdout);
    let told = |what: &str| out.lines().find_map(|line| line.strip_prefix(what));
    let bytes = told("bytes=").and_then(|bytes| bytes.parse().ok());
    match (count, bytes, told("kernel=")) {
        (Some(0), ..) => Err(format!("{}: there is no such function", case.name)),
        (Some(instructions), Some(bytes), Some(kernel)) => Ok(Counted {
            instructions,
            bytes,
            kernel: kernel.to_owned(),
        }),
        _ => Err(format!(
            "valgrind did not say how many instructions:\n{said}"
        )),
    }
}
