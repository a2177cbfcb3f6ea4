//! `tollgate grant`

mod log;

use crate::{
    clock,
    config::{
        emit::{self, Map, list, null, text},
        is_name,
        units::HumanDuration,
    },
};
use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use proto::{
    doc::Node,
    grant::{TokenHash, token},
    time::{parse_rfc3339, rfc3339},
};
use std::process::ExitCode;

/// Arguments of `tollgate grant`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a grant: its token goes to standard output, once; the stanza for the configuration to standard error
    New(New),
    #[command(flatten)]
    Log(log::Command),
}

#[derive(Debug, clap::Args)]
struct New {
    /// The grant's id, 1 to 64 of A-Z a-z 0-9 _ . - [default: from the label, or random]
    #[arg(long)]
    id: Option<String>,
    /// A name for people, at most 128 bytes
    #[arg(long)]
    label: Option<String>,
    /// A server that it may use and the policy there; without `=POLICY` every call is denied. May be repeated
    #[arg(long = "server", value_name = "SERVER[=POLICY]")]
    servers: Vec<String>,
    /// When it ends: a date and time (2027-01-31T00:00:00Z) or a time from now (90d)
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
}

/// Runs `tollgate grant`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let new = match args.command {
        Command::New(new) => new,
        Command::Log(command) => return log::run(command),
    };
    let (token, hash) = mint();
    let stanza = stanza(&new, hash, clock::now().unix_ms)?;
    eprintln!("# Put this under `grants` in the configuration, or into a file of `grants_files`.");
    eprint!("{}", emit::yaml(&list([stanza])));
    println!("{token}");
    Ok(ExitCode::SUCCESS)
}

/// A fresh token and what is kept of it.
pub(crate) fn mint() -> (String, TokenHash) {
    let token = token(&clock::random());
    let mut hash = [0; 32];
    let digest = digest(&SHA256, token.as_bytes());
    hash.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(to, from)| *to = *from);
    (token, TokenHash(hash))
}

fn stanza(new: &New, hash: TokenHash, now_ms: u64) -> anyhow::Result<Node> {
    let id = match (&new.id, &new.label) {
        (Some(id), _) => id.clone(),
        (None, label) => fresh_id(label.as_deref().unwrap_or("grant")),
    };
    ensure!(
        is_name(&id),
        "`{id}`: an id is 1 to 64 of A-Z a-z 0-9 _ . -"
    );
    if let Some(label) = &new.label {
        let fits = label.len() <= 128 && !label.contains(char::is_control);
        ensure!(
            fits,
            "a label has at most 128 bytes and no control characters"
        );
    }
    let expires = match &new.expires {
        Some(when) => Some(text(expiry(when, now_ms)?)),
        None => None,
    };
    let mut servers = Map::default();
    for (i, server) in new.servers.iter().enumerate() {
        let (name, policy) = match server.split_once('=') {
            Some((name, policy)) => (name, Some(policy)),
            None => (server.as_str(), None),
        };
        for name in [Some(name), policy].into_iter().flatten() {
            ensure!(
                is_name(name),
                "`{name}`: a name is 1 to 64 of A-Z a-z 0-9 _ . -"
            );
        }
        let twice = new
            .servers
            .iter()
            .take(i)
            .any(|s| s.split('=').next() == Some(name));
        ensure!(!twice, "the server `{name}` is given twice");
        servers.put(name, policy.map_or_else(null, text));
    }
    Ok(Map::default()
        .put("id", text(id))
        .put_some("label", new.label.as_ref().map(text))
        .put("token_sha256", text(hash.to_string()))
        .put_some("expires", expires)
        .put("servers", servers.done())
        .done())
}

/// A label's letters and digits, and enough dice that two grants with one label differ.
fn fresh_id(label: &str) -> String {
    let words: Vec<_> = label
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let words: String = match words.is_empty() {
        true => "grant".to_owned(),
        false => words.join("-").chars().take(40).collect(),
    };
    let dice = u32::from_le_bytes(clock::random());
    format!("{words}-{dice:08x}")
}

fn expiry(when: &str, now_ms: u64) -> anyhow::Result<String> {
    let at_ms = match when.parse::<HumanDuration>() {
        Ok(from_now) => u64::try_from(from_now.0.as_millis())
            .ok()
            .and_then(|ms| now_ms.checked_add(ms))
            .context("this is too far away")?,
        Err(_) => match parse_rfc3339(when) {
            Ok(at_ms) => at_ms,
            Err(why) => bail!("--expires: {why}; or give a time from now such as 90d"),
        },
    };
    ensure!(at_ms > now_ms, "--expires: that is in the past");
    Ok(rfc3339(at_ms / 1_000 * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    fn new(label: Option<&str>, servers: &[&str], expires: Option<&str>) -> New {
        New {
            id: None,
            label: label.map(str::to_owned),
            servers: servers.iter().map(|s| (*s).to_owned()).collect(),
            expires: expires.map(str::to_owned),
        }
    }

    #[test]
    fn a_stanza_is_what_the_configuration_reads() {
        let (token, hash) = mint();
        assert!(proto::grant::is_token_shaped(token.as_bytes()));
        let new = new(Some("Ada's \"laptop\""), &["a", "b"], Some("90d"));
        let stanza = stanza(&new, hash, 1_785_230_400_125).unwrap();
        let mut map = Map::default();
        let servers =
            ["a", "b"].map(|name| (name, Map::default().put("command", text("cat")).done()));
        let mut all = Map::default();
        for (name, server) in servers {
            all.put(name, server);
        }
        map.put("servers", all.done()).put("grants", list([stanza]));
        let loaded = config::load_text(&emit::yaml(&map.done()), Path::new("/"), 1).unwrap();
        let grant = &loaded.view.grants[&hash];
        assert!(grant.id.starts_with("ada-s-laptop-"), "{}", grant.id);
        assert_eq!(grant.label.as_deref(), Some("Ada's \"laptop\""));
        assert_eq!(grant.expires_ms, Some(1_785_230_400_000 + 90 * 86_400_000));
        assert_eq!(grant.servers.len(), 2);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let (_, hash) = mint();
        for (new, why) in [
            (new(None, &["a b"], None), "a name is 1 to 64"),
            (new(None, &["a=", "b"], None), "a name is 1 to 64"),
            (new(None, &["a=x", "a"], None), "given twice"),
            (new(None, &[], Some("soon")), "not a date"),
            (new(None, &[], Some("2001-01-01T00:00:00Z")), "in the past"),
            (new(Some("a\nb"), &[], None), "control characters"),
        ] {
            let error = stanza(&new, hash, 1_785_230_400_125)
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(is_name(&fresh_id("")) && is_name(&fresh_id("é…")));
    }
}
