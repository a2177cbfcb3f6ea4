//! Raft's own log lines: what it warns of is passed on, the rest is not even formatted.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

struct Warnings;

impl Drain for Warnings {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        if record.level().is_at_least(Level::Warning) {
            tracing::warn!(target: "tollgate::raft", "{}", record.msg());
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        level.is_at_least(Level::Warning)
    }
}

pub(super) fn logger() -> Logger {
    Logger::root(Warnings, o!())
}
