//! `tollgate demo`: the gateway before a server of its own, with the shipped policies and ready grants.

use crate::{
    clock,
    config::{self, Sources},
    server::Server,
    telemetry,
};
use anyhow::{Context as _, bail};
use loadtest::upstream::{self, Options, Upstream};
use proto::grant::{TokenHash, token};
use serde_json::json;
use std::{
    fmt::Write as _,
    fs::{self, DirBuilder},
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The gateway's port unless it is taken.
const PORT: u16 = 8080;

/// Arguments of `tollgate demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port of the gateway on 127.0.0.1; 0 takes a free one [default: 8080, or a free one where that is taken]
    #[arg(short, long)]
    port: Option<u16>,
    /// Write the grants to this file, `NAME TOKEN` a line, as `tollgate-loadtest --grants` reads them
    #[arg(long, value_name = "FILE")]
    grants_file: Option<PathBuf>,
    #[command(subcommand)]
    only: Option<Only>,
}

#[derive(Debug, clap::Subcommand)]
enum Only {
    /// Start only the demo's MCP server, without a gateway before it
    Server(upstream::cli::Args),
}

/// An endpoint of the demo: its name, the shipped policy before it, what that shows.
struct Endpoint {
    name: &'static str,
    policy: &'static str,
    document: &'static str,
    shows: &'static str,
}

macro_rules! endpoint {
    ($name:literal, $policy:literal, $shows:literal) => {
        Endpoint {
            name: $name,
            policy: $policy,
            document: include_str!(concat!("../../../config/policies/", $policy)),
            shows: $shows,
        }
    };
}

/// All of them stand before the same server, so that what differs is the policy.
const ENDPOINTS: &[Endpoint] = &[
    endpoint!(
        "images",
        "generate_image.yaml",
        "catalogue: generate_image, 30 a minute"
    ),
    endpoint!(
        "flux",
        "flux_generate_image.yaml",
        "catalogue: flux_generate_image, 30 a minute"
    ),
    endpoint!(
        "flux-edit",
        "flux_edit_image.yaml",
        "catalogue: flux_edit_image, 30 a minute"
    ),
    endpoint!(
        "img2img",
        "img2img.json",
        "native: img2img, 30 a minute, and nothing else"
    ),
    endpoint!(
        "inpaint",
        "inpaint.json",
        "native: inpaint, 30 a minute, and nothing else"
    ),
    endpoint!(
        "payments",
        "payments.json",
        "native: charges validated and budgeted by the day"
    ),
    endpoint!(
        "back-office",
        "payments.yaml",
        "Intercept: charges capped, deletions denied or hidden"
    ),
];

const GRANTS: [&str; 2] = ["agent-a", "agent-b"];

/// The tools of the demo's server: those that policies speak of, and a few to play with.
const TOOLS: &[&str] = &[
    "flux_generate_image",
    "flux_edit_image",
    "generate_image",
    "img2img",
    "inpaint",
    "create_charge",
    "list_customers",
    "delete_customer",
    "delete_account",
    "echo",
    "slow",
    "progress",
];

/// Runs `tollgate demo`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(Only::Server(args)) = args.only {
        upstream::cli::run(args)?;
        return Ok(ExitCode::SUCCESS);
    }
    let server = Upstream::start(Options {
        name: "tollgate-demo".into(),
        tools: TOOLS.iter().map(ToString::to_string).collect(),
        ..Options::default()
    })
    .context("cannot start the demo's server")?;
    let scratch = Scratch::make()?;
    let tokens = GRANTS.map(|_| token(&clock::random()));
    if let Some(path) = &args.grants_file {
        write_grants(path, &tokens)
            .with_context(|| format!("cannot write the grants to {}", path.display()))?;
    }
    let port = args
        .port
        .unwrap_or_else(|| if is_free(PORT) { PORT } else { 0 });
    let text = configuration(port, &server.url(), &scratch.0, &tokens);
    let builtin: Vec<(&str, &str)> = ENDPOINTS.iter().map(|e| (e.policy, e.document)).collect();
    let sources = Sources {
        builtin: &builtin,
        ..Sources::default()
    };
    let loaded = match config::load_with(&text, &scratch.0, &sources, 1) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            bail!(
                "the demo's configuration is refused:\n{}",
                problems.join("\n")
            );
        }
    };
    telemetry::init(&loaded.settings.log)?;
    let gateway = Server::new(loaded, None).context("cannot start the gateway")?;
    let address = gateway.addresses().first().copied();
    let address = address.context("the gateway has no listener")?;
    let (_keep, stop) = tokio::sync::watch::channel(false);
    gateway.run(stop, || print!("{}", welcome(address, &scratch.0, &tokens)))
}

/// For its owner's eyes alone: tokens let their holder in.
fn write_grants(path: &Path, tokens: &[String]) -> io::Result<()> {
    // A file that is there already keeps its mode when it is overwritten.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    for (id, token) in GRANTS.iter().zip(tokens) {
        writeln!(file, "{id} {token}")?;
    }
    Ok(())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A directory for the audit file and the admin socket, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> anyhow::Result<Self> {
        let random = u64::from_le_bytes(clock::random());
        let dir = std::env::temp_dir().join(format!("tollgate-demo-{random:016x}"));
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn configuration(port: u16, upstream: &str, dir: &Path, tokens: &[String]) -> String {
    let mut servers = serde_json::Map::new();
    let mut policies = serde_json::Map::new();
    let mut bindings = serde_json::Map::new();
    for endpoint in ENDPOINTS {
        servers.insert(endpoint.name.into(), json!({"url": upstream}));
        policies.insert(endpoint.name.into(), json!({"file": endpoint.policy}));
        bindings.insert(endpoint.name.into(), json!(endpoint.name));
    }
    let grants: Vec<_> = GRANTS
        .iter()
        .zip(tokens)
        .map(|(id, token)| json!({"id": id, "token_sha256": hash(token), "servers": bindings}))
        .collect();
    json!({
        "listeners": [{"address": SocketAddr::from((Ipv4Addr::LOCALHOST, port))}],
        "servers": servers,
        "policies": policies,
        "grants": grants,
        "bounds": {"drain_delay": "0s", "drain_timeout": "2s"},
        "audit": {"sink": {"file": {"path": dir.join("audit.jsonl")}}},
        "admin": {"socket": dir.join("admin.sock")},
        "cluster": {"data_dir": dir.join("node")},
        "log": {"level": "warn"},
    })
    .to_string()
}

fn hash(token: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    TokenHash(bytes).to_string()
}

/// A line for a shell that calls a tool in the modern era.
fn curl(
    address: SocketAddr,
    endpoint: &str,
    token: &str,
    tool: &str,
    arguments: serde_json::Value,
) -> String {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": tool,
        "arguments": arguments,
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    }});
    format!(
        "curl -s http://{address}/mcp/{endpoint} \\\n  \
         -H 'Authorization: Bearer {token}' \\\n  \
         -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\\n  \
         -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' -H 'Mcp-Name: {tool}' \\\n  \
         -d '{body}'"
    )
}

fn welcome(address: SocketAddr, dir: &Path, tokens: &[String]) -> String {
    let first = tokens.first().map_or("", String::as_str);
    let mut out = String::from(
        "Tollgate demo: the gateway stands before a demo MCP server. Ctrl-C ends it.\n\nEndpoints\n",
    );
    for endpoint in ENDPOINTS {
        let url = format!("http://{address}/mcp/{}", endpoint.name);
        let _ = writeln!(out, "  {url:<38} {}", endpoint.shows);
    }
    out.push_str("\nGrants (made now, good until the end; each has counters of its own where a policy counts by grant)\n");
    for (id, token) in GRANTS.iter().zip(tokens) {
        let _ = writeln!(out, "  {id}  {token}");
    }
    let image = curl(
        address,
        "images",
        first,
        "generate_image",
        json!({"prompt": "a tollgate in the fog"}),
    );
    let charge = json!({"amount": 90_000, "currency": "usd", "customer_id": "c1"});
    let charge = curl(address, "payments", first, "create_charge", charge);
    let _ = write!(
        out,
        "\nCall a tool\n\n{image}\n\n\
         See a limit: the 31st call within a minute is denied\n\n\
         for n in $(seq 31); do {image}; echo; done\n\n\
         See a rule: a charge that is too large\n\n{charge}\n"
    );
    let client = json!({"mcpServers": {"images": {
        "type": "http",
        "url": format!("http://{address}/mcp/images"),
        "headers": {"Authorization": format!("Bearer {first}")},
    }}});
    let client = serde_json::to_string_pretty(&client).unwrap_or_default();
    let _ = write!(
        out,
        "\nFor an MCP client's configuration\n\n{client}\n\n\
         Every request leaves a line in {}/audit.jsonl\n\
         What is used up:  tollgate limits show --socket {}/admin.sock\n",
        dir.display(),
        dir.display()
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_loads_with_its_shipped_policy_and_all_dialects_are_in_use() {
        let tokens = GRANTS.map(|_| token(&clock::random()));
        let text = configuration(0, "http://127.0.0.1:1/mcp", Path::new("/tmp"), &tokens);
        let builtin: Vec<(&str, &str)> = ENDPOINTS.iter().map(|e| (e.policy, e.document)).collect();
        let sources = Sources {
            builtin: &builtin,
            ..Sources::default()
        };
        let loaded = config::load_with(&text, Path::new("/tmp"), &sources, 1).unwrap();
        assert_eq!(loaded.view.servers.len(), ENDPOINTS.len());
        for endpoint in ENDPOINTS {
            let policy = proto::policy::dialect::load(endpoint.document).unwrap();
            let said = endpoint.shows.split(':').next().unwrap().to_lowercase();
            assert_eq!(policy.dialect.name(), said, "{}", endpoint.name);
        }
        for dialect in ["catalogue", "native", "Intercept"] {
            assert!(ENDPOINTS.iter().any(|e| e.shows.starts_with(dialect)));
        }
    }
}
