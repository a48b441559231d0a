// SPDX-License-Identifier: GPL-3.0-or-later
//! RAR 1.3 to 7, by the crate `rars`, with a limit on everything that it has limits for.

use super::members::{Flaw, Members};
use crate::budget::{Over, Watch};
use bytes::Bytes;
use rars::{
    Archive, ArchiveMember, ArchiveReadOptions, ArchiveReader, AttrSource, Error, ErrorKind, ExtractedEntryMeta,
    ExtractionDecision, ExtractionErrorAction,
};
use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

/// Headers and bytes of headers; far more than any budget has members.
const HEADERS: u64 = 50_000;
const HEADER_BYTES: u64 = 16 << 20;

/// Opens all members.
pub(super) fn unpack(data: &[u8], volumes: &[Bytes], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let parse = ArchiveReadOptions::new().with_max_header_count(HEADERS).with_max_header_bytes(HEADER_BYTES);
    let archive = ArchiveReader::read_with_options(data, parse).map_err(|error| flaw(&error))?;
    let members: Vec<ArchiveMember> = archive.members().collect();
    let encrypted = members.iter().any(|member| member.meta.is_encrypted);
    let split = members.iter().any(|member| member.meta.is_split_before || member.meta.is_split_after);
    // In a solid archive one member that cannot be read takes all that follow with it.
    if archive.is_solid() && encrypted {
        for member in members.iter().filter(|member| is_file(member)) {
            out.closed(&names(member), &Flaw::Encrypted)?;
        }
        return Ok(());
    }
    if !split {
        return extract(&archive, out);
    }
    if !volumes.is_empty() && !encrypted {
        let further = volumes.iter().map(|volume| ArchiveReader::read_with_options(volume, parse));
        let all: Result<Vec<Archive>, Error> = std::iter::once(Ok(archive)).chain(further).collect();
        return extract_set(&all.map_err(|error| flaw(&error))?, out);
    }
    out.flaw(&Flaw::MultiVolume);
    extract(&archive, out)
}

/// Extracts from all volumes of a set.
fn extract_set(archives: &[Archive], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let (options, watch) = (options(out), out.watch());
    let state = RefCell::new(Extraction { out, current: None, over: None });
    let open = |entry: &ExtractedEntryMeta| -> Result<Box<dyn Write>, Error> {
        let mut state = state.borrow_mut();
        state.finish(None);
        if entry.is_directory || state.over.is_some() {
            return Ok(Box::new(io::sink()));
        }
        let bytes = Rc::new(RefCell::new(Vec::new()));
        let name = super::field::text(entry.name_bytes()).replace('\\', "/");
        let link = is_link(entry.file_attr, entry.attr_source);
        state.current = Some(Current { names: vec![name], link, bytes: Rc::clone(&bytes) });
        Ok(Box::new(Gathered { bytes, watch }))
    };
    let done = rars::extract_volumes_to_with_options(archives, options, open);
    state.into_inner().end(done.err().map(|error| flaw(&error)), watch)
}

fn is_file(member: &ArchiveMember) -> bool {
    !member.meta.is_directory && !member.meta.is_redirection
}

/// Whether the attributes are those of a symbolic link on Unix.
fn is_link(attributes: u64, source: AttrSource) -> bool {
    source == AttrSource::Unix && attributes & 0o170_000 == 0o120_000
}

fn names(member: &ArchiveMember) -> Vec<String> {
    vec![super::field::text(member.meta.name_bytes()).replace('\\', "/")]
}

/// The member that is being extracted.
struct Current {
    names: Vec<String>,
    link: bool,
    bytes: Rc<RefCell<Vec<u8>>>,
}

/// One member after the other, each gathered by a writer and given when the next one begins.
struct Extraction<'o, 'w, 'b> {
    out: &'o mut Members<'w, 'b>,
    current: Option<Current>,
    over: Option<Over>,
}

impl Extraction<'_, '_, '_> {
    /// Gives the member that was gathered, with the flaw that ended it.
    fn finish(&mut self, flaw: Option<&Flaw>) {
        let Some(Current { names, link, bytes }) = self.current.take() else { return };
        let bytes = bytes.take();
        let given = match flaw {
            _ if link => self.out.aside(names.first().map_or("", String::as_str), &mut &*bytes),
            Some(flaw) if bytes.is_empty() => self.out.closed(&names, flaw),
            Some(flaw) => {
                self.out.flaw(flaw);
                self.out.stored(&names, &bytes)
            }
            None => self.out.stored(&names, &bytes),
        };
        self.over = self.over.or(given.err());
    }

    /// Gives the last member, and says how it all ended.
    fn end(mut self, flaw: Option<Flaw>, watch: Watch) -> Result<(), Flaw> {
        let unnamed = self.current.is_none();
        self.finish(flaw.as_ref());
        match (self.over.or_else(|| watch.over()), flaw) {
            (Some(over), _) => Err(over.into()),
            (None, Some(flaw)) if unnamed => Err(flaw),
            _ => Ok(()),
        }
    }
}

/// The limits for one extraction.
fn options(out: &Members<'_, '_>) -> ArchiveReadOptions<'static> {
    let mut options = ArchiveReadOptions::new()
        .with_max_member_output_bytes(out.largest())
        .with_max_total_output_bytes(out.left())
        .with_rar50_dictionary_size_limit(out.memory());
    options.max_reader_workspace_bytes = Some(out.memory().saturating_mul(2));
    options
}

fn extract(archive: &Archive, out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let (options, watch) = (options(out), out.watch());
    let state = RefCell::new(Extraction { out, current: None, over: None });
    let decide = |member: &ArchiveMember| {
        let mut state = state.borrow_mut();
        state.finish(None);
        if state.over.is_some() {
            return Ok(ExtractionDecision::Stop);
        }
        if !is_file(member) {
            return Ok(ExtractionDecision::Skip);
        }
        if member.meta.is_encrypted {
            state.over = state.out.closed(&names(member), &Flaw::Encrypted).err();
            return Ok(ExtractionDecision::Skip);
        }
        let bytes = Rc::new(RefCell::new(Vec::new()));
        let link = is_link(member.meta.file_attr, member.meta.attr_source());
        state.current = Some(Current { names: names(member), link, bytes: Rc::clone(&bytes) });
        Ok(ExtractionDecision::Extract(Box::new(Gathered { bytes, watch })))
    };
    let on_error = |_: &ArchiveMember, error: &Error| {
        state.borrow_mut().finish(Some(&flaw(error)));
        Ok(ExtractionErrorAction::Continue)
    };
    let done = archive.extract_with_control_and_errors(options, decide, on_error);
    state.into_inner().end(done.err().map(|error| flaw(&error)), watch)
}

/// Gathers a member while there is time.
struct Gathered {
    bytes: Rc<RefCell<Vec<u8>>>,
    watch: Watch,
}

impl Write for Gathered {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.watch.over().is_some() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.bytes.borrow_mut().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn flaw(error: &Error) -> Flaw {
    match error.kind() {
        ErrorKind::PasswordRequired | ErrorKind::BadPassword => Flaw::Encrypted,
        ErrorKind::ResourceLimit => Flaw::Memory,
        ErrorKind::UnsupportedFeature | ErrorKind::UnsupportedFormat => Flaw::Unsupported("rar".to_owned()),
        ErrorKind::ChecksumMismatch => Flaw::Damaged("checksum"),
        ErrorKind::Cancelled => Flaw::Over(Over::Time),
        _ => Flaw::Damaged("structure"),
    }
}
