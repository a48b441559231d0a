// SPDX-License-Identifier: GPL-3.0-or-later
//! What the greylist asks the store besides its triplets: whether a client is trusted, that it has earned a pass, whether a new
//! triplet is known under another name of its client, and whether one is known at all.
//!
//! Questions go to one worker. Answers about trust are kept in memory for a while, bounded, so that a request costs a
//! look-up of its own only when its client has not been seen for a minute. No answer means "not known"; greylisting then
//! decides as if there were no trust.

mod worker;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::store::Store;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::worker::{Job, Worker};
use super::health::Health;
use super::never::Never;
use super::present::Present;
use crate::triplet::Triplet;

/// Jobs that may wait; more are not done.
const WAITING: usize = 4096;
/// Keys remembered per generation.
const GENERATION: usize = 16_384;
/// How long it is remembered that a key is trusted, and that it is not.
const KEPT: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(60));
/// Share of the time left that one question may take; the greylist needs the rest.
const SHARE: f64 = 0.25;
/// After a question that got no answer in time none is asked for so long.
const QUIET: Duration = Duration::from_secs(2);

/// A pass counts only while at most `percent` of the triplets of a client never came again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The client as its triplets name it.
    pub client: String,
    /// At most so many percent.
    pub percent: u8,
    /// When a triplet counts.
    pub never: Never,
}

/// The way to trust and to other names.
#[derive(Debug)]
pub struct TrustBook {
    entrance: mpsc::Sender<Job>,
    health: Arc<Health>,
    present: Arc<Present>,
    quiet_until: Mutex<Option<Instant>>,
    hasher: RandomState,
    known: Mutex<[HashMap<u64, (Instant, i64)>; 2]>,
}

impl TrustBook {
    /// Starts the worker; it ends when `stop` is cancelled, and does nothing while the store does not answer.
    pub fn start(store: &Store, health: Arc<Health>, stop: &CancellationToken) -> Self {
        let (entrance, jobs) = mpsc::channel(WAITING);
        let present = Arc::<Present>::default();
        let worker = Worker::new(store, health.clone(), present.clone());
        let stop = stop.clone();
        tokio::spawn(async move { worker.run(jobs, &stop).await });
        let (quiet_until, hasher, known) = (Mutex::default(), RandomState::new(), Mutex::default());
        Self { entrance, health, present, quiet_until, hasher, known }
    }

    /// The first of `keys` that has at least `after` passes. `keep` is how long a key is kept that is used, in milliseconds.
    pub async fn trusted(&self, keys: &[String], after: i64, keep: i64, deadline: Instant) -> Option<String> {
        let now = Instant::now();
        let mut unknown = Vec::new();
        for key in keys {
            match self.remembered(key, after, now) {
                Some(true) => return Some(key.clone()),
                Some(false) => {}
                None if self.present.lacks(key) => {}
                None => unknown.push(key.clone()),
            }
        }
        if unknown.is_empty() {
            return None;
        }
        let standings = self.ask(|reply| Job::Trust { keys: unknown.clone(), reply }, deadline).await?;
        for key in &unknown {
            let passes = standings.iter().find(|standing| standing.key == *key).map_or(0, |standing| standing.passes);
            self.remember(key, passes, now);
        }
        let found = keys.iter().find_map(|key| standings.iter().find(|s| s.key == *key && s.passes >= after))?;
        if found.due {
            self.send(Job::Count { keys: vec![found.key.clone()], keep, condition: None });
        }
        Some(found.key.clone())
    }

    /// True when the store has said lately that none of `keys` has `after` passes.
    pub fn distrusts(&self, keys: &[String], after: i64) -> bool {
        let now = Instant::now();
        keys.iter()
            .all(|key| self.remembered(key, after, now).map_or_else(|| self.present.lacks(key), |trusted| !trusted))
    }

    /// True when one of `keys` has passed before, on any host; known without a question, and of other hosts' passes within a minute.
    pub fn has_passed(&self, keys: &[String]) -> bool {
        keys.iter().any(|key| self.present.has(key))
    }

    /// True when it is certain that none of `keys`, of which there must be one, has ever passed.
    pub fn never_passed(&self, keys: &[String]) -> bool {
        !keys.is_empty() && keys.iter().all(|key| self.present.lacks(key))
    }

    /// A triplet of these keys has passed for the first time; it earns them a pass on this condition, if any. Nobody waits for it.
    pub fn passed(&self, mut keys: Vec<String>, keep: i64, condition: Option<Condition>) {
        keys.sort();
        keys.dedup();
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for key in &keys {
            if condition.is_none() {
                self.present.add(key);
            }
            let hash = self.hasher.hash_one(key);
            for keys in known.iter_mut() {
                keys.remove(&hash);
            }
        }
        drop(known);
        self.send(Job::Count { keys, keep, condition });
    }

    /// Carries over what is known of a new triplet under other names of its client. True when it is not new after all, and the store
    /// should be asked again.
    pub async fn carried(&self, triplet: &Triplet, others: &[Triplet], deadline: Instant) -> bool {
        let job = |reply| Job::Carry { triplet: triplet.clone(), others: others.to_vec(), reply };
        self.ask(job, deadline).await.unwrap_or(false)
    }

    /// Whether the store knows a triplet; none without an answer.
    pub async fn knows(&self, triplet: &Triplet, deadline: Instant) -> Option<bool> {
        self.ask(|reply| Job::Known { triplet: triplet.clone(), reply }, deadline).await
    }

    /// Those of `keys` that are marked in the store, and for how many milliseconds still; none without an answer.
    pub async fn marks(&self, keys: &[String], deadline: Instant) -> Option<Vec<(String, i64)>> {
        self.ask(|reply| Job::Marks { keys: keys.to_vec(), reply }, deadline).await
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job, deadline: Instant) -> Option<T> {
        let now = Instant::now();
        if !self.health.is_up() || self.quiet().is_some_and(|until| now < until) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        if !self.send(job(reply)) {
            return None;
        }
        let time = deadline.saturating_duration_since(now).mul_f64(SHARE);
        match tokio::time::timeout(time, answer).await {
            Ok(Ok(answer)) => Some(answer),
            // The worker has counted an error of its own.
            Ok(Err(_)) => None,
            Err(_) => {
                failed("late");
                *self.quiet() = Some(Instant::now() + QUIET);
                None
            }
        }
    }

    fn quiet(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // A panic of another thread leaves nothing half done here.
        self.quiet_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn send(&self, job: Job) -> bool {
        let sent = self.entrance.try_send(job).is_ok();
        if !sent {
            failed("full");
        }
        sent
    }

    fn remembered(&self, key: &str, after: i64, now: Instant) -> Option<bool> {
        let hash = self.hasher.hash_one(key);
        // A panic of another thread leaves nothing half done here.
        let known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (at, passes) = known.iter().find_map(|keys| keys.get(&hash))?;
        let trusted = *passes >= after;
        let kept = if trusted { KEPT.0 } else { KEPT.1 };
        (now.duration_since(*at) < kept).then_some(trusted)
    }

    fn remember(&self, key: &str, passes: i64, now: Instant) {
        let hash = self.hasher.hash_one(key);
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let [young, old] = &mut *known;
        if young.len() >= GENERATION {
            std::mem::swap(young, old);
            young.clear();
        }
        young.insert(hash, (now, passes));
    }
}

fn failed(why: &'static str) {
    metrics::counter!("octroi_policyd_trust_failures_total", "error" => why).increment(1);
}
