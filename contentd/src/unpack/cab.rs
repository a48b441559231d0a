// SPDX-License-Identifier: GPL-3.0-or-later
//! Microsoft cabinets (MS-CAB): stored, MSZIP and LZX. Quantum, which nobody has used since 1999, is not known.

use super::field::{index, le16, le32, slice, text};
use super::lzx::Lzx;
use super::members::{Flaw, Members};
use flate2::{Decompress, FlushDecompress};

/// Decoded bytes of one data block, at most.
const BLOCK: usize = 32 * 1024;

/// A run of data blocks that are packed together.
struct Folder {
    start: usize,
    blocks: u16,
    method: u16,
}

/// A file: bytes of a decoded folder.
struct File {
    name: String,
    size: usize,
    offset: usize,
    folder: u16,
}

/// Opens all files, folder by folder.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let (folders, files, reserved) = listing(data).ok_or(Flaw::Truncated)?;
    for (number, folder) in folders.iter().enumerate() {
        // The last numbers say that a file continues from the cabinet before or into the next.
        let is_here = |file: &&File| match file.folder {
            0xfffd => number == 0,
            0xfffe => number + 1 == folders.len(),
            0xffff => number == 0,
            folder => usize::from(folder) == number,
        };
        let mut here: Vec<&File> = files.iter().filter(is_here).collect();
        here.sort_by_key(|file| file.offset);
        let Some(end) = here.iter().map(|file| file.offset.saturating_add(file.size)).max() else { continue };
        let (decoded, flaw) = decode(data, folder, reserved, end, out)?;
        for file in here {
            let names = [file.name.replace('\\', "/")];
            let from = file.offset.min(decoded.len());
            let to = file.offset.saturating_add(file.size).min(decoded.len());
            if to - from < file.size {
                let flaw =
                    if file.folder >= 0xfffd { Flaw::MultiVolume } else { flaw.clone().unwrap_or(Flaw::Truncated) };
                if from == to {
                    out.closed(&names, &flaw)?;
                    continue;
                }
                out.flaw(&flaw);
            }
            out.stored(&names, &decoded[from..to])?;
        }
    }
    Ok(())
}

/// Folders, files, and the bytes that every data block reserves.
fn listing(data: &[u8]) -> Option<(Vec<Folder>, Vec<File>, usize)> {
    let (folders, files, flags) = (le16(data, 26)?, le16(data, 28)?, le16(data, 30)?);
    let files_at = index(le32(data, 16)?);
    let mut at = 36;
    let (mut folder_reserved, mut block_reserved) = (0, 0);
    if flags & 4 != 0 {
        folder_reserved = usize::from(*data.get(38)?);
        block_reserved = usize::from(*data.get(39)?);
        at = 40 + usize::from(le16(data, 36)?);
    }
    // Names of the cabinet before and of the next, each with its disk.
    for _ in 0..(flags & 1) * 2 + (flags >> 1 & 1) * 2 {
        at += memchr::memchr(0, data.get(at..)?)? + 1;
    }
    let mut list = Vec::new();
    for _ in 0..folders {
        list.push(Folder { start: index(le32(data, at)?), blocks: le16(data, at + 4)?, method: le16(data, at + 6)? });
        at += 8 + folder_reserved;
    }
    Some((list, entries(data, files_at, files), block_reserved))
}

/// As many files as there are.
fn entries(data: &[u8], mut at: usize, count: u16) -> Vec<File> {
    let mut files = Vec::new();
    let mut next = || {
        let (size, offset, folder) = (index(le32(data, at)?), index(le32(data, at + 4)?), le16(data, at + 8)?);
        let length = memchr::memchr(0, data.get(at + 16..)?)?;
        let name = text(slice(data, at + 16, length)?);
        at += 17 + length;
        Some(File { name, size, offset, folder })
    };
    for _ in 0..count {
        let Some(file) = next() else { break };
        files.push(file);
    }
    files
}

/// Decodes a folder as far as it goes, and gives the reason when it did not go far enough.
fn decode(
    data: &[u8],
    folder: &Folder,
    reserved: usize,
    end: usize,
    out: &mut Members<'_, '_>,
) -> Result<(Vec<u8>, Option<Flaw>), Flaw> {
    let most = index(out.memory()).min(end);
    let mut decoder = match Decoder::new(folder.method) {
        Ok(decoder) => decoder,
        Err(flaw) => return Ok((Vec::new(), Some(flaw))),
    };
    let mut decoded = Vec::new();
    let mut at = folder.start;
    for _ in 0..folder.blocks {
        out.clock()?;
        let sizes = le16(data, at + 4).zip(le16(data, at + 6));
        let Some((packed, size)) = sizes.map(|(packed, size)| (usize::from(packed), usize::from(size))) else {
            return Ok((decoded, Some(Flaw::Truncated)));
        };
        let start = at.saturating_add(8 + reserved);
        let Some(block) = slice(data, start, packed) else { return Ok((decoded, Some(Flaw::Truncated))) };
        match decoder.block(block, size) {
            Ok(bytes) => decoded.extend_from_slice(&bytes),
            Err(flaw) => return Ok((decoded, Some(flaw))),
        }
        if decoded.len() >= most {
            let flaw = (decoded.len() < end).then_some(Flaw::Memory);
            return Ok((decoded, flaw));
        }
        at = start.saturating_add(packed);
    }
    Ok((decoded, None))
}

enum Decoder {
    Stored,
    /// What was decoded last is the dictionary of the next block.
    MsZip(Vec<u8>),
    Lzx(Box<Lzx>),
}

impl Decoder {
    fn new(method: u16) -> Result<Decoder, Flaw> {
        match method & 15 {
            0 => Ok(Decoder::Stored),
            1 => Ok(Decoder::MsZip(Vec::new())),
            3 => Ok(Decoder::Lzx(Box::new(Lzx::new(u32::from(method >> 8 & 31))?))),
            2 => Err(Flaw::Unsupported("cab method quantum".to_owned())),
            other => Err(Flaw::Unsupported(format!("cab method {other}"))),
        }
    }

    fn block(&mut self, data: &[u8], size: usize) -> Result<Vec<u8>, Flaw> {
        match self {
            Decoder::Stored => Ok(data.to_vec()),
            Decoder::Lzx(lzx) if size <= BLOCK => lzx.block(data, size),
            Decoder::Lzx(_) => Err(Flaw::Damaged("block")),
            Decoder::MsZip(window) => {
                let packed = data.strip_prefix(b"CK").ok_or(Flaw::Damaged("block"))?;
                let bytes = inflate(packed, window)?;
                window.clone_from(&bytes);
                Ok(bytes)
            }
        }
    }
}

/// Deflate with the block before as its dictionary: a stored block that holds it goes in front.
fn inflate(packed: &[u8], window: &[u8]) -> Result<Vec<u8>, Flaw> {
    let mut inflater = Decompress::new(false);
    let mut bytes = vec![0; window.len() + BLOCK];
    if let Ok(length) = u16::try_from(window.len())
        && length > 0
    {
        let mut block = vec![0];
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&(!length).to_le_bytes());
        block.extend_from_slice(window);
        inflater.decompress(&block, &mut bytes, FlushDecompress::None).map_err(|_| Flaw::Damaged("block"))?;
    }
    let done = index(inflater.total_out());
    inflater.decompress(packed, &mut bytes[done..], FlushDecompress::Finish).map_err(|_| Flaw::Damaged("block"))?;
    bytes.truncate(index(inflater.total_out()));
    Ok(bytes.split_off(window.len().min(bytes.len())))
}
