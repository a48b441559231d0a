// SPDX-License-Identifier: GPL-3.0-or-later
//! Encrypted Office documents (MS-OFFCRYPTO): which streams of a compound file are encrypted, and what they are in the clear. Packages (OOXML within a
//! compound file), workbooks (MS-XLS 2.2.10), old Word documents (MS-DOC 2.2.6) and presentations (MS-PPT 2.3.7). Tried first are the
//! passwords with which Office itself opens a document without asking anybody: macros hide behind them.

use super::keys::{Key, ROUNDS, Said};
use super::xor::Mask;
use super::{Compound, Entry, ppt};
use crate::findings::FindingKind;
use crate::unpack::field::le16;
use crate::unpack::members::{Flaw, Members};
use crate::unpack::passwords::Tries;
use std::collections::HashMap;

/// What Excel and PowerPoint encrypt with when nobody is to be asked.
const NOBODYS: [&str; 2] = ["VelvetSweatshop", "/01Hannes Ruescher/01"];
/// Bytes that share a key in workbooks and in Word documents.
const XLS_BLOCK: usize = 1024;
const DOC_BLOCK: usize = 512;
/// The beginning of a Word document is not encrypted.
const DOC_HEAD: usize = 68;
/// Most bytes of what is said of an encryption, and of a workbook before it says so.
const INFO: usize = 1 << 20;
const START: usize = 4096;
/// Documents within one compound file.
const DOCUMENTS: usize = 1000;

/// The streams of a compound file, some of them decrypted.
pub(super) struct Streams<'c> {
    compound: &'c Compound<'c>,
    entries: &'c [Entry],
    paths: &'c [String],
    /// Decrypted ones, by the number of their entry.
    plain: HashMap<usize, Vec<u8>>,
}

impl<'c> Streams<'c> {
    /// Opens what is encrypted. A package becomes a member.
    pub(super) fn new(
        compound: &'c Compound<'c>,
        entries: &'c [Entry],
        paths: &'c [String],
        out: &mut Members<'_, '_>,
    ) -> Result<Streams<'c>, Flaw> {
        let mut streams = Streams { compound, entries, paths, plain: HashMap::new() };
        let documents = entries.iter().enumerate().filter(|(_, entry)| entry.kind == 2);
        let documents = documents.filter(|(_, entry)| {
            ["EncryptedPackage", "EncryptionInfo", "Workbook", "Book", "WordDocument", "PowerPoint Document"]
                .iter()
                .any(|name| entry.name.eq_ignore_ascii_case(name))
        });
        let mut documents: Vec<usize> = documents.map(|(number, _)| number).collect();
        // The document itself first, then those that are embedded in it.
        documents.sort_by_key(|number| paths.get(*number).map_or(0, |path| path.matches('/').count()));
        for number in documents.into_iter().take(DOCUMENTS) {
            out.clock()?;
            match entries[number].name.to_ascii_lowercase().as_str() {
                "encryptedpackage" => streams.package(number, out)?,
                // Without a package there is something else that nobody can read.
                "encryptioninfo" if streams.beside(number, "EncryptedPackage").is_none() => out.flaw(&Flaw::Encrypted),
                "workbook" | "book" => streams.workbook(number, out),
                "worddocument" => streams.word(number, out),
                "powerpoint document" => streams.slides(number, out),
                _ => {}
            }
        }
        Ok(streams)
    }

    /// A stream in the clear, when it is encrypted and can be opened; empty, when it has been given away as something else.
    pub(super) fn decrypted(&mut self, number: usize) -> Option<Vec<u8>> {
        self.plain.remove(&number)
    }

    fn read(&self, number: usize, most: usize) -> Vec<u8> {
        self.entries.get(number).map_or_else(Vec::new, |entry| self.compound.stream(entry, most))
    }

    /// The stream of this name in the same storage.
    fn beside(&self, number: usize, name: &str) -> Option<usize> {
        let path = self.paths.get(number)?;
        let storage = path.rfind('/').map_or("", |at| &path[..=at]);
        let is_it = |other: &String| other.strip_prefix(storage).is_some_and(|rest| rest.eq_ignore_ascii_case(name));
        self.paths.iter().zip(self.entries).position(|(other, entry)| entry.kind == 2 && is_it(other))
    }

    fn package(&mut self, number: usize, out: &mut Members<'_, '_>) -> Result<(), Flaw> {
        let info = self.beside(number, "EncryptionInfo").map(|info| self.read(info, INFO)).unwrap_or_default();
        let Some(key) = unlock(Said::read(&info), out) else { return Ok(()) };
        // A key that fits may still be that of another package.
        let package = key.package(&self.read(number, out.one_too_many())).filter(|package| package.starts_with(b"PK"));
        let Some(package) = package else {
            out.flaw(&Flaw::Encrypted);
            return Ok(());
        };
        let name = out.holder_name().to_owned();
        out.stored(&[name], &package)?;
        self.plain.insert(number, Vec::new());
        Ok(())
    }

    fn workbook(&mut self, number: usize, out: &mut Members<'_, '_>) {
        let start = self.read(number, START);
        let Some(pass) = file_pass(&start) else { return };
        let kind = le16(pass, 0);
        // Before BIFF8 there is one way only, and its number is left out.
        let (kind, mask) = if pass.len() == 4 { (Some(0), pass) } else { (kind, pass.get(2..).unwrap_or_default()) };
        let mut plain = self.read(number, out.one_too_many());
        if kind == Some(0) {
            let (key, verifier) = (le16(mask, 0).unwrap_or_default(), le16(mask, 2).unwrap_or_default());
            let Some(mask) = first_that(false, out, |word| Mask::new(word, key, verifier)) else { return };
            records(&mut plain, |place, length, byte| mask.plain(byte, place.wrapping_add(length)));
        } else {
            let Some(key) = unlock(Said::read(mask), out) else { return };
            let (mut block, mut stream, mut used) = (0, key.stream(0), 0);
            records(&mut plain, |place, _, byte| {
                if place / XLS_BLOCK != block {
                    (block, used) = (place / XLS_BLOCK, 0);
                    stream = key.stream(u32::try_from(block).unwrap_or(u32::MAX));
                }
                // What is not encrypted counts all the same.
                while used < place % XLS_BLOCK {
                    stream.next();
                    used += 1;
                }
                used += 1;
                byte ^ stream.next()
            });
        }
        self.plain.insert(number, plain);
    }

    fn word(&mut self, number: usize, out: &mut Members<'_, '_>) {
        let head = self.read(number, DOC_HEAD);
        let flags = le16(&head, 10).unwrap_or_default();
        if flags & 0x100 == 0 {
            return;
        }
        let table = self.beside(number, if flags & 0x200 == 0 { "0Table" } else { "1Table" });
        // The other bit: XOR in a way of Word's own.
        let said = table.filter(|_| flags & 0x8000 == 0).and_then(|table| Said::read(&self.read(table, INFO)));
        let Some(key) = unlock(said, out) else { return };
        let mut parts = Vec::new();
        for part in [Some(number), table, self.beside(number, "Data")].into_iter().flatten() {
            let mut plain = self.read(part, out.one_too_many());
            for (block, piece) in (0..).zip(plain.chunks_mut(DOC_BLOCK)) {
                let mut stream = key.stream(block);
                piece.iter_mut().for_each(|byte| *byte ^= stream.next());
            }
            if part == number {
                plain.iter_mut().zip(&head).for_each(|(byte, kept)| *byte = *kept);
                // How many places the document's head names: there are only so many versions.
                if !matches!(le16(&plain, 152), Some(0x5d | 0x6c | 0x88 | 0xa4 | 0xb7)) {
                    return out.flaw(&Flaw::Encrypted);
                }
            }
            parts.push((part, plain));
        }
        self.plain.extend(parts);
    }

    fn slides(&mut self, number: usize, out: &mut Members<'_, '_>) {
        let user = self.beside(number, "Current User").map(|user| self.read(user, START)).unwrap_or_default();
        let Some(edit) = ppt::encrypted(&user) else { return };
        let mut plain = self.read(number, out.one_too_many());
        let session = ppt::Session::read(&plain, edit);
        let said = session.as_ref().and_then(|session| Said::read(session.said(&plain)));
        if let (Some(key), Some(session)) = (unlock(said, out), session) {
            if session.decrypt(&mut plain, |id| key.stream(id)) {
                self.plain.insert(number, plain);
            } else {
                out.flaw(&Flaw::Encrypted);
            }
        }
    }
}

/// The key of what is encrypted in this way. What stays shut is a finding.
fn unlock(said: Option<Said>, out: &mut Members<'_, '_>) -> Option<Key> {
    let Some(said) = said else {
        out.flaw(&Flaw::Encrypted);
        return None;
    };
    if said.rounds() > ROUNDS {
        out.flaw(&Flaw::Told(FindingKind::OverLimits, "rounds".to_owned()));
        return None;
    }
    let watch = out.watch();
    first_that(said.is_slow(), out, |word| said.key(word, &|| watch.over().is_none()))
}

/// What the first word gives that opens it; tells how that went.
fn first_that<K>(slow: bool, out: &mut Members<'_, '_>, mut opens: impl FnMut(&str) -> Option<K>) -> Option<K> {
    if let Some(key) = NOBODYS.iter().find_map(|word| opens(word)) {
        return Some(key);
    }
    let mut key = None;
    let mut fits = |word: &str| {
        key = opens(word);
        key.is_some()
    };
    if slow {
        Tries::default().first_that(out, fits);
    } else {
        let mut words = out.passwords().iter();
        words.find(|word| out.clock().is_ok() && fits(word));
    }
    match key {
        Some(_) => out.note(FindingKind::PasswordFound, "ole"),
        None => out.flaw(&Flaw::Encrypted),
    }
    key
}

/// What a workbook says of its encryption, at its beginning.
fn file_pass(workbook: &[u8]) -> Option<&[u8]> {
    let mut at = 0usize;
    for _ in 0..20 {
        let (id, length) = (le16(workbook, at)?, usize::from(le16(workbook, at + 2)?));
        let content = workbook.get(at + 4..at + 4 + length);
        match id {
            0x2f => return content,
            // The end, or the list of sheets: it would have come before them.
            0x0a | 0x85 => return None,
            _ => at += 4 + length,
        }
    }
    None
}

/// Changes what is encrypted in a workbook; `plain` gets the place of a byte, the length of its record and the byte.
fn records(workbook: &mut [u8], mut plain: impl FnMut(usize, usize, u8) -> u8) {
    let mut at = 0usize;
    while let (Some(id), Some(length)) = (le16(workbook, at), le16(workbook, at + 2)) {
        let (begin, length) = (at + 4, usize::from(length));
        at = begin + length;
        let skipped = match id {
            // Beginnings of streams, what is said of encryption, who uses it, marks of interfaces and of shared workbooks.
            0x809 | 0x2f | 0x194 | 0x195 | 0xe1 | 0x196 | 0x138 => length,
            // Where a sheet begins.
            0x85 => 4,
            _ => 0,
        };
        let end = at.min(workbook.len());
        let from = (begin + skipped.min(length)).min(end);
        for (place, byte) in (from..).zip(&mut workbook[from..end]) {
            *byte = plain(place, length, *byte);
        }
    }
}
