//! The bounds as typed: one table gives the keys, their documentation, defaults and ranges.

use crate::{
    bounds::Bounds as InForce,
    config::units::{ByteSize, Count, HumanDuration},
};
use proto::doc::{Pos, Spanned};
use schemars::JsonSchema;
use serde::Deserialize;
use std::{fmt::Display, str::FromStr, time::Duration};

/// A unit of a bound and the type it has in force.
trait Unit: Copy + Display + FromStr<Err = String> + PartialOrd {
    type InForce;
    fn in_force(self) -> Self::InForce;
    fn shown(value: Self::InForce) -> Self;
}

macro_rules! unit {
    ($unit:ident, $in_force:ty, |$to:ident| $forward:expr, |$from:ident| $back:expr) => {
        impl Unit for $unit {
            type InForce = $in_force;
            fn in_force(self) -> $in_force {
                let $to = self.0;
                $forward
            }
            fn shown($from: $in_force) -> Self {
                $unit($back)
            }
        }
    };
}
unit!(
    Count,
    usize,
    |n| usize::try_from(n).unwrap_or(usize::MAX),
    |n| n as u64
);
unit!(
    ByteSize,
    usize,
    |n| usize::try_from(n).unwrap_or(usize::MAX),
    |n| n as u64
);
unit!(HumanDuration, Duration, |d| d, |d| d);

macro_rules! bounds {
    ($($(#[doc = $doc:literal])+ $field:ident: $unit:ident = $default:literal, $least:literal..=$most:literal;)+) => {
        /// Every bound of the gateway. What is beyond is refused with 429 or 503 and `Retry-After`, or code
        /// `overloaded`, unless the bound says otherwise.
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct Bounds {$(
            $(#[doc = $doc])+
            #[doc = concat!("Default: `", $default, "`; from `", $least, "` to `", $most, "`.")]
            pub $field: Option<Spanned<$unit>>,
        )+}

        impl Bounds {
            /// The bounds in force; what is out of range is told with its place.
            pub fn resolve(&self, problem: &mut dyn FnMut(Pos, String)) -> InForce {
                let default = InForce::default();
                InForce {$(
                    $field: in_range(stringify!($field), &self.$field, ($least, $most), problem)
                        .map_or(default.$field, Unit::in_force),
                )+}
            }
        }

        /// Names and values of bounds in force, as the configuration writes them; `true`: a bare number.
        pub fn shown(bounds: &InForce) -> Vec<(&'static str, String, bool)> {
            vec![$((
                stringify!($field),
                <$unit>::shown(bounds.$field).to_string(),
                stringify!($unit) == "Count",
            ),)+]
        }

        #[cfg(test)]
        mod tests {
            use super::*;

            #[test]
            fn documented_defaults_are_those_in_force_and_in_range() {
                let default = InForce::default();
                $({
                    let parse = |text: &str| text.parse::<$unit>().unwrap();
                    assert_eq!(parse($default).in_force(), default.$field, stringify!($field));
                    assert!(parse($least) <= parse($default) && parse($default) <= parse($most));
                })+
                assert_eq!(Bounds::default().resolve(&mut |_, _| unreachable!()), default);
            }
        }
    };
}

fn in_range<T: Unit>(
    name: &str,
    value: &Option<Spanned<T>>,
    (least, most): (&str, &str),
    problem: &mut dyn FnMut(Pos, String),
) -> Option<T> {
    let value = value.as_ref()?;
    let parsed = |text: &str| text.parse::<T>().ok();
    let fits = parsed(least).is_none_or(|least| least <= value.value)
        && parsed(most).is_none_or(|most| value.value <= most);
    if !fits {
        let message = format!("`{name}` goes from {least} to {most}, not {}", value.value);
        problem(value.at, message);
    }
    Some(value.value)
}

bounds! {
    /// Largest request body. Beyond: 413.
    body_bytes: ByteSize = "4MiB", "1KiB"..="1GiB";
    /// Largest reply that must be held whole: a filtered list, a message of a stdio server, one SSE event.
    reply_bytes: ByteSize = "16MiB", "1KiB"..="1GiB";
    /// Largest request head. Beyond: 431.
    header_bytes: ByteSize = "32KiB", "8KiB"..="1MiB";
    /// Most header fields in a request. Beyond: 431.
    headers: Count = "100", "16"..="10000";
    /// Deepest nesting of a body. Beyond: 400.
    depth: Count = "64", "8"..="512";
    /// Most keys in one object of a body. Beyond: 400.
    keys_object: Count = "1024", "16"..="1048576";
    /// Most keys in a body. Beyond: 400.
    keys_body: Count = "16384", "16"..="1048576";
    /// Most elements in a batch. Beyond: 400.
    batch: Count = "64", "1"..="1024";
    /// Most open connections of clients. Beyond: accepted and closed at once.
    connections: Count = "4096", "1"..="1048576";
    /// Most open connections of one source address. Beyond: accepted and closed at once.
    connections_source: Count = "512", "1"..="1048576";
    /// Most calls in flight. Beyond: code `overloaded`.
    calls: Count = "4096", "1"..="1048576";
    /// Most calls in flight to one server, unless the server sets its own. Beyond: code `overloaded`.
    calls_server: Count = "1024", "1"..="1048576";
    /// Most calls in flight of one grant. Beyond: code `overloaded`.
    calls_grant: Count = "256", "1"..="1048576";
    /// Most long-lived streams (GET, listen) of one grant.
    streams_grant: Count = "32", "1"..="1048576";
    /// Most sessions.
    sessions: Count = "10000", "1"..="1048576";
    /// Most sessions of one grant.
    sessions_grant: Count = "8", "1"..="65536";
    /// Most new sessions of one grant in a minute.
    sessions_new_minute: Count = "60", "1"..="65536";
    /// A session without a request for this long ends.
    session_idle: HumanDuration = "30m", "1s"..="366d";
    /// A session ends after this long, whatever it does.
    session_life: HumanDuration = "24h", "1s"..="366d";
    /// Most child processes.
    processes: Count = "256", "1"..="65536";
    /// Most child processes of one server, unless the server sets its own.
    processes_server: Count = "32", "1"..="65536";
    /// Wrong tokens that one source address may send in a minute. Beyond: 429 for wrong tokens;
    /// right ones pass.
    failed_tokens_minute: Count = "30", "1"..="1000000";
    /// From the first byte of a connection (or, in HTTP/1.1, of a further request) to the end of its head; TLS handshakes too.
    header_timeout: HumanDuration = "10s", "100ms"..="1h";
    /// From the end of the head to the end of the body.
    body_timeout: HumanDuration = "30s", "100ms"..="1h";
    /// A connection without a request ends after this long.
    idle_timeout: HumanDuration = "75s", "100ms"..="1d";
    /// Time to open a connection to a server.
    connect_timeout: HumanDuration = "5s", "10ms"..="10m";
    /// From forwarding a call to the end of its reply, absolute, unless the server sets its own.
    upstream_timeout: HumanDuration = "5m", "100ms"..="1d";
    /// Idle connections kept to one server by one runtime; 0 = none.
    upstream_idle: Count = "64", "0"..="65536";
    /// Most counters of limits that this node remembers; changes with a restart. Beyond: code `overloaded` for calls
    /// that need a new one.
    counters: Count = "1000000", "1000"..="100000000";
    /// How long a full audit queue may delay a call. Beyond: code `audit`.
    audit_wait: HumanDuration = "100ms", "0ms"..="10s";
    /// On shutdown: how long `/readyz` says 503 while connections are still accepted.
    drain_delay: HumanDuration = "5s", "0s"..="10m";
    /// On shutdown: how long calls in flight may take to finish.
    drain_timeout: HumanDuration = "30s", "0s"..="1h";
}
