// SPDX-License-Identifier: GPL-3.0-or-later
//! 7-Zip, by the crate `sevenz-rust2`: one thread, because several read far ahead, and a limit for dictionaries. Each block is
//! decoded by itself, so that one that cannot be decoded does not hide the others. What is encrypted is tried with the words of the message.

use super::members::{Flaw, Members};
use super::passwords::{ROUNDS, Tries};
use crate::budget::Over;
use crate::findings::FindingKind;
use sevenz_rust2::{Archive, ArchiveEntry, BlockDecoder, EncoderMethod, Error, Password};
use std::io::{Cursor, Read};
use std::slice::from_ref;

/// Identifies AES in the description of a coder; its parameters follow.
const AES: &[u8] = &[0x06, 0xf1, 0x07, 0x01];

/// An archive that is being opened.
struct Opened<'d> {
    archive: Archive,
    data: &'d [u8],
    /// The word that has opened something of it.
    word: Option<String>,
    tries: Tries,
    /// Most memory for a dictionary.
    kib: usize,
}

/// Opens all members.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let kib = usize::try_from(out.memory() / 1024).unwrap_or(usize::MAX);
    let mut opened =
        match Archive::read_with_memory_limit(&mut Cursor::new(data), &Password::empty(), kib).map_err(flaw) {
            Ok(archive) => Opened { archive, data, word: None, tries: Tries::default(), kib },
            Err(Flaw::Encrypted) => with_hidden_names(data, kib, out)?,
            Err(flaw) => return Err(flaw),
        };
    for file in opened.archive.files.iter().filter(|file| !file.has_stream && !file.is_directory) {
        out.stored(from_ref(&file.name), &[])?;
    }
    for block in 0..opened.archive.blocks.len() {
        if opened.is_locked(block) && !opened.unlock(block, out) {
            names_only(&opened.archive, block, &Flaw::Encrypted, out)?;
        } else if is_deflate64(&opened.archive, block) {
            deflate64(&opened.archive, block, data, out)?;
        } else {
            opened.extract(block, out)?;
        }
    }
    Ok(())
}

/// An archive whose names are encrypted, too.
fn with_hidden_names<'d>(data: &'d [u8], kib: usize, out: &mut Members<'_, '_>) -> Result<Opened<'d>, Flaw> {
    if !rounds_in(data) {
        return Err(Flaw::Encrypted);
    }
    let (mut archive, mut tries) = (None, Tries::default());
    let word = tries.first_that(out, |word| {
        archive = Archive::read_with_memory_limit(&mut Cursor::new(data), &Password::from(word), kib).ok();
        archive.is_some()
    });
    let archive = archive.ok_or(Flaw::Encrypted)?;
    out.note(FindingKind::PasswordFound, "7z");
    Ok(Opened { archive, data, word, tries, kib })
}

/// Whether no description of AES in the plain part of the headers asks for more rounds than are tried.
fn rounds_in(data: &[u8]) -> bool {
    const START: usize = 32;
    let header = super::field::le64(data, 12).map_or(usize::MAX, super::field::index).saturating_add(START);
    let header = data.get(header..).unwrap_or(data);
    // The length of the parameters stands before them.
    memchr::memmem::find_iter(header, AES).all(|at| header.get(at + AES.len() + 1).is_none_or(|first| bearable(*first)))
}

/// Whether a key takes no longer than is worth a try, by the first byte of the parameters.
pub(super) fn bearable(first: u8) -> bool {
    matches!(first & 63, 0..=ROUNDS | 63)
}

impl Opened<'_> {
    fn is_locked(&self, block: usize) -> bool {
        let first = self.archive.stream_map.block_first_file_index.get(block).copied().unwrap_or_default();
        self.archive.is_file_encrypted(first)
    }

    /// Looks for the word that opens a block. Members have mostly the same.
    fn unlock(&mut self, block: usize, out: &mut Members<'_, '_>) -> bool {
        if self.word.as_deref().is_some_and(|word| self.opens(block, word, out)) {
            return true;
        }
        let coders = self.archive.blocks.get(block).map_or(&[][..], |block| &block.coders);
        let mut aes = coders.iter().filter(|coder| coder.encoder_method_id() == AES);
        if !aes.all(|coder| coder.properties().first().is_some_and(|first| bearable(*first))) {
            return false;
        }
        let mut tries = std::mem::take(&mut self.tries);
        let word = tries.first_that(out, |word| self.opens(block, word, out));
        self.tries = tries;
        let Some(word) = word else { return false };
        if self.word.replace(word).is_none() {
            out.note(FindingKind::PasswordFound, "7z");
        }
        true
    }

    /// Whether the first member of a block comes out whole with this word: its checksum tells.
    fn opens(&self, block: usize, word: &str, out: &Members<'_, '_>) -> bool {
        let (password, watch) = (Password::from(word), out.watch());
        let mut source = Cursor::new(self.data);
        let decoder = BlockDecoder::new_with_memory_limit(1, self.kib, block, &self.archive, &password, &mut source);
        let mut whole = false;
        let mut first = |_: &ArchiveEntry, reader: &mut dyn Read| {
            let mut buffer = [0; 8192];
            whole = loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break true,
                    Ok(_) if watch.over().is_none() => {}
                    _ => break false,
                }
            };
            Ok(false)
        };
        // It ends early on purpose; what matters is known by then.
        let _ = decoder.for_each_entries(&mut first);
        whole
    }

    /// Gives all members of a block.
    fn extract(&self, block: usize, out: &mut Members<'_, '_>) -> Result<(), Flaw> {
        let password = self.word.as_deref().map_or_else(Password::empty, Password::from);
        let mut source = Cursor::new(self.data);
        let mut over: Option<Over> = None;
        let before = out.count();
        let mut each = |file: &ArchiveEntry, reader: &mut dyn Read| {
            if !file.has_stream || file.is_directory {
                return Ok(true);
            }
            out.list(!is_link(file));
            over = out.stream(from_ref(&file.name), reader).err();
            out.list(true);
            Ok(over.is_none())
        };
        let decoder = BlockDecoder::new_with_memory_limit(1, self.kib, block, &self.archive, &password, &mut source);
        let decoded = decoder.for_each_entries(&mut each);
        if let Some(over) = over {
            return Err(over.into());
        }
        if let Err(error) = decoded {
            let flaw = flaw(error);
            // What the block holds is known by name at least.
            if out.count() == before { names_only(&self.archive, block, &flaw, out)? } else { out.flaw(&flaw) }
        }
        Ok(())
    }
}

/// A symbolic link, by the attributes of Unix or as a reparse point of Windows.
fn is_link(file: &ArchiveEntry) -> bool {
    let attributes = file.windows_attributes;
    attributes & 0x400 != 0 || attributes & 0x8000 != 0 && attributes >> 28 == 0o12
}

/// Whether a block is packed by Deflate64 alone, which sevenz-rust2 does not know.
fn is_deflate64(archive: &Archive, block: usize) -> bool {
    let coders = archive.blocks.get(block).map_or(&[][..], |block| &block.coders);
    matches!(coders, [coder] if coder.encoder_method_id() == EncoderMethod::ID_DEFLATE64)
}

/// Decodes such a block: its members lie behind each other.
fn deflate64(archive: &Archive, block: usize, data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    const START: u64 = 32;
    let map = &archive.stream_map;
    let first = map.block_first_pack_stream_index().get(block).copied().unwrap_or_default();
    let offset = map.pack_stream_offsets().get(first).copied().unwrap_or_default();
    let start = START.saturating_add(archive.pack_pos()).saturating_add(offset);
    let packed = data.get(super::field::index(start)..).ok_or(Flaw::Truncated)?;
    let mut reader = deflate64::Deflate64Decoder::with_buffer(packed);
    let places = archive.files.iter().zip(&map.file_block_index);
    for (file, _) in places.filter(|(file, place)| **place == Some(block) && file.has_stream) {
        out.list(!is_link(file));
        out.stream(from_ref(&file.name), &mut (&mut reader).take(file.size))?;
        out.list(true);
    }
    Ok(())
}

/// The members of a block that cannot be decoded.
fn names_only(archive: &Archive, block: usize, flaw: &Flaw, out: &mut Members<'_, '_>) -> Result<(), Over> {
    let places = archive.files.iter().zip(&archive.stream_map.file_block_index);
    let mut here = places.filter(|(file, place)| **place == Some(block) && file.has_stream).peekable();
    if here.peek().is_none() {
        out.flaw(flaw);
    }
    for (file, _) in here {
        out.closed(from_ref(&file.name), flaw)?;
    }
    Ok(())
}

fn flaw(error: Error) -> Flaw {
    match error {
        Error::PasswordRequired | Error::MaybeBadPassword(_) => Flaw::Encrypted,
        Error::MaxMemLimited { .. } => Flaw::Memory,
        Error::UnsupportedCompressionMethod(method) => Flaw::Unsupported(format!("7z method {method}")),
        Error::Unsupported(_) | Error::ExternalUnsupported | Error::UnsupportedVersion { .. } => {
            Flaw::Unsupported("7z".to_owned())
        }
        Error::Io(error, _) => error.into(),
        Error::ChecksumVerificationFailed | Error::NextHeaderCrcMismatch => Flaw::Damaged("checksum"),
        _ => Flaw::Damaged("structure"),
    }
}
