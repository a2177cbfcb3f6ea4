//! Legacy sessions: bound to a grant and a server, bounded, ended by idleness, age, DELETE or a view without them.

use crate::{bounds::Bounds, clock, upstream::stdio::Process, view::Server};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dashmap::{DashMap, mapref::entry::Entry};
use http::HeaderValue;
use proto::{
    id::{GrantId, ServerName},
    time::Now,
};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};
use tokio::sync::watch;

/// One session.
#[derive(Debug)]
pub struct Session {
    /// The id that the client holds: 192 random bits.
    pub id: Box<str>,
    /// The id as the audit shows it: a hash, since the id itself is half a credential.
    pub audit_id: Box<str>,
    /// Whose it is: the grant, never the token, so that rotation does not end it.
    pub grant: GrantId,
    /// Which server it is with.
    pub server: ServerName,
    /// That server as it was when the session began.
    pub began_with: OnceLock<Arc<Server>>,
    /// The negotiated protocol version.
    pub version: OnceLock<Box<str>>,
    /// The upstream's own session id, where it gave one.
    pub upstream_id: OnceLock<HeaderValue>,
    /// The child process of a stdio server.
    pub process: OnceLock<Arc<Process>>,
    /// Open GET streams.
    pub streams: AtomicUsize,
    opened_ns: u64,
    used_ns: AtomicU64,
    ended: watch::Sender<bool>,
}

impl Session {
    /// Wakes when the session ends.
    pub fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }
    fn expired(&self, bounds: &Bounds, now: Now) -> bool {
        let age = |since: u64| u128::from(now.boot_ns.saturating_sub(since));
        let idle = self.streams.load(Relaxed) == 0
            && age(self.used_ns.load(Relaxed)) >= bounds.session_idle.as_nanos();
        idle || age(self.opened_ns) >= bounds.session_life.as_nanos()
    }
}

/// Why no session was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `bounds.sessions`
    All,
    /// `bounds.sessions_grant`
    Grant,
    /// `bounds.sessions_new_minute`; seconds until the next minute.
    Rate(u64),
}

#[derive(Debug, Default)]
struct Use {
    open: usize,
    minute: u64,
    new: usize,
}

/// All sessions of this node.
#[derive(Debug, Default)]
pub struct Sessions {
    table: DashMap<Box<str>, Arc<Session>>,
    grants: DashMap<GrantId, Use>,
    open: AtomicUsize,
}

impl Sessions {
    /// Opens a session, or says which bound forbids it.
    pub fn open(
        &self,
        grant: &GrantId,
        server: &ServerName,
        bounds: &Bounds,
        now: Now,
    ) -> Result<Arc<Session>, Full> {
        if self
            .open
            .fetch_update(Relaxed, Relaxed, |n| (n < bounds.sessions).then_some(n + 1))
            .is_err()
        {
            return Err(Full::All);
        }
        if let Err(full) = self.count(grant, bounds, now) {
            self.open.fetch_sub(1, Relaxed);
            return Err(full);
        }
        let id: Box<str> = URL_SAFE_NO_PAD.encode(clock::random::<24>()).into();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
        let session = Arc::new(Session {
            audit_id: digest
                .as_ref()
                .iter()
                .take(8)
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
                .into(),
            id: id.clone(),
            grant: grant.clone(),
            server: server.clone(),
            began_with: OnceLock::new(),
            version: OnceLock::new(),
            upstream_id: OnceLock::new(),
            process: OnceLock::new(),
            streams: AtomicUsize::new(0),
            opened_ns: now.boot_ns,
            used_ns: AtomicU64::new(now.boot_ns),
            ended: watch::channel(false).0,
        });
        self.table.insert(id, session.clone());
        Ok(session)
    }

    fn count(&self, grant: &GrantId, bounds: &Bounds, now: Now) -> Result<(), Full> {
        let mut entry = self.grants.entry(grant.clone()).or_default();
        let minute = now.boot_ns / 60_000_000_000;
        if entry.minute != minute {
            (entry.minute, entry.new) = (minute, 0);
        }
        if entry.open >= bounds.sessions_grant {
            return Err(Full::Grant);
        }
        if entry.new >= bounds.sessions_new_minute {
            return Err(Full::Rate(60 - now.boot_ns / 1_000_000_000 % 60));
        }
        entry.open += 1;
        entry.new += 1;
        Ok(())
    }

    /// The session with this id if it is this grant's and this server's. Touching it keeps it from idling out.
    pub fn find(
        &self,
        id: &str,
        grant: &GrantId,
        server: &ServerName,
        bounds: &Bounds,
        now: Now,
    ) -> Option<Arc<Session>> {
        let session = self.table.get(id)?.clone();
        if session.grant != *grant || session.server != *server {
            return None;
        }
        let dead = session.process.get().is_some_and(|p| p.has_ended());
        if dead || session.expired(bounds, now) {
            self.end(&session);
            return None;
        }
        session.used_ns.fetch_max(now.boot_ns, Relaxed);
        Some(session)
    }

    /// Ends a session: its streams close, its process is stopped. Ending twice does nothing.
    pub fn end(&self, session: &Arc<Session>) {
        let Entry::Occupied(entry) = self.table.entry(session.id.clone()) else {
            return;
        };
        entry.remove();
        self.open.fetch_sub(1, Relaxed);
        if let Some(mut usage) = self.grants.get_mut(&session.grant) {
            usage.open = usage.open.saturating_sub(1);
        }
        session.ended.send_replace(true);
        if let Some(process) = session.process.get() {
            process.end_in_background();
        }
    }

    /// Ends every session that is too old, whose process died, or that `keep` gives up; forgets grants without sessions.
    pub fn sweep(&self, bounds: &Bounds, now: Now, keep: impl Fn(&Session) -> bool) {
        let gone: Vec<_> = self
            .table
            .iter()
            .filter(|s| {
                s.expired(bounds, now) || s.process.get().is_some_and(|p| p.has_ended()) || !keep(s)
            })
            .map(|s| s.clone())
            .collect();
        gone.iter().for_each(|session| self.end(session));
        let minute = now.boot_ns / 60_000_000_000;
        self.grants
            .retain(|_, usage| usage.open > 0 || usage.minute == minute);
    }

    /// Ends every session.
    pub fn end_all(&self) {
        let all: Vec<_> = self.table.iter().map(|session| session.clone()).collect();
        all.iter().for_each(|session| self.end(session));
    }

    /// How many are open.
    pub fn count_open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

/// A session whose `initialize` has not been answered yet: it ends unless it is kept.
#[derive(Debug)]
pub struct Opening {
    sessions: Arc<Sessions>,
    session: Option<Arc<Session>>,
}

impl Opening {
    /// Guards a fresh session.
    pub fn new(sessions: Arc<Sessions>, session: Arc<Session>) -> Self {
        Self {
            sessions,
            session: Some(session),
        }
    }
    /// The upstream accepted: the session lives, with this version.
    pub fn keep(mut self, version: &str) {
        if let Some(session) = self.session.take() {
            let _ = session.version.set(version.into());
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.sessions.end(&session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now {
            unix_ms: 0,
            boot_ns: seconds * 1_000_000_000,
        }
    }

    fn bounds() -> Bounds {
        Bounds {
            sessions: 3,
            sessions_grant: 2,
            sessions_new_minute: 3,
            ..Bounds::default()
        }
    }

    #[test]
    fn a_session_answers_only_to_its_own_grant_and_server() {
        let (sessions, server) = (Sessions::default(), ServerName::new("s"));
        let (a, b) = (GrantId::new("a"), GrantId::new("b"));
        let session = sessions.open(&a, &server, &bounds(), at(0)).unwrap();
        assert!(
            sessions
                .find(&session.id, &a, &server, &bounds(), at(1))
                .is_some()
        );
        assert!(
            sessions
                .find(&session.id, &b, &server, &bounds(), at(1))
                .is_none()
        );
        assert!(
            sessions
                .find(&session.id, &a, &ServerName::new("t"), &bounds(), at(1))
                .is_none()
        );
        assert!(
            sessions
                .find("guess", &a, &server, &bounds(), at(1))
                .is_none()
        );
    }

    #[test]
    fn each_bound_stops_at_its_edge_and_ending_makes_room() {
        let (sessions, server) = (Sessions::default(), ServerName::new("s"));
        let (a, b) = (GrantId::new("a"), GrantId::new("b"));
        let first = sessions.open(&a, &server, &bounds(), at(0)).unwrap();
        sessions.open(&a, &server, &bounds(), at(0)).unwrap();
        assert_eq!(
            sessions.open(&a, &server, &bounds(), at(0)).unwrap_err(),
            Full::Grant
        );
        sessions.end(&first);
        sessions.end(&first);
        sessions.open(&a, &server, &bounds(), at(1)).unwrap();
        let second = sessions.open(&b, &server, &bounds(), at(1)).unwrap();
        assert_eq!(
            sessions.open(&b, &server, &bounds(), at(1)).unwrap_err(),
            Full::All
        );
        sessions.end(&second);
        let mut roomy = bounds();
        roomy.sessions_grant = 9;
        assert_eq!(
            sessions.open(&a, &server, &roomy, at(2)).unwrap_err(),
            Full::Rate(58)
        );
        assert!(sessions.open(&a, &server, &roomy, at(61)).is_ok());
    }

    #[test]
    fn a_session_ends_by_idleness_and_by_age() {
        let (sessions, server, grant) =
            (Sessions::default(), ServerName::new("s"), GrantId::new("a"));
        let bounds = Bounds::default();
        let idle = sessions.open(&grant, &server, &bounds, at(0)).unwrap();
        assert!(
            sessions
                .find(&idle.id, &grant, &server, &bounds, at(1799))
                .is_some()
        );
        assert!(
            sessions
                .find(&idle.id, &grant, &server, &bounds, at(1799 + 1800))
                .is_none()
        );
        let old = sessions.open(&grant, &server, &bounds, at(4000)).unwrap();
        old.streams.store(1, Relaxed);
        sessions.sweep(&bounds, at(4000 + 86_399), |_| true);
        assert_eq!(sessions.count_open(), 1);
        sessions.sweep(&bounds, at(4000 + 86_400), |_| true);
        assert_eq!(sessions.count_open(), 0);
        assert!(*old.ended().borrow());
    }

    #[test]
    fn an_opening_that_is_not_kept_leaves_nothing() {
        let (sessions, server, grant) = (
            Arc::new(Sessions::default()),
            ServerName::new("s"),
            GrantId::new("a"),
        );
        let session = sessions
            .open(&grant, &server, &Bounds::default(), at(0))
            .unwrap();
        drop(Opening::new(sessions.clone(), session));
        assert_eq!(sessions.count_open(), 0);
        let session = sessions
            .open(&grant, &server, &Bounds::default(), at(0))
            .unwrap();
        Opening::new(sessions.clone(), session.clone()).keep("2025-11-25");
        assert_eq!(sessions.count_open(), 1);
        assert_eq!(session.version.get().unwrap().as_ref(), "2025-11-25");
    }
}
