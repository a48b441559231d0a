// SPDX-License-Identifier: GPL-3.0-or-later
//! RAR 1.3 to 7, by the crate `rars`, with a limit on everything that it has limits for. What is encrypted is tried with the words of the message.

use super::field;
use super::members::{Flaw, Members};
use super::passwords::{ROUNDS, Tries};
use crate::budget::{Over, Watch};
use crate::findings::FindingKind;
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
    let (archive, mut word) = match parse(data, None).map_err(|error| flaw(&error)) {
        Ok(archive) => (archive, None),
        Err(Flaw::Encrypted) => with_hidden_names(data, out)?,
        Err(flaw) => return Err(flaw),
    };
    let members: Vec<ArchiveMember> = archive.members().collect();
    let encrypted = members.iter().any(|member| member.meta.is_encrypted);
    let split = members.iter().any(|member| member.meta.is_split_before || member.meta.is_split_after);
    if encrypted && !split && word.is_none() {
        word = unlock(&archive, &members, out);
    }
    let shut = encrypted && word.is_none();
    // In a solid archive one member that cannot be read takes all that follow with it.
    if archive.is_solid() && shut {
        for member in members.iter().filter(|member| is_file(member)) {
            out.closed(&names(member), &Flaw::Encrypted)?;
        }
        return Ok(());
    }
    if !split {
        return extract(&archive, word.as_deref(), out);
    }
    if !volumes.is_empty() && !encrypted {
        let further = volumes.iter().map(|volume| parse(volume, None));
        let all: Result<Vec<Archive>, Error> = std::iter::once(Ok(archive)).chain(further).collect();
        return extract_set(&all.map_err(|error| flaw(&error))?, out);
    }
    out.flaw(&Flaw::MultiVolume);
    extract(&archive, word.as_deref(), out)
}

fn parse(data: &[u8], word: Option<&str>) -> Result<Archive, Error> {
    let options = ArchiveReadOptions::with_optional_password(word.map(str::as_bytes));
    let options = options.with_max_header_count(HEADERS).with_max_header_bytes(HEADER_BYTES);
    ArchiveReader::read_with_options(data, options)
}

/// An archive whose names are encrypted, too, and the word that opens it.
fn with_hidden_names(data: &[u8], out: &mut Members<'_, '_>) -> Result<(Archive, Option<String>), Flaw> {
    if header_rounds(data).is_some_and(|rounds| rounds > ROUNDS) {
        return Err(Flaw::Encrypted);
    }
    let mut archive = None;
    let word = Tries::default().first_that(out, |word| {
        archive = parse(data, Some(word)).ok();
        archive.is_some()
    });
    let archive = archive.ok_or(Flaw::Encrypted)?;
    out.note(FindingKind::PasswordFound, "rar");
    Ok((archive, word))
}

/// Doublings of the work for a key in the encryption header of RAR 5, which stands first: checksum, size, type 4, flags, version, flags and then
/// they. None: it is another format, whose work is fixed.
fn header_rounds(data: &[u8]) -> Option<u8> {
    const RAR5: &[u8] = b"Rar!\x1a\x07\x01\0";
    const CHECKSUM: usize = 4;
    let mut rest = data.strip_prefix(RAR5)?.get(CHECKSUM..)?;
    for _ in 0..5 {
        // Numbers of seven bits a byte; the last byte has its high bit clear.
        let length = rest.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
        rest = rest.get(length..)?;
    }
    rest.first().copied()
}

/// Doublings of the work for the keys of the members, the most of all.
fn member_rounds(archive: &Archive) -> u8 {
    match archive {
        Archive::Rar50Plus(archive) => archive
            .files()
            .filter_map(|file| file.encryption.as_ref())
            .map(|how| how.kdf_count)
            .max()
            .unwrap_or_default(),
        _ => 0,
    }
}

/// Looks for the word that opens the members: it is tried on the smallest, whose checksum tells. In a solid archive what comes before it is
/// read as well.
fn unlock(archive: &Archive, members: &[ArchiveMember], out: &mut Members<'_, '_>) -> Option<String> {
    if member_rounds(archive) > ROUNDS {
        return None;
    }
    let sizes = members.iter().enumerate().filter(|(_, member)| is_file(member) && member.meta.is_encrypted);
    let smallest = match archive.is_solid() {
        true => sizes.map(|(place, _)| place).next()?,
        false => sizes.min_by_key(|(_, member)| member.meta.unpacked_size).map(|(place, _)| place)?,
    };
    let word = Tries::default().first_that(out, |word| opens(archive, smallest, word, out))?;
    out.note(FindingKind::PasswordFound, "rar");
    Some(word)
}

/// Whether a member comes out whole with this word.
fn opens(archive: &Archive, place: usize, word: &str, out: &Members<'_, '_>) -> bool {
    let (mut number, mut whole) = (0, false);
    let decide = |_: &ArchiveMember| {
        let here = number;
        number += 1;
        if here > place {
            whole = true;
            return Ok(ExtractionDecision::Stop);
        }
        if here < place && !archive.is_solid() {
            return Ok(ExtractionDecision::Skip);
        }
        Ok(ExtractionDecision::Extract(Box::new(Watched(out.watch()))))
    };
    let done = archive.extract_with_control(options(out, Some(word)), decide);
    done.is_ok() && (whole || number == place + 1)
}

/// Takes all bytes while there is time.
struct Watched(Watch);

impl Write for Watched {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.0.over().is_some() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Extracts from all volumes of a set.
fn extract_set(archives: &[Archive], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let (options, watch) = (options(out, None), out.watch());
    let state = RefCell::new(Extraction { out, current: None, over: None });
    let open = |entry: &ExtractedEntryMeta| -> Result<Box<dyn Write>, Error> {
        let mut state = state.borrow_mut();
        state.finish(None);
        if entry.is_directory || state.over.is_some() {
            return Ok(Box::new(io::sink()));
        }
        let bytes = Rc::new(RefCell::new(Vec::new()));
        let name = field::text(entry.name_bytes()).replace('\\', "/");
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
    vec![field::text(member.meta.name_bytes()).replace('\\', "/")]
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
fn options<'w>(out: &Members<'_, '_>, word: Option<&'w str>) -> ArchiveReadOptions<'w> {
    let mut options = ArchiveReadOptions::with_optional_password(word.map(str::as_bytes))
        .with_max_member_output_bytes(out.largest())
        .with_max_total_output_bytes(out.left())
        .with_rar50_dictionary_size_limit(out.memory());
    options.max_reader_workspace_bytes = Some(out.memory().saturating_mul(2));
    options
}

fn extract(archive: &Archive, word: Option<&str>, out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let (options, watch) = (options(out, word), out.watch());
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
        if member.meta.is_encrypted && word.is_none() {
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
