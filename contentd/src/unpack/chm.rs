// SPDX-License-Identifier: GPL-3.0-or-later
//! Compiled HTML help, as Matthew Russotto described it: directory chunks, a section as it is and one packed with LZX.

use super::field::{index, le32, le64, slice, text};
use super::lzx::Lzx;
use super::members::{Flaw, Members};

/// Decoded bytes of one block.
const BLOCK: usize = 32 * 1024;
const MOST: usize = 20_000;
const CONTENT: &str = "::DataSpace/Storage/MSCompressed/Content";
const CONTROL: &str = "::DataSpace/Storage/MSCompressed/ControlData";
const RESETS: &str = "ResetTable";

/// A file: in which section, where, how long.
struct Entry {
    name: String,
    section: u64,
    offset: usize,
    length: usize,
}

/// Opens all files.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let directory = index(le64(data, 72).ok_or(Flaw::Truncated)?);
    let base = match le32(data, 4) {
        Some(3..) => index(le64(data, 88).ok_or(Flaw::Truncated)?),
        _ => directory.saturating_add(index(le64(data, 80).unwrap_or_default())),
    };
    let entries = entries(data, directory, out)?;
    let plain = |entry: &Entry| {
        let from = base.saturating_add(entry.offset).min(data.len());
        &data[from..from.saturating_add(entry.length).min(data.len())]
    };
    let find = |name: &str| entries.iter().find(|entry| entry.section == 0 && entry.name.ends_with(name)).map(plain);
    let end =
        entries.iter().filter(|entry| entry.section == 1).map(|entry| entry.offset.saturating_add(entry.length)).max();
    let mut packed = Vec::new();
    let mut flaw = None;
    if let (Some(end), Some(content)) = (end, find(CONTENT)) {
        let control = find(CONTROL).ok_or(Flaw::Damaged("control"))?;
        (packed, flaw) = decode(content, control, find(RESETS), end, out)?;
    }
    for entry in entries.iter().filter(|entry| entry.length > 0 && !entry.name.starts_with("::")) {
        let content = match entry.section {
            0 => plain(entry),
            _ => &packed[entry.offset.min(packed.len())..entry.offset.saturating_add(entry.length).min(packed.len())],
        };
        let names = [entry.name.trim_start_matches('/').to_owned()];
        if content.is_empty() {
            out.closed(&names, flaw.as_ref().unwrap_or(&Flaw::Truncated))?;
        } else {
            out.stored(&names, content)?;
        }
    }
    flaw.map_or(Ok(()), Err)
}

/// All entries of all listing chunks (`PMGL`).
fn entries(data: &[u8], directory: usize, out: &Members<'_, '_>) -> Result<Vec<Entry>, Flaw> {
    let header = index(le32(data, directory.saturating_add(8)).ok_or(Flaw::Truncated)?);
    let size = index(le32(data, directory + 16).ok_or(Flaw::Truncated)?).max(64);
    let chunks = index(le32(data, directory + 44).ok_or(Flaw::Truncated)?);
    let mut entries = Vec::new();
    for number in 0..chunks.min(MOST) {
        out.clock()?;
        let at = directory.saturating_add(header).saturating_add(number.saturating_mul(size));
        let Some(chunk) = slice(data, at, size) else { break };
        if !chunk.starts_with(b"PMGL") {
            continue;
        }
        let free = index(le32(chunk, 4).unwrap_or_default());
        let mut list = &chunk[20..size.saturating_sub(free).max(20)];
        while let Some(entry) = entry(&mut list) {
            if entries.len() >= MOST {
                return Ok(entries);
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn entry(list: &mut &[u8]) -> Option<Entry> {
    let length = index(number(list)?);
    let name = text(slice(list, 0, length)?);
    *list = &list[length..];
    let (section, offset, length) = (number(list)?, index(number(list)?), index(number(list)?));
    Some(Entry { name, section, offset, length })
}

/// Seven bits a byte, the highest first; the top bit says that more follow.
fn number(list: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for _ in 0..9 {
        let (&byte, rest) = list.split_first()?;
        *list = rest;
        value = value << 7 | u64::from(byte & 127);
        if byte & 128 == 0 {
            return Some(value);
        }
    }
    None
}

/// Decodes the packed section as far as it goes. The decoder starts anew every so many blocks.
fn decode(
    content: &[u8],
    control: &[u8],
    resets: Option<&[u8]>,
    end: usize,
    out: &Members<'_, '_>,
) -> Result<(Vec<u8>, Option<Flaw>), Flaw> {
    let version = le32(control, 8).ok_or(Flaw::Damaged("control"))?;
    let unit = if version >= 2 { BLOCK } else { 1 };
    let interval = (index(le32(control, 12).unwrap_or(1)).saturating_mul(unit) / BLOCK).max(1);
    let window = index(le32(control, 16).unwrap_or(2)).saturating_mul(unit);
    let bits = window.max(1).ilog2();
    let starts = block_starts(resets.ok_or(Flaw::Damaged("reset table"))?);
    let most = index(out.memory()).min(end);
    let mut decoded = Vec::new();
    let mut lzx = Lzx::new(bits)?;
    for (number, &start) in starts.iter().enumerate() {
        out.clock()?;
        if decoded.len() >= most {
            break;
        }
        if number % interval == 0 {
            lzx = Lzx::new(bits)?;
        }
        let stop = starts.get(number + 1).copied().unwrap_or(content.len());
        let Some(block) = content.get(start..stop.min(content.len())) else {
            return Ok((decoded, Some(Flaw::Truncated)));
        };
        match lzx.block(block, BLOCK.min(end - decoded.len())) {
            Ok(bytes) => decoded.extend_from_slice(&bytes),
            Err(flaw) => return Ok((decoded, Some(flaw))),
        }
    }
    let flaw = (decoded.len() < end).then_some(if most < end { Flaw::Memory } else { Flaw::Truncated });
    Ok((decoded, flaw))
}

/// Where each block begins.
fn block_starts(table: &[u8]) -> Vec<usize> {
    let count = index(le32(table, 4).unwrap_or_default());
    let header = index(le32(table, 12).unwrap_or(40));
    let starts = (0..count.min(1 << 16)).map_while(|number| le64(table, header.checked_add(8 * number)?));
    starts.map(index).collect()
}
