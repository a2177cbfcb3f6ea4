//! A gateway with one grant, and a call of 500 bytes that its policy judges by conditions and two limits.

use std::{fmt::Write, path::Path};

/// The server, as the configuration names it.
pub const SERVER: &str = "images";
/// The tool that is called.
pub const TOOL: &str = "img2img";
/// The grant's token.
pub const TOKEN: &str = "tg_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const VERSION: &str = "2026-07-28";

/// A `tools/call` of exactly so many bytes.
pub fn call(bytes: usize) -> Vec<u8> {
    let body = |image: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{TOOL}","arguments":{{"prompt":"a lighthouse in fog","width":768,"height":512,"image":"{image}"}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"{VERSION}","io.modelcontextprotocol/clientCapabilities":{{}},"progressToken":1}}}}}}"#
        )
    };
    let left = bytes - body("").len();
    let image: String = "iVBORw0KGgoAAAANSUhEUgAA"
        .chars()
        .cycle()
        .take(left)
        .collect();
    body(&image).into_bytes()
}

/// A request with that body, as bytes of HTTP/1.1.
pub fn request(body: &[u8]) -> Vec<u8> {
    let mut head = format!("POST /mcp/{SERVER} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    for (name, value) in [
        ("Authorization", format!("Bearer {TOKEN}").as_str()),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("MCP-Protocol-Version", VERSION),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", TOOL),
    ] {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// How much there is beside what is called.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Tools in the policy.
    pub tools: usize,
    /// Grants: more than a file holds, so that they are put into the view.
    pub grants: usize,
    /// Servers.
    pub servers: usize,
}

/// A configuration of this size; its ledger and its audit stand in `folder`.
pub fn configuration(folder: &Path, upstream: &str, token_sha256: &str, size: Size) -> String {
    let folder = folder.display();
    let (mut others, mut servers) = (String::new(), String::new());
    for n in 1..size.tools {
        let _ = writeln!(others, "        other_{n}: {{}}");
    }
    for n in 1..size.servers {
        let _ = writeln!(servers, "  other-{n}: {{ url: \"{upstream}\" }}");
    }
    format!(
        r#"
listeners: [{{ address: "127.0.0.1:0" }}]
servers:
  {SERVER}: {{ url: "{upstream}" }}
{servers}
grants:
  - id: bench
    token_sha256: "{token_sha256}"
    servers: {{ {SERVER}: calls }}
policies:
  calls:
    inline:
      version: "1"
      default: deny
      all_tools: {{ limits: [{{ counter: calls, window: hour, max: 1000000000000, scope: server }}] }}
      tools:
        {TOOL}:
          deny_if:
            - conditions: [{{ path: args.prompt, op: regex, value: "(?i)password|api[_-]?key" }}]
          require:
            - conditions:
                - {{ path: args.prompt, op: exists, value: true }}
                - {{ path: args.width, op: lte, value: 2048 }}
                - {{ path: args.height, op: lte, value: 2048 }}
          limits: [{{ counter: images, window: minute, max: 1000000000000, scope: grant }}]
{others}
audit: {{ sink: {{ file: {{ path: "{folder}/audit.jsonl", keep: 1 }} }} }}
admin: {{ socket: "{folder}/admin.sock" }}
cluster: {{ data_dir: "{folder}/data", name: bench }}
runtimes: 1
bounds: {{ drain_delay: 0s, drain_timeout: 1s }}
log: {{ level: warn }}
"#
    )
}
