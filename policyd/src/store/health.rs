// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether the store answers: a circuit breaker. After a few failures in a row requests are answered from the fallback at once,
//! while one task tries the store in the background; the same task makes the schema when the daemon starts, and has the store take
//! over the journal before requests ask it again.
//!
//! Every change of state is one line in the log.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::store::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::{Connection, greylist};

/// Failures in a row that make the store count as down.
const FAILURES: u32 = 3;
/// Time for one try of the store.
const TRY_TIME: Duration = Duration::from_secs(2);
/// Shortest and longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A store that fails again within this time is given a longer pause each time, so that one that is just too slow does
/// not change state several times a second.
const STEADY: Duration = Duration::from_secs(10);

/// The store as the requests see it.
#[derive(Debug)]
pub struct Health {
    up: watch::Sender<bool>,
    failures: AtomicU32,
    was_up: AtomicBool,
    gauge: metrics::Gauge,
}

impl Health {
    /// Not known to be up.
    pub fn new() -> Self {
        let gauge = metrics::gauge!("octroi_policyd_store_up");
        gauge.set(0.0);
        Self { up: watch::Sender::new(false), failures: AtomicU32::new(0), was_up: AtomicBool::new(false), gauge }
    }

    /// True while requests may ask the store.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// To wait for changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// The store has answered.
    pub fn succeeded(&self) {
        // Reading alone keeps the cache line shared in the common case.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// The store has not answered, or with an error.
    pub fn failed(&self, error: &str) {
        metrics::counter!("octroi_policyd_store_failures_total").increment(1);
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.change(false, error);
        }
    }

    fn change(&self, up: bool, why: &str) {
        self.failures.store(0, Ordering::Relaxed);
        if !self.up.send_if_modified(|state| std::mem::replace(state, up) != up) {
            return;
        }
        self.gauge.set(if up { 1.0 } else { 0.0 });
        match up {
            true if !self.was_up.swap(true, Ordering::Relaxed) => tracing::info!("the store answers"),
            true => tracing::warn!("the store answers again"),
            false => tracing::warn!(error = why, "the store does not answer; on_store_error decides until it does"),
        }
    }

    /// Brings the schema up to date and then watches over the store until `stop`.
    pub async fn supervise(&self, store: &Store, journal: Option<&Journal>, stop: &CancellationToken) {
        let mut pause = PAUSES.0;
        loop {
            let work = async {
                self.recover(store, journal, pause).await;
                let since = Instant::now();
                self.until_down(store, journal).await;
                pause = if since.elapsed() < STEADY { (pause * 2).min(PAUSES.1) } else { PAUSES.0 };
                tokio::time::sleep(pause).await;
            };
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Waits until the store counts as down. A request may come too late while it is up; what is written down then is taken over
    /// soon.
    async fn until_down(&self, store: &Store, journal: Option<&Journal>) {
        let mut changes = self.watch();
        loop {
            if let Some(journal) = journal
                && let Err(error) = journal.replay(store).await
            {
                tracing::warn!(%error, "the journal could not be taken over yet");
            }
            // The sender lives as long as `self`.
            if tokio::time::timeout(STEADY, changes.wait_for(|up| !up)).await.is_ok() {
                return;
            }
        }
    }

    /// Tries until the store answers, with pauses that grow from `pause`.
    async fn recover(&self, store: &Store, journal: Option<&Journal>, mut pause: Duration) {
        let mut told = String::new();
        loop {
            let error = match try_store(store, journal).await {
                Ok(()) => return self.change(true, ""),
                Err(error) => error,
            };
            let (broken, error) = (matches!(error, StoreError::Broken(_)), error.to_string());
            // Once per cause: an administrator reads why it does not start, and no line per try.
            if error != told {
                match broken {
                    true => tracing::error!(error, "the store cannot be used"),
                    false => tracing::warn!(error, "the store cannot be reached yet"),
                }
                told = error;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// One try: a connection within [`TRY_TIME`], the schema, the table, the journal. The schema has no time limit: cut off in the
/// middle, migrations would leave their lock behind.
async fn try_store(store: &Store, journal: Option<&Journal>) -> Result<(), StoreError> {
    let late = || StoreError::Unavailable(format!("no answer within {} seconds", TRY_TIME.as_secs()));
    // Also clears the pool of connections that have died.
    drop(tokio::time::timeout(TRY_TIME, Connection::acquire(store)).await.map_err(|_| late())??);
    store.migrate().await?;
    let table = async { greylist::probe(&mut Connection::acquire(store).await?).await };
    tokio::time::timeout(TRY_TIME, table).await.map_err(|_| late())??;
    match journal {
        Some(journal) => journal.replay(store).await.map(drop),
        None => Ok(()),
    }
}
