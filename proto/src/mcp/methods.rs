//! The closed table of methods that a client may send, per protocol version (each version's `schema.ts`:
//! `ClientRequest`, `ClientNotification`; the tasks extension, SEP-2663).

/// How a method is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// With an id.
    Request,
    /// Without one.
    Notification,
}

use Sent::{Notification, Request};

/// Every version of the specification that a peer may have negotiated, oldest first; dates compare as text.
pub const VERSIONS: &[&str] = &[V1, V2, V3, V4, V5];

const V1: &str = "2024-11-05";
const V2: &str = "2025-03-26";
const V3: &str = "2025-06-18";
const V4: &str = "2025-11-25";
const V5: &str = "2026-07-28";

/// Method, how it is sent, the first and the last version that has it.
const TABLE: &[(&str, Sent, &str, &str)] = &[
    ("completion/complete", Request, V1, V5),
    ("initialize", Request, V1, V4),
    ("logging/setLevel", Request, V1, V4),
    ("ping", Request, V1, V4),
    ("prompts/get", Request, V1, V5),
    ("prompts/list", Request, V1, V5),
    ("resources/list", Request, V1, V5),
    ("resources/read", Request, V1, V5),
    ("resources/subscribe", Request, V1, V4),
    ("resources/templates/list", Request, V1, V5),
    ("resources/unsubscribe", Request, V1, V4),
    ("server/discover", Request, V5, V5),
    ("subscriptions/listen", Request, V5, V5),
    // Tasks are a part of 2025-11-25 and an extension since 2026-07-28.
    ("tasks/cancel", Request, V4, V5),
    ("tasks/get", Request, V4, V5),
    ("tasks/list", Request, V4, V4),
    ("tasks/result", Request, V4, V4),
    ("tasks/update", Request, V5, V5),
    ("tools/call", Request, V1, V5),
    ("tools/list", Request, V1, V5),
    ("notifications/cancelled", Notification, V1, V5),
    ("notifications/initialized", Notification, V1, V4),
    ("notifications/progress", Notification, V1, V4),
    ("notifications/roots/list_changed", Notification, V1, V4),
    ("notifications/tasks/status", Notification, V4, V4),
];

/// Whether the closed table of this version has the method, for messages from a client (policies.md §4). A version
/// that no specification has knows no method.
pub fn knows_method(version: &str, method: &str) -> bool {
    VERSIONS.contains(&version)
        && TABLE
            .iter()
            .any(|&(name, _, first, last)| name == method && (first..=last).contains(&version))
}

/// How the specification has this method sent; `None` for methods that no version has.
pub fn sent_as(method: &str) -> Option<Sent> {
    let row = TABLE.iter().find(|row| row.0 == method)?;
    Some(row.1)
}

/// The table's own spelling of a method that some version has.
pub fn known_method(method: &str) -> Option<&'static str> {
    let row = TABLE.iter().find(|row| row.0 == method)?;
    Some(row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_knows_its_methods_alone() {
        for (version, method, known) in [
            ("2025-03-26", "initialize", true),
            ("2026-07-28", "initialize", false),
            ("2026-07-28", "server/discover", true),
            ("2025-11-25", "server/discover", false),
            ("2025-06-18", "tasks/get", false),
            ("2025-11-25", "tasks/result", true),
            ("2026-07-28", "tasks/result", false),
            ("2026-07-28", "tasks/update", true),
            ("2026-07-28", "ping", false),
            ("2024-11-05", "tools/call", true),
            ("2025-11-25", "tools/Call", false),
            ("2025-11-25", "sampling/createMessage", false),
            ("2025-12-01", "tools/call", false),
            ("", "tools/call", false),
        ] {
            assert_eq!(knows_method(version, method), known, "{version} {method}");
        }
        for version in VERSIONS {
            assert!(knows_method(version, "tools/call") && knows_method(version, "tools/list"));
        }
    }

    #[test]
    fn a_methods_name_tells_how_it_is_sent() {
        for &(name, sent, first, last) in TABLE {
            assert_eq!(
                name.starts_with("notifications/"),
                sent == Notification,
                "{name}"
            );
            assert!(first <= last && VERSIONS.contains(&first) && VERSIONS.contains(&last));
            assert_eq!(
                TABLE.iter().filter(|row| row.0 == name).count(),
                1,
                "{name}"
            );
        }
    }
}
