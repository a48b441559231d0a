// SPDX-License-Identifier: GPL-3.0-or-later
//! Within a helper: where members go that a decoder finds. Each is written to the daemon as it comes out, against a budget of the job; the
//! daemon counts once more.

use super::super::members::Flaw;
use super::wire::{Word, data_frame, flaw_words};
use crate::budget::{Budget, Over};
use crate::findings::FindingKind;
use std::io::{self, Read, Write};

/// Bytes read from a decoder at once.
const CHUNK: usize = 64 * 1024;

/// The way to the daemon.
pub(in crate::unpack) struct Outlet<'b> {
    budget: &'b mut Budget,
    name: &'b str,
    passwords: &'b [String],
    writer: &'b mut dyn Write,
}

impl<'b> Outlet<'b> {
    pub(super) fn new(
        budget: &'b mut Budget,
        name: &'b str,
        passwords: &'b [String],
        writer: &'b mut dyn Write,
    ) -> Outlet<'b> {
        Outlet { budget, name, passwords, writer }
    }

    pub(in crate::unpack) fn budget(&self) -> &Budget {
        self.budget
    }

    /// Name of the file that is taken apart.
    pub(in crate::unpack) fn name(&self) -> &str {
        self.name
    }

    /// Words that may be passwords.
    pub(in crate::unpack) fn passwords(&self) -> &[String] {
        self.passwords
    }

    /// Without a daemon there is nothing more to do.
    fn say(&mut self, frame: &[u8]) -> Result<(), Over> {
        self.writer.write_all(frame).map_err(|_| Over::Time)
    }

    /// Sends a member.
    pub(in crate::unpack) fn member(
        &mut self,
        names: &[String],
        listed: bool,
        reader: &mut dyn Read,
    ) -> Result<(), Over> {
        self.budget.object()?;
        self.say(&Word::Member { listed, names: names.to_vec() }.encode())?;
        let ended = self.content(reader);
        let how = ended.as_ref().err().copied().flatten();
        self.say(&Word::End(how).encode())?;
        ended.unwrap_or(Ok(()))
    }

    /// Sends its bytes. Errors: what the decoder ran into; none where the message's budget ended, which is the inner error.
    fn content(&mut self, reader: &mut dyn Read) -> Result<Result<(), Over>, Option<io::ErrorKind>> {
        // One byte more than a member may have tells the daemon that it is too large.
        let most = self.budget.limits().member_bytes.0.saturating_add(1);
        let (mut chunk, mut sent) = (vec![0; CHUNK], 0u64);
        while sent < most {
            let read = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read.min(CHUNK),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Some(error.kind())),
            };
            if let Err(over) = self.budget.unpacked(read).and_then(|()| self.say(&data_frame(&chunk[..read]))) {
                return Ok(Err(over));
            }
            sent = sent.saturating_add(read as u64);
        }
        Ok(Ok(()))
    }

    pub(in crate::unpack) fn closed(&mut self, names: &[String], flaw: &Flaw, format: &str) -> Result<(), Over> {
        self.budget.object()?;
        let (kind, detail) = flaw_words(flaw, format);
        self.say(&Word::Closed { names: names.to_vec(), kind, detail }.encode())
    }

    pub(in crate::unpack) fn flaw(&mut self, flaw: &Flaw, format: &str) {
        let (kind, detail) = flaw_words(flaw, format);
        let _ = self.say(&Word::Flaw { kind, detail }.encode());
    }

    pub(in crate::unpack) fn note(&mut self, kind: FindingKind, detail: &str) {
        let _ = self.say(&Word::Note { kind, detail: detail.to_owned() }.encode());
    }
}
