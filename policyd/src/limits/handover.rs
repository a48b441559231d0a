// SPDX-License-Identifier: GPL-3.0-or-later
//! Charges that a host has made by itself while the store was away, as they are handed over to it: so that a quota of the day is not given twice.
//!
//! Pure. What has run out of a bucket since, or belongs to a window that has ended, is not charged any more; of a bucket the oldest units
//! run out first. The rest is charged whatever the level, up to the brim. Charges keep the ids by which a repetition is known, so that
//! handing over may be broken off and repeated.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::plan::{Charge, Order, PartOf};
use super::settle::{Bucket, Level};

/// Buckets of which is known what has run out of them; the charges of others are handed over whole.
const MOST_BUCKETS: usize = 100_000;
/// For how long it is at least known that a charge was handed over, in milliseconds: longer than an outage that breaks it off.
const KNOWN: i64 = 86_400_000;

/// What one request was charged without the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Charged {
    /// When, in milliseconds since 1970 by the clock of this host.
    pub at: i64,
    /// Its charges; those that make nothing fuller are left out.
    pub parts: Vec<PartOf>,
}

impl Charged {
    /// What of an order has made buckets fuller; none when nothing has.
    pub fn of(order: &Order, at: i64) -> Option<Self> {
        let part = |part: &PartOf| {
            let charge = |charge: &Charge| Charge { need: 0, limit: 0, rate: 0, ..charge.clone() };
            let charges: Vec<Charge> = part.charges.iter().filter(|charge| charge.units > 0).map(charge).collect();
            (part.id.is_some() && !charges.is_empty()).then_some(PartOf { charges, ..*part })
        };
        let parts: Vec<PartOf> = order.parts.iter().filter_map(part).collect();
        (!parts.is_empty()).then_some(Self { at, parts })
    }

    /// All charges.
    pub fn charges(&self) -> impl Iterator<Item = &Charge> {
        self.parts.iter().flat_map(|part| &part.charges)
    }
}

/// One bucket over the time without the store.
#[derive(Debug, Clone, Copy, Default)]
struct Bath {
    level: Level,
    drain: f64,
    charged: i64,
}

/// Adds up what was charged and what has run out meanwhile.
#[derive(Debug, Default)]
pub struct Baths {
    hasher: RandomState,
    known: HashMap<u64, Bath>,
}

impl Baths {
    /// Takes in charges; in the order in which they were made.
    pub fn add(&mut self, charged: &Charged) {
        for charge in charged.charges().filter(|charge| charge.bucket.drain > 0.0) {
            let hash = self.hasher.hash_one(&charge.bucket.name);
            if self.known.len() >= MOST_BUCKETS && !self.known.contains_key(&hash) {
                continue;
            }
            let bath = self.known.entry(hash).or_default();
            bath.level = bath.level.at(charged.at, charge.bucket.drain, 0);
            bath.level.level = bath.level.level.saturating_add(charge.units);
            bath.drain = charge.bucket.drain;
            bath.charged = bath.charged.saturating_add(charge.units);
        }
    }

    /// What is to be handed over at a moment, by the same clock.
    pub fn at(self, now: i64) -> Rest {
        let gone = |bath: Bath| bath.charged.saturating_sub(bath.level.at(now, bath.drain, 0).level);
        Rest { hasher: self.hasher, gone: self.known.into_iter().map(|(hash, bath)| (hash, gone(bath))).collect() }
    }
}

/// What is left of charges, and how many are not of interest any more.
#[derive(Debug, Default)]
pub struct Rest {
    hasher: RandomState,
    /// Units that have run out of each bucket, and have not been taken off a charge yet.
    gone: HashMap<u64, i64>,
}

impl Rest {
    /// The order by which charges are handed over, in the order in which they were made, and the number of those whose window has ended.
    /// `now` by the clock of the store.
    pub fn order(&mut self, charged: Charged, now: i64) -> (Order, u64) {
        let (mut order, mut ended) = (Order::default(), 0);
        for part in charged.parts {
            let before = part.charges.len();
            let open = |charge: &Charge| charge.window_end == 0 || charge.window_end > now;
            let charges: Vec<Charge> = part.charges.into_iter().filter(open).collect();
            ended += (before - charges.len()) as u64;
            let charges: Vec<Charge> = charges.into_iter().filter_map(|charge| self.left_of(charge)).collect();
            if !charges.is_empty() {
                order.parts.push(PartOf { id: part.id, keep: part.keep.max(KNOWN), charges });
            }
        }
        (order, ended)
    }

    fn left_of(&mut self, charge: Charge) -> Option<Charge> {
        let gone = self.gone.get_mut(&self.hasher.hash_one(&charge.bucket.name));
        let Some(gone) = gone.filter(|_| charge.bucket.drain > 0.0) else { return Some(charge) };
        let taken = charge.units.min(*gone);
        *gone -= taken;
        (taken < charge.units).then(|| Charge { units: charge.units - taken, ..charge })
    }
}

/// Writes and reads charges; all integers little-endian, texts with their length before them.
impl Charged {
    /// As bytes; none when there is more than `most` of them.
    pub fn encode(&self, most: usize) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&u16::try_from(self.parts.len()).ok()?.to_le_bytes());
        for part in &self.parts {
            let numbers = [part.id.unwrap_or_default(), part.keep];
            numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
            out.extend_from_slice(&u16::try_from(part.charges.len()).ok()?.to_le_bytes());
            for charge in &part.charges {
                let Bucket { name, capacity, drain, since, keep } = &charge.bucket;
                out.extend_from_slice(&u16::try_from(name.len()).ok()?.to_le_bytes());
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(&drain.to_bits().to_le_bytes());
                for number in [*capacity, *since, *keep, charge.units, charge.window_end] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        (out.len() <= most).then_some(out)
    }

    /// The charges in these bytes; none when they are something else.
    pub fn decode(mut rest: &[u8]) -> Option<Self> {
        let at = number(&mut rest)?;
        let parts = (0..short(&mut rest)?).map(|_| part(&mut rest)).collect::<Option<_>>()?;
        rest.is_empty().then_some(Self { at, parts })
    }
}

fn part(rest: &mut &[u8]) -> Option<PartOf> {
    let (id, keep) = (number(rest)?, number(rest)?);
    let charges = (0..short(rest)?).map(|_| charge(rest)).collect::<Option<_>>()?;
    Some(PartOf { id: Some(id), keep, charges })
}

fn charge(rest: &mut &[u8]) -> Option<Charge> {
    let length = usize::from(short(rest)?);
    let (name, left) = rest.split_at_checked(length)?;
    *rest = left;
    let name = String::from_utf8(name.to_vec()).ok()?;
    let drain = f64::from_bits(u64::from_le_bytes(take(rest)?));
    let [capacity, since, keep, units, window_end] =
        [number(rest)?, number(rest)?, number(rest)?, number(rest)?, number(rest)?];
    // Nobody else writes the file; a damaged one shall not empty a bucket or break the arithmetic.
    let sound = drain.is_finite() && drain >= 0.0 && units > 0 && capacity >= 0;
    let bucket = Bucket { name, capacity, drain, since, keep };
    sound.then_some(Charge { bucket, need: 0, units, limit: 0, rate: 0, window_end })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

fn number(rest: &mut &[u8]) -> Option<i64> {
    take(rest).map(i64::from_le_bytes)
}

fn short(rest: &mut &[u8]) -> Option<u16> {
    take(rest).map(u16::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::rate::UNIT;
    use proptest::prelude::*;

    /// In which one unit runs out; divides evenly.
    const RUN: i64 = 4_000_000;

    /// One unit of a bucket that holds 10, of which one runs out in a [`RUN`], or whose window ends at `window_end`.
    fn charged(name: &str, id: i64, at: i64, window_end: i64) -> Charged {
        let drain = if window_end == 0 { UNIT as f64 / RUN as f64 } else { 0.0 };
        let bucket = Bucket { name: name.to_owned(), capacity: 10 * UNIT, drain, since: 0, keep: RUN };
        let charge = Charge { bucket, need: 0, units: UNIT, limit: 0, rate: 0, window_end };
        Charged { at, parts: vec![PartOf { id: Some(id), keep: 1000, charges: vec![charge] }] }
    }

    /// Units handed over by id, and how many windows had ended.
    fn handed_over(all: &[Charged], now: i64) -> (Vec<(i64, i64)>, u64) {
        let mut baths = Baths::default();
        all.iter().for_each(|charged| baths.add(charged));
        let (mut rest, mut units, mut ended) = (baths.at(now), Vec::new(), 0);
        for charged in all {
            let (order, gone) = rest.order(charged.clone(), now);
            ended += gone;
            for part in order.parts {
                assert!(part.keep >= KNOWN && part.charges.iter().all(|charge| charge.need == 0));
                units.extend(part.charges.iter().map(|charge| (part.id.unwrap(), charge.units)));
            }
        }
        (units, ended)
    }

    #[test]
    fn of_a_sliding_bucket_the_oldest_have_run_out() {
        let all: Vec<Charged> = (0..4).map(|id| charged("a", id, 0, 0)).collect();
        assert_eq!(handed_over(&all, 0).0.len(), 4);
        let left = handed_over(&all, RUN + RUN / 2);
        assert_eq!(left, (vec![(1, UNIT / 2), (2, UNIT), (3, UNIT)], 0));
        assert_eq!(handed_over(&all, 5 * RUN).0, []);
        // What was empty meanwhile does not run out further.
        let late = [charged("a", 0, 0, 0), charged("a", 1, 10 * RUN, 0), charged("b", 2, 10 * RUN, 0)];
        assert_eq!(handed_over(&late, 10 * RUN).0, [(1, UNIT), (2, UNIT)]);
    }

    #[test]
    fn of_a_window_all_is_charged_until_it_ends() {
        let all = [charged("a", 0, 0, 2 * RUN), charged("a", 1, RUN, 2 * RUN), charged("b", 2, RUN, 9 * RUN)];
        assert_eq!(handed_over(&all, 2 * RUN - 1), (vec![(0, UNIT), (1, UNIT), (2, UNIT)], 0));
        assert_eq!(handed_over(&all, 2 * RUN), (vec![(2, UNIT)], 2));
    }

    #[test]
    fn what_makes_nothing_fuller_is_left_out() {
        let mut order = Order { parts: charged("a", 7, 0, 0).parts };
        order.parts[0].charges[0].need = UNIT;
        let mut idle = order.parts[0].clone();
        (idle.id, idle.charges[0].units) = (None, 0);
        assert_eq!(Charged::of(&Order { parts: vec![idle.clone()] }, 5), None);
        order.parts.push(idle);
        assert_eq!(Charged::of(&order, 5), Some(charged("a", 7, 5, 0)));
    }

    proptest! {
        #[test]
        fn any_charge_comes_back(name in "\\PC{0,60}", id: i64, at: i64, end in 0i64..9) {
            let one = charged(&name, id, at, end);
            prop_assert_eq!(Charged::decode(&one.encode(1 << 16).unwrap()), Some(one));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = Baths::default().at(0);
            if let Some(charged) = Charged::decode(&bytes) {
                rest.order(charged, 0);
            }
        }
    }
}
