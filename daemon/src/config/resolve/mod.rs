//! From the configuration as typed to what it means, with every problem and its place.

mod cluster;
mod grants;
pub(crate) mod log;
mod planes;
mod policies;
mod secrets;
mod servers;

use super::{FileProblem, Loaded, Settings, Sources, raw, settings::Secret, watch::Seen};
use crate::view::{Origin, View};
pub(crate) use grants::{Bindings, TypedGrant};
pub(super) use policies::Compiled;
use policies::Policies;
use proto::{
    doc::{self, Node, Pos, Problem, Severity, Spanned, suggest},
    id::ServerName,
};
pub(crate) use servers::is_secret;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Longest file with policies or grants, bytes (the reader of documents has the same bound).
const DOCUMENT_BYTES: u64 = doc::BYTES_MAX as u64;
/// Longest certificate or key file, bytes.
const PEM_BYTES: u64 = 1 << 20;
/// Longest secret, bytes.
const SECRET_BYTES: u64 = 64 << 10;
/// Most problems told at once.
const PROBLEMS_MAX: usize = 200;
/// Longest name of a server, policy or grant.
const NAME_MAX: usize = 64;

/// What is read and said on the way.
pub(super) struct Resolver<'a> {
    sources: &'a Sources<'a>,
    /// The file that places belong to.
    file: String,
    base: PathBuf,
    /// Something could not be read at all: what only follows from that is not told.
    lossy: bool,
    problems: Vec<FileProblem>,
    files: BTreeMap<PathBuf, Seen>,
    /// Where the document stands. Less is allowed in the log, which every node of a cluster has a copy of.
    origin: Origin,
    /// Whether a server may be a command: always in a file.
    commands: bool,
}

/// The document to resolve.
pub(super) struct Source<'a> {
    pub name: String,
    pub text: &'a str,
    pub base: PathBuf,
}

/// Also answers with every file that was read, or could not be.
pub(super) fn resolve(
    source: Source<'_>,
    sources: &Sources<'_>,
    revision: u64,
    running: Option<&Secret>,
) -> (Result<Loaded, Vec<FileProblem>>, Vec<Seen>) {
    let mut resolver = Resolver {
        sources,
        file: source.name,
        base: source.base,
        lossy: false,
        problems: Vec::new(),
        files: BTreeMap::new(),
        origin: Origin::File,
        commands: true,
    };
    let outcome = resolver.load(source.text, revision, running);
    (outcome, resolver.files.into_values().collect())
}

impl Resolver<'_> {
    fn load(
        &mut self,
        text: &str,
        revision: u64,
        running: Option<&Secret>,
    ) -> Result<Loaded, Vec<FileProblem>> {
        let failed = |resolver: &mut Self| std::mem::take(&mut resolver.problems);
        let node = self.parse(text).ok_or_else(|| failed(self))?;
        let config: raw::Config = self.read(&node).ok_or_else(|| failed(self))?;
        let bounds = config
            .bounds
            .resolve(&mut |at, message| self.error(at, message));
        let cluster = self.cluster(&config.cluster);
        let secret = self.secret(&config, &cluster.data_dir, running);
        let policies = Policies::load(self, &config, &node, &secret, &bounds);
        let servers = self.servers(&config, &bounds);
        let (grants, policies, compiled) = self.grants(&config, &servers, policies, &node);
        let settings = Settings {
            listeners: self.listeners(&config),
            runtimes: self.runtimes(&config),
            audit: self.audit(&config.audit),
            admin: self.admin(&config.admin),
            cluster,
            log: self.log(&config.log),
            secret,
            reload_interval: self.reload_interval(&config),
        };
        let (hosts, origins) = (self.hosts(&config), self.origins(&config));
        self.fill_pointers(&node);
        self.settle()?;
        let view = View {
            revision,
            policies: View::used_policies(grants.values(), |_| Origin::File),
            control: 0,
            unresolved: Arc::default(),
            grants,
            servers,
            bounds: Arc::new(bounds),
            hosts,
            origins,
        };
        Ok(Loaded {
            settings,
            view: Arc::new(view),
            remarks: std::mem::take(&mut self.problems),
            files: self.files.keys().cloned().collect(),
            config,
            node,
            base: self.base.clone(),
            policies,
            compiled,
        })
    }

    fn parse(&mut self, text: &str) -> Option<Node> {
        doc::parse(text)
            .map_err(|problems| self.add_all(problems))
            .ok()
    }

    fn read<T: serde::de::DeserializeOwned>(&mut self, node: &Node) -> Option<T> {
        // A file without a single key is a configuration of defaults.
        let empty = Node {
            at: node.at,
            value: doc::Value::Map(Vec::new()),
        };
        let node = match node.value {
            doc::Value::Null => &empty,
            _ => node,
        };
        let (read, problems) = doc::from_node_lossy(node);
        self.lossy |= !problems.is_empty();
        self.add_all(problems);
        read
    }

    fn add_all(&mut self, problems: Vec<Problem>) {
        let file = &self.file;
        self.problems
            .extend(problems.into_iter().map(|problem| FileProblem {
                file: file.clone(),
                problem,
            }));
    }

    fn add(&mut self, severity: Severity, at: Pos, message: String) {
        if self.lossy && at == Pos::default() {
            return;
        }
        self.add_all(vec![Problem {
            severity,
            at,
            pointer: String::new(),
            message,
        }]);
    }

    fn error(&mut self, at: Pos, message: impl Into<String>) {
        self.add(Severity::Error, at, message.into());
    }

    fn warning(&mut self, at: Pos, message: impl Into<String>) {
        self.add(Severity::Warning, at, message.into());
    }

    fn note(&mut self, at: Pos, message: impl Into<String>) {
        self.add(Severity::Note, at, message.into());
    }

    /// Runs a step whose places belong to another file.
    fn in_file<T>(&mut self, file: String, step: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.file, file);
        let done = step(self);
        self.file = outer;
        done
    }

    /// Sorts what was found, and leaves out what nobody reads to the end; with an error among it, that is the answer.
    fn settle(&mut self) -> Result<(), Vec<FileProblem>> {
        let own = self.file.clone();
        let mut problems = std::mem::take(&mut self.problems);
        let place = |p: &FileProblem| (p.file != own, p.file.clone(), p.problem.at);
        problems.sort_by_cached_key(place);
        problems.dedup();
        let fine = !problems.iter().any(FileProblem::is_error);
        let beyond = problems.len().saturating_sub(PROBLEMS_MAX);
        if beyond > 0 {
            problems.sort_by_key(|p| !p.is_error());
            problems.truncate(PROBLEMS_MAX);
            problems.sort_by_cached_key(place);
            let severity = if fine {
                Severity::Note
            } else {
                Severity::Error
            };
            problems.push(FileProblem {
                file: own,
                problem: Problem {
                    severity,
                    at: Pos { line: 1, column: 1 },
                    pointer: String::new(),
                    message: format!("and {beyond} more"),
                },
            });
        }
        match fine {
            true => {
                self.problems = problems;
                Ok(())
            }
            false => Err(problems),
        }
    }

    /// Problems found after reading know their place only; the pointer follows from it. One about a value that could
    /// not be read whole may only follow from that, and is not told.
    fn fill_pointers(&mut self, root: &Node) {
        let mut pointers = BTreeMap::new();
        collect_pointers(root, &mut String::new(), &mut pointers);
        let own = &self.file;
        let unread: Vec<String> = self
            .problems
            .iter()
            .filter(|p| p.file == *own && !p.problem.pointer.is_empty())
            .map(|p| p.problem.pointer.clone())
            .collect();
        self.problems.retain_mut(|found| {
            if found.file != *own || !found.problem.pointer.is_empty() {
                return true;
            }
            let Some(pointer) = pointers.get(&found.problem.at) else {
                return true;
            };
            found.problem.pointer.clone_from(pointer);
            let inside = |unread: &String| {
                unread
                    .strip_prefix(pointer.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            };
            !unread.iter().any(inside)
        });
    }

    fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    /// In the log there is nothing that a relative path could start at.
    fn is_absolute(&mut self, path: &Spanned<String>) -> bool {
        let good = self.origin == Origin::File || Path::new(&path.value).is_absolute();
        if !good {
            let message = format!(
                "`{}`: the log has no file of its own to start at: give an absolute path",
                path.value
            );
            self.error(path.at, message);
        }
        good
    }

    /// Reads a whole file, bounded, and remembers it as one to watch.
    fn file(&mut self, path: &Spanned<String>, most: u64) -> Option<Vec<u8>> {
        if let Some((_, text)) = self
            .sources
            .builtin
            .iter()
            .find(|(name, _)| *name == path.value)
        {
            return Some(text.as_bytes().to_vec());
        }
        if !self.is_absolute(path) {
            return None;
        }
        let full = self.path(path);
        let read = read_bounded(&full, most);
        let seen = match &read {
            Ok(bytes) => Seen::read(full.clone(), bytes),
            Err(_) => Seen::unread(full.clone()),
        };
        self.files.insert(full.clone(), seen);
        read.map_err(|why| self.error(path.at, format!("{}: {why}", full.display())))
            .ok()
    }

    fn text(&mut self, path: &Spanned<String>) -> Option<String> {
        let bytes = self.file(path, DOCUMENT_BYTES)?;
        String::from_utf8(bytes)
            .map_err(|_| self.error(path.at, format!("{}: not UTF-8", path.value)))
            .ok()
    }

    /// How a file that is named in the configuration is called in messages.
    fn label(&self, path: &str) -> String {
        match self.sources.builtin.iter().any(|(name, _)| *name == path) {
            true => path.to_owned(),
            false => self.path(path).display().to_string(),
        }
    }

    /// Checks a name of a server, policy or grant.
    fn name(&mut self, name: &Spanned<String>, of: &str) {
        if !is_name(name) {
            let message = format!("the name of a {of} is 1 to {NAME_MAX} of A-Z a-z 0-9 _ . -");
            self.error(name.at, message);
        }
    }

    fn in_range(
        &mut self,
        name: &str,
        value: &Option<Spanned<u64>>,
        least: u64,
        most: u64,
    ) -> Option<u64> {
        let value = value.as_ref()?;
        if (least..=most).contains(&value.value) {
            return Some(value.value);
        }
        let message = format!("`{name}` goes from {least} to {most}, not {}", value.value);
        self.error(value.at, message);
        None
    }

    fn address(&mut self, text: &Spanned<String>) -> Option<std::net::SocketAddr> {
        text.parse()
            .map_err(|_| {
                let message =
                    "expected an IP address and a port, e.g. 127.0.0.1:7420 or [::1]:7420";
                self.error(text.at, message);
            })
            .ok()
    }
}

fn collect_pointers(node: &Node, pointer: &mut String, into: &mut BTreeMap<Pos, String>) {
    let len = pointer.len();
    let mut inner = |token: &str, key_at: Option<Pos>, child: &Node| {
        doc::pointer_token(pointer, token);
        if let Some(key_at) = key_at {
            into.entry(key_at).or_insert_with(|| pointer.clone());
        }
        collect_pointers(child, pointer, into);
        into.entry(child.at).or_insert_with(|| pointer.clone());
        pointer.truncate(len);
    };
    match &node.value {
        doc::Value::List(items) => items
            .iter()
            .enumerate()
            .for_each(|(i, item)| inner(&i.to_string(), None, item)),
        doc::Value::Map(entries) => entries
            .iter()
            .for_each(|entry| inner(&entry.key, Some(entry.key_at), &entry.value)),
        _ => {}
    }
}

/// Whether this may name a server, policy or grant.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !matches!(name, "." | "..")
}

fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match suggest(name, known) {
        Some(near) => format!("there is no {what} `{name}`; did you mean `{near}`?"),
        None => format!("there is no {what} `{name}`"),
    }
}

/// Reads a regular file of bounded length.
pub(crate) fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    use io::Read as _;
    let read = || -> io::Result<Vec<u8>> {
        // Asked before it is opened: opening a pipe would wait for its writer.
        let kind = fs::metadata(path)?;
        if !kind.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        fs::File::open(path)?
            .take(most + 1)
            .read_to_end(&mut bytes)?;
        match bytes.len() as u64 > most {
            true => Err(io::Error::other(format!("longer than {most} bytes"))),
            false => Ok(bytes),
        }
    };
    read().map_err(|error| error.to_string())
}

type Servers = BTreeMap<ServerName, Arc<crate::view::Server>>;
