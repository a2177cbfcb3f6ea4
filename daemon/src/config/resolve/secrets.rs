//! Values that come from files and environment variables.

use super::{Resolver, SECRET_BYTES};
use crate::{
    clock,
    config::{
        raw,
        settings::Secret,
        units::{SecretRef, Text},
    },
};
use aws_lc_rs::digest;
use proto::{
    doc::{Pos, Spanned},
    limit::HashKey,
};
use std::{os::unix::fs::PermissionsExt, path::Path, sync::OnceLock};

/// Fewest bytes of the identity secret.
const IDENTITY_SECRET_BYTES: usize = 16;

impl Resolver<'_> {
    /// The text of a value; problems are told, values never are.
    pub(super) fn value(&mut self, text: &Spanned<Text>) -> Option<String> {
        match &text.value {
            Text::Literal(literal) => Some(literal.clone()),
            Text::From(reference) => self.reference(reference, text.at),
        }
    }

    fn reference(&mut self, reference: &SecretRef, at: Pos) -> Option<String> {
        let value = match (&reference.file, &reference.env) {
            (Some(file), None) => self.secret_file(file, at)?,
            (None, Some(name)) => self.variable(name, at)?,
            _ => {
                self.error(at, "give exactly one of `file` and `env`");
                return None;
            }
        };
        let prefix = reference.prefix.as_deref().unwrap_or_default();
        Some(format!("{prefix}{value}"))
    }

    fn secret_file(&mut self, file: &str, at: Pos) -> Option<String> {
        let path = Spanned {
            value: file.to_owned(),
            at,
        };
        let bytes = self.file(&path, SECRET_BYTES)?;
        let full = self.path(file);
        self.warn_if_public(&path);
        let Ok(mut text) = String::from_utf8(bytes) else {
            self.error(at, format!("{}: not UTF-8", full.display()));
            return None;
        };
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        if text.is_empty() {
            self.error(at, format!("{}: the file is empty", full.display()));
            return None;
        }
        Some(text)
    }

    pub(super) fn warn_if_public(&mut self, file: &Spanned<String>) {
        let full = self.path(file);
        if std::fs::metadata(&full).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0) {
            let message = format!("{}: everybody on this machine can read it", full.display());
            self.warning(file.at, message);
        }
    }

    fn variable(&mut self, name: &str, at: Pos) -> Option<String> {
        match (self.sources.env)(name) {
            Some(value) if !value.is_empty() => Some(value),
            Some(_) => {
                self.error(at, format!("the environment variable `{name}` is empty"));
                None
            }
            None => {
                self.error(at, format!("the environment variable `{name}` is not set"));
                None
            }
        }
    }

    /// The secret that limits are named with: configured, or the one that the process started with, or the node's in its
    /// data directory. A directory without one gets what is made here when the node begins.
    pub(super) fn secret(
        &mut self,
        config: &raw::Config,
        data_dir: &Path,
        running: Option<&Secret>,
    ) -> Secret {
        let configured = config.identity_secret.as_ref().and_then(|reference| {
            let text = self.reference(&reference.value, reference.at)?;
            if text.len() < IDENTITY_SECRET_BYTES {
                let message =
                    format!("the identity secret is shorter than {IDENTITY_SECRET_BYTES} bytes");
                self.error(reference.at, message);
            }
            let hash = digest::digest(&digest::SHA256, text.as_bytes());
            let mut key = [0; 16];
            key.iter_mut().zip(hash.as_ref()).for_each(|(k, h)| *k = *h);
            Some(HashKey(key))
        });
        // A damaged directory is told of when it is opened.
        let own = || crate::server::node::secret_in(data_dir);
        let found = Secret {
            configured: configured.is_some(),
            key: configured
                .or_else(own)
                .unwrap_or_else(|| random_secret().clone()),
        };
        // Counters live under the key that the process started with.
        match running {
            Some(running) => Secret {
                key: running.key.clone(),
                ..found
            },
            None => found,
        }
    }
}

/// One for the process, so that loading twice gives counters the same names.
fn random_secret() -> &'static HashKey {
    static SECRET: OnceLock<HashKey> = OnceLock::new();
    SECRET.get_or_init(|| HashKey(clock::random()))
}
