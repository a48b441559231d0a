// SPDX-License-Identifier: GPL-3.0-or-later
//! xar, the packages of macOS: a table of contents in XML, packed by zlib, then a heap.

use super::field::{be16, be64, index, text};
use super::members::{Flaw, Members};
use crate::budget::Over;
use memchr::memmem;
use std::io::Read;

/// Opens all files.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let header = usize::from(be16(data, 4).ok_or(Flaw::Truncated)?);
    let packed = index(be64(data, 8).ok_or(Flaw::Truncated)?);
    let start = data.get(header..).ok_or(Flaw::Truncated)?;
    let heap = start.get(packed..).unwrap_or_default();
    let mut contents = Vec::new();
    let most = out.one_too_many();
    let table = &start[..packed.min(start.len())];
    flate2::read::ZlibDecoder::new(table).take(most as u64).read_to_end(&mut contents).map_err(Flaw::from)?;
    if contents.len() >= most {
        return Err(Flaw::Over(Over::Bytes));
    }
    let files: Vec<usize> = memmem::find_iter(&contents, b"<file").collect();
    for (number, &at) in files.iter().enumerate() {
        out.clock()?;
        let end = files.get(number + 1).copied().unwrap_or(contents.len());
        file(&contents[at..end], heap, out)?;
    }
    Ok(())
}

/// One element `<file>` up to the next one. A file within a folder is named without the folder.
fn file(element: &[u8], heap: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let name = tag(element, b"name").map(text).unwrap_or_default();
    let Some(from) = memmem::find(element, b"<data>") else {
        // A file without data is empty; folders and links are no files.
        if tag(element, b"type") == Some(b"file") {
            out.stored(&[name], &[])?;
        }
        return Ok(());
    };
    let described = &element[from..];
    let number =
        |name| tag(described, name).and_then(|digits| std::str::from_utf8(digits).ok()?.trim().parse::<u64>().ok());
    let (offset, length) = (index(number(b"offset").unwrap_or(0)), index(number(b"length").unwrap_or(0)));
    let content = &heap[offset.min(heap.len())..offset.saturating_add(length).min(heap.len())];
    let names = [name];
    if memmem::find(described, b"application/x-gzip").is_some() {
        out.stream(&names, &mut flate2::read::ZlibDecoder::new(content))?;
    } else if memmem::find(described, b"application/x-bzip2").is_some() {
        out.stream(&names, &mut ::bzip2::read::BzDecoder::new(content))?;
    } else if memmem::find(described, b"application/x-lzma").is_some()
        || memmem::find(described, b"application/x-xz").is_some()
    {
        let kib = u32::try_from(out.memory() / 1024).unwrap_or(u32::MAX);
        out.stream(&names, &mut lzma_rust2::XzReader::new_mem_limit(content, true, kib))?;
    } else {
        out.stored(&names, content)?;
    }
    if content.len() < length { Err(Flaw::Truncated) } else { Ok(()) }
}

/// The text of the first element of this name.
fn tag<'x>(xml: &'x [u8], name: &[u8]) -> Option<&'x [u8]> {
    let open = [b"<", name].concat();
    let at = memmem::find_iter(xml, &open).find(|at| matches!(xml.get(at + open.len()), Some(b'>' | b' ')))?;
    let from = at + memchr::memchr(b'>', &xml[at..])? + 1;
    let length = memchr::memchr(b'<', &xml[from..])?;
    Some(&xml[from..from + length])
}
