// SPDX-License-Identifier: GPL-3.0-or-later
//! Doors to parsers that are nobody else's business, for the fuzz targets in `tests/fuzz`. Only cargo-fuzz compiles this.

use common::handover::Secret;

use crate::envelope::Envelope;
use crate::handover::Handover;
use crate::identity::Key;
use crate::witness::packet::{LARGEST, Packet};

/// A packet for the witness. What can be read is written as the same bytes' packet again.
pub fn witness_packet(bytes: &[u8]) {
    if let Some(packet) = bytes.get(..bytes.len().min(LARGEST)).and_then(Packet::decode) {
        let again = packet.encode().expect("what was read is not too large");
        assert_eq!(Packet::decode(&again), Some(packet));
    }
}

/// A packet as the daemon makes it, from any text and any keys.
pub fn witness_dot(id: &str, keys: Vec<Key>) {
    if let Some(bytes) = (Packet::Dot { number: 1, id: id.to_owned(), keys: keys.clone() }).encode() {
        let Some(Packet::Dot { keys: read, .. }) = Packet::decode(&bytes) else { panic!("our own packet is not read") };
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
