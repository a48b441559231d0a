// SPDX-License-Identifier: GPL-3.0-or-later
//! tar: ustar, pax and GNU headers (POSIX.1-2017 pax, GNU tar manual). Data is taken as it is stored; holes of sparse
//! files are not filled.

use super::field::{digits, index, slice, text};
use super::members::{Flaw, Members};
use crate::findings::FindingKind;

const BLOCK: usize = 512;

/// Whether a block is a header: the sum of its bytes, blanks in place of the sum itself, stands in it.
pub(super) fn is_header(block: &[u8]) -> bool {
    let Some(block) = block.get(..BLOCK) else { return false };
    let Some(sum) = digits(&block[148..156], 8) else { return false };
    let unsigned = sum_of(block, u64::from);
    let signed = sum_of(block, |byte| byte.cast_signed() as u64);
    sum != 0 && (sum == unsigned || sum == signed & 0xff_ffff)
}

fn sum_of(block: &[u8], value: impl Fn(u8) -> u64) -> u64 {
    let blanks = (148..156).map(|_| value(b' '));
    let rest = block[..148].iter().chain(&block[156..]).map(|byte| value(*byte));
    blanks.chain(rest).fold(0, u64::wrapping_add)
}

/// What extended headers say of the next member.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    size: Option<u64>,
}

/// Opens all members.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let (mut at, mut extended, mut ended) = (0, Extended::default(), false);
    while at + BLOCK <= data.len() {
        out.clock()?;
        let block = &data[at..at + BLOCK];
        at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            ended = true;
            continue;
        }
        if !is_header(block) {
            // Blocks are written in groups, and what fills up the last group is not always zeros.
            return if ended { Ok(()) } else { Err(Flaw::Damaged("header")) };
        }
        // Behind the end: hardly a program goes on to a second archive there. It is scanned, but not listed.
        if ended {
            out.note(FindingKind::HiddenMembers, "tar");
            return Ok(out.aside("behind the end", &mut &data[at - BLOCK..])?);
        }
        let stored = index(size(block, &extended));
        let content = &data[at..at.saturating_add(stored).min(data.len())];
        let whole = content.len() == stored;
        at = at.saturating_add(stored.div_ceil(BLOCK).saturating_mul(BLOCK));
        match block[156] {
            b'L' => extended.name = Some(text(content)),
            b'K' | b'g' => {}
            b'x' | b'X' => pax(content, &mut extended),
            kind => {
                let header = std::mem::take(&mut extended);
                at = at.saturating_add(sparse_headers(block, data, at, stored));
                let spelled = spellings(block, header.name);
                if is_file(kind, &spelled, stored) {
                    out.stored(&spelled, content)?;
                }
            }
        }
        if !whole {
            return Err(Flaw::Truncated);
        }
    }
    Ok(())
}

/// Regular files; of others (links, directories, devices) those with data.
fn is_file(kind: u8, names: &[String], stored: usize) -> bool {
    match kind {
        b'0' | 0 | b'7' => stored > 0 || !names.iter().any(|name| name.ends_with('/')),
        b'1'..=b'6' => stored > 0,
        b'S' | b'V' => true,
        // Volume headers of GNU tar, directories of incremental dumps, and whatever else carries data.
        b'M' | b'N' | b'D' => stored > 0,
        _ => true,
    }
}

/// Links have no data whatever their size says, as all programs read them.
fn size(block: &[u8], extended: &Extended) -> u64 {
    if matches!(block[156], b'1'..=b'6') {
        return 0;
    }
    let field = &block[124..136];
    let written = if field[0] & 0x80 != 0 {
        // Binary, big-endian (GNU tar for sizes over 8 GiB).
        field[4..].iter().fold(0u64, |size, byte| size << 8 | u64::from(*byte))
    } else {
        digits(field, 8).unwrap_or_default()
    };
    extended.size.unwrap_or(written)
}

/// Names of a member: from extended headers, from its own with the prefix, and from its own without.
fn spellings(block: &[u8], extended: Option<String>) -> Vec<String> {
    let own = text(&block[..100]);
    let mut names: Vec<String> = extended.into_iter().collect();
    let prefix = text(&block[345..500]);
    if &block[257..262] == b"ustar" && &block[257..265] != b"ustar  \0" && !prefix.is_empty() {
        names.push(format!("{prefix}/{own}"));
    } else {
        names.push(own);
    }
    names.dedup();
    names
}

/// More maps of the old sparse format follow the header, flagged at its end; returns how many bytes of the data's room they
/// take. The data itself is read before, so here only the room is counted.
fn sparse_headers(block: &[u8], data: &[u8], at: usize, stored: usize) -> usize {
    if block[156] != b'S' || block[482] == 0 {
        return 0;
    }
    let mut maps = 0;
    // The maps precede the data: they were read as its beginning, the same number of blocks is missing at its end.
    let start = at.saturating_sub(stored.div_ceil(BLOCK).saturating_mul(BLOCK));
    while slice(data, start + maps, BLOCK).is_some_and(|map| map[504] != 0) {
        maps += BLOCK;
    }
    maps + BLOCK
}

/// Records `length key=value` of a pax header.
fn pax(mut records: &[u8], extended: &mut Extended) {
    while let Some(blank) = memchr::memchr(b' ', records) {
        let Some(length) = digits(&records[..blank], 10).map(index) else { return };
        let Some(record) = records.get(blank + 1..length) else { return };
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        if let Some(value) = record.strip_prefix(b"path=") {
            extended.name = Some(text(value));
        } else if let Some(value) = record.strip_prefix(b"size=") {
            extended.size = digits(value, 10);
        }
        records = &records[length.max(blank + 1)..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_block_is_looked_at(block in proptest::collection::vec(any::<u8>(), 0..600)) {
            is_header(&block);
            let mut extended = Extended::default();
            pax(&block, &mut extended);
        }
    }
}
