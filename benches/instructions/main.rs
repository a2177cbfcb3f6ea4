//! Instructions a call and a byte, counted by valgrind, which the load of the machine does not change.
//!
//! `cargo bench -p tollgate-benches --bench instructions` compares every case with `baseline.txt` and fails where one
//! grew by more than 5 %; with `-- --update` behind it, it writes the baseline. `run CASE TIMES` is what valgrind runs.

mod baseline;
mod cases;
mod count;
#[path = "../benches/gateway/inside/mod.rs"]
#[allow(dead_code, reason = "the bench of the gateway uses more of it")]
mod inside;

use baseline::{Baseline, Compared};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo adds `--bench`.
    let arguments: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| *argument != "--bench")
        .collect();
    let done = match arguments[..] {
        ["run", case, times] => run(case, times),
        // As the other benches do: every case once, nothing counted.
        ["--test"] => {
            cases::all().iter().for_each(|case| ((case.make)().call)());
            Ok(())
        }
        ["--update"] => measure().and_then(|found| found.write()),
        [] => measure().and_then(|found| compare(&found)),
        _ => Err("usage: instructions [--test | --update | run CASE TIMES]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("instructions: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(case: &str, times: &str) -> Result<(), String> {
    let times: u32 = times.parse().map_err(|_| format!("{times} is no number"))?;
    let found = cases::all().into_iter().find(|found| found.name == case);
    let case = found.ok_or_else(|| format!("no case {case}"))?;
    // Valgrind's machine is not the one outside: it is this one that counts.
    println!("kernel={}", proto::scan::kernel());
    let work = (case.make)();
    println!("bytes={}", work.bytes);
    for _ in 0..times {
        (work.call)();
    }
    Ok(())
}

fn measure() -> Result<Baseline, String> {
    let mut found = Baseline::of_this_machine()?;
    for case in cases::all() {
        let (instructions, bytes, kernel) = count::per_call(&case)?;
        found.kernel = kernel;
        let a_byte = instructions as f64 / bytes as f64;
        println!(
            "{:34} {:>8} bytes {instructions:>10} instructions {a_byte:>7.3} a byte",
            case.name, bytes
        );
        found.push(case.name, bytes, instructions);
    }
    Ok(found)
}

fn compare(found: &Baseline) -> Result<(), String> {
    let compared = Baseline::read()?.compare(found);
    match compared {
        Compared::Elsewhere(why) => {
            println!("Not compared: {why}.");
            Ok(())
        }
        Compared::Changes(lines) => {
            for line in &lines {
                println!("{line}");
            }
            Ok(())
        }
        Compared::Grown(lines) => Err(format!(
            "more instructions than the baseline allows:\n{}\nIf they are worth it: `cargo bench -p tollgate-benches --bench instructions -- --update`, and say why in the commit.",
            lines.join("\n")
        )),
    }
}
