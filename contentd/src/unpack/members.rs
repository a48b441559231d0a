// SPDX-License-Identifier: GPL-3.0-or-later
//! What a decoder gives: members with their bytes or with the reason why there are none.
//!
//! The one place where bytes come out of an archive. They are counted as they come, described, handed to the scanners,
//! and put on the list when they may hold others. Names are text for people and for the list of banned files, nothing else.

use super::Work;
use super::format;
use super::helper::Outlet;
use crate::budget::{Budget, Over, Watch};
use crate::digest::Digest;
use crate::findings::{Finding, FindingKind, Part};
use crate::message::{kind, parts::Kept};
use bytes::Bytes;
use std::collections::HashMap;
use std::io::{self, Read};
use std::rc::Rc;

/// Longest name of a member that is kept, in characters; no file system has longer paths.
const NAME: usize = 4096;
/// Longest name within the path of a part, in characters.
const STEP: usize = 255;
/// Bytes read from a decoder at once.
const CHUNK: usize = 64 * 1024;

/// Why an archive or a member of it was not decoded, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It ends too early.
    Truncated,
    /// It contradicts itself; in which respect.
    Damaged(&'static str),
    /// A password is needed.
    Encrypted,
    /// The rest is in another file.
    MultiVolume,
    /// A format or a method that is not known here; which.
    Unsupported(String),
    /// More memory is needed than one decoder may have.
    Memory,
    /// What a helper says of it.
    Told(FindingKind, String),
    /// A limit of the whole message. No decoder goes on after it.
    Over(Over),
}

impl Flaw {
    pub(super) fn finding(&self, path: &str, format: &str) -> Finding {
        let (kind, detail) = match self {
            Flaw::Truncated => (FindingKind::TruncatedArchive, format.to_owned()),
            Flaw::Damaged("") => (FindingKind::DamagedArchive, format.to_owned()),
            Flaw::Damaged(what) => (FindingKind::DamagedArchive, format!("{format}: {what}")),
            Flaw::Encrypted => (FindingKind::Encrypted, format.to_owned()),
            Flaw::MultiVolume => (FindingKind::MultiVolume, format.to_owned()),
            Flaw::Unsupported(what) => (FindingKind::UnsupportedArchive, what.clone()),
            Flaw::Memory => (FindingKind::OverLimits, "dictionary".to_owned()),
            Flaw::Told(kind, detail) => (*kind, detail.clone()),
            Flaw::Over(over) => (FindingKind::OverLimits, over.word().to_owned()),
        };
        Finding::new(kind, path, detail)
    }
}

impl From<Over> for Flaw {
    fn from(over: Over) -> Flaw {
        Flaw::Over(over)
    }
}

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Flaw {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Flaw::Truncated,
            io::ErrorKind::OutOfMemory => Flaw::Memory,
            io::ErrorKind::Unsupported => Flaw::Unsupported("method".to_owned()),
            _ => Flaw::Damaged("data"),
        }
    }
}

/// Where a file that is taken apart lies.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Path that its members begin with.
    pub(super) path: String,
    /// How deep its members lie.
    pub(super) depth: usize,
    /// Its place in the list of all parts.
    pub(super) order: Rc<[u32]>,
    /// Whether its members are listed.
    pub(super) listed: bool,
}

/// Where a decoder puts the members that it finds.
pub(super) struct Members<'w, 'b> {
    to: To<'w, 'b>,
    /// Short name of the archive's format.
    format: &'static str,
    count: u32,
    flaws: usize,
    /// Whether the archive's own members are listed.
    holder_listed: bool,
    listed: bool,
    /// What comes next is read alike by every program.
    alike: bool,
}

/// Who takes them.
enum To<'w, 'b> {
    /// The list of the message.
    List(List<'w, 'b>),
    /// In a helper: the daemon, which puts them on the list.
    Wire(&'w mut Outlet<'b>),
}

/// What belongs to one archive of the message.
struct List<'w, 'b> {
    work: &'w mut Work<'b>,
    holder: &'w Place,
    /// Media type of the archive.
    container: &'static str,
    /// Digests of the members by path.
    names: HashMap<String, Digest>,
}

impl<'w, 'b> Members<'w, 'b> {
    pub(super) fn new(
        work: &'w mut Work<'b>,
        holder: &'w Place,
        container: &'static str,
        format: &'static str,
    ) -> Self {
        let listed = holder.listed;
        let to = To::List(List { work, holder, container, names: HashMap::new() });
        Members { to, format, count: 0, flaws: 0, holder_listed: listed, listed, alike: false }
    }

    /// In a helper.
    pub(super) fn wired(outlet: &'w mut Outlet<'b>, format: &'static str) -> Self {
        Members { to: To::Wire(outlet), format, count: 0, flaws: 0, holder_listed: true, listed: true, alike: false }
    }

    pub(super) fn budget(&self) -> &Budget {
        match &self.to {
            To::List(list) => list.work.budget,
            To::Wire(outlet) => outlet.budget(),
        }
    }

    /// Takes off processor time that a helper has used.
    pub(super) fn spent(&mut self, cpu: std::time::Duration) {
        if let To::List(list) = &mut self.to {
            list.work.budget.spent(cpu);
        }
    }

    /// Words that may be passwords, the likeliest first.
    pub(super) fn passwords(&self) -> &[String] {
        match &self.to {
            To::List(list) => list.work.words(),
            To::Wire(outlet) => outlet.passwords(),
        }
    }

    /// Name of the archive; the last step of its path, when it lies in another one.
    pub(super) fn holder_name(&self) -> &str {
        match &self.to {
            To::List(list) => list.holder.path.rsplit('/').next().unwrap_or_default(),
            To::Wire(outlet) => outlet.name(),
        }
    }

    /// Members so far.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// The name that a file has without the extension of its packer: `a.tar.gz` becomes `a.tar`, and so does `a.tgz`.
    pub(super) fn inner_name(&self, extensions: &[(&str, &str)]) -> String {
        let name = self.holder_name();
        for (packed, plain) in extensions {
            let cut = name.len().checked_sub(packed.len()).filter(|cut| *cut > 0 && name.is_char_boundary(*cut));
            if let Some(cut) = cut.filter(|cut| name[*cut..].eq_ignore_ascii_case(packed)) {
                return format!("{}{plain}", &name[..cut]);
            }
        }
        String::new()
    }

    /// Most bytes that a decoder may allocate for its window.
    pub(super) fn memory(&self) -> u64 {
        self.budget().limits().memory.0
    }

    /// Largest member.
    pub(super) fn largest(&self) -> u64 {
        self.budget().limits().member_bytes.0.min(self.budget().left())
    }

    /// Where to stop what comes out of a decoder that has no end of its own: one byte more than may be given away, so that giving it away is
    /// over the limit, and no short piece passes for the whole.
    pub(super) fn one_too_many(&self) -> usize {
        usize::try_from(self.largest().saturating_add(1)).unwrap_or(usize::MAX)
    }

    /// Bytes that may still come out of the archives of this message.
    pub(super) fn left(&self) -> u64 {
        self.budget().left()
    }

    /// The clocks, for a decoder that works on its own for a while.
    pub(super) fn watch(&self) -> Watch {
        self.budget().watch()
    }

    /// Asks the clocks; for loops that give no bytes.
    pub(super) fn clock(&self) -> Result<(), Over> {
        self.budget().clock()
    }

    /// Reads one member to its end. What was read before an error counts; the error becomes a finding.
    /// Errors: a limit of the message is reached, nothing more is wanted.
    pub(super) fn stream(&mut self, names: &[String], reader: &mut dyn Read) -> Result<(), Over> {
        let alike = self.alike;
        let list = match &mut self.to {
            To::List(list) => list,
            To::Wire(outlet) => {
                self.count += 1;
                return outlet.member(names, self.listed, reader);
            }
        };
        let mut data = Vec::new();
        let ended = list.fill(&mut data, reader);
        self.count += 1;
        let member = Member { names, count: self.count, listed: self.listed, alike, format: self.format };
        let path = list.describe(&member, data.into())?;
        match ended {
            Ok(true) => Ok(()),
            Ok(false) => {
                list.work.find(Finding::new(FindingKind::OverLimits, path, "member"));
                Ok(())
            }
            Err(Flaw::Over(over)) => Err(over),
            Err(flaw) => {
                self.flaw_at(&path, &flaw);
                Ok(())
            }
        }
    }

    /// A member whose bytes lie in the archive as they are.
    pub(super) fn stored(&mut self, names: &[String], data: &[u8]) -> Result<(), Over> {
        self.stream(names, &mut &*data)
    }

    /// Another form of the file itself, which holds nothing new but can be read: for the scanners only. It counts like a member.
    pub(super) fn show(&mut self, data: &[u8]) -> Result<(), Over> {
        let list = match &mut self.to {
            To::List(list) => list,
            To::Wire(_) => return self.aside("decrypted", &mut &*data),
        };
        list.work.budget.object()?;
        list.work.budget.unpacked(data.len())?;
        let path = list.holder.path.clone();
        (list.work.give)(Kept { path, bytes: Bytes::copy_from_slice(data), alike: false });
        Ok(())
    }

    /// Whether the members that follow are files to whoever unpacks the archive, and listed.
    pub(super) fn list(&mut self, listed: bool) {
        self.listed = listed && self.holder_listed;
    }

    /// Whether the members that follow are read by every program as by us.
    pub(super) fn read_alike(&mut self, alike: bool) {
        // What a helper says is not believed in this.
        let To::List(list) = &self.to else { return };
        self.alike = alike && list.holder.depth <= super::alike::DEPTH;
    }

    /// It has turned out that a member may be read in another way.
    pub(super) fn differ(&mut self) {
        if let To::List(list) = &mut self.to {
            list.work.alike.differ();
        }
    }

    /// All that the archive holds has been given as members, but for what its headers say about them.
    pub(super) fn whole(&mut self) {
        // What a helper says is not believed in this either.
        if let To::List(list) = &mut self.to {
            list.work.whole = list.holder.depth <= super::alike::DEPTH;
        }
    }

    /// Bytes that are no file to anybody, such as the target of a link: scanned and opened all the same, but not listed.
    pub(super) fn aside(&mut self, name: &str, reader: &mut dyn Read) -> Result<(), Over> {
        self.list(false);
        let given = self.stream(&[name.to_owned()], reader);
        self.list(true);
        given
    }

    /// A member that cannot be read: its names count all the same.
    pub(super) fn closed(&mut self, names: &[String], flaw: &Flaw) -> Result<(), Over> {
        self.count += 1;
        self.flaws += 1;
        let list = match &mut self.to {
            To::List(list) => list,
            To::Wire(outlet) => return outlet.closed(names, flaw, self.format),
        };
        let member = Member { names, count: self.count, listed: false, alike: false, format: self.format };
        let path = list.name(&member)?;
        if self.flaws <= FLAWS {
            list.work.find(flaw.finding(&path, self.format));
        }
        let part = list.part(&path, &member, String::new(), 0, Digest::default());
        let order = list.order(member.count);
        list.work.parts.push((order, part));
        Ok(())
    }

    /// A flaw of the archive as a whole.
    pub(super) fn flaw(&mut self, flaw: &Flaw) {
        match &mut self.to {
            To::List(list) => {
                let path = list.holder.path.clone();
                self.flaw_at(&path, flaw);
            }
            To::Wire(outlet) => outlet.flaw(flaw, self.format),
        }
    }

    /// Something noteworthy about the archive as a whole.
    pub(super) fn note(&mut self, kind: FindingKind, detail: &str) {
        match &mut self.to {
            To::List(list) => list.note(kind, detail),
            To::Wire(outlet) => outlet.note(kind, detail),
        }
    }

    fn flaw_at(&mut self, path: &str, flaw: &Flaw) {
        self.flaws += 1;
        if let To::List(list) = &mut self.to
            && self.flaws <= FLAWS
        {
            list.work.find(flaw.finding(path, self.format));
        }
    }
}

/// One damaged archive may have a thousand damaged members; the first few say it.
const FLAWS: usize = 10;

/// One member, but for its bytes.
struct Member<'m> {
    names: &'m [String],
    /// Its number within the archive.
    count: u32,
    listed: bool,
    alike: bool,
    format: &'static str,
}

impl List<'_, '_> {
    /// Reads until the end (true) or the limit of one member (false).
    fn fill(&mut self, data: &mut Vec<u8>, reader: &mut dyn Read) -> Result<bool, Flaw> {
        let most = usize::try_from(self.work.budget.limits().member_bytes.0).unwrap_or(usize::MAX);
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match reader.read(&mut chunk) {
                Ok(0) => return Ok(true),
                Ok(read) => read.min(CHUNK),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.work.budget.unpacked(read)?;
            if data.len() + read > most {
                data.extend_from_slice(&chunk[..most - data.len()]);
                return Ok(false);
            }
            data.extend_from_slice(&chunk[..read]);
        }
    }

    fn note(&mut self, kind: FindingKind, detail: &str) {
        let path = self.holder.path.clone();
        self.work.find(Finding::new(kind, path, detail));
    }

    /// Takes one member off the budget and gives its path.
    fn name(&mut self, member: &Member<'_>) -> Result<String, Over> {
        self.work.budget.object()?;
        let name = member.names.iter().find(|name| !name.is_empty());
        let step = name.map_or_else(|| member.count.to_string(), |name| step(name));
        Ok(format!("{}/{step}", self.holder.path))
    }

    fn order(&self, count: u32) -> Vec<u32> {
        [&*self.holder.order, &[count]].concat()
    }

    fn describe(&mut self, member: &Member<'_>, data: Bytes) -> Result<String, Over> {
        let path = self.name(member)?;
        let digest = Digest::of(&data, self.work.limits.sha256);
        if let Some(other) = self.names.insert(path.clone(), digest) {
            self.work.alike.differ();
            // The same file twice is one file to whoever unpacks it.
            if other == digest {
                return Ok(path);
            }
            self.note(FindingKind::DuplicateNames, member.format);
        }
        metrics::counter!("octroi_contentd_members_total", "format" => member.format).increment(1);
        let detected_type = kind::detect(&data);
        let part = self.part(&path, member, detected_type, data.len() as u64, digest);
        let order = self.order(member.count);
        self.work.parts.push((order.clone(), part));
        if self.container == super::format::Format::Zip.media_type() {
            let found = member.names.iter().flat_map(|name| super::office::look(name, &data));
            let found: Vec<Finding> = found.map(|(kind, detail)| Finding::new(kind, path.clone(), detail)).collect();
            found.into_iter().for_each(|finding| self.work.find(finding));
        }
        if !data.is_empty() {
            let candidates = format::candidates(&data);
            let place =
                Place { path: path.clone(), depth: self.holder.depth + 1, order: order.into(), listed: member.listed };
            let kept = Kept { path: path.clone(), bytes: data, alike: false };
            self.work.alike.count(kept.bytes.len());
            self.work.put(place, kept, candidates, member.alike);
        }
        Ok(path)
    }

    fn part(&self, path: &str, member: &Member<'_>, kind: String, size: u64, digest: Digest) -> Part {
        let names = member.names.iter().filter(|name| !name.is_empty()).map(|name| name.chars().take(NAME).collect());
        Part {
            path: path.to_owned(),
            names: names.collect(),
            types: Vec::new(),
            detected_type: kind,
            size,
            digest,
            container: Some(self.container),
            leaf: member.listed,
        }
    }
}

/// A name as a step of a path: printable and of bounded length.
pub(super) fn step(name: &str) -> String {
    let mut step = String::new();
    for c in name.trim_start_matches('/').chars().take(STEP) {
        if c.is_control() { step.extend(c.escape_default()) } else { step.push(c) }
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_printable_and_short() {
        assert_eq!(step("/a/b.txt"), "a/b.txt");
        assert_eq!(step("a\r\n\u{1b}[2J"), "a\\r\\n\\u{1b}[2J");
        assert_eq!(step(&"x".repeat(5000)).len(), STEP);
    }

    #[test]
    fn errors_of_decoders_are_told_apart() {
        for (kind, flaw) in [
            (io::ErrorKind::UnexpectedEof, Flaw::Truncated),
            (io::ErrorKind::OutOfMemory, Flaw::Memory),
            (io::ErrorKind::InvalidData, Flaw::Damaged("data")),
        ] {
            assert_eq!(Flaw::from(io::Error::from(kind)), flaw);
        }
    }
}
