//! What makes two limits the same counter: no positions, no `max`, no messages.

use super::{Scale, Scope, Window};
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

/// The secret with which identities and keys are hashed (SipHash-2-4-128).
#[derive(Clone)]
pub struct HashKey(pub [u8; 16]);

/// A limit's identity, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity(pub u128);

/// A counter's key: identity, scope value and `key` value, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CounterKey(pub u128);

/// The parts of an identity.
#[derive(Clone, Copy, Debug)]
pub struct IdentityParts<'a> {
    /// Server name.
    pub server: &'a str,
    /// Policy name.
    pub policy: &'a str,
    /// Tool key as written, or `*` for limits over all tools.
    pub tool: &'a str,
    /// Counter name; a rule without one is `_rate_<window>`.
    pub counter: &'a str,
    /// Scope.
    pub scope: Scope,
    /// Window; `None` = in flight.
    pub window: Option<Window>,
    /// Fixed point.
    pub scale: Scale,
    /// Shadow limits count under identities of their own.
    pub shadow: bool,
}

impl IdentityParts<'_> {
    /// Hashes the parts, each with its length, so that no two lists of parts meet.
    pub fn hash(&self, secret: &HashKey) -> Identity {
        let mut parts = Parts::new(secret, "identity");
        for text in [self.server, self.policy, self.tool, self.counter] {
            parts.text(text);
        }
        // Words rather than discriminants: identities outlive a build.
        parts.text(match self.scope {
            Scope::Session => "session",
            Scope::Grant => "grant",
            Scope::Server => "server",
            Scope::All => "all",
        });
        parts.option(self.window.map(Window::name).as_deref());
        parts.text(match self.scale {
            Scale::Integer => "0",
            Scale::Micro => "6",
        });
        parts.text(if self.shadow { "shadow" } else { "enforce" });
        Identity(parts.finish())
    }
}

/// Hashes a counter's key. `key` is the canonical form of the `key` value, its type part of it (`s:…`, `n:…`, `b:…`).
pub fn counter_key(
    secret: &HashKey,
    identity: Identity,
    scope_value: &str,
    key: Option<&str>,
) -> CounterKey {
    let mut parts = Parts::new(secret, "counter");
    parts.0.write(&identity.0.to_le_bytes());
    parts.text(scope_value);
    parts.option(key);
    CounterKey(parts.finish())
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(…)")
    }
}

/// A list of parts being hashed; bytes are fixed (little-endian) on every platform.
struct Parts(SipHasher24);

impl Parts {
    fn new(secret: &HashKey, what: &str) -> Self {
        let mut parts = Self(SipHasher24::new_with_key(&secret.0));
        parts.text(what);
        parts
    }
    fn text(&mut self, text: &str) {
        self.0.write(&(text.len() as u64).to_le_bytes());
        self.0.write(text.as_bytes());
    }
    fn option(&mut self, text: Option<&str>) {
        self.0.write(&[u8::from(text.is_some())]);
        self.text(text.unwrap_or_default());
    }
    fn finish(self) -> u128 {
        self.0.finish128().as_u128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SECRET: HashKey = HashKey([7; 16]);
    const PARTS: IdentityParts<'static> = IdentityParts {
        server: "flux",
        policy: "images",
        tool: "img2img",
        counter: "rate",
        scope: Scope::Grant,
        window: Some(Window::Duration(60_000)),
        scale: Scale::Integer,
        shadow: false,
    };

    #[test]
    fn every_part_makes_another_identity() {
        let week = Some(Window::Week);
        let all = [
            PARTS,
            IdentityParts {
                server: "flux2",
                ..PARTS
            },
            IdentityParts {
                policy: "other",
                ..PARTS
            },
            IdentityParts { tool: "*", ..PARTS },
            IdentityParts {
                counter: "r",
                ..PARTS
            },
            IdentityParts {
                server: "fluxi",
                policy: "mages",
                ..PARTS
            },
            IdentityParts {
                server: "",
                policy: "fluximages",
                ..PARTS
            },
            IdentityParts {
                scope: Scope::All,
                ..PARTS
            },
            IdentityParts {
                window: week,
                ..PARTS
            },
            IdentityParts {
                window: None,
                ..PARTS
            },
            IdentityParts {
                scale: Scale::Micro,
                ..PARTS
            },
            IdentityParts {
                shadow: true,
                ..PARTS
            },
        ];
        let hashes: HashSet<_> = all.iter().map(|parts| parts.hash(&SECRET)).collect();
        assert_eq!(hashes.len(), all.len());
        assert_ne!(PARTS.hash(&SECRET), PARTS.hash(&HashKey([8; 16])));
    }

    #[test]
    fn an_identity_is_the_same_in_every_build() {
        // Golden: a change here makes every counter of every installation start over.
        assert_eq!(
            PARTS.hash(&SECRET).0,
            GOLDEN,
            "{:#x}",
            PARTS.hash(&SECRET).0
        );
    }
    const GOLDEN: u128 = 0x0a11_a137_55a1_d253_048c_4b03_ef46_2406;

    #[test]
    fn every_scope_value_and_key_has_a_counter_of_its_own() {
        let identity = PARTS.hash(&SECRET);
        let keys: HashSet<_> = [
            ("g1", None),
            ("g2", None),
            ("g1", Some("")),
            ("g1", Some("s:1")),
            ("g1", Some("n:1")),
            ("g1s:1", None),
            ("g1s", Some(":1")),
        ]
        .into_iter()
        .map(|(scope, key)| counter_key(&SECRET, identity, scope, key))
        .collect();
        assert_eq!(keys.len(), 7);
        let other = IdentityParts { tool: "*", ..PARTS }.hash(&SECRET);
        assert_ne!(
            counter_key(&SECRET, identity, "g1", None),
            counter_key(&SECRET, other, "g1", None)
        );
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{SECRET:?}"), "HashKey(…)");
    }
}
