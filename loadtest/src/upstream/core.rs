//! A message in, an answer out; the same for every transport.

use super::{
    Encoding, Eras, Fault, LEGACY, MODERN, Options, Recorder,
    chance::Fate,
    record::{Begin, Guard, Outcome, lock},
    session::{Listener, Session},
    tools::{self, Effect, TOOLS},
};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::{mpsc, oneshot};

/// Most sessions; the next `initialize` is refused with 503.
const SESSIONS_MAX: usize = 100_000;

pub(super) const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
pub(super) const SUBSCRIPTION_KEY: &str = "io.modelcontextprotocol/subscriptionId";

#[derive(Debug)]
pub(super) struct Core {
    pub(super) options: Options,
    pub(super) recorder: Recorder,
    faults: Mutex<HashMap<String, Fault>>,
    pub(super) sessions: Mutex<HashMap<String, Arc<Session>>>,
    /// What a client without a session id shares (stdio, and legacy HTTP without sessions).
    pub(super) common: Arc<Session>,
    pub(super) listeners: Mutex<Vec<Listener>>,
    next: AtomicU64,
    /// What it calls itself, as JSON text.
    info: String,
    /// The next request finds the whole server asleep for this long, µs.
    pub(super) stall_us: AtomicU64,
}

/// What a request came with.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) modern: bool,
    pub(super) session: Arc<Session>,
    pub(super) headers: Arc<Vec<(String, String)>>,
}

/// Where messages go that come before the response.
#[derive(Clone, Debug, Default)]
pub(super) struct Emit {
    pub(super) sender: Option<mpsc::Sender<Value>>,
    pub(super) token: Option<Value>,
}

impl Emit {
    pub(super) async fn send(&self, message: Value) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(message).await;
        }
    }

    pub(super) async fn progress(&self, progress: u64, total: u64) {
        if let Some(token) = &self.token {
            self.send(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params":
                {"progressToken": token, "progress": progress, "total": total, "message": format!("step {progress}")}}))
                .await;
        }
    }
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Option<Value>,
    pub(super) fault: Option<Fault>,
    /// The id of a session that was opened.
    pub(super) opened: Option<String>,
}

impl Answer {
    pub(super) fn error(status: u16, id: &Value, code: i64, message: &str) -> Self {
        let body = json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}});
        Self::message(status, body)
    }

    fn message(status: u16, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
            fault: None,
            opened: None,
        }
    }
}

impl Core {
    pub(super) fn new(options: Options) -> std::io::Result<Self> {
        let recorder = Recorder::new(&options)?;
        let info = json!({"name": options.name, "version": env!("CARGO_PKG_VERSION")});
        Ok(Self {
            info: info.to_string(),
            faults: Mutex::new(options.faults.iter().cloned().collect()),
            recorder,
            options,
            sessions: Mutex::default(),
            common: Arc::default(),
            listeners: Mutex::default(),
            next: AtomicU64::new(0),
            stall_us: AtomicU64::new(0),
        })
    }

    pub(super) fn fault(&self, method: &str, fault: Option<Fault>) {
        match fault {
            Some(fault) => lock(&self.faults).insert(method.into(), fault),
            None => lock(&self.faults).remove(method),
        };
    }

    /// Whether any method is to be answered wrongly.
    pub(super) fn has_faults(&self) -> bool {
        !lock(&self.faults).is_empty()
    }

    pub(super) fn fault_for(&self, method: &str) -> Option<Fault> {
        let faults = lock(&self.faults);
        faults.get(method).or_else(|| faults.get("*")).copied()
    }

    /// Sleeps as a server does whose collector stops the world: nothing else is served meanwhile.
    pub(super) fn stall(&self) {
        if self.stall_us.load(Relaxed) > 0 {
            let us = self.stall_us.swap(0, Relaxed);
            std::thread::sleep(std::time::Duration::from_micros(us));
        }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: &Value, context: &Context, emit: &Emit) -> Answer {
        let id = request.get("id").unwrap_or(&Value::Null);
        let method = request
            .get("method")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let empty = Value::Object(Map::new());
        let params = request.get("params").unwrap_or(&empty);
        let fault = self.fault_for(method);
        let mut answer = match method {
            "initialize" if !context.modern => self.initialize(id, params),
            "ping" if !context.modern => self.result(id, context, json!({})),
            "logging/setLevel" if !context.modern => self.result(id, context, json!({})),
            "server/discover" if context.modern => {
                self.result(id, context, cacheable(self.discover(), context))
            }
            "subscriptions/listen" if context.modern => {
                self.listen(id, params, context, emit).await
            }
            "tools/list" => self.list(id, params, context),
            "tools/call" => self.call(id, params, context, emit).await,
            "prompts/list" => {
                let prompts =
                    json!({"prompts": [{"name": "greet", "description": "Greet somebody."}]});
                self.result(id, context, prompts)
            }
            "prompts/get" => {
                let text = json!({"type": "text", "text": "Say hello."});
                self.result(
                    id,
                    context,
                    json!({"messages": [{"role": "user", "content": text}]}),
                )
            }
            "resources/list" => {
                let resource =
                    json!({"uri": "demo://readme", "name": "readme", "mimeType": "text/plain"});
                self.result(
                    id,
                    context,
                    cacheable(json!({"resources": [resource]}), context),
                )
            }
            "resources/templates/list" => self.result(
                id,
                context,
                cacheable(json!({"resourceTemplates": []}), context),
            ),
            "resources/read" => {
                let uri = params.get("uri").cloned().unwrap_or(Value::Null);
                let text = "A server that remembers what it was asked.";
                let contents =
                    json!({"contents": [{"uri": uri, "mimeType": "text/plain", "text": text}]});
                self.result(id, context, cacheable(contents, context))
            }
            _ => {
                let status = if context.modern { 404 } else { 200 };
                Answer::error(status, id, -32601, "Method not found")
            }
        };
        answer.fault = answer.fault.or(fault);
        answer
    }

    /// A result, with what the modern era adds to it.
    fn result(&self, id: &Value, context: &Context, mut result: Value) -> Answer {
        if context.modern
            && let Some(fields) = result.as_object_mut()
        {
            if !fields.contains_key("resultType") {
                fields.insert("resultType".into(), json!("complete"));
            }
            let meta = fields.entry("_meta").or_insert_with(|| json!({}));
            if let Some(meta) = meta.as_object_mut() {
                meta.insert("io.modelcontextprotocol/serverInfo".into(), self.info());
            }
        }
        Answer::message(200, json!({"jsonrpc": "2.0", "id": id, "result": result}))
    }

    fn info(&self) -> Value {
        json!({"name": self.options.name, "version": env!("CARGO_PKG_VERSION")})
    }

    pub(super) fn info_text(&self) -> &str {
        &self.info
    }

    fn initialize(&self, id: &Value, params: &Value) -> Answer {
        let asked = params.get("protocolVersion").and_then(Value::as_str);
        let version = LEGACY
            .iter()
            .copied()
            .find(|v| Some(*v) == asked)
            .unwrap_or(LEGACY[0]);
        let result = json!({
            "protocolVersion": version,
            "capabilities": {"tools": {"listChanged": true}, "prompts": {}, "resources": {}, "logging": {}},
            "serverInfo": self.info(),
        });
        let mut answer =
            Answer::message(200, json!({"jsonrpc": "2.0", "id": id, "result": result}));
        if self.options.sessions {
            let mut sessions = lock(&self.sessions);
            if sessions.len() >= SESSIONS_MAX {
                return Answer::error(503, id, -32000, "Too many sessions");
            }
            let name = self.random_id();
            let session = Session {
                id: Some(name.clone()),
                ..Session::default()
            };
            sessions.insert(name.clone(), Arc::new(session));
            answer.opened = Some(name);
        }
        answer
    }

    /// Hard to guess (the standard library's random hash keys); this server guards nothing that is worth more.
    fn random_id(&self) -> String {
        let n = self.next.fetch_add(1, Relaxed);
        let half = || RandomState::new().hash_one(n);
        format!("{:016x}{:016x}", half(), half())
    }

    fn discover(&self) -> Value {
        let mut versions = vec![MODERN];
        if self.options.eras == Eras::Both {
            versions.extend(LEGACY);
        }
        json!({
            "supportedVersions": versions,
            "capabilities": {"tools": {"listChanged": true}, "prompts": {}, "resources": {}},
        })
    }

    async fn listen(&self, id: &Value, params: &Value, context: &Context, emit: &Emit) -> Answer {
        let tools = params.pointer("/notifications/toolsListChanged") == Some(&json!(true));
        let honoured = if tools {
            json!({"toolsListChanged": true})
        } else {
            json!({})
        };
        emit.send(
            json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
            "params": {"_meta": {SUBSCRIPTION_KEY: id}, "notifications": honoured}}),
        )
        .await;
        if let Some(sender) = &emit.sender {
            let (end, ended) = oneshot::channel();
            lock(&self.listeners).push(Listener {
                id: id.clone(),
                tools,
                sender: sender.clone(),
                _end: end,
            });
            tokio::select! {
                () = sender.closed() => {}
                _ = ended => {}
            }
        }
        self.result(id, context, json!({"_meta": {SUBSCRIPTION_KEY: id}}))
    }

    fn list(&self, id: &Value, params: &Value, context: &Context) -> Answer {
        let only = &self.options.tools;
        let has = |t: &&tools::Tool| only.is_empty() || only.iter().any(|name| name == t.name);
        let all: Vec<Value> = TOOLS.iter().filter(has).map(tools::Tool::to_json).collect();
        let size = match self.options.page_size {
            0 => all.len().max(1),
            size => size,
        };
        let from = match params.get("cursor") {
            None => 0,
            Some(cursor) => match cursor
                .as_str()
                .and_then(|c| c.strip_prefix("page-")?.parse::<usize>().ok())
            {
                Some(page) => page.saturating_mul(size),
                None => return Answer::error(200, id, -32602, "Invalid cursor"),
            },
        };
        let page: Vec<Value> = all.iter().skip(from).take(size).cloned().collect();
        let mut result = json!({"tools": page});
        if from.saturating_add(size) < all.len() {
            result["nextCursor"] = json!(format!("page-{}", from / size + 1));
        }
        self.result(id, context, cacheable(result, context))
    }

    async fn call(&self, id: &Value, params: &Value, context: &Context, emit: &Emit) -> Answer {
        let name = params
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let empty = Value::Object(Map::new());
        let arguments = params.get("arguments").unwrap_or(&empty);
        let guard = self.recorder.begin(Begin {
            tool: name,
            arguments,
            id,
            era: if context.modern { "modern" } else { "legacy" },
            session: context.session.id.as_deref(),
            headers: &context.headers,
        });
        let only = &self.options.tools;
        if !TOOLS.iter().any(|t| t.name == name)
            || !(only.is_empty() || only.iter().any(|n| n == name))
        {
            guard.end(Outcome::Rejected);
            return Answer::error(200, id, -32602, "Unknown tool");
        }
        let drawn = self.options.chance.draw(guard.number());
        let steps = self.options.chance.progress_steps;
        if let Some(late) = drawn.wait(steps, emit).await {
            self.recorder.late(late);
        }
        match drawn.fate {
            Fate::Good => {}
            Fate::Hang => std::future::pending().await,
            Fate::Error => {
                return self.text(id, context, guard, "it failed, by chance", true, 0);
            }
            Fate::Reject => {
                guard.end(Outcome::Rejected);
                return Answer::error(200, id, -32603, "Rejected, by chance");
            }
        }
        match tools::run(name, arguments, emit).await {
            Effect::Text(text) => self.text(id, context, guard, &text, false, drawn.bytes),
            Effect::ToolError(text) => self.text(id, context, guard, &text, true, 0),
            Effect::Rejected(code, message) => {
                guard.end(Outcome::Rejected);
                Answer::error(200, id, code, &message)
            }
            Effect::Status(status) => {
                guard.end(if status < 500 {
                    Outcome::Rejected
                } else {
                    Outcome::Failed
                });
                Answer {
                    status,
                    body: None,
                    fault: None,
                    opened: None,
                }
            }
            Effect::Fault(fault) => Answer {
                fault: Some(fault),
                ..self.text(id, context, guard, "misbehaved", false, 0)
            },
            Effect::Ask(question) => self.ask(id, params, context, guard, emit, question).await,
        }
    }

    fn text(
        &self,
        id: &Value,
        context: &Context,
        guard: Guard,
        text: &str,
        is_error: bool,
        padding: u64,
    ) -> Answer {
        guard.end(if is_error {
            Outcome::Failed
        } else {
            Outcome::Done
        });
        let mut result = json!({"content": [{"type": "text", "text": text}]});
        if padding > 0
            && let Some(content) = result["content"].as_array_mut()
        {
            content.push(json!({"type": "text", "text": "x".repeat(padding as usize)}));
        }
        if is_error {
            result["isError"] = json!(true);
        }
        self.result(id, context, result)
    }

    /// Legacy: a request to the client on the call's stream. Modern: an input request, answered by a retry.
    async fn ask(
        &self,
        id: &Value,
        params: &Value,
        context: &Context,
        guard: Guard,
        emit: &Emit,
        question: String,
    ) -> Answer {
        let form = json!({"message": question, "requestedSchema":
            {"type": "object", "properties": {"answer": {"type": "string"}}}});
        if context.modern {
            return match params.pointer("/inputResponses/answer") {
                Some(answer) => {
                    self.text(id, context, guard, &format!("answered {answer}"), false, 0)
                }
                None => {
                    guard.end(Outcome::Rejected);
                    let ask = json!({"method": "elicitation/create", "params": form});
                    let result = json!({"resultType": "input_required", "inputRequests": {"answer": ask},
                        "requestState": format!("state of {question}")});
                    self.result(id, context, result)
                }
            };
        }
        let name = format!("ask-{}", self.next.fetch_add(1, Relaxed));
        let (sender, receiver) = oneshot::channel();
        lock(&context.session.pending).insert(name.clone(), sender);
        emit.send(
            json!({"jsonrpc": "2.0", "id": name, "method": "elicitation/create", "params": form}),
        )
        .await;
        match receiver.await {
            Ok(reply) => {
                let reply = reply
                    .get("result")
                    .or(reply.get("error"))
                    .cloned()
                    .unwrap_or_default();
                self.text(id, context, guard, &format!("answered {reply}"), false, 0)
            }
            Err(_) => self.text(id, context, guard, "nobody answered", true, 0),
        }
    }

    /// The content coding of replies to this method.
    pub(super) fn encoding(&self, method: &str) -> Encoding {
        if method == "tools/list" {
            self.options.encoding
        } else {
            Encoding::Identity
        }
    }
}

/// What the modern era wants on results that a client may keep.
fn cacheable(mut result: Value, context: &Context) -> Value {
    if context.modern {
        result["ttlMs"] = json!(60_000);
        result["cacheScope"] = json!("public");
    }
    result
}
