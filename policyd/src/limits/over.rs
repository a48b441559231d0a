// SPDX-License-Identifier: GPL-3.0-or-later
//! What this host remembers of answers, so that whoever hammers against a limit costs the store nothing: which buckets are over
//! their limit and until when, and which parts were charged a moment ago.
//!
//! Bounded: two generations of each, the older one forgotten when the younger is full. What is known of a full bucket is
//! confirmed from time to time by reading, so that a grant or a reset soon shows.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::plan::{Charge, Order};

/// Buckets and parts remembered per generation.
const GENERATION: usize = 16_384;
/// For how long an answer is taken as it is.
const TRUSTED: Duration = Duration::from_secs(2);

/// A bucket without room.
#[derive(Debug, Clone, Copy)]
struct Full {
    /// For so much there was no room.
    need: i64,
    until: Instant,
    seen: Instant,
}

/// What is remembered about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing that spares the question.
    Nothing,
    /// All of it has been charged.
    Charged,
    /// There is no room: index of the charge, and for how many milliseconds still.
    Over(usize, i64),
    /// There was no room, and probably still is none: reading will tell.
    Doubtful,
}

#[derive(Debug, Default)]
struct Memory {
    full: [HashMap<u64, Full>; 2],
    charged: [HashSet<i64>; 2],
}

/// The memory of one host.
#[derive(Debug, Default)]
pub struct Over {
    hasher: RandomState,
    memory: Mutex<Memory>,
}

impl Over {
    /// What is remembered about an order.
    pub fn ask(&self, order: &Order, now: Instant) -> Known {
        let memory = self.memory();
        let charged = |id: &i64| memory.charged.iter().any(|ids| ids.contains(id));
        if !order.is_empty() && order.parts.iter().all(|part| part.id.as_ref().is_some_and(charged)) {
            return Known::Charged;
        }
        if memory.full.iter().all(HashMap::is_empty) {
            return Known::Nothing;
        }
        let mut known = Known::Nothing;
        let mut number = 0;
        for part in &order.parts {
            let repeated = part.id.as_ref().is_some_and(charged);
            for charge in &part.charges {
                match self.full(&memory, charge, now).filter(|_| !repeated) {
                    Some(full) if now.duration_since(full.seen) < TRUSTED => {
                        let left = i64::try_from(full.until.duration_since(now).as_millis()).unwrap_or(i64::MAX);
                        return Known::Over(number, left.max(1));
                    }
                    Some(_) => known = Known::Doubtful,
                    None => {}
                }
                number += 1;
            }
        }
        known
    }

    fn full(&self, memory: &Memory, charge: &Charge, now: Instant) -> Option<Full> {
        let hash = self.hasher.hash_one(&charge.bucket.name);
        let full = memory.full.iter().find_map(|buckets| buckets.get(&hash))?;
        (charge.need >= full.need && full.until > now).then_some(*full)
    }

    /// The store had no room for this charge for so many milliseconds.
    pub fn learn_full(&self, charge: &Charge, wait: i64, now: Instant) {
        let wait = Duration::from_millis(u64::try_from(wait).unwrap_or_default());
        let until = now.checked_add(wait.min(Duration::from_secs(86_400))).unwrap_or(now);
        let hash = self.hasher.hash_one(&charge.bucket.name);
        let memory = &mut *self.memory();
        let [young, old] = &mut memory.full;
        if young.len() >= GENERATION {
            std::mem::swap(young, old);
            young.clear();
        }
        old.remove(&hash);
        young.insert(hash, Full { need: charge.need, until, seen: now });
    }

    /// The store charged all parts of this order, now or before.
    pub fn learn_charged(&self, order: &Order) {
        let memory = &mut *self.memory();
        let [young, old] = &mut memory.charged;
        for id in order.parts.iter().filter_map(|part| part.id) {
            if young.len() >= GENERATION {
                std::mem::swap(young, old);
                young.clear();
            }
            young.insert(id);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic of another thread leaves nothing half done here.
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::plan::PartOf;
    use crate::limits::settle::Bucket;

    fn order(bucket: &str, id: i64, need: i64) -> Order {
        let bucket = Bucket { name: bucket.to_owned(), capacity: 10, drain: 1.0, since: 0, keep: 1 };
        let charge = Charge { bucket, need, units: need, limit: 0, rate: 0, window_end: 0 };
        Order { parts: vec![PartOf { id: Some(id), keep: 1, charges: vec![charge] }] }
    }

    #[test]
    fn a_full_bucket_is_remembered_and_confirmed() {
        let (over, now) = (Over::default(), Instant::now());
        let one = order("a", 1, 5);
        assert_eq!(over.ask(&one, now), Known::Nothing);
        over.learn_full(&one.parts[0].charges[0], 60_000, now);
        assert_eq!(over.ask(&one, now), Known::Over(0, 60_000));
        assert_eq!(over.ask(&order("a", 2, 4), now), Known::Nothing, "a smaller one may fit");
        assert_eq!(over.ask(&order("b", 2, 5), now), Known::Nothing);
        assert_eq!(over.ask(&one, now + TRUSTED), Known::Doubtful);
        assert_eq!(over.ask(&one, now + Duration::from_secs(60)), Known::Nothing);
    }

    #[test]
    fn what_was_charged_passes_although_the_bucket_is_full() {
        let (over, now) = (Over::default(), Instant::now());
        let one = order("a", 1, 5);
        over.learn_charged(&one);
        over.learn_full(&one.parts[0].charges[0], 60_000, now);
        assert_eq!(over.ask(&one, now), Known::Charged);
        assert!(matches!(over.ask(&order("a", 2, 5), now), Known::Over(..)));
    }

    #[test]
    fn memory_is_bounded() {
        let (over, now) = (Over::default(), Instant::now());
        for number in 0..3 * GENERATION as i64 {
            let order = order(&number.to_string(), number, 1);
            over.learn_charged(&order);
            over.learn_full(&order.parts[0].charges[0], 1000, now);
        }
        let memory = over.memory();
        assert!(memory.full.iter().map(HashMap::len).sum::<usize>() <= 2 * GENERATION);
        assert!(memory.charged.iter().map(HashSet::len).sum::<usize>() <= 2 * GENERATION);
    }
}
