//! Grants of the cluster's log. Tokens are made here: the gateway and the cluster hear their hashes.

use super::{New, mint, stanza};
use crate::{
    cli::{
        resources::{self, Delete, List, Show},
        status::{Gateway, print},
    },
    clock,
    config::{emit, units::HumanDuration},
};
use anyhow::Context as _;
use proto::{
    admin::control::{REVOKE, ROTATE, Revoke, Rotate, Written},
    control::Kind,
};
use serde_json::json;
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create a grant in the cluster's log; its token goes to standard output, once
    Create(Create),
    /// Give a grant of the log another token, which goes to standard output, once
    Rotate(Renew),
    /// Refuse a grant of the log from now on, everywhere; its name stays for the audit trail
    Revoke(End),
    /// Delete a grant of the log, its name with it
    Delete(Delete),
    /// List grants, those of the files and those of the log
    List(List),
    /// Show a grant; of one of the log the document, hashes of tokens shortened
    Show(Show),
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    new: New,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, clap::Args)]
pub(super) struct Renew {
    /// The grant's id
    id: String,
    /// How long the token so far stays good beside the new one, e.g. 24h; without this it is refused at once
    #[arg(long, value_name = "TIME", default_value = "0s")]
    overlap: HumanDuration,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, clap::Args)]
pub(super) struct End {
    /// The grant's id
    id: String,
    #[command(flatten)]
    gateway: Gateway,
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => create(&args),
        Command::Rotate(args) => rotate(&args),
        Command::Revoke(args) => revoke(&args),
        Command::Delete(args) => resources::delete(Kind::Grant, &args),
        Command::List(args) => resources::list(Kind::Grant, &args),
        Command::Show(args) => resources::show(Kind::Grant, &args),
    }
}

fn create(args: &Create) -> anyhow::Result<ExitCode> {
    let (token, hash) = mint();
    let document = emit::json(&stanza(&args.new, hash, clock::now().unix_ms)?);
    let serde_json::Value::Object(mut document) = document else {
        anyhow::bail!("a grant's document is a mapping");
    };
    let id = document.remove("id");
    let id = id.as_ref().and_then(serde_json::Value::as_str);
    let id = id.context("a grant has an id")?;
    let body = serde_json::Value::Object(document).to_string().into_bytes();
    let written = resources::put(Kind::Grant, id, Some(0), body, &args.gateway);
    let written = written.with_context(|| {
        format!("the grant `{id}` was not created, as far as is known (if it is in `tollgate grant list`, rotate it)")
    })?;
    hand_over(&args.gateway, id, "created", &token, &written)
}

fn rotate(args: &Renew) -> anyhow::Result<ExitCode> {
    let (token, hash) = mint();
    let asked = Rotate {
        name: args.id.clone(),
        token_sha256: hash.to_string(),
        overlap_ms: u64::try_from(args.overlap.0.as_millis())?,
    };
    let body = serde_json::to_vec(&asked)?;
    let written: Written = args.gateway.put(ROTATE, body.into())?;
    let done = match args.overlap.0.is_zero() {
        true => "rotated, the token so far is refused".to_owned(),
        false => format!(
            "rotated, the token so far is good for {} more",
            args.overlap
        ),
    };
    hand_over(&args.gateway, &args.id, &done, &token, &written)
}

fn revoke(args: &End) -> anyhow::Result<ExitCode> {
    let asked = Revoke {
        name: args.id.clone(),
    };
    let body = serde_json::to_vec(&asked)?;
    let written: Written = args.gateway.put(REVOKE, body.into())?;
    let done = format!("grant {}: revoked", args.id);
    resources::report(&args.gateway, &done, &written)
}

/// The token goes to standard output and nowhere else.
fn hand_over(
    gateway: &Gateway,
    id: &str,
    done: &str,
    token: &str,
    written: &Written,
) -> anyhow::Result<ExitCode> {
    if gateway.json() {
        let told = json!({
            "id": id, "token": token, "version": written.version, "in_force": written.in_force,
            "remarks": written.remarks,
        });
        print(format!("{told}\n").as_bytes())?;
    } else {
        resources::tell(&format!("grant {id}: {done}"), written);
        print(format!("{token}\n").as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}
