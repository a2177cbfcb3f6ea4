//! One resource of the cluster's log, read by the same code as its like in a file.
//!
//! Less is allowed than in a file, because every node has a copy, in its log, its snapshots and their backups: no secret
//! in clear, no path that depends on where a file lies, no command unless this node's configuration lets the log start
//! some.

use super::{Origin, Resolver, TypedGrant};
use crate::{
    bounds::Bounds,
    config::{FileProblem, Sources, raw, watch::Seen},
    view::Server,
};
pub(crate) use proto::admin::control::kind_word;
use proto::{
    control::Kind,
    doc::{Entry, Node, Pos, Spanned, Value},
    policy::{self, dialect},
};
use std::{collections::BTreeMap, path::PathBuf, str};

/// What a resource is read with.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// Environment variables; nothing is built in.
    pub(crate) sources: &'a Sources<'a>,
    /// Bounds in force: defaults of servers.
    pub(crate) bounds: &'a Bounds,
    /// Whether a server of the log may be a command.
    pub(crate) commands: bool,
}

/// What became of a document.
#[derive(Debug)]
pub(crate) struct Reading<T> {
    /// Its meaning. Of a grant also where there are errors: its tokens are then known to be refused.
    pub(crate) value: Option<T>,
    /// What there is to say; with an error among it the resource is not put in force.
    pub(crate) problems: Vec<FileProblem>,
    /// Files that were read for it, or could not be.
    pub(crate) seen: Vec<Seen>,
}

#[cfg(test)]
impl<T> Reading<T> {
    /// Whether it can be put in force as far as it can be told from itself.
    pub(crate) fn is_fine(&self) -> bool {
        !self.problems.iter().any(FileProblem::is_error)
    }
}

/// A grant of the log, not yet bound to servers and policies.
#[derive(Clone, Debug)]
pub(crate) struct LogGrant {
    pub(crate) typed: TypedGrant,
    /// Servers and the policies there, by name.
    pub(crate) servers: Vec<(String, Option<String>)>,
}

/// How a resource of the log is called where a file would have its path.
pub(crate) fn place(kind: Kind, name: &str) -> String {
    format!("log:{}/{name}", kind_word(kind))
}

/// Reads a server.
pub(crate) fn server(name: &str, body: &[u8], with: Surroundings<'_>) -> Reading<Server> {
    read(Kind::Server, name, body, with, |resolver, node| {
        let raw: raw::Server = resolver.read(node)?;
        let name = Spanned {
            value: name.to_owned(),
            at: node.at,
        };
        resolver.one_server(&name, &raw, with.bounds)
    })
}

/// Reads a policy's document.
pub(crate) fn policy(name: &str, body: &[u8], with: Surroundings<'_>) -> Reading<dialect::Loaded> {
    read(
        Kind::Policy,
        name,
        body,
        with,
        |resolver, node| match policy::dialect::load_node(node) {
            Ok(loaded) => {
                resolver.add_all(loaded.remarks.clone());
                Some(loaded)
            }
            Err(problems) => {
                resolver.add_all(problems);
                None
            }
        },
    )
}

/// Reads a grant; its name is its id.
pub(crate) fn grant(name: &str, body: &[u8], with: Surroundings<'_>) -> Reading<LogGrant> {
    read(Kind::Grant, name, body, with, |resolver, node| {
        let mut node = node.clone();
        let at = node.at;
        if let Some(entry) = node.entries().iter().find(|entry| entry.key == "id") {
            let message = "a grant of the log has no `id`: its name is its id";
            resolver.error(entry.key_at, message);
        } else if let Value::Map(entries) = &mut node.value {
            entries.push(Entry {
                key: "id".to_owned(),
                key_at: at,
                value: Node {
                    at,
                    value: Value::String(name.to_owned()),
                },
            });
        }
        let raw: raw::Grant = resolver.read(&node)?;
        let typed = resolver.typed_grant(&raw);
        let servers = raw.servers.iter().map(|(server, policy)| {
            let policy = policy.as_ref().map(|policy| policy.value.clone());
            (server.value.clone(), policy)
        });
        Some(LogGrant {
            servers: servers.collect(),
            typed,
        })
    })
}

fn read<T>(
    kind: Kind,
    name: &str,
    body: &[u8],
    with: Surroundings<'_>,
    step: impl FnOnce(&mut Resolver<'_>, &Node) -> Option<T>,
) -> Reading<T> {
    let mut resolver = Resolver {
        sources: with.sources,
        file: place(kind, name),
        base: PathBuf::from("/"),
        lossy: false,
        problems: Vec::new(),
        files: BTreeMap::new(),
        origin: Origin::Log,
        commands: with.commands,
    };
    let start = Pos { line: 1, column: 1 };
    let spanned = Spanned {
        value: name.to_owned(),
        at: start,
    };
    resolver.name(&spanned, kind_word(kind));
    let mut value = None;
    match str::from_utf8(body) {
        Ok(text) => {
            if let Some(node) = resolver.parse(text) {
                value = step(&mut resolver, &node);
                resolver.fill_pointers(&node);
            }
        }
        Err(_) => resolver.error(start, "not UTF-8"),
    }
    if let Err(problems) = resolver.settle() {
        resolver.problems = problems;
        // A grant's tokens must be known, to be refused.
        value = value.filter(|_| kind == Kind::Grant);
    }
    Reading {
        value,
        problems: resolver.problems,
        seen: resolver.files.into_values().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment;

    fn with<R>(test: impl FnOnce(Surroundings<'_>) -> R) -> R {
        let env = |name: &str| match name {
            "SET" => Some("hunter2".to_owned()),
            "PATH" => environment("PATH"),
            _ => None,
        };
        let sources = Sources {
            env: &env,
            builtin: &[],
        };
        test(Surroundings {
            sources: &sources,
            bounds: &Bounds::default(),
            commands: false,
        })
    }

    fn told<T>(reading: &Reading<T>) -> String {
        let lines: Vec<_> = reading.problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn a_server_is_read_like_one_of_a_file_and_may_refer_to_secrets() {
        let body = br#"{"url": "https://example.com/mcp",
            "headers": {"Authorization": {"env": "SET", "prefix": "Bearer "}}, "timeout": "7s"}"#;
        let reading = with(|with| server("flux", body, with));
        assert!(reading.is_fine(), "{}", told(&reading));
        let server = reading.value.unwrap();
        assert_eq!((&*server.name, server.origin), ("flux", Origin::Log));
        assert_eq!(server.timeout.as_secs(), 7);
    }

    #[test]
    fn what_a_server_of_the_log_may_not_be_is_told_with_its_place() {
        for (body, wanted) in [
            ("{", "log:server/flux:1:"),
            ("{\"url\": \"http://h/\", \"new\": 1}", "new"),
            (
                "{\"url\": \"http://h/\", \"headers\": {\"X-Api-Key\": \"sk-1\"}}",
                "looks like a secret",
            ),
            (
                "{\"url\": \"https://h/\", \"headers\": {\"X-Api-Key\": {\"env\": \"UNSET\"}}}",
                "environment variable `UNSET` is not set",
            ),
            (
                "{\"url\": \"https://h/\", \"headers\": {\"X-Api-Key\": {\"file\": \"key\"}}}",
                "has no file of its own",
            ),
            ("{\"command\": \"cat\"}", "cluster.commands_from_log"),
            ("\u{0}", "error"),
        ] {
            let reading = with(|with| server("flux", body.as_bytes(), with));
            assert!(
                reading.value.is_none() && told(&reading).contains(wanted),
                "{body}: {}",
                told(&reading)
            );
        }
        let reading = with(|with| server("a b", b"{\"url\": \"http://h/\"}", with));
        assert!(!reading.is_fine());
    }

    #[test]
    fn a_command_is_taken_where_the_node_allows_it() {
        fn allowed(with: Surroundings<'_>) -> Surroundings<'_> {
            Surroundings {
                commands: true,
                ..with
            }
        }
        let reading = with(|with| server("s", b"{\"command\": \"cat\"}", allowed(with)));
        assert!(reading.is_fine(), "{}", told(&reading));
        let reading = with(|with| server("s", b"{\"command\": \"./cat\"}", allowed(with)));
        assert!(told(&reading).contains("absolute"), "{}", told(&reading));
    }

    #[test]
    fn a_grant_that_cannot_be_read_whole_still_tells_its_tokens() {
        let hash = format!("sha256:{}", "ab".repeat(32));
        let fine = format!(r#"{{"token_sha256": "{hash}", "servers": {{"s": "p", "t": null}}}}"#);
        let reading = with(|with| grant("ci", fine.as_bytes(), with));
        assert!(reading.is_fine(), "{}", told(&reading));
        let read = reading.value.unwrap();
        assert_eq!(&*read.typed.id, "ci");
        assert_eq!(
            read.servers,
            [("s".into(), Some("p".into())), ("t".into(), None)]
        );
        for bad in [
            fine.replace("\"servers\"", "\"later\": 1, \"servers\""),
            fine.replace("\"servers\"", "\"id\": \"x\", \"servers\""),
            fine.replace("\"servers\"", "\"expires\": \"soon\", \"servers\""),
        ] {
            let reading = with(|with| grant("ci", bad.as_bytes(), with));
            assert!(!reading.is_fine(), "{bad}");
            assert_eq!(reading.value.unwrap().typed.tokens.len(), 1, "{bad}");
        }
        let unreadable = with(|with| grant("ci", b"[]", with));
        assert!(!unreadable.is_fine());
    }
}
