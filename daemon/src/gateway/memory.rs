//! What a connection remembers: whom its last request came from, so that the next one with the same head costs no hash
//! and no look-up. It holds for one view; expiry is checked at every request.

use super::{Ends, Gate, error::Answer, identify, identify::Caller};
use crate::view::View;
use http::{HeaderName, HeaderValue, header, request::Parts};
use proto::time::Now;
use std::{cell::RefCell, rc::Rc, sync::Arc};
use zeroize::Zeroizing;

/// Longest `Authorization` that is remembered, bytes.
const AUTHORIZATION_MAX: usize = 256;

/// A connection's memory.
#[derive(Default)]
pub struct Memory(RefCell<Option<Known>>);

struct Known {
    view: Arc<View>,
    /// As it came; wiped when it is forgotten.
    authorization: Zeroizing<Vec<u8>>,
    host: HeaderValue,
    caller: Rc<Caller>,
}

/// What of a head decides who calls, where it is simple enough to be compared: `Host` and `Authorization` once, and no
/// `Origin`.
fn plain(parts: &Parts) -> Option<(&HeaderValue, &HeaderValue)> {
    let once = |name: HeaderName| {
        let mut values = parts.headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    let simple = parts.uri.authority().is_none() && !parts.headers.contains_key(header::ORIGIN);
    let authorization = simple.then(|| once(header::AUTHORIZATION)).flatten()?;
    Some((once(header::HOST)?, authorization))
}

impl Memory {
    /// The caller of `/mcp/<server>`: remembered, or found out and remembered.
    pub(super) fn caller(
        &self,
        gate: &Gate,
        view: &Arc<View>,
        server: &str,
        parts: &Parts,
        ends: Ends,
        now: Now,
    ) -> Result<Rc<Caller>, Answer> {
        let plain = plain(parts);
        if let (Some((host, authorization)), Some(known)) = (plain, &*self.0.borrow())
            && Arc::ptr_eq(&known.view, view)
            && *known.caller.server == *server
            && known.host == host
            && same(&known.authorization, authorization.as_bytes())
            && known.caller.grant.lives(gate.freshness.expiry_ms(now))
        {
            return Ok(known.caller.clone());
        }
        identify::check_origin(view, parts, ends.local)?;
        let caller = Rc::new(identify::caller(gate, view, server, parts, ends.peer, now)?);
        if let Some((host, authorization)) = plain
            && authorization.len() <= AUTHORIZATION_MAX
        {
            *self.0.borrow_mut() = Some(Known {
                view: view.clone(),
                authorization: Zeroizing::new(authorization.as_bytes().to_vec()),
                host: host.clone(),
                caller: caller.clone(),
            });
        }
        Ok(caller)
    }
}

/// In a time that depends on the lengths alone.
fn same(ours: &[u8], theirs: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(ours, theirs).is_ok()
}
