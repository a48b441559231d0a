// SPDX-License-Identifier: GPL-3.0-or-later
//! The queue between requests and the greylist statements. One worker with one connection takes all that waits as one batch: the
//! more requests there are, the more share a statement and a commit, and requests for the same triplet become one row.
//!
//! A triplet that has passed lately is answered without the store, and with `on_store_error = "local"` so is everything
//! while the store is away. A request waits at most until its deadline. A statement that hangs is given up with its connection.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use common::store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Connection;
use super::cache::{Cache, Key};
use super::cleaner::Cleaner;
use super::greylist::{self, Answer, Ask, Sighting, Times};
use super::health::Health;
use super::journal::{Entry, Journal};
use crate::triplet::Triplet;

/// Requests that may wait; more only come in when the store is far behind, and get the fallback.
const WAITING: usize = 4096;
/// Requests in one statement.
const BATCH: usize = 256;
/// Share of the time left that the store is given when this host can decide by itself.
const SHARE: f64 = 0.8;
/// From such a statement on it is worth [`GATHER`] to have more requests in the next one.
const SLOW: Duration = Duration::from_millis(2);
const GATHER: Duration = Duration::from_millis(1);
/// Time for one statement, after which its connection counts as dead.
const STATEMENT_TIME: Duration = Duration::from_secs(6);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The store counts as down, failed, or is too far behind.
    #[error("the store is not available")]
    Unavailable,
    /// No answer before the deadline.
    #[error("the store did not answer in time")]
    Late,
}

struct Waiting {
    triplet: Triplet,
    times: Times,
    reply: oneshot::Sender<Told>,
}

/// What one request learns, and for how many milliseconds the store keeps the triplet.
#[derive(Debug, Clone, Copy)]
struct Told {
    sighting: Sighting,
    keeps: i64,
}

/// The way to the greylist.
#[derive(Debug, Clone)]
pub struct GreylistQueue {
    entrance: mpsc::Sender<Waiting>,
    cache: Arc<Cache>,
    journal: Option<Arc<Journal>>,
    health: Arc<Health>,
    tasks: TaskTracker,
    cached: metrics::Counter,
}

impl GreylistQueue {
    /// Starts the worker and the supervision of `store`; they end when `stop` is cancelled.
    pub fn start(store: &Store, stop: &CancellationToken) -> Self {
        Self::start_with(store, None, false, stop)
    }

    /// The same with a journal for what is decided without the store; with `durable`, first tries too are on disk before they are
    /// answered.
    pub fn start_with(store: &Store, journal: Option<Journal>, durable: bool, stop: &CancellationToken) -> Self {
        let (entrance, waiting) = mpsc::channel(WAITING);
        let (health, cache, journal) = (Arc::new(Health::new()), Arc::new(Cache::default()), journal.map(Arc::new));
        if let Some(journal) = &journal {
            let now = cache.now();
            journal.recall(|entry, ago| {
                if let Entry::Seen(record) = entry {
                    cache.recall(cache.key(&record.triplet, record.times), record.passed, ago, record.times, now);
                }
            });
        }
        let tasks = TaskTracker::new();
        let (store_too, judge, last) = (store.clone(), health.clone(), Served::default());
        let worker = Worker { store: store_too, health: judge, connection: None, durable, last };
        let stopped = stop.clone();
        tasks.spawn(async move { worker.run(waiting, &stopped).await });
        if let Store::Postgres(_) = store {
            let (mut cleaner, stopped) = (Cleaner::new(store, &health), stop.clone());
            tasks.spawn(async move { cleaner.run(&stopped).await });
        }
        let (supervised, watched, stopped, written) = (store.clone(), health.clone(), stop.clone(), journal.clone());
        tasks.spawn(async move { watched.supervise(&supervised, written.as_deref(), &stopped).await });
        tasks.close();
        let cached = metrics::counter!("octroi_policyd_greylist_cached_total");
        Self { entrance, cache, journal, health, tasks, cached }
    }

    /// Whether the store has said lately that the triplet has passed; nothing is asked.
    pub fn has_passed_lately(&self, triplet: &Triplet, times: Times) -> bool {
        self.is_cached(self.cache.key(triplet, times))
    }

    fn is_cached(&self, key: Key) -> bool {
        let passed = self.cache.has_passed(key, self.cache.now());
        if passed {
            self.cached.increment(1);
        }
        passed
    }

    /// Asks for one triplet.
    pub async fn ask(
        &self,
        triplet: impl Borrow<Triplet>,
        times: Times,
        deadline: Instant,
    ) -> Result<Sighting, QueueError> {
        let triplet = triplet.borrow();
        let key = self.cache.key(triplet, times);
        if self.is_cached(key) {
            return Ok(Sighting::Passed);
        }
        let told = self.ask_store(triplet.clone(), times, deadline).await?;
        self.cache.learn(key, told.sighting, told.keeps, times, self.cache.now());
        Ok(told.sighting)
    }

    /// The same; when the store cannot tell and `alone` holds, this host decides.
    pub async fn ask_or_decide(
        &self,
        triplet: &Triplet,
        times: Times,
        deadline: Instant,
        alone: bool,
    ) -> Result<Sighting, QueueError> {
        if !alone {
            return self.ask(triplet, times, deadline).await;
        }
        // The answer of this host must still come within the budget.
        let patience = deadline.saturating_duration_since(Instant::now()).mul_f64(SHARE);
        match self.ask(triplet, times, Instant::now() + patience).await {
            Ok(sighting) => Ok(sighting),
            Err(_) => Ok(self.decide_alone(triplet, times)),
        }
    }

    /// Decides without the store, from what this host remembers, and writes it down for the store.
    pub fn decide_alone(&self, triplet: &Triplet, times: Times) -> Sighting {
        let alone = self.cache.decide(self.cache.key(triplet, times), times, self.cache.now());
        metrics::counter!("octroi_policyd_greylist_local_total").increment(1);
        if let (true, Some(journal)) = (alone.record, &self.journal) {
            journal.write(triplet, alone.sighting == Sighting::Passed, times);
        }
        alone.sighting
    }

    async fn ask_store(&self, triplet: Triplet, times: Times, deadline: Instant) -> Result<Told, QueueError> {
        if !self.health.is_up() {
            return Err(QueueError::Unavailable);
        }
        let (reply, answer) = oneshot::channel();
        if self.entrance.try_send(Waiting { triplet, times, reply }).is_err() {
            self.health.failed("more requests wait than can be served");
            return Err(QueueError::Unavailable);
        }
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(told)) => Ok(told),
            // The worker has told the error.
            Ok(Err(_)) => Err(QueueError::Unavailable),
            Err(_) => {
                self.health.failed("no answer within the budget");
                Err(QueueError::Late)
            }
        }
    }

    /// What is decided without the store is written down here; none when nothing is.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// Whether the store answers.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Waits until the tasks have ended, after `stop`, and what has been written down is on disk.
    pub async fn ended(&self) {
        self.tasks.wait().await;
        if let Some(journal) = &self.journal {
            journal.flush().await;
        }
    }
}

struct Worker {
    store: Store,
    health: Arc<Health>,
    connection: Option<Connection>,
    durable: bool,
    last: Served,
}

/// The batch before this one.
#[derive(Debug, Clone, Copy, Default)]
struct Served {
    requests: usize,
    took: Duration,
}

fn take_more(waiting: &mut mpsc::Receiver<Waiting>, batch: &mut Vec<Waiting>) {
    while batch.len() < BATCH
        && let Ok(more) = waiting.try_recv()
    {
        batch.push(more);
    }
}

impl Worker {
    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>, stop: &CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut changes = self.health.watch();
        // SQLite has a single writer: there the cleaner would only be in our way, so it works between two batches of ours.
        let mut cleaner = Cleaner::new(&self.store, &self.health);
        let cleans = matches!(self.store, Store::Sqlite(_));
        let clean_again = tokio::time::sleep(cleaner.pause());
        let stopped = stop.cancelled();
        tokio::pin!(clean_again, stopped);
        loop {
            tokio::select! {
                taken = waiting.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    self.gather(&mut waiting, &mut batch).await;
                    self.serve(&mut batch).await;
                }
                () = &mut clean_again, if cleans => {
                    if self.durable && self.connection.is_none() {
                        // The cleaner would leave us one of its own kind.
                        self.connection = self.connect().await.ok();
                    }
                    cleaner.clean(&mut self.connection).await;
                    clean_again.as_mut().reset(Instant::now() + cleaner.pause());
                }
                // While the store is down connections are of no use, and the supervision may need one.
                changed = changes.changed() => match changed {
                    Ok(()) if *changes.borrow_and_update() => {}
                    Ok(()) => self.connection = None,
                    Err(_) => return,
                },
                () = &mut stopped => return,
            }
        }
    }

    /// Takes along what is on its way: requests that are being read at this moment, and after a slow statement (a commit that waits for
    /// the disk) those of the askers that it has just answered. Else one of them would go ahead alone and all others wait for two.
    async fn gather(&mut self, waiting: &mut mpsc::Receiver<Waiting>, batch: &mut Vec<Waiting>) {
        loop {
            let before = batch.len();
            tokio::task::yield_now().await;
            take_more(waiting, batch);
            if batch.len() == before || batch.len() >= BATCH {
                break;
            }
        }
        let expected = self.last.requests.min(BATCH);
        if self.last.took < SLOW || batch.len() * 2 > expected {
            return;
        }
        let more = async { while batch.len() < expected && waiting.recv_many(batch, BATCH - batch.len()).await > 0 {} };
        // Whether the time is over or they are all here.
        let _ = tokio::time::timeout(GATHER, more).await;
    }

    /// Answers a batch. Requests whose askers have gone are left out; on an error nobody gets an answer.
    async fn serve(&mut self, batch: &mut Vec<Waiting>) {
        batch.retain(|waiting| !waiting.reply.is_closed());
        let (begun, requests) = (Instant::now(), batch.len());
        batch.sort_unstable_by(|a, b| (a.times, &a.triplet).cmp(&(b.times, &b.triplet)));
        let mut rest = std::mem::take(batch);
        while let Some(times) = rest.first().map(|waiting| waiting.times) {
            let same = rest.iter().take_while(|waiting| waiting.times == times).count();
            let group: Vec<Waiting> = rest.drain(..same).collect();
            if let Err(error) = self.serve_group(group, times).await {
                self.health.failed(&error.to_string());
                self.connection = None;
            }
        }
        *batch = rest;
        self.last = Served { requests, took: begun.elapsed() };
    }

    async fn serve_group(&mut self, group: Vec<Waiting>, times: Times) -> Result<(), StoreError> {
        let (asks, replies) = merge(group);
        metrics::histogram!("octroi_policyd_store_batch").record(replies.len() as f64);
        let answers = self.ask(&asks, times).await?;
        self.health.succeeded();
        let mut replies = replies.into_iter();
        for (ask, Answer { first, others, keeps }) in asks.iter().zip(answers) {
            for (number, reply) in replies.by_ref().take(ask.requests as usize).enumerate() {
                // The asker may have gone meanwhile.
                let _ = reply.send(Told { sighting: if number == 0 { first } else { others }, keeps });
            }
        }
        Ok(())
    }

    /// Asks with the connection at hand; when that one has died, once more with a new one.
    async fn ask(&mut self, asks: &[Ask], times: Times) -> Result<Vec<Answer>, StoreError> {
        if let Some(mut connection) = self.connection.take() {
            match self.timely(greylist::ask_many(&mut connection, asks, times, None)).await {
                Ok(answers) => {
                    self.connection = Some(connection);
                    return Ok(answers);
                }
                Err(error) => tracing::debug!(%error, "trying again with a new connection"),
            }
        }
        let mut connection = self.connect().await?;
        let answers = self.timely(greylist::ask_many(&mut connection, asks, times, None)).await?;
        self.connection = Some(connection);
        Ok(answers)
    }

    async fn connect(&self) -> Result<Connection, StoreError> {
        self.timely(Connection::acquire_for_triplets(&self.store, self.durable)).await
    }

    /// Work with a limit in time, given up too when the store counts as down: nobody waits for it any more.
    async fn timely<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let mut changes = self.health.watch();
        tokio::select! {
            done = work => done,
            _ = changes.wait_for(|up| !up) => Err(StoreError::Unavailable("given up".to_owned())),
            () = tokio::time::sleep(STATEMENT_TIME) => {
                Err(StoreError::Unavailable(format!("no answer within {} seconds", STATEMENT_TIME.as_secs())))
            }
        }
    }
}

/// Sorted requests to sorted, different asks, and whom to tell, in the same order.
fn merge(group: Vec<Waiting>) -> (Vec<Ask>, Vec<oneshot::Sender<Told>>) {
    let mut asks: Vec<Ask> = Vec::with_capacity(group.len());
    let mut replies = Vec::with_capacity(group.len());
    for Waiting { triplet, reply, .. } in group {
        replies.push(reply);
        match asks.last_mut() {
            Some(last) if last.triplet == triplet => last.requests += 1,
            _ => asks.push(Ask { triplet, requests: 1 }),
        }
    }
    (asks, replies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_triplets_become_one_ask() {
        let times = Times { delay: 1, retry_window: 2, keep_passed: 3 };
        let waiting = |sender: &str| Waiting {
            triplet: Triplet::new([192, 0, 2, 1].into(), sender, "r@example.org", 24, 64),
            times,
            reply: oneshot::channel().0,
        };
        let (asks, replies) = merge(vec![waiting("a@x"), waiting("a@x"), waiting("b@x")]);
        assert_eq!(asks.iter().map(|ask| ask.requests).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(replies.len(), 3);
    }
}
