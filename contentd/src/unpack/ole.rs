// SPDX-License-Identifier: GPL-3.0-or-later
//! Compound files (MS-CFB): Office documents before 2007, Outlook's .msg, installers. Every stream is a member; packages and
//! attachments in them get the names that they show to the user. Lenient: a broken chain gives what it holds.

mod keys;
mod locked;
#[cfg(test)]
mod locked_tests;
mod ppt;
mod xor;

use super::field::{index, le16, le32, le64, slice, text, utf16};
use super::members::{Flaw, Members};
use super::vba::{self, Facts, Module};
use crate::findings::FindingKind;
use locked::Streams;

const END: u32 = 0xffff_fffe;
/// Sectors in all; a compound file of a mail has less.
const MOST_SECTORS: usize = 1 << 20;
const MOST_ENTRIES: usize = 50_000;

/// The file with its tables.
struct Compound<'d> {
    data: &'d [u8],
    sector: usize,
    mini_sector: usize,
    cutoff: u64,
    table: Vec<u32>,
    mini_table: Vec<u32>,
    /// The content that small streams lie in.
    mini: Vec<u8>,
    /// The directory, or what small streams lie in, follows a chain in a circle, or has more entries than are looked at.
    endless: bool,
}

/// One entry of the directory.
#[derive(Debug, Clone)]
struct Entry {
    name: String,
    kind: u8,
    left: u32,
    right: u32,
    child: u32,
    start: u32,
    size: u64,
}

/// Opens all streams.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let (compound, entries) = read(data).ok_or(Flaw::Damaged("header"))?;
    if compound.endless {
        out.flaw(&Flaw::Damaged("chain without end"));
    }
    let paths = paths(&entries);
    let mut streams = Streams::new(&compound, &entries, &paths, out)?;
    let mut active = Active::new(&compound, &entries, &paths, out);
    let all = entries.iter().zip(&paths).enumerate();
    for (number, (entry, path)) in all.filter(|(_, (entry, _))| entry.kind == 2) {
        out.clock()?;
        let mut bytes = compound.stream(entry, out.one_too_many());
        if let Some(plain) = streams.decrypted(number) {
            if plain.is_empty() {
                continue;
            }
            // Whoever does not see the encryption sees what was there.
            active.look(&entry.name, &bytes, out)?;
            out.show(&bytes)?;
            bytes = plain;
        }
        stream(path, &bytes, &entries, &compound, out)?;
        active.look(&entry.name, &bytes, out)?;
        if (bytes.len() as u64) < entry.size && entry.size <= out.largest() && entry.size < data.len() as u64 {
            out.flaw(&Flaw::Truncated);
        }
    }
    active.tell(out);
    Ok(())
}

/// What the document does by itself.
struct Active {
    /// The modules that its projects list.
    modules: Vec<Module>,
    /// There is a project.
    project: bool,
    sources: usize,
    facts: Facts,
}

impl Active {
    fn new(compound: &Compound<'_>, entries: &[Entry], paths: &[String], out: &Members<'_, '_>) -> Active {
        let is_list = |path: &str| {
            let mut steps = path.rsplit('/');
            let (name, storage) = (steps.next().unwrap_or_default(), steps.next().unwrap_or_default());
            name.eq_ignore_ascii_case("dir") && storage.eq_ignore_ascii_case("VBA")
        };
        let lists = entries.iter().zip(paths).filter(|(entry, path)| entry.kind == 2 && is_list(path));
        let lists: Vec<&Entry> = lists.map(|(entry, _)| entry).take(8).collect();
        let most = index(out.largest()).min(1 << 20);
        let modules = lists.iter().flat_map(|list| vba::modules(&compound.stream(list, most))).collect();
        Active { modules, project: !lists.is_empty(), sources: 0, facts: Facts::default() }
    }

    /// Looks at one stream; source text goes to the scanners.
    fn look(&mut self, name: &str, bytes: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
        for source in vba::sources(name, bytes, &self.modules) {
            self.sources += 1;
            self.facts.learn(&source);
            out.aside(&format!("{name}.vba"), &mut &*source)?;
        }
        match name {
            "Workbook" | "Book" if vba::has_excel4(bytes) => out.note(FindingKind::Excel4Macros, "sheet"),
            "WordDocument" if super::office::has_old_dde(bytes) => out.note(FindingKind::Dde, "field"),
            _ => {}
        }
        Ok(())
    }

    /// Projects in which nothing is written are no macros; every second workbook has one.
    fn tell(&self, out: &mut Members<'_, '_>) {
        match self.facts.modules {
            0 if self.project && self.sources == 0 => out.note(FindingKind::Macros, "no source"),
            0 => {}
            1 => out.note(FindingKind::Macros, "1 module"),
            modules => out.note(FindingKind::Macros, &format!("{modules} modules")),
        }
        for (kind, words) in
            [(FindingKind::MacroAutorun, self.facts.autorun()), (FindingKind::MacroCalls, self.facts.calls())]
        {
            if let Some(words) = words {
                out.note(kind, &words);
            }
        }
    }
}

fn read(data: &[u8]) -> Option<(Compound<'_>, Vec<Entry>)> {
    let shift = |at| le16(data, at).filter(|shift| (6..=16).contains(shift)).map(|shift| 1usize << shift);
    let mut compound = Compound {
        data,
        sector: shift(30).unwrap_or(512),
        mini_sector: shift(32).unwrap_or(64),
        cutoff: u64::from(le32(data, 56)?),
        table: Vec::new(),
        mini_table: Vec::new(),
        mini: Vec::new(),
        endless: false,
    };
    compound.table = compound.allocation()?;
    let directory = compound.chain(le32(data, 48)?, MOST_ENTRIES * 128);
    let entries: Vec<Entry> = directory.chunks_exact(128).map_while(entry).take(MOST_ENTRIES).collect();
    let mini_table = compound.chain(le32(data, 60)?, data.len());
    compound.mini_table = mini_table.chunks_exact(4).filter_map(|sector| le32(sector, 0)).collect();
    let root = entries.first()?;
    compound.mini = compound.chain(root.start, data.len());
    // The header is in no chain, so none is as long as the file.
    let whole = |chain: usize| chain + compound.sector >= data.len();
    let crowded = directory.len() >= MOST_ENTRIES * 128;
    compound.endless = crowded || whole(directory.len()) || whole(compound.mini.len());
    Some((compound, entries))
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    let length = usize::from(le16(bytes, 64)?).saturating_sub(2).min(62);
    Some(Entry {
        name: utf16(&bytes[..length]),
        kind: bytes[66],
        left: le32(bytes, 68)?,
        right: le32(bytes, 72)?,
        child: le32(bytes, 76)?,
        start: le32(bytes, 116)?,
        // The upper half is garbage in old files.
        size: le64(bytes, 120)? & 0xffff_ffff,
    })
}

impl Compound<'_> {
    fn sector_at(&self, number: u32) -> Option<&[u8]> {
        let at = index(number).checked_add(1)?.checked_mul(self.sector)?;
        // Nothing at the very end is no sector: a circle of empty ones would never grow, nor end.
        let rest = self.data.get(at..).filter(|rest| !rest.is_empty())?;
        Some(&rest[..rest.len().min(self.sector)])
    }

    /// The allocation table: its sectors are listed in the header and in a chain of further lists.
    fn allocation(&self) -> Option<Vec<u32>> {
        let mut sectors: Vec<u32> = (0..109).filter_map(|place| le32(self.data, 76 + 4 * place)).collect();
        let mut next = le32(self.data, 68)?;
        for _ in 0..index(le32(self.data, 72)?).min(10_000) {
            let Some(list) = self.sector_at(next) else { break };
            let numbers: Vec<u32> = list.chunks_exact(4).filter_map(|number| le32(number, 0)).collect();
            let Some((last, numbers)) = numbers.split_last() else { break };
            sectors.extend_from_slice(numbers);
            next = *last;
        }
        let mut table = Vec::new();
        for sector in sectors.into_iter().filter(|sector| *sector < 0xffff_fffa) {
            let Some(bytes) = self.sector_at(sector) else { continue };
            table.extend(bytes.chunks_exact(4).filter_map(|number| le32(number, 0)));
            if table.len() > MOST_SECTORS {
                break;
            }
        }
        Some(table)
    }

    /// The content of a chain of sectors, at most so many bytes. A chain in a circle ends where it has run as long as the file.
    fn chain(&self, start: u32, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut number = start;
        let most = most.min(self.data.len());
        while number < END && bytes.len() < most {
            let Some(sector) = self.sector_at(number) else { break };
            bytes.extend_from_slice(sector);
            let Some(next) = self.table.get(index(number)) else { break };
            number = *next;
        }
        bytes
    }

    /// The content of a stream.
    fn stream(&self, entry: &Entry, most: usize) -> Vec<u8> {
        let size = index(entry.size).min(most);
        let mut bytes =
            if entry.size < self.cutoff { self.small(entry.start, size) } else { self.chain(entry.start, size) };
        bytes.truncate(size);
        bytes
    }

    fn small(&self, start: u32, size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut number = start;
        while number < END && bytes.len() < size {
            let at = index(number).saturating_mul(self.mini_sector);
            let Some(rest) = self.mini.get(at..).filter(|rest| !rest.is_empty()) else { break };
            bytes.extend_from_slice(&rest[..rest.len().min(self.mini_sector)]);
            let Some(next) = self.mini_table.get(index(number)) else { break };
            number = *next;
        }
        bytes
    }
}

/// The path of every entry. The entries of a storage are a tree of brothers below one child.
fn paths(entries: &[Entry]) -> Vec<String> {
    let mut paths: Vec<Option<String>> = vec![None; entries.len()];
    let mut list: Vec<(usize, String)> = Vec::new();
    if let Some(root) = entries.first() {
        paths[0] = Some(String::new());
        list.push((index(root.child), String::new()));
    }
    while let Some((number, parent)) = list.pop() {
        let (Some(entry), Some(None)) = (entries.get(number), paths.get(number)) else { continue };
        let path = if parent.is_empty() { entry.name.clone() } else { format!("{parent}/{}", entry.name) };
        // Storages within storages: a path says where, not how deep.
        let path: String = path.chars().take(1000).collect();
        list.push((index(entry.left), parent.clone()));
        list.push((index(entry.right), parent));
        list.push((index(entry.child), path.clone()));
        paths[number] = Some(path);
    }
    // What no storage knows any more is still there.
    paths.into_iter().zip(entries).map(|(path, entry)| path.unwrap_or_else(|| entry.name.clone())).collect()
}

/// One stream, under the name that its user sees.
fn stream(
    path: &str,
    bytes: &[u8],
    entries: &[Entry],
    compound: &Compound<'_>,
    out: &mut Members<'_, '_>,
) -> Result<(), Flaw> {
    let name = path.rsplit('/').next().unwrap_or(path);
    if name == "\u{1}Ole10Native" {
        // A length, then the package.
        if let Some((names, content)) = bytes.get(4..).and_then(package) {
            return Ok(out.stored(&names, content)?);
        }
        return Ok(out.stored(&[path.to_owned()], bytes.get(4..).unwrap_or_default())?);
    }
    if let Some(attachment) = path.strip_suffix("/__substg1.0_37010102") {
        let names = attachment_names(attachment, entries, compound);
        return Ok(out.stored(&names, bytes)?);
    }
    if name == "__substg1.0_10090102"
        && let Some(bytes) = super::rtf::decompress(bytes, out.one_too_many())
    {
        return Ok(out.stored(&["body.rtf".to_owned()], &bytes)?);
    }
    out.stored(&[path.to_owned()], bytes)?;
    // The data of slides: objects are deflated within their records.
    if name == "PowerPoint Document" {
        slides(bytes, out)?;
    }
    Ok(())
}

/// Names of an attachment in a .msg: long, short, shown.
fn attachment_names(storage: &str, entries: &[Entry], compound: &Compound<'_>) -> Vec<String> {
    let all = paths(entries);
    let mut names = Vec::new();
    for property in ["3707", "3704", "3001"] {
        for (kind, wide) in [("001F", true), ("001E", false)] {
            let path = format!("{storage}/__substg1.0_{property}{kind}");
            let Some(place) = all.iter().position(|other| *other == path) else { continue };
            let bytes = compound.stream(&entries[place], 4096);
            names.push(if wide { utf16(&bytes) } else { text(&bytes) });
        }
    }
    names.dedup();
    names
}

/// Label, path and content of a package, the way in which Office keeps any file (Ole10Native without its length).
pub(super) fn package(bytes: &[u8]) -> Option<(Vec<String>, &[u8])> {
    let mut at = 2;
    let string = |at: &mut usize| {
        let length = memchr::memchr(0, bytes.get(*at..)?)?;
        let value = text(slice(bytes, *at, length)?);
        *at += length + 1;
        Some(value)
    };
    let label = string(&mut at)?;
    let path = string(&mut at)?;
    at += 4;
    let length = index(le32(bytes, at)?);
    let command = text(slice(bytes, at + 4, length)?);
    at += 4 + length;
    let size = index(le32(bytes, at)?);
    let content = bytes.get(at + 4..)?;
    let mut names = vec![label];
    for name in [path, command] {
        let name = name.rsplit(['\\', '/']).next().unwrap_or_default().to_owned();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    Some((names, &content[..size.min(content.len())]))
}

/// Objects in a PowerPoint document (MS-PPT 2.10.34, ExOleObjStg): records 0x1011, deflated when their instance is 1.
fn slides(bytes: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let mut at = 0;
    while let (Some(version), Some(kind), Some(length)) = (le16(bytes, at), le16(bytes, at + 2), le32(bytes, at + 4)) {
        out.clock()?;
        let body =
            &bytes[(at + 8).min(bytes.len())..at.saturating_add(8).saturating_add(index(length)).min(bytes.len())];
        // Containers are walked into.
        at = if version & 15 == 15 { at + 8 } else { at.saturating_add(8).saturating_add(index(length)) };
        if kind != 0x1011 {
            continue;
        }
        if version >> 4 == 1 {
            let packed = body.get(4..).unwrap_or_default();
            out.stream(&["object".to_owned()], &mut flate2::read::ZlibDecoder::new(packed))?;
        } else {
            out.stored(&["object".to_owned()], body)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(data: &[u8], mini: Vec<u8>) -> Compound<'_> {
        let table = vec![0, 1, 2];
        let mini_table = table.clone();
        Compound { data, sector: 512, mini_sector: 64, cutoff: 4096, table, mini_table, mini, endless: false }
    }

    #[test]
    fn circles_of_empty_sectors_end() {
        let data = [7; 1024];
        let compound = circle(&data, vec![8; 64]);
        assert_eq!(compound.chain(0, 2000).len(), 1024);
        assert!(compound.chain(1, 2000).is_empty(), "sector 1 begins where the file ends");
        assert_eq!(compound.small(0, 200).len(), 256);
        assert!(compound.small(1, 200).is_empty(), "small sector 1 begins where the content ends");
    }
}
