//! Windows: word windows are UTC calendar windows, durations are aligned to the epoch (limits.md §1).

use jiff::{Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// A limit's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Window {
    /// Milliseconds, 1 s to 366 d; `minute`, `hour` and `day` are durations too.
    Duration(u64),
    /// Monday to Sunday, UTC.
    Week,
    /// A calendar month, UTC.
    Month,
}

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const WEEK_MS: u64 = 7 * DAY_MS;
/// 1970-01-05 is the first Monday.
const MONDAY_MS: u64 = 4 * DAY_MS;

/// Shortest window, milliseconds.
pub const WINDOW_MS_MIN: u64 = SECOND_MS;
/// Longest window given as a duration, milliseconds.
pub const WINDOW_MS_MAX: u64 = 366 * DAY_MS;

/// Suffixes of durations, the longest first: a name uses the first one that divides.
const UNITS: [(&str, u64); 5] = [
    ("d", DAY_MS),
    ("h", HOUR_MS),
    ("m", MINUTE_MS),
    ("s", SECOND_MS),
    ("ms", 1),
];

/// Words that are durations.
const WORDS: [(&str, u64); 4] = [
    ("second", SECOND_MS),
    ("minute", MINUTE_MS),
    ("hour", HOUR_MS),
    ("day", DAY_MS),
];

impl Window {
    /// Parses `second`, `minute`, `hour`, `day`, `week`, `month` or a duration such as `90s`, `15m`, `12h`, `2d`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "week" => return Ok(Window::Week),
            "month" => return Ok(Window::Month),
            _ => {}
        }
        if let Some((_, ms)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(Window::Duration(*ms));
        }
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (count, unit) = text.split_at(end);
        let ms = UNITS
            .iter()
            .find(|(suffix, _)| *suffix == unit)
            .zip(count.parse::<u64>().ok())
            .and_then(|((_, ms), count)| count.checked_mul(*ms))
            .ok_or_else(|| {
                "not a window: second, minute, hour, day, week, month or a duration such as 90s, 15m, 12h, 2d"
                    .to_owned()
            })?;
        Self::duration(ms)
    }

    /// A window of this many milliseconds, if it is 1 s to 366 d long.
    pub fn duration(ms: u64) -> Result<Self, String> {
        if (WINDOW_MS_MIN..=WINDOW_MS_MAX).contains(&ms) {
            Ok(Window::Duration(ms))
        } else {
            Err("a window is 1 second to 366 days long".to_owned())
        }
    }

    /// The id of the window that holds this moment; ids only grow.
    pub fn id(self, unix_ms: u64) -> u64 {
        match self {
            Window::Duration(ms) => unix_ms / ms.max(1),
            Window::Week => unix_ms.saturating_sub(MONDAY_MS) / WEEK_MS,
            Window::Month => {
                // Years after 9999 count as its last month: later than any clock that is believed.
                let at = i64::try_from(unix_ms)
                    .ok()
                    .and_then(|ms| Timestamp::from_millisecond(ms).ok())
                    .unwrap_or(Timestamp::MAX);
                let date = TimeZone::UTC.to_datetime(at);
                date.year() as u64 * 12 + date.month() as u64
            }
        }
    }

    /// First millisecond of the window and of the next one. The days before the first Monday of 1970 belong to week 0.
    pub fn bounds_ms(self, id: u64) -> (u64, u64) {
        let next = id.saturating_add(1);
        match self {
            Window::Duration(ms) => (id.saturating_mul(ms), next.saturating_mul(ms)),
            Window::Week => {
                let start = |id: u64| id.saturating_mul(WEEK_MS).saturating_add(MONDAY_MS);
                (if id == 0 { 0 } else { start(id) }, start(next))
            }
            Window::Month => (month_start_ms(id), month_start_ms(next)),
        }
    }

    /// Canonical name, part of a limit's identity: `minute`, `90s`, `week` … Equal windows have equal names.
    pub fn name(self) -> String {
        let ms = match self {
            Window::Week => return "week".to_owned(),
            Window::Month => return "month".to_owned(),
            Window::Duration(ms) => ms,
        };
        if let Some((word, _)) = WORDS.iter().find(|(_, length)| *length == ms) {
            return (*word).to_owned();
        }
        let (suffix, unit) = UNITS
            .iter()
            .find(|(_, unit)| ms.is_multiple_of(*unit))
            .unwrap_or(&("ms", 1));
        format!("{}{suffix}", ms / unit)
    }
}

/// First millisecond of a month; 0 before 1970, `u64::MAX` after 9999.
fn month_start_ms(id: u64) -> u64 {
    let month = (id.saturating_sub(1) % 12 + 1) as i8;
    let year = i16::try_from(id.saturating_sub(1) / 12).unwrap_or(i16::MAX);
    let Ok(date) = civil::Date::new(year, month, 1) else {
        return u64::MAX;
    };
    match TimeZone::UTC.to_timestamp(date.to_datetime(civil::Time::midnight())) {
        Ok(at) => at.as_millisecond().max(0) as u64,
        Err(_) => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_rfc3339;
    use proptest::prelude::*;

    fn at(text: &str) -> u64 {
        parse_rfc3339(text).unwrap()
    }

    #[test]
    fn words_and_durations_are_parsed_and_named_canonically() {
        for (text, name) in [
            ("second", "second"),
            ("1s", "second"),
            ("60s", "minute"),
            ("1m", "minute"),
            ("3600s", "hour"),
            ("24h", "day"),
            ("week", "week"),
            ("7d", "7d"),
            ("month", "month"),
            ("90s", "90s"),
            ("900s", "15m"),
            ("1500ms", "1500ms"),
            ("366d", "366d"),
        ] {
            let window = Window::parse(text).unwrap();
            assert_eq!(window.name(), name, "{text}");
            assert_eq!(Window::parse(name), Ok(window), "{name}");
        }
        for text in [
            "",
            "s",
            "0s",
            "999ms",
            "367d",
            "1w",
            "1.5h",
            "-1s",
            "+1s",
            "1 s",
            "Minute",
            "1h30m",
            "year",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(Window::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn calendar_windows_end_at_their_borders_in_utc() {
        // 2026-01-01 is a Thursday, 2028 a leap year.
        for (window, last, first) in [
            (
                Window::Week,
                "2026-01-04T23:59:59.999Z",
                "2026-01-05T00:00:00Z",
            ),
            (
                Window::Week,
                "2024-12-29T23:59:59.999Z",
                "2024-12-30T00:00:00Z",
            ),
            (
                Window::Month,
                "2026-01-31T23:59:59.999Z",
                "2026-02-01T00:00:00Z",
            ),
            (
                Window::Month,
                "2028-02-29T23:59:59.999Z",
                "2028-03-01T00:00:00Z",
            ),
            (
                Window::Month,
                "2026-12-31T23:59:59.999Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                Window::Duration(DAY_MS),
                "2026-06-30T23:59:59.999Z",
                "2026-07-01T00:00:00Z",
            ),
            (
                Window::Duration(MINUTE_MS),
                "2026-06-30T23:59:59.999Z",
                "2026-07-01T00:00:00Z",
            ),
        ] {
            let (last, first) = (at(last), at(first));
            assert_eq!(window.id(last) + 1, window.id(first), "{window:?}");
            assert_eq!(window.bounds_ms(window.id(last)).1, first, "{window:?}");
            assert_eq!(window.bounds_ms(window.id(first)).0, first, "{window:?}");
        }
        assert_eq!(Window::Month.id(at("2026-07-28T00:00:00Z")), 12 * 2026 + 7);
    }

    #[test]
    fn the_epoch_and_the_end_of_time_are_windows_too() {
        for window in [Window::Duration(WINDOW_MS_MAX), Window::Week, Window::Month] {
            for moment in [0, u64::MAX - 1, u64::MAX] {
                let (start, end) = window.bounds_ms(window.id(moment));
                assert!(
                    start <= moment && (moment < end || end == u64::MAX),
                    "{window:?} {moment}"
                );
            }
            let (start, end) = window.bounds_ms(u64::MAX);
            assert!(start <= end, "{window:?}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_lies_in_its_window_and_ids_only_grow(
            moment in 0..4_102_444_800_000u64, later in 0..WINDOW_MS_MAX, ms in WINDOW_MS_MIN..=WINDOW_MS_MAX
        ) {
            for window in [Window::Duration(ms), Window::Week, Window::Month] {
                let id = window.id(moment);
                let (start, end) = window.bounds_ms(id);
                prop_assert!(start <= moment && moment < end);
                prop_assert!(window.id(moment + later) >= id);
                prop_assert_eq!(window.id(end), id + 1);
                prop_assert_eq!(window.bounds_ms(id + 1).0, end);
                prop_assert_eq!(Window::parse(&window.name()), Ok(window));
            }
        }
    }
}
