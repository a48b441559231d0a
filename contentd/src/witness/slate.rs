// SPDX-License-Identifier: GPL-3.0-or-later
//! The slate: memory that daemon and witness share (a memfd), on which the daemon writes what happens to each message. It outlives the daemon as
//! long as the witness has it, costs one short `pwrite` per fact and wakes nobody.
//!
//! Each message has a place of its own. The first byte says what stands there and is written last, so a place is never half written to the
//! reader. Writing and reading a place is all that is done here; what it means is the witness' affair.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::MemfdFlags;

use super::packet::ConnectionId;
use crate::identity::Key;

/// Size of a place. Only what is written takes memory, in pages.
const PLACE: usize = 64 * 1024;
/// Where in a place the next hop's reply stands.
const REPLY: usize = PLACE - 512;
/// Places: more messages than can be under way at once.
const PLACES: u32 = 1 << 16;
/// What is copied at once without a moment at which the daemon can be killed half way.
const PAGE: usize = 4096;

const INSPECTING: u8 = b'<';
const DOT: u8 = b'.';
const TAKEN: u8 = b'2';

/// One fact about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is being inspected.
    Inspecting {
        /// The message's id.
        id: String,
        /// Of the message.
        key: Key,
    },
    /// The final dot goes out, or has gone out.
    Dot {
        /// On this connection.
        connection: ConnectionId,
        /// The message's id.
        id: String,
        /// Of the message for each of its recipients.
        keys: Vec<Key>,
        /// What the next hop said, when it has taken the message.
        reply: Option<String>,
    },
}

/// Number of a place.
pub(super) type Place = u32;

#[derive(Debug, Default)]
struct Free {
    /// The first place that was never used.
    next: Place,
    /// Places that are free again.
    back: Vec<Place>,
}

/// The slate as the daemon has it.
#[derive(Debug)]
pub(super) struct Slate {
    memory: OwnedFd,
    free: Mutex<Free>,
}

impl Slate {
    /// An empty one.
    pub(super) fn new() -> io::Result<Slate> {
        let memory = rustix::fs::memfd_create("octroi-witness", MemfdFlags::CLOEXEC)?;
        Ok(Slate { memory, free: Mutex::default() })
    }

    /// Writes an entry in a free place. Errors: no place, no memory, too many recipients.
    pub(super) fn add(&self, entry: &Entry) -> io::Result<Place> {
        let bytes = encode(entry).ok_or(io::ErrorKind::InvalidInput)?;
        let place = self.take().ok_or(io::ErrorKind::StorageFull)?;
        let written = if bytes.len() > PAGE {
            self.write(place, 1, &bytes[1..]).and_then(|()| self.write(place, 0, &bytes[..1]))
        } else {
            self.write(place, 0, &bytes)
        };
        written.inspect_err(|_| self.give_back(place))?;
        Ok(place)
    }

    /// The next hop has taken the message.
    pub(super) fn taken(&self, place: Place, reply: &str) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(256);
        text(&mut bytes, reply);
        self.write(place, REPLY, &bytes)?;
        self.write(place, 0, &[TAKEN])
    }

    /// Nothing more needs to be known.
    pub(super) fn clear(&self, place: Place) -> io::Result<()> {
        self.write(place, 0, &[0])?;
        self.give_back(place);
        Ok(())
    }

    fn take(&self) -> Option<Place> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = free.back.pop() {
            return Some(place);
        }
        let place = free.next;
        free.next = Some(place + 1).filter(|next| *next <= PLACES)?;
        Some(place)
    }

    fn give_back(&self, place: Place) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).back.push(place);
    }

    fn write(&self, place: Place, at: usize, bytes: &[u8]) -> io::Result<()> {
        let written = rustix::io::pwrite(&self.memory, bytes, start(place) + at as u64)?;
        if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

impl AsFd for Slate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

fn start(place: Place) -> u64 {
    u64::from(place) * PLACE as u64
}

/// Reads all that stands on a slate.
pub(super) fn read(memory: &impl AsFd) -> io::Result<Vec<Entry>> {
    let size = u64::try_from(rustix::fs::fstat(memory)?.st_size).unwrap_or_default();
    let mut entries = Vec::new();
    let mut bytes = vec![0; PLACE];
    for place in (0..PLACES).take_while(|place| start(*place) < size) {
        let mut kind = [0];
        if rustix::io::pread(memory, &mut kind, start(place))? == 0 || kind == [0] {
            continue;
        }
        let length = rustix::io::pread(memory, &mut bytes, start(place))?;
        // Behind the end of what was ever written there is nothing: it reads as zeros.
        bytes[length..].fill(0);
        entries.extend(decode(&bytes));
    }
    Ok(entries)
}

/// The bytes; none when they would be too many.
pub(crate) fn encode(entry: &Entry) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    match entry {
        Entry::Inspecting { id, key } => {
            out.push(INSPECTING);
            text(&mut out, id);
            out.extend_from_slice(key);
        }
        Entry::Dot { connection, id, keys, .. } => {
            out.push(DOT);
            text(&mut out, id);
            out.extend_from_slice(&connection.to_be_bytes());
            out.extend_from_slice(&u32::try_from(keys.len()).ok()?.to_be_bytes());
            keys.iter().for_each(|key| out.extend_from_slice(key));
        }
    }
    (out.len() <= REPLY).then_some(out)
}

/// Reads one place.
pub(crate) fn decode(bytes: &[u8]) -> Option<Entry> {
    let (kind, rest) = bytes.split_first()?;
    let (id, rest) = take_text(rest)?;
    match *kind {
        INSPECTING => Some(Entry::Inspecting { id, key: *rest.first_chunk()? }),
        DOT | TAKEN => {
            let (connection, rest) = rest.split_first_chunk()?;
            let (count, rest) = rest.split_first_chunk()?;
            let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
            let keys = rest.get(..count.checked_mul(size_of::<Key>())?)?.as_chunks().0.to_vec();
            let reply = (*kind == TAKEN).then(|| take_text(bytes.get(REPLY..)?)).flatten().map(|(reply, _)| reply);
            Some(Entry::Dot { connection: ConnectionId::from_be_bytes(*connection), id, keys, reply })
        }
        _ => None,
    }
}

/// Text of up to 255 bytes; the rest is cut, at a character.
fn text(out: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(255);
    out.push(u8::try_from(end).unwrap_or(u8::MAX));
    out.extend_from_slice(&text.as_bytes()[..end]);
}

fn take_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dot(connection: ConnectionId, recipients: u8, reply: Option<&str>) -> Entry {
        let keys = (0..recipients).map(|number| [number; 16]).collect();
        Entry::Dot { connection, id: format!("1A{connection}"), keys, reply: reply.map(str::to_owned) }
    }

    #[test]
    fn what_is_written_is_read() {
        let slate = Slate::new().unwrap();
        let inspecting = Entry::Inspecting { id: "1B".into(), key: [7; 16] };
        let places: Vec<Place> = [dot(1, 1, None), inspecting.clone(), dot(u32::MAX, 255, None), dot(3, 0, None)]
            .iter()
            .map(|entry| slate.add(entry).unwrap())
            .collect();
        slate.taken(places[2], "250 2.0.0 Ok").unwrap();
        slate.clear(places[3]).unwrap();
        let taken = dot(u32::MAX, 255, Some("250 2.0.0 Ok"));
        assert_eq!(read(&slate).unwrap(), [dot(1, 1, None), inspecting, taken]);
        slate.clear(places[0]).unwrap();
        slate.clear(places[2]).unwrap();
        assert_eq!(slate.add(&dot(5, 3, None)).unwrap(), places[2], "a place is used again");
        assert_eq!(read(&slate).unwrap()[1], dot(5, 3, None), "and an old reply is no reply");
        let many = Entry::Dot { connection: 1, id: String::new(), keys: vec![[0; 16]; 4100], reply: None };
        assert!(slate.add(&many).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            decode(&bytes);
        }
    }
}
