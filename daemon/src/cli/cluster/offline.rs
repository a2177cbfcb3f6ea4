//! Commands that work on a data directory while no gateway has it.

use crate::{
    clock,
    config::{Cluster, JoinToken, Settings},
};
use ::cluster::{
    identity::{DataDir, Identity},
    join::{Token, Wish},
    setup,
};
use anyhow::{Context as _, bail, ensure};
use proto::{command::Role, limit::ledger::Bounds};
use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Longest file or input with a token, bytes.
const TOKEN_BYTES_MAX: u64 = 4 << 10;

pub(super) fn init(settings: &Settings) -> anyhow::Result<()> {
    let cluster = &settings.cluster;
    ensure!(
        cluster.role == Role::Voter,
        "a lease client cannot begin a cluster: `cluster.role` is client"
    );
    let address = address(cluster)?;
    if let Some(identity) = identity(&cluster.data_dir)?
        && identity.tls.is_some()
    {
        ensure!(
            setup::is_authority(&identity),
            "{} has a node that joined a cluster: {}",
            cluster.data_dir.display(),
            identity.name
        );
        println!("nothing to do: {}", told(&identity));
        return Ok(());
    }
    let identity = setup::init(&cluster.data_dir, &cluster.name, address, clock::now())?;
    println!("{}", told(&identity));
    eprintln!(
        "# Start it with `tollgate serve`, then make a token for each further node with `tollgate cluster token`.\n\
         # Keep a copy of {} in a safe place: without it nobody can join.",
        cluster.data_dir.join("ca.key").display()
    );
    Ok(())
}

pub(super) fn join(
    settings: &Settings,
    peers: Vec<String>,
    token: Option<PathBuf>,
) -> anyhow::Result<()> {
    let cluster = &settings.cluster;
    let configured = cluster.join.as_ref();
    let peers = match peers.is_empty() {
        true => configured
            .map(|join| join.peers.clone())
            .unwrap_or_default(),
        false => peers,
    };
    ensure!(
        !peers.is_empty(),
        "which cluster? --peer or `cluster.join.peers` names a node of it"
    );
    let text = match (token, configured.and_then(|join| join.token.as_ref())) {
        (Some(path), _) if path == Path::new("-") => bounded(io::stdin().lock())?,
        (Some(path), _) => read(&path)?,
        (None, Some(token)) => configured_token(token)?,
        (None, None) => bail!(
            "a token is needed: make one with `tollgate cluster token` on a node of the cluster, and name its file with --token"
        ),
    };
    let identity = enter(cluster, &peers, &text)?;
    println!("{}", told(&identity));
    Ok(())
}

/// What `tollgate serve` does at its first start: a node that is configured to belong to a cluster joins it.
pub(in crate::cli) fn join_first(settings: &Settings) -> anyhow::Result<()> {
    let cluster = &settings.cluster;
    let Some(join) = &cluster.join else {
        return Ok(());
    };
    if identity(&cluster.data_dir)?.is_some() {
        return Ok(());
    }
    let token = join.token.as_ref().with_context(|| {
        format!(
            "{} is empty and `cluster.join` has no token: make one with `tollgate cluster token` on a node of the cluster",
            cluster.data_dir.display()
        )
    })?;
    let text = configured_token(token).context(
        "this node has no identity yet: run `tollgate cluster init` if it is the first of its cluster; to join one it needs a token",
    )?;
    let identity = enter(cluster, &join.peers, &text)?;
    tracing::info!("joined: {}", told(&identity));
    Ok(())
}

fn enter(cluster: &Cluster, peers: &[String], token: &str) -> anyhow::Result<Identity> {
    let token = Token::parse(token.trim()).context("the join token")?;
    let wish = Wish {
        name: cluster.name.clone(),
        address: match cluster.role {
            Role::Voter => address(cluster)?.to_owned(),
            Role::Client => String::new(),
        },
        role: cluster.role,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let joined = setup::join(&cluster.data_dir, peers, &token, &wish);
    Ok(runtime.block_on(joined)?)
}

pub(super) fn restore(settings: &Settings, file: &Path) -> anyhow::Result<()> {
    let cluster = &settings.cluster;
    // A node that nobody connects to becomes a cluster of its own.
    let address = cluster.advertise.as_deref();
    let identity = setup::restore(
        &cluster.data_dir,
        file,
        &cluster.name,
        address,
        Bounds::default(),
        clock::now(),
    )?;
    println!("{}", told(&identity));
    eprintln!(
        "# Start it with `tollgate serve`. Running windows count as used up; other nodes join this cluster anew."
    );
    Ok(())
}

pub(super) fn recover(settings: &Settings, force: bool) -> anyhow::Result<()> {
    let dir = &settings.cluster.data_dir;
    if !force {
        bail!(
            "this begins a new cluster with what {} holds, and gives up what only the other voters know: if they will not \
             come back, say --force. If one of them can still be started, start it instead",
            dir.display()
        );
    }
    let identity = setup::recover(dir, Bounds::default(), clock::now())?;
    println!("{}", told(&identity));
    eprintln!(
        "# Start it with `tollgate serve`. Running windows count as used up; other nodes join this cluster anew."
    );
    Ok(())
}

fn identity(dir: &Path) -> anyhow::Result<Option<Identity>> {
    if !dir.exists() {
        return Ok(None);
    }
    Ok(DataDir::open(dir)?.identity()?)
}

fn address(cluster: &Cluster) -> anyhow::Result<&str> {
    let Some(listen) = cluster.listen else {
        bail!(
            "other nodes must be able to connect: give `cluster.listen` (and `cluster.advertise`) in the configuration"
        );
    };
    cluster.advertise.as_deref().with_context(|| {
        format!(
            "`cluster.listen` is {listen}: a voter needs a port that stays, or `cluster.advertise`"
        )
    })
}

fn told(identity: &Identity) -> String {
    let role = match identity.role {
        Role::Voter => "voter",
        Role::Client => "lease client",
    };
    format!(
        "{} is a {role} of cluster {:032x} (node {:016x})",
        identity.name, identity.cluster, identity.node.0
    )
}

fn configured_token(token: &JoinToken) -> anyhow::Result<String> {
    match token {
        JoinToken::File(path) => read(path),
        JoinToken::Env(name) => std::env::var(name).with_context(|| {
            format!(
                "the environment variable `{name}` should hold a token of `tollgate cluster token`"
            )
        }),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let opened = fs::File::open(path).with_context(|| {
        format!(
            "{}: make a token with `tollgate cluster token --out FILE` on a node of the cluster",
            path.display()
        )
    })?;
    bounded(opened).with_context(|| path.display().to_string())
}

fn bounded(from: impl io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
