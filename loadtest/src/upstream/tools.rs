//! The tools: what the list says of them and what they do.

use super::{Fault, core::Emit};
use clap::ValueEnum as _;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest that `slow` and one step of `progress` wait, ms.
const WAIT_MS_MAX: u64 = 600_000;
/// Most steps of `progress`.
const STEPS_MAX: u64 = 10_000;
/// Most bytes of `big`.
const BIG_MAX: u64 = 256 << 20;

/// A tool as the list describes it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// A sentence for the agent.
    pub description: &'static str,
    /// The properties of its input schema: name, JSON type, required.
    pub input: &'static [(&'static str, &'static str, bool)],
}

const IMAGE: &[(&str, &str, bool)] = &[
    ("prompt", "string", true),
    ("negative_prompt", "string", false),
    ("width", "integer", false),
    ("height", "integer", false),
    ("steps", "integer", false),
    ("seed", "integer", false),
];
const EDIT: &[(&str, &str, bool)] = &[
    ("prompt", "string", true),
    ("image_url", "string", true),
    ("strength", "number", false),
    ("seed", "integer", false),
];

/// Every tool, in the order of the list.
pub const TOOLS: &[Tool] = &[
    tool(
        "flux_generate_image",
        "Make an image from a prompt with Flux.",
        IMAGE,
    ),
    tool("flux_edit_image", "Edit an image with Flux.", EDIT),
    tool("generate_image", "Make an image from a prompt.", IMAGE),
    tool(
        "img2img",
        "Make an image that starts from another one.",
        EDIT,
    ),
    tool(
        "inpaint",
        "Fill the masked part of an image.",
        &[
            ("prompt", "string", true),
            ("image_url", "string", true),
            ("mask_url", "string", true),
        ],
    ),
    tool(
        "create_charge",
        "Charge a customer. The amount is in the currency's smallest unit.",
        &[
            ("amount", "integer", true),
            ("currency", "string", true),
            ("customer_id", "string", false),
        ],
    ),
    tool("list_customers", "List the customers.", &[]),
    tool(
        "delete_customer",
        "Delete one customer.",
        &[("customer_id", "string", true)],
    ),
    tool("delete_account", "Delete the whole account.", &[]),
    tool(
        "echo",
        "Say the arguments back.",
        &[("message", "string", false)],
    ),
    tool("slow", "Wait, then answer.", &[("ms", "integer", true)]),
    tool(
        "progress",
        "Report progress step by step, then answer.",
        &[("steps", "integer", true), ("ms", "integer", false)],
    ),
    tool(
        "ask",
        "Ask the user a question before answering.",
        &[("question", "string", false)],
    ),
    tool(
        "big",
        "Answer a text of this many bytes.",
        &[("bytes", "integer", true)],
    ),
    tool(
        "fail",
        "Answer a tool error.",
        &[("message", "string", false)],
    ),
    tool(
        "reject",
        "Answer a JSON-RPC error without doing anything.",
        &[("code", "integer", false)],
    ),
    tool(
        "http_status",
        "Answer this HTTP status without doing anything.",
        &[("status", "integer", true)],
    ),
    tool(
        "misbehave",
        "Break the protocol in the way that is named.",
        &[("fault", "string", true)],
    ),
];

const fn tool(
    name: &'static str,
    description: &'static str,
    input: &'static [(&'static str, &'static str, bool)],
) -> Tool {
    Tool {
        name,
        description,
        input,
    }
}

impl Tool {
    /// The entry in `tools/list`.
    pub fn to_json(&self) -> Value {
        let properties: serde_json::Map<String, Value> = self
            .input
            .iter()
            .map(|(name, kind, _)| ((*name).to_owned(), json!({"type": kind})))
            .collect();
        let required: Vec<&str> = self.input.iter().filter(|p| p.2).map(|p| p.0).collect();
        json!({
            "name": self.name,
            "description": self.description,
            "inputSchema": {"type": "object", "properties": properties, "required": required},
        })
    }
}

/// What came of a call.
#[derive(Debug)]
pub(super) enum Effect {
    /// A text.
    Text(String),
    /// A text that says what failed.
    ToolError(String),
    /// A JSON-RPC error; nothing was done.
    Rejected(i64, String),
    /// An HTTP status; nothing was done below 500.
    Status(u16),
    /// A broken reply.
    Fault(Fault),
    /// The user must be asked first: the question.
    Ask(String),
}

/// Whether something comes before this tool's response.
pub(super) fn streams(name: &str) -> bool {
    matches!(name, "progress" | "ask")
}

/// Whether this tool's reply must not begin before it has run.
pub(super) fn sets_status(name: &str) -> bool {
    matches!(name, "http_status" | "misbehave")
}

pub(super) async fn run(name: &str, arguments: &Value, emit: &Emit) -> Effect {
    let number = |key: &str| arguments.get(key).and_then(Value::as_u64);
    let text = |key: &str| arguments.get(key).and_then(Value::as_str);
    if let Some(said) = said(name, arguments) {
        return Effect::Text(said);
    }
    match name {
        "slow" => {
            let ms = number("ms").unwrap_or(0).min(WAIT_MS_MAX);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Effect::Text(format!("waited {ms} ms"))
        }
        "progress" => {
            let steps = number("steps").unwrap_or(1).min(STEPS_MAX);
            let pause = Duration::from_millis(number("ms").unwrap_or(0).min(WAIT_MS_MAX));
            for step in 1..=steps {
                tokio::time::sleep(pause).await;
                emit.progress(step, steps).await;
            }
            Effect::Text(format!("{steps} steps done"))
        }
        "ask" => Effect::Ask(text("question").unwrap_or("Go on?").to_owned()),
        "big" => {
            let bytes = number("bytes").unwrap_or(0).min(BIG_MAX);
            Effect::Text("x".repeat(bytes as usize))
        }
        "fail" => Effect::ToolError(text("message").unwrap_or("it failed").to_owned()),
        "reject" => {
            let code = arguments
                .get("code")
                .and_then(Value::as_i64)
                .unwrap_or(-32602);
            Effect::Rejected(code, "rejected as asked".into())
        }
        "http_status" => match number("status") {
            Some(status @ 200..=599) => Effect::Status(status as u16),
            _ => Effect::Rejected(-32602, "status must be 200 to 599".into()),
        },
        "misbehave" => match text("fault").map(|f| Fault::from_str(f, false)) {
            Some(Ok(fault)) => Effect::Fault(fault),
            _ => Effect::Rejected(-32602, "no such fault".into()),
        },
        // `said` knows every other tool, and the caller has looked for it in the list.
        _ => Effect::Rejected(-32602, "no such tool".into()),
    }
}

/// The text of a tool whose answer follows from its arguments alone; `None` for the others.
pub fn said(name: &str, arguments: &Value) -> Option<String> {
    let text = |key: &str| arguments.get(key).and_then(Value::as_str);
    Some(match name {
        "echo" => arguments.to_string(),
        "create_charge" => {
            let amount = arguments.get("amount").cloned().unwrap_or(Value::Null);
            let currency = text("currency").unwrap_or("?");
            let customer = text("customer_id").unwrap_or("nobody");
            format!("charged {amount} {currency} to {customer}")
        }
        "list_customers" => r#"[{"id":"c1","name":"Ada"},{"id":"c2","name":"Grace"}]"#.into(),
        "delete_customer" => format!("deleted {}", text("customer_id").unwrap_or("nobody")),
        "delete_account" => "the account is gone".into(),
        // No image is made, the answer has the form of one.
        "flux_generate_image" | "flux_edit_image" | "generate_image" | "img2img" | "inpaint" => {
            let prompt = text("prompt").unwrap_or("");
            format!("{name}: https://images.example/{}.png", digest(prompt))
        }
        _ => return None,
    })
}

/// FNV-1a, so that equal prompts give equal addresses.
fn digest(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
