// SPDX-License-Identifier: GPL-3.0-or-later
//! cpio: the newc, crc, odc and binary headers (cpio(5)).

use super::field::{be16, digits, index, le16, slice, text};
use super::members::{Flaw, Members};

/// One header.
struct Header {
    /// Bytes of the header itself.
    length: usize,
    mode: u64,
    name_length: usize,
    size: usize,
    /// Names and data begin at a multiple of this.
    align: usize,
}

/// Name of the member that ends the archive.
const TRAILER: &str = "TRAILER!!!";
/// The bits of the mode that tell the kind of file, and those of a regular one.
const KIND: u64 = 0o170_000;
const REGULAR: u64 = 0o100_000;

/// Opens all members.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let mut at = 0;
    loop {
        out.clock()?;
        let header = header(data.get(at..).unwrap_or_default())?;
        let name_at = at.saturating_add(header.length);
        let name = text(slice(data, name_at, header.name_length).ok_or(Flaw::Truncated)?);
        let start = padded(name_at.saturating_add(header.name_length), at, header.align);
        let end = start.saturating_add(header.size);
        if name == TRAILER {
            return Ok(());
        }
        let content = &data[start.min(data.len())..end.min(data.len())];
        if header.mode & KIND == REGULAR {
            out.stored(&[name], content)?;
        }
        if end > data.len() {
            return Err(Flaw::Truncated);
        }
        at = padded(end, at, header.align);
    }
}

/// The binary forms count from the header, where an archive begins at an even place anyway; newc counts the same way.
fn padded(place: usize, from: usize, align: usize) -> usize {
    from.saturating_add(place.saturating_sub(from).div_ceil(align).saturating_mul(align))
}

fn header(data: &[u8]) -> Result<Header, Flaw> {
    let parsed = match data {
        [b'0', b'7', b'0', b'7', b'0', b'1' | b'2', ..] => newc(data),
        [b'0', b'7', b'0', b'7', b'0', b'7', ..] => odc(data),
        [0xc7, 0x71, ..] => binary(data, le16),
        [0x71, 0xc7, ..] => binary(data, be16),
        [] => return Err(Flaw::Truncated),
        _ => return Err(Flaw::Damaged("header")),
    };
    parsed.ok_or(Flaw::Truncated)
}

fn newc(data: &[u8]) -> Option<Header> {
    let field = |number: usize| digits(slice(data, 6 + 8 * number, 8)?, 16);
    let (mode, size, name_length) = (field(1)?, index(field(6)?), index(field(11)?));
    Some(Header { length: 110, mode, name_length, size, align: 4 })
}

fn odc(data: &[u8]) -> Option<Header> {
    let field = |at, length| digits(slice(data, at, length)?, 8);
    let (mode, name_length, size) = (field(18, 6)?, index(field(59, 6)?), index(field(65, 11)?));
    Some(Header { length: 76, mode, name_length, size, align: 1 })
}

/// 32-bit numbers have their upper half first, whatever the order of bytes within a half.
fn binary(data: &[u8], half: fn(&[u8], usize) -> Option<u16>) -> Option<Header> {
    let name_length = usize::from(half(data, 20)?);
    let size = usize::from(half(data, 22)?) << 16 | usize::from(half(data, 24)?);
    Some(Header { length: 26, mode: u64::from(half(data, 6)?), name_length, size, align: 2 })
}
