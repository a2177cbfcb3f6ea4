//! Where each message of a child goes: to exactly one place (the rule is in the module's documentation).

use super::{
    Counters, WAITING, WAITING_BYTES, lock,
    message::{self, Key, Message},
    outlet::Outlet,
    pipes::Line,
    post::{Answer, Post, Rejected, Reply, gone, whole},
};
use crate::upstream::{Error, ErrorKind, Expects, Response};
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
};

/// The requests in flight and the streams of one process.
pub struct Router {
    state: Mutex<State>,
    /// Wakes the timekeeper when an earlier deadline appears.
    pub timer: Notify,
    /// Whether anything was ever answered.
    pub answered: AtomicBool,
    runtime: Handle,
    counters: Arc<Counters>,
    this: Weak<Router>,
}

#[derive(Default)]
struct State {
    posts: HashMap<Key, Post>,
    tokens: HashMap<Key, Key>,
    get: Option<Outlet>,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    seq: u64,
    next_wake: Option<Instant>,
    /// Why nothing is taken any more.
    closed: Option<String>,
}

/// Where one message goes next.
enum Place {
    /// It is there, or nobody wants it.
    Done,
    /// Into this stream.
    Stream {
        outlet: Outlet,
        /// It is the reply: the stream ends behind it.
        last: bool,
        /// If the stream closes meanwhile, another place is looked for.
        again: bool,
    },
}

impl Router {
    /// A router whose streams live on the current runtime.
    pub fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            state: Mutex::default(),
            timer: Notify::new(),
            answered: AtomicBool::new(false),
            runtime: Handle::current(),
            counters,
            this: this.clone(),
        })
    }

    /// Takes note of a request that is about to be written. The caller queues `line` right after.
    pub fn register(
        &self,
        expects: Expects,
        deadline: Instant,
        line: Arc<Line>,
        in_flight_max: usize,
    ) -> Result<(u64, oneshot::Receiver<Answer>), Rejected> {
        let id = Key::read(&expects.id).ok_or(Rejected::BadId)?;
        let token = expects.progress_token.as_deref().and_then(Key::read);
        let mut state = lock(&self.state);
        if let Some(reason) = &state.closed {
            return Err(Rejected::Gone(reason.clone()));
        }
        if state.posts.contains_key(&id) {
            return Err(Rejected::Duplicate("id"));
        }
        if token.as_ref().is_some_and(|t| state.tokens.contains_key(t)) {
            return Err(Rejected::Duplicate("progress token"));
        }
        if state.posts.len() >= in_flight_max {
            return Err(Rejected::Full);
        }
        state.seq += 1;
        let seq = state.seq;
        let (sender, receiver) = oneshot::channel();
        if let Some(token) = &token {
            state.tokens.insert(token.clone(), id.clone());
        }
        let post = Post {
            seq,
            expects,
            token,
            deadline,
            cancelled: None,
            line,
            reply: Reply::Waiting(sender),
        };
        state.posts.insert(id, post);
        self.wake_by(&mut state, deadline);
        Ok((seq, receiver))
    }

    fn wake_by(&self, state: &mut State, at: Instant) {
        if state.next_wake.is_none_or(|next| at < next) {
            state.next_wake = Some(at);
            self.timer.notify_one();
        }
    }

    /// Turns a request that still waits into an event stream; `None` when it has been answered meanwhile.
    pub fn stream_of(&self, id: &[u8], seq: u64) -> Option<Response> {
        let key = Key::read(id)?;
        let mut state = lock(&self.state);
        state
            .posts
            .get(&key)
            .filter(|post| post.seq == seq && matches!(post.reply, Reply::Waiting(_)))?;
        let (_, response, _) = self.start_stream(&mut state, &key)?;
        Some(response)
    }

    /// Makes a post's reply a stream; gives back the sender that waited.
    fn start_stream(
        &self,
        state: &mut State,
        key: &Key,
    ) -> Option<(Outlet, Response, Option<oneshot::Sender<Answer>>)> {
        let initialize = state.posts.get(key)?.expects.method == "initialize";
        // Nothing but its own messages belongs on the reply to initialize: the client is not ready yet.
        let first = if state.get.is_none() && !initialize {
            state.take_waiting()
        } else {
            Vec::new()
        };
        let post = state.posts.get_mut(key)?;
        let (outlet, response, pump) = Outlet::open(first, Some(post.deadline));
        self.runtime.spawn(pump);
        let waiting = match std::mem::replace(&mut post.reply, Reply::Streaming(outlet.clone())) {
            Reply::Waiting(sender) => Some(sender),
            Reply::Streaming(_) => None,
        };
        Some((outlet, response, waiting))
    }

    /// Opens the session's own stream, in place of the one that may be open.
    pub fn open_get(&self) -> Result<Response, Error> {
        let mut state = lock(&self.state);
        if let Some(reason) = &state.closed {
            return Err(gone(reason));
        }
        let waiting = state.take_waiting();
        let (outlet, response, pump) = Outlet::open(waiting, None);
        let older = state.get.replace(outlet);
        drop(state);
        if let Some(older) = older {
            older.leave();
        }
        let this = self.this.clone();
        self.runtime.spawn(async move {
            let rest = pump.await;
            if let Some(router) = this.upgrade() {
                router.put_back(rest);
            }
        });
        Ok(response)
    }

    /// Messages that a closed stream did not deliver go to the newer one, or wait for it.
    fn put_back(&self, rest: Vec<Bytes>) {
        let mut state = lock(&self.state);
        if state.get.as_ref().is_some_and(Outlet::is_closed) {
            state.get = None;
        }
        if rest.is_empty() || state.closed.is_some() {
            return;
        }
        let rest = match &state.get {
            Some(get) => match get.prepend(rest) {
                Ok(()) => return,
                Err(rest) => rest,
            },
            None => rest,
        };
        for message in rest.into_iter().rev() {
            state.waiting_bytes += message.len();
            state.waiting.push_front(message);
        }
        self.trim_waiting(&mut state);
    }

    /// A message of Tollgate's own for the session's stream, if one is open and has room.
    pub fn inject(&self, message: &Bytes) -> bool {
        let get = lock(&self.state).get.clone();
        get.is_some_and(|get| get.try_send(message))
    }

    /// Brings a message of the child to its place.
    pub async fn deliver(&self, kind: &Message, message: Bytes) {
        loop {
            match self.place(kind, &message) {
                Place::Done => return,
                Place::Stream {
                    outlet,
                    last,
                    again,
                } => {
                    let sent = outlet.send(&message).await;
                    if last {
                        outlet.finish();
                    }
                    if sent.is_ok() || !again {
                        return;
                    }
                }
            }
        }
    }

    fn place(&self, kind: &Message, message: &Bytes) -> Place {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        match kind {
            Message::ReplyToNobody => self.unmatched(),
            Message::Reply(id) => match state.remove(id) {
                None => self.unmatched(),
                Some(post) => {
                    self.answered.store(true, Relaxed);
                    match post.reply {
                        Reply::Streaming(outlet) => Place::Stream {
                            outlet,
                            last: true,
                            again: false,
                        },
                        Reply::Waiting(sender) => {
                            // The client may be gone: then nobody wants it.
                            let _ = sender.send(Ok(whole(message)));
                            Place::Done
                        }
                    }
                }
            },
            Message::Progress(token) => match state.tokens.get(token).cloned() {
                None => self.anywhere(state, kind, message),
                Some(id) => match self.stream_for(state, &id) {
                    Some(outlet) => Place::Stream {
                        outlet,
                        last: false,
                        again: false,
                    },
                    None => Place::Done,
                },
            },
            Message::Request | Message::Notification => self.anywhere(state, kind, message),
        }
    }

    /// The stream of a request in flight, opened now if it still waits; `None` when its client is gone.
    fn stream_for(&self, state: &mut State, id: &Key) -> Option<Outlet> {
        match &state.posts.get(id)?.reply {
            Reply::Streaming(outlet) => return (!outlet.is_closed()).then(|| outlet.clone()),
            Reply::Waiting(sender) if sender.is_closed() => return None,
            Reply::Waiting(_) => {}
        }
        let (outlet, response, waiting) = self.start_stream(state, id)?;
        // A client that left at this very moment drops the body, and the pump closes the stream.
        let _ = waiting?.send(Ok(response));
        Some(outlet)
    }

    /// A place for what belongs to no request: the session's stream, else the newest request that streams, else (for
    /// a request of the server, which somebody must answer) the newest that can stream, else the queue.
    fn anywhere(&self, state: &mut State, kind: &Message, message: &Bytes) -> Place {
        if let Some(get) = state.get.clone().filter(|get| !get.is_closed()) {
            return Place::Stream {
                outlet: get,
                last: false,
                again: true,
            };
        }
        let newest = |streaming: bool| {
            let fits = |post: &&Post| match &post.reply {
                Reply::Streaming(outlet) => streaming && !outlet.is_closed(),
                Reply::Waiting(sender) => {
                    !streaming && !sender.is_closed() && post.expects.method != "initialize"
                }
            };
            let post = state
                .posts
                .values()
                .filter(fits)
                .max_by_key(|post| post.seq)?;
            Key::read(&post.expects.id)
        };
        let id = match newest(true) {
            None if *kind == Message::Request => newest(false),
            found => found,
        };
        match id.and_then(|id| self.stream_for(state, &id)) {
            Some(outlet) => Place::Stream {
                outlet,
                last: false,
                again: true,
            },
            None => {
                state.waiting_bytes += message.len();
                state.waiting.push_back(message.clone());
                self.trim_waiting(state);
                Place::Done
            }
        }
    }

    fn unmatched(&self) -> Place {
        self.counters.unmatched.fetch_add(1, Relaxed);
        Place::Done
    }

    fn trim_waiting(&self, state: &mut State) {
        while state.waiting.len() > WAITING || state.waiting_bytes > WAITING_BYTES {
            let Some(oldest) = state.waiting.pop_front() else {
                break;
            };
            state.waiting_bytes -= oldest.len();
            self.counters.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Ends the request that a refused line pretends to answer.
    pub fn refuse(&self, id: &Key, reason: &str) {
        let post = lock(&self.state).remove(id);
        if let Some(post) = post {
            post.end(Error {
                kind: ErrorKind::Protocol,
                unsent: false,
                detail: format!("the server's reply was refused: {reason}"),
            });
        }
    }

    /// Ends the request that a dropped line may have answered, where there is but one; several wait for their deadlines.
    pub fn refuse_only(&self, reason: &str) {
        let only = {
            let state = lock(&self.state);
            let mut ids = state.posts.keys();
            ids.next().cloned().filter(|_| ids.next().is_none())
        };
        if let Some(id) = only {
            self.refuse(&id, reason);
        }
    }

    /// The client has cancelled: a reply may still come until `until`, then the request ends without one.
    pub fn cancelled(&self, id: &Key, until: Instant) {
        let mut state = lock(&self.state);
        if let Some(post) = state.posts.get_mut(id) {
            post.cancelled.get_or_insert(until);
            let ends = post.ends();
            self.wake_by(&mut state, ends);
        }
    }

    /// Ends the requests whose deadline has passed. Returns the `notifications/cancelled` to write and when to come
    /// back.
    pub fn expire(&self, now: Instant) -> (Vec<Vec<u8>>, Option<Instant>) {
        let mut state = lock(&self.state);
        let due = |post: &Post| post.ends() <= now;
        let late: Vec<Key> = state
            .posts
            .iter()
            .filter(|(_, post)| due(post))
            .map(|(id, _)| id.clone())
            .collect();
        let late: Vec<Post> = late.iter().filter_map(|id| state.remove(id)).collect();
        state.next_wake = state.posts.values().map(Post::ends).min();
        let next = state.next_wake;
        drop(state);
        let mut notices = Vec::new();
        for post in late {
            let unsent = post.line.withdraw();
            if post.cancelled.is_some() {
                post.end_without_reply();
                continue;
            }
            // MCP: initialize must not be cancelled.
            if !unsent && post.expects.method != "initialize" {
                notices.push(message::cancel(&post.expects.id, "timeout"));
            }
            post.end(Error {
                kind: ErrorKind::Timeout,
                unsent,
                detail: "no reply before the deadline".into(),
            });
        }
        (notices, next)
    }

    /// New requests and streams are refused from now on; what is in flight goes on.
    pub fn shut(&self, reason: &str) {
        lock(&self.state)
            .closed
            .get_or_insert_with(|| reason.to_owned());
    }

    /// Why it was shut.
    pub fn shut_reason(&self) -> Option<String> {
        lock(&self.state).closed.clone()
    }

    /// Ends everything in flight: nothing more will come.
    pub fn close(&self, reason: &str) {
        self.shut(reason);
        let mut state = lock(&self.state);
        let posts: Vec<Post> = state.posts.drain().map(|(_, post)| post).collect();
        state.tokens.clear();
        state.take_waiting();
        let get = state.get.take();
        drop(state);
        for post in posts {
            let unsent = post.line.withdraw();
            post.end(Error {
                kind: ErrorKind::Protocol,
                unsent,
                detail: format!("the process ended: {reason}"),
            });
        }
        if let Some(get) = get {
            get.finish();
        }
    }
}

impl State {
    fn remove(&mut self, id: &Key) -> Option<Post> {
        let post = self.posts.remove(id)?;
        if let Some(token) = &post.token {
            self.tokens.remove(token);
        }
        Some(post)
    }

    fn take_waiting(&mut self) -> Vec<Bytes> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting).into()
    }
}
