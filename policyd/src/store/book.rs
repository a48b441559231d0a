// SPDX-License-Identifier: GPL-3.0-or-later
//! What the greylist asks the store besides its triplets: whether a client is trusted, that it has earned a pass, whether a new
//! triplet is known under another name of its client, and whether one is known at all.
//!
//! One worker takes all that waits as one batch. Answers about trust are kept in memory for a while, bounded, so that a request costs a
//! look-up of its own only when its client has not been seen for a minute. No answer means "not known"; greylisting then
//! decides as if there were no trust.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::present::{Present, Progress, REFRESH};
use super::trust::{self, Standing};
use super::{Connection, carry, marks};
use crate::triplet::Triplet;

/// Jobs that may wait; more are not done.
const WAITING: usize = 4096;
/// Jobs in one batch.
const BATCH: usize = 128;
/// Time for one statement, after which its connection counts as dead.
const STATEMENT_TIME: Duration = Duration::from_secs(6);
/// Keys remembered per generation.
const GENERATION: usize = 16_384;
/// How long it is remembered that a key is trusted, and that it is not.
const KEPT: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(60));
/// Pause between two rounds of cleaning, and rows in one of its transactions.
const CLEAN: (Duration, u32) = (Duration::from_secs(600), 500);
/// Share of the time left that one question may take; the greylist needs the rest.
const SHARE: f64 = 0.25;
/// After a question that got no answer in time none is asked for so long.
const QUIET: Duration = Duration::from_secs(2);
/// A pool with fewer connections has none to spare for keeping.
const POOL_TO_KEEP_FROM: u32 = 4;

enum Job {
    Trust { keys: Vec<String>, reply: oneshot::Sender<Vec<Standing>> },
    Count { keys: Vec<String>, keep: i64 },
    Carry { triplet: Triplet, others: Vec<String>, reply: oneshot::Sender<bool> },
    Known { triplet: Triplet, reply: oneshot::Sender<bool> },
    Marks { keys: Vec<String>, reply: oneshot::Sender<Left> },
}

/// Marked keys, and for how many milliseconds still.
type Left = Vec<(String, i64)>;

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
        let keeps = match store {
            Store::Postgres(pool) => pool.options().get_max_connections() >= POOL_TO_KEEP_FROM,
            Store::Sqlite(_) => true,
        };
        let present = Arc::<Present>::default();
        let worker = Worker {
            store: store.clone(),
            health: health.clone(),
            present: present.clone(),
            progress: Progress::default(),
            connection: None,
            keeps,
        };
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
            self.send(Job::Count { keys: vec![found.key.clone()], keep });
        }
        Some(found.key.clone())
    }

    /// True when the store has said lately that none of `keys` has `after` passes.
    pub fn distrusts(&self, keys: &[String], after: i64) -> bool {
        let now = Instant::now();
        keys.iter()
            .all(|key| self.remembered(key, after, now).map_or_else(|| self.present.lacks(key), |trusted| !trusted))
    }

    /// A triplet of these keys has passed for the first time. Nobody waits for it.
    pub fn passed(&self, mut keys: Vec<String>, keep: i64) {
        keys.sort();
        keys.dedup();
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for key in &keys {
            self.present.add(key);
            let hash = self.hasher.hash_one(key);
            for keys in known.iter_mut() {
                keys.remove(&hash);
            }
        }
        drop(known);
        self.send(Job::Count { keys, keep });
    }

    /// Carries over what is known of a new triplet under other names of its client. True when it is not new after all, and the store
    /// should be asked again.
    pub async fn carried(&self, triplet: &Triplet, others: &[String], deadline: Instant) -> bool {
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

struct Worker {
    store: Store,
    health: Arc<Health>,
    present: Arc<Present>,
    progress: Progress,
    connection: Option<Connection>,
    keeps: bool,
}

/// What the worker is to do.
enum Task {
    Jobs(Vec<Job>),
    Look,
    Clean,
}

impl Worker {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>, stop: &CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut changes = self.health.watch();
        let mut clean_again = tokio::time::interval(CLEAN.0);
        clean_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look_again = tokio::time::interval(REFRESH);
        look_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                taken = jobs.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    self.attempt(Task::Jobs(std::mem::take(&mut batch))).await;
                }
                _ = look_again.tick() => self.attempt(Task::Look).await,
                _ = clean_again.tick() => self.attempt(Task::Clean).await,
                // While the store is down connections are of no use, and the supervision may need one.
                changed = changes.changed() => match changed {
                    Ok(()) if *changes.borrow_and_update() => self.attempt(Task::Look).await,
                    Ok(()) => self.connection = None,
                    Err(_) => return,
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Does a task. Who asked and gets no answer goes on without.
    async fn attempt(&mut self, task: Task) {
        if !self.health.is_up() {
            return;
        }
        let done = timely(async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => Connection::acquire(&self.store).await?,
            };
            match task {
                Task::Jobs(batch) => work(&mut connection, batch).await?,
                Task::Look => self.present.refresh(&mut connection, &mut self.progress).await?,
                Task::Clean => clean_all(&mut connection).await?,
            }
            Ok(connection)
        });
        match done.await {
            Ok(connection) if self.keeps => self.connection = Some(connection),
            Ok(_) => {}
            Err(error) => {
                failed("store");
                tracing::debug!(%error, "no answer about trust");
            }
        }
    }
}

async fn clean_all(connection: &mut Connection) -> Result<(), StoreError> {
    while trust::clean(connection, CLEAN.1, None).await? >= u64::from(CLEAN.1) {}
    Ok(())
}

async fn work(connection: &mut Connection, batch: Vec<Job>) -> Result<(), StoreError> {
    let (mut reads, mut counts, mut carries, mut known) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut marks = Vec::new();
    for job in batch {
        match job {
            Job::Trust { keys, reply } => reads.push((keys, reply)),
            Job::Count { keys, keep } => counts.push((keep, keys)),
            Job::Carry { triplet, others, reply } => carries.push((triplet, others, reply)),
            Job::Known { triplet, reply } => known.push((triplet, reply)),
            Job::Marks { keys, reply } => marks.push((keys, reply)),
        }
    }
    read_all(connection, reads).await?;
    know_all(connection, known).await?;
    find_marks(connection, marks).await?;
    carry_all(connection, carries).await?;
    count_all(connection, counts).await
}

async fn read_all(
    connection: &mut Connection,
    reads: Vec<(Vec<String>, oneshot::Sender<Vec<Standing>>)>,
) -> Result<(), StoreError> {
    let mut keys: Vec<String> = reads.iter().flat_map(|(keys, _)| keys.iter().cloned()).collect();
    keys.sort();
    keys.dedup();
    if keys.is_empty() {
        return Ok(());
    }
    let standings = trust::read(connection, &keys, None).await?;
    for (keys, reply) in reads {
        let own = standings.iter().filter(|standing| keys.contains(&standing.key)).cloned().collect();
        // The asker may have gone meanwhile.
        let _ = reply.send(own);
    }
    Ok(())
}

async fn know_all(connection: &mut Connection, known: Vec<(Triplet, oneshot::Sender<bool>)>) -> Result<(), StoreError> {
    if known.is_empty() {
        return Ok(());
    }
    let asked: Vec<_> = known.iter().map(|(triplet, _)| (triplet.clone(), vec![triplet.client.clone()])).collect();
    let found = carry::find(connection, &asked, None).await?;
    for (triplet, reply) in known {
        // The asker may have gone meanwhile.
        let _ = reply.send(found.iter().any(|found| found.to == triplet));
    }
    Ok(())
}

async fn find_marks(
    connection: &mut Connection,
    asked: Vec<(Vec<String>, oneshot::Sender<Left>)>,
) -> Result<(), StoreError> {
    if asked.is_empty() {
        return Ok(());
    }
    let mut keys: Vec<String> = asked.iter().flat_map(|(keys, _)| keys.iter().cloned()).collect();
    keys.sort();
    keys.dedup();
    let found = marks::read(connection, &keys).await?;
    for (keys, reply) in asked {
        // The asker may have gone meanwhile.
        let _ = reply.send(found.iter().filter(|(key, _)| keys.contains(key)).cloned().collect());
    }
    Ok(())
}

async fn carry_all(
    connection: &mut Connection,
    carries: Vec<(Triplet, Vec<String>, oneshot::Sender<bool>)>,
) -> Result<(), StoreError> {
    if carries.is_empty() {
        return Ok(());
    }
    let (asked, replies): (Vec<_>, Vec<_>) =
        carries.into_iter().map(|(triplet, others, reply)| ((triplet, others), reply)).unzip();
    let found = carry::find(connection, &asked, None).await?;
    let mut carried = Vec::with_capacity(found.len());
    for older in &found {
        if carry::carry(connection, older).await? {
            carried.push(&older.to);
        }
    }
    for ((triplet, _), reply) in asked.iter().zip(replies) {
        // The asker may have gone meanwhile.
        let _ = reply.send(carried.contains(&triplet));
    }
    Ok(())
}

async fn count_all(connection: &mut Connection, counts: Vec<(i64, Vec<String>)>) -> Result<(), StoreError> {
    // All that wait were decided under one configuration, or under two for a moment.
    let mut by_keep: HashMap<i64, Vec<String>> = HashMap::new();
    for (keep, keys) in counts {
        by_keep.entry(keep).or_default().extend(keys);
    }
    for (keep, mut keys) in by_keep {
        keys.sort();
        keys.dedup();
        trust::count(connection, &keys, keep, None).await?;
    }
    Ok(())
}

async fn timely<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_TIME, work).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {} seconds", STATEMENT_TIME.as_secs()))),
    }
}
