//! Servers: exactly one way to reach each, with values for headers and environments.

use super::{PEM_BYTES, Resolver, Servers};
use crate::{
    bounds::Bounds,
    config::{
        raw,
        units::{HumanDuration, Text},
    },
    view::{HttpTarget, Origin, Processes, Rlimits, Server, StdioTarget, Transport},
};
use http::{HeaderName, HeaderValue, Uri, header};
use proto::{
    doc::{Entries, Pos, Spanned},
    id::ServerName,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{sync::Arc, time::Duration};

const EXTRA_METHODS_MAX: usize = 64;
const METHOD_BYTES_MAX: usize = 128;
const TIMEOUT_LEAST: Duration = Duration::from_millis(100);
const MEMORY_LEAST: u64 = 16 << 20;

/// Headers that the gateway sets itself, or that belong to one connection.
const OWN_HEADERS: &[&str] = &[
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Resolver<'_> {
    pub(super) fn servers(&mut self, config: &raw::Config, bounds: &Bounds) -> Servers {
        let mut servers = Servers::new();
        for (name, raw) in config.servers.iter() {
            let Some(server) = self.one_server(name, raw, bounds) else {
                continue;
            };
            servers.insert(server.name.clone(), Arc::new(server));
        }
        servers
    }

    pub(super) fn one_server(
        &mut self,
        name: &Spanned<String>,
        raw: &raw::Server,
        bounds: &Bounds,
    ) -> Option<Server> {
        self.name(name, "server");
        let transport = self.transport(name, raw, bounds)?;
        Some(Server {
            name: ServerName::new(name),
            origin: self.origin,
            transport,
            extra_methods: self.extra_methods(raw),
            timeout: self
                .duration("timeout", &raw.timeout, TIMEOUT_LEAST)
                .unwrap_or(bounds.upstream_timeout),
            calls: self
                .in_range("calls", &raw.calls, 1, 1 << 20)
                .map_or(bounds.calls_server, |n| n as usize),
        })
    }

    fn transport(
        &mut self,
        name: &Spanned<String>,
        raw: &raw::Server,
        bounds: &Bounds,
    ) -> Option<Transport> {
        match (&raw.url, &raw.command) {
            (Some(url), None) => {
                self.misplaced(raw, "command", STDIO_KEYS);
                self.http(url, raw).map(Transport::Http)
            }
            (None, Some(command)) => {
                if !self.commands {
                    let message = "the log may not start commands on this node: \
                                   `cluster.commands_from_log: true` in its configuration allows it";
                    self.error(command.at, message);
                }
                self.misplaced(raw, "url", HTTP_KEYS);
                Some(Transport::Stdio(self.stdio(command, raw, bounds)))
            }
            (Some(_), Some(command)) => {
                let message = format!(
                    "`{}` has a `url` and a `command`; a server has one",
                    name.value
                );
                self.error(command.at, message);
                None
            }
            (None, None) => {
                let message = format!("`{}` needs a `url` or a `command`", name.value);
                self.error(name.at, message);
                None
            }
        }
    }

    fn misplaced(&mut self, raw: &raw::Server, belongs_to: &str, keys: &[OtherKey]) {
        for (key, place) in keys {
            if let Some(at) = place(raw) {
                self.error(at, format!("`{key}` is for servers with a `{belongs_to}`"));
            }
        }
    }

    fn http(&mut self, url: &Spanned<String>, raw: &raw::Server) -> Option<HttpTarget> {
        let ca_file = raw.ca_file.as_ref().map(|file| {
            self.authorities(file);
            self.path(file)
        });
        let headers = match &raw.headers {
            Some(headers) => self.headers(&headers.value),
            None => Vec::new(),
        };
        let uri = self.url(url)?;
        let loopback = uri.host().is_some_and(is_loopback);
        if uri.scheme_str() == Some("http")
            && !loopback
            && headers.iter().any(|(n, _)| is_secret(n.as_str()))
        {
            self.warning(url.at, "secrets in `headers` travel unencrypted: use https");
        }
        if uri.scheme_str() == Some("http")
            && let Some(file) = &raw.ca_file
        {
            self.error(file.at, "`ca_file` is for https");
        }
        Some(HttpTarget {
            url: uri,
            headers,
            ca_file,
            route: Default::default(),
        })
    }

    fn url(&mut self, url: &Spanned<String>) -> Option<Uri> {
        let problem = match url.parse::<Uri>() {
            Err(error) => format!("not a URL: {error}"),
            Ok(uri) => {
                let authority = uri.authority().map_or("", |a| a.as_str());
                match uri.scheme_str() {
                    Some("http" | "https") if authority.contains('@') => {
                        "credentials do not belong into a URL: use `headers`".to_owned()
                    }
                    Some("http" | "https") if url.contains('#') => {
                        "a URL of a server has no fragment (`#…`)".to_owned()
                    }
                    Some("http" | "https") if uri.host().is_some_and(|h| !h.is_empty()) => {
                        return Some(uri);
                    }
                    _ => "expected a URL that starts with http:// or https://".to_owned(),
                }
            }
        };
        self.error(url.at, problem);
        None
    }

    /// Checks that a file holds certificates.
    pub(super) fn authorities(&mut self, file: &Spanned<String>) -> bool {
        let Some(pem) = self.file(file, PEM_BYTES) else {
            return false;
        };
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let problem = match found {
            Ok(found) if found.is_empty() => "holds no PEM certificate".to_owned(),
            Ok(_) => return true,
            Err(error) => error.to_string(),
        };
        self.error(file.at, format!("{}: {problem}", file.value));
        false
    }

    fn headers(&mut self, headers: &Entries<Spanned<Text>>) -> Vec<(HeaderName, HeaderValue)> {
        let mut resolved: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (name, text) in headers.iter() {
            let parsed = HeaderName::from_bytes(name.as_bytes());
            let Ok(header) = parsed else {
                self.error(
                    name.at,
                    format!("`{}` is not the name of a header", name.value),
                );
                continue;
            };
            if OWN_HEADERS.contains(&header.as_str()) || header.as_str().starts_with("mcp-") {
                self.error(name.at, format!("the gateway sets `{}` itself", name.value));
            }
            if resolved.iter().any(|(known, _)| *known == header) {
                self.error(name.at, format!("`{}` is set twice", name.value));
            }
            if matches!(text.value, Text::Literal(_)) && is_secret(header.as_str()) {
                self.secret_in_clear(name, text.at);
            }
            let Some(value) = self.value(text) else {
                continue;
            };
            match HeaderValue::try_from(value) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    resolved.push((header, value));
                }
                Err(_) => self.error(
                    text.at,
                    "the value holds characters that no header may have",
                ),
            }
        }
        resolved
    }

    fn stdio(
        &mut self,
        command: &Spanned<String>,
        raw: &raw::Server,
        bounds: &Bounds,
    ) -> StdioTarget {
        let program = self.program(command);
        let args = raw.args.as_ref().map_or(&[][..], |args| &args.value);
        if args.iter().any(|arg| arg.contains('\0')) {
            let at = raw.args.as_ref().map_or(command.at, |args| args.at);
            self.error(at, "an argument holds a NUL character");
        }
        let dir = raw.dir.as_ref().map(|dir| {
            self.is_absolute(dir);
            let path = self.path(dir);
            if !path.is_dir() {
                self.warning(
                    dir.at,
                    format!("{}: there is no such directory now", path.display()),
                );
            }
            path
        });
        if let Some(user) = &raw.user
            && !rustix::process::geteuid().is_root()
        {
            self.warning(user.at, "`user` needs a gateway that runs as root");
        }
        StdioTarget {
            command: std::iter::once(program)
                .chain(args.iter().cloned())
                .collect(),
            env: self.environment(raw),
            dir,
            processes: match raw.processes.as_ref().map(|p| p.value) {
                Some(raw::Processes::Session) | None => Processes::Session,
            },
            processes_max: self
                .in_range("processes_max", &raw.processes_max, 1, 65_536)
                .map_or(bounds.processes_server, |n| n as usize),
            user: raw.user.as_ref().map(|user| (user.uid, user.gid)),
            rlimits: self.rlimits(raw),
        }
    }

    /// A program with `/` in it stands where the configuration says; any other is looked for in PATH.
    fn program(&mut self, command: &Spanned<String>) -> String {
        if command.is_empty() || command.contains('\0') {
            self.error(command.at, "`command` is a program's name or path");
            return String::new();
        }
        if command.contains('/') {
            self.is_absolute(command);
            let path = self.path(command);
            if !path.is_file() {
                self.warning(
                    command.at,
                    format!("{}: there is no such file now", path.display()),
                );
            }
            return path.to_string_lossy().into_owned();
        }
        let found = (self.sources.env)("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|dir| dir.join(&command.value).is_file())
        });
        if !found {
            self.warning(
                command.at,
                format!("`{}` is not in PATH now", command.value),
            );
        }
        command.value.clone()
    }

    fn environment(&mut self, raw: &raw::Server) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = Vec::new();
        for name in raw.pass_env.iter().flat_map(|names| &names.value) {
            self.variable_name(name);
            match (self.sources.env)(name) {
                Some(value) => env.push((name.value.clone(), value)),
                None => self.warning(
                    name.at,
                    format!("the environment variable `{}` is not set", name.value),
                ),
            }
        }
        for (name, text) in raw.env.iter().flat_map(|env| env.value.iter()) {
            self.variable_name(name);
            if matches!(text.value, Text::Literal(_)) && is_secret(name) {
                self.secret_in_clear(name, text.at);
            }
            if env.iter().any(|(known, _)| *known == name.value) {
                self.error(
                    name.at,
                    format!("`{}` is also under `pass_env`", name.value),
                );
            }
            match self.value(text) {
                Some(value) if value.contains('\0') => {
                    self.error(text.at, "the value holds a NUL character");
                }
                Some(value) => env.push((name.value.clone(), value)),
                None => {}
            }
        }
        env
    }

    fn secret_in_clear(&mut self, name: &Spanned<String>, at: Pos) {
        let keep = |out_of: &str| {
            let name = &name.value;
            format!(
                "`{name}` looks like a secret: keep it out of {out_of} with `{{file: …}}` or `{{env: …}}`"
            )
        };
        match self.origin {
            Origin::File => self.warning(at, keep("this file")),
            Origin::Log => self.error(at, keep("the log")),
        }
    }

    fn variable_name(&mut self, name: &Spanned<String>) {
        if name.is_empty() || name.contains(['=', '\0']) {
            self.error(name.at, "not the name of an environment variable");
        }
    }

    fn rlimits(&mut self, raw: &raw::Server) -> Rlimits {
        let memory_bytes = raw.memory.as_ref().map(|memory| memory.0);
        if let Some(memory) = &raw.memory
            && memory.0 < MEMORY_LEAST
        {
            self.error(memory.at, "`memory` is at least 16MiB");
        }
        let cpu = self.duration("cpu", &raw.cpu, Duration::from_secs(1));
        if let Some(raw) = &raw.cpu
            && raw.value.0.subsec_nanos() != 0
        {
            self.error(raw.at, "`cpu` is in whole seconds");
        }
        Rlimits {
            memory_bytes,
            cpu_seconds: cpu.map(|cpu| cpu.as_secs()),
            files: self.in_range("files", &raw.files, 16, 1 << 20),
        }
    }

    fn extra_methods(&mut self, raw: &raw::Server) -> Vec<String> {
        if let Some(beyond) = raw.extra_methods.get(EXTRA_METHODS_MAX) {
            self.error(
                beyond.at,
                format!("at most {EXTRA_METHODS_MAX} extra methods"),
            );
        }
        for method in &raw.extra_methods {
            if method.is_empty()
                || method.len() > METHOD_BYTES_MAX
                || method.contains(char::is_control)
            {
                self.error(
                    method.at,
                    format!("a method's name has 1 to {METHOD_BYTES_MAX} bytes"),
                );
            }
        }
        raw.extra_methods.iter().map(|m| m.value.clone()).collect()
    }

    pub(super) fn duration(
        &mut self,
        name: &str,
        value: &Option<Spanned<HumanDuration>>,
        least: Duration,
    ) -> Option<Duration> {
        const MOST: Duration = Duration::from_secs(366 * 86_400);
        let value = value.as_ref()?;
        if value.value.0 < least || value.value.0 > MOST {
            let message = format!(
                "`{name}` goes from {} to 366d, not {}",
                HumanDuration(least),
                value.value
            );
            self.error(value.at, message);
        }
        Some(value.value.0)
    }
}

/// A key and its place in a server, if it is there.
type OtherKey = (&'static str, fn(&raw::Server) -> Option<Pos>);

macro_rules! keys {
    ($($key:ident)*) => {
        &[$((stringify!($key), |raw| raw.$key.as_ref().map(|value| value.at))),*]
    };
}
const HTTP_KEYS: &[OtherKey] = keys!(headers ca_file);
const STDIO_KEYS: &[OtherKey] =
    keys!(args env pass_env dir processes processes_max user memory cpu files);

/// Whether a header or variable usually holds a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == header::COOKIE.as_str()
        || [
            "auth",
            "token",
            "secret",
            "password",
            "passwd",
            "credential",
            "key",
            "session",
        ]
        .iter()
        .any(|word| name.contains(word))
}

pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}
