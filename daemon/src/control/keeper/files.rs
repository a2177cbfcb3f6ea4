//! Files that were read again: all or nothing of them takes effect.

use super::{super::assemble::conflicts, Failed, Keeper};
use crate::{
    config::{self, Loaded, Settings},
    gateway::listener::Tls,
    tls,
};
use std::{sync::Arc, time::Instant};

impl Keeper {
    /// Puts files in force that could be read: all or nothing.
    pub(super) async fn adopt(&mut self, files: Arc<Loaded>) -> Result<(), Failed> {
        let refused = |error: anyhow::Error| Failed::Refused(format!("{error:#}"));
        let tls = self.tls(&files.settings).map_err(refused)?;
        self.no_new_conflicts(&files)?;
        let former = self.assembler.clone();
        self.assembler.files_changed();
        let view = self.assemble(files.clone()).await?;
        if let Err(failed) = self.define(&view).await {
            self.assembler = former;
            if matches!(failed, Failed::Silent) {
                self.put_reduced(&view);
                self.waiting = Some(files);
                self.late = Some(Instant::now());
            }
            return Err(failed);
        }
        self.files = files;
        (self.waiting, self.late) = (None, None);
        self.put(view);
        self.watch_log().await;
        for (held, fresh) in tls {
            if let Ok(mut held) = held.write() {
                *held = fresh;
            }
        }
        for setting in config::needs_restart(&self.settings, &self.files.settings) {
            tracing::warn!(setting, "changed in the file, takes effect with a restart");
        }
        Ok(())
    }

    /// The files may not take a name that the log has.
    fn no_new_conflicts(&self, files: &Loaded) -> Result<(), Failed> {
        let found = conflicts(files, &self.control());
        let new = found.into_iter().filter(|(kind, name)| {
            // One that was there before is shown as long as it lasts, and keeps nothing else from being changed.
            !config::names(&self.files, *kind).contains(&**name)
        });
        let told: Vec<_> = new
            .map(|(kind, name)| {
                let kind = config::log::kind_word(kind);
                format!(
                    "error: the {kind} `{name}` is in the cluster's log too: give it another name here, or run \
                     `tollgate {kind} delete {name}` first"
                )
            })
            .collect();
        match told.is_empty() {
            true => Ok(()),
            false => Err(Failed::Refused(told.join("\n"))),
        }
    }

    /// Every certificate is read before any is replaced.
    fn tls(&self, settings: &Settings) -> anyhow::Result<Vec<(Tls, Arc<rustls::ServerConfig>)>> {
        let mut fresh = Vec::new();
        let started = self.settings.listeners.iter().enumerate();
        for ((index, ours), serves) in started.zip(&self.serves) {
            // Listeners may have changed places in the file: a socket keeps to the entry with its address.
            let here = settings.listeners.get(index);
            let here = here.filter(|listener| listener.address == ours.address);
            let listener = here.or_else(|| {
                let mut all = settings.listeners.iter();
                all.find(|listener| listener.address == ours.address)
            });
            if let (Some(held), Some(files)) = (
                &serves.tls,
                listener.and_then(|listener| listener.tls.as_ref()),
            ) {
                fresh.push((
                    held.clone(),
                    tls::server_config(files, &[b"h2", b"http/1.1"])?,
                ));
            }
        }
        Ok(fresh)
    }
}
