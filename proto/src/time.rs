//! Time is an argument everywhere: one reading serves a whole request.

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Wall clock, milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: u64,
    /// A clock that never steps and does not stop in suspend (CLOCK_BOOTTIME), nanoseconds.
    pub boot_ns: u64,
}

/// Formats a wall-clock reading as RFC 3339 in UTC with milliseconds, e.g. `2026-07-28T09:30:00.125Z`.
pub fn rfc3339(unix_ms: u64) -> String {
    match jiff::Timestamp::from_millisecond(unix_ms.min(i64::MAX as u64) as i64) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => unix_ms.to_string(),
    }
}

/// Parses an RFC 3339 date and time into milliseconds since 1970; dates before 1970 become 0.
pub fn parse_rfc3339(text: &str) -> Result<u64, String> {
    let at: jiff::Timestamp = text
        .parse()
        .map_err(|e| format!("not a date and time like 2027-01-31T00:00:00Z: {e}"))?;
    Ok(at.as_millisecond().max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_formatting_and_parsing() {
        let at = 1_785_230_400_125;
        assert_eq!(rfc3339(at), "2026-07-28T09:20:00.125Z");
        assert_eq!(parse_rfc3339(&rfc3339(at)).unwrap(), at);
        assert!(parse_rfc3339("tomorrow").is_err());
    }
}
