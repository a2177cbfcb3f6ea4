//! What is in force, as a configuration with every default filled in. Secrets appear as where they come from.

use super::{
    Loaded,
    emit::{self, Map, digits, list, null, number, text, truth},
    raw,
    resolve::is_secret,
    settings::{JoinToken, Listener, TlsFiles},
    units::{ByteSize, HumanDuration, SecretRef, Text},
};
use crate::{
    audit::{Sink, SyslogTarget},
    view::{Grant, HttpTarget, Server, StdioTarget, Transport},
};
use proto::{
    command::Role,
    doc::{Entries, Node, Spanned},
    time::rfc3339,
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Prints what is in force as YAML that loads to the same. Values of headers and variables that look like secrets
/// are shown as `(hidden)`.
pub fn print_config(loaded: &Loaded) -> String {
    let mut out = String::from("# What is in force, defaults filled in.\n");
    for file in &loaded.files {
        out.push_str(&format!("# read: {}\n", file.display()));
    }
    out + &emit::yaml(&Printer { loaded }.config())
}

struct Printer<'a> {
    loaded: &'a Loaded,
}

fn path(path: &Path) -> Node {
    text(path.display().to_string())
}
fn duration(duration: std::time::Duration) -> Node {
    text(HumanDuration(duration).to_string())
}
fn size(bytes: u64) -> Node {
    text(ByteSize(bytes).to_string())
}
fn texts<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Node {
    list(items.into_iter().map(text))
}

impl Printer<'_> {
    fn config(&self) -> Node {
        let (settings, view) = (&self.loaded.settings, &self.loaded.view);
        let mut map = Map::default();
        map.put("listeners", list(settings.listeners.iter().map(listener)));
        let mut servers = Map::default();
        for (name, server) in &view.servers {
            servers.put(name, self.server(server));
        }
        map.put("servers", servers.done());
        map.put("policies", self.policies());
        map.put("grants", self.grants());
        map.put("hosts", texts(&view.hosts));
        map.put("origins", texts(&view.origins));
        let mut bounds = Map::default();
        for (name, value, bare) in raw::shown(&view.bounds) {
            bounds.put(name, if bare { digits(value) } else { text(value) });
        }
        map.put("bounds", bounds.done());
        map.put("audit", self.audit());
        map.put("admin", self.admin());
        map.put("cluster", self.cluster());
        let format = if settings.log.json { "json" } else { "human" };
        let mut log = Map::default();
        log.put("format", text(format));
        log.put("level", text(&settings.log.level));
        map.put("log", log.done());
        let secret = self.loaded.config.identity_secret.as_ref();
        map.put_some("identity_secret", secret.map(|s| self.secret(&s.value)));
        map.put("runtimes", number(settings.runtimes as u64));
        let interval = settings.reload_interval.unwrap_or_default();
        map.put("reload_interval", duration(interval));
        map.done()
    }

    fn server(&self, server: &Server) -> Node {
        let mut map = Map::default();
        let typed = self.loaded.config.servers.find(&server.name);
        match &server.transport {
            Transport::Http(target) => self.http(&mut map, target, typed),
            Transport::Stdio(target) => self.stdio(&mut map, target, typed),
        }
        map.put_full("extra_methods", texts(&server.extra_methods));
        map.put("timeout", duration(server.timeout));
        map.put("calls", number(server.calls as u64));
        map.done()
    }

    fn http(&self, map: &mut Map, target: &HttpTarget, typed: Option<&raw::Server>) {
        map.put("url", text(target.url.to_string()));
        let headers = typed.and_then(|typed| typed.headers.as_ref());
        map.put_some("headers", headers.map(|h| self.values(&h.value)));
        map.put_some("ca_file", target.ca_file.as_deref().map(path));
    }

    fn stdio(&self, map: &mut Map, target: &StdioTarget, typed: Option<&raw::Server>) {
        let (program, args) = target.command.split_first().unzip();
        map.put_some("command", program.map(text));
        map.put_full("args", texts(args.unwrap_or_default()));
        let env = typed.and_then(|typed| typed.env.as_ref());
        map.put_some("env", env.map(|env| self.values(&env.value)));
        let passed = typed.and_then(|typed| typed.pass_env.as_ref());
        let names = passed.map(|names| texts(names.iter().map(|name| &name.value)));
        map.put_some("pass_env", names);
        map.put_some("dir", target.dir.as_deref().map(path));
        map.put("processes", text("session"));
        map.put("processes_max", number(target.processes_max as u64));
        let user = target.user.map(|(uid, gid)| {
            Map::default()
                .put("uid", number(uid.into()))
                .put("gid", number(gid.into()))
                .done()
        });
        map.put_some("user", user);
        map.put_some("memory", target.rlimits.memory_bytes.map(size));
        let cpu = target
            .rlimits
            .cpu_seconds
            .map(std::time::Duration::from_secs);
        map.put_some("cpu", cpu.map(duration));
        map.put_some("files", target.rlimits.files.map(number));
    }

    fn values(&self, values: &Entries<Spanned<Text>>) -> Node {
        let mut map = Map::default();
        for (name, value) in values.iter() {
            let shown = match &value.value {
                Text::Literal(_) if is_secret(name) => text("(hidden)"),
                Text::Literal(literal) => text(literal),
                Text::From(reference) => self.secret(reference),
            };
            map.put(name, shown);
        }
        map.done()
    }

    fn secret(&self, reference: &SecretRef) -> Node {
        let file = reference.file.as_ref();
        let mut map = Map::default();
        map.put_some("file", file.map(|file| path(&self.loaded.base.join(file))));
        map.put_some("env", reference.env.as_ref().map(text));
        map.put_some("prefix", reference.prefix.as_ref().map(text));
        map.done()
    }

    fn policies(&self) -> Node {
        let mut policies = Map::default();
        for (name, policy) in self.loaded.config.policies.iter() {
            let inline = || {
                let policies = self.loaded.node.child("policies")?;
                policies.child(name)?.child("inline").cloned()
            };
            let mut map = Map::default();
            match &policy.file {
                Some(file) => map.put("file", path(&self.loaded.base.join(&file.value))),
                None => map.put_some("inline", inline()),
            };
            policies.put(name, map.done());
        }
        policies.done()
    }

    /// Grants of all files, by id.
    fn grants(&self) -> Node {
        type Tokens = (Vec<String>, Vec<(String, u64)>);
        let mut by_id: BTreeMap<&str, (&Arc<Grant>, Tokens)> = BTreeMap::new();
        for (hash, grant) in &self.loaded.view.grants {
            let (found, (present, former)) =
                by_id.entry(&grant.id).or_insert((grant, Tokens::default()));
            match grant.former {
                true => former.push((hash.to_string(), grant.expires_ms.unwrap_or_default())),
                false => {
                    *found = grant;
                    present.push(hash.to_string());
                }
            }
        }
        list(
            by_id
                .into_iter()
                .map(|(id, (grant, (mut hashes, mut former)))| {
                    hashes.sort();
                    former.sort();
                    let former = former.into_iter().map(|(hash, until_ms)| {
                        Map::default()
                            .put("token_sha256", text(hash))
                            .put("until", text(rfc3339(until_ms)))
                            .done()
                    });
                    let bindings: BTreeMap<_, _> = grant.servers.iter().collect();
                    let mut servers = Map::default();
                    for (server, binding) in bindings {
                        let policy = binding.policy.as_ref();
                        servers.put(
                            server,
                            policy.map_or_else(null, |policy| text(&*policy.name)),
                        );
                    }
                    Map::default()
                        .put("id", text(id))
                        .put_some("label", grant.label.as_deref().map(text))
                        .put("token_sha256", texts(hashes))
                        .put_full("former_tokens", list(former))
                        .put_some("expires", grant.expires_ms.map(|ms| text(rfc3339(ms))))
                        .put("revoked", truth(grant.revoked))
                        .put("servers", servers.done())
                        .done()
                }),
        )
    }

    fn audit(&self) -> Node {
        let audit = &self.loaded.settings.audit;
        let within = |key: &str, node| Map::default().put(key, node).done();
        let sink = match &audit.sink {
            Sink::Stdout => text("stdout"),
            Sink::Syslog(SyslogTarget::Unix(socket)) => {
                within("syslog", within("socket", path(socket)))
            }
            Sink::Syslog(SyslogTarget::Udp(to)) => {
                within("syslog", within("udp", text(to.to_string())))
            }
            Sink::Syslog(SyslogTarget::Tcp(to)) => {
                within("syslog", within("tcp", text(to.to_string())))
            }
            Sink::File(file) => {
                let retain = if file.retain_required {
                    "required"
                } else {
                    "best_effort"
                };
                let file = Map::default()
                    .put("path", path(&file.path))
                    .put("rotate_bytes", size(file.rotate_bytes))
                    .put_some("rotate_age", file.rotate_age.map(duration))
                    .put("keep", number(file.keep as u64))
                    .put("min_free", size(file.min_free))
                    .put("retain", text(retain))
                    .done();
                within("file", file)
            }
        };
        Map::default()
            .put("sink", sink)
            .put("queue", number(audit.queue as u64))
            .done()
    }

    fn admin(&self) -> Node {
        let admin = &self.loaded.settings.admin;
        let tcp = admin.tcp.as_ref().map(|tcp| {
            let tls = tcp.tls.as_ref().map(|tls| {
                Map::default()
                    .put("cert", path(&tls.cert))
                    .put("key", path(&tls.key))
                    .put("client_ca", path(&tls.client_ca))
                    .done()
            });
            Map::default()
                .put("address", text(tcp.address.to_string()))
                .put_some("tls", tls)
                .put_some(
                    "token_sha256",
                    tcp.token_sha256.map(|hash| text(hash.to_string())),
                )
                .done()
        });
        let socket = admin.unix.as_deref().map_or_else(|| text("none"), path);
        Map::default()
            .put("socket", socket)
            .put_some("tcp", tcp)
            .done()
    }

    fn cluster(&self) -> Node {
        let cluster = &self.loaded.settings.cluster;
        let join = cluster.join.as_ref().map(|join| {
            let token = join.token.as_ref().map(|token| match token {
                JoinToken::File(file) => Map::default().put("file", path(file)).done(),
                JoinToken::Env(name) => Map::default().put("env", text(name)).done(),
            });
            Map::default()
                .put("peers", texts(&join.peers))
                .put_some("token", token)
                .done()
        });
        let role = match cluster.role {
            Role::Voter => "voter",
            Role::Client => "client",
        };
        Map::default()
            .put("data_dir", path(&cluster.data_dir))
            .put("name", text(&cluster.name))
            .put_some(
                "listen",
                cluster.listen.map(|listen| text(listen.to_string())),
            )
            .put_some("advertise", cluster.advertise.as_ref().map(text))
            .put_some("join", join)
            .put("role", text(role))
            .put("freshness_max", duration(cluster.freshness_max))
            .put("commands_from_log", truth(cluster.commands_from_log))
            .done()
    }
}

fn listener(listener: &Listener) -> Node {
    let tls = |tls: &TlsFiles| {
        let auth = if tls.client_required {
            "required"
        } else {
            "optional"
        };
        let auth = tls.client_ca.as_ref().map(|_| text(auth));
        Map::default()
            .put("cert", path(&tls.cert))
            .put("key", path(&tls.key))
            .put_some("client_ca", tls.client_ca.as_deref().map(path))
            .put_some("client_auth", auth)
            .done()
    };
    let serve = listener.serve;
    let surfaces = [
        ("mcp", serve.mcp),
        ("health", serve.health),
        ("metrics", serve.metrics),
    ];
    let surfaces = surfaces
        .into_iter()
        .filter(|(_, on)| *on)
        .map(|(name, _)| name);
    let insecure = listener.tls.is_none() && !listener.address.ip().to_canonical().is_loopback();
    Map::default()
        .put("address", text(listener.address.to_string()))
        .put_some("tls", listener.tls.as_ref().map(tls))
        .put("insecure", truth(insecure))
        .put("serve", texts(surfaces))
        .done()
}
