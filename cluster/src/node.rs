//! Opens a node: its directory, its identity, its log, its thread.

use crate::{
    client::{self, Client, NONCE_SPARE_BITS},
    codec,
    driver::{Driver, Freshener, Inputs, StateDone, States, Voter, Writer, Written},
    handle::{ASKS_MAX, Handle, Known, OpenError, Settings, Shared},
    identity::{DataDir, Identity, LogState, random},
    log::Log,
    machine::Machine,
    replica::{self, Recovered, Replica},
    setup::{self, SetupError},
    tls::Credentials,
    transport::{self, Transport},
};
use aws_lc_rs::digest::{SHA256, digest};
use proto::{
    command::{RULES_VERSION, Role},
    limit::{HashKey, ledger::Bounds},
};
use raft::eraftpb::EntryType;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    net::UdpSocket,
    sync::{Arc, mpsc::sync_channel},
    thread,
    time::Duration,
};
use tokio::sync::mpsc;

/// Questions of this node that may wait for the leader at once.
const OUTSTANDING_MAX: usize = 65_536;
/// Requests of all nodes that may wait for the log or a quorum at once.
const REQUESTS_MAX: usize = 65_536;
/// Commands that one node may send in a second.
const NODE_COMMANDS_PER_S: u32 = 500_000;

/// Opens the node whose data is there, or begins a new cluster of one where there is none and that is allowed. What can
/// fail has failed when this returns; a leader may still have to be found.
pub fn open(settings: Settings) -> Result<Handle, OpenError> {
    let data = DataDir::open(&settings.data_dir)?;
    let identity = match data.identity()? {
        Some(identity) => identity,
        None if settings.bootstrap => {
            let mut identity = Identity::alone(&settings.name, "");
            if let Some(secret) = &settings.identity_secret {
                identity.secret = secret.0;
            }
            data.save(&identity)?;
            identity
        }
        None => return Err(OpenError::NoIdentity(settings.data_dir)),
    };
    let (started, starts) = sync_channel(1);
    // What the node is made of is made where it stays.
    thread::Builder::new()
        .name("cluster".into())
        .spawn(move || run(settings, data, identity, |made| drop(started.send(made))))
        .map_err(|error| OpenError::Unusable(format!("cannot start a thread: {error}")))?;
    starts
        .recv()
        .map_err(|_| OpenError::Unusable("the node's thread ended while it started".into()))?
}

fn run(
    settings: Settings,
    data: DataDir,
    identity: Identity,
    say: impl FnOnce(Result<Handle, OpenError>),
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return say(Err(OpenError::Unusable(error.to_string()))),
    };
    // Sockets want the runtime.
    let _inside = runtime.enter();
    match make(settings, data, identity) {
        Ok((handle, driver, inputs)) => {
            say(Ok(handle));
            runtime.block_on(driver.run(inputs));
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
        Err(error) => say(Err(error)),
    }
}

fn make(
    settings: Settings,
    data: DataDir,
    mut identity: Identity,
) -> Result<(Handle, Driver, Inputs), OpenError> {
    let now = (settings.clock)();
    let socket = bind(&settings, &identity)?;
    let local_addr = socket.as_ref().and_then(|socket| socket.local_addr().ok());
    let address = settings
        .advertise
        .clone()
        .or_else(|| local_addr.map(|at| at.to_string()))
        .unwrap_or_default();
    let (voter, written, states) = if identity.role == Role::Voter {
        let (voter, written, states) = voter(&settings, &data, &mut identity)?;
        (Some(voter), Some(written), Some(states))
    } else {
        (None, None, None)
    };
    let (transport, events) = match connect(&data, &identity, socket)? {
        Some((transport, events)) => (Some(transport), Some(events)),
        None => (None, None),
    };
    let secret = settings.identity_secret.clone();
    let secret = secret.unwrap_or_else(|| identity.secret());
    let client = client::Settings {
        nonce: data.next_nonce()? << NONCE_SPARE_BITS,
        secret_check: check(&secret),
        rules_max: RULES_VERSION,
        outstanding_max: OUTSTANDING_MAX,
        seed: u64::from_le_bytes(random()),
    };
    let voters = identity.voters().into_keys().collect();
    let client = Client::new(client, voters, now);
    let known = Known {
        node: identity.node,
        cluster: identity.cluster,
        role: identity.role,
        name: identity.name.clone(),
        secret,
        local_addr,
        authority: authority(&identity)?,
        connections: transport
            .as_ref()
            .map(Transport::watcher)
            .unwrap_or_default(),
    };
    let shared = Arc::new(Shared::new(known, settings.clock.clone(), now));
    let (ask, asks) = mpsc::channel(ASKS_MAX);
    let handle = Handle::new(shared.clone(), ask);
    if let Some(transport) = &transport {
        setup::serve_joins(transport, &data, &identity, &handle)?;
    }
    let driver = Driver::new(
        shared,
        client,
        voter,
        transport,
        data,
        identity,
        address,
        Freshener::new(settings.fresh_every, now),
    );
    let inputs = Inputs {
        asks,
        events,
        written,
        states,
    };
    Ok((handle, driver, inputs))
}

/// The certificate of the cluster's authority.
fn authority(identity: &Identity) -> Result<Option<CertificateDer<'static>>, OpenError> {
    let Some(tls) = &identity.tls else {
        return Ok(None);
    };
    let read = CertificateDer::from_pem_slice(tls.ca.as_bytes());
    read.map(Some)
        .map_err(|error| OpenError::Unusable(format!("the authority's certificate: {error}")))
}

fn bind(settings: &Settings, identity: &Identity) -> Result<Option<UdpSocket>, OpenError> {
    let Some(address) = settings.listen.filter(|_| identity.role == Role::Voter) else {
        return Ok(None);
    };
    if identity.tls.is_none() {
        return Err(OpenError::Unusable(format!(
            "this node is to listen on {address} for other nodes, but it has no certificates: \
             run `tollgate cluster init` to make it the first node of a cluster"
        )));
    }
    let socket = UdpSocket::bind(address)
        .map_err(|error| OpenError::Unusable(format!("cannot listen on udp {address}: {error}")))?;
    Ok(Some(socket))
}

/// The way to other nodes, where there may be any.
fn connect(
    data: &DataDir,
    identity: &Identity,
    socket: Option<UdpSocket>,
) -> Result<Option<(Transport, transport::Incoming)>, OpenError> {
    let Some(tls) = &identity.tls else {
        return Ok(None);
    };
    if identity.role == Role::Voter && socket.is_none() {
        if identity.voters.len() > 1 {
            return Err(OpenError::Unusable(
                "this node votes with others: it needs an address to listen on (`cluster.listen`)"
                    .into(),
            ));
        }
        return Ok(None);
    }
    let credentials = Credentials::from_pem(&tls.ca, &tls.certificate, &tls.key)
        .map_err(|error| OpenError::Unusable(format!("the node's certificates: {error}")))?;
    let is_own =
        (credentials.who.cluster, credentials.who.node) == (identity.cluster, identity.node);
    if !is_own {
        let problem = "the certificate in the data directory is another node's";
        return Err(OpenError::Unusable(problem.into()));
    }
    let snapshots = data.path("incoming");
    let _ = std::fs::remove_dir_all(&snapshots);
    crate::disk::make_dir(&snapshots).map_err(crate::disk::at(&snapshots))?;
    let settings = transport::Settings {
        credentials,
        socket,
        snapshots,
        bounds: transport::Bounds::default(),
    };
    let started = Transport::start(settings);
    started
        .map(Some)
        .map_err(|error| OpenError::Unusable(format!("cannot reach other nodes: {error}")))
}

type Made = (Voter, mpsc::Receiver<Written>, mpsc::Receiver<StateDone>);

/// A voter's replica, from what its log holds.
fn voter(settings: &Settings, data: &DataDir, identity: &mut Identity) -> Result<Made, OpenError> {
    let (log, recovered) = recover(settings, data, identity)?;
    let core = replica::Settings {
        node: identity.node,
        cluster: identity.cluster,
        tick_ms: settings.timing.tick_ms,
        election_ticks: settings.timing.election_ticks,
        heartbeat_ticks: settings.timing.heartbeat_ticks,
        snapshot_after_bytes: settings.snapshot_after_bytes,
        node_commands_per_s: NODE_COMMANDS_PER_S,
        requests_max: REQUESTS_MAX,
        ledger: settings.ledger,
        rules_max: RULES_VERSION,
        seed: u64::from_le_bytes(random()),
        #[cfg(feature = "faults")]
        faults: Default::default(),
    };
    let now = (settings.clock)();
    let replica = Replica::new(core, recovered, now).map_err(|why| OpenError::Damaged {
        path: data.log_dir(),
        why,
        remedy: crate::log::REMEDY,
    })?;
    let thread = |error: std::io::Error| OpenError::Unusable(format!("no thread: {error}"));
    let (writer, written) = Writer::start(log, settings.synced.clone()).map_err(thread)?;
    let dir = data.snapshot_dir();
    let (states, done) = States::start(dir.clone(), settings.ledger).map_err(thread)?;
    let tick_ms = settings.timing.tick_ms;
    let voter = Voter::new(replica, writer, states, dir, tick_ms, now);
    Ok((voter, written, done))
}

/// A voter's log, begun if this is its first start.
fn recover(
    settings: &Settings,
    data: &DataDir,
    identity: &mut Identity,
) -> Result<(Log, Recovered), OpenError> {
    let (dir, snapshots) = (data.log_dir(), data.snapshot_dir());
    let mut log = Log::open(&dir, &snapshots, identity.cluster, identity.node)?;
    match (identity.log, log.is_begun()) {
        // A log that was there and is empty now has forgotten how it voted.
        (LogState::Begun, false) => {
            return Err(OpenError::Damaged {
                path: dir,
                why: "it is gone".into(),
                remedy: crate::log::REMEDY,
            });
        }
        (LogState::Founds, false) => {
            let machine =
                setup::first_machine(data, identity, settings.ledger, (settings.clock)())?;
            let (first, image) = replica::founded(machine);
            log.begin(Some((&first, &image)))?;
        }
        (LogState::Joins, false) => log.begin(None)?,
        (_, true) => {}
    }
    if identity.log != LogState::Begun {
        identity.log = LogState::Begun;
        data.save(identity)?;
        let first = data.path(setup::FIRST_STATE);
        if first.exists() {
            std::fs::remove_file(&first).map_err(crate::disk::at(&first))?;
        }
    }
    let recovered = log.recover(settings.ledger)?;
    Ok((log, recovered))
}

/// The machine with everything in a voter's log applied, committed or not: what was committed is among it.
pub(crate) fn replay(
    data: &DataDir,
    identity: &Identity,
    bounds: Bounds,
) -> Result<Machine, SetupError> {
    let (dir, snapshots) = (data.log_dir(), data.snapshot_dir());
    let mut log = Log::open(&dir, &snapshots, identity.cluster, identity.node)?;
    let recovered = log.recover(bounds)?;
    let nothing = || SetupError::Nothing(data.root().to_owned());
    let mut machine = recovered.machine.ok_or_else(nothing)?;
    for entry in recovered.entries {
        if entry.index <= machine.index() {
            continue;
        }
        if entry.get_entry_type() != EntryType::EntryNormal || entry.data.is_empty() {
            machine.apply_nothing(entry.index);
            continue;
        }
        let bad = |why: String| SetupError::Replay(format!("entry {}: {why}", entry.index));
        let batch = codec::decode_batch(&entry.data).map_err(|e| bad(e.to_string()))?;
        machine
            .apply(entry.index, &batch)
            .map_err(|e| bad(e.to_string()))?;
    }
    Ok(machine)
}

/// What nodes compare so that they hash identities alike.
fn check(secret: &HashKey) -> u64 {
    let mut text = b"tollgate identity secret".to_vec();
    text.extend_from_slice(&secret.0);
    let hash = digest(&SHA256, &text);
    let mut check = [0; 8];
    check
        .iter_mut()
        .zip(hash.as_ref())
        .for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(check)
}
