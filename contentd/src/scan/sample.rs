// SPDX-License-Identifier: GPL-3.0-or-later
//! What is given to the engines: pieces of a message, as they come out of the decoders, to several engines at once.
//!
//! Nothing is copied: a sample is a list of slices. What waits for the engines is bounded per message (`room`).

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes sent at once.
const CHUNK: usize = 64 * 1024;

/// Something to be scanned: slices that follow each other.
#[derive(Debug, Clone, Default)]
pub struct Sample(Vec<Bytes>);

impl Sample {
    /// One of these slices.
    pub fn new(slices: Vec<Bytes>) -> Sample {
        Sample(slices)
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|slice| slice.len() as u64).sum()
    }

    /// Whether there is not a single byte.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// The slices, none longer than what is sent at once.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flat_map(|slice| slice.chunks(CHUNK))
    }

    /// The slices behind so many bytes, none longer than what is sent at once.
    pub(super) fn slices_behind(&self, mut skipped: usize) -> impl Iterator<Item = Bytes> {
        let rest = self.0.iter().map(move |slice| {
            let begin = skipped.min(slice.len());
            skipped -= begin;
            slice.slice(begin..)
        });
        rest.flat_map(|slice| {
            let begins = (0..slice.len()).step_by(CHUNK);
            begins.map(move |begin| slice.slice(begin..slice.len().min(begin + CHUNK)))
        })
    }

    /// All bytes, one by one.
    pub(super) fn bytes(&self) -> impl Iterator<Item = u8> {
        self.0.iter().flat_map(|slice| slice.iter().copied())
    }
}

impl From<Bytes> for Sample {
    fn from(bytes: Bytes) -> Sample {
        Sample(vec![bytes])
    }
}

/// Where an engine that looks into what it gets may have seen the same bytes already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nowhere.
    Nowhere,
    /// A text part, in the message as it came.
    InMail,
    /// A member, in an archive that every program opens in the same way.
    InArchive,
}

/// A sample on its way to the engines, and its share of the room for those that wait.
#[derive(Debug)]
pub struct Piece {
    /// The bytes.
    pub sample: Sample,
    /// Where an engine may have seen it already.
    pub seen: Seen,
    _room: Option<OwnedSemaphorePermit>,
}

/// The pieces of one message, for one engine. It ends when everything is decoded.
pub type Feed = mpsc::UnboundedReceiver<Arc<Piece>>;

/// Decoded bytes of one message that may wait for the engines, in KiB.
const ROOM_KIB: u32 = 64 * 1024;

/// What the decoders give their pieces to. They wait when the engines are slower, so that what is unpacked does not fill the memory.
#[derive(Debug)]
pub struct Queue {
    feeds: Vec<mpsc::UnboundedSender<Arc<Piece>>>,
    room: Arc<Semaphore>,
    /// Whether the decoders may be made to wait.
    waits: bool,
}

impl Queue {
    /// A queue for so many engines, and their ends of it.
    pub fn new(engines: usize) -> (Queue, Vec<Feed>) {
        let (feeds, ends) = (0..engines).map(|_| mpsc::unbounded_channel()).unzip();
        (Queue { feeds, room: Arc::new(Semaphore::new(ROOM_KIB as usize)), waits: true }, ends)
    }

    /// Whether any engine still wants to see something.
    pub fn is_wanted(&self) -> bool {
        self.feeds.iter().any(|feed| !feed.is_closed())
    }

    /// For decoders that run on a thread where nobody may wait, with a message so small that it is no matter.
    pub fn never_wait(&mut self) {
        self.waits = false;
    }

    /// Gives a piece to all engines. Called on the thread that decodes, and waits there for room. When the engines
    /// have seen enough, nothing more is kept for them.
    pub fn put(&self, sample: Sample, seen: Seen) {
        if sample.is_empty() || !self.is_wanted() {
            return;
        }
        let kib = u32::try_from(sample.len() / 1024 + 1).unwrap_or(ROOM_KIB).min(ROOM_KIB);
        let room = match Arc::clone(&self.room).try_acquire_many_owned(kib) {
            Err(_) if self.waits => self.wait_for_room(kib),
            room => room.ok(),
        };
        let piece = Arc::new(Piece { sample, seen, _room: room });
        for feed in &self.feeds {
            // An engine that listens no more has said what there is to say.
            let _ = feed.send(Arc::clone(&piece));
        }
    }

    fn wait_for_room(&self, kib: u32) -> Option<OwnedSemaphorePermit> {
        tokio::runtime::Handle::current().block_on(async {
            tokio::select! {
                // The semaphore is never closed, so this always gives a permit.
                room = Arc::clone(&self.room).acquire_many_owned(kib) => room.ok(),
                () = self.all_closed() => None,
            }
        })
    }

    async fn all_closed(&self) {
        for feed in &self.feeds {
            feed.closed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_engine_gets_every_piece_until_it_wants_no_more() {
        let (queue, mut feeds) = Queue::new(2);
        let two = feeds.pop().unwrap();
        let mut one = feeds.pop().unwrap();
        let decode = tokio::task::spawn_blocking(move || {
            queue.put(Bytes::from_static(b"a").into(), Seen::Nowhere);
            queue.put(Sample::default(), Seen::Nowhere);
            // More than there is room for at once: the second waits for the first to be looked at.
            for _ in 0..4 {
                queue.put(Bytes::from(vec![0; 40 << 20]).into(), Seen::InMail);
            }
            queue.is_wanted()
        });
        drop(two);
        let mut seen = Vec::new();
        while let Some(piece) = one.recv().await {
            seen.push((piece.sample.len(), piece.seen));
        }
        assert_eq!(seen.len(), 5);
        assert_eq!((seen[0], seen[4]), ((1, Seen::Nowhere), (40 << 20, Seen::InMail)));
        assert!(decode.await.unwrap());
    }

    #[tokio::test]
    async fn decoders_do_not_wait_for_engines_that_are_gone() {
        let (queue, feeds) = Queue::new(2);
        let decode = tokio::task::spawn_blocking(move || {
            for _ in 0..4 {
                queue.put(Bytes::from(vec![0; 40 << 20]).into(), Seen::Nowhere);
            }
        });
        drop(feeds);
        decode.await.unwrap();
    }

    #[test]
    fn slices_follow_each_other() {
        let sample = Sample::new(vec![Bytes::from(vec![1; CHUNK + 1]), Bytes::new(), Bytes::from_static(b"\x02")]);
        assert_eq!(sample.len(), CHUNK as u64 + 2);
        assert_eq!(sample.chunks().map(<[u8]>::len).collect::<Vec<_>>(), [CHUNK, 1, 1]);
        assert_eq!(sample.bytes().last(), Some(2));
        let behind = |skipped| sample.slices_behind(skipped).map(|slice| slice.len()).collect::<Vec<_>>();
        assert_eq!((behind(0), behind(5)), (vec![CHUNK, 1, 1], vec![CHUNK - 4, 1]));
        assert_eq!((behind(CHUNK + 1), behind(CHUNK + 2), behind(CHUNK + 9)), (vec![1], vec![], vec![]));
    }
}
