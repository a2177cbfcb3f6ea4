//! Configuration: what a person wrote becomes settings and a view, or a list of every problem with its place.
//!
//! ```text
//! file ──doc::parse──► Node ──serde──► raw (as typed) ──resolve──► Loaded { settings, view, remarks, files }
//!                                                                      └─files─► watch ──changed──► load again
//! ```

pub(crate) mod emit;
mod print;
pub mod raw;
mod resolve;
mod settings;
#[cfg(test)]
mod tests;
pub mod units;
pub mod watch;

pub use print::print_config;
pub(crate) use resolve::{
    Bindings, is_name, is_secret,
    log::{self, LogGrant, Reading, Surroundings},
};
pub use settings::{
    Cluster, Join, JoinToken, Listener, Secret, Serve, Settings, TlsFiles, needs_restart,
};

use crate::view::View;
use proto::{
    control::Kind,
    doc::{Node, Pos, Problem, Severity},
    id::ServerName,
    policy::{self, Policy},
};
use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};
use watch::Seen;

/// A configuration that can be put in force.
pub struct Loaded {
    /// What the process is set up with.
    pub settings: Settings,
    /// What requests are judged by.
    pub view: Arc<View>,
    /// Warnings and notes.
    pub remarks: Vec<FileProblem>,
    /// Every file that was read: configuration, policies, grants, certificates, secrets. Absolute paths.
    pub files: Vec<PathBuf>,
    config: raw::Config,
    node: Node,
    base: PathBuf,
    policies: Vec<PolicyDocument>,
    compiled: resolve::Compiled,
}

/// A policy's document as it was read.
#[derive(Debug)]
pub struct PolicyDocument {
    /// Its name in the configuration.
    pub name: String,
    /// The file that its places belong to.
    pub file: String,
    /// What it says.
    pub loaded: proto::policy::dialect::Loaded,
}

impl Loaded {
    /// The documents of all policies, used or not, in the order of their names.
    pub fn policies(self) -> Vec<PolicyDocument> {
        self.policies
    }

    /// A policy's document by name.
    pub(crate) fn policy(&self, name: &str) -> Option<&PolicyDocument> {
        let found = self
            .policies
            .binary_search_by(|p| p.name.as_str().cmp(name));
        self.policies.get(found.ok()?)
    }

    /// The names of all policies.
    pub(crate) fn policy_names(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|policy| policy.name.as_str())
    }

    /// A policy as it is used on a server by a grant of the files.
    pub(crate) fn compiled(&self, server: &ServerName, name: &str) -> Option<Arc<Policy>> {
        let key = (server.clone(), name.to_owned());
        self.compiled.get(&key)?.clone()
    }
}

/// The names of one kind that the files of a node take.
pub(crate) fn names(files: &Loaded, kind: Kind) -> HashSet<&str> {
    match kind {
        Kind::Server => files.view.servers.keys().map(|name| &**name).collect(),
        Kind::Policy => files.policy_names().collect(),
        Kind::Grant => files.view.grants.values().map(|grant| &*grant.id).collect(),
    }
}

/// Compiles a policy's document for a server, as the configuration would.
pub(crate) fn compile(
    files: &Loaded,
    place: &str,
    name: &str,
    document: &policy::dialect::Loaded,
    server: &ServerName,
) -> Result<Arc<Policy>, Vec<FileProblem>> {
    let site = policy::compile::Site {
        server,
        policy: name,
        secret: &files.settings.secret.key,
        sessions_per_grant: u32::try_from(files.view.bounds.sessions_grant).unwrap_or(u32::MAX),
    };
    let at_place = |problem| FileProblem {
        file: place.to_owned(),
        problem,
    };
    match policy::compile(&document.policy, site) {
        Ok(policy) => Ok(Arc::new(policy)),
        Err(problems) => Err(problems.into_iter().map(at_place).collect()),
    }
}

impl fmt::Debug for Loaded {
    /// Without the view and what was typed: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("settings", &self.settings)
            .field("revision", &self.view.revision)
            .field("remarks", &self.remarks)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// Something to say about a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The file, as it is called in messages.
    pub file: String,
    /// What and where.
    pub problem: Problem,
}

impl FileProblem {
    /// Whether the file cannot be used.
    pub fn is_error(&self) -> bool {
        self.problem.severity == Severity::Error
    }

    fn of_file(path: &Path, message: String) -> Self {
        Self {
            file: path.display().to_string(),
            problem: Problem::error(Pos { line: 1, column: 1 }, "", message),
        }
    }
}

impl fmt::Display for FileProblem {
    /// `file:line:column: error: message`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let (file, at, message) = (&self.file, self.problem.at, &self.problem.message);
        write!(f, "{file}:{at}: {severity}: {message}")
    }
}

/// What a configuration may refer to beside files.
pub struct Sources<'a> {
    /// Environment variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Documents that are part of the program: a path that is named exactly so is not looked for on the disk.
    pub builtin: &'a [(&'a str, &'a str)],
}

/// The environment of this process; a variable that is not UTF-8 counts as not set.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Default for Sources<'_> {
    fn default() -> Self {
        Self {
            env: &environment,
            builtin: &[],
        }
    }
}

/// Loads a configuration file. `revision` is that of the view. On failure at least one problem is an error.
pub fn load(path: &Path, revision: u64) -> Result<Loaded, Vec<FileProblem>> {
    attempt(path, revision, None).outcome
}

/// An attempt to load a file.
#[derive(Debug)]
pub struct Attempt {
    /// What came of it.
    pub outcome: Result<Loaded, Vec<FileProblem>>,
    /// Every file that was read, or could not be: what to watch for the next attempt.
    pub seen: Vec<Seen>,
}

/// Loads a configuration file; for a process that runs with settings already, limits keep the names they have there.
pub fn attempt(path: &Path, revision: u64, running: Option<&Settings>) -> Attempt {
    let failed = |why: String, seen| Attempt {
        outcome: Err(vec![FileProblem::of_file(path, why)]),
        seen: vec![seen],
    };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let bytes = match resolve::read_bounded(&absolute, proto::doc::BYTES_MAX as u64) {
        Ok(bytes) => bytes,
        Err(why) => return failed(why, Seen::unread(absolute)),
    };
    let own = Seen::read(absolute.clone(), &bytes);
    let Ok(text) = String::from_utf8(bytes) else {
        return failed("not UTF-8".into(), own);
    };
    let source = resolve::Source {
        name: path.display().to_string(),
        text: &text,
        base: absolute.parent().map(PathBuf::from).unwrap_or_default(),
    };
    let running = running.map(|settings| &settings.secret);
    let (mut outcome, mut seen) = resolve::resolve(source, &Sources::default(), revision, running);
    if let Ok(loaded) = &mut outcome {
        loaded.files.insert(0, absolute);
    }
    seen.push(own);
    Attempt { outcome, seen }
}

/// Loads a configuration from text; relative paths start at `base`.
pub fn load_text(text: &str, base: &Path, revision: u64) -> Result<Loaded, Vec<FileProblem>> {
    load_with(text, base, &Sources::default(), revision)
}

/// The same with an environment and built-in documents.
pub fn load_with(
    text: &str,
    base: &Path,
    sources: &Sources<'_>,
    revision: u64,
) -> Result<Loaded, Vec<FileProblem>> {
    let source = resolve::Source {
        name: "configuration".into(),
        text,
        base: std::path::absolute(base).unwrap_or_else(|_| base.to_owned()),
    };
    resolve::resolve(source, sources, revision, None).0
}
