// SPDX-License-Identifier: GPL-3.0-or-later
//! ISO 9660 images (ECMA-119), with the names of Joliet and Rock Ridge. Every volume descriptor is followed, since systems
//! differ in which one they show; a file that two of them name is given once, under both names.

use super::field::{index, le32, slice, text, utf16_be};
use super::members::{Flaw, Members};
use std::collections::{BTreeMap, HashSet};

const SECTOR: usize = 2048;
/// Volume descriptors begin here.
const FIRST: usize = 16;
/// More directories, or more files, are no image that is sent by mail.
const MOST: usize = 20_000;

/// A directory to be read: where, how long, its path, and whether its names are UTF-16.
struct Directory {
    at: usize,
    length: usize,
    path: String,
    wide: bool,
}

/// Opens all files.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let mut list = volumes(data);
    if list.is_empty() {
        return Err(Flaw::Truncated);
    }
    let mut seen: HashSet<(usize, bool)> = HashSet::new();
    // Names by place and length of the content.
    let mut files: BTreeMap<(usize, usize), Vec<String>> = BTreeMap::new();
    while let Some(directory) = list.pop() {
        out.clock()?;
        if seen.len() >= MOST || !seen.insert((directory.at, directory.wide)) {
            continue;
        }
        read(data, &directory, &mut list, &mut files);
    }
    for ((at, length), names) in files {
        let content = &data[at.min(data.len())..at.saturating_add(length).min(data.len())];
        // An empty file has no place of its own: each name is a file.
        if length == 0 {
            for name in names {
                out.stored(&[name], content)?;
            }
            continue;
        }
        out.stored(&names, content)?;
        if content.len() < length {
            out.flaw(&Flaw::Truncated);
        }
    }
    Ok(())
}

/// The root directories of all volume descriptors; Joliet last, so that its longer names are read first.
fn volumes(data: &[u8]) -> Vec<Directory> {
    let mut list = Vec::new();
    for number in FIRST..FIRST + 64 {
        let Some(descriptor) = slice(data, number * SECTOR, SECTOR) else { break };
        if &descriptor[1..6] != b"CD001" || descriptor[0] == 255 {
            break;
        }
        if !matches!(descriptor[0], 1 | 2) {
            continue;
        }
        let wide = descriptor[0] == 2 && matches!(&descriptor[88..91], b"%/@" | b"%/C" | b"%/E");
        if let Some((at, length)) = extent(&descriptor[156..]) {
            list.push(Directory { at, length, path: String::new(), wide });
        }
    }
    list
}

/// Where the content of a directory record lies.
fn extent(record: &[u8]) -> Option<(usize, usize)> {
    Some((index(le32(record, 2)?).saturating_mul(SECTOR), index(le32(record, 10)?)))
}

fn read(
    data: &[u8],
    directory: &Directory,
    list: &mut Vec<Directory>,
    files: &mut BTreeMap<(usize, usize), Vec<String>>,
) {
    let end = directory.at.saturating_add(directory.length).min(data.len());
    let mut at = directory.at;
    while at < end {
        let length = usize::from(data[at]);
        // Records do not cross sectors: the rest of this one is empty.
        if length == 0 {
            at = (at / SECTOR + 1) * SECTOR;
            continue;
        }
        let Some(record) = slice(data, at, length).filter(|record| record.len() > 33) else { return };
        at += length;
        let Some((place, size)) = extent(record) else { continue };
        let Some(name) = name(record, directory.wide) else { continue };
        let path = if directory.path.is_empty() { name } else { format!("{}/{name}", directory.path) };
        if record[25] & 2 != 0 {
            if list.len() < MOST {
                list.push(Directory { at: place, length: size, path, wide: directory.wide });
            }
        } else if files.len() < MOST {
            let names = files.entry((place, size)).or_default();
            if names.len() < 20 && !names.contains(&path) {
                names.push(path);
            }
        }
    }
}

/// The name of a record without its version; none for `.` and `..`.
fn name(record: &[u8], wide: bool) -> Option<String> {
    let length = usize::from(record[32]);
    let field = slice(record, 33, length)?;
    if matches!(field, [0] | [1]) {
        return None;
    }
    if let Some(name) = rock_ridge(record.get(33 + length + (length + 1) % 2..)?) {
        return Some(name);
    }
    let name = if wide { utf16_be(field) } else { text(field) };
    let name = name.split_once(';').map_or(name.as_str(), |(name, _)| name);
    Some(name.trim_end_matches('.').to_owned())
}

/// The alternate name of Rock Ridge: entries `NM` in the system use area.
fn rock_ridge(mut area: &[u8]) -> Option<String> {
    let mut name = Vec::new();
    while let [a, b, length, _, ..] = *area {
        let entry = slice(area, 0, usize::from(length)).filter(|entry| entry.len() >= 4)?;
        if (a, b) == (b'N', b'M') && entry.len() > 5 {
            name.extend_from_slice(&entry[5..]);
        }
        area = &area[entry.len()..];
    }
    (!name.is_empty()).then(|| text(&name))
}
