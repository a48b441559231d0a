// SPDX-License-Identifier: GPL-3.0-or-later
//! The ledger: messages that must not be delivered again, because the next hop has them and the client may not know; and messages that were
//! under inspection when the daemon crashed or time ran out.
//!
//! Only what went wrong is in it, so it is small, and every host keeps all of it in memory: a message asks no store on its way. A row is written to
//! the store as soon as it is known, and read from there by the other hosts within a second. docs/decisions/0012.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::store::{Store, StoreError};
use common::units::Period;
use metrics::{counter, gauge};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::identity::Key;
use crate::quarantine::file::hex;
use crate::store::Access;
use crate::store::ledger::{self as rows, Row};
use crate::witness::record;

/// Rows that are kept in memory, at most.
const MOST: usize = 200_000;
/// Lots of rows that may wait to be written.
const WAITING: usize = 4096;
/// Between two looks at what other hosts have written.
const LOOK: Duration = Duration::from_secs(1);
/// Without a look for so long, the ledger of the farm counts as unknown.
const STALE: Duration = Duration::from_secs(10);
/// Rows read, and forgotten, at once.
const BATCH: i64 = 1000;
/// Looks between two rounds of forgetting.
const CLEAN_EVERY: u32 = 60;

/// Section `[ledger]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerSettings {
    /// How long a message that was delivered, or crashed the daemon, is remembered.
    pub keep: Period,
    /// What happens to mail while the store cannot be read.
    pub on_store_error: OnStoreError,
    /// Where the witness writes what it finds after a crash; empty: `contentd` in $STATE_DIRECTORY, else in /var/lib/octroi.
    pub directory: String,
}

/// What happens to mail while nobody knows what other hosts have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStoreError {
    /// It goes on with what this host knows.
    Pass,
    /// The client is told to try again.
    Tempfail,
}

impl Default for LedgerSettings {
    fn default() -> LedgerSettings {
        LedgerSettings {
            keep: Period::seconds(5 * 86_400),
            on_store_error: OnStoreError::Pass,
            directory: String::new(),
        }
    }
}

impl LedgerSettings {
    /// Where the witness writes.
    pub fn folder(&self) -> std::path::PathBuf {
        if self.directory.is_empty() {
            common::store::state_folder().join("contentd")
        } else {
            (&self.directory).into()
        }
    }

    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut mistakes = Vec::new();
        if self.keep.0.is_zero() {
            mistakes.push(("keep", "must be longer than 0s".to_owned()));
        }
        if !self.directory.is_empty() && !std::path::Path::new(&self.directory).is_absolute() {
            mistakes.push(("directory", format!("{:?} does not begin with /", self.directory)));
        }
        mistakes
    }
}

/// What is known of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The next hop has it, for one recipient.
    Delivered,
    /// The daemon ended while it was inspected.
    Crashed,
    /// The time ran out while it was inspected.
    Late,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Delivered, Kind::Crashed, Kind::Late];

    fn word(self) -> &'static str {
        match self {
            Kind::Delivered => "delivered",
            Kind::Crashed => "crashed",
            Kind::Late => "late",
        }
    }
}

/// The tries of one message, or of one message for one recipient.
#[derive(Debug, Clone)]
struct Known {
    /// Ids of the tries.
    ids: Vec<String>,
    reply: String,
    until: Instant,
}

#[derive(Debug, Default)]
struct Memory {
    known: HashMap<(Kind, Key), Known>,
    /// The witness is still finding out.
    open: HashSet<Key>,
    last_look: Option<Instant>,
}

/// Rows that belong together, and who wants to know when they are written.
#[derive(Debug)]
struct Lot {
    rows: Vec<Row>,
    done: oneshot::Sender<()>,
}

/// The ledger as this host knows it.
#[derive(Debug)]
pub struct Ledger {
    memory: Mutex<Memory>,
    /// So many are in memory: mostly none, and then nobody need look.
    size: AtomicUsize,
    entrance: mpsc::Sender<Lot>,
    waiting: Mutex<Option<mpsc::Receiver<Lot>>>,
    access: Arc<Access>,
    host: String,
    /// One message at a time is inspected of those that crashed the daemon before.
    pub(crate) alone: Arc<tokio::sync::Semaphore>,
    full: AtomicBool,
}

impl Ledger {
    /// An empty ledger that is kept in this store.
    pub fn new(access: Arc<Access>) -> Arc<Ledger> {
        let (entrance, waiting) = mpsc::channel(WAITING);
        Arc::new(Ledger {
            memory: Mutex::default(),
            size: AtomicUsize::new(0),
            entrance,
            waiting: Mutex::new(Some(waiting)),
            access,
            host: common::mail::hostname(),
            alone: Arc::new(tokio::sync::Semaphore::new(1)),
            full: AtomicBool::new(false),
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change is one insert or remove: there is nothing half done.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next hop's reply, when it has this message for this recipient.
    pub fn delivered(&self, key: Key) -> Option<String> {
        self.find(Kind::Delivered, key).map(|known| known.reply)
    }

    /// How many tries of a message ended in this way.
    pub fn tries(&self, kind: Kind, key: Key) -> usize {
        self.find(kind, key).map_or(0, |known| known.ids.len())
    }

    /// Whether a witness is still finding out what became of it.
    pub fn is_open(&self, key: Key) -> bool {
        self.size.load(Ordering::Relaxed) > 0 && self.memory().open.contains(&key)
    }

    fn find(&self, kind: Kind, key: Key) -> Option<Known> {
        if self.size.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.memory().known.get(&(kind, key)).filter(|known| known.until > Instant::now()).cloned()
    }

    /// Whether nothing is known of any message.
    pub fn is_empty(&self) -> bool {
        self.size.load(Ordering::Relaxed) == 0
    }

    /// Whether the store has been read lately.
    pub fn is_fresh(&self) -> bool {
        self.memory().last_look.is_some_and(|last| last.elapsed() < STALE)
    }

    /// Remembers a try. What comes back becomes ready when it is in the store, for the other hosts and for the time after a restart; an error
    /// means that it will never be.
    pub fn add(&self, kind: Kind, keys: &[Key], id: &str, reply: &str, keep: Period) -> oneshot::Receiver<()> {
        counter!("octroi_contentd_ledger_total", "kind" => kind.word()).increment(1);
        for key in keys {
            self.learn(kind, *key, id, reply, keep.0);
        }
        let row = |key: &Key| Row {
            kind: kind.word(),
            key: hex(key),
            id: id.to_owned(),
            reply: reply.to_owned(),
            keep: keep.as_millis(),
        };
        let (done, written) = oneshot::channel();
        if self.entrance.try_send(Lot { rows: keys.iter().map(row).collect(), done }).is_err() {
            counter!("octroi_contentd_ledger_dropped_total").increment(1);
        }
        written
    }

    fn learn(&self, kind: Kind, key: Key, id: &str, reply: &str, left: Duration) {
        let mut memory = self.memory();
        if memory.known.len() >= MOST && !memory.known.contains_key(&(kind, key)) {
            if !self.full.swap(true, Ordering::Relaxed) {
                tracing::error!(most = MOST, "the ledger is full; messages may come twice");
            }
            counter!("octroi_contentd_ledger_dropped_total").increment(1);
            return;
        }
        let fresh = || Known { ids: Vec::new(), reply: reply.to_owned(), until: Instant::now() };
        let known = memory.known.entry((kind, key)).or_insert_with(fresh);
        known.until = known.until.max(Instant::now() + left.min(Duration::from_secs(86_400 * 365)));
        if known.ids.len() < 8 && !known.ids.iter().any(|old| old == id) {
            known.ids.push(id.to_owned());
        }
        self.count(&memory);
    }

    /// A witness is finding out what became of the message with these keys, or has found out.
    pub fn open(&self, keys: &[Key], is_open: bool) {
        let mut memory = self.memory();
        if is_open {
            memory.open.extend(keys);
        } else {
            keys.iter().for_each(|key| _ = memory.open.remove(key));
        }
        self.count(&memory);
    }

    fn count(&self, memory: &Memory) {
        self.size.store(memory.known.len() + memory.open.len(), Ordering::Relaxed);
        gauge!("octroi_contentd_ledger_rows").set(memory.known.len() as f64);
    }

    /// Writes and reads until `stop`; what waits then is written if the store answers.
    pub async fn keep(&self, stop: CancellationToken) {
        let taken = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = taken else { return };
        let mut backlog: Vec<Lot> = Vec::new();
        let mut looker = Looker::default();
        tokio::select! {
            () = self.access.tried() => looker.look(self).await,
            () = stop.cancelled() => {}
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = waiting.recv_many(&mut backlog, 256), if backlog.len() < WAITING => {}
                _ = look.tick() => looker.look(self).await,
                () = stop.cancelled() => break,
            }
            self.write(&mut backlog).await;
        }
        while let Ok(lot) = waiting.try_recv() {
            backlog.push(lot);
        }
        self.write(&mut backlog).await;
        if !backlog.is_empty() {
            tracing::warn!(lots = backlog.len(), "not written to the ledger; the witness keeps what it can");
        }
    }

    /// Writes what waits; it goes on waiting when the store is away.
    async fn write(&self, backlog: &mut Vec<Lot>) {
        if backlog.is_empty() {
            return;
        }
        let all: Arc<Vec<Row>> = Arc::new(backlog.iter().flat_map(|lot| lot.rows.iter().cloned()).collect());
        let written = self.access.run(|store| {
            let (all, host) = (all.clone(), self.host.clone());
            async move { rows::write(&store, &host, &all).await }
        });
        match written.await {
            // Whoever no longer waits for it does not need to know.
            Ok(()) => backlog.drain(..).for_each(|lot| _ = lot.done.send(())),
            Err(error) => {
                counter!("octroi_contentd_ledger_errors_total", "at" => "write").increment(1);
                tracing::debug!(%error, rows = all.len(), "the ledger cannot be written now");
            }
        }
    }
}

/// Reads what other hosts write.
#[derive(Debug, Default)]
struct Looker {
    /// The latest row that was seen.
    seen: i64,
    looks: u32,
    failing: bool,
}

impl Looker {
    async fn look(&mut self, ledger: &Ledger) {
        let Ok(store) = ledger.access.store() else { return };
        match self.read(ledger, &store).await {
            Ok(()) => {
                ledger.memory().last_look = Some(Instant::now());
                self.failing = false;
            }
            Err(error) => {
                counter!("octroi_contentd_ledger_errors_total", "at" => "read").increment(1);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "the ledger cannot be read; what other hosts have delivered is not known");
                }
            }
        }
    }

    async fn read(&mut self, ledger: &Ledger, store: &Store) -> Result<(), StoreError> {
        let changes = rows::changes(store, self.seen, BATCH).await?;
        for row in changes {
            self.seen = self.seen.max(row.written);
            let kind = Kind::ALL.into_iter().find(|kind| kind.word() == row.kind);
            if let (Some(kind), Some(key)) = (kind, record::key(&row.key)) {
                let left = Duration::from_millis(u64::try_from(row.left).unwrap_or_default());
                ledger.learn(kind, key, &row.id, &row.reply, left);
            }
        }
        self.looks += 1;
        if self.looks.is_multiple_of(CLEAN_EVERY) {
            rows::clean(store, BATCH).await?;
            let mut memory = ledger.memory();
            memory.known.retain(|_, known| known.until > Instant::now());
            ledger.full.store(false, Ordering::Relaxed);
            ledger.count(&memory);
        }
        Ok(())
    }
}

/// Tells the metrics page what the ledger's numbers mean.
pub fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge};
    describe_counter!("octroi_contentd_ledger_total", "Messages entered in the ledger, by kind");
    describe_counter!("octroi_contentd_ledger_dropped_total", "Messages that could not be entered");
    describe_counter!("octroi_contentd_ledger_errors_total", "Times the ledger could not be read or written");
    describe_counter!("octroi_contentd_repeats_total", "Messages that came again and were not delivered again");
    describe_gauge!("octroi_contentd_ledger_rows", "Rows of the ledger, of all hosts");
}
