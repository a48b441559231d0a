// SPDX-License-Identifier: GPL-3.0-or-later
//! How many new triplets of one network wait and have never come again: a flood of them shall not fill the store. Once one has come
//! again the network is one of mail servers, and counts no more.
//!
//! In memory of this process and bounded, so the limit holds for each host by itself.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Networks remembered per generation.
const GENERATION: usize = 8192;

/// What is remembered of one network.
#[derive(Debug, Clone, Copy)]
struct Counted {
    since: Instant,
    new: u32,
    passed: bool,
}

/// The networks: two generations, the older one is forgotten when the younger one is full.
#[derive(Debug, Default)]
pub struct Pending {
    hasher: RandomState,
    generations: Mutex<[HashMap<u64, Counted>; 2]>,
}

impl Pending {
    /// True when `most` triplets of this network are new within `window`, and none has come again.
    pub fn is_full(&self, network: &str, most: u32, window: Duration) -> bool {
        let key = self.hasher.hash_one(network);
        // A panic of another thread leaves nothing half done here.
        let generations = self.generations.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let counted = generations.iter().find_map(|networks| networks.get(&key));
        counted.is_some_and(|counted| !counted.passed && counted.new >= most && counted.since.elapsed() < window)
    }

    /// A triplet of this network is new.
    pub fn new_triplet(&self, network: &str, window: Duration) {
        self.change(network, window, |counted| counted.new = counted.new.saturating_add(1));
    }

    /// A triplet of this network has come again.
    pub fn passed(&self, network: &str, window: Duration) {
        self.change(network, window, |counted| counted.passed = true);
    }

    fn change(&self, network: &str, window: Duration, change: impl FnOnce(&mut Counted)) {
        let key = self.hasher.hash_one(network);
        let mut generations = self.generations.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let [young, old] = &mut *generations;
        let known = young.get(&key).or(old.get(&key)).filter(|counted| counted.since.elapsed() < window);
        let mut counted = known.copied().unwrap_or(Counted { since: Instant::now(), new: 0, passed: false });
        change(&mut counted);
        if young.len() >= GENERATION && !young.contains_key(&key) {
            std::mem::swap(young, old);
            young.clear();
        }
        young.insert(key, counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: &str = "192.0.2.0/24";
    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_network_is_full_until_one_of_its_triplets_comes_again() {
        let pending = Pending::default();
        for number in 0..3 {
            assert!(!pending.is_full(NET, 3, DAY), "{number}");
            pending.new_triplet(NET, DAY);
        }
        assert!(pending.is_full(NET, 3, DAY) && !pending.is_full(NET, 4, DAY));
        assert!(!pending.is_full("198.51.100.0/24", 3, DAY), "another network");
        assert!(!pending.is_full(NET, 3, Duration::ZERO), "the window is over");
        pending.passed(NET, DAY);
        pending.new_triplet(NET, DAY);
        assert!(!pending.is_full(NET, 3, DAY));
    }

    #[test]
    fn memory_is_bounded() {
        let pending = Pending::default();
        for number in 0..3 * GENERATION {
            pending.new_triplet(&number.to_string(), DAY);
        }
        assert!(pending.is_full(&(3 * GENERATION - 1).to_string(), 1, DAY));
        assert!(pending.generations.lock().unwrap().iter().all(|networks| networks.len() <= GENERATION));
    }
}
