//! The machine and this process: what they are and what they use.

use crate::result::Machine;
use rustix::{
    process::{Resource, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use std::{fs, time::Duration};

/// Clock ticks a second in `/proc`: fixed by the kernel's interface on every architecture that Rust supports.
const TICKS: f64 = 100.0;

/// What this machine is.
pub fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let uname = rustix::system::uname();
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kilobytes: u64 = memory
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    Machine {
        host: uname.nodename().to_string_lossy().into_owned(),
        os: format!(
            "{} {}",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy()
        ),
        cpu: field(&read("/proc/cpuinfo"), "model name")
            .unwrap_or_else(|| uname.machine().to_string_lossy().into_owned()),
        cores: cores(),
        memory_bytes: kilobytes * 1024,
    }
}

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the calling thread has used and waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ThreadUse {
    /// Processor time.
    pub cpu: Duration,
    /// Of it, in the kernel (in steps of 10 ms).
    pub system: Duration,
    /// Ready to run but without a processor.
    pub starved: Duration,
}

impl ThreadUse {
    /// Of the calling thread until now.
    pub fn now() -> Self {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let starved = schedule.split_whitespace().nth(1);
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
        Self {
            cpu: Duration::new(cpu.tv_sec.max(0) as u64, cpu.tv_nsec as u32),
            system: Duration::from_secs_f64(ticks(&stat, 15) / TICKS),
            starved: Duration::from_nanos(starved.and_then(|n| n.parse().ok()).unwrap_or(0)),
        }
    }

    /// Between two readings.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            system: self.system.saturating_sub(earlier.system),
            starved: self.starved.saturating_sub(earlier.starved),
        }
    }
}

/// Field `n` (counted from 1, as proc(5) does) of a `stat` line.
fn ticks(stat: &str, n: usize) -> f64 {
    // The second field is a name in parentheses that may hold anything.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let field = behind.split_whitespace().nth(n - 3);
    field.and_then(|f| f.parse().ok()).unwrap_or(0.0)
}

/// Processor time of a process so far, seconds; `None` if there is none of this id.
pub fn process_cpu_s(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some((ticks(&stat, 14) + ticks(&stat, 15)) / TICKS)
}

/// Resident memory of a process: now, and the most it ever was; bytes.
pub fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = |name: &str| -> u64 {
        let line = status.lines().find(|l| l.starts_with(name));
        let number = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
        number.unwrap_or(0)
    };
    (kilobytes("VmRSS:") * 1024, kilobytes("VmHWM:") * 1024)
}

/// Raises the soft limit of open files to the hard one.
///
/// # Errors
/// A sentence: even the hard limit is less than `needed`.
pub fn raise_descriptors(needed: u64) -> Result<(), String> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|n| n >= needed) {
        return Ok(());
    }
    limit.current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, limit);
    match (raised, limit.maximum) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(most)) if most >= needed => Ok(()),
        (_, most) => Err(format!(
            "{needed} open files are needed and this process may have {}: raise the hard limit (`ulimit -Hn`, \
             LimitNOFILE= of systemd) or use fewer --connections",
            most.map_or("fewer".into(), |n| n.to_string())
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_processor_time_is_seen() {
        let before = ThreadUse::now();
        let mut n = 1_u64;
        while ThreadUse::now().since(before).cpu < Duration::from_millis(20) {
            n = std::hint::black_box(n.wrapping_mul(3));
        }
        assert!(process_cpu_s(std::process::id()).is_some_and(|s| s >= 0.01));
        let (now, most) = memory(std::process::id());
        assert!(now > 1 << 20 && most >= now, "{now} {most}");
        assert!(machine().memory_bytes > 1 << 20);
    }

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let stat = "1 (a) b (c) S 1 1 1 0 -1 4194560 1 1 1 1 250 50 0 0 20 0";
        assert_eq!((ticks(stat, 14), ticks(stat, 15)), (250.0, 50.0));
    }

    #[test]
    fn more_descriptors_than_the_hard_limit_are_refused_with_advice() {
        assert_eq!(raise_descriptors(16), Ok(()));
        let error = raise_descriptors(u64::MAX - 1);
        if let Err(error) = error {
            assert!(error.contains("ulimit -Hn"), "{error}");
        }
    }
}
