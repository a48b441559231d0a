// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether there is room for a lot of requests, each charged wholly or not at all, in the order in which they come.
//!
//! The function `limit_charge` of the PostgreSQL schema does the same under row locks; a test holds the two together. Levels are in
//! millionths of a unit, times in milliseconds. No level ever passes its capacity by a charge that needs room.

use std::collections::BTreeMap;

use super::plan::Order;
use super::rate::UNIT;

/// A capacity that nothing fills.
pub const UNLIMITED: i64 = 8_000_000_000_000_000_000;

/// One bucket as the configuration has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// Limit, period and key: `user 1h joe@example.org`.
    pub name: String,
    /// What it holds.
    pub capacity: i64,
    /// What runs out of it in a millisecond; 0 in a calendar window.
    pub drain: f64,
    /// When its calendar window began; 0 without one.
    pub since: i64,
    /// For how long it is of interest.
    pub keep: i64,
}

/// What makes several requests one charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Digest of the facts that do: instance, recipient ...
    pub id: i64,
    /// For how long a repetition is known.
    pub keep: i64,
}

/// One request on one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Index of the part that must not have been charged yet; none: it always counts.
    pub part: Option<usize>,
    /// Index of the bucket.
    pub bucket: usize,
    /// Room that must be there; 0: charged in any case, up to the brim.
    pub need: i64,
    /// What is charged.
    pub units: i64,
}

/// Requests that are settled together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// By name, each once.
    pub buckets: Vec<Bucket>,
    /// By id, each once.
    pub parts: Vec<Part>,
    /// Of all requests, one after the other.
    pub entries: Vec<Entry>,
    /// Where the entries of each request begin, and at the end their number.
    pub firsts: Vec<usize>,
}

impl Batch {
    /// Puts orders together. A bucket that two of them describe differently, around a reload, is as the last says.
    pub fn of<'a>(orders: impl Iterator<Item = &'a Order> + Clone) -> Self {
        let (mut buckets, mut parts) = (BTreeMap::new(), BTreeMap::new());
        for part in orders.clone().flat_map(|order| &order.parts) {
            if let Some(id) = part.id {
                parts.insert(id, (0, part.keep));
            }
            for charge in &part.charges {
                buckets.insert(charge.bucket.name.as_str(), (0, &charge.bucket));
            }
        }
        for (number, (index, _)) in buckets.values_mut().enumerate() {
            *index = number;
        }
        for (number, (index, _)) in parts.values_mut().enumerate() {
            *index = number;
        }
        let (mut entries, mut firsts) = (Vec::new(), vec![0]);
        for order in orders {
            for part in &order.parts {
                entries.extend(part.charges.iter().map(|charge| Entry {
                    part: part.id.map(|id| parts[&id].0),
                    bucket: buckets[charge.bucket.name.as_str()].0,
                    need: charge.need,
                    units: charge.units,
                }));
            }
            firsts.push(entries.len());
        }
        Self {
            buckets: buckets.into_values().map(|(_, bucket)| bucket.clone()).collect(),
            parts: parts.into_iter().map(|(id, (_, keep))| Part { id, keep }).collect(),
            entries,
            firsts,
        }
    }

    /// The entries of one request.
    pub fn entries_of(&self, request: usize) -> &[Entry] {
        &self.entries[self.firsts[request]..self.firsts[request + 1]]
    }
}

/// How full a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level {
    /// Millionths of a unit.
    pub level: i64,
    /// When that was right; of a calendar window, its beginning.
    pub at: i64,
}

impl Level {
    /// The level now, of a bucket whose window began at `since`, or out of which `drain` runs in a millisecond.
    pub fn at(self, now: i64, drain: f64, since: i64) -> Self {
        if drain == 0.0 {
            return if self.at < since { Self { level: 0, at: since } } else { self };
        }
        if self.at >= now {
            return self;
        }
        let drained = ((now - self.at) as f64 * drain).floor();
        // Not more than `level`, so within 63 bits.
        let level = if drained >= self.level as f64 { 0 } else { self.level - drained as i64 };
        Self { level, at: now }
    }
}

/// What a request is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// There was room, and it was charged.
    Charged,
    /// All that it would be charged was charged before.
    Repeated,
    /// No room in the bucket of this index.
    Refused(usize),
}

/// What holds instead of the configuration, for the bucket of the same index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InForce {
    /// What it holds.
    pub capacity: i64,
    /// What runs out of it in a millisecond.
    pub drain: f64,
}

/// What an administrator has set for one bucket. Times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Override {
    /// Units per `period`, instead of the rate.
    pub number: Option<i64>,
    /// Milliseconds.
    pub period: Option<i64>,
    /// Units at once; without it `number`.
    pub burst: Option<i64>,
    /// No limit at all.
    pub unlimited: bool,
    /// End of all these; none: it stays.
    pub until: Option<i64>,
    /// Units on top.
    pub extra: i64,
    /// End of those.
    pub extra_until: Option<i64>,
}

impl Override {
    /// What holds at a moment.
    pub fn applied(&self, bucket: &Bucket, now: i64) -> InForce {
        let mut force = InForce { capacity: bucket.capacity, drain: bucket.drain };
        if self.until.is_none_or(|until| until > now) {
            if self.unlimited {
                force.capacity = UNLIMITED;
            } else if let Some(number) = self.number {
                force.capacity = self.burst.unwrap_or(number).saturating_mul(UNIT);
                if force.drain > 0.0 {
                    force.drain = number as f64 * UNIT as f64 / self.period.unwrap_or(1).max(1) as f64;
                }
            }
        }
        if self.extra_until.is_some_and(|until| until > now) && force.capacity < UNLIMITED {
            force.capacity = force.capacity.saturating_add(self.extra.saturating_mul(UNIT));
        }
        force
    }
}

/// What was known before, and after [`settle`] what is known then.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Per bucket, brought to now.
    pub levels: Vec<Level>,
    /// Per bucket.
    pub in_force: Vec<InForce>,
    /// Per part: not charged yet.
    pub fresh: Vec<bool>,
    /// Per bucket: charged by [`settle`].
    pub changed: Vec<bool>,
}

/// Charges all requests for which there is room. Gives what each is told.
pub fn settle(batch: &Batch, ledger: &mut Ledger) -> Vec<Settled> {
    ledger.changed = vec![false; batch.buckets.len()];
    (0..batch.firsts.len().saturating_sub(1)).map(|request| settle_one(batch.entries_of(request), ledger)).collect()
}

fn settle_one(entries: &[Entry], ledger: &mut Ledger) -> Settled {
    let fresh = |ledger: &Ledger, entry: &&Entry| entry.part.is_none_or(|part| ledger.fresh[part]);
    let mut settled = Settled::Repeated;
    for entry in entries.iter().filter(|entry| fresh(ledger, entry)) {
        let (level, capacity) = (ledger.levels[entry.bucket].level, ledger.in_force[entry.bucket].capacity);
        if entry.need > 0 && level.saturating_add(entry.need) > capacity {
            return Settled::Refused(entry.bucket);
        }
        settled = Settled::Charged;
    }
    if settled == Settled::Repeated {
        return settled;
    }
    for entry in entries.iter().filter(|entry| entry.units > 0) {
        if !fresh(ledger, &entry) {
            continue;
        }
        let (level, capacity) = (&mut ledger.levels[entry.bucket].level, ledger.in_force[entry.bucket].capacity);
        let full = level.saturating_add(entry.units);
        *level = match entry.need {
            0 => full.min(capacity.saturating_add(entry.units).max(*level)),
            _ => full,
        };
        ledger.changed[entry.bucket] = true;
    }
    for part in entries.iter().filter_map(|entry| entry.part) {
        ledger.fresh[part] = false;
    }
    settled
}

/// Milliseconds until a bucket has room for `need`; none when it never will.
pub fn wait(level: i64, need: i64, force: InForce, window_end: i64, now: i64) -> Option<i64> {
    let over = level.saturating_add(need).saturating_sub(force.capacity);
    match force.drain {
        _ if need > force.capacity => None,
        _ if over <= 0 => Some(0),
        0.0 => Some((window_end - now).max(1)),
        drain => Some((over as f64 / drain).ceil().max(1.0) as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(capacity: i64, drain: f64) -> Bucket {
        Bucket { name: String::new(), capacity, drain, since: 0, keep: 1000 }
    }

    /// Part, bucket, need, units.
    type Short = (Option<usize>, usize, i64, i64);

    fn batch(buckets: Vec<Bucket>, parts: usize, requests: &[&[Short]]) -> Batch {
        let mut batch = Batch { buckets, firsts: vec![0], ..Batch::default() };
        batch.parts = (0..parts as i64).map(|id| Part { id, keep: 1 }).collect();
        for request in requests {
            let entry = |(part, bucket, need, units): &Short| Entry {
                part: *part,
                bucket: *bucket,
                need: *need,
                units: *units,
            };
            batch.entries.extend(request.iter().map(entry));
            batch.firsts.push(batch.entries.len());
        }
        batch
    }

    fn ledger(batch: &Batch) -> Ledger {
        let force = |bucket: &Bucket| InForce { capacity: bucket.capacity, drain: bucket.drain };
        Ledger {
            levels: vec![Level::default(); batch.buckets.len()],
            in_force: batch.buckets.iter().map(force).collect(),
            fresh: vec![true; batch.parts.len()],
            changed: Vec::new(),
        }
    }

    #[test]
    fn all_levels_are_charged_or_none() {
        // The user has room for three, the domain for two.
        let one = [(None, 0, 1, 1), (None, 1, 1, 1)];
        let batch = batch(vec![bucket(3, 1.0), bucket(2, 1.0)], 0, &[&one, &one, &one]);
        let mut ledger = ledger(&batch);
        assert_eq!(settle(&batch, &mut ledger), [Settled::Charged, Settled::Charged, Settled::Refused(1)]);
        assert_eq!(ledger.levels.iter().map(|level| level.level).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn a_repetition_in_the_same_lot_is_charged_once() {
        let one = [(Some(0), 0, 1, 1)];
        let batch = batch(vec![bucket(1, 1.0)], 1, &[&one, &one]);
        let mut ledger = ledger(&batch);
        assert_eq!(settle(&batch, &mut ledger), [Settled::Charged, Settled::Repeated]);
        assert_eq!(ledger.levels[0].level, 1);
    }

    #[test]
    fn what_is_refused_stays_fresh() {
        let batch = batch(vec![bucket(1, 1.0)], 1, &[&[(Some(0), 0, 2, 2)]]);
        let mut ledger = ledger(&batch);
        assert_eq!(settle(&batch, &mut ledger), [Settled::Refused(0)]);
        assert!(ledger.fresh[0] && !ledger.changed[0]);
    }

    #[test]
    fn forced_charges_stop_at_the_brim() {
        let forced = [(None, 0, 0, 2)];
        let batch = batch(vec![bucket(3, 1.0)], 0, &[&forced, &forced, &forced, &forced]);
        let mut ledger = ledger(&batch);
        settle(&batch, &mut ledger);
        assert_eq!(ledger.levels[0].level, 5, "one more than full shows that it was passed");
    }

    #[test]
    fn buckets_run_out() {
        let level = Level { level: 100, at: 1000 };
        assert_eq!(level.at(1010, 2.5, 0), Level { level: 75, at: 1010 });
        assert_eq!(level.at(9999, 2.5, 0), Level { level: 0, at: 9999 });
        assert_eq!(level.at(500, 2.5, 0), level, "a clock that goes back");
        assert_eq!(level.at(9999, 0.0, 1000), level, "the same window");
        assert_eq!(level.at(9999, 0.0, 5000), Level { level: 0, at: 5000 }, "a new window");
        assert_eq!(level.at(9999, 0.0, 500), level, "another host is still in the old one");
    }

    #[test]
    fn the_wait_is_known() {
        let force = InForce { capacity: 10, drain: 0.5 };
        assert_eq!(wait(10, 1, force, 0, 0), Some(2));
        assert_eq!(wait(9, 1, force, 0, 0), Some(0));
        assert_eq!(wait(0, 11, force, 0, 0), None);
        assert_eq!(wait(10, 1, InForce { drain: 0.0, ..force }, 900, 400), Some(500));
    }

    #[test]
    fn overrides_hold_until_their_end() {
        let bucket = bucket(10 * UNIT, 1.0);
        let set = Override { number: Some(7), period: Some(1000), until: Some(50), ..Override::default() };
        assert_eq!(set.applied(&bucket, 49), InForce { capacity: 7 * UNIT, drain: 7000.0 });
        assert_eq!(set.applied(&bucket, 50), InForce { capacity: 10 * UNIT, drain: 1.0 });
        let grant = Override { extra: 5, extra_until: Some(50), ..Override::default() };
        assert_eq!(grant.applied(&bucket, 49).capacity, 15 * UNIT);
        assert_eq!(grant.applied(&bucket, 50).capacity, 10 * UNIT);
        let free = Override { unlimited: true, extra: 5, extra_until: Some(50), ..Override::default() };
        assert_eq!(free.applied(&bucket, 0).capacity, UNLIMITED);
    }
}
