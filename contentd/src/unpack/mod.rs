// SPDX-License-Identifier: GPL-3.0-or-later
//! Opens archives, documents and messages within the parts of a message, and what is in those, and describes every member.
//!
//! A work list, not a recursion. Formats are told by content (`format`), wherever in a file they begin; each has a file of
//! its own here. Decoders get bytes and give members (`members`), which count against the budget of the message as they
//! come out. Nothing is written anywhere, and no name is ever a path. What is not decoded is a finding with its reason.

pub mod alike;
mod ar;
mod arj;
mod binhex;
mod bzip2;
mod cab;
mod chm;
mod ciphers;
mod compress;
mod cpio;
mod field;
pub mod format;
mod gzip;
pub mod helper;
mod iso;
mod lha;
mod lz4;
mod lzx;
mod members;
mod nsis;
mod office;
mod ole;
pub(crate) mod passwords;
mod pdf;
mod rar;
mod rpm;
mod rtf;
pub mod settings;
mod sevenz;
mod szdd;
mod tar;
mod tnef;
mod uuencode;
mod vba;
mod volumes;
mod xar;
mod xz;
mod zip;
mod zip_headers;
mod zip_locked;
mod zip_whole;
mod zstd;

use crate::budget::Budget;
use crate::findings::{Finding, FindingKind, Part};
use crate::message::Limits;
use crate::message::parts::{self, Kept, View};
use alike::Alike;
use bytes::Bytes;
use format::{Candidate, Format};
use helper::Helpers;
use members::{Flaw, Members, Place};
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Most findings about the archives of one message; the first of each kind says it.
const MAX_FINDINGS: usize = 300;

/// A file that may hold others.
struct Item {
    place: Place,
    bytes: Bytes,
    candidates: Vec<Candidate>,
    /// The further volumes of a set that this is the first of.
    volumes: Vec<Bytes>,
    /// How much of it counts as held; nothing for the parts of the message itself, which are here anyway.
    held: u64,
    /// The file itself, when the scanners have not got it yet: they need not where all that is in it is given.
    original: Option<Kept>,
}

/// What the decoders of one message share.
struct Work<'b> {
    means: Means<'b>,
    /// The words of the message that may be passwords, once they are needed.
    words: OnceCell<Vec<String>>,
    budget: &'b mut Budget,
    limits: &'b Limits,
    /// Takes every member, for the scanners.
    give: &'b mut dyn FnMut(Kept),
    /// Files still to be opened; the next one is last.
    list: Vec<Item>,
    /// Bytes of the files on the list.
    held: u64,
    /// Members, each with its place.
    parts: Vec<(Vec<u32>, Part)>,
    findings: Vec<Finding>,
    /// Members that a scanner may know already.
    alike: Alike,
    /// The archive that is being opened holds nothing but the members that were given.
    whole: bool,
}

/// What decoders have besides the bytes.
#[derive(Clone, Copy, Default)]
pub struct Means<'m> {
    /// Who takes apart what is risky; without helpers all is done here.
    pub helpers: Option<&'m Helpers>,
    /// Gives words that may be passwords; asked once, when something is encrypted.
    pub words: Option<&'m dyn Fn() -> Vec<String>>,
    /// Of archives that are opened whole, and that every program reads alike, only the members are given.
    pub members_only: bool,
}

/// The same as [`unpack_with`], every decoder in this process.
pub fn unpack(view: View, limits: &Limits, budget: &mut Budget, give: &mut dyn FnMut(Kept)) -> View {
    unpack_with(Means::default(), view, limits, budget, give)
}

/// Whether there is nothing to open.
pub fn is_needless(view: &View) -> bool {
    view.kept.iter().all(|kept| format::candidates(&kept.bytes).is_empty())
}

/// Opens all that a walk over a message has kept. The view comes back with the members behind the parts that hold them;
/// `give` gets the bytes of everything that a scanner should see by itself.
pub fn unpack_with(
    means: Means<'_>,
    view: View,
    limits: &Limits,
    budget: &mut Budget,
    give: &mut dyn FnMut(Kept),
) -> View {
    let View { parts, findings, kept, heads, .. } = view;
    let mut work = Work {
        means,
        words: OnceCell::new(),
        budget,
        limits,
        give,
        list: Vec::new(),
        held: 0,
        parts: Vec::new(),
        findings: Vec::new(),
        alike: Alike::default(),
        whole: false,
    };
    let names: Vec<&str> = kept.iter().map(|kept| name_of(&parts, &kept.path)).collect();
    let sets = volumes::sets(&names, &kept);
    let volumes = |number: usize| {
        let set = sets.iter().find(|set| set[0] == number);
        set.map_or_else(Vec::new, |set| set[1..].iter().map(|place| kept[*place].bytes.clone()).collect::<Vec<_>>())
    };
    let volumes: Vec<_> = (0..kept.len()).map(volumes).collect();
    let names: Vec<String> = names.into_iter().map(members::step).collect();
    for (number_of, ((kept, name), volumes)) in kept.into_iter().zip(names).zip(volumes).enumerate() {
        let further = sets.iter().any(|set| set[1..].contains(&number_of));
        let candidates = if further { Vec::new() } else { format::candidates(&kept.bytes) };
        let (path, bytes) = (kept.path.clone(), kept.bytes.clone());
        let original = work.give_or_keep(kept, &candidates, false);
        if !candidates.is_empty() {
            let order = parts.iter().position(|part| part.path == path).unwrap_or(parts.len());
            let place = Place { path: join(&path, &name), depth: 1, order: Rc::new([number(order)]), listed: true };
            work.list.push(Item { place, bytes, candidates, volumes, held: 0, original });
        }
    }
    work.list.reverse();
    work.run();
    let Work { parts: members, findings: found, give, alike, .. } = work;
    let clear = !found.iter().chain(&findings).any(|finding| finding.kind.is_ambiguity());
    alike.release(clear).for_each(give);
    View { parts: merge(parts, members), findings: [findings, found].concat(), heads, ..View::default() }
}

/// The likeliest name of a part; empty for none.
fn name_of<'p>(parts: &'p [Part], path: &str) -> &'p str {
    let part = parts.iter().find(|part| part.path == path);
    part.and_then(|part| part.names.iter().find(|name| !name.is_empty())).map_or("", String::as_str)
}

fn join(path: &str, step: &str) -> String {
    if step.is_empty() { path.to_owned() } else { format!("{path}/{step}") }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// Puts members behind the parts that hold them.
fn merge(parts: Vec<Part>, members: Vec<(Vec<u32>, Part)>) -> Vec<Part> {
    let own = parts.into_iter().enumerate().map(|(place, part)| (vec![number(place)], part));
    let mut all: Vec<_> = own.chain(members).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.into_iter().map(|(_, part)| part).collect()
}

impl Work<'_> {
    /// Opens one file after the other until there are none or a limit is reached.
    fn run(&mut self) {
        while let Some(mut item) = self.list.pop() {
            self.held = self.held.saturating_sub(item.held);
            let (path, original) = (item.place.path.clone(), item.original.take());
            self.whole = false;
            let opened = self.budget.clock().map_err(Flaw::Over).and_then(|()| self.open(item));
            if let Some(original) = original {
                let given = if opened.is_ok() && self.whole { self.alike.leave_out(original) } else { vec![original] };
                given.into_iter().for_each(&mut *self.give);
            }
            if let Err(over) = opened {
                if let Flaw::Over(over) = over {
                    self.find(Finding::new(FindingKind::OverLimits, path, over.word()));
                }
                break;
            }
        }
        // What is opened no more is given as it is.
        std::mem::take(&mut self.list).into_iter().filter_map(|item| item.original).for_each(&mut *self.give);
    }

    /// Gives a file to the scanners, or gives it back when what is in it may do. `alike`: a scanner may know it already.
    fn give_or_keep(&mut self, kept: Kept, candidates: &[Candidate], alike: bool) -> Option<Kept> {
        let simple = matches!(candidates, [Candidate { format: Format::Zip | Format::Gzip, offset: 0, certain: true }]);
        if simple && self.means.members_only {
            return Some(kept);
        }
        let held = alike && !self.means.members_only;
        let given = if held { self.alike.hold(kept) } else { vec![kept] };
        given.into_iter().for_each(&mut *self.give);
        None
    }

    fn find(&mut self, finding: Finding) {
        let said = self.findings.iter().filter(|found| found.kind == finding.kind).count();
        let room = said < MAX_FINDINGS / 10 && self.findings.len() < MAX_FINDINGS;
        // The first of each kind is never left out: what makes a message unchecked must not drown in notes.
        if (said == 0 || room) && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Gives a file to the scanners and puts it on the list, when it may hold others.
    fn put(&mut self, place: Place, kept: Kept, candidates: Vec<Candidate>, alike: bool) {
        let bytes = kept.bytes.clone();
        let size = bytes.len() as u64;
        let original = self.give_or_keep(kept, &candidates, alike);
        let held = self.held.saturating_add(size);
        let over = if candidates.is_empty() {
            None
        } else if place.depth > self.budget.limits().depth {
            Some("depth")
        } else if held > self.budget.limits().memory.0 {
            Some("memory")
        } else {
            self.held = held;
            return self.list.push(Item { place, bytes, candidates, volumes: Vec::new(), held: size, original });
        };
        original.into_iter().for_each(&mut *self.give);
        if let Some(word) = over {
            self.find(Finding::new(FindingKind::OverLimits, place.path, word));
        }
    }

    /// Takes a file apart in every format that it shows. Errors: a limit of the message only.
    fn open(&mut self, item: Item) -> Result<(), Flaw> {
        for Candidate { format, offset, certain } in item.candidates {
            let holder = item.place.clone();
            let data = item.bytes.slice(offset.min(item.bytes.len())..);
            let before = (self.findings.len(), self.parts.len());
            // Decoders are written not to panic. Should one do it, that costs this file and not the daemon.
            let decoded = catch_unwind(AssertUnwindSafe(|| self.decode(format, &holder, &data, &item.volumes)));
            match decoded {
                Ok(Ok(())) => {}
                Ok(Err(flaw @ Flaw::Over(_))) => return Err(flaw),
                Ok(Err(flaw)) => Members::new(self, &holder, format.media_type(), format.word()).flaw(&flaw),
                Err(_) => {
                    metrics::counter!("octroi_contentd_stage_failures_total", "stage" => "unpack").increment(1);
                    tracing::error!(format = format.word(), path = holder.path, "a decoder broke off; this is a bug");
                    self.find(Finding::new(FindingKind::StageFailed, holder.path.clone(), format.word()));
                }
            }
            if !certain && self.parts.len() == before.1 {
                // It only looked like an archive.
                self.findings.truncate(before.0);
            } else if offset > 0 || !certain {
                self.find(Finding::new(FindingKind::Polyglot, holder.path.clone(), format.word()));
            }
        }
        Ok(())
    }

    fn decode(&mut self, format: Format, holder: &Place, data: &Bytes, volumes: &[Bytes]) -> Result<(), Flaw> {
        if format == Format::Mail {
            return self.mail(holder, data);
        }
        let helpers = self.means.helpers.filter(|_| format.is_confined(data));
        let out = &mut Members::new(self, holder, format.media_type(), format.word());
        match helpers {
            Some(helpers) => helper::decode(helpers, format, data, volumes, out),
            None => decode(format, data, volumes, out),
        }
    }

    /// The words of the message that may be passwords.
    fn words(&self) -> &[String] {
        self.words.get_or_init(|| self.means.words.map_or_else(Vec::new, |words| words()))
    }

    /// A message as a file: walked like the message itself, against the same budget.
    fn mail(&mut self, holder: &Place, data: &Bytes) -> Result<(), Flaw> {
        self.budget.more_readings(self.limits.readings(data.len() as u64));
        let View { parts, findings, kept, texts, .. } = parts::walk(data, self.limits, self.budget);
        for bytes in texts {
            (self.give)(Kept { path: holder.path.clone(), bytes, alike: false });
        }
        let places: Vec<String> = parts.iter().map(|part| part.path.clone()).collect();
        for (place, mut part) in parts.into_iter().enumerate() {
            part.path = join(&holder.path, &part.path);
            part.container = part.container.or(Some(Format::Mail.media_type()));
            part.leaf &= holder.listed;
            self.parts.push(([&*holder.order, &[number(place)]].concat(), part));
        }
        for finding in findings {
            // The header section of an attached message is its own affair; what hides content is not.
            if finding.kind.category() != Some(crate::category::Category::BadHeader) {
                self.find(Finding { part: join(&holder.path, &finding.part), ..finding });
            }
        }
        for Kept { path, bytes, .. } in kept {
            let place = places.iter().position(|other| *other == path).unwrap_or_default();
            let path = join(&holder.path, &path);
            let candidates = format::candidates(&bytes);
            let order = [&*holder.order, &[number(place)]].concat().into();
            let place = Place { path: path.clone(), depth: holder.depth + 1, order, listed: holder.listed };
            self.put(place, Kept { path, bytes, alike: false }, candidates, false);
        }
        self.budget.clock().map_err(Flaw::Over)
    }
}

/// Takes one file apart. Errors: it is not what it seems, or a limit.
fn decode(format: Format, data: &Bytes, volumes: &[Bytes], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    match format {
        Format::Zip => zip::unpack(data, out),
        Format::Gzip => gzip::unpack(data, out),
        Format::Bzip2 => bzip2::unpack(data, out),
        Format::Xz => xz::unpack_xz(data, out),
        Format::Lzma => xz::unpack_lzma(data, out),
        Format::Lzip => xz::unpack_lzip(data, out),
        Format::Zstd => zstd::unpack(data, out),
        Format::Lz4 => lz4::unpack(data, out),
        Format::Compress => compress::unpack(data, out),
        Format::Tar => tar::unpack(data, out),
        Format::Cpio => cpio::unpack(data, out),
        Format::Ar => ar::unpack(data, out),
        Format::Rpm => rpm::unpack(data, out),
        Format::SevenZip => sevenz::unpack(data, out),
        Format::Cab => cab::unpack(data, out),
        Format::Iso => iso::unpack(data, out),
        Format::Rar => rar::unpack(data, volumes, out),
        Format::Lha => lha::unpack(data, out),
        Format::Arj => arj::unpack(data, out),
        Format::Tnef => tnef::unpack(data, out),
        Format::Ole => ole::unpack(data, out),
        Format::Pdf => pdf::unpack(data, out),
        Format::Rtf => rtf::unpack(data, out),
        Format::Uuencode => uuencode::unpack(data, out),
        Format::Binhex => binhex::unpack(data, out),
        Format::Szdd => szdd::unpack(data, out),
        Format::Chm => chm::unpack(data, out),
        Format::Nsis => nsis::unpack(data, out),
        Format::Xar => xar::unpack(data, out),
        Format::Unknown(name) => Err(Flaw::Unsupported(name.to_owned())),
        Format::Mail => Ok(()),
    }
}

#[cfg(test)]
mod locked_tests;
#[cfg(test)]
mod tests;
