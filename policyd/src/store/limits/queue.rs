// SPDX-License-Identifier: GPL-3.0-or-later
//! The queue between requests and the limit statements: what arrives while a statement is on its way is gathered into the next, in which
//! charges of the same bucket become one row. One worker with one connection; requests wait at most until their deadline.
//!
//! Whoever is known to be over a limit is told so without the store ([`Over`]), and from time to time by a statement that only
//! reads. While the store is away this host keeps its share of the limits by itself ([`Alone`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Outcome;
use crate::limits::alone::Alone;
use crate::limits::over::{Known, Over};
use crate::limits::plan::Order;
use crate::limits::settle::{Batch, InForce, Settled, wait};
use crate::limits::stages::Seen;
use crate::store::health::Health;
use crate::store::journal::{Entry, Journal};
use crate::store::queue::QueueError;
use crate::store::{Connection, STATEMENT_TIME};

/// Requests that may wait; more only come in when the store is far behind, and get the fallback.
const WAITING: usize = 4096;
/// Requests in one statement.
const BATCH: usize = 256;
/// Share of the time left that the store is given when this host can decide by itself.
const SHARE: f64 = 0.8;
/// Pause between two rounds of cleaning, and between two batches of one round.
const CLEAN_PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(50));
/// Rows deleted in one transaction.
const CLEAN_BATCH: i64 = 1000;

/// How full a bucket is, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// After the charge.
    pub level: i64,
    /// What it holds.
    pub capacity: i64,
}

/// No room in one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Index of the charge in the order.
    pub charge: usize,
    /// Milliseconds until there is room; none when there never will be.
    pub wait: Option<i64>,
}

/// What a request learns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Why it must not go on.
    pub refused: Option<Refusal>,
    /// Per charge of the order; empty when the answer came from memory.
    pub fills: Vec<Fill>,
}

/// What is wanted of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// To be charged.
    Charge,
    /// The same, but there was no room a while ago: reading will tell whether there is now.
    Doubtful,
    /// To know how full its buckets are.
    Look,
}

struct Waiting {
    order: Arc<Order>,
    wanted: Wanted,
    reply: oneshot::Sender<Told>,
}

/// The way to the limits.
#[derive(Debug, Clone)]
pub struct LimitQueue {
    entrance: mpsc::Sender<Waiting>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    seen: Seen,
    over: Over,
    alone: Alone,
    journal: Option<Arc<Journal>>,
    /// This host has decided by itself since the store last answered.
    was_alone: AtomicBool,
    /// What the clock of the database is ahead of ours, in milliseconds.
    ahead: AtomicI64,
    health: Arc<Health>,
}

impl LimitQueue {
    /// Starts the worker and the cleaner; they end when `stop` is cancelled.
    pub fn start(store: &Store, health: Arc<Health>, stop: &CancellationToken) -> Self {
        Self::start_with(store, health, None, 1, stop)
    }

    /// The same with a journal for what one of `hosts` charges without the store: the store is handed it over, and the next process goes on
    /// from it.
    pub fn start_with(
        store: &Store,
        health: Arc<Health>,
        journal: Option<Arc<Journal>>,
        hosts: u32,
        stop: &CancellationToken,
    ) -> Self {
        let (alone, now) = (Alone::default(), local_now());
        let mut recalled = 0u64;
        if let Some(journal) = &journal {
            journal.recall(|entry, ago| {
                if let Entry::Charged(charged) = entry {
                    alone.recall(charged, ago, hosts, now);
                    recalled += 1;
                }
            });
        }
        if recalled > 0 {
            tracing::info!(charges = recalled, "limits go on from what was charged without the store");
        }
        let (entrance, waiting) = mpsc::channel(WAITING);
        let shared = Arc::new(Shared {
            seen: Seen::default(),
            over: Over::default(),
            alone,
            was_alone: AtomicBool::new(recalled > 0),
            journal,
            ahead: AtomicI64::new(0),
            health,
        });
        let tasks = TaskTracker::new();
        let worker = Worker { store: store.clone(), shared: shared.clone(), connection: None };
        let stopped = stop.clone();
        tasks.spawn(async move { worker.run(waiting, &stopped).await });
        let (store, health, stopped) = (store.clone(), shared.health.clone(), stop.clone());
        tasks.spawn(async move { clean(&store, &health, &stopped).await });
        tasks.close();
        Self { entrance, shared, tasks }
    }

    /// The stages that Postfix has asked.
    pub fn seen(&self) -> &Seen {
        &self.shared.seen
    }

    /// The time by the clock of the database, as far as it is known: milliseconds since 1970.
    pub fn now(&self) -> i64 {
        local_now().saturating_add(self.shared.ahead.load(Ordering::Relaxed))
    }

    /// Charges an order, wholly or not at all. With `hosts` this one decides by itself when the store cannot tell, for its share.
    pub async fn ask(&self, order: Arc<Order>, deadline: Instant, hosts: Option<u32>) -> Result<Told, QueueError> {
        let wanted = match self.shared.over.ask(&order, std::time::Instant::now()) {
            Known::Charged => return Ok(Told::default()),
            Known::Over(charge, left) => {
                metrics::counter!("octroi_policyd_limit_cached_total").increment(1);
                return Ok(Told { refused: Some(Refusal { charge, wait: Some(left) }), fills: Vec::new() });
            }
            Known::Doubtful => Wanted::Doubtful,
            Known::Nothing => Wanted::Charge,
        };
        let Some(hosts) = hosts else { return self.ask_store(order, wanted, deadline).await };
        let patience = deadline.saturating_duration_since(Instant::now()).mul_f64(SHARE);
        match self.ask_store(order.clone(), wanted, Instant::now() + patience).await {
            Ok(told) => Ok(told),
            Err(_) => Ok(self.decide_alone(&order, hosts)),
        }
    }

    /// How full the buckets of an order are; nothing is charged or written. A rule asks that: when it is not told in time, the store does
    /// not count as failing for it.
    pub async fn look(&self, order: Order, deadline: Instant) -> Result<Told, QueueError> {
        if !self.shared.health.is_up() {
            return Err(QueueError::Unavailable);
        }
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { order: Arc::new(order), wanted: Wanted::Look, reply };
        self.entrance.try_send(waiting).map_err(|_| QueueError::Unavailable)?;
        metrics::counter!("octroi_policyd_limit_looks_total").increment(1);
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(told) => told.map_err(|_| QueueError::Unavailable),
            Err(_) => Err(QueueError::Late),
        }
    }

    async fn ask_store(&self, order: Arc<Order>, wanted: Wanted, deadline: Instant) -> Result<Told, QueueError> {
        let health = &self.shared.health;
        if !health.is_up() {
            return Err(QueueError::Unavailable);
        }
        let (reply, answer) = oneshot::channel();
        if self.entrance.try_send(Waiting { order, wanted, reply }).is_err() {
            health.failed("more requests wait for limits than can be served");
            return Err(QueueError::Unavailable);
        }
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(told)) => Ok(told),
            // The worker has told the error.
            Ok(Err(_)) => Err(QueueError::Unavailable),
            Err(_) => {
                health.failed("no answer about limits within the budget");
                Err(QueueError::Late)
            }
        }
    }

    /// Decides without the store.
    fn decide_alone(&self, order: &Order, hosts: u32) -> Told {
        if !self.shared.was_alone.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                hosts,
                "limits are kept by this host alone, each divided by limits.hosts, until the store answers"
            );
        }
        metrics::counter!("octroi_policyd_limit_local_total").increment(1);
        let now = self.now();
        let decided = self.shared.alone.decide(order, hosts, now);
        if let (Settled::Charged, Some(journal)) = (decided.settled, &self.shared.journal) {
            journal.write_charges(order);
        }
        let levels: Vec<i64> = decided.ledger.levels.iter().map(|level| level.level).collect();
        told(order, &decided.batch, decided.settled, &levels, &decided.ledger.in_force, now)
    }

    /// Charges in the background what is charged whatever the level, unless the store is away.
    pub fn charge_later(&self, order: Order) {
        let (reply, _) = oneshot::channel();
        let waiting = Waiting { order: Arc::new(order), wanted: Wanted::Charge, reply };
        if !self.shared.health.is_up() || self.entrance.try_send(waiting).is_err() {
            metrics::counter!("octroi_policyd_limit_dropped_total").increment(1);
        }
    }

    /// Waits until the tasks have ended, after `stop`.
    pub async fn ended(&self) {
        self.tasks.wait().await;
    }
}

fn local_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What one order learns from the state of a batch that holds its buckets.
fn told(order: &Order, batch: &Batch, settled: Settled, levels: &[i64], in_force: &[InForce], now: i64) -> Told {
    let place = |name: &str| batch.buckets.binary_search_by(|bucket| bucket.name.as_str().cmp(name)).ok();
    let mut answer = Told::default();
    for (number, charge) in order.charges().enumerate() {
        let Some(at) = place(&charge.bucket.name) else { continue };
        if settled == Settled::Refused(at) {
            let wait = wait(levels[at], charge.need, in_force[at], charge.window_end, now);
            // Others of the batch may have made room look larger than it was for this one.
            answer.refused = Some(Refusal { charge: number, wait: wait.map(|wait| wait.max(1)) });
        }
        answer.fills.push(Fill { level: levels[at], capacity: in_force[at].capacity });
    }
    answer
}

struct Worker {
    store: Store,
    shared: Arc<Shared>,
    connection: Option<Connection>,
}

impl Worker {
    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>, stop: &CancellationToken) {
        let mut changes = self.shared.health.watch();
        tokio::select! {
            // The sender lives as long as `self`.
            _ = changes.wait_for(|up| *up) => {}
            () = stop.cancelled() => return,
        }
        self.set_clock().await;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                taken = waiting.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    // Requests that are being read at this moment come along.
                    tokio::task::yield_now().await;
                    while batch.len() < BATCH && let Ok(more) = waiting.try_recv() {
                        batch.push(more);
                    }
                    self.serve(std::mem::take(&mut batch)).await;
                }
                changed = changes.changed() => match changed {
                    Ok(()) if *changes.borrow_and_update() => {}
                    // While the store is down connections are of no use, and its supervision may need one.
                    Ok(()) => self.connection = None,
                    Err(_) => return,
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Answers a batch: first those that reading alone can answer or refuse. On an error nobody gets an answer.
    async fn serve(&mut self, batch: Vec<Waiting>) {
        metrics::histogram!("octroi_policyd_limit_batch").record(batch.len() as f64);
        let (doubtful, mut rest): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|waiting| waiting.wanted != Wanted::Charge);
        if !doubtful.is_empty() {
            match self.settle(&doubtful, true).await {
                Ok((batch, outcome)) => rest.extend(self.answer(doubtful, &batch, &outcome, true)),
                Err(error) => return self.failed(&error),
            }
        }
        if !rest.is_empty() {
            match self.settle(&rest, false).await {
                Ok((batch, outcome)) => drop(self.answer(rest, &batch, &outcome, false)),
                Err(error) => self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &StoreError) {
        self.shared.health.failed(&error.to_string());
        self.connection = None;
    }

    async fn settle(&mut self, waiting: &[Waiting], reading: bool) -> Result<(Batch, Outcome), StoreError> {
        let batch = Batch::of(waiting.iter().map(|waiting| waiting.order.as_ref()));
        let outcome = self.ask(&batch, reading).await?;
        self.shared.health.succeeded();
        self.shared.ahead.store(outcome.now.saturating_sub(local_now()), Ordering::Relaxed);
        if self.shared.was_alone.swap(false, Ordering::Relaxed) {
            self.shared.alone.clear();
        }
        Ok((batch, outcome))
    }

    /// Tells everybody, and gives back those who are still to be charged: all but the refused when it was only `reading`.
    fn answer(&self, waiting: Vec<Waiting>, batch: &Batch, outcome: &Outcome, reading: bool) -> Vec<Waiting> {
        let mut admitted = Vec::new();
        let now = std::time::Instant::now();
        for (waiting, settled) in waiting.into_iter().zip(&outcome.settled) {
            if waiting.wanted == Wanted::Doubtful && reading && *settled == Settled::Charged {
                admitted.push(waiting);
                continue;
            }
            let told = told(&waiting.order, batch, *settled, &outcome.levels, &outcome.in_force, outcome.now);
            match told.refused {
                Some(Refusal { charge, wait }) => {
                    if let (Some(charge), Some(wait)) = (waiting.order.charges().nth(charge), wait) {
                        self.shared.over.learn_full(charge, wait, now);
                    }
                }
                None => self.shared.over.learn_charged(&waiting.order),
            }
            // The asker may have gone meanwhile.
            let _ = waiting.reply.send(told);
        }
        admitted
    }

    /// Asks with the connection at hand; when that one has died, once more with a new one. What the first try may have charged
    /// is known by its parts.
    async fn ask(&mut self, batch: &Batch, reading: bool) -> Result<Outcome, StoreError> {
        if let Some(mut connection) = self.connection.take() {
            match self.timely(statement(&mut connection, batch, reading)).await {
                Ok(outcome) => {
                    self.connection = Some(connection);
                    return Ok(outcome);
                }
                Err(error) => tracing::debug!(%error, "trying again with a new connection"),
            }
        }
        let mut connection = self.timely(Connection::acquire_losable(&self.store)).await?;
        let outcome = self.timely(statement(&mut connection, batch, reading)).await?;
        self.connection = Some(connection);
        Ok(outcome)
    }

    /// Before the first window of the calendar is looked for.
    async fn set_clock(&mut self) {
        let Ok(mut connection) = self.timely(Connection::acquire_losable(&self.store)).await else { return };
        if let Ok(now) = self.timely(super::clock(&mut connection)).await {
            self.shared.ahead.store(now.saturating_sub(local_now()), Ordering::Relaxed);
            self.connection = Some(connection);
        }
    }

    /// Work with a limit in time, given up too when the store counts as down: nobody waits for it any more.
    async fn timely<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let mut changes = self.shared.health.watch();
        tokio::select! {
            done = work => done,
            _ = changes.wait_for(|up| !up) => Err(StoreError::Unavailable("given up".to_owned())),
            () = tokio::time::sleep(STATEMENT_TIME) => {
                Err(StoreError::Unavailable(format!("no answer within {} seconds", STATEMENT_TIME.as_secs())))
            }
        }
    }
}

async fn statement(connection: &mut Connection, batch: &Batch, reading: bool) -> Result<Outcome, StoreError> {
    match reading {
        true => super::peek(connection, batch, None).await,
        false => super::charge(connection, batch, None).await,
    }
}

/// Deletes what has expired, a little at a time, until `stop`.
async fn clean(store: &Store, health: &Health, stop: &CancellationToken) {
    let mut pause = CLEAN_PAUSES.0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = CLEAN_PAUSES.0;
        if !health.is_up() {
            continue;
        }
        let round = async {
            let mut connection = Connection::acquire_losable(store).await?;
            super::clean(&mut connection, CLEAN_BATCH).await
        };
        match crate::store::timely(round).await {
            Ok(deleted) if deleted >= CLEAN_BATCH as u64 => pause = CLEAN_PAUSES.1,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "expired limits could not be deleted"),
        }
    }
}
