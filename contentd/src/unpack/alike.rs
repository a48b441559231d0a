// SPDX-License-Identifier: GPL-3.0-or-later
//! Archives that every program reads as we do: a scanner need not get both, them and their members. Members of such zips are held back for one
//! that opens archives itself; or, as configured, the archives are, of which everything is given as members.
//!
//! Both wait until everything is taken apart. When anything about the archives of the message is strange, or there is more
//! than a scanner's own limits surely allow, all of them are given like anything else.

use crate::message::parts::Kept;
use crate::scan::originals::{self, Original};

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
    /// Archives that need not be given, because all that is in them is.
    archives: Vec<Kept>,
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

    /// Holds an archive back; gives back what is to be given now.
    pub(super) fn leave_out(&mut self, archive: Kept) -> Vec<Kept> {
        self.archives.push(archive);
        if self.strange { std::mem::take(&mut self.archives) } else { Vec::new() }
    }

    /// What is to be given of all that is held, when all is taken apart; `clear`: nothing else was strange.
    pub(super) fn release(self, clear: bool) -> impl Iterator<Item = Kept> {
        let alike = clear && !self.strange;
        let archives = if alike { left_out(&self.archives) } else { self.archives };
        self.held.into_iter().map(move |kept| Kept { alike, ..kept }).chain(archives)
    }
}

/// Counts archives that no scanner gets; nothing is left to give.
fn left_out(archives: &[Kept]) -> Vec<Kept> {
    for archive in archives {
        originals::count_left_out(Original::Archives, archive.bytes.len() as u64);
    }
    Vec::new()
}
