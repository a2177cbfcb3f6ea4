//! SHELL. What is done to a data directory before its node starts: begin a cluster, join one, restore, recover.
//!
//! ```text
//! init      empty, or a node that is alone  ──► certificates of a new authority, whose key stays here
//! join      empty + token                   ──► an identity of the cluster that the token is for
//! restore   empty + a snapshot's file       ──► `first.state`: a new cluster from what the file holds
//! recover   a voter that lost its majority  ──► `first.state`: a new cluster from what its log holds
//! ```
//!
//! The first start of the node carries `first.state` out. Both give the cluster a new id, so that nobody of the old one
//! is heard, and count live windows as used up: what was leased since is not known.

use crate::{
    disk,
    handle::{Handle, OpenError},
    identity::{Certificates, DataDir, Identity, LogState},
    join::{self, Admit, Admitted, Candidate, Desk, JoinError, Refused, Token, Wish},
    machine::Machine,
    snapshot_file::{self, LoadError},
    tls::{self, Authority, cert_pem},
    transport::Transport,
    wire::Operate,
};
use proto::{
    command::{NodeId, Role},
    limit::ledger::Bounds,
    time::Now,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The authority's key.
const CA_KEY: &str = "ca.key";
/// The state that the first start begins with.
pub(crate) const FIRST_STATE: &str = "first.state";

/// Why a directory was not made ready.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It has a node already.
    #[error("{path} already has a node: {node}", path = path.display())]
    Taken {
        /// Which.
        path: PathBuf,
        /// Its name.
        node: String,
    },
    /// It has none.
    #[error("{path} has no voter's data", path = .0.display())]
    Nothing(PathBuf),
    /// Certificates.
    #[error("certificates: {0}")]
    Tls(#[from] tls::Error),
    /// The cluster did not let it in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The file holds no state.
    #[error("{path}: {error}", path = path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        error: LoadError,
    },
    /// The log cannot be carried out.
    #[error("the log cannot be replayed: {0}")]
    Replay(String),
}

/// Makes the node of a directory the first one of a cluster that others can join: a new cluster where the directory is
/// empty; a node that was alone keeps its id, its counters and its secret.
pub fn init(data_dir: &Path, name: &str, address: &str, now: Now) -> Result<Identity, SetupError> {
    let data = DataDir::open(data_dir)?;
    let mut identity = match data.identity()? {
        Some(identity) if identity.tls.is_some() => {
            return Err(SetupError::Taken {
                path: data_dir.to_owned(),
                node: identity.name,
            });
        }
        Some(identity) => identity,
        None => Identity::alone(name, address),
    };
    certify(&data, &mut identity, now)?;
    if identity.log == LogState::Founds {
        identity.address = address.to_owned();
        identity.set_voters([(identity.node, address.to_owned())]);
    }
    data.save(&identity)?;
    Ok(identity)
}

/// Gives a node the certificates of a new authority, whose key stays in its directory.
fn certify(data: &DataDir, identity: &mut Identity, now: Now) -> Result<(), SetupError> {
    let authority = Authority::new(identity.cluster, now.unix_ms)?;
    let own = authority.issue(identity.node, identity.role, now.unix_ms)?;
    let key = data.path(CA_KEY);
    disk::replace(&key, &[authority.key_pem().as_bytes()]).map_err(disk::at(&key))?;
    identity.tls = Some(Certificates {
        ca: cert_pem(authority.cert()),
        certificate: cert_pem(&own.cert),
        key: own.key_pem(),
    });
    identity.authority = Some(identity.node);
    Ok(())
}

/// Joins a cluster through any of its nodes and makes the identity of the new node. The directory must have none.
pub async fn join(
    data_dir: &Path,
    peers: &[String],
    token: &Token,
    wish: &Wish,
) -> Result<Identity, SetupError> {
    let data = DataDir::open(data_dir)?;
    if let Some(identity) = data.identity()? {
        return Err(SetupError::Taken {
            path: data_dir.to_owned(),
            node: identity.name,
        });
    }
    let joined = join::join(peers, token, wish).await?;
    let credentials = &joined.credentials;
    let mut identity = Identity {
        cluster: credentials.who.cluster,
        node: credentials.who.node,
        role: credentials.who.role,
        secret: joined.secret.0,
        log: LogState::Joins,
        authority: Some(joined.authority),
        tls: Some(Certificates {
            ca: cert_pem(&credentials.ca),
            certificate: cert_pem(&credentials.cert),
            key: credentials.key_pem(),
        }),
        ..Identity::alone(&wish.name, &wish.address)
    };
    identity.set_voters(joined.voters);
    data.save(&identity)?;
    Ok(identity)
}

/// Makes the directory, which must be empty, the first node of a new cluster with the state of a snapshot's file. With an
/// address others can join it.
pub fn restore(
    data_dir: &Path,
    file: &Path,
    name: &str,
    address: Option<&str>,
    bounds: Bounds,
    now: Now,
) -> Result<Identity, SetupError> {
    let data = DataDir::open(data_dir)?;
    if let Some(identity) = data.identity()? {
        return Err(SetupError::Taken {
            path: data_dir.to_owned(),
            node: identity.name,
        });
    }
    let state = |error| SetupError::State {
        path: file.to_owned(),
        error,
    };
    // Read whole before anything is made of it.
    let (_, about) = snapshot_file::load_any(file, bounds).map_err(state)?;
    let first = data.path(FIRST_STATE);
    let bytes = fs::read(file).map_err(disk::at(file))?;
    disk::replace(&first, &[&bytes]).map_err(disk::at(&first))?;
    let mut identity = Identity::alone(name, address.unwrap_or_default());
    if let Some(secret) = about.secret {
        identity.secret = secret;
    }
    if address.is_some() {
        certify(&data, &mut identity, now)?;
    }
    data.save(&identity)?;
    Ok(identity)
}

/// Makes a voter that lost its majority the first node of a new cluster with whatever its log holds. The old log is kept
/// beside the new one.
pub fn recover(data_dir: &Path, bounds: Bounds, now: Now) -> Result<Identity, SetupError> {
    let data = DataDir::open(data_dir)?;
    let former = data.identity()?.filter(|former| former.role == Role::Voter);
    let former = former.ok_or_else(|| SetupError::Nothing(data_dir.to_owned()))?;
    let first = data.path(FIRST_STATE);
    // A recovery that was interrupted goes on where it was.
    if !first.exists() {
        let machine = crate::node::replay(&data, &former, bounds)?;
        let about = snapshot_file::About::of(&machine.image(), Some(former.secret));
        snapshot_file::write_to(&first, &machine.image(), &about).map_err(disk::at(&first))?;
    }
    for dir in [data.log_dir(), data.snapshot_dir()] {
        if dir.exists() {
            let kept = dir.with_extension(format!("{:016x}", former.node.0));
            fs::rename(&dir, &kept).map_err(disk::at(&dir))?;
        }
    }
    let mut identity = Identity {
        secret: former.secret,
        ..Identity::alone(&former.name, &former.address)
    };
    if former.tls.is_some() {
        certify(&data, &mut identity, now)?;
    }
    data.save(&identity)?;
    Ok(identity)
}

/// The machine that a new cluster's first node begins with.
pub(crate) fn first_machine(
    data: &DataDir,
    identity: &Identity,
    bounds: Bounds,
    now: Now,
) -> Result<Machine, OpenError> {
    let (cluster, node) = (identity.cluster, identity.node);
    let (name, address) = (&identity.name, &identity.address);
    let first = data.path(FIRST_STATE);
    if !first.exists() {
        return Ok(Machine::found(cluster, bounds, node, name, address));
    }
    let (machine, _) = snapshot_file::load_any(&first, bounds).map_err(|error| {
        let why = error.to_string();
        OpenError::Damaged {
            path: first,
            why,
            remedy: "empty the directory and restore again",
        }
    })?;
    Ok(machine.refound(cluster, node, name, address, now))
}

/// The node that has the authority's key lets others in; the others know who has it.
pub(crate) fn serve_joins(
    transport: &Transport,
    data: &DataDir,
    identity: &Identity,
    handle: &Handle,
) -> Result<(), OpenError> {
    let Some(certificates) = &identity.tls else {
        return Ok(());
    };
    let path = data.path(CA_KEY);
    let key = match fs::read_to_string(&path) {
        Ok(key) => key,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (authority, handle) = (identity.authority, handle.downgrade());
            let elsewhere = move || handle.address_of(authority?);
            transport.serve_joins(Desk::Elsewhere(Arc::new(elsewhere)));
            return Ok(());
        }
        Err(error) => return Err(disk::at(&path)(error)),
    };
    let authority = Authority::from_pem(identity.cluster, &certificates.ca, &key)
        .map_err(|error| OpenError::Unusable(format!("{}: {error}", path.display())))?;
    let clock = handle.clock();
    let unix_ms = Arc::new(move || clock().unix_ms);
    let handle = handle.downgrade();
    let secret = identity.secret();
    let admit: Admit = Arc::new(move |candidate| {
        let (handle, secret) = (handle.clone(), secret.clone());
        Box::pin(async move {
            let handle = handle.upgrade().ok_or(Refused::Unreachable)?;
            admit(&handle, candidate).await?;
            let voters = handle.voters();
            Ok(Admitted { secret, voters })
        })
    });
    transport.serve_joins(Desk::Here {
        authority: Arc::new(authority),
        admit,
        unix_ms,
    });
    Ok(())
}

async fn admit(handle: &Handle, candidate: Candidate) -> Result<(), Refused> {
    let operate = Operate::Join {
        token: candidate.token,
        node: candidate.node,
        name: candidate.name,
        address: candidate.address,
        role: candidate.role,
    };
    match handle.operate(operate).await {
        Ok(_) => Ok(()),
        Err(crate::handle::Error::Member(refusal)) => Err(Refused::Member(refusal)),
        Err(_) => Err(Refused::Unreachable),
    }
}

/// Whether the node of this identity has the authority's key.
pub fn is_authority(identity: &Identity) -> bool {
    identity.authority == Some(identity.node) && identity.node != NodeId(0)
}
