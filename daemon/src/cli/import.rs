//! `tollgate import`

mod client;

use crate::{
    cli::grant::mint,
    clock,
    config::{
        self,
        emit::{self, Map, list, text},
    },
};
use anyhow::{Context, bail};
use client::{Client, Found, Setting, Target};
use proto::{
    doc::{Node, Value},
    grant::token,
};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Arguments of `tollgate import`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The client's new configuration, with tokens that are shown nowhere else, goes to standard \
                        output; the gateway's configuration and its secrets into files."
)]
pub struct Args {
    /// The client's configuration: a file with `mcpServers` or `servers`
    #[arg(value_name = "FILE", default_value = ".mcp.json")]
    file: PathBuf,
    /// Directory for tollgate.yaml and secrets/
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Overwrite files that exist
    #[arg(long)]
    force: bool,
}

/// The gateway's configuration.
const CONFIG: &str = "tollgate.yaml";
/// Directory of secrets beside it.
const SECRETS: &str = "secrets";
/// The policy that every imported grant gets.
const POLICY: &str = "allow-all";
/// Longest label of a grant.
const LABEL_BYTES: usize = 128;
/// Where the gateway listens without further configuration.
const ENDPOINT: &str = "http://127.0.0.1:7420/mcp";

/// What an import makes.
struct Import {
    config: String,
    /// Files under [`SECRETS`]: names and contents.
    secrets: Vec<(String, String)>,
    /// The client's new configuration, as JSON.
    client: String,
}

/// Runs `tollgate import`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let shown = args.file.display();
    let read = fs::read_to_string(&args.file).with_context(|| format!("{shown}"))?;
    let from = std::path::absolute(&args.file)?;
    let base = from.parent().unwrap_or(Path::new("/"));
    let client = client::read(&read, base).with_context(|| format!("{shown}"))?;
    let import = import(&client, &shown.to_string())?;
    write(&import, &args.out, args.force)?;

    let path = args.out.join(CONFIG);
    for remark in &client.remarks {
        eprintln!("remark: {remark}");
    }
    eprintln!(
        "remark: every imported server has the policy `{POLICY}`, which allows every tool: tighten it"
    );
    let files = import.secrets.len();
    eprintln!(
        "written: {} and {files} files in {}",
        path.display(),
        args.out.join(SECRETS).display()
    );
    let code = match config::load(&path, 1) {
        Ok(loaded) => {
            loaded
                .remarks
                .iter()
                .for_each(|remark| eprintln!("{remark}"));
            eprintln!("next: tollgate serve --config {}", path.display());
            ExitCode::SUCCESS
        }
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            ExitCode::from(1)
        }
    };
    eprintln!("The client's new configuration, with its tokens (they are shown this once):");
    println!("{}", import.client);
    Ok(code)
}

fn import(client: &Client, from: &str) -> anyhow::Result<Import> {
    let mut secrets = vec![("identity".to_owned(), token(&clock::random()))];
    let (mut servers, mut grants) = (Map::default(), Vec::new());
    let mut replaced = Map::default();
    for server in &client.servers {
        servers.put(&server.name, target(server, &mut secrets));
        let (token, hash) = mint();
        let bindings = Map::default().put(&server.name, text(POLICY)).done();
        grants.push(
            Map::default()
                .put("id", text(&server.name))
                .put("label", text(label(from, &server.written)))
                .put("token_sha256", text(hash.to_string()))
                .put("servers", bindings)
                .done(),
        );
        let headers = Map::default()
            .put("Authorization", text(format!("Bearer {token}")))
            .done();
        let entry = Map::default()
            .put("type", text("http"))
            .put("url", text(format!("{ENDPOINT}/{}", server.name)))
            .put("headers", headers)
            .done();
        replaced.put(&server.written, entry);
    }
    let policy = Map::default()
        .put("version", text("1"))
        .put("default", text("allow"))
        .put("tools", Map::default().done())
        .done();
    let policies = Map::default()
        .put(POLICY, Map::default().put("inline", policy).done())
        .done();
    let section = |key: &str, node: Node| emit::yaml(&Map::default().put(key, node).done());
    let identity = Map::default()
        .put("file", text(format!("{SECRETS}/identity")))
        .done();
    let config = format!(
        "# Imported from {}. `tollgate check` tells what it means; config/full.yaml has every key.\n\n{}\n\
         # Allows every tool: replace it by what each agent may do.\n{}\n\
         # One grant a server; the tokens are in the client's configuration, only their hashes are here.\n{}\n{}",
        from.replace(['\n', '\r'], " "),
        section("servers", servers.done()),
        section("policies", policies),
        section("grants", list(grants)),
        section("identity_secret", identity),
    );
    Ok(Import {
        config,
        secrets,
        client: client_json(client, replaced.done())?,
    })
}

fn label(from: &str, written: &str) -> String {
    let label: String = format!("{written} (imported from {from})")
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    let mut end = label.len().min(LABEL_BYTES);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    label.get(..end).unwrap_or_default().to_owned()
}

fn target(server: &Found, secrets: &mut Vec<(String, String)>) -> Node {
    let mut settings = |settings: &[(String, Setting)]| {
        let mut map = Map::default();
        for (name, setting) in settings {
            let node = match setting {
                Setting::Plain(value) => text(value),
                Setting::Env { prefix, variable } => {
                    let mut map = Map::default();
                    map.put("env", text(variable));
                    map.put_some("prefix", (!prefix.is_empty()).then(|| text(prefix)));
                    map.done()
                }
                Setting::Secret(value) => {
                    let file = secret_name(&server.name, name, secrets);
                    secrets.push((file.clone(), value.clone()));
                    Map::default()
                        .put("file", text(format!("{SECRETS}/{file}")))
                        .done()
                }
            };
            map.put(name, node);
        }
        map.done()
    };
    match &server.target {
        Target::Http { url, headers } => Map::default()
            .put("url", text(url))
            .put_full("headers", settings(headers))
            .done(),
        Target::Stdio {
            command,
            args,
            env,
            dir,
        } => Map::default()
            .put("command", text(command))
            .put_full("args", list(args.iter().map(text)))
            .put_full("env", settings(env))
            .put_some("dir", dir.as_ref().map(text))
            .done(),
    }
}

/// A file's name that no other secret has.
fn secret_name(server: &str, name: &str, secrets: &[(String, String)]) -> String {
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "_-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(100)
        .collect();
    let plain = format!("{server}.{name}");
    let taken = |name: &String| {
        secrets
            .iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(name))
    };
    (1..)
        .map(|n| {
            if n == 1 {
                plain.clone()
            } else {
                format!("{plain}-{n}")
            }
        })
        .find(|name| !taken(name))
        .unwrap_or(plain)
}

/// The client's document with its servers replaced; everything else stays.
fn client_json(client: &Client, servers: Node) -> anyhow::Result<String> {
    let mut document = client.document.clone();
    if let Value::Map(entries) = &mut document.value {
        for entry in entries.iter_mut().filter(|entry| entry.key == client.key) {
            entry.value = servers.clone();
        }
        // What was asked for and filled in there is in the gateway's files now.
        entries.retain(|entry| entry.key != "inputs");
    }
    Ok(serde_json::to_string_pretty(&json(&document)?)?)
}

fn json(node: &Node) -> anyhow::Result<serde_json::Value> {
    Ok(match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(digits) => serde_json::from_str(digits)?,
        Value::String(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect::<anyhow::Result<_>>()?,
        Value::Map(entries) => entries
            .iter()
            .map(|entry| Ok((entry.key.clone(), json(&entry.value)?)))
            .collect::<anyhow::Result<_>>()?,
    })
}

fn write(import: &Import, out: &Path, force: bool) -> anyhow::Result<()> {
    let secrets = out.join(SECRETS);
    let config = out.join(CONFIG);
    let files = import.secrets.iter().map(|(name, _)| secrets.join(name));
    let present: Vec<_> = files
        .chain([config.clone()])
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !present.is_empty() && !force {
        bail!("{}: exists already; --force overwrites", present.join(", "));
    }
    fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
    if !secrets.is_dir() {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&secrets)
            .with_context(|| format!("{}", secrets.display()))?;
    }
    for (name, value) in &import.secrets {
        // Without a line end a value that ends with one would lose it.
        write_new(&secrets.join(name), &format!("{value}\n"), 0o600)?;
    }
    write_new(&config, &import.config, 0o644)
}

/// Writes a file that is new, so that neither an old mode nor a link decides who can read it.
fn write_new(path: &Path, content: &str, mode: u32) -> anyhow::Result<()> {
    let written = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?
            .write_all(content.as_bytes())
    };
    written().with_context(|| format!("{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const SAMPLE: &str = r#"{
        "globalShortcut": "Ctrl+Space",
        "mcpServers": {
            "my images": {"command": "cat", "args": ["-u"], "env": {"ACEDATACLOUD_API_TOKEN": "hunter2", "LOG": "info"}},
            "web": {"type": "http", "url": "https://x.example/mcp",
                    "headers": {"Authorization": "Bearer hunter3", "X-Key": "hunter4"}}
        }
    }"#;

    fn imported(dir: &Path) -> Import {
        let client = client::read(SAMPLE, Path::new("/home/ada")).unwrap();
        let import = import(&client, ".mcp.json").unwrap();
        write(&import, dir, false).unwrap();
        import
    }

    #[test]
    fn secrets_go_to_private_files_and_tokens_to_the_client_only() {
        let dir = tempfile::tempdir().unwrap();
        let import = imported(dir.path());
        assert!(!import.config.contains("hunter"), "{}", import.config);
        assert!(!import.config.contains("tg_"), "{}", import.config);
        let secret = dir.path().join("secrets/my-images.ACEDATACLOUD_API_TOKEN");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "hunter2\n");
        assert_eq!(
            fs::metadata(&secret).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let place = fs::metadata(dir.path().join("secrets")).unwrap();
        assert_eq!(place.permissions().mode() & 0o777, 0o700);
        let client: serde_json::Value = serde_json::from_str(&import.client).unwrap();
        assert_eq!(client["globalShortcut"], "Ctrl+Space");
        let images = &client["mcpServers"]["my images"];
        assert_eq!(images["url"], "http://127.0.0.1:7420/mcp/my-images");
        assert!(
            images["headers"]["Authorization"]
                .as_str()
                .unwrap()
                .starts_with("Bearer tg_")
        );
        assert!(images.get("env").is_none() && images.get("command").is_none());
    }

    #[test]
    fn what_is_written_loads_and_lets_each_token_use_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let import = imported(dir.path());
        let loaded = config::load(&dir.path().join(CONFIG), 1)
            .unwrap_or_else(|problems| panic!("{problems:#?}\n{}", import.config));
        let told: Vec<_> = loaded.remarks.iter().map(ToString::to_string).collect();
        assert!(told.is_empty(), "{told:#?}");
        let view = &loaded.view;
        assert_eq!(view.grants.len(), 2);
        for grant in view.grants.values() {
            let bindings: Vec<_> = grant.servers.iter().collect();
            let [(server, binding)] = bindings.as_slice() else {
                panic!("one server a grant")
            };
            assert_eq!(***server, *grant.id);
            assert!(binding.policy.as_ref().unwrap().lists("any_tool"));
        }
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let import = imported(dir.path());
        let refused = write(&import, dir.path(), false).unwrap_err().to_string();
        assert!(refused.contains("--force"), "{refused}");
        let secret = dir.path().join("secrets/identity");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        write(&import, dir.path(), true).unwrap();
        assert_eq!(
            fs::metadata(&secret).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_label_is_cut_at_a_character() {
        assert!(label(&"é".repeat(300), "x\ny").len() <= 128);
    }
}
