//! Listeners, audit, admin, log and the few keys beside them.

use super::{PEM_BYTES, Resolver, servers::is_loopback};
use crate::{
    admin, audit,
    config::{
        raw,
        settings::{Listener, Serve, TlsFiles},
    },
    telemetry, tls,
};
use proto::{doc::Spanned, grant::TokenHash};
use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZero,
    path::PathBuf,
    time::Duration,
};

/// The listener without configuration.
pub(crate) const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);
const RUNTIMES_MAX: u64 = 1_024;
const LISTENERS_MAX: usize = 64;
const NAMES_MAX: usize = 1_024;
const RELOAD_LEAST: Duration = Duration::from_millis(100);
const RELOAD_DEFAULT: Duration = Duration::from_secs(1);
const QUEUE_MAX: u64 = 1 << 20;
const QUEUE_DEFAULT: usize = 16_384;
const ROTATE_LEAST: u64 = 64 << 10;
const ROTATE_DEFAULT: u64 = 128 << 20;
const KEEP_MAX: u64 = 10_000;
const KEEP_DEFAULT: usize = 16;
const MIN_FREE_DEFAULT: u64 = 256 << 20;
/// A socket's path must fit `sockaddr_un`.
const SOCKET_BYTES_MAX: usize = 100;

impl Resolver<'_> {
    pub(super) fn listeners(&mut self, config: &raw::Config) -> Vec<Listener> {
        let Some(listeners) = &config.listeners else {
            return vec![Listener {
                address: DEFAULT_ADDRESS,
                tls: None,
                serve: serve(None, true),
            }];
        };
        if listeners.is_empty() && !self.lossy {
            self.error(listeners.at, "at least one listener");
        }
        if listeners.len() > LISTENERS_MAX {
            self.error(listeners.at, format!("at most {LISTENERS_MAX} listeners"));
        }
        let mut resolved: Vec<Listener> = Vec::new();
        for raw in &listeners.value {
            let tls = raw.tls.as_ref().map(|tls| self.listener_tls(tls));
            let Some(address) = self.address(&raw.address) else {
                continue;
            };
            let loopback = address.ip().to_canonical().is_loopback();
            if !loopback && raw.tls.is_none() && !raw.insecure {
                let message = format!(
                    "{address} is off loopback and without `tls`: tokens could be read on the way; \
                     `insecure: true` allows it"
                );
                self.error(raw.address.at, message);
            }
            if address.port() != 0 && resolved.iter().any(|other| other.address == address) {
                self.error(raw.address.at, format!("a second listener at {address}"));
            }
            if let Some(surfaces) = &raw.serve
                && surfaces.is_empty()
            {
                self.error(
                    surfaces.at,
                    "`serve` is empty: at least one of mcp, health, metrics",
                );
            }
            resolved.push(Listener {
                address,
                tls,
                serve: serve(raw.serve.as_ref().map(|s| &s.value[..]), loopback),
            });
        }
        resolved
    }

    fn listener_tls(&mut self, raw: &raw::ListenerTls) -> TlsFiles {
        if let (Some(auth), None) = (&raw.client_auth, &raw.client_ca) {
            self.error(auth.at, "`client_auth` needs `client_ca`");
        }
        let auth = raw.client_auth.as_ref().map(|auth| auth.value);
        let files = TlsFiles {
            cert: self.path(&raw.cert),
            key: self.path(&raw.key),
            client_ca: raw.client_ca.as_ref().map(|ca| self.path(ca)),
            client_required: auth != Some(raw::ClientAuth::Optional),
        };
        self.tls_files(&raw.cert, &raw.key, raw.client_ca.as_ref(), &files);
        files
    }

    /// Each file for itself first, so that a problem stands where its name does; then all together.
    fn tls_files(
        &mut self,
        cert: &Spanned<String>,
        key: &Spanned<String>,
        ca: Option<&Spanned<String>>,
        files: &TlsFiles,
    ) {
        let mut readable = self.authorities(cert);
        readable &= self.file(key, PEM_BYTES).is_some();
        self.warn_if_public(key);
        if let Some(ca) = ca {
            readable &= self.authorities(ca);
        }
        if readable && let Err(error) = tls::server_config(files, &[]) {
            self.error(cert.at, format!("{error:#}"));
        }
    }

    pub(super) fn runtimes(&mut self, config: &raw::Config) -> usize {
        match self.in_range("runtimes", &config.runtimes, 0, RUNTIMES_MAX) {
            Some(n) if n > 0 => n as usize,
            _ => std::thread::available_parallelism().map_or(1, NonZero::get),
        }
    }

    pub(super) fn reload_interval(&mut self, config: &raw::Config) -> Option<Duration> {
        match &config.reload_interval {
            Some(zero) if zero.value.0.is_zero() => None,
            given => Some(
                self.duration("reload_interval", given, RELOAD_LEAST)
                    .unwrap_or(RELOAD_DEFAULT),
            ),
        }
    }

    pub(super) fn log(&mut self, raw: &raw::Log) -> telemetry::Settings {
        if let Some(level) = &raw.level
            && let Err(why) = telemetry::check_level(level)
        {
            self.error(level.at, why);
        }
        telemetry::Settings {
            json: raw.format == Some(raw::LogFormat::Json),
            level: raw
                .level
                .as_ref()
                .map_or_else(|| telemetry::Settings::default().level, |l| l.value.clone()),
        }
    }

    pub(super) fn audit(&mut self, raw: &raw::Audit) -> audit::Settings {
        audit::Settings {
            sink: match &raw.sink {
                None | Some(raw::Sink::Stdout) => audit::Sink::Stdout,
                Some(raw::Sink::File(file)) => audit::Sink::File(self.audit_file(file)),
                Some(raw::Sink::Syslog(target)) => match self.syslog(target) {
                    Some(target) => audit::Sink::Syslog(target),
                    None => audit::Sink::Stdout,
                },
            },
            queue: self
                .in_range("queue", &raw.queue, 1, QUEUE_MAX)
                .map_or(QUEUE_DEFAULT, |n| n as usize),
        }
    }

    fn audit_file(&mut self, raw: &raw::AuditFile) -> audit::FileSettings {
        let path = self.path(&raw.path);
        let place = path.parent().map(PathBuf::from).unwrap_or_default();
        if raw.path.is_empty() || path.file_name().is_none() {
            self.error(raw.path.at, "`path` is the path of a file");
        } else if !place.is_dir() {
            let message = format!("{}: there is no such directory now", place.display());
            self.warning(raw.path.at, message);
        }
        if let Some(size) = &raw.rotate_bytes
            && size.value.0 < ROTATE_LEAST
        {
            self.error(size.at, "`rotate_bytes` is at least 64KiB");
        }
        audit::FileSettings {
            path,
            rotate_bytes: raw.rotate_bytes.map_or(ROTATE_DEFAULT, |size| size.value.0),
            rotate_age: self.duration("rotate_age", &raw.rotate_age, Duration::from_secs(60)),
            keep: self
                .in_range("keep", &raw.keep, 0, KEEP_MAX)
                .map_or(KEEP_DEFAULT, |n| n as usize),
            min_free: raw.min_free.map_or(MIN_FREE_DEFAULT, |size| size.value.0),
            retain_required: raw.retain.is_some_and(|r| r.value == raw::Retain::Required),
        }
    }

    fn syslog(&mut self, raw: &Spanned<raw::Syslog>) -> Option<audit::SyslogTarget> {
        let mut loopback = |text: &Spanned<String>| {
            let address = self.address(text)?;
            if !address.ip().to_canonical().is_loopback() {
                let message = "syslog is not encrypted: a loopback address, where a relay forwards";
                self.error(text.at, message);
            }
            Some(address)
        };
        match (&raw.socket, &raw.udp, &raw.tcp) {
            (Some(socket), None, None) => Some(audit::SyslogTarget::Unix(self.path(socket))),
            (None, Some(udp), None) => loopback(udp).map(audit::SyslogTarget::Udp),
            (None, None, Some(tcp)) => loopback(tcp).map(audit::SyslogTarget::Tcp),
            _ => {
                self.error(raw.at, "give exactly one of `socket`, `udp` and `tcp`");
                None
            }
        }
    }

    pub(super) fn admin(&mut self, raw: &raw::Admin) -> admin::Settings {
        let unix = match &raw.socket {
            None => Some(admin::default_socket()),
            Some(none) if none.value == "none" => None,
            Some(socket) => {
                let path = self.path(socket);
                if path.as_os_str().len() > SOCKET_BYTES_MAX {
                    let message = format!("a socket's path has at most {SOCKET_BYTES_MAX} bytes");
                    self.error(socket.at, message);
                }
                Some(path)
            }
        };
        admin::Settings {
            unix,
            tcp: raw.tcp.as_ref().and_then(|tcp| self.admin_tcp(tcp)),
        }
    }

    fn admin_tcp(&mut self, raw: &Spanned<raw::AdminTcp>) -> Option<admin::Tcp> {
        let tls = raw.tls.as_ref().map(|tls| {
            let files = TlsFiles {
                cert: self.path(&tls.cert),
                key: self.path(&tls.key),
                client_ca: Some(self.path(&tls.client_ca)),
                client_required: true,
            };
            self.tls_files(&tls.cert, &tls.key, Some(&tls.client_ca), &files);
            admin::Tls {
                client_ca: self.path(&tls.client_ca),
                cert: files.cert,
                key: files.key,
            }
        });
        let token_sha256 = raw.token_sha256.as_ref().and_then(|token| {
            TokenHash::parse(token)
                .map_err(|why| self.error(token.at, why))
                .ok()
        });
        if raw.tls.is_none() && raw.token_sha256.is_none() {
            self.error(
                raw.at,
                "the admin plane over TCP needs `tls`, `token_sha256` or both",
            );
        }
        let address = self.address(&raw.address)?;
        if raw.tls.is_none() && !address.ip().to_canonical().is_loopback() {
            self.error(
                raw.address.at,
                "without `tls` the admin plane stays on loopback",
            );
        }
        Some(admin::Tcp {
            address,
            tls,
            token_sha256,
        })
    }

    pub(super) fn hosts(&mut self, config: &raw::Config) -> Vec<String> {
        self.at_most(&config.hosts, "hosts");
        for host in &config.hosts {
            let port = host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err();
            let odd = |c: char| !(c.is_ascii_alphanumeric() || "-._:[]".contains(c));
            if host.is_empty() || host.contains(odd) || (port && !host.ends_with(']')) {
                self.error(
                    host.at,
                    "expected a host's name or address without port, e.g. gate.example.com",
                );
            } else if is_loopback(host) {
                self.note(host.at, "loopback names are accepted anyway");
            }
        }
        let bare = |host: &str| host.trim_matches(['[', ']']).to_ascii_lowercase();
        config.hosts.iter().map(|host| bare(host)).collect()
    }

    pub(super) fn origins(&mut self, config: &raw::Config) -> Vec<String> {
        self.at_most(&config.origins, "origins");
        for origin in &config.origins {
            let uri = origin.parse::<http::Uri>().ok();
            let fits = uri.is_some_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.host().is_some_and(|host| !host.is_empty())
                    && uri.path_and_query().is_none_or(|path| path == "/")
                    && !origin.ends_with('/')
                    && !origin.contains(['@', '#', '?'])
            });
            if !fits {
                self.error(
                    origin.at,
                    "expected an origin without path, e.g. https://app.example.com",
                );
            }
        }
        config
            .origins
            .iter()
            .map(|o| o.to_ascii_lowercase())
            .collect()
    }

    fn at_most(&mut self, names: &[Spanned<String>], key: &str) {
        if let Some(beyond) = names.get(NAMES_MAX) {
            self.error(beyond.at, format!("at most {NAMES_MAX} {key}"));
        }
    }
}

fn serve(surfaces: Option<&[raw::Surface]>, loopback: bool) -> Serve {
    let has = |surface| surfaces.is_none_or(|surfaces| surfaces.contains(&surface));
    Serve {
        mcp: has(raw::Surface::Mcp),
        health: has(raw::Surface::Health),
        metrics: has(raw::Surface::Metrics) && (loopback || surfaces.is_some()),
    }
}
