// SPDX-License-Identifier: GPL-3.0-or-later
//! The shield of this host: a client that asks far too often is told to come again before anything is looked up, so that it costs neither the
//! store nor DNS anything. Counted by each host for itself; what a farm allows is said by limits, which are exact (docs/limits.md).
//!
//! The arithmetic is that of the crate `governor` (generic cell rate algorithm); the memory is ours, because its own grows with every
//! address that an attacker has: two generations per lock, the older one forgotten when the younger one is full.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::config::{Mistake, Mistakes};
use common::mail;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use crate::around::Around;
use crate::config::{OverAction, Reply, ShieldSettings};
use crate::course::{Answer, Course};
use crate::request::PolicyRequest;
use crate::template::Values;
use crate::verdict::{Finding, Reason, Verdict};

/// Locks.
const SHARDS: usize = 16;
/// Clients remembered per generation under one lock: 65 536 in all at most.
const GENERATION: usize = 2048;

/// When each client may ask again, by a keyed hash of its address.
#[derive(Debug, Default)]
struct Memory {
    hasher: RandomState,
    shards: [Mutex<[HashMap<u64, Nanos>; 2]>; SHARDS],
}

impl StateStore for Memory {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, key: &IpAddr, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let hash = self.hasher.hash_one(key);
        let shard = &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or_default()];
        // A panic of another thread leaves nothing half done here.
        let [young, old] = &mut *shard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = young.get(&hash).copied().or_else(|| old.remove(&hash));
        let (outcome, after) = match decide(before) {
            Ok((value, after)) => (Ok(value), Some(after)),
            // Who goes on asking in vain stays known.
            Err(refused) => (Err(refused), before),
        };
        if let Some(after) = after {
            if young.len() >= GENERATION && !young.contains_key(&hash) {
                std::mem::swap(young, old);
                young.clear();
            }
            young.insert(hash, after);
        }
        outcome
    }
}

/// The shield of one policy.
pub struct Shield<C: Clock = DefaultClock> {
    limiter: RateLimiter<IpAddr, Memory, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    reply: Reply,
}

impl<C: Clock> fmt::Debug for Shield<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shield").field("reply", &self.reply).finish_non_exhaustive()
    }
}

impl Shield {
    /// The shield that the settings want; none when it is off.
    pub fn load(settings: &ShieldSettings) -> Result<Option<Self>, Mistakes> {
        Self::with_clock(settings, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Shield<C> {
    fn with_clock(settings: &ShieldSettings, clock: C) -> Result<Option<Self>, Mistakes> {
        let mistake = |(key, message): (&str, String)| Mistake {
            origin: "settings".to_owned(),
            key: format!("policyd.shield.{key}"),
            message,
        };
        let Some(rate) = settings.compile().map_err(mistake)? else { return Ok(None) };
        let quota = Quota::with_period(rate.every)
            .ok_or_else(|| mistake(("rate", "is more than can be told apart".to_owned())))?
            .allow_burst(rate.burst);
        let limiter = RateLimiter::new(quota, Memory::default(), clock.clone());
        Ok(Some(Self { limiter, clock, reply: rate.reply }))
    }

    /// Counts a request of a client: none while it may ask, else how long it must wait.
    fn wait(&self, client: IpAddr) -> Option<Duration> {
        // Whoever has a /64 has all addresses in it.
        let client = mail::network(client, 32, 64).addr();
        let refused = self.limiter.check_key(&client).err()?;
        Some(refused.wait_time_from(self.clock.now()))
    }
}

/// What the shield says. Our own hosts pass, and whom a client whitelist passes does not come here.
pub fn check(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Answer {
    let (Some(shield), Some(client)) = (around.policy.shield.as_deref(), request.client_address) else {
        return Answer::Nothing;
    };
    if !around.shields {
        course.note(|| "shield: requests are not counted here".to_owned());
        return Answer::Nothing;
    }
    let own = || around.policy.lists.now().client(|tables| &tables.own_networks, request).is_some();
    let Some(wait) = shield.wait(client).filter(|_| !own()) else { return Answer::Nothing };
    metrics::counter!("octroi_policyd_shield_over_total").increment(1);
    let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
    let text = || shield.reply.text.fill(Values { seconds, host: around.host, id: around.id.as_str() });
    let verdict = match shield.reply.action {
        OverAction::Defer => Verdict::Defer(text()),
        OverAction::DeferIfPermit => Verdict::DeferIfPermit(text()),
        OverAction::Dunno | OverAction::Reject => return Answer::Nothing,
    };
    Finding { verdict, ..Finding::pass(Reason::Shielded) }
        .because(around.policy.settings.policyd.shield.rate.clone())
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn shield(rate: &str, burst: u32) -> (Shield<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let settings = ShieldSettings { rate: rate.to_owned(), burst, ..ShieldSettings::default() };
        (Shield::with_clock(&settings, clock.clone()).unwrap().unwrap(), clock)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_its_burst_and_then_its_rate() {
        let (shield, clock) = shield("60/1m", 3);
        let passed = |client: &str| (0..9).filter(|_| shield.wait(ip(client)).is_none()).count();
        assert_eq!(passed("192.0.2.1"), 3);
        assert_eq!(passed("192.0.2.2"), 3, "another client");
        assert_eq!(shield.wait(ip("192.0.2.1")), Some(Duration::from_secs(1)));
        clock.advance(Duration::from_secs(2));
        assert_eq!(passed("192.0.2.1"), 2);
        assert_eq!(passed("2001:db8::1") + passed("2001:db8::2"), 3, "one network");
        assert_eq!(passed("2001:db8:0:1::1"), 3);
    }

    #[test]
    fn memory_is_bounded_and_who_hammers_stays_known() {
        let (shield, _clock) = shield("1/1h", 1);
        let attacker = ip("203.0.113.1");
        assert!(shield.wait(attacker).is_none());
        for number in 0..200_000u32 {
            shield.wait(IpAddr::from(number.to_be_bytes()));
            if number % 100 == 0 {
                assert!(shield.wait(attacker).is_some(), "forgotten after {number}");
            }
        }
        let kept = shield.limiter.into_state_store();
        let most: usize =
            kept.shards.iter().map(|shard| shard.lock().unwrap().iter().map(HashMap::len).sum::<usize>()).sum();
        assert!(most <= 2 * SHARDS * GENERATION, "{most}");
    }
}
