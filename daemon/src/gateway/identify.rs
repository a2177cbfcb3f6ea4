//! Stage 1: who calls? Refuses before a byte of the body is read.

use super::{Asked, Ends, Gate, error::Answer, headers, inflight::Load, memory::Memory};
use crate::{
    clock,
    metrics::{ServerMetrics, Stage},
    view::{Binding, Grant, View},
};
use dashmap::DashMap;
use http::{HeaderMap, StatusCode, header, request::Parts};
use proto::{
    grant::{TokenHash, is_token_shaped},
    id::ServerName,
    time::Now,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Source addresses whose failed tokens are remembered at once; beyond it the oldest minute is forgotten first.
const SOURCES_MAX: usize = 65_536;
const CHALLENGE: &str = "Bearer realm=\"tollgate\"";

/// A caller whose token was right when it was looked at.
#[derive(Debug)]
pub struct Caller {
    /// What its token hashes to: looked up again once the body is whole.
    pub token: TokenHash,
    /// The grant.
    pub grant: Arc<Grant>,
    /// The server it asks for.
    pub server: ServerName,
    /// Counts of what the grant and the server have in flight.
    pub load: Load,
    /// That server's metrics.
    pub metrics: Arc<ServerMetrics>,
}

/// Wrong tokens by source address and minute.
#[derive(Debug, Default)]
pub struct FailedTokens(DashMap<IpAddr, (u64, usize)>);

impl FailedTokens {
    fn minute(now: Now) -> u64 {
        now.boot_ns / 60_000_000_000
    }
    /// Seconds to wait if this address has failed too often in this minute.
    pub fn blocked(&self, source: IpAddr, max: usize, now: Now) -> Option<u64> {
        let entry = self.0.get(&source)?;
        (entry.0 == Self::minute(now) && entry.1 >= max)
            .then(|| 60 - now.boot_ns / 1_000_000_000 % 60)
    }
    /// Counts a wrong token.
    pub fn count(&self, source: IpAddr, now: Now) {
        let minute = Self::minute(now);
        if self.0.len() >= SOURCES_MAX {
            self.0.retain(|_, entry| entry.0 == minute);
            if self.0.len() >= SOURCES_MAX {
                self.0.clear();
            }
        }
        let mut entry = self.0.entry(source).or_insert((minute, 0));
        *entry = if entry.0 == minute {
            (minute, entry.1.saturating_add(1))
        } else {
            (minute, 1)
        };
    }
}

/// Identifies who sent this head, before a byte of its body is read.
pub fn identify(
    gate: &Gate,
    ends: Ends,
    memory: &Memory,
    server: &str,
    parts: &mut Parts,
) -> Result<Box<Asked>, Answer> {
    let now = clock::now();
    let view = gate.views.load().ok_or_else(super::decide::no_view)?;
    headers::check_size(&parts.headers, &view.bounds)?;
    let caller = memory.caller(gate, &view, server, parts, ends, now)?;
    let read_ns = clock::boot_ns();
    gate.metrics
        .stage(Stage::Identify, read_ns.saturating_sub(now.boot_ns));
    Ok(Box::new(Asked {
        caller,
        headers: std::mem::take(&mut parts.headers),
        ends,
        view,
        arrived: now,
        now,
        read_ns,
    }))
}

/// The caller of `/mcp/<server>`.
pub(super) fn caller(
    gate: &Gate,
    view: &View,
    server: &str,
    parts: &Parts,
    peer: SocketAddr,
    now: Now,
) -> Result<Caller, Answer> {
    let source = peer.ip();
    let max = view.bounds.failed_tokens_minute;
    let refused = |code| wrong_token(code, source, max, &gate.failed, now);
    let token = bearer(&parts.headers).map_err(refused)?;
    let at_ms = gate.freshness.expiry_ms(now);
    let grant = look_up(view, &token, at_ms).map_err(refused)?;
    if is_unresolved(grant, server) {
        return Err(unauthorized(UNRESOLVED));
    }
    if !view.servers.contains_key(server) {
        let message = "There is no such server behind this gateway";
        return Err(Answer::refuse(
            StatusCode::NOT_FOUND,
            None,
            super::error::RPC_GATEWAY,
            "no_server",
            message,
        )
        .closing());
    }
    let Some((server, _)) = grant.servers.get_key_value(server) else {
        return Err(forbidden("other_server", "This grant does not cover this server").closing());
    };
    Ok(Caller {
        token,
        server: server.clone(),
        grant: grant.clone(),
        load: gate.inflight.load(&grant.id, server),
        metrics: gate.metrics.server(server),
    })
}

/// Counts a wrong token. Right ones are never held up by it: behind a load balancer many clients share an address.
fn wrong_token(
    code: &'static str,
    source: IpAddr,
    max: usize,
    failed: &FailedTokens,
    now: Now,
) -> Answer {
    if let Some(seconds) = failed.blocked(source, max, now) {
        let message = "Too many wrong tokens from this address";
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Answer::overloaded(status, None, "failed_tokens", seconds, message).closing();
    }
    if code == "token_repeated" {
        let message = "The header authorization must come once";
        return Answer::refuse(StatusCode::BAD_REQUEST, None, -32600, code, message).closing();
    }
    if !matches!(code, "token_missing" | UNRESOLVED) {
        failed.count(source, now);
    }
    unauthorized(code)
}

/// Looks a token up in a view: expiry and revocation are checked at every request.
pub fn look_up<'v>(
    view: &'v View,
    token: &TokenHash,
    at_ms: u64,
) -> Result<&'v Arc<Grant>, &'static str> {
    let grant = view.grants.get(token).ok_or("token_wrong")?;
    if grant.revoked {
        return Err("token_revoked");
    }
    if !grant.lives(at_ms) {
        return Err("token_expired");
    }
    match grant.barred {
        true => Err(UNRESOLVED),
        false => Ok(grant),
    }
}

/// The code where a grant, or a server that it names, cannot be put in force on this node.
const UNRESOLVED: &str = "grant_unresolved";

/// What a grant may do on a server.
pub fn binding<'g>(grant: &'g Grant, server: &str) -> Result<&'g Binding, Answer> {
    let found = grant.servers.get(server);
    found.ok_or_else(|| match is_unresolved(grant, server) {
        true => unauthorized(UNRESOLVED),
        false => forbidden("other_server", "This grant does not cover this server"),
    })
}

fn is_unresolved(grant: &Grant, server: &str) -> bool {
    grant.unresolved.iter().any(|name| **name == *server)
}

/// The 401 for a token that is missing, wrong, expired or revoked; the answer does not say which.
pub fn unauthorized(code: &'static str) -> Answer {
    if code == UNRESOLVED {
        let message = "This grant cannot be put in force on this node: its operator finds why in `tollgate status`";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Answer::overloaded(status, None, code, 5, message).closing();
    }
    let message = "A valid grant is required: send it as `Authorization: Bearer tg_…`";
    let answer = Answer::refuse(
        StatusCode::UNAUTHORIZED,
        None,
        super::error::RPC_GATEWAY,
        code,
        message,
    );
    Answer {
        authenticate: Some(CHALLENGE),
        ..answer
    }
    .closing()
}

/// A 403.
pub fn forbidden(code: &'static str, message: &str) -> Answer {
    Answer::refuse(
        StatusCode::FORBIDDEN,
        None,
        super::error::RPC_GATEWAY,
        code,
        message,
    )
}

fn bearer(headers: &HeaderMap) -> Result<TokenHash, &'static str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or("token_missing")?.as_bytes();
    if values.next().is_some() {
        return Err("token_repeated");
    }
    let (scheme, token) = value.split_at_checked(7).ok_or("token_malformed")?;
    let token = token.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"bearer ") || !is_token_shaped(token) {
        return Err("token_malformed");
    }
    Ok(hash(token))
}

/// The SHA-256 under which a token is kept.
pub fn hash(token: &[u8]) -> TokenHash {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    TokenHash(bytes)
}

/// Checks `Host` and `Origin` (DNS rebinding): loopback names, the address that was connected to, and configured hosts.
pub fn check_origin(view: &View, parts: &Parts, local: SocketAddr) -> Result<(), Answer> {
    let host = match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers::single(&parts.headers, &header::HOST)?,
    };
    let host = host.ok_or_else(|| forbidden("host", "The request names no Host").closing())?;
    if !host_allowed(view, host, local) {
        let message = "This Host is not served here: add it to `hosts` in the configuration";
        return Err(forbidden("host", message).closing());
    }
    let Some(origin) = headers::single(&parts.headers, &header::ORIGIN)? else {
        return Ok(());
    };
    let authority = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    let allowed = view.origins.iter().any(|o| o.eq_ignore_ascii_case(origin))
        || authority.is_some_and(|authority| host_allowed(view, authority, local));
    if allowed {
        Ok(())
    } else {
        Err(forbidden(
            "origin",
            "This Origin is not allowed: add it to `origins` in the configuration",
        )
        .closing())
    }
}

fn host_allowed(view: &View, authority: &str, local: SocketAddr) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else {
        return false;
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_ascii_lowercase();
    if host == "localhost" || view.hosts.contains(&host) {
        return true;
    }
    host.parse::<IpAddr>()
        .is_ok_and(|ip| ip.is_loopback() || ip == local.ip().to_canonical())
}
