// SPDX-License-Identifier: GPL-3.0-or-later
//! Members of zips that every program reads as we do: a scanner that opens archives itself need not get them once more.
//!
//! They are held back until everything is taken apart. When anything about the archives of the message is strange, or there is more
//! than a scanner's own limits surely allow, all of them are given like any other member.

use crate::message::parts::Kept;

/// Unpacked bytes of the message, all archives together: less than clamd's MaxFileSize and MaxScanSize as any distribution ships them.
pub const BYTES: u64 = 20_000_000;
/// Members of the message, all archives together.
pub const MEMBERS: usize = 1000;
/// Archives within archives.
pub const DEPTH: usize = 4;

/// What is held back.
#[derive(Debug, Default)]
pub(super) struct Alike {
    held: Vec<Kept>,
    bytes: u64,
    members: usize,
    strange: bool,
}

impl Alike {
    /// Counts a member of any archive.
    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.members += 1;
        self.strange |= self.bytes > BYTES || self.members > MEMBERS;
    }

    /// Something may be read in another way.
    pub(super) fn differ(&mut self) {
        self.strange = true;
    }

    /// Holds a member back; gives back what is to be given now.
    pub(super) fn hold(&mut self, kept: Kept) -> Vec<Kept> {
        self.held.push(kept);
        if self.strange { std::mem::take(&mut self.held) } else { Vec::new() }
    }

    /// Everything that is held, when all is taken apart; `clear`: nothing else was strange.
    pub(super) fn release(self, clear: bool) -> impl Iterator<Item = Kept> {
        let alike = clear && !self.strange;
        self.held.into_iter().map(move |kept| Kept { alike, ..kept })
    }
}
