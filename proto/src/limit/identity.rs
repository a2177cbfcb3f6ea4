//! What makes two limits the same counter: no positions, no `max`, no messages.

use super::{Scale, Scope, Window};

/// The secret with which identities and keys are hashed (SipHash-2-4-128).
#[derive(Clone)]
pub struct HashKey(pub [u8; 16]);

/// A limit's identity, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(pub u128);

/// A counter's key: identity, scope value and `key` value, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    pub fn hash(&self, _secret: &HashKey) -> Identity {
        todo!()
    }
}

/// Hashes a counter's key. `key` is the canonical form of the `key` value, its type part of it (`s:…`, `n:…`, `b:…`).
pub fn counter_key(
    _secret: &HashKey,
    _identity: Identity,
    _scope_value: &str,
    _key: Option<&str>,
) -> CounterKey {
    todo!()
}
