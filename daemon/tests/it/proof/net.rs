//! A small network of our own: a hub and a few hosts in network namespaces, with cables that can be cut one way.
//!
//! ```text
//! host 0 (10.77.0.1) ──veth──┐
//! host 1 (10.77.0.2) ──veth──┤ hub: bridge, 10.77.0.254, where the clients and the recording server are
//! host n …          ──veth──┘
//! ```

use std::{
    collections::BTreeSet,
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

static MADE: AtomicUsize = AtomicUsize::new(0);

/// The namespaces; they vanish with this value.
pub struct Net {
    tag: String,
    hosts: usize,
    cuts: Mutex<BTreeSet<(usize, usize)>>,
}

/// Why there can be no namespaces here, if so.
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    ["ip", "nft"].into_iter().find_map(|tool| {
        let found = Command::new(tool)
            .arg("-V")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        found
            .is_err()
            .then(|| format!("`{tool}` is missing (Debian: iproute2, nftables)"))
    })
}

impl Net {
    /// This many hosts around a hub.
    pub fn new(hosts: usize) -> Self {
        let tag = format!("tg{}x{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        let net = Self {
            tag,
            hosts,
            cuts: Mutex::default(),
        };
        let hub = net.hub();
        run("ip", &["netns", "add", &hub], "");
        let in_hub = |words: &[&str]| run("ip", &[&["-n", hub.as_str()], words].concat(), "");
        in_hub(&["link", "set", "lo", "up"]);
        in_hub(&["link", "add", "name", "hub0", "type", "bridge"]);
        in_hub(&["addr", "add", "10.77.0.254/24", "dev", "hub0"]);
        in_hub(&["link", "set", "hub0", "up"]);
        for index in 0..hosts {
            let (host, cable) = (net.host(index), format!("v{index}"));
            run("ip", &["netns", "add", &host], "");
            in_hub(&[
                "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &host,
            ]);
            in_hub(&["link", "set", &cable, "master", "hub0"]);
            in_hub(&["link", "set", &cable, "up"]);
            let in_host = |words: &[&str]| run("ip", &[&["-n", host.as_str()], words].concat(), "");
            in_host(&["link", "set", "lo", "up"]);
            in_host(&[
                "addr",
                "add",
                &format!("{}/24", net.address(index)),
                "dev",
                "eth0",
            ]);
            in_host(&["link", "set", "eth0", "up"]);
        }
        net
    }

    fn hub(&self) -> String {
        format!("{}hub", self.tag)
    }

    /// The name of a host's namespace.
    pub fn host(&self, index: usize) -> String {
        format!("{}h{index}", self.tag)
    }

    /// A host's address.
    pub fn address(&self, index: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 77, 0, index as u8 + 1))
    }

    /// Where the clients and the recording server are.
    pub fn hub_address() -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 77, 0, 254))
    }

    /// Puts the calling thread, and every thread that it starts from now on, into the hub.
    pub fn enter_hub(&self) {
        let file = File::open(format!("/run/netns/{}", self.hub())).unwrap();
        rustix::thread::move_into_link_name_space(
            file.as_fd(),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .unwrap();
    }

    /// From now on exactly these cables are cut: what the first host sends does not arrive at the second.
    pub fn cut(&self, cuts: impl IntoIterator<Item = (usize, usize)>) {
        let mut now = self.cuts.lock().unwrap();
        *now = cuts.into_iter().collect();
        for to in 0..self.hosts {
            let mut rules = String::from(
                "add table ip tollgate\nadd chain ip tollgate cut { type filter hook input priority 0; }\nflush chain ip tollgate cut\n",
            );
            for (from, _) in now.iter().filter(|cut| cut.1 == to) {
                rules.push_str(&format!(
                    "add rule ip tollgate cut ip saddr {} drop\n",
                    self.address(*from)
                ));
            }
            run(
                "ip",
                &["netns", "exec", &self.host(to), "nft", "-f", "-"],
                &rules,
            );
        }
    }

    /// Cuts every cable between the two groups, both ways.
    pub fn part(&self, one: &[usize], other: &[usize]) {
        let both = one
            .iter()
            .flat_map(|a| other.iter().flat_map(move |b| [(*a, *b), (*b, *a)]));
        self.cut(both);
    }

    /// Mends everything.
    pub fn heal(&self) {
        self.cut([]);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let names = (0..self.hosts)
            .map(|index| self.host(index))
            .chain([self.hub()]);
        for name in names {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// Runs a command to its end with this input; it must succeed.
pub fn run(program: &str, words: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{program} {}: {}{}",
        words.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
