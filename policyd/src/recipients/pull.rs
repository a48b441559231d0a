// SPDX-License-Identifier: GPL-3.0-or-later
//! Full copies of directories: taken by one host of the farm when they are due, refused when they are suddenly much smaller, shared
//! through the store.

use std::sync::Arc;
use std::time::Duration;

use common::store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::book::now;
use super::directory::{Copied, Directory};
use super::members::Members;
use super::{Provider, Trouble};
use crate::store::Connection;
use crate::store::recipients;

/// Time for one copy, and for how long nobody else takes it meanwhile.
const TIMES: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(660));
/// Longest pause before another try; a quarter of `pull` when that is shorter.
const PAUSE: Duration = Duration::from_secs(60);

/// Why a copy is not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    /// The directory gives none.
    #[error("{0}")]
    Directory(#[from] Trouble),
    /// It is too small.
    #[error("it has {now} recipients where there were {before}: more than max_shrink fewer")]
    Shrunk {
        /// Recipients of the copy in force.
        before: usize,
        /// Recipients of the new one.
        now: usize,
    },
    /// The store does not take it.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Takes a copy when one is due and no other host is at it. Gives at once; the work is done by itself, until `stop`.
pub(super) async fn when_due(directory: &Arc<Directory>, store: &Store, stop: &CancellationToken) {
    if directory.puller().is_none() {
        return;
    }
    let pull = directory.settings.pull.as_millis();
    let lease = i64::try_from(TIMES.1.as_millis()).unwrap_or(i64::MAX);
    let claimed = async {
        let mut connection = Connection::acquire(store).await?;
        recipients::claim(&mut connection, &directory.key(), pull, lease).await
    };
    match claimed.await {
        Ok(true) => {
            let (directory, store, stop) = (directory.clone(), store.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = pull_now(&directory, &store) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        Ok(false) => {}
        Err(error) => tracing::debug!(directory = directory.settings.name, %error, "cannot see whether a copy is due"),
    }
}

async fn pull_now(directory: &Arc<Directory>, store: &Store) {
    let name = directory.name();
    let outcome = match take(directory, store).await {
        Ok((outcome, entries)) => {
            tracing::info!(directory = name, entries, outcome, "full copy of the directory taken");
            outcome
        }
        Err(error) => {
            let outcome = if matches!(error, NotTaken::Shrunk { .. }) { "refused" } else { "failed" };
            tracing::warn!(directory = name, %error, "no full copy of the directory: the last one stays");
            let pause = PAUSE.min(directory.settings.pull.0 / 4);
            let released = async {
                let mut connection = Connection::acquire(store).await?;
                let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
                recipients::release(&mut connection, &directory.key(), pause).await
            };
            // Without it the lease runs out by itself.
            drop(released.await);
            outcome
        }
    };
    metrics::counter!("octroi_policyd_directory_copies_total", "directory" => name, "outcome" => outcome).increment(1);
}

/// Takes a copy and puts it in force; what became of it, and how many there are.
async fn take(directory: &Arc<Directory>, store: &Store) -> Result<(&'static str, usize), NotTaken> {
    let members = all(directory.clone()).await?;
    let before = directory.copy();
    let len = before.as_ref().map_or(0, |copy| copy.members.len());
    if !before
        .as_ref()
        .map_or(!members.is_empty(), |copy| copy.members.may_become(members.len(), directory.settings.max_shrink))
    {
        return Err(NotTaken::Shrunk { before: len, now: members.len() });
    }
    let (key, entries) = (directory.key(), members.len());
    let mut connection = Connection::acquire(store).await?;
    let same = before.filter(|copy| copy.members == members);
    let (outcome, version) = match &same {
        Some(copy) => {
            recipients::confirm(&mut connection, &key, copy.version).await?;
            ("same", copy.version)
        }
        None => {
            let count = i64::try_from(entries).unwrap_or(i64::MAX);
            ("replaced", recipients::replace(&mut connection, &key, count, &members.packed()).await?)
        }
    };
    directory.replace_copy(Copied { members, pulled: now(), version });
    Ok((outcome, entries))
}

/// Everything the directory has. In a task of its own: what a server sends is taken apart by a library that may panic about it.
async fn all(directory: Arc<Directory>) -> Result<Members, Trouble> {
    let pulled = tokio::spawn(async move {
        let Some(provider) = directory.puller() else { return Err(Trouble::Refused("it gives no copy".to_owned())) };
        let provider: &dyn Provider = provider;
        let addresses = tokio::time::timeout(TIMES.0, provider.all()).await.unwrap_or(Err(Trouble::Late))?;
        let members = tokio::task::spawn_blocking(move || Members::of(addresses.iter())).await;
        members.map_err(|_| Trouble::Refused("the runtime is ending".to_owned()))
    });
    pulled.await.unwrap_or_else(|error| Err(Trouble::Refused(format!("its answer cannot be read: {error}"))))
}
