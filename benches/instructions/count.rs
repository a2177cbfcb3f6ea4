//! Counting with valgrind's cachegrind.

use std::process::Command;

/// Instructions of one call, and the scanner's kernel on valgrind's machine.
///
/// The difference between many calls and few: the start of the process, the making of the body and what the first call
/// allocates do not count.
pub fn per_call(case: &str, bytes: usize) -> Result<(u64, String), String> {
    // About as many instructions for a small body as for a large one.
    let times = (400_000 / bytes).clamp(2, 400) as u64;
    let (few, kernel) = whole(case, 1)?;
    let (many, _) = whole(case, 1 + times)?;
    Ok((many.saturating_sub(few) / times, kernel))
}

/// Instructions of a whole process.
fn whole(case: &str, times: u64) -> Result<(u64, String), String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let ran = Command::new("valgrind")
        .args([
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
        ])
        .arg(own)
        .args(["run", case, &times.to_string()])
        .output()
        .map_err(|e| {
            format!(
                "valgrind does not run ({e}): install it, e.g. apt-get install valgrind libc6-dbg"
            )
        })?;
    let said = String::from_utf8_lossy(&ran.stderr);
    if !ran.status.success() {
        return Err(format!("valgrind failed on {case}:\n{said}"));
    }
    let is_count = |line: &&str| line.contains(" I ") && line.contains("refs:");
    let line = said.lines().find(is_count);
    let digits = |line: &str| line.rsplit(':').next().map(|n| n.replace([',', ' '], ""));
    let count = line.and_then(digits).and_then(|digits| digits.parse().ok());
    let out = String::from_utf8_lossy(&ran.stdout);
    let kernel = out.lines().find_map(|line| line.strip_prefix("kernel="));
    match (count, kernel) {
        (Some(count), Some(kernel)) => Ok((count, kernel.to_owned())),
        _ => Err(format!(
            "valgrind did not say how many instructions:\n{said}"
        )),
    }
}
