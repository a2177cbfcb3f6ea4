//! The committed counts, and what they are compared with.

use std::{fs, path::PathBuf, process::Command};

/// A count may grow by this much, in percent.
const GROWTH_PERCENT_MAX: f64 = 5.0;
/// Fewer instructions than this are not compared in percent: a branch more is not a regression.
const GROWTH_MIN: u64 = 20;

/// Counts, and under what they hold.
pub struct Baseline {
    /// The compiler, e.g. `rustc 1.95.0`.
    compiler: String,
    /// The scanner's kernel, e.g. `avx2`.
    pub kernel: String,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    bytes: usize,
    instructions: u64,
}

/// What a comparison says.
pub enum Compared {
    /// The counts do not hold here.
    Elsewhere(String),
    /// None grew too much; those that changed.
    Changes(Vec<String>),
    /// These grew too much, are new or are missing.
    Grown(Vec<String>),
}

impl Baseline {
    /// Without counts yet.
    pub fn of_this_machine() -> Result<Self, String> {
        let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
        let said = Command::new(rustc).arg("--version").output();
        let said = said.map_err(|e| format!("rustc does not run: {e}"))?;
        let said = String::from_utf8_lossy(&said.stdout);
        let compiler = said
            .split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ");
        Ok(Self {
            compiler,
            kernel: String::new(),
            rows: Vec::new(),
        })
    }

    /// Adds a count.
    pub fn push(&mut self, name: String, bytes: usize, instructions: u64) {
        self.rows.push(Row {
            name,
            bytes,
            instructions,
        });
    }

    fn path() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions/baseline.txt")
    }

    /// The committed one.
    pub fn read() -> Result<Self, String> {
        let text = fs::read_to_string(Self::path()).map_err(|e| format!("baseline.txt: {e}"))?;
        let mut baseline = Self {
            compiler: String::new(),
            kernel: String::new(),
            rows: Vec::new(),
        };
        for line in text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                ["compiler", compiler] => baseline.compiler = compiler.to_owned(),
                ["kernel", kernel] => baseline.kernel = kernel.to_owned(),
                [name, bytes, instructions, _] => {
                    let number =
                        |text: &str| text.parse().map_err(|_| format!("baseline.txt: {line}"));
                    baseline.push(
                        name.to_owned(),
                        number(bytes)? as usize,
                        number(instructions)?,
                    );
                }
                _ => return Err(format!("baseline.txt: {line}")),
            }
        }
        Ok(baseline)
    }

    /// Writes it to where it is committed.
    pub fn write(&self) -> Result<(), String> {
        let mut text = String::from(
            "# Instructions of one call, by valgrind: name, bytes, instructions, instructions a byte.\n# Written by `cargo bench -p tollgate-benches --bench instructions -- --update`.\n",
        );
        text += &format!("compiler\t{}\nkernel\t{}\n", self.compiler, self.kernel);
        for row in &self.rows {
            let a_byte = row.instructions as f64 / row.bytes as f64;
            text += &format!(
                "{}\t{}\t{}\t{a_byte:.3}\n",
                row.name, row.bytes, row.instructions
            );
        }
        fs::write(Self::path(), text).map_err(|e| format!("baseline.txt: {e}"))
    }

    /// How `found` differs from this.
    pub fn compare(&self, found: &Baseline) -> Compared {
        for (what, here, there) in [
            ("compiler", &found.compiler, &self.compiler),
            ("kernel", &found.kernel, &self.kernel),
        ] {
            if here != there {
                return Compared::Elsewhere(format!(
                    "the {what} is {here}, the baseline was counted with {there}"
                ));
            }
        }
        let mut changes = Vec::new();
        let mut grown = Vec::new();
        for row in &found.rows {
            let Some(old) = self.rows.iter().find(|old| old.name == row.name) else {
                grown.push(format!("{}: not in the baseline", row.name));
                continue;
            };
            let percent = 100.0 * (row.instructions as f64 / old.instructions as f64 - 1.0);
            let line = format!(
                "{}: {} instructions instead of {} ({percent:+.1} %)",
                row.name, row.instructions, old.instructions
            );
            if percent > GROWTH_PERCENT_MAX && row.instructions > old.instructions + GROWTH_MIN {
                grown.push(line);
            } else if percent.abs() > 1.0 {
                changes.push(line);
            }
        }
        for old in &self.rows {
            if !found.rows.iter().any(|row| row.name == old.name) {
                grown.push(format!("{}: counted no more", old.name));
            }
        }
        if grown.is_empty() {
            Compared::Changes(changes)
        } else {
            Compared::Grown(grown)
        }
    }
}
