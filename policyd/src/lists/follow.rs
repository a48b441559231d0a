// SPDX-License-Identifier: GPL-3.0-or-later
//! Keeps the access lists up to date while the daemon runs: those in the store at once after a change, and as time makes entries
//! expire; list files when they have changed on disk.
//!
//! Whatever goes wrong, the last good set stays in force and the log says so. A host that starts without the store has its list
//! files only.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::config::Mistakes;
use common::store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::{Refreshed, Stamp, Stored, Tables};
use crate::policy::Live;
use crate::store::Connection;
use crate::store::acl::{self, Entry};
use crate::store::acl_changes::{Changes, Woken};
use crate::store::health::Health;

/// Time for one statement.
const STATEMENT_TIME: Duration = Duration::from_secs(6);
/// A store that is not there so long after the start is worth a line.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest sleep until an entry expires: a clock that is set meanwhile is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Follows the lists in the store until `stop`.
pub async fn follow(store: Store, health: Arc<Health>, stored: Stored, stop: CancellationToken) {
    let mut follower =
        Follower { store, stored, version: None, entries: Vec::new(), next_expiry: None, told: String::new() };
    loop {
        tokio::select! {
            () = follower.round(&health) => {}
            () = stop.cancelled() => return,
        }
    }
}

struct Follower {
    store: Store,
    stored: Stored,
    version: Option<i64>,
    entries: Vec<Entry>,
    /// When the next entry in force expires.
    next_expiry: Option<i64>,
    /// The trouble that was logged last.
    told: String,
}

impl Follower {
    /// Follows until something fails, then a pause. Without the store entries expire as well.
    async fn round(&mut self, health: &Health) {
        self.expire();
        let mut changes = health.watch();
        tokio::select! {
            // The schema is there once the store counts as up; the sender lives as long as `health`.
            _ = changes.wait_for(|up| *up) => {}
            () = tokio::time::sleep(self.until_expiry()) => return,
            () = tokio::time::sleep(FIRST_WAIT), if self.version.is_none() && self.told.is_empty() => {
                return self.tell(&StoreError::Unavailable("it has not answered yet".to_owned()));
            }
        }
        let Err(error) = self.run().await;
        self.tell(&error);
        tokio::time::sleep(PAUSE.min(self.until_expiry())).await;
    }

    /// Loads and waits, again and again, until something fails.
    async fn run(&mut self) -> Result<std::convert::Infallible, StoreError> {
        // First listen, then read: what changes in between is told.
        let mut changes = timely(Changes::open(&self.store)).await?;
        self.look().await?;
        loop {
            tokio::select! {
                woken = changes.next() => {
                    let woken = woken?;
                    let changed = self.look().await?;
                    if let (Changes::Postgres(_), Woken::Time, true) = (&changes, woken, changed) {
                        tracing::warn!("a change of the lists in the store was not told but found by looking");
                        changes = timely(Changes::open(&self.store)).await?;
                        self.look().await?;
                    }
                }
                () = tokio::time::sleep(self.until_expiry()) => self.expire(),
            }
        }
    }

    /// Reads the lists if they have changed; true when they had.
    async fn look(&mut self) -> Result<bool, StoreError> {
        let mut connection = timely(Connection::acquire(&self.store)).await?;
        // The version first: a change after it is read makes the next look read again.
        let version = timely(acl::version(&mut connection)).await?;
        let changed = self.version != Some(version);
        if changed {
            self.entries = timely(acl::all(&mut connection)).await?;
            self.version = Some(version);
            self.publish();
            let in_force = self.stored.load().len();
            tracing::info!(entries = in_force, version, "access lists read from the store");
        }
        if !std::mem::take(&mut self.told).is_empty() {
            tracing::warn!("the access lists in the store can be read again");
        }
        Ok(changed)
    }

    /// Puts in force what has not expired.
    fn publish(&mut self) {
        let now = now();
        let (tables, wrong) = in_force_now(&self.entries);
        for mistake in wrong.iter() {
            tracing::error!(mistake = mistake.to_string(), "an entry of the lists in the store is left out");
        }
        self.next_expiry = self.entries.iter().filter_map(|entry| entry.expires).filter(|expires| *expires > now).min();
        metrics::counter!("octroi_policyd_acl_loads_total").increment(1);
        metrics::gauge!("octroi_policyd_acl_entries").set(tables.len() as f64);
        self.stored.store(Arc::new(tables));
    }

    /// Time until the next of the entries in force expires; whatever has happened meanwhile, none is passed over.
    fn until_expiry(&self) -> Duration {
        let left =
            |expires: i64| Duration::from_millis(u64::try_from(expires.saturating_sub(now())).unwrap_or_default());
        self.next_expiry.map_or(LONGEST_SLEEP, left).min(LONGEST_SLEEP)
    }

    fn expire(&mut self) {
        if self.next_expiry.is_some_and(|expires| expires <= now()) {
            self.publish();
        }
    }

    /// Logs a trouble once.
    fn tell(&mut self, error: &StoreError) {
        metrics::counter!("octroi_policyd_acl_failures_total").increment(1);
        let error = error.to_string();
        if error != self.told {
            let entries = self.stored.load().len();
            tracing::warn!(
                error,
                entries,
                "the access lists in the store cannot be read; the last known ones stay in force"
            );
            self.told = error;
        }
    }
}

/// The lists of those entries that have not expired; wrong ones are left out and told.
pub fn in_force_now(entries: &[Entry]) -> (Tables, Mistakes) {
    let now = now();
    Tables::from_entries(entries.iter().filter(|entry| in_force(entry, now)))
}

fn in_force(entry: &Entry, now: i64) -> bool {
    entry.expires.is_none_or(|expires| expires > now)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

async fn timely<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_TIME, work).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {} seconds", STATEMENT_TIME.as_secs()))),
    }
}

/// Looks at the list files, those that rules name too, every `access.watch` until `stop`, and reads them again when one has changed.
pub async fn watch_files(live: Arc<Live>, stop: CancellationToken) {
    let mut tried = Tried::default();
    loop {
        let pause = live.current().settings.access.watch.0;
        // Switched off now; a reload may switch it on.
        let (pause, off) = if pause.is_zero() { (LONGEST_SLEEP, true) } else { (pause, false) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        if off {
            continue;
        }
        let (looking, mut last) = (live.clone(), std::mem::take(&mut tried));
        let looked = tokio::task::spawn_blocking(move || {
            let policy = looking.current();
            let lists = policy.lists.refresh(&policy.settings, &mut last.lists);
            let of_rules = policy.rules.refresh_lists(&mut last.rules);
            ([lists, of_rules], last)
        });
        let Ok((refreshed, last)) = looked.await else { return };
        tried = last;
        refreshed.into_iter().for_each(tell_refreshed);
    }
}

/// What files looked like when they were last read in vain.
#[derive(Debug, Default)]
struct Tried {
    lists: Option<Vec<Stamp>>,
    rules: Option<Vec<Stamp>>,
}

fn tell_refreshed(refreshed: Refreshed) {
    match refreshed {
        Refreshed::Unchanged => {}
        Refreshed::Changed { entries, notices } => {
            tracing::info!(entries, "list files have changed and were read again");
            for notice in notices {
                tracing::warn!(notice, "an odd entry in a list of another program");
            }
        }
        Refreshed::Wrong(mistakes) => {
            for mistake in mistakes.iter() {
                tracing::error!(mistake = mistake.to_string(), "list files not read again, the last good ones stay");
            }
        }
    }
}
