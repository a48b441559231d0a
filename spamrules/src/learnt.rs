// SPDX-License-Identifier: GPL-3.0-or-later
//! What a set of rules learns while it is in use: how often each rule hits and what it costs, for the order in which rules run, and which
//! rules cost too much again and again. Shared by all threads; nothing of it changes what a message scores, except rules switched off.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::plan::{Plan, Traits};

/// Messages between two new orders.
const RENEW: u64 = 256;
/// What a hit rate is worth beside excluding a rule, which is worth 1.
const HITTING: f64 = 4.0;

/// Seconds in which strikes halve, and after which a rule that is switched off is tried again.
const LAPSE: i64 = 3600;
/// The time until which a rule is off that is not.
const NEVER: i64 = i64::MIN;

/// What one rule has cost and found.
#[derive(Debug)]
struct Record {
    hits: AtomicU64,
    measured: AtomicU64,
    nanoseconds: AtomicU64,
    strikes: Mutex<Strikes>,
    off_until: AtomicI64,
}

/// How often a rule was set aside lately.
#[derive(Debug, Default)]
struct Strikes {
    count: u32,
    /// When they were last halved, or when the first came.
    since: i64,
}

impl Strikes {
    /// One more; how many there are then.
    fn add(&mut self, now: i64) -> u32 {
        let passed = now.saturating_sub(self.since);
        if self.count == 0 || passed < 0 {
            // A clock that was put back forgives nothing, and later it forgives in time.
            self.since = now;
        } else {
            let times = passed.div_euclid(LAPSE);
            self.count = u32::try_from(times).ok().and_then(|times| self.count.checked_shr(times)).unwrap_or(0);
            self.since = self.since.saturating_add(times.saturating_mul(LAPSE));
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

impl Default for Record {
    fn default() -> Record {
        let [hits, measured, nanoseconds] = [0; 3].map(AtomicU64::new);
        Record { hits, measured, nanoseconds, strikes: Mutex::default(), off_until: AtomicI64::new(NEVER) }
    }
}

/// In which order rules run one by one.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Those that are worth running, the best first.
    best: Vec<u32>,
    /// Per rule its place in `best`.
    rank: Vec<u32>,
    /// Those that read nothing but the header, the best first.
    pub(crate) headers: Vec<u32>,
}

/// What has been learnt about the rules of a set.
#[derive(Debug)]
pub(crate) struct Learnt {
    messages: AtomicU64,
    records: Vec<Record>,
    order: RwLock<Option<Arc<Order>>>,
    /// Whether a rule has ever been switched off.
    ever_off: AtomicBool,
    /// Messages that may set a rule aside before it is switched off; 0: it never is.
    strikes: u32,
}

impl Learnt {
    pub(crate) fn new(rules: usize, strikes: u32) -> Learnt {
        Learnt {
            messages: AtomicU64::new(0),
            records: (0..rules).map(|_| Record::default()).collect(),
            order: RwLock::new(None),
            ever_off: AtomicBool::new(false),
            strikes,
        }
    }

    /// Whether the costs of each rule are to be measured with the next message: one in so many, the first included.
    pub(crate) fn measures(&self, every: u32) -> bool {
        every > 0 && self.messages.load(Relaxed).is_multiple_of(u64::from(every))
    }

    /// Whether a rule is switched off. `now`: seconds since 1970.
    pub(crate) fn is_off(&self, rule: usize, now: i64) -> bool {
        self.ever_off.load(Relaxed)
            && self.records.get(rule).is_some_and(|record| {
                // Further ahead than ever set: the clock was put back.
                (1..=LAPSE).contains(&record.off_until.load(Relaxed).saturating_sub(now))
            })
    }

    /// The rules that are switched off.
    pub(crate) fn off(&self, now: i64) -> impl Iterator<Item = usize> + '_ {
        let rules = if self.ever_off.load(Relaxed) { self.records.len() } else { 0 };
        (0..rules).filter(move |&rule| self.is_off(rule, now))
    }

    /// Notes that a rule was set aside.
    pub(crate) fn strike(&self, rule: usize, now: i64) {
        let Some(record) = self.records.get(rule).filter(|_| self.strikes > 0) else { return };
        // A count that is half changed does no harm.
        let count = record.strikes.lock().unwrap_or_else(PoisonError::into_inner).add(now);
        if count >= self.strikes && !self.is_off(rule, now) {
            record.off_until.store(now.saturating_add(LAPSE), Relaxed);
            self.ever_off.store(true, Relaxed);
        }
    }

    /// Notes a hit.
    pub(crate) fn hit(&self, rule: usize) {
        if let Some(record) = self.records.get(rule) {
            record.hits.fetch_add(1, Relaxed);
        }
    }

    /// Notes what a rule has cost one message.
    pub(crate) fn cost(&self, rule: usize, cost: std::time::Duration) {
        if let Some(record) = self.records.get(rule)
            && !cost.is_zero()
        {
            record.measured.fetch_add(1, Relaxed);
            record.nanoseconds.fetch_add(u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX >> 20), Relaxed);
        }
    }

    /// Notes that a message is done.
    pub(crate) fn done(&self) {
        self.messages.fetch_add(1, Relaxed);
    }

    /// The order for the next message.
    pub(crate) fn order(&self, plan: &Plan) -> Arc<Order> {
        let stale = self.messages.load(Relaxed) % RENEW == RENEW - 1;
        if !stale && let Some(order) = self.order.read().ok().and_then(|order| order.clone()) {
            return order;
        }
        let made = Arc::new(Order::new(self.ordered(plan), plan));
        if let Ok(mut order) = self.order.write() {
            *order = Some(made.clone());
        }
        made
    }

    /// The rules that are worth running one by one, the best first.
    fn ordered(&self, plan: &Plan) -> Vec<u32> {
        let mut keyed: Vec<(f64, u32)> = (0u32..)
            .zip(&plan.worth)
            .zip(&plan.cost)
            .filter(|((_, worth), _)| **worth > 0.0)
            .map(|((id, worth), guess)| (self.gain(id, *worth, *guess), id))
            .collect();
        keyed.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        keyed.into_iter().map(|(_, id)| id).collect()
    }

    /// What running a rule is expected to give for its cost.
    fn gain(&self, id: u32, worth: f64, guess: f64) -> f64 {
        let Some(record) = usize::try_from(id).ok().and_then(|at| self.records.get(at)) else { return 0.0 };
        let [messages, hits, measured, nanoseconds] =
            [&self.messages, &record.hits, &record.measured, &record.nanoseconds]
                .map(|number| as_float(number.load(Relaxed)));
        let rate = if messages > 0.0 { hits / messages } else { 0.0 };
        let cost = if measured > 0.0 { nanoseconds / measured / 1000.0 } else { guess };
        worth * (1.0 + HITTING * rate) / cost.max(0.05)
    }
}

impl Order {
    fn new(best: Vec<u32>, plan: &Plan) -> Order {
        let mut rank = vec![u32::MAX; plan.worth.len()];
        for (number, &id) in (0u32..).zip(&best) {
            if let Some(slot) = usize::try_from(id).ok().and_then(|at| rank.get_mut(at)) {
                *slot = number;
            }
        }
        let headers = best.iter().copied().filter(|&id| plan.traits(id).has(Traits::HEADER)).collect();
        Order { best, rank, headers }
    }

    /// Brings rules into this order; those that are not worth running are left out.
    pub(crate) fn sort(&self, rules: impl Iterator<Item = u32>) -> Vec<u32> {
        let at = |place: u32| usize::try_from(place).unwrap_or(usize::MAX);
        let mut ranks: Vec<u32> = rules.filter_map(|id| self.rank.get(at(id)).copied()).collect();
        ranks.sort_unstable();
        ranks.into_iter().filter_map(|rank| self.best.get(at(rank)).copied()).collect()
    }
}

#[allow(clippy::cast_precision_loss)]
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_switch_off_for_an_hour() {
        let learnt = Learnt::new(2, 3);
        (0..2).for_each(|_| learnt.strike(1, 10));
        assert!(!learnt.is_off(1, 10) && learnt.off(10).next().is_none());
        learnt.strike(1, 20);
        assert!(learnt.is_off(1, 20) && !learnt.is_off(0, 20));
        assert_eq!(learnt.off(20).collect::<Vec<_>>(), [1]);
        // Messages that were under way when it was switched off do not make it longer.
        learnt.strike(1, 3000);
        assert!(learnt.is_off(1, 3619) && !learnt.is_off(1, 3620) && learnt.off(3620).next().is_none());
        // Half of its four strikes are left: one more is enough.
        learnt.strike(1, 3700);
        assert!(learnt.is_off(1, 3701) && !learnt.is_off(1, 3700 + LAPSE));
        let never = Learnt::new(1, 0);
        (0..9).for_each(|_| never.strike(0, 10));
        assert!(!never.is_off(0, 10));
    }

    #[test]
    fn strikes_lapse() {
        let learnt = Learnt::new(1, 4);
        for hour in 0..20 {
            (0..2).for_each(|_| learnt.strike(0, 1_000_000 + hour * LAPSE));
            assert!(!learnt.is_off(0, 1_000_000 + hour * LAPSE), "{hour}");
        }
        let mut strikes = Strikes { count: 99, since: 0 };
        assert_eq!(strikes.add(100 * LAPSE), 1);
        assert_eq!(strikes.add(-5), 2);
        assert_eq!(strikes.add(i64::MAX), 1);
    }

    #[test]
    fn a_clock_that_goes_wrong_switches_nothing_off_for_long() {
        let learnt = Learnt::new(1, 1);
        learnt.strike(0, 1_000_000);
        assert!(learnt.is_off(0, 1_000_000) && !learnt.is_off(0, 0) && !learnt.is_off(0, i64::MAX));
        // Without a clock at all it is off until the set is loaded anew.
        let still = Learnt::new(1, 1);
        still.strike(0, 0);
        assert!(still.is_off(0, 0));
    }

    #[test]
    fn the_order_follows_what_was_learnt() {
        let plan = Plan { worth: vec![1.0, 1.0, 0.0, 2.0], cost: vec![1.0; 4], ..Plan::default() };
        let learnt = Learnt::new(4, 0);
        assert_eq!(learnt.ordered(&plan), [3, 0, 1]);
        (0..10).for_each(|_| learnt.done());
        (0..9).for_each(|_| learnt.hit(1));
        learnt.cost(3, std::time::Duration::from_millis(1));
        assert_eq!(learnt.ordered(&plan), [1, 0, 3]);
        assert!(learnt.measures(5) && !learnt.measures(3) && !learnt.measures(0));
    }
}
