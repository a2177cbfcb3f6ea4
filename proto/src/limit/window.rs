//! Windows: word windows are UTC calendar windows, durations are aligned to the epoch (limits.md §1).

/// A limit's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// Milliseconds, 1 s to 366 d; `minute`, `hour` and `day` are durations too.
    Duration(u64),
    /// Monday to Sunday, UTC.
    Week,
    /// A calendar month, UTC.
    Month,
}

impl Window {
    /// Parses `second`, `minute`, `hour`, `day`, `week`, `month` or a duration such as `90s`, `15m`, `12h`, `2d`.
    pub fn parse(_text: &str) -> Result<Self, String> {
        todo!()
    }
    /// The id of the window that holds this moment; ids only grow.
    pub fn id(self, _unix_ms: u64) -> u64 {
        todo!()
    }
    /// First millisecond of the window and of the next one.
    pub fn bounds_ms(self, _id: u64) -> (u64, u64) {
        todo!()
    }
    /// Canonical name, part of a limit's identity: `minute`, `90s`, `week` …
    pub fn name(self) -> String {
        todo!()
    }
}
