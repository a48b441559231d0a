// SPDX-License-Identifier: GPL-3.0-or-later
//! What makes room in the quarantine of this host: messages whose time is over, the oldest when there are too many, and what a crash
//! left behind between file and index. Each host cleans its own files.

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::store::{Store, StoreError};
use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;

use super::{Quarantine, QuarantineSettings, file};
use crate::store;
use crate::store::quarantine::Old;

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(60);
/// Messages deleted with one question to the index.
const BATCH: i64 = 200;
const DAY: i64 = 86_400_000;

impl Quarantine {
    /// Cleans until `stop`. `settings` gives those in force.
    pub async fn clean(&self, settings: impl Fn() -> QuarantineSettings, stop: CancellationToken) {
        let mut looked_at = None;
        loop {
            if let Ok(store) = self.access.store() {
                let day = store::now() / DAY;
                let strays = looked_at != Some(day);
                match self.round(&store, &settings(), strays).await {
                    Ok(()) => looked_at = Some(day),
                    Err(error) => tracing::warn!(%error, "the quarantine was not cleaned"),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(if looked_at.is_some() { PAUSE } else { Duration::from_secs(1) }) => {}
                () = self.crowded.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One round. `strays`: also look for files that the index does not know.
    pub async fn round(&self, store: &Store, settings: &QuarantineSettings, strays: bool) -> Result<(), StoreError> {
        loop {
            let old = store::quarantine::expired(store, &self.host, store::now(), BATCH).await?;
            let last = (old.len() as i64) < BATCH;
            if self.remove(store, settings, old, "expired").await? == 0 || last {
                break;
            }
        }
        let most = i64::try_from(settings.max_size.0).unwrap_or(i64::MAX);
        let (mut messages, mut bytes) = store::quarantine::total(store, &self.host).await?;
        while bytes > most {
            let mut old = store::quarantine::oldest(store, &self.host, BATCH).await?;
            let mut after = bytes;
            let enough = old.iter().position(|old| {
                after -= old.stored;
                after <= most
            });
            old.truncate(enough.map_or(old.len(), |at| at + 1));
            if self.remove(store, settings, old, "size").await? == 0 {
                break;
            }
            (messages, bytes) = store::quarantine::total(store, &self.host).await?;
        }
        self.used.store(u64::try_from(bytes).unwrap_or_default(), Ordering::Relaxed);
        gauge!("octroi_contentd_quarantine_messages").set(messages as f64);
        gauge!("octroi_contentd_quarantine_bytes").set(bytes as f64);
        // The day before yesterday: nothing is being written there any more.
        if strays { self.strays(store, settings, store::now() - 2 * DAY).await } else { Ok(()) }
    }

    /// Deletes files, then their rows; gives how many. A file that cannot be deleted keeps its row, and is tried again.
    async fn remove(
        &self,
        store: &Store,
        settings: &QuarantineSettings,
        old: Vec<Old>,
        why: &'static str,
    ) -> Result<usize, StoreError> {
        let mut removed = 0;
        for Old { id, at, .. } in old {
            let (directory, name) = (settings.folder(), file::name(&id, at));
            let work = move || name.map_or(Ok(false), |name| file::remove(&directory, &name));
            match tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other).flatten() {
                Ok(_) => {
                    store::quarantine::remove(store, &id).await?;
                    removed += 1;
                }
                Err(error) => tracing::error!(id, %error, "a file of the quarantine cannot be deleted"),
            }
        }
        counter!("octroi_contentd_quarantine_removed_total", "why" => why).increment(removed as u64);
        Ok(removed)
    }

    /// Deletes what a crash left behind in the folder of one day: files that were never finished or never entered. Their senders
    /// have not been told 2xx.
    async fn strays(&self, store: &Store, settings: &QuarantineSettings, at: i64) -> Result<(), StoreError> {
        let directory = settings.folder();
        let work = {
            let directory = directory.clone();
            move || file::of_day(&directory, at)
        };
        let found = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other).flatten();
        let (ids, mut files) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the folder of the quarantine cannot be read");
                return Ok(());
            }
        };
        for id in ids {
            if let Some(name) = file::name(&id, at)
                && store::quarantine::find(store, &id).await?.is_none()
            {
                files.push(directory.join(name));
            }
        }
        counter!("octroi_contentd_quarantine_removed_total", "why" => "stray").increment(files.len() as u64);
        let work = move || files.iter().for_each(|file| drop(std::fs::remove_file(file)));
        // What cannot be removed now stays; it does no harm but to the disk.
        let _ = tokio::task::spawn_blocking(work).await;
        Ok(())
    }
}
