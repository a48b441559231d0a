// SPDX-License-Identifier: GPL-3.0-or-later
//! Doors to parsers that are nobody else's business, for the fuzz targets in `tests/fuzz`. Only cargo-fuzz compiles this.

use common::handover::Secret;

use crate::envelope::Envelope;
use crate::handover::Handover;
use crate::identity::Key;
use crate::witness::packet::Packet;
use crate::witness::slate::{self, Entry};

/// A packet for the witness, and a place on its slate. What can be read is written as the same bytes again.
pub fn witness_packet(bytes: &[u8]) {
    if let Some(packet) = Packet::decode(bytes) {
        assert_eq!(packet.encode(), bytes);
    }
    if let Some(entry) = slate::decode(bytes) {
        let again = slate::encode(&entry).expect("what was read is not too large");
        let unanswered = match entry {
            Entry::Dot { connection, id, keys, .. } => Entry::Dot { connection, id, keys, reply: None },
            other => other,
        };
        assert_eq!(slate::decode(&again), Some(unanswered));
    }
}

/// An entry as the daemon makes it, from any text and any keys.
pub fn witness_dot(id: &str, keys: Vec<Key>) {
    if let Some(bytes) =
        slate::encode(&Entry::Dot { connection: 1, id: id.to_owned(), keys: keys.clone(), reply: None })
    {
        let Some(Entry::Dot { keys: read, .. }) = slate::decode(&bytes) else { panic!("our own entry is not read") };
        assert_eq!(read, keys);
    }
}

/// A header section with lines of policyd's, or of somebody who would like to be policyd; the words of the orders.
pub fn handover(section: &[u8], envelope: &Envelope, secret: &Secret, now: u64) -> String {
    let handover = Handover::read(section, envelope, secret, now);
    let changed = handover.envelope(envelope);
    assert!(changed.is_none_or(|changed| !changed.recipients.is_empty()), "a message for nobody");
    handover.words()
}
