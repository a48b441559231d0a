// SPDX-License-Identifier: GPL-3.0-or-later
//! Limits of this host while the store is away: the same rules on buckets in memory, each with its share of the limit, so that
//! all hosts together still keep it. They start empty, or from what an earlier process has written down, and are forgotten when the store is
//! back, to which the charges are handed over.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use super::handover::Charged;
use super::plan::Order;
use super::rate::UNIT;
use super::settle::{Batch, Bucket, InForce, Ledger, Level, Settled, settle};

/// Buckets and parts remembered per generation.
const GENERATION: usize = 32_768;

#[derive(Debug, Default)]
struct Memory {
    levels: [HashMap<String, Level>; 2],
    /// Parts that were charged, and until when a repetition is known.
    charged: [HashMap<i64, i64>; 2],
}

/// The limits of one host.
#[derive(Debug, Default)]
pub struct Alone(Mutex<Memory>);

/// What a request is told, with what holds in each of its buckets.
#[derive(Debug)]
pub struct Decided {
    /// The answer.
    pub settled: Settled,
    /// The buckets.
    pub batch: Batch,
    /// Their levels, and what holds in them here.
    pub ledger: Ledger,
}

impl Alone {
    /// Decides at a moment (milliseconds since 1970), for one of so many hosts.
    pub fn decide(&self, order: &Order, hosts: u32, now: i64) -> Decided {
        let batch = Batch::of(std::iter::once(order));
        let memory = &mut *self.memory();
        let share = |bucket: &Bucket| share(bucket, hosts);
        let level = |bucket: &Bucket| {
            let known = memory.levels.iter().find_map(|levels| levels.get(&bucket.name)).copied();
            known.unwrap_or_default().at(now, share(bucket).drain, bucket.since)
        };
        let charged =
            |id: &i64| memory.charged.iter().find_map(|charged| charged.get(id)).is_some_and(|until| *until > now);
        let mut ledger = Ledger {
            levels: batch.buckets.iter().map(level).collect(),
            in_force: batch.buckets.iter().map(share).collect(),
            fresh: batch.parts.iter().map(|part| !charged(&part.id)).collect(),
            changed: Vec::new(),
        };
        let settled = settle(&batch, &mut ledger)[0];
        for (at, bucket) in batch.buckets.iter().enumerate().filter(|(at, _)| ledger.changed[*at]) {
            put(&mut memory.levels, bucket.name.clone(), ledger.levels[at]);
        }
        for part in batch.parts.iter().filter(|_| settled == Settled::Charged) {
            put(&mut memory.charged, part.id, now.saturating_add(part.keep));
        }
        Decided { settled, batch, ledger }
    }

    /// Takes in what an earlier process has charged, `ago` milliseconds before now; in the order in which it did.
    pub fn recall(&self, charged: &Charged, ago: i64, hosts: u32, now: i64) {
        let (memory, at) = (&mut *self.memory(), now.saturating_sub(ago));
        for part in &charged.parts {
            for charge in &part.charges {
                let (bucket, drain) = (&charge.bucket, share(&charge.bucket, hosts).drain);
                let known = memory.levels.iter().find_map(|levels| levels.get(&bucket.name)).copied();
                let mut level = known.unwrap_or_default().at(at, drain, bucket.since);
                level.level = level.level.saturating_add(charge.units);
                put(&mut memory.levels, bucket.name.clone(), level);
            }
            if let Some(id) = part.id {
                put(&mut memory.charged, id, at.saturating_add(part.keep));
            }
        }
    }

    /// Forgets everything: the store decides again.
    pub fn clear(&self) {
        *self.memory() = Memory::default();
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic of another thread leaves nothing half done here.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What one of so many hosts may let through.
fn share(bucket: &Bucket, hosts: u32) -> InForce {
    InForce {
        // A share of less than one unit would be no mail at all.
        capacity: (bucket.capacity / i64::from(hosts.max(1))).max(bucket.capacity.min(UNIT)),
        drain: bucket.drain / f64::from(hosts.max(1)),
    }
}

fn put<K: std::hash::Hash + Eq, V>(generations: &mut [HashMap<K, V>; 2], key: K, value: V) {
    let [young, old] = generations;
    if young.len() >= GENERATION {
        std::mem::swap(young, old);
        young.clear();
    }
    old.remove(&key);
    young.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::plan::{Charge, PartOf};

    fn order(id: i64) -> Order {
        let bucket = Bucket { name: "a".into(), capacity: 10 * UNIT, drain: 0.01 * UNIT as f64, since: 0, keep: 1 };
        let charge = Charge { bucket, need: UNIT, units: UNIT, limit: 0, rate: 0, window_end: 0 };
        Order { parts: vec![PartOf { id: Some(id), keep: 1000, charges: vec![charge] }] }
    }

    #[test]
    fn each_host_has_its_share() {
        let alone = Alone::default();
        let admitted = |from: i64, now| {
            (from..from + 20).filter(|id| alone.decide(&order(*id), 4, now).settled == Settled::Charged).count()
        };
        assert_eq!(admitted(0, 0), 2, "a quarter of ten");
        assert_eq!(admitted(100, 400), 1, "a quarter of the rate: one in 400 ms");
        assert_eq!(alone.decide(&order(0), 4, 500).settled, Settled::Repeated);
        let again = Alone::default();
        again.recall(&Charged::of(&order(0), 0).unwrap(), 500, 4, 500);
        again.recall(&Charged::of(&order(1), 500).unwrap(), 0, 4, 500);
        assert_eq!(again.decide(&order(0), 4, 500).settled, Settled::Repeated, "an earlier process charged it");
        assert_eq!(again.decide(&order(2), 4, 500).settled, Settled::Charged, "one has run out");
        assert!(matches!(again.decide(&order(3), 4, 500).settled, Settled::Refused(_)));
        alone.clear();
        assert_eq!(alone.decide(&order(0), 100, 500).settled, Settled::Charged, "never less than one");
    }
}
