// SPDX-License-Identifier: GPL-3.0-or-later
//! The way to the marks: made in batches behind the back of the requests, read when a request needs them, and remembered for a minute.
//!
//! Nobody waits for a mark to be written. When the store is away, or more come than can be written, they are dropped and counted. While
//! nothing is marked at all the store is not asked.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::store::{Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batches::{self, CLEAN_BATCH, Rows};
use super::book::TrustBook;
use super::health::Health;
use super::marks::{self, Mark};
use super::never::{self, Never};
use super::{Connection, timely};

/// Marks that may wait to be written.
const WAITING: usize = 4096;
/// Keys remembered per generation.
const GENERATION: usize = 16_384;
/// How long it is remembered what the store knows of a key.
const KEPT: Duration = Duration::from_secs(60);

/// What was known of a key, and when.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    until: Option<Instant>,
}

/// On what condition a network is marked: more than `most` of the triplets of `client` never came again, and these are at least `percent`
/// of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    /// The client as its triplets name it.
    pub client: String,
    /// Triplets that may be so.
    pub most: i64,
    /// Share of all its triplets, in percent.
    pub percent: u8,
    /// When a triplet counts.
    pub never: Never,
}

/// What is to be written: a mark, or one whose condition is looked at first.
#[derive(Debug)]
enum Order {
    Make(Mark),
    Judge(Mark, Suspicion),
}

/// Makes marks and looks for them.
#[derive(Debug)]
pub struct Marker {
    entrance: mpsc::Sender<Order>,
    any: Arc<AtomicBool>,
    hasher: RandomState,
    known: Mutex<[HashMap<u64, Seen>; 2]>,
}

impl Marker {
    /// A marker, and the work of writing, which ends when `stop` is cancelled.
    pub fn new(
        store: &Store,
        health: &Arc<Health>,
        stop: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (entrance, waiting) = mpsc::channel(WAITING);
        // Until the store has told, there may be some.
        let any = Arc::new(AtomicBool::new(true));
        let writer = Writer { store: store.clone(), health: health.clone(), any: any.clone() };
        let marker = Self { entrance, any, hasher: RandomState::new(), known: Mutex::default() };
        (marker, writer.run(waiting, stop.clone()))
    }

    /// Makes a mark, unless it was made or seen a moment ago.
    pub fn mark(&self, mark: Mark) {
        let now = Instant::now();
        if matches!(self.seen(&mark.key, now), Some(Some(_))) {
            return;
        }
        let keep = Duration::from_millis(u64::try_from(mark.keep).unwrap_or_default());
        self.remember(&mark.key, Seen { at: now, until: now.checked_add(keep) });
        if self.entrance.try_send(Order::Make(mark)).is_err() {
            dropped(1);
        }
    }

    /// Has a mark made if the store bears the suspicion out; each key is judged at most once a minute. Nobody waits for it, and what is
    /// found shows when the key is next looked up.
    pub fn judge(&self, mark: Mark, suspicion: Suspicion) {
        let (now, judged) = (Instant::now(), format!("judged {}", mark.key));
        if self.seen(&judged, now).is_some() {
            return;
        }
        self.remember(&judged, Seen { at: now, until: None });
        if self.entrance.try_send(Order::Judge(mark, suspicion)).is_err() {
            dropped(1);
        }
    }

    /// Those of `keys` that are marked, and for how many milliseconds still. Without an answer none is.
    pub async fn marked(&self, book: &TrustBook, keys: Vec<String>, deadline: Instant) -> Vec<(String, i64)> {
        let now = Instant::now();
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for key in keys {
            match self.seen(&key, now) {
                Some(Some(left)) => found.push((key, left)),
                None if self.any.load(Ordering::Relaxed) => unknown.push(key),
                Some(None) | None => {}
            }
        }
        if unknown.is_empty() {
            return found;
        }
        let Some(answer) = book.marks(&unknown, deadline).await else { return found };
        for key in unknown {
            let left = answer.iter().find(|(marked, _)| *marked == key).map(|(_, left)| *left);
            let until = left.map(|left| now + Duration::from_millis(u64::try_from(left).unwrap_or_default()));
            self.remember(&key, Seen { at: now, until });
            found.extend(left.map(|left| (key, left)));
        }
        found
    }

    /// What is remembered of a key: nothing, that it is not marked, or for how many milliseconds it is.
    fn seen(&self, key: &str, now: Instant) -> Option<Option<i64>> {
        let hash = self.hasher.hash_one(key);
        let seen = self.known().iter().find_map(|keys| keys.get(&hash).copied())?;
        if now.duration_since(seen.at) >= KEPT {
            return None;
        }
        let left = |until: Instant| i64::try_from(until.duration_since(now).as_millis()).unwrap_or(i64::MAX);
        Some(seen.until.map(left).filter(|left| *left > 0))
    }

    /// What was learned later stays.
    fn remember(&self, key: &str, seen: Seen) {
        let hash = self.hasher.hash_one(key);
        let [young, old] = &mut *self.known();
        if young.len() >= GENERATION {
            std::mem::swap(young, old);
            young.clear();
        }
        let entry = young.entry(hash).or_insert(seen);
        if entry.at <= seen.at {
            *entry = seen;
        }
    }

    fn known(&self) -> MutexGuard<'_, [HashMap<u64, Seen>; 2]> {
        // A panic of another thread leaves nothing half done here.
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn dropped(marks: usize) {
    metrics::counter!("octroi_policyd_marks_dropped_total").increment(marks as u64);
}

/// The marks to be made: those whose suspicion holds tell why.
async fn judged(connection: &mut Connection, orders: Vec<Order>) -> Result<Vec<Mark>, StoreError> {
    let mut marks = Vec::with_capacity(orders.len());
    for order in orders {
        match order {
            Order::Make(mark) => marks.push(mark),
            Order::Judge(mark, Suspicion { client, most, percent, never }) => {
                let share = never::share(connection, &client, never, None).await?;
                if share.never > most && share.reaches(percent) {
                    metrics::counter!("octroi_policyd_networks_trapped_total").increment(1);
                    tracing::info!(
                        key = mark.key,
                        never = share.never,
                        of = share.all,
                        "trapped: it never comes again"
                    );
                    let fact = format!("{} of {} triplets never came again", share.never, share.all);
                    marks.push(Mark { fact, ..mark });
                }
            }
        }
    }
    Ok(marks)
}

struct Writer {
    store: Store,
    health: Arc<Health>,
    any: Arc<AtomicBool>,
}

impl Rows for Writer {
    type Row = Order;

    async fn write(&mut self, batch: Vec<Order>) {
        let number = batch.len();
        if number == 0 {
            return;
        }
        let written = timely(async {
            let mut connection = self.connect().await?;
            let marks = judged(&mut connection, batch).await?;
            match marks.is_empty() {
                true => Ok(false),
                false => marks::write(&mut connection, marks).await.map(|()| true),
            }
        });
        match written.await {
            Ok(true) => self.any.store(true, Ordering::Relaxed),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, marks = number, "marks are lost");
                dropped(number);
            }
        }
    }

    /// Learns whether anything is left, too.
    async fn clean(&mut self) -> Option<u64> {
        let cleaned = timely(async {
            let mut connection = self.connect().await?;
            let deleted = marks::clean(&mut connection, CLEAN_BATCH).await?;
            Ok((deleted, marks::any(&mut connection).await?))
        });
        match cleaned.await {
            Ok((deleted, any)) => {
                self.any.store(any, Ordering::Relaxed);
                Some(deleted)
            }
            Err(error) => {
                tracing::debug!(%error, "expired marks could not be deleted");
                self.any.store(true, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Writer {
    async fn run(self, waiting: mpsc::Receiver<Order>, stop: CancellationToken) {
        let mut up = self.health.watch();
        tokio::select! {
            // The sender lives as long as `self`.
            _ = up.wait_for(|up| *up) => {}
            () = stop.cancelled() => return,
        }
        // At once: it tells whether anything is marked.
        batches::run(self, waiting, Duration::ZERO, &stop).await;
    }

    /// A connection for this once: marks are rare enough, and a small pool has none to spare.
    async fn connect(&self) -> Result<Connection, StoreError> {
        match self.health.is_up() {
            true => Connection::acquire_losable(&self.store).await,
            false => Err(StoreError::Unavailable("it counts as down".to_owned())),
        }
    }
}
