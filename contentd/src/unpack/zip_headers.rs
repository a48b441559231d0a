// SPDX-License-Identifier: GPL-3.0-or-later
//! The headers of a ZIP file (PKWARE APPNOTE 6.3.10): both lists of members, the central directory and the local headers.
//!
//! Programs differ in which of the two they follow, so both are read and joined by the place of the local header. No
//! decoding here. Pure.

use super::field::{index, le16, le32, le64, slice, text};
use memchr::memmem;
use std::collections::BTreeMap;

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";
/// A comment may be 64 KiB long; what lies further from the end is no end.
const END_SEARCH: usize = 22 + 65_535 + 1024;
/// More members than any budget has objects are not even listed.
const MOST: usize = 100_000;

/// What one header says of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: String,
    /// Another spelling of the name, from the extra field 0x7075.
    pub(super) other_name: Option<String>,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) crc: u32,
    pub(super) packed: u64,
    pub(super) size: u64,
    /// File attributes of the system that packed it; central headers only.
    pub(super) attributes: u32,
}

impl Header {
    /// Bit 0 encrypts the data, bit 13 hides the header, method 99 is WinZip's AES.
    pub(super) fn encrypted(&self) -> bool {
        self.flags & (1 | 1 << 13) != 0 || self.method == 99
    }

    /// Sizes and checksum stand behind the data.
    pub(super) fn has_descriptor(&self) -> bool {
        self.flags & 1 << 3 != 0
    }

    /// A symbolic link, as its attributes of Unix say.
    pub(super) fn is_link(&self) -> bool {
        self.attributes >> 28 == 0o12
    }

    pub(super) fn is_directory(&self) -> bool {
        let marked = self.name.ends_with('/') || self.attributes & 0x10 != 0 || self.attributes >> 28 == 4;
        marked && self.size == 0
    }
}

/// One member: what either list says of it, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) local: Option<Header>,
    /// There can be several: each is a name for the same data.
    pub(super) central: Vec<Header>,
    /// Where the data begins, once the local header is known.
    pub(super) data: usize,
}

/// Everything that the headers say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// By the place of the local header.
    pub(super) entries: BTreeMap<usize, Entry>,
    /// There is an end record.
    pub(super) ended: bool,
    /// The archive says that it is one of several.
    pub(super) multi_volume: bool,
    /// Local headers that the central directory does not know.
    pub(super) hidden: bool,
    /// The two headers of a member contradict each other.
    pub(super) differ: bool,
    /// The data of a member reaches into the next one.
    pub(super) overlap: bool,
}

/// Whether an end record with its comment ends the file exactly.
pub(super) fn ends_a_file(data: &[u8]) -> bool {
    ends(data).any(|at| le16(data, at + 20).is_some_and(|comment| at + 22 + usize::from(comment) == data.len()))
        && !data.starts_with(LOCAL)
        && !data.starts_with(END)
}

/// Whether any header says that its member is encrypted.
pub(super) fn is_locked(data: &[u8]) -> bool {
    let locked = |signature: &'static [u8], place: usize| {
        memmem::find_iter(data, signature).any(|at| le16(data, at + place).is_some_and(|flags| flags & 1 != 0))
    };
    locked(LOCAL, 6) || locked(CENTRAL, 8)
}

/// Whether any header names a method that is neither stored nor deflate, or an encrypted member.
pub(super) fn is_exotic(data: &[u8]) -> bool {
    let odd = |signature: &'static [u8], place: usize| {
        memmem::find_iter(data, signature)
            .any(|at| le16(data, at + place).is_some_and(|method| !matches!(method, 0 | 8 | 99)))
    };
    odd(LOCAL, 8) || odd(CENTRAL, 10) || is_locked(data)
}

/// Whether there is one end record for so many members, at the very end, with the directory right before it, and nothing before the first
/// member: an archive that can be read in one way only.
pub(super) fn is_simple(data: &[u8], members: usize) -> bool {
    let mut ends = ends(data);
    let (Some(at), None) = (ends.next(), ends.next()) else { return false };
    let directory = (le32(data, at + 12), le32(data, at + 16));
    let (Some(size), Some(place)) = directory else { return false };
    at + 22 == data.len()
        && u64::from(place) + u64::from(size) == at as u64
        && le16(data, at + 10).map(usize::from) == Some(members)
        && data.starts_with(LOCAL)
        && slice(data, at.saturating_sub(20), 4) != Some(LOCATOR64)
}

/// Whether there is an end record at all.
pub(super) fn has_end(data: &[u8]) -> bool {
    ends(data).next().is_some()
}

/// The first local header that makes sense.
pub(super) fn first_local(data: &[u8]) -> Option<usize> {
    memmem::find_iter(data, LOCAL).find(|at| local(data, *at).is_some())
}

/// End records near the end of the file, the last one first.
fn ends(data: &[u8]) -> impl Iterator<Item = usize> {
    let from = data.len().saturating_sub(END_SEARCH);
    let found: Vec<usize> = memmem::find_iter(&data[from..], END).map(|at| from + at).collect();
    found.into_iter().rev().filter(|at| at + 22 <= data.len())
}

/// Reads both lists and joins them.
pub(super) fn read(data: &[u8]) -> Listing {
    let mut listing = Listing::default();
    for end in ends(data).take(8) {
        // The end record of an archive stored within the archive is not one of ours.
        if listing.entries.values().any(|entry| entry.data < end && end < end_of(entry)) {
            continue;
        }
        listing.ended = true;
        central_directory(data, end, &mut listing);
        for (at, entry) in &mut listing.entries {
            if let Some((header, data)) = local(data, *at) {
                (entry.local, entry.data) = (Some(header), data);
            }
        }
    }
    walk_locals(data, &mut listing);
    listing.entries.retain(|_, entry| entry.local.is_some());
    listing.differ = listing.entries.values().any(differs);
    listing.overlap = overlaps(&listing);
    listing
}

/// The central directory that an end record points to. When something precedes the archive, all offsets are too small.
fn central_directory(data: &[u8], end: usize, listing: &mut Listing) {
    let field = |at: usize| le32(data, end + at).map_or(0, u64::from);
    let disk = le16(data, end + 4).unwrap_or_default();
    let mut end_of_directory = end;
    let (mut size, mut offset) = (field(12), field(16));
    if let Some(end64) = end64(data, end) {
        (size, offset) = (le64(data, end64 + 40).unwrap_or(size), le64(data, end64 + 48).unwrap_or(offset));
        end_of_directory = end64;
    }
    listing.multi_volume |= disk != 0 && disk != u16::MAX;
    let by_size = end_of_directory.checked_sub(index(size));
    let start = match by_size {
        Some(start) if data[start..].starts_with(CENTRAL) => start,
        _ if slice(data, index(offset), 4) == Some(CENTRAL) => index(offset),
        // Neither figure is true: some programs look for the headers themselves.
        _ => match memmem::find(data, CENTRAL) {
            Some(start) if start < end_of_directory => start,
            _ => return,
        },
    };
    let shift = start.saturating_sub(index(offset));
    let mut at = start;
    while listing.entries.len() < MOST && slice(data, at, 4) == Some(CENTRAL) {
        let Some((header, place, length)) = central(data, at) else { break };
        let places = [place.saturating_add(shift), place];
        let place = places.into_iter().find(|place| slice(data, *place, 4) == Some(LOCAL));
        if let Some(place) = place {
            let known = &mut listing.entries.entry(place).or_default().central;
            if known.len() < 20 && !known.contains(&header) {
                known.push(header);
            }
        }
        at += length;
    }
}

/// The end record of ZIP64, by its locator.
fn end64(data: &[u8], end: usize) -> Option<usize> {
    let locator = end.checked_sub(20)?;
    if slice(data, locator, 4)? != LOCATOR64 {
        return None;
    }
    let pointed = index(le64(data, locator + 8)?);
    if slice(data, pointed, 4) == Some(END64) {
        return Some(pointed);
    }
    memmem::rfind(&data[..locator], END64)
}

/// One central header, where its local header should be, and its own length.
fn central(data: &[u8], at: usize) -> Option<(Header, usize, usize)> {
    let (name, extra) = (usize::from(le16(data, at + 28)?), usize::from(le16(data, at + 30)?));
    let comment = usize::from(le16(data, at + 32)?);
    let fields = slice(data, at + 46, name + extra)?;
    let mut header = header(data, at + 8, &fields[..name])?;
    let mut place = u64::from(le32(data, at + 42)?);
    header.attributes = le32(data, at + 38)?;
    extras(&fields[name..], &mut header, Some(&mut place));
    Some((header, index(place), 46 + name + extra + comment))
}

/// One local header and where its data begins.
fn local(data: &[u8], at: usize) -> Option<(Header, usize)> {
    if slice(data, at, 4)? != LOCAL {
        return None;
    }
    let (name, extra) = (usize::from(le16(data, at + 26)?), usize::from(le16(data, at + 28)?));
    // A truncated file may end within its last header; the name counts as far as it goes.
    let start = at + 30;
    let fields = data.get(start..(start + name + extra).min(data.len()))?;
    let mut header = header(data, at + 6, &fields[..name.min(fields.len())])?;
    extras(fields.get(name..).unwrap_or_default(), &mut header, None);
    let known = header.method <= 20 || matches!(header.method, 93..=99);
    let sane = le16(data, at + 4)? & 0xff <= 100;
    (known && sane && name > 0).then_some((header, (start + name + extra).min(data.len())))
}

/// The fields that both headers have in the same order: flags, method, time, checksum, sizes.
fn header(data: &[u8], at: usize, name: &[u8]) -> Option<Header> {
    Some(Header {
        name: text(name),
        other_name: None,
        flags: le16(data, at)?,
        method: le16(data, at + 2)?,
        crc: le32(data, at + 8)?,
        packed: u64::from(le32(data, at + 12)?),
        size: u64::from(le32(data, at + 16)?),
        attributes: 0,
    })
}

/// Extra fields: sizes of ZIP64, the name in UTF-8.
fn extras(mut extra: &[u8], header: &mut Header, mut place: Option<&mut u64>) {
    while let (Some(id), Some(length)) = (le16(extra, 0), le16(extra, 2)) {
        let Some(body) = slice(extra, 4, usize::from(length)) else { return };
        match id {
            1 => {
                let mut at = 0;
                let mut next = |value: &mut u64| {
                    if *value == u64::from(u32::MAX)
                        && let Some(wide) = le64(body, at)
                    {
                        *value = wide;
                        at += 8;
                    }
                };
                next(&mut header.size);
                next(&mut header.packed);
                if let Some(place) = place.as_deref_mut() {
                    next(place);
                }
            }
            0x7075 => header.other_name = body.get(5..).map(text).filter(|name| *name != header.name),
            _ => {}
        }
        extra = &extra[4 + usize::from(length)..];
    }
}

/// Adds the local headers that no central directory names. Known data is jumped over, so that an archive stored within
/// the archive is not taken for a part of it.
fn walk_locals(data: &[u8], listing: &mut Listing) {
    let mut at = 0;
    while let Some(found) = data.get(at..).and_then(|rest| memmem::find(rest, LOCAL)) {
        let place = at + found;
        at = place + 4;
        if let Some(entry) = listing.entries.get(&place) {
            at = at.max(end_of(entry).min(data.len()));
            continue;
        }
        let inside = listing.entries.range(..place).next_back().is_some_and(|(_, entry)| end_of(entry) > place);
        if inside || listing.entries.len() >= MOST {
            continue;
        }
        let Some((header, start)) = local(data, place) else { continue };
        listing.hidden |= listing.ended;
        let entry = Entry { local: Some(header), central: Vec::new(), data: start };
        at = at.max(end_of(&entry).min(data.len()));
        listing.entries.insert(place, entry);
    }
}

/// Where the data of a member ends, as far as its headers say.
fn end_of(entry: &Entry) -> usize {
    let sizes = entry.central.iter().chain(&entry.local).map(|header| header.packed);
    entry.data.saturating_add(index(sizes.max().unwrap_or_default()))
}

fn differs(entry: &Entry) -> bool {
    let Some(local) = &entry.local else { return false };
    entry.central.iter().any(|central| {
        let sizes = (central.packed, central.size, central.crc) != (local.packed, local.size, local.crc);
        let hidden = local.flags & 1 << 13 != 0;
        let streamed = local.has_descriptor() && local.packed == 0;
        central.method != local.method || sizes && !streamed && !hidden || central.name != local.name && !hidden
    })
}

/// Whether the data of one member reaches beyond the local header of the next, as both central headers say.
fn overlaps(listing: &Listing) -> bool {
    let ends = listing.entries.values().map(|entry| {
        let packed = entry.central.iter().map(|header| header.packed).max().unwrap_or_default();
        entry.data.saturating_add(index(packed))
    });
    let starts = listing.entries.keys().skip(1);
    ends.zip(starts).any(|(end, start)| end > *start) || listing.entries.values().any(|entry| entry.central.len() > 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_listed(data: Vec<u8>, end in 0usize..64) {
            read(&data);
            let mut data = data;
            data.extend_from_slice(LOCAL);
            data.extend_from_slice(&[0; 26]);
            data.extend_from_slice(CENTRAL);
            data.extend_from_slice(&vec![1; end]);
            data.extend_from_slice(END);
            data.extend_from_slice(&[0; 18]);
            prop_assert!(read(&data).ended);
        }
    }
}
