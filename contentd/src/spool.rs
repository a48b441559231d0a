// SPDX-License-Identifier: GPL-3.0-or-later
//! The spool: one message while it is inspected, in memory up to a limit and then in a private file without a name.
//!
//! Not a queue: nothing here survives the process, because Postfix keeps the message until we answer. All
//! messages share one budget of bytes; when it is used up the next message is refused with 452 instead of
//! filling the disk.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::{JoinHandle, spawn_blocking};

/// How much is read at once.
pub const CHUNK: usize = 64 * 1024;
/// How much is collected before it is written to the file.
const WRITE_BUFFER: usize = 128 * 1024;

/// Where messages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Directory of the files.
    pub dir: PathBuf,
    /// Bytes kept in memory before a file is used.
    pub memory: usize,
}

impl Place {
    /// Tries whether files can be made there.
    pub fn probe(&self) -> Result<(), SpoolError> {
        tempfile::tempfile_in(&self.dir).map(drop).map_err(|source| SpoolError::File { dir: self.dir.clone(), source })
    }
}

/// Why a message could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The budget of all messages together is used up.
    #[error("spool budget of {limit} bytes is used up")]
    Full {
        /// The budget, in bytes.
        limit: u64,
    },
    /// The file cannot be made or written.
    #[error("spool file in {}: {source}", dir.display())]
    File {
        /// The spool directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The bytes that all spooled messages may take together.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Budget> {
        Arc::new(Budget { limit: AtomicU64::new(limit), used: AtomicU64::new(0) })
    }

    /// Changes the limit; messages that are already here stay.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Whether `bytes` more would fit now.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) <= self.limit.load(Ordering::Relaxed)
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn report(&self) {
        metrics::gauge!("octroi_contentd_spool_bytes").set(self.used() as f64);
    }

    /// Sets bytes aside for a message that is to come.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Share, SpoolError> {
        self.take(bytes)?;
        self.report();
        Ok(Share { budget: self.clone(), bytes, used: 0 })
    }

    fn take(&self, bytes: u64) -> Result<(), SpoolError> {
        let limit = self.limit.load(Ordering::Relaxed);
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(_) => Err(SpoolError::Full { limit }),
        }
    }
}

/// What one message has taken from the budget; given back when the message goes.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
    /// So many of them are in use.
    used: u64,
}

impl Share {
    /// Uses more: first what is set aside.
    fn spend(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let more = (self.used + bytes).saturating_sub(self.bytes);
        self.budget.take(more)?;
        self.bytes += more;
        self.used += bytes;
        Ok(())
    }

    /// Gives back what was set aside and is not used.
    fn settle(&mut self) {
        self.budget.used.fetch_sub(self.bytes - self.used, Ordering::Relaxed);
        self.bytes = self.used;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.report();
    }
}

/// A message that is being received.
#[derive(Debug)]
pub struct Writer {
    place: Place,
    share: Share,
    /// Not yet in the file.
    pending: Vec<u8>,
    file: Option<File>,
    /// In the file.
    written: u64,
    len: u64,
}

impl Writer {
    /// Begins an empty message.
    pub fn new(place: Place, budget: Arc<Budget>) -> Writer {
        Writer::with(place, Share { budget, bytes: 0, used: 0 })
    }

    /// The same, with bytes that have been set aside for it.
    pub(crate) fn with(place: Place, share: Share) -> Writer {
        // One allocation instead of many: the client has said how much will come.
        let room = usize::try_from(share.bytes).unwrap_or(place.memory).min(place.memory);
        Writer { place, share, pending: Vec::with_capacity(room), file: None, written: 0, len: 0 }
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has been written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes; over the memory limit they go to the file.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.pending().extend_from_slice(bytes);
        self.added().await
    }

    /// Where the next bytes are to be appended; [`Writer::added`] has to follow.
    pub(crate) fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Accounts for what has been appended.
    pub(crate) async fn added(&mut self) -> Result<(), SpoolError> {
        let accounted = usize::try_from(self.len - self.written).unwrap_or(usize::MAX);
        let added = self.pending.len().saturating_sub(accounted) as u64;
        self.share.spend(added).inspect_err(|_| self.pending.truncate(accounted))?;
        self.len += added;
        let limit = if self.file.is_some() { WRITE_BUFFER } else { self.place.memory };
        if self.pending.len() > limit { self.flush().await } else { Ok(()) }
    }

    /// Ends the message.
    pub async fn finish(mut self) -> Result<Message, SpoolError> {
        if self.file.is_some() {
            self.flush().await?;
        }
        self.share.settle();
        self.share.budget.report();
        let content = match self.file {
            Some(file) => Content::File(file),
            None => Content::Memory(Bytes::from(self.pending)),
        };
        Ok(Message(Arc::new(Inner { content, len: self.len, _share: Some(self.share) })))
    }

    async fn flush(&mut self) -> Result<(), SpoolError> {
        let dir = self.place.dir.clone();
        let (file, pending) = (self.file.take(), std::mem::take(&mut self.pending));
        let written = spawn_blocking(move || -> io::Result<File> {
            let mut file = match file {
                Some(file) => file,
                None => tempfile::tempfile_in(dir)?,
            };
            file.write_all(&pending)?;
            Ok(file)
        });
        match written.await.map_err(io::Error::other).flatten() {
            Ok(file) => {
                self.written = self.len;
                self.file = Some(file);
                Ok(())
            }
            Err(source) => Err(SpoolError::File { dir: self.place.dir.clone(), source }),
        }
    }
}

/// A received message: lines end in CR LF, dots are unstuffed. A cheap handle; the bytes go when the last handle goes.
#[derive(Debug, Clone)]
pub struct Message(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    content: Content,
    len: u64,
    _share: Option<Share>,
}

#[derive(Debug)]
enum Content {
    Memory(Bytes),
    File(File),
}

impl Message {
    /// A message that is already in memory, outside any budget.
    pub fn from_bytes(bytes: Vec<u8>) -> Message {
        let len = bytes.len() as u64;
        Message(Arc::new(Inner { content: Content::Memory(bytes.into()), len, _share: None }))
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// Whether there is not a single byte.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Whether the message is in a file.
    pub fn is_in_file(&self) -> bool {
        matches!(self.0.content, Content::File(_))
    }

    /// A reader from the start; several may exist at once.
    pub fn open(&self) -> Reader {
        Reader { message: self.clone(), at: 0, ready: Bytes::new(), loading: None }
    }

    /// The whole message in memory. Only for holders of a parse slot: that is what bounds the memory of all sessions.
    pub async fn bytes(&self) -> io::Result<Bytes> {
        self.slice(0, usize::try_from(self.0.len).map_err(io::Error::other)?).await
    }

    /// The first `limit` bytes, or fewer when there are not so many.
    pub async fn head(&self, limit: usize) -> io::Result<Bytes> {
        self.slice(0, limit).await
    }

    async fn slice(&self, at: u64, limit: usize) -> io::Result<Bytes> {
        match &self.0.content {
            Content::Memory(_) => self.read(at, limit),
            Content::File(_) => {
                let message = self.clone();
                spawn_blocking(move || message.read(at, limit)).await.map_err(io::Error::other)?
            }
        }
    }

    /// Up to `limit` bytes from `at` on; empty at the end. Blocks when the message is in a file.
    pub fn read(&self, at: u64, limit: usize) -> io::Result<Bytes> {
        let length = self.0.len.saturating_sub(at).min(limit as u64) as usize;
        if length == 0 {
            return Ok(Bytes::new());
        }
        match &self.0.content {
            Content::Memory(bytes) => Ok(bytes.slice(at as usize..at as usize + length)),
            Content::File(file) => {
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, at)?;
                Ok(buffer.into())
            }
        }
    }
}

/// Reads a message from its start, in chunks of 64 KiB.
#[derive(Debug)]
pub struct Reader {
    message: Message,
    at: u64,
    ready: Bytes,
    loading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reader {
    /// The next piece, None at the end. Safe to cancel.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|context| self.poll_fill(context)).await?;
        let chunk = std::mem::take(&mut self.ready);
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// Waits until `ready` holds something or the end is reached.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ready.is_empty() || (self.loading.is_none() && self.at == self.message.0.len) {
            return Poll::Ready(Ok(()));
        }
        let loaded = if let Content::Memory(_) = self.message.0.content {
            self.message.read(self.at, CHUNK)
        } else {
            let (message, at) = (self.message.clone(), self.at);
            let task = self.loading.get_or_insert_with(|| spawn_blocking(move || message.read(at, CHUNK)));
            let loaded = ready!(Pin::new(task).poll(context));
            self.loading = None;
            loaded.map_err(io::Error::other).flatten()
        };
        self.ready = loaded?;
        self.at += self.ready.len() as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_fill(context))?;
        let length = self.ready.len().min(out.remaining());
        out.put_slice(&self.ready.split_to(length));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn place(memory: usize) -> Place {
        Place { dir: std::env::temp_dir(), memory }
    }

    async fn spooled(memory: usize, content: &[u8], budget: &Arc<Budget>) -> Message {
        let mut writer = Writer::new(place(memory), budget.clone());
        for piece in content.chunks(10_000) {
            writer.write(piece).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    #[tokio::test]
    async fn memory_and_file_give_the_same_bytes() {
        let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let budget = Budget::new(10_000_000);
        for (memory, in_file) in [(1_000_000, false), (50_000, true), (0, true)] {
            let message = spooled(memory, &content, &budget).await;
            assert_eq!(message.is_in_file(), in_file);
            assert_eq!(message.len(), 300_000);
            assert_eq!(message.bytes().await.unwrap(), content);
            assert_eq!(message.head(100).await.unwrap(), content[..100]);
            let (mut one, mut two) = (message.open(), message.open());
            let mut read = Vec::new();
            one.read_to_end(&mut read).await.unwrap();
            assert!(read == content);
            assert_eq!(two.chunk().await.unwrap().unwrap(), content[..CHUNK]);
            let mut rest = 0;
            while let Some(chunk) = two.chunk().await.unwrap() {
                rest += chunk.len();
            }
            assert_eq!(rest, content.len() - CHUNK);
        }
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn the_budget_is_shared_and_given_back() {
        let budget = Budget::new(25_000);
        let first = spooled(1_000_000, &[1; 20_000], &budget).await;
        let mut second = Writer::new(place(1_000_000), budget.clone());
        second.write(&[2; 5_000]).await.unwrap();
        assert!(matches!(second.write(b"x").await, Err(SpoolError::Full { limit: 25_000 })));
        assert!(!budget.has_room(1));
        drop(first);
        second.write(b"x").await.unwrap();
        assert_eq!(budget.used(), 5_001);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_missing_directory_is_an_error_that_names_it() {
        let mut writer = Writer::new(Place { dir: "/dev/null/spool".into(), memory: 0 }, Budget::new(10));
        let error = writer.write(b"x").await.unwrap_err();
        assert!(error.to_string().contains("/dev/null/spool"), "{error}");
    }
}
