// SPDX-License-Identifier: GPL-3.0-or-later
//! Encrypted members of a zip, PKWARE's old way and WinZip's AES, when a word of the message opens them. Decrypting is done by the crate `zip`, which
//! knows the members of the central directory; members that only `zip_headers` knows stay shut.

use super::members::Members;
use std::collections::HashMap;
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// Passwords tried on one archive; members have mostly the same.
const TRIES: usize = 200;

/// What is known of one archive.
pub(super) struct Locked<'d> {
    archive: ZipArchive<Cursor<&'d [u8]>>,
    /// The members, by the place of their local header.
    members: HashMap<usize, usize>,
    /// The word that has opened one; it comes first.
    good: Option<String>,
    tries: usize,
}

impl<'d> Locked<'d> {
    /// None: the crate cannot read it.
    pub(super) fn new(data: &'d [u8]) -> Option<Locked<'d>> {
        let mut archive = ZipArchive::new(Cursor::new(data)).ok()?;
        let mut members = HashMap::new();
        for number in 0..archive.len() {
            if let Ok(member) = archive.by_index_raw(number) {
                members.insert(super::field::index(member.header_start()), number);
            }
        }
        Some(Locked { archive, members, good: None, tries: TRIES })
    }

    /// The content of the member whose local header stands there. None: no word opens it, or it is too large.
    pub(super) fn open(&mut self, place: usize, out: &Members<'_, '_>) -> Option<Vec<u8>> {
        let number = *self.members.get(&place)?;
        let words: Vec<String> = self.good.iter().chain(out.passwords()).cloned().collect();
        for word in words {
            // Deriving a key takes a millisecond.
            self.tries = self.tries.checked_sub(1)?;
            out.clock().ok()?;
            let Ok(member) = self.archive.by_index_decrypt(number, word.as_bytes()) else { continue };
            let mut content = Vec::new();
            let most = out.largest();
            // One byte in 256 passes the old way's first check; the checksum behind the data tells.
            let read = member.take(most.saturating_add(1)).read_to_end(&mut content);
            if read.is_ok() && content.len() as u64 <= most {
                self.good = Some(word);
                return Some(content);
            }
        }
        None
    }
}
