//! What an MCP client's configuration says: `mcpServers` (Claude, Cursor and others) or `servers` (VS Code).

use crate::config::{is_name, is_secret};
use anyhow::{Context, bail};
use proto::doc::{self, Node, Problem, Value};
use std::path::Path;

/// An MCP client's configuration.
#[derive(Debug)]
pub(super) struct Client {
    /// The whole document.
    pub document: Node,
    /// The key that servers stand under.
    pub key: &'static str,
    /// Its servers.
    pub servers: Vec<Found>,
    /// What could not be carried over as it was, for people.
    pub remarks: Vec<String>,
}

/// A server of the client.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    /// Its name as the gateway takes it.
    pub name: String,
    /// Its name as the client has it.
    pub written: String,
    pub target: Target,
}

#[derive(Debug, PartialEq)]
pub(super) enum Target {
    Http {
        url: String,
        headers: Vec<(String, Setting)>,
    },
    Stdio {
        command: String,
        args: Vec<String>,
        env: Vec<(String, Setting)>,
        dir: Option<String>,
    },
}

/// A header's or variable's value.
#[derive(Debug, PartialEq)]
pub(super) enum Setting {
    /// Harmless: may stand in the configuration.
    Plain(String),
    /// Belongs into a file of its own.
    Secret(String),
    /// Comes from the environment, behind a prefix.
    Env { prefix: String, variable: String },
}

const KEYS: [&str; 2] = ["mcpServers", "servers"];
/// Keys that are carried over, or mean nothing to a gateway.
const KNOWN: &[&str] = &[
    "type",
    "transport",
    "command",
    "args",
    "env",
    "cwd",
    "url",
    "serverUrl",
    "httpUrl",
    "headers",
    "disabled",
    "description",
    "name",
    "gallery",
    "version",
];

/// Reads a client's configuration; relative programs and directories start at `base`.
pub(super) fn read(text: &str, base: &Path) -> anyhow::Result<Client> {
    let document = doc::parse(&without_comments(text))
        .map_err(|problems| anyhow::anyhow!("{}", told(&problems)))?;
    let Some((key, servers)) = KEYS
        .iter()
        .find_map(|key| Some((*key, document.child(key)?)))
    else {
        bail!("there is neither `mcpServers` nor `servers` in it");
    };
    let mut reader = Reader {
        base,
        remarks: Vec::new(),
    };
    let mut found: Vec<Found> = Vec::new();
    for entry in servers.entries() {
        let at = entry.key_at;
        let target = reader
            .target(&entry.key, &entry.value)
            .with_context(|| format!("{at}: server `{}`", entry.key))?;
        if let Some(target) = target {
            let name = reader.name(&entry.key, &found);
            found.push(Found {
                name,
                written: entry.key.clone(),
                target,
            });
        }
    }
    if found.is_empty() {
        bail!("there is no server in it");
    }
    Ok(Client {
        key,
        servers: found,
        remarks: reader.remarks,
        document,
    })
}

fn told(problems: &[Problem]) -> String {
    let lines = problems.iter().map(|p| format!("{}: {}", p.at, p.message));
    lines.collect::<Vec<_>>().join("\n")
}

/// Blanks out `//` and `/* */` comments, as VS Code's files have them; every other character keeps its place.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut in_text = false;
    while let Some(c) = chars.next() {
        match (c, chars.peek().copied()) {
            ('\\', Some(escaped)) if in_text => {
                chars.next();
                out.push(c);
                out.push(escaped);
            }
            ('"', _) => {
                in_text = !in_text;
                out.push(c);
            }
            ('/', Some('/')) if !in_text => {
                out.push(' ');
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                    out.push(' ');
                }
            }
            ('/', Some('*')) if !in_text => {
                chars.next();
                out.push_str("  ");
                let mut star = false;
                for c in chars.by_ref() {
                    out.push(if c == '\n' { c } else { ' ' });
                    if star && c == '/' {
                        break;
                    }
                    star = c == '*';
                }
            }
            _ => out.push(c),
        }
    }
    out
}

struct Reader<'a> {
    base: &'a Path,
    remarks: Vec<String>,
}

impl Reader<'_> {
    fn remark(&mut self, server: &str, what: impl std::fmt::Display) {
        self.remarks.push(format!("{server}: {what}"));
    }

    /// A name that the gateway takes and no other server has.
    fn name(&mut self, written: &str, found: &[Found]) -> String {
        let mut name: String = written
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "_.-".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .take(60)
            .collect();
        if !is_name(&name) {
            name = "server".into();
        }
        let taken = |name: &str| found.iter().any(|other| other.name == name);
        let plain = name.clone();
        let mut n = 2;
        while taken(&name) {
            name = format!("{plain}-{n}");
            n += 1;
        }
        if name != written {
            self.remark(written, format!("is called `{name}` in the gateway"));
        }
        name
    }

    fn target(&mut self, server: &str, node: &Node) -> anyhow::Result<Option<Target>> {
        if !matches!(node.value, Value::Map(_)) {
            bail!("expected a mapping, found {}", node.kind());
        }
        if node
            .child("disabled")
            .is_some_and(|d| d.value == Value::Bool(true))
        {
            self.remark(server, "is disabled and left out");
            return Ok(None);
        }
        for entry in node
            .entries()
            .iter()
            .filter(|e| !KNOWN.contains(&e.key.as_str()))
        {
            self.remark(server, format!("`{}` is not carried over", entry.key));
        }
        let kind = node.child("type").or_else(|| node.child("transport"));
        if kind.and_then(Node::as_str) == Some("sse") {
            let what = "is an HTTP+SSE server of the 2024-11-05 protocol, which is not supported yet: left out; if it \
                        also speaks streamable HTTP, give that URL";
            self.remark(server, what);
            return Ok(None);
        }
        let url = ["url", "serverUrl", "httpUrl"]
            .iter()
            .find_map(|key| node.child(key));
        match (text_of(node, "command")?, url) {
            (Some(command), None) => self.stdio(server, command, node).map(Some),
            (None, Some(url)) => {
                let url = url.as_str().context("its URL is not text")?;
                self.http(server, url, node).map(Some)
            }
            (Some(_), Some(_)) => bail!("it has a command and a URL"),
            (None, None) => bail!("it has neither a command nor a URL"),
        }
    }

    fn http(&mut self, server: &str, url: &str, node: &Node) -> anyhow::Result<Target> {
        if url.contains("${") {
            self.remark(
                server,
                "its URL holds a placeholder, which the gateway does not fill in: edit it",
            );
        }
        if url
            .split_once('?')
            .is_some_and(|(_, query)| is_secret(query))
        {
            self.remark(
                server,
                "its URL seems to hold a secret: it stands in the configuration",
            );
        }
        Ok(Target::Http {
            url: url.to_owned(),
            headers: self.settings(server, node.child("headers"))?,
        })
    }

    fn stdio(&mut self, server: &str, command: &str, node: &Node) -> anyhow::Result<Target> {
        let args = match node.child("args").map(|args| &args.value) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::List(args)) => args
                .iter()
                .map(|arg| arg.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .context("an argument is not text")?,
            Some(_) => bail!("its `args` are not a list"),
        };
        for (i, arg) in args.iter().enumerate() {
            if arg.contains("${") {
                let what = format!(
                    "the argument `{arg}` holds a placeholder, which the gateway does not fill in: edit it"
                );
                self.remark(server, what);
            }
            let flag = i.checked_sub(1).and_then(|before| args.get(before));
            let named =
                flag.is_some_and(|f| f.starts_with('-') && is_secret(f) && !arg.starts_with('-'));
            if named || arg.split_once('=').is_some_and(|(name, _)| is_secret(name)) {
                let what = "an argument seems to hold a secret: it stands in the configuration and every user of the \
                            machine can see it; better an environment variable, if the server takes one";
                self.remark(server, what);
            }
        }
        let place = |path: &str| self.base.join(path).display().to_string();
        Ok(Target::Stdio {
            command: match command.contains('/') {
                true => place(command),
                false => command.to_owned(),
            },
            args,
            dir: text_of(node, "cwd")?.map(place),
            env: self.settings(server, node.child("env"))?,
        })
    }

    fn settings(
        &mut self,
        server: &str,
        node: Option<&Node>,
    ) -> anyhow::Result<Vec<(String, Setting)>> {
        let Some(node) = node.filter(|node| node.value != Value::Null) else {
            return Ok(Vec::new());
        };
        if !matches!(node.value, Value::Map(_)) {
            bail!("{}: expected a mapping, found {}", node.at, node.kind());
        }
        let mut settings = Vec::new();
        for entry in node.entries() {
            let value = match &entry.value.value {
                Value::String(text) | Value::Number(text) => text.clone(),
                Value::Bool(value) => value.to_string(),
                Value::Null => continue,
                _ => bail!("{}: `{}` is not text", entry.value.at, entry.key),
            };
            let setting = self.setting(server, &entry.key, value);
            settings.push((entry.key.clone(), setting));
        }
        Ok(settings)
    }

    fn setting(&mut self, server: &str, name: &str, value: String) -> Setting {
        if let Some((prefix, variable)) = placeholder(&value) {
            let (prefix, variable) = (prefix.to_owned(), variable.to_owned());
            self.remark(
                server,
                format!(
                    "`{name}` is read from the environment variable `{variable}` of the gateway"
                ),
            );
            return Setting::Env { prefix, variable };
        }
        if value.contains("${") {
            self.remark(
                server,
                format!(
                    "`{name}` holds a placeholder, which the gateway does not fill in: edit it"
                ),
            );
        }
        match is_harmless(name, &value) {
            true => Setting::Plain(value),
            false => Setting::Secret(value),
        }
    }
}

fn text_of<'a>(node: &'a Node, key: &str) -> anyhow::Result<Option<&'a str>> {
    match node.child(key) {
        None => Ok(None),
        Some(child) if child.value == Value::Null => Ok(None),
        Some(child) => child
            .as_str()
            .map(Some)
            .with_context(|| format!("its `{key}` is not text")),
    }
}

/// `prefix${VARIABLE}`, `${env:VARIABLE}`, `${VARIABLE:-default}` or `${input:name}`, at the value's end.
fn placeholder(value: &str) -> Option<(&str, &str)> {
    let (prefix, rest) = value.split_once("${")?;
    let inner = rest.strip_suffix('}')?;
    let name = inner.split(":-").next()?;
    let name = name
        .strip_prefix("env:")
        .or_else(|| name.strip_prefix("input:"))
        .unwrap_or(name);
    let fits = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    fits.then_some((prefix, name))
}

/// Whether a value is certainly no secret. Everything else goes into a file of its own.
fn is_harmless(name: &str, value: &str) -> bool {
    const WORDS: &[&str] = &[
        "",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "debug",
        "info",
        "warn",
        "warning",
        "error",
        "trace",
        "production",
        "development",
        "test",
        "utf-8",
        "application/json",
    ];
    let word = WORDS.contains(&value.to_ascii_lowercase().as_str());
    let number = value.len() <= 6 && value.bytes().all(|b| b.is_ascii_digit());
    let path = value.starts_with(['/', '~', '.']) && !value.contains(char::is_whitespace);
    !is_secret(name) && (word || number || path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Client {
        super::read(text, Path::new("/home/ada")).unwrap()
    }

    #[test]
    fn servers_of_every_client_are_understood() {
        let claude = read(
            r#"{"mcpServers": {
                "file system": {"command": "npx", "args": ["-y", "x"], "env": {"API_KEY": "k", "LOG": "debug", "N": 5}},
                "file-system": {"command": "./run.sh", "cwd": "sub"},
                "web": {"type": "http", "url": "https://x.example/mcp", "headers": {"Authorization": "Bearer ${TOKEN}", "X-A": "b"}},
                "old": {"type": "sse", "url": "https://x.example/sse"},
                "off": {"command": "x", "disabled": true}
            }}"#,
        );
        let names: Vec<_> = claude.servers.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["file-system", "file-system-2", "web"]);
        let Target::Stdio { env, args, .. } = &claude.servers[0].target else {
            panic!("stdio")
        };
        assert_eq!(args, &["-y", "x"]);
        assert_eq!(env[0].1, Setting::Secret("k".into()));
        assert_eq!(env[1].1, Setting::Plain("debug".into()));
        assert_eq!(env[2].1, Setting::Plain("5".into()));
        let Target::Stdio { command, dir, .. } = &claude.servers[1].target else {
            panic!("stdio")
        };
        assert_eq!(
            (command.as_str(), dir.as_deref()),
            ("/home/ada/./run.sh", Some("/home/ada/sub"))
        );
        let Target::Http { headers, .. } = &claude.servers[2].target else {
            panic!("http")
        };
        let from_env = Setting::Env {
            prefix: "Bearer ".into(),
            variable: "TOKEN".into(),
        };
        assert_eq!(headers[0].1, from_env);
        assert_eq!(headers[1].1, Setting::Secret("b".into()));
        assert_eq!(claude.remarks.len(), 5, "{:#?}", claude.remarks);

        let vs_code = read(
            "{\n  // the team's\n  \"inputs\": [],\n  \"servers\": { /* one */\n    \"a\": {\"url\": \"https://x//y\", \
             \"headers\": {\"K\": \"${input:api-key}\"}, \"dev\": {}},\n  }\n}",
        );
        assert_eq!(vs_code.key, "servers");
        assert_eq!(vs_code.remarks.len(), 2, "{:#?}", vs_code.remarks);
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_with_a_place() {
        for (text, why) in [
            ("{", "1:2"),
            ("{}", "neither `mcpServers` nor `servers`"),
            (r#"{"mcpServers": {}}"#, "no server"),
            (r#"{"mcpServers": {"a": 5}}"#, "1:17: server `a`"),
            (
                r#"{"mcpServers": {"a": {}}}"#,
                "neither a command nor a URL",
            ),
            (
                r#"{"mcpServers": {"a": {"command": "x", "url": "y"}}}"#,
                "a command and a URL",
            ),
            (
                r#"{"mcpServers": {"a": {"command": ["x"]}}}"#,
                "`command` is not text",
            ),
            (
                r#"{"mcpServers": {"a": {"command": "x", "args": "y"}}}"#,
                "`args` are not a list",
            ),
            (
                r#"{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}"#,
                "already at",
            ),
        ] {
            let error = format!("{:#}", super::read(text, Path::new("/")).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn arguments_that_look_like_secrets_are_remarked() {
        for (args, remarks) in [
            (r#"["--api-key", "abc"]"#, 1),
            (r#"["--token=abc"]"#, 1),
            (r#"["--verbose", "abc", "${workspaceFolder}"]"#, 1),
            (r#"["-y", "server"]"#, 0),
        ] {
            let client = read(&format!(
                r#"{{"mcpServers": {{"a": {{"command": "x", "args": {args}}}}}}}"#
            ));
            assert_eq!(
                client.remarks.len(),
                remarks,
                "{args}: {:?}",
                client.remarks
            );
        }
    }
}
