// SPDX-License-Identifier: GPL-3.0-or-later
//! The worker behind the book: takes all questions and counts that wait as one batch, each kind of them as one statement, and keeps
//! in mind for which keys there is any trust at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Condition;
use crate::store::health::Health;
use crate::store::present::{Present, Progress, REFRESH};
use crate::store::trust::{self, Standing};
use crate::store::{Connection, carry, marks, never, timely};
use crate::triplet::Triplet;

/// Jobs in one batch.
const BATCH: usize = 128;
/// Pause between two rounds of cleaning, and rows in one of its transactions.
const CLEAN: (Duration, u32) = (Duration::from_secs(600), 500);
/// A pool with fewer connections has none to spare for keeping.
const POOL_TO_KEEP_FROM: u32 = 4;

/// What is asked or told.
pub(super) enum Job {
    Trust { keys: Vec<String>, reply: oneshot::Sender<Vec<Standing>> },
    Count { keys: Vec<String>, keep: i64, condition: Option<Condition> },
    Carry { triplet: Triplet, others: Vec<Triplet>, reply: oneshot::Sender<bool> },
    Known { triplet: Triplet, reply: oneshot::Sender<bool> },
    Marks { keys: Vec<String>, reply: oneshot::Sender<Left> },
}

/// Marked keys, and for how many milliseconds still.
pub(super) type Left = Vec<(String, i64)>;

/// Works for one host.
pub(super) struct Worker {
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
    pub(super) fn new(store: &Store, health: Arc<Health>, present: Arc<Present>) -> Self {
        let keeps = match store {
            Store::Postgres(pool) => pool.options().get_max_connections() >= POOL_TO_KEEP_FROM,
            Store::Sqlite(_) => true,
        };
        Self { store: store.clone(), health, present, progress: Progress::default(), connection: None, keeps }
    }

    /// Works until `stop`; while the store does not answer, nothing is done.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, stop: &CancellationToken) {
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
                super::failed("store");
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
            Job::Count { keys, keep, condition } => counts.push((keep, keys, condition)),
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
    let asked: Vec<_> = known.iter().map(|(triplet, _)| (triplet.clone(), vec![triplet.clone()])).collect();
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
    carries: Vec<(Triplet, Vec<Triplet>, oneshot::Sender<bool>)>,
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

async fn count_all(
    connection: &mut Connection,
    counts: Vec<(i64, Vec<String>, Option<Condition>)>,
) -> Result<(), StoreError> {
    // All that wait were decided under one configuration, or under two for a moment.
    let mut by_keep: HashMap<i64, Vec<String>> = HashMap::new();
    for (keep, keys, condition) in counts {
        if let Some(Condition { client, percent, never }) = condition
            && never::share(connection, &client, never, None).await?.is_over(percent)
        {
            metrics::counter!("octroi_policyd_trust_withheld_total").increment(1);
            continue;
        }
        by_keep.entry(keep).or_default().extend(keys);
    }
    for (keep, mut keys) in by_keep {
        keys.sort();
        keys.dedup();
        trust::count(connection, &keys, keep, None).await?;
    }
    Ok(())
}
