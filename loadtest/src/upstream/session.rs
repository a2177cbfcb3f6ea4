//! Legacy sessions, open streams, and what is sent to them unasked.

use super::{
    core::{Core, SUBSCRIPTION_KEY},
    record::lock,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

/// A legacy session.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) id: Option<String>,
    pub(super) streams: Mutex<Vec<mpsc::Sender<Value>>>,
    /// Questions to the client that wait for their answer, by id.
    pub(super) pending: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    /// Requests in progress, by the JSON text of their id.
    pub(super) running: Mutex<HashMap<String, AbortHandle>>,
}

impl Session {
    pub(super) fn open_stream(&self) -> mpsc::Receiver<Value> {
        let (sender, receiver) = mpsc::channel(64);
        let mut streams = lock(&self.streams);
        streams.retain(|s| !s.is_closed());
        streams.push(sender);
        receiver
    }

    pub(super) fn track(&self, id: &Value, handle: AbortHandle) {
        let mut running = lock(&self.running);
        // Only when it would grow: cheap on average, however many are in flight.
        if running.len() == running.capacity() {
            running.retain(|_, handle| !handle.is_finished());
        }
        running.insert(id.to_string(), handle);
    }
}

/// An open `subscriptions/listen`.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) id: Value,
    pub(super) tools: bool,
    pub(super) sender: mpsc::Sender<Value>,
    /// Dropped to end the stream with a result.
    pub(super) _end: oneshot::Sender<()>,
}

impl Core {
    pub(super) fn session(&self, id: &str) -> Option<Arc<Session>> {
        lock(&self.sessions).get(id).cloned()
    }

    pub(super) fn end_session(&self, id: &str) -> bool {
        lock(&self.sessions).remove(id).is_some()
    }

    pub(super) fn forget_sessions(&self) -> usize {
        std::mem::take(&mut *lock(&self.sessions)).len()
    }

    pub(super) fn session_ids(&self) -> Vec<String> {
        lock(&self.sessions).keys().cloned().collect()
    }

    pub(super) fn push(&self, message: &Value) -> usize {
        let sessions: Vec<_> = lock(&self.sessions).values().cloned().collect();
        let mut sent = 0;
        for session in sessions.iter().chain([&self.common]) {
            let mut streams = lock(&session.streams);
            streams.retain(|s| !s.is_closed());
            sent += streams
                .iter()
                .filter(|s| s.try_send(message.clone()).is_ok())
                .count();
        }
        sent
    }

    pub(super) fn push_tools_changed(&self) -> usize {
        let sent =
            self.push(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
        let mut listeners = lock(&self.listeners);
        listeners.retain(|l| !l.sender.is_closed());
        let told = listeners.iter().filter(|l| {
            let message = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed",
                "params": {"_meta": {SUBSCRIPTION_KEY: l.id}}});
            l.tools && l.sender.try_send(message).is_ok()
        });
        sent + told.count()
    }

    pub(super) fn end_listens(&self) -> usize {
        std::mem::take(&mut *lock(&self.listeners)).len()
    }

    /// A notification, or the client's response to a question.
    pub(super) fn take(&self, message: &Value, session: &Session) {
        if message.get("method").and_then(Value::as_str) == Some("notifications/cancelled") {
            let id = message.pointer("/params/requestId").unwrap_or(&Value::Null);
            if let Some(handle) = lock(&session.running).remove(&id.to_string()) {
                handle.abort();
            }
        } else if message.get("method").is_none() {
            let id = message
                .get("id")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if let Some(waiting) = lock(&session.pending).remove(id) {
                let _ = waiting.send(message.clone());
            }
        }
    }
}
