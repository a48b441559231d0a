// SPDX-License-Identifier: GPL-3.0-or-later
//! A bounded memory with an end for each entry: two generations, of which the older one is forgotten as a whole when the younger one is full.
//!
//! Pure: the time is given. Keys are hashed with a seed of this process; two that meet are as unlikely as 2⁻⁶⁴ times their number.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Mutex;
use std::time::Instant;

/// Values by key.
#[derive(Debug)]
pub struct Memory<T> {
    generation: usize,
    hasher: RandomState,
    entries: Mutex<[HashMap<u64, (Instant, T)>; 2]>,
}

impl<T: Clone> Memory<T> {
    /// Room for twice `generation` entries.
    pub fn new(generation: usize) -> Self {
        Self { generation, hasher: RandomState::new(), entries: Mutex::default() }
    }

    /// The value of a key, unless its end has come.
    pub fn get(&self, key: impl Hash, now: Instant) -> Option<T> {
        let hash = self.hasher.hash_one(key);
        // A panic of another thread leaves nothing half done here.
        let entries = self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (until, value) = entries.iter().find_map(|entries| entries.get(&hash))?;
        (now < *until).then(|| value.clone())
    }

    /// Remembers a value until `until`.
    pub fn put(&self, key: impl Hash, value: T, until: Instant) {
        let hash = self.hasher.hash_one(key);
        let mut entries = self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let [young, old] = &mut *entries;
        if young.len() >= self.generation {
            std::mem::swap(young, old);
            young.clear();
        }
        young.insert(hash, (until, value));
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        let mut entries = self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for generation in &mut *entries {
            generation.clear();
        }
    }

    /// Number of entries, those that have ended included.
    pub fn len(&self) -> usize {
        let entries = self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        entries.iter().map(HashMap::len).sum()
    }

    /// True when nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_entry_is_known_until_its_end() {
        let (memory, now) = (Memory::new(10), Instant::now());
        memory.put(("zone", "name"), 1, now + Duration::from_secs(5));
        assert_eq!(memory.get(("zone", "name"), now), Some(1));
        assert_eq!(memory.get(("zone", "name"), now + Duration::from_secs(5)), None);
        assert_eq!(memory.get(("zone", "other"), now), None);
        memory.put(("zone", "name"), 2, now + Duration::from_secs(9));
        assert_eq!(memory.get(("zone", "name"), now + Duration::from_secs(8)), Some(2));
    }

    #[test]
    fn it_is_bounded_and_keeps_the_newest() {
        let (memory, now) = (Memory::new(100), Instant::now());
        for number in 0..1000 {
            memory.put(number, number, now + Duration::from_secs(5));
        }
        assert!(memory.len() <= 200);
        assert_eq!(memory.get(999, now), Some(999));
        assert_eq!(memory.get(1, now), None);
    }
}
