// SPDX-License-Identifier: GPL-3.0-or-later
//! ZIP: decodes what `zip_headers` lists, the union of central directory and local headers.
//!
//! Where headers contradict each other every plausible reading of the data is made. Methods that mark their own end are
//! decoded to that end, whatever size is declared. Encrypted members keep their names.

use super::field::index;
use super::members::{Flaw, Members};
use super::zip_headers::{self, Entry, Header};
use super::zip_locked::Locked;
use super::zip_whole;
use crate::findings::FindingKind;
use std::io::{self, Cursor, Read};

/// Opens all members of all lists.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let listing = zip_headers::read(data);
    for (found, kind) in [
        (listing.hidden, FindingKind::HiddenMembers),
        (listing.differ, FindingKind::HeadersDiffer),
        (listing.overlap, FindingKind::OverlappingMembers),
    ] {
        if found {
            out.note(kind, "zip");
        }
    }
    if listing.multi_volume {
        out.flaw(&Flaw::MultiVolume);
    }
    let simple = zip_headers::is_simple(data, listing.entries.len());
    let mut locked = None;
    if zip_headers::is_locked(data) && !out.passwords().is_empty() {
        locked = Locked::new(data);
    }
    let whole = simple && zip_whole::is_whole(data, &listing.entries) && listing.entries.values().all(is_plain);
    let starts: Vec<usize> = listing.entries.keys().copied().collect();
    for (number, (place, entry)) in listing.entries.iter().enumerate() {
        let next = starts.get(number + 1).copied().unwrap_or(data.len());
        out.read_alike(simple && is_plain(entry));
        if let Some(content) = unlocked(&mut locked, *place, entry, out) {
            out.note(FindingKind::PasswordFound, "zip");
            out.stored(&names(&entry.central.iter().chain(&entry.local).collect::<Vec<_>>()), &content)?;
            continue;
        }
        member(data, entry, next, out)?;
    }
    if !listing.ended {
        return Err(Flaw::Truncated);
    }
    if whole {
        out.whole();
    }
    Ok(())
}

/// An encrypted member, when a word opens it. One that only some of its headers say is encrypted is read in all ways.
fn unlocked(locked: &mut Option<Locked<'_>>, place: usize, entry: &Entry, out: &Members<'_, '_>) -> Option<Vec<u8>> {
    let encrypted = entry.central.iter().chain(&entry.local).all(Header::encrypted);
    locked.as_mut().filter(|_| encrypted)?.open(place, out)
}

/// One member: once for each reading that its headers leave open.
fn member(data: &[u8], entry: &Entry, next: usize, out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let headers: Vec<&Header> = entry.central.iter().chain(&entry.local).collect();
    if headers.iter().any(|header| header.is_directory()) && headers.iter().all(|header| header.size == 0) {
        return Ok(());
    }
    let names = names(&headers);
    if headers.iter().any(|header| header.encrypted()) {
        out.closed(&names, &Flaw::Encrypted)?;
        // The flag may be a lie that only some programs believe.
        if headers.iter().all(|header| header.encrypted()) {
            return Ok(());
        }
    }
    let link = headers.iter().any(|header| header.is_link());
    out.list(!link);
    let rest = &data[entry.data..];
    let mut done: Vec<(u16, usize)> = Vec::new();
    for header in headers.iter().filter(|header| header.method != 99) {
        let length = length(header, &headers, rest, next.saturating_sub(entry.data));
        // Only stored data depends on the size that is declared.
        let reading = (header.method, if header.method == 0 { length } else { 0 });
        if done.contains(&reading) {
            continue;
        }
        done.push(reading);
        decode(header, rest, length, &names, out)?;
    }
    out.list(true);
    Ok(())
}

/// Whether both headers say the same of a member, and no program needs more than the oldest version to read it. Its sizes are
/// compared with those of the data later.
fn is_plain(entry: &Entry) -> bool {
    let (Some(local), [central]) = (&entry.local, &entry.central[..]) else { return false };
    let small = central.packed < u64::from(u32::MAX) && central.size < u64::from(u32::MAX);
    let sizes = |header: &Header| (header.packed, header.size);
    let described = local.has_descriptor() && sizes(local) == (0, 0);
    matches!(central.method, 0 | 8)
        && small
        && (local.method, local.flags) == (central.method, central.flags)
        && local.name == central.name
        && local.other_name == central.other_name
        && (described || sizes(local) == sizes(central))
        && !central.encrypted()
        && !central.is_link()
        && (central.method == 8 || central.packed == central.size)
}

/// Every spelling of the name, the likeliest first.
fn names(headers: &[&Header]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for header in headers {
        for name in [Some(&header.name), header.other_name.as_ref()].into_iter().flatten() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names
}

/// How long the data is. What is streamed and known to no central header reaches up to its descriptor or the next member.
fn length(header: &Header, headers: &[&Header], rest: &[u8], next: usize) -> usize {
    let others = headers.iter().map(|header| header.packed).max().unwrap_or_default();
    if header.has_descriptor() && header.packed == 0 {
        if others > 0 {
            return index(others);
        }
        let up_to = &rest[..next.min(rest.len())];
        return memchr::memmem::find(up_to, b"PK\x07\x08").unwrap_or(up_to.len());
    }
    index(header.packed)
}

/// Decodes one reading of a member.
fn decode(
    header: &Header,
    rest: &[u8],
    length: usize,
    names: &[String],
    out: &mut Members<'_, '_>,
) -> Result<(), Flaw> {
    let within = &rest[..length.min(rest.len())];
    let truncated = length > rest.len();
    let kib = u32::try_from(out.memory() / 1024).unwrap_or(u32::MAX);
    let done = match header.method {
        0 => {
            out.stored(names, within)?;
            if truncated {
                out.flaw(&Flaw::Truncated);
            }
            return Ok(());
        }
        1..=6 => out.stream(names, &mut Legacy::new(header, within)),
        8 => {
            let mut reader = flate2::read::DeflateDecoder::new(rest);
            let done = out.stream(names, &mut reader);
            if (reader.total_in(), reader.total_out()) != (header.packed, header.size) {
                out.differ();
            }
            done
        }
        9 => out.stream(names, &mut deflate64::Deflate64Decoder::with_buffer(rest)),
        12 => out.stream(names, &mut bzip2::read::BzDecoder::new(rest)),
        14 => match lzma(header, rest, kib) {
            Ok(mut reader) => out.stream(names, &mut reader),
            Err(flaw) => out.closed(names, &flaw),
        },
        93 => match super::zstd::reader(rest, out.memory()) {
            Ok(mut reader) => out.stream(names, &mut reader),
            Err(flaw) => out.closed(names, &flaw),
        },
        95 => out.stream(names, &mut lzma_rust2::XzReader::new_mem_limit(rest, false, kib)),
        98 => match ppmd(within, out.memory()) {
            Ok(reader) => out.stream(names, &mut reader.take(header.size)),
            Err(flaw) => out.closed(names, &flaw),
        },
        method => out.closed(names, &Flaw::Unsupported(format!("zip method {method}"))),
    };
    Ok(done?)
}

/// LZMA in ZIP: version, length of the properties, the properties (APPNOTE 5.8.8).
fn lzma<'d>(header: &Header, rest: &'d [u8], kib: u32) -> Result<lzma_rust2::LzmaReader<&'d [u8]>, Flaw> {
    let (Some(&properties), Some(dictionary)) = (rest.get(4), super::field::le32(rest, 5)) else {
        return Err(Flaw::Truncated);
    };
    // Bit 1: the data marks its own end. Otherwise no more dictionary is needed than there is data.
    let size = if header.flags & 2 != 0 || header.size == 0 { u64::MAX } else { header.size };
    let dictionary = u64::from(dictionary).min(size.max(4096)) as u32;
    let needed = lzma_rust2::lzma_get_memory_usage_by_props(dictionary, properties).map_err(Flaw::from)?;
    if needed > kib {
        return Err(Flaw::Memory);
    }
    lzma_rust2::LzmaReader::new_with_props(&rest[9..], size, properties, dictionary, None).map_err(Flaw::from)
}

/// PPMd I rev. 1: order, memory and restoration in 16 bits (APPNOTE 5.10).
fn ppmd(within: &[u8], memory: u64) -> Result<ppmd_rust::Ppmd8Decoder<&[u8]>, Flaw> {
    let parameters = super::field::le16(within, 0).ok_or(Flaw::Truncated)?;
    let order = u32::from(parameters & 15) + 1;
    let megabytes = u32::from(parameters >> 4 & 255) + 1;
    if u64::from(megabytes) << 20 > memory {
        return Err(Flaw::Memory);
    }
    let method = match parameters >> 12 {
        0 => ppmd_rust::RestoreMethod::Restart,
        1 => ppmd_rust::RestoreMethod::CutOff,
        _ => return Err(Flaw::Damaged("ppmd")),
    };
    ppmd_rust::Ppmd8Decoder::new(&within[2..], order, megabytes << 20, method).map_err(|_| Flaw::Damaged("ppmd"))
}

/// Shrink, reduce and implode, which only the `zip` crate knows: the member becomes an archive of its own for it.
struct Legacy(Option<zip::ZipArchive<Cursor<Vec<u8>>>>, Vec<u8>, usize);

impl Legacy {
    fn new(header: &Header, within: &[u8]) -> Legacy {
        let fields = |signature: &[u8], between: &[u8]| {
            let mut bytes = signature.to_vec();
            bytes.extend_from_slice(between);
            bytes.extend_from_slice(&(header.flags & 6).to_le_bytes());
            bytes.extend_from_slice(&header.method.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&header.crc.to_le_bytes());
            bytes.extend_from_slice(&(within.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(header.size as u32).to_le_bytes());
            bytes.extend_from_slice(&1u16.to_le_bytes());
            bytes
        };
        let mut archive = fields(b"PK\x03\x04", &[20, 0]);
        archive.extend_from_slice(b"\0\0m");
        archive.extend_from_slice(within);
        let directory = archive.len() as u32;
        archive.extend(fields(b"PK\x01\x02", &[20, 0, 20, 0]));
        archive.extend_from_slice(&[0; 16]);
        archive.extend_from_slice(b"m");
        let length = archive.len() as u32 - directory;
        archive.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        archive.extend_from_slice(&length.to_le_bytes());
        archive.extend_from_slice(&directory.to_le_bytes());
        archive.extend_from_slice(&[0; 2]);
        Legacy(zip::ZipArchive::new(Cursor::new(archive)).ok(), Vec::new(), 0)
    }
}

/// These methods are of the time of floppy disks; more than this is no honest member.
const LEGACY_MOST: u64 = 16 << 20;

impl Read for Legacy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(mut archive) = self.0.take() {
            let member = archive.by_index(0).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            member.take(LEGACY_MOST).read_to_end(&mut self.1)?;
        } else if self.1.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let read = (&self.1[self.2..]).read(buffer)?;
        self.2 += read;
        Ok(read)
    }
}
