// SPDX-License-Identifier: GPL-3.0-or-later
//! 7-Zip, by the crate `sevenz-rust2`: one thread, because several read far ahead, and a limit for dictionaries. Each block is
//! decoded by itself, so that one that cannot be decoded does not hide the others.

use super::members::{Flaw, Members};
use crate::budget::Over;
use sevenz_rust2::{Archive, ArchiveEntry, BlockDecoder, EncoderMethod, Error, Password};
use std::io::{Cursor, Read};
use std::slice::from_ref;

/// Opens all members.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let kib = usize::try_from(out.memory() / 1024).unwrap_or(usize::MAX);
    let password = Password::empty();
    let mut source = Cursor::new(data);
    let archive = Archive::read_with_memory_limit(&mut source, &password, kib).map_err(flaw)?;
    for file in archive.files.iter().filter(|file| !file.has_stream && !file.is_directory) {
        out.stored(from_ref(&file.name), &[])?;
    }
    for block in 0..archive.blocks.len() {
        let first = archive.stream_map.block_first_file_index.get(block).copied().unwrap_or_default();
        if archive.is_file_encrypted(first) {
            names_only(&archive, block, &Flaw::Encrypted, out)?;
            continue;
        }
        if is_deflate64(&archive, block) {
            deflate64(&archive, block, data, out)?;
            continue;
        }
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
        let decoder = BlockDecoder::new_with_memory_limit(1, kib, block, &archive, &password, &mut source);
        let decoded = decoder.for_each_entries(&mut each);
        if let Some(over) = over {
            return Err(over.into());
        }
        if let Err(error) = decoded {
            let flaw = flaw(error);
            // What the block holds is known by name at least.
            if out.count() == before { names_only(&archive, block, &flaw, out)? } else { out.flaw(&flaw) }
        }
    }
    Ok(())
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
