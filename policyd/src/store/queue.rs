// SPDX-License-Identifier: GPL-3.0-or-later
//! The queue between requests and the greylist statements. A few workers hold one connection each and take all that waits as one
//! batch: under load many requests share one statement and one commit, and requests for the same triplet become one row.
//!
//! A request waits at most until its deadline. A worker whose statement hangs is given up with its connection.

use std::sync::Arc;
use std::time::Duration;

use common::store::{Store, StoreError};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Connection;
use super::greylist::{self, Ask, Sighting, Times};
use super::health::Health;
use crate::triplet::Triplet;

/// Requests that may wait; more only come in when the store is far behind, and get the fallback.
const WAITING: usize = 4096;
/// Requests in one statement.
const BATCH: usize = 128;
/// Workers with PostgreSQL: enough to keep it busy during commits, few enough for batches to form.
const WORKERS: u32 = 4;
/// Time for one statement, after which its connection counts as dead.
const STATEMENT_TIME: Duration = Duration::from_secs(6);
/// Pause between two rounds of cleaning, and between two batches of one round.
const CLEAN_PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(50));
/// Expired rows deleted in one transaction.
const CLEAN_BATCH: u32 = 500;

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
    reply: oneshot::Sender<Sighting>,
}

/// The way to the greylist.
#[derive(Debug, Clone)]
pub struct GreylistQueue {
    entrance: mpsc::Sender<Waiting>,
    health: Arc<Health>,
    tasks: TaskTracker,
}

impl GreylistQueue {
    /// Starts the workers and the supervision of `store`; they end when `stop` is cancelled.
    pub fn start(store: &Store, stop: &CancellationToken) -> Self {
        let (entrance, waiting) = mpsc::channel(WAITING);
        let health = Arc::new(Health::new());
        let tasks = TaskTracker::new();
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..workers(store) {
            let worker = Worker { store: store.clone(), health: health.clone(), connection: None };
            let (waiting, stop) = (waiting.clone(), stop.clone());
            tasks.spawn(async move { worker.run(&waiting, number == 0, &stop).await });
        }
        let (supervised, watched, stop) = (store.clone(), health.clone(), stop.clone());
        tasks.spawn(async move { watched.supervise(&supervised, &stop).await });
        tasks.close();
        Self { entrance, health, tasks }
    }

    /// Asks for one triplet.
    pub async fn ask(&self, triplet: Triplet, times: Times, deadline: Instant) -> Result<Sighting, QueueError> {
        if !self.health.is_up() {
            return Err(QueueError::Unavailable);
        }
        let (reply, answer) = oneshot::channel();
        if self.entrance.try_send(Waiting { triplet, times, reply }).is_err() {
            self.health.failed("more requests wait than can be served");
            return Err(QueueError::Unavailable);
        }
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(sighting)) => Ok(sighting),
            // The worker has told the error.
            Ok(Err(_)) => Err(QueueError::Unavailable),
            Err(_) => {
                self.health.failed("no answer within the budget");
                Err(QueueError::Late)
            }
        }
    }

    /// Whether the store answers.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Waits until the workers have ended, after `stop`.
    pub async fn ended(&self) {
        self.tasks.wait().await;
    }
}

/// One connection is left to the supervision and to others; SQLite has a single writer anyway.
fn workers(store: &Store) -> u32 {
    match store {
        Store::Postgres(pool) => pool.options().get_max_connections().saturating_sub(1).clamp(1, WORKERS),
        Store::Sqlite(_) => 1,
    }
}

struct Worker {
    store: Store,
    health: Arc<Health>,
    connection: Option<Connection>,
}

impl Worker {
    async fn run(mut self, waiting: &Mutex<mpsc::Receiver<Waiting>>, cleans: bool, stop: &CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut changes = self.health.watch();
        let clean_again = tokio::time::sleep(CLEAN_PAUSES.0);
        let stopped = stop.cancelled();
        tokio::pin!(clean_again, stopped);
        loop {
            let next = async { waiting.lock().await.recv_many(&mut batch, BATCH).await };
            tokio::select! {
                taken = next => {
                    if taken == 0 {
                        return;
                    }
                    self.serve(&mut batch).await;
                }
                () = &mut clean_again, if cleans => {
                    let pause = self.clean().await;
                    clean_again.as_mut().reset(Instant::now() + pause);
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

    /// Answers a batch. Requests whose askers have gone are left out; on an error nobody gets an answer.
    async fn serve(&mut self, batch: &mut Vec<Waiting>) {
        batch.retain(|waiting| !waiting.reply.is_closed());
        batch.sort_by(|a, b| (a.times, &a.triplet).cmp(&(b.times, &b.triplet)));
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
    }

    async fn serve_group(&mut self, group: Vec<Waiting>, times: Times) -> Result<(), StoreError> {
        let (asks, replies) = merge(group);
        metrics::histogram!("octroi_policyd_store_batch").record(replies.len() as f64);
        let answers = self.ask(&asks, times).await?;
        self.health.succeeded();
        let mut replies = replies.into_iter();
        for (ask, (first, others)) in asks.iter().zip(answers) {
            for (number, reply) in replies.by_ref().take(ask.requests as usize).enumerate() {
                // The asker may have gone meanwhile.
                let _ = reply.send(if number == 0 { first } else { others });
            }
        }
        Ok(())
    }

    /// Asks with the connection at hand; when that one has died, once more with a new one.
    async fn ask(&mut self, asks: &[Ask], times: Times) -> Result<Vec<(Sighting, Sighting)>, StoreError> {
        if let Some(mut connection) = self.connection.take() {
            match timely(greylist::ask_many(&mut connection, asks, times, None)).await {
                Ok(answers) => {
                    self.connection = Some(connection);
                    return Ok(answers);
                }
                Err(error) => tracing::debug!(%error, "trying again with a new connection"),
            }
        }
        let mut connection = timely(Connection::acquire(&self.store)).await?;
        let answers = timely(greylist::ask_many(&mut connection, asks, times, None)).await?;
        self.connection = Some(connection);
        Ok(answers)
    }

    /// Deletes one batch of what has expired, and gives the pause until the next.
    async fn clean(&mut self) -> Duration {
        if !self.health.is_up() {
            return CLEAN_PAUSES.0;
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match timely(Connection::acquire(&self.store)).await {
                Ok(connection) => connection,
                Err(error) => {
                    self.health.failed(&error.to_string());
                    return CLEAN_PAUSES.0;
                }
            },
        };
        match timely(greylist::clean(&mut connection, CLEAN_BATCH, None)).await {
            Ok(deleted) => {
                self.connection = Some(connection);
                metrics::counter!("octroi_policyd_greylist_expired_total").increment(deleted);
                if deleted >= u64::from(CLEAN_BATCH) { CLEAN_PAUSES.1 } else { CLEAN_PAUSES.0 }
            }
            Err(error) => {
                self.health.failed(&error.to_string());
                CLEAN_PAUSES.0
            }
        }
    }
}

async fn timely<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_TIME, work).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {} seconds", STATEMENT_TIME.as_secs()))),
    }
}

/// Sorted requests to sorted, different asks, and whom to tell, in the same order.
fn merge(group: Vec<Waiting>) -> (Vec<Ask>, Vec<oneshot::Sender<Sighting>>) {
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
