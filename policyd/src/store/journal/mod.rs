// SPDX-License-Identifier: GPL-3.0-or-later
//! What was decided without the store, in a file of bounded size, until the store takes it over. A thread writes it, so that no
//! decision waits for a disk; what has come is given to the system at once, so that a crash of this program loses next to nothing, and
//! is put on the disk once a second, so that a power cut loses about as much.
//!
//! Taking over may be broken off and done again: records are merged into the rows (earliest first seen, latest last seen, passed when
//! either has passed), charges of limits are known by their ids, and the file goes only when all of it is in the store. Clocks are
//! compared first: the store's counts.

mod record;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::store::{Store, StoreError};
use tokio::sync::oneshot;

use super::Connection;
use super::greylist::Times;
use super::import::{self, Past};
use super::limits::handover::hand_over;
use crate::limits::handover::{Baths, Charged, Rest};
use crate::limits::plan::Order;
use crate::triplet::Triplet;
use record::encode_charges;
pub use record::{Entry, Record};

/// Records on their way to the thread; more are lost, and counted.
const WAITING: usize = 8192;
/// How long written records may be away from the disk.
const SYNC: Duration = Duration::from_secs(1);
/// Records taken over in one transaction.
const CHUNK: usize = 1000;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file cannot be made, read or renamed.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// Another process has it.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
}

enum Message {
    Record(Vec<u8>),
    /// Puts the file aside for taking over; the answer says whether there is one.
    PutAside(oneshot::Sender<io::Result<bool>>),
    Flush(oneshot::Sender<()>),
}

/// The journal of one process.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    entrance: SyncSender<Message>,
    /// Held as long as the journal is ours.
    _lock: File,
}

impl Journal {
    /// Opens the journal at `path`, which may grow to `limit` bytes. Blocks on files.
    pub fn open(path: &Path, limit: u64) -> Result<Self, JournalError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| JournalError::File(path, error)
        };
        let lock_path = path.with_extension("lock");
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(failed(&lock_path))?;
        lock.try_lock().map_err(|_| JournalError::InUse(path.to_owned()))?;
        let (entrance, messages) = sync_channel(WAITING);
        cut_torn_end(path).map_err(failed(path))?;
        let mut writer = Writer::new(path, limit);
        writer.open().map_err(failed(path))?;
        let spawned = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(&messages));
        spawned.map_err(failed(path))?;
        Ok(Self { path: path.to_owned(), entrance, _lock: lock })
    }

    /// Writes down that a triplet was seen now, and whether it passed.
    pub fn write(&self, triplet: &Triplet, passed: bool, times: Times) {
        let record = Record { triplet: triplet.clone(), passed, at: wall_clock(), times };
        self.send(Some(record.encode()));
    }

    /// Writes down what was charged now.
    pub fn write_charges(&self, order: &Order) {
        if let Some(charged) = Charged::of(order, wall_clock()) {
            self.send(encode_charges(&charged));
        }
    }

    fn send(&self, line: Option<Vec<u8>>) {
        match line.map(|line| self.entrance.try_send(Message::Record(line))) {
            Some(Ok(())) => {}
            None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => dropped(),
        }
    }

    /// Reads what an earlier process has left, oldest first, with the age of each entry in milliseconds. Blocks on files.
    pub fn recall(&self, mut take: impl FnMut(&Entry, i64)) {
        let now = wall_clock();
        for path in [aside(&self.path), self.path.clone()] {
            let Ok(file) = File::open(&path) else { continue };
            let mut reader = BufReader::new(file);
            // A damaged end is told when the records are taken over.
            while let Ok(Some(entry)) = Entry::read(&mut reader) {
                let at = match &entry {
                    Entry::Seen(record) => record.at,
                    Entry::Charged(charged) => charged.at,
                };
                take(&entry, now.saturating_sub(at).max(0));
            }
        }
    }

    /// Has the store take over everything that has been written down; gives the number of records.
    pub async fn replay(&self, store: &Store) -> Result<u64, StoreError> {
        let mut total = 0;
        while self.put_aside().await? {
            let path = aside(&self.path);
            let records = match take_over(store, &path).await {
                Ok(records) => records,
                // Trying again would not help, and the store must not stay unused because of it.
                Err(StoreError::Broken(error)) => {
                    let kept = path.with_extension("broken");
                    tracing::error!(error, kept = %kept.display(), "the journal cannot be taken over");
                    fs::rename(&path, &kept).map_err(unavailable)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            fs::remove_file(&path).map_err(unavailable)?;
            metrics::counter!("octroi_policyd_journal_replayed_total").increment(records);
            total += records;
        }
        if total > 0 {
            tracing::info!(records = total, "the store has taken over the journal");
        }
        Ok(total)
    }

    /// Waits until everything written down so far is on the disk.
    pub async fn flush(&self) {
        let (reply, done) = oneshot::channel();
        if self.entrance.try_send(Message::Flush(reply)).is_ok() {
            // Without an answer the thread is gone, and has told why.
            let _ = done.await;
        }
    }

    async fn put_aside(&self) -> Result<bool, StoreError> {
        let (reply, done) = oneshot::channel();
        let gone = || StoreError::Unavailable("the journal is busy".to_owned());
        self.entrance.try_send(Message::PutAside(reply)).map_err(|_| gone())?;
        done.await.map_err(|_| gone())?.map_err(unavailable)
    }
}

fn unavailable(error: io::Error) -> StoreError {
    StoreError::Unavailable(format!("journal: {error}"))
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("replay")
}

fn dropped() {
    metrics::counter!("octroi_policyd_journal_dropped_total").increment(1);
}

/// Milliseconds since 1970 by the clock of this host.
fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A crash may have left half a record, which would hide what is written behind it.
fn cut_torn_end(path: &Path) -> io::Result<()> {
    let file = File::options().create(true).append(true).read(true).open(path)?;
    let (mut good, mut reader) = (0, BufReader::new(&file));
    while let Ok(Some(_)) = Entry::read(&mut reader) {
        good = reader.stream_position()?;
    }
    if good < file.metadata()?.len() {
        tracing::warn!(path = %path.display(), bytes = good, "the journal is damaged behind these bytes");
        file.set_len(good)?;
    }
    Ok(())
}

/// Merges all records of a file into the store.
async fn take_over(store: &Store, path: &Path) -> Result<u64, StoreError> {
    let mut connection = Connection::acquire_losable(store).await?;
    let now = import::clock(&mut connection).await?;
    let ahead = now.saturating_sub(wall_clock());
    let file = path.to_owned();
    let mut rest = blocking(move || rest_of(&file, now.saturating_sub(ahead))).await?.map_err(unavailable)?;
    let mut reader = BufReader::new(File::open(path).map_err(unavailable)?);
    let mut total = 0;
    loop {
        let read = blocking(move || {
            let chunk = Chunk::read(&mut reader);
            (reader, chunk)
        });
        let (back, Chunk { records, charged, whole }) = read.await?;
        reader = back;
        let read = records.len() + charged.len();
        let seen = fold(&records, ahead);
        if !seen.is_empty() {
            import::merge(&mut connection, &seen, now).await?;
        }
        if !charged.is_empty() {
            hand_over(&mut connection, charged, &mut rest, now).await?;
        }
        total += read as u64;
        if !whole {
            tracing::warn!(records = total, "the journal is damaged behind these records");
        }
        if !whole || read < CHUNK {
            return Ok(total);
        }
    }
}

/// Work on files, beside the requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| unavailable(io::ErrorKind::Interrupted.into()))
}

/// What is left of all charges of a file at a moment by the clock of this host.
fn rest_of(path: &Path, now: i64) -> io::Result<Rest> {
    let (mut baths, mut reader) = (Baths::default(), BufReader::new(File::open(path)?));
    // A damaged end is told when the records are taken over.
    while let Ok(Some(entry)) = Entry::read(&mut reader) {
        if let Entry::Charged(charged) = &entry {
            baths.add(charged);
        }
    }
    Ok(baths.at(now))
}

/// Entries that are taken over together.
#[derive(Debug)]
struct Chunk {
    records: Vec<Record>,
    charged: Vec<Charged>,
    /// The file is good up to there.
    whole: bool,
}

impl Chunk {
    fn read(reader: &mut BufReader<File>) -> Self {
        let mut chunk = Self { records: Vec::new(), charged: Vec::new(), whole: true };
        while chunk.records.len() + chunk.charged.len() < CHUNK {
            match Entry::read(reader) {
                Ok(Some(Entry::Seen(record))) => chunk.records.push(record),
                Ok(Some(Entry::Charged(charged))) => chunk.charged.push(charged),
                Ok(None) => break,
                Err(_) => {
                    chunk.whole = false;
                    break;
                }
            }
        }
        chunk
    }
}

/// Sorted and different, as the store takes them.
fn fold(records: &[Record], ahead: i64) -> Vec<Past> {
    let mut triplets: BTreeMap<&Triplet, Past> = BTreeMap::new();
    for record in records {
        let past = record.past(ahead);
        match triplets.get_mut(&record.triplet) {
            Some(known) => {
                let tries = known.tries + i64::from(!past.passed);
                known.join(&past);
                known.tries = tries;
            }
            None => drop(triplets.insert(&record.triplet, past)),
        }
    }
    triplets.into_values().collect()
}

/// The thread's side.
struct Writer {
    path: PathBuf,
    limit: u64,
    file: Option<BufWriter<File>>,
    /// Bytes in the file, with those on their way to it.
    size: u64,
    /// Bytes that have reached it.
    good: u64,
    full: bool,
    failing: bool,
    unsynced: Option<Instant>,
}

impl Writer {
    fn new(path: &Path, limit: u64) -> Self {
        let (size, good, full, failing) = (0, 0, false, false);
        Self { path: path.to_owned(), limit, file: None, size, good, full, failing, unsynced: None }
    }

    fn open(&mut self) -> io::Result<()> {
        let file = File::options().create(true).append(true).open(&self.path)?;
        self.good = file.metadata()?.len();
        (self.size, self.full) = (self.good, false);
        self.file = Some(BufWriter::new(file));
        metrics::gauge!("octroi_policyd_journal_bytes").set(self.size as f64);
        Ok(())
    }

    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let patience = self.unsynced.map_or(SYNC, |since| SYNC.saturating_sub(since.elapsed()));
            match messages.recv_timeout(patience) {
                Ok(message) => {
                    self.take(message);
                    messages.try_iter().take(WAITING).for_each(|message| self.take(message));
                    self.attempt(Self::flush);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.unsynced.is_some_and(|since| since.elapsed() >= SYNC) {
                self.attempt(Self::sync);
            }
        }
        self.attempt(Self::sync);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Record(record) => self.attempt(|writer| writer.append(&record)),
            // Whoever asked may have gone.
            Message::PutAside(reply) => drop(reply.send(self.put_aside())),
            Message::Flush(reply) => {
                self.attempt(Self::sync);
                let _ = reply.send(());
            }
        }
    }

    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.size + record.len() as u64 > self.limit {
            dropped();
            if !std::mem::replace(&mut self.full, true) {
                tracing::warn!(bytes = self.size, "the journal is full: decisions go on, but are not written down");
            }
            return Ok(());
        }
        file.write_all(record)?;
        self.size += record.len() as u64;
        self.unsynced.get_or_insert_with(Instant::now);
        metrics::counter!("octroi_policyd_journal_records_total").increment(1);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.flush()?;
        self.good = self.size;
        self.failing = false;
        metrics::gauge!("octroi_policyd_journal_bytes").set(self.size as f64);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced = None;
        self.flush()?;
        self.file.as_ref().map_or(Ok(()), |file| file.get_ref().sync_data())
    }

    /// A file that is put aside already comes first.
    fn put_aside(&mut self) -> io::Result<bool> {
        let aside = aside(&self.path);
        if aside.exists() {
            return Ok(true);
        }
        if self.size == 0 {
            return Ok(false);
        }
        self.sync()?;
        self.file = None;
        fs::rename(&self.path, aside)?;
        self.open()?;
        Ok(true)
    }

    /// An error of the disk costs what was on its way, and is told once until it is over; the decisions have been made anyway. The
    /// file is cut to what is good, or half a record would hide what follows.
    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) {
        let Err(error) = work(self) else { return };
        dropped();
        if let Some(file) = self.file.take() {
            let (file, _lost) = file.into_parts();
            // If that fails as well, the next process cuts the end when it opens the file.
            let _ = file.set_len(self.good);
        }
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(path = %self.path.display(), %error, "the journal cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { delay: 1, retry_window: 2, keep_passed: 3 };

    fn triplet(number: usize) -> Triplet {
        Triplet::new([192, 0, 2, 1].into(), &format!("s{number}@example.net"), "r@example.org", 24, 64)
    }

    fn recalled(journal: &Journal) -> Vec<(Triplet, bool)> {
        let mut seen = Vec::new();
        journal.recall(|entry, _| {
            if let Entry::Seen(record) = entry {
                seen.push((record.triplet.clone(), record.passed));
            }
        });
        seen
    }

    #[tokio::test]
    async fn what_was_written_is_there_for_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policyd.journal");
        let journal = Journal::open(&path, 1 << 20).unwrap();
        assert!(matches!(Journal::open(&path, 1 << 20), Err(JournalError::InUse(_))));
        journal.write(&triplet(1), false, TIMES);
        journal.flush().await;
        assert!(journal.put_aside().await.unwrap());
        journal.write(&triplet(2), true, TIMES);
        journal.flush().await;
        drop(journal);
        // A crash in the middle of a record.
        File::options().append(true).open(&path).unwrap().write_all(&[40, 0, 0, 0, 1]).unwrap();
        let journal = Journal::open(&path, 1 << 20).unwrap();
        journal.write(&triplet(3), false, TIMES);
        journal.flush().await;
        assert_eq!(recalled(&journal), [(triplet(1), false), (triplet(2), true), (triplet(3), false)]);
    }

    #[tokio::test]
    async fn its_size_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policyd.journal");
        let journal = Journal::open(&path, 1000).unwrap();
        for number in 0..100 {
            journal.write(&triplet(number), false, TIMES);
        }
        journal.flush().await;
        let size = fs::metadata(&path).unwrap().len();
        assert!((800..=1000).contains(&size), "{size}");
    }

    #[test]
    fn records_of_one_triplet_become_one() {
        let record = |at, passed| Record { triplet: triplet(1), passed, at, times: TIMES };
        let folded = fold(&[record(10, false), record(20, false), record(30, true)], 5);
        let expected = Past { triplet: triplet(1), first_seen: 15, last_seen: 35, tries: 2, passed: true, expires: 38 };
        assert_eq!(folded, [expected]);
    }
}
