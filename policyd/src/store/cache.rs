// SPDX-License-Identifier: GPL-3.0-or-later
//! What this host remembers of triplets: a bounded table in memory, in which nothing can be looked up but a keyed hash.
//!
//! While the store answers, it saves the question about a triplet that has passed, for [`CONFIRMED`] at a time: what another host or
//! an administrator deletes is noticed after that. While the store does not answer, it decides alone, and what it decides is
//! given back to be written down. The key holds the delay and the life of what has passed: after a reload that changes them nothing is
//! remembered.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::greylist::{Sighting, Times};
use crate::triplet::Triplet;

/// How long the answer of the store that a triplet has passed counts without asking again.
pub const CONFIRMED: Duration = Duration::from_secs(60);
/// Locks.
const SHARDS: usize = 64;
/// Entries among which a new one finds its place.
const WAYS: usize = 8;
/// Such groups under one lock. All entries together take 6 MiB.
const GROUPS: usize = 512;
/// The unit of time in the table: 32 bits of it are 13 years.
const TICK: u64 = 100;

/// A triplet under certain times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

/// A moment, in ticks since one tick before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u32);

impl Moment {
    /// Surely behind the end of a time that begins now: the moment itself was rounded down.
    fn after(self, milliseconds: i64) -> u32 {
        self.0.saturating_add(ticks(milliseconds)).saturating_add(1)
    }

    /// Surely not behind it.
    fn until(self, milliseconds: i64) -> u32 {
        let whole = u64::try_from(milliseconds).unwrap_or_default() / TICK;
        self.0.saturating_add(u32::try_from(whole).unwrap_or(u32::MAX))
    }
}

/// Milliseconds as ticks, rounded up.
fn ticks(milliseconds: i64) -> u32 {
    u32::try_from(u64::try_from(milliseconds).unwrap_or_default().div_ceil(TICK)).unwrap_or(u32::MAX)
}

fn milliseconds(ticks: u32) -> i64 {
    i64::from(ticks).saturating_mul(TICK as i64)
}

/// What is known of one triplet. Times in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Entry {
    hash: u64,
    /// Forgotten from then on; 0 in an empty place.
    expires: u32,
    /// When it may pass; 0 when it has passed.
    passes: u32,
    /// When the store last said that it has passed; 0 when it did not.
    confirmed: u32,
    /// When it was last written: by the store, or by us for the store.
    written: u32,
}

impl Entry {
    /// The smaller, the sooner another triplet takes the place: empty, then waiting, then passed; among equals the older.
    fn worth(self, now: Moment) -> (u8, u32) {
        match self.expires > now.0 {
            false => (0, 0),
            true if self.passes > 0 => (1, self.passes),
            true => (2, self.written.max(self.confirmed)),
        }
    }
}

/// What a request is told without the store, and whether the store must learn of it later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alone {
    /// Never [`Sighting::PassedNow`]: whether it is the first time on the whole farm cannot be known.
    pub sighting: Sighting,
    /// To be written down.
    pub record: bool,
}

/// The table.
#[derive(Debug)]
pub struct Cache {
    hasher: RandomState,
    started: Instant,
    shards: Vec<Mutex<Vec<Entry>>>,
}

impl Default for Cache {
    fn default() -> Self {
        let shard = || Mutex::new(vec![Entry::default(); GROUPS * WAYS]);
        Self {
            hasher: RandomState::new(),
            started: Instant::now(),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }
}

impl Cache {
    /// The key of a triplet.
    pub fn key(&self, triplet: &Triplet, times: Times) -> Key {
        Key(self.hasher.hash_one((triplet, times.delay, times.keep_passed)))
    }

    /// This moment.
    pub fn now(&self) -> Moment {
        let ticks = self.started.elapsed().as_millis() / u128::from(TICK) + 1;
        Moment(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    /// Whether the store has said lately that the triplet has passed.
    pub fn has_passed(&self, key: Key, now: Moment) -> bool {
        let latest = u32::try_from(CONFIRMED.as_millis() as u64 / TICK).unwrap_or(u32::MAX);
        self.with_group(key, |group| {
            group.iter().any(|entry| {
                entry.hash == key.0
                    && entry.passes == 0
                    && entry.expires > now.0
                    && entry.confirmed > 0
                    && now.0.saturating_sub(entry.confirmed) < latest
            })
        })
    }

    /// Keeps what the store has said; `keeps` is the time in milliseconds until the store forgets the triplet.
    pub fn learn(&self, key: Key, sighting: Sighting, keeps: i64, times: Times, now: Moment) {
        let expires = now.until(keeps);
        let entry = match sighting {
            Sighting::New { left } | Sighting::Early { left } => {
                Entry { hash: key.0, expires, passes: now.after(left), confirmed: 0, written: now.0 }
            }
            Sighting::PassedNow { .. } | Sighting::Passed => {
                let since = ticks(times.keep_passed.saturating_sub(keeps));
                Entry { hash: key.0, expires, passes: 0, confirmed: now.0, written: now.0.saturating_sub(since) }
            }
        };
        self.with_group(key, |group| *place(group, key, now) = entry);
    }

    /// Decides without the store.
    pub fn decide(&self, key: Key, times: Times, now: Moment) -> Alone {
        self.with_group(key, |group| {
            let entry = place(group, key, now);
            if entry.hash != key.0 || entry.expires <= now.0 {
                *entry = waiting(key, times, now);
                return Alone { sighting: Sighting::New { left: times.delay }, record: true };
            }
            if entry.passes > now.0 {
                let left = milliseconds(entry.passes - now.0).min(times.delay);
                return Alone { sighting: Sighting::Early { left }, record: true };
            }
            // The first pass is written down, and afterwards as rarely as the store writes it itself.
            let record = entry.passes > 0 || now.0.saturating_sub(entry.written) >= ticks(times.refresh());
            if record {
                let expires = now.until(times.keep_passed);
                *entry = Entry { passes: 0, expires, written: now.0, ..*entry };
            }
            Alone { sighting: Sighting::Passed, record }
        })
    }

    /// Takes in what was written down before a restart: seen `ago` milliseconds ago, for the first or another time.
    pub fn recall(&self, key: Key, passed: bool, ago: i64, times: Times, now: Moment) {
        let then = Moment(now.0.saturating_sub(ticks(ago)).max(1));
        self.with_group(key, |group| {
            let entry = place(group, key, now);
            let known = entry.hash == key.0 && entry.expires > now.0;
            if passed {
                let expires = then.until(times.keep_passed);
                *entry = Entry { hash: key.0, expires, passes: 0, confirmed: 0, written: then.0 };
            } else if !known {
                let left = times.delay.saturating_sub(ago);
                *entry = Entry { passes: now.after(left), ..waiting(key, times, then) };
            }
        });
    }

    fn with_group<T>(&self, key: Key, work: impl FnOnce(&mut [Entry]) -> T) -> T {
        let shard = (key.0 % SHARDS as u64) as usize;
        let group = (key.0 / SHARDS as u64 % GROUPS as u64) as usize * WAYS;
        // A panic of another thread leaves nothing half done here.
        let mut entries = self.shards[shard].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        work(&mut entries[group..group + WAYS])
    }
}

fn waiting(key: Key, times: Times, now: Moment) -> Entry {
    let (expires, passes) = (now.until(times.retry_window), now.after(times.delay));
    Entry { hash: key.0, expires, passes, confirmed: 0, written: now.0 }
}

/// The entry of this key, or else the one that is worth least.
fn place(group: &mut [Entry], key: Key, now: Moment) -> &mut Entry {
    let own = group.iter().position(|entry| entry.hash == key.0);
    let at = own.or_else(|| (0..group.len()).min_by_key(|at| group[*at].worth(now)));
    &mut group[at.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const TIMES: Times = Times { delay: 4 * MINUTE, retry_window: 60 * MINUTE, keep_passed: 3000 * MINUTE };

    fn triplet(number: u32) -> Triplet {
        Triplet::new([192, 0, 2, 1].into(), &format!("s{number}@example.net"), "r@example.org", 24, 64)
    }

    /// A moment so many milliseconds after some start.
    fn at(milliseconds: i64) -> Moment {
        Moment(1 + ticks(milliseconds))
    }

    #[test]
    fn a_passed_triplet_is_known_for_a_minute() {
        let cache = Cache::default();
        let key = cache.key(&triplet(1), TIMES);
        assert!(!cache.has_passed(key, at(0)));
        cache.learn(key, Sighting::New { left: 4 * MINUTE }, 60 * MINUTE, TIMES, at(0));
        assert!(!cache.has_passed(key, at(0)), "it waits");
        cache.learn(key, Sighting::PassedNow { waited: 1 }, TIMES.keep_passed, TIMES, at(5 * MINUTE));
        assert!(cache.has_passed(key, at(6 * MINUTE - 1000)));
        assert!(!cache.has_passed(key, at(6 * MINUTE)), "the store is asked again");
        assert!(!cache.has_passed(cache.key(&triplet(2), TIMES), at(5 * MINUTE)));
    }

    #[test]
    fn nothing_is_known_longer_than_the_store_keeps_it_or_under_other_times() {
        let cache = Cache::default();
        let key = cache.key(&triplet(1), TIMES);
        cache.learn(key, Sighting::Passed, 10_000, TIMES, at(0));
        assert!(cache.has_passed(key, at(9_000)));
        assert!(!cache.has_passed(key, at(10_000)));
        let other = Times { delay: TIMES.delay + 1, ..TIMES };
        assert!(!cache.has_passed(cache.key(&triplet(1), other), at(1)));
    }

    #[test]
    fn alone_a_triplet_waits_and_passes() {
        let cache = Cache::default();
        let key = cache.key(&triplet(1), TIMES);
        let decide = |time| cache.decide(key, TIMES, at(time));
        let written = |sighting| Alone { sighting, record: true };
        assert_eq!(decide(0), written(Sighting::New { left: 4 * MINUTE }));
        assert_eq!(decide(MINUTE), written(Sighting::Early { left: 3 * MINUTE + 100 }));
        assert!(matches!(decide(4 * MINUTE).sighting, Sighting::Early { .. }), "a moment is rounded down");
        assert_eq!(decide(4 * MINUTE + 100), written(Sighting::Passed), "the pass is written down");
        assert_eq!(decide(5 * MINUTE), Alone { sighting: Sighting::Passed, record: false });
        assert_eq!(decide(64 * MINUTE + 100), written(Sighting::Passed), "once an hour");
        assert!(!cache.has_passed(key, at(64 * MINUTE)), "the store has not said so");
        assert_eq!(decide(64 * MINUTE + 100 + TIMES.keep_passed), written(Sighting::New { left: 4 * MINUTE }));
    }

    #[test]
    fn alone_it_goes_on_from_what_the_store_said() {
        let cache = Cache::default();
        let (one, two) = (cache.key(&triplet(1), TIMES), cache.key(&triplet(2), TIMES));
        cache.learn(one, Sighting::Early { left: MINUTE }, 50 * MINUTE, TIMES, at(0));
        assert_eq!(cache.decide(one, TIMES, at(30_000)).sighting, Sighting::Early { left: 30_100 });
        assert_eq!(cache.decide(one, TIMES, at(MINUTE + 100)).sighting, Sighting::Passed);
        cache.learn(two, Sighting::Passed, TIMES.keep_passed, TIMES, at(0));
        assert_eq!(cache.decide(two, TIMES, at(50 * MINUTE)), Alone { sighting: Sighting::Passed, record: false });
    }

    #[test]
    fn a_restart_recalls_what_was_written_down() {
        let cache = Cache::default();
        let (one, two) = (cache.key(&triplet(1), TIMES), cache.key(&triplet(2), TIMES));
        cache.recall(one, false, 3 * MINUTE, TIMES, at(0));
        cache.recall(two, true, 3 * MINUTE, TIMES, at(0));
        assert_eq!(cache.decide(one, TIMES, at(0)).sighting, Sighting::Early { left: MINUTE + 100 });
        assert_eq!(cache.decide(two, TIMES, at(0)), Alone { sighting: Sighting::Passed, record: false });
    }

    #[test]
    fn a_flood_of_new_triplets_pushes_out_none_that_have_passed() {
        let cache = Cache::default();
        let known: Vec<Key> = (0..1000).map(|number| cache.key(&triplet(number), TIMES)).collect();
        for key in &known {
            cache.learn(*key, Sighting::Passed, TIMES.keep_passed, TIMES, at(0));
        }
        for number in 0..500_000 {
            cache.decide(cache.key(&triplet(1000 + number), TIMES), TIMES, at(1000));
        }
        assert!(known.iter().all(|key| cache.has_passed(*key, at(1000))));
        assert_eq!(cache.shards.len() * GROUPS * WAYS * size_of::<Entry>(), 6 << 20);
    }
}
