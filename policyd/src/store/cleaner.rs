// SPDX-License-Identifier: GPL-3.0-or-later
//! Deletes what has expired, a little at a time. On PostgreSQL one host of the farm is elected for each batch by an advisory lock,
//! and rows that a decision has locked are left for the next round; SQLite has one writer, which cleans between decisions.

use std::sync::Arc;
use std::time::Duration;

use common::store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::{Connection, greylist};

/// Pause between two rounds of cleaning, and between two batches of one round.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(50));
/// Before the first round: a daemon that has just started has other work.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Expired rows deleted in one transaction: on PostgreSQL some 5 ms of one processor, on SQLite as long as decisions may wait.
const BATCHES: (u32, u32) = (500, 200);
/// Time for one batch.
const TIME: Duration = Duration::from_secs(6);

/// The cleaner of one host.
#[derive(Debug)]
pub(super) struct Cleaner {
    store: Store,
    health: Arc<Health>,
    batch: u32,
    pause: Duration,
}

impl Cleaner {
    pub(super) fn new(store: &Store, health: &Arc<Health>) -> Self {
        let batch = if matches!(store, Store::Postgres(_)) { BATCHES.0 } else { BATCHES.1 };
        Self { store: store.clone(), health: health.clone(), batch, pause: FIRST_PAUSE }
    }

    /// Time until the next batch.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// Cleans with a connection of its own until `stop`.
    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        let mut connection = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.pause) => {}
                () = stop.cancelled() => return,
            }
            self.clean(&mut connection).await;
            if self.pause != PAUSES.1 {
                connection = None;
            }
        }
    }

    /// Deletes one batch. A failure is told and no more: the decisions will notice by themselves when the store is away.
    pub(super) async fn clean(&mut self, place: &mut Option<Connection>) {
        self.pause = PAUSES.0;
        if !self.health.is_up() {
            *place = None;
            return;
        }
        match tokio::time::timeout(TIME, delete(&self.store, self.batch, place)).await {
            Ok(Ok(deleted)) => {
                metrics::counter!("octroi_policyd_greylist_expired_total").increment(deleted);
                if deleted >= u64::from(self.batch) {
                    self.pause = PAUSES.1;
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "expired triplets could not be deleted"),
            Err(_) => tracing::warn!("expired triplets could not be deleted in time"),
        }
    }
}

/// The connection is put back only when all went well.
async fn delete(store: &Store, batch: u32, place: &mut Option<Connection>) -> Result<u64, StoreError> {
    let mut connection = match place.take() {
        Some(connection) => connection,
        None => Connection::acquire_losable(store).await?,
    };
    let deleted = greylist::clean(&mut connection, batch, None).await?;
    *place = Some(connection);
    Ok(deleted)
}
