// SPDX-License-Identifier: GPL-3.0-or-later
//! Which keys the store has any trust for, so that a client without it, and that is nearly every one that is greylisted, costs no
//! question. A key in here is asked about; a key that is not is not trusted. Another host's first pass shows within [`REFRESH`].
//!
//! Hashes only, bounded; a farm with more keys than fit has every client asked about.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use common::store::StoreError;

use super::{Connection, trust};

/// Pause between two looks for keys that other hosts have added.
pub const REFRESH: Duration = Duration::from_secs(60);
/// After so many looks all keys are read anew, which drops the expired ones.
const LOOKS: u32 = 60;
/// Keys held at most, in about 9 MiB.
const MOST: usize = 500_000;
/// Rows are dated when their statement begins and seen when it is committed; so each look goes back a little, in milliseconds.
const OVERLAP: i64 = 30_000;

/// The keys that are there.
#[derive(Debug, Default)]
pub struct Present {
    hasher: RandomState,
    /// None while they are not known.
    keys: Mutex<Option<HashSet<u64>>>,
}

/// How far a worker has read.
#[derive(Debug, Default)]
pub struct Progress {
    looks: u32,
    newest: i64,
}

impl Present {
    /// True when it is certain that the store had nothing for this key at the last look.
    pub fn lacks(&self, key: &str) -> bool {
        self.keys().as_ref().is_some_and(|keys| !keys.contains(&self.hasher.hash_one(key)))
    }

    /// True when the store had something for this key at the last look.
    pub fn has(&self, key: &str) -> bool {
        self.keys().as_ref().is_some_and(|keys| keys.contains(&self.hasher.hash_one(key)))
    }

    /// A pass of this key is on its way to the store.
    pub fn add(&self, key: &str) {
        if let Some(keys) = self.keys().as_mut() {
            keys.insert(self.hasher.hash_one(key));
        }
    }

    /// Reads what has come since the last look, or everything.
    pub async fn refresh(&self, connection: &mut Connection, progress: &mut Progress) -> Result<(), StoreError> {
        let anew = progress.looks == 0;
        let since = if anew { i64::MIN } else { progress.newest.saturating_sub(OVERLAP) };
        let found = trust::since(connection, since, MOST + 1, None).await?;
        progress.newest = found.iter().map(|(_, counted)| *counted).fold(progress.newest, i64::max);
        progress.looks = (progress.looks + 1) % LOOKS;
        let mut keys = self.keys();
        let mut held = if anew { HashSet::with_capacity(found.len()) } else { keys.take().unwrap_or_default() };
        held.extend(found.iter().map(|(key, _)| self.hasher.hash_one(key)));
        *keys = (held.len() <= MOST).then_some(held);
        if keys.is_none() {
            // A look that is not complete must not be built upon.
            progress.looks = 0;
        }
        Ok(())
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Option<HashSet<u64>>> {
        // A panic of another thread leaves nothing half done here.
        self.keys.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::store::{Store, StoreSettings};

    #[tokio::test]
    async fn keys_of_other_hosts_are_seen_at_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("o.db").display());
        let store = Store::open(&StoreSettings { url, ..StoreSettings::default() }).await.unwrap();
        store.migrate().await.unwrap();
        let mut connection = Connection::acquire(&store).await.unwrap();
        let (present, mut progress) = (Present::default(), Progress::default());
        assert!(!present.lacks("a"), "before the first look nothing is certain");
        present.refresh(&mut connection, &mut progress).await.unwrap();
        assert!(present.lacks("a") && present.lacks("b"));
        present.add("b");
        assert!(!present.lacks("b"));
        trust::count(&mut connection, &["a".to_owned()], 1000, None).await.unwrap();
        assert!(present.lacks("a"));
        present.refresh(&mut connection, &mut progress).await.unwrap();
        assert!(!present.lacks("a") && !present.lacks("b") && present.lacks("c"));
    }
}
