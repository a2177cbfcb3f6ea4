//! The node's place in its cluster.

use super::{Resolver, is_name};
use crate::config::{
    raw,
    settings::{Cluster, Join, JoinToken},
};
use proto::{command::Role, doc::Spanned};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Most addresses to try when joining.
const PEERS_MAX: usize = 16;
/// Longest `host:port`, bytes.
const ADDRESS_BYTES_MAX: usize = 256;
const FRESHNESS_LEAST: Duration = Duration::from_secs(1);
const FRESHNESS_MOST: Duration = Duration::from_secs(3_600);
const FRESHNESS_DEFAULT: Duration = Duration::from_secs(5);

impl Resolver<'_> {
    pub(super) fn cluster(&mut self, raw: &raw::Cluster) -> Cluster {
        let role = match raw.role.as_ref().map(|role| role.value) {
            Some(raw::Role::Client) => Role::Client,
            _ => Role::Voter,
        };
        if role == Role::Client
            && let Some(at) = [&raw.listen, &raw.advertise].into_iter().flatten().next()
        {
            self.warning(at.at, "nobody connects to a lease client: not used");
        }
        let listen = raw.listen.as_ref().and_then(|listen| self.address(listen));
        let listen = listen.filter(|_| role == Role::Voter);
        let join = raw.join.as_ref().map(|join| self.join(join));
        if role == Role::Client && join.is_none() {
            let at = raw.role.as_ref().map(|role| role.at).unwrap_or_default();
            self.note(
                at,
                "a lease client has no ledger of its own: it needs `join`, or a data directory of one that joined",
            );
        }
        Cluster {
            data_dir: match &raw.data_dir {
                Some(dir) => {
                    if dir.is_empty() {
                        self.error(dir.at, "`data_dir` is the path of a directory");
                    }
                    self.path(dir)
                }
                None => data_dir(self.sources.env),
            },
            name: match &raw.name {
                Some(name) => {
                    self.name(name, "node");
                    name.value.clone()
                }
                None => machine_name(),
            },
            advertise: self.advertise(raw, listen),
            listen,
            join,
            role,
            freshness_max: self.freshness_max(raw),
            commands_from_log: raw.commands_from_log,
        }
    }

    fn advertise(&mut self, raw: &raw::Cluster, listen: Option<SocketAddr>) -> Option<String> {
        if let Some(advertise) = &raw.advertise {
            self.host_and_port(advertise);
            if raw.listen.is_none() {
                self.error(advertise.at, "`advertise` needs `listen`");
            }
        }
        let listen = listen?;
        match &raw.advertise {
            Some(advertise) => Some(advertise.value.clone()),
            None if listen.ip().is_unspecified() => {
                let at = raw.listen.as_ref().map(|l| l.at).unwrap_or_default();
                let message = format!("other nodes cannot reach {listen}: give `advertise` too");
                self.error(at, message);
                None
            }
            // A free port is known when it is bound.
            None if listen.port() == 0 => None,
            None => Some(listen.to_string()),
        }
    }

    fn join(&mut self, raw: &Spanned<raw::Join>) -> Join {
        let peers = &raw.peers;
        if !(1..=PEERS_MAX).contains(&peers.len()) && !self.lossy {
            self.error(peers.at, format!("`peers` has 1 to {PEERS_MAX} addresses"));
        }
        for peer in &peers.value {
            self.host_and_port(peer);
        }
        let token = raw.token.as_ref().and_then(|token| {
            match (&token.value.file, &token.value.env, &token.value.prefix) {
                (Some(file), None, None) => Some(JoinToken::File(self.path(file))),
                (None, Some(name), None) => Some(JoinToken::Env(name.clone())),
                _ => {
                    self.error(token.at, "give exactly one of `file` and `env`");
                    None
                }
            }
        });
        Join {
            peers: peers.iter().map(|peer| peer.value.clone()).collect(),
            token,
        }
    }

    fn host_and_port(&mut self, text: &Spanned<String>) {
        if !is_host_and_port(text) {
            self.error(
                text.at,
                "expected a host and a port, e.g. gate-1.internal:7421",
            );
        }
    }

    fn freshness_max(&mut self, raw: &raw::Cluster) -> Duration {
        if let Some(age) = &raw.freshness_max
            && age.value.0 > FRESHNESS_MOST
        {
            self.error(age.at, "`freshness_max` is at most 1h");
        }
        self.duration("freshness_max", &raw.freshness_max, FRESHNESS_LEAST)
            .unwrap_or(FRESHNESS_DEFAULT)
    }
}

/// `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
fn is_host_and_port(text: &str) -> bool {
    if text.len() > ADDRESS_BYTES_MAX {
        return false;
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0 && !address.ip().is_unspecified();
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !host.is_empty() && host.bytes().all(letters) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Where the data is unless the configuration says otherwise.
fn data_dir(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let absolute = |name: &str| {
        let value = env(name)?;
        // A service manager may name several directories.
        let first = PathBuf::from(value.split(':').next().unwrap_or_default());
        first.is_absolute().then_some(first)
    };
    let home = || {
        let state = absolute("XDG_STATE_HOME").map(|state| state.join("tollgate"));
        state.or_else(|| Some(absolute("HOME")?.join(".local/state/tollgate")))
    };
    let own = match rustix::process::geteuid().is_root() {
        true => None,
        false => home(),
    };
    absolute("STATE_DIRECTORY")
        .or(own)
        .unwrap_or_else(|| PathBuf::from("/var/lib/tollgate"))
}

fn machine_name() -> String {
    let found = rustix::system::uname();
    let name = found.nodename().to_string_lossy().into_owned();
    match is_name(&name) {
        true => name,
        false => "node".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    #[test]
    fn hosts_and_ports_are_told_from_other_texts() {
        for good in [
            "a:1",
            "gate-1.internal:7421",
            "192.0.2.1:7421",
            "[2001:db8::1]:7421",
        ] {
            assert!(is_host_and_port(good), "{good}");
        }
        let long = format!("{}:1", "a".repeat(256));
        for bad in [
            "",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:70000",
            "0.0.0.0:1",
            "http://a:1",
            "a b:1",
            "2001:db8::1:7421",
            &long,
        ] {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }

    #[test]
    fn a_service_managers_directory_goes_before_the_users() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                let found = pairs.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            }
        };
        let both = env(&[("STATE_DIRECTORY", "/var/lib/tg:/x"), ("HOME", "/home/a")]);
        assert_eq!(data_dir(&both), PathBuf::from("/var/lib/tg"));
        if !rustix::process::geteuid().is_root() {
            let state = env(&[("XDG_STATE_HOME", "/s"), ("HOME", "/home/a")]);
            assert_eq!(data_dir(&state), PathBuf::from("/s/tollgate"));
            let home = env(&[("HOME", "/home/a")]);
            assert_eq!(
                data_dir(&home),
                PathBuf::from("/home/a/.local/state/tollgate")
            );
        }
        assert_eq!(data_dir(&env(&[])), PathBuf::from("/var/lib/tollgate"));
    }

    fn resolved(text: &str) -> Result<(Cluster, Vec<String>), Vec<String>> {
        let told = |problems: Vec<config::FileProblem>| {
            let texts = problems.into_iter().map(|found| found.to_string());
            texts
                .filter(|text| !text.contains("identity_secret"))
                .collect()
        };
        match config::load_text(text, Path::new("/etc/tg"), 1) {
            Ok(loaded) => Ok((loaded.settings.cluster, told(loaded.remarks))),
            Err(problems) => Err(told(problems)),
        }
    }

    #[test]
    fn a_node_without_the_section_is_a_cluster_of_its_own() {
        let (cluster, remarks) = resolved("cluster:\n").unwrap();
        assert_eq!(
            (cluster.role, cluster.listen, cluster.join),
            (Role::Voter, None, None)
        );
        assert!(cluster.data_dir.is_absolute() && is_name(&cluster.name));
        assert_eq!(
            (cluster.freshness_max, remarks),
            (FRESHNESS_DEFAULT, Vec::new())
        );
    }

    #[test]
    fn a_joining_node_names_peers_and_where_its_token_is_and_neither_need_exist_yet() {
        let text = "cluster:\n  data_dir: b\n  name: b\n  listen: 127.0.0.1:7432\n  freshness_max: 1h\n  join:\n    \
                    peers: ['127.0.0.1:7431']\n    token: {file: b.token}\n";
        let (cluster, remarks) = resolved(text).unwrap();
        let join = Join {
            peers: vec!["127.0.0.1:7431".into()],
            token: Some(JoinToken::File("/etc/tg/b.token".into())),
        };
        assert_eq!((cluster.join, remarks), (Some(join), Vec::new()));
        assert_eq!(cluster.advertise.as_deref(), Some("127.0.0.1:7432"));
        assert_eq!(cluster.data_dir, Path::new("/etc/tg/b"));
        let (free, _) = resolved("cluster: {listen: '127.0.0.1:0'}\n").unwrap();
        assert_eq!(free.advertise, None);
        let (moved, _) = resolved("cluster: {listen: '0.0.0.0:1', advertise: 'h:2'}\n").unwrap();
        assert_eq!(moved.advertise.as_deref(), Some("h:2"));
    }

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        for (text, told) in [
            (
                "{listen: '0.0.0.0:7'}",
                ": error: other nodes cannot reach 0.0.0.0:7",
            ),
            (
                "{listen: 'h:7'}",
                ": error: expected an IP address and a port",
            ),
            ("{advertise: 'h:7'}", ": error: `advertise` needs `listen`"),
            ("{name: 'a b'}", ": error: the name of a node is"),
            ("{freshness_max: 999ms}", ": error: "),
            (
                "{freshness_max: 2h}",
                ": error: `freshness_max` is at most 1h",
            ),
            ("{join: {peers: []}}", ": error: `peers` has 1 to 16"),
            (
                "{join: {peers: [h]}}",
                ": error: expected a host and a port",
            ),
            (
                "{join: {peers: ['h:1'], token: {}}}",
                ": error: give exactly one",
            ),
            ("{join: {}}", ": error: "),
            ("{role: learner}", ": error: "),
            ("{data_dir: ''}", ": error: `data_dir` is the path"),
        ] {
            let problems = resolved(&format!("cluster: {text}\n")).unwrap_err();
            assert!(
                problems.iter().any(|found| found.contains(told)),
                "{text}: {problems:?}"
            );
        }
        let (client, remarks) = resolved("cluster: {role: client, listen: '0.0.0.0:7'}\n").unwrap();
        assert_eq!((client.listen, remarks.len()), (None, 2), "{remarks:?}");
    }
}
