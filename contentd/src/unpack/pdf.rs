// SPDX-License-Identifier: GPL-3.0-or-later
//! PDF (ISO 32000-1): embedded files under their names, and scripts. No document is built: every object with a stream is looked
//! at where it stands, so that a broken or forged table of objects hides nothing.

mod fonts;
mod lock;
#[cfg(test)]
mod locked_tests;
mod names;
mod objects;
mod open;
mod security;
mod table;
pub(super) mod text;

use super::ciphers::BLOCK;
use super::format;
use super::members::{Flaw, Members};
use crate::budget::Over;
use crate::findings::FindingKind;
use crate::message::codec;
use memchr::memmem;
use std::borrow::Cow;
use std::io::Read;

/// How far before `stream` its dictionary may begin.
const DICTIONARY: usize = 16 * 1024;
/// Streams that are looked at.
const MOST: usize = 20_000;
/// Filters of one stream that are applied.
const FILTERS: usize = 8;

/// Opens what is embedded. Pages, fonts and pictures are no files.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    if memmem::find(data, b"/Encrypt").is_some() {
        return unlock(data, data, out);
    }
    if lock::is_spelled_out(data) {
        return unlock(data, &unescaped(data), out);
    }
    walk(data, false, out)?.tell(out);
    Ok(())
}

/// Opens a document that may be encrypted; in `said` it is said how.
fn unlock(data: &[u8], said: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let Some(lock) = lock::unlock(said, out)? else {
        walk(data, false, out)?.tell(out);
        return Ok(());
    };
    if lock.shut {
        out.flaw(&Flaw::Encrypted);
    }
    if lock.opened.iter().any(|opened| opened.by_word) {
        out.note(FindingKind::PasswordFound, "pdf");
    }
    let mut actions = if lock.opened.is_empty() { walk(data, true, out)? } else { Actions::default() };
    for opened in lock.opened {
        let plain = open::decrypted(data, &opened, out)?;
        out.show(&plain)?;
        actions.add(&walk(&plain, false, out)?);
    }
    actions.tell(out);
    Ok(())
}

/// Goes through the document. `locked`: files in it are closed, but for those that are not encrypted after all.
fn walk(data: &[u8], locked: bool, out: &mut Members<'_, '_>) -> Result<Actions, Flaw> {
    let names = names::all(data, locked, out)?;
    let mut actions = Actions::default();
    let (mut at, mut number) = (0, 0);
    let mut ends = true;
    loop {
        out.clock()?;
        let Some(found) = memmem::find(&data[at..], b"stream") else { break };
        let word = at + found;
        actions.look(&data[at..word]);
        at = word + 6;
        if data[..word].ends_with(b"end") {
            continue;
        }
        let (dictionary, begins) = dictionary(&data[..word]);
        let object = lock::header(&data[..word - dictionary.len()]).map(|(number, _)| number);
        let dictionary = &*plain(dictionary);
        let start = at + usize::from(data.get(at) == Some(&b'\r'));
        let start = start + usize::from(data.get(start) == Some(&b'\n'));
        let rest = &data[start.min(data.len())..];
        let end = if ends { memmem::find(rest, b"endstream") } else { None };
        ends = end.is_some();
        // Without its end the stream is as long as its object, and what follows counts all the same.
        let end = end.or_else(|| memmem::find(rest, b"endobj")).unwrap_or(rest.len());
        at = start.saturating_add(end).min(data.len());
        number += 1;
        if number > MOST {
            out.flaw(&Flaw::Over(Over::Objects));
            break;
        }
        let name = object.and_then(|object| names.iter().find(|(of, _)| *of == object)).map(|(_, name)| name.clone());
        let file = name.is_some() || has(dictionary, b"/EmbeddedFile");
        let script = has(dictionary, b"/JavaScript") || has(dictionary, b"/JS");
        if is_picture(dictionary) && !file {
            continue;
        }
        if locked && file && !open::looks_plain(&rest[..end], dictionary) {
            out.closed(&[name.unwrap_or_default()], &Flaw::Encrypted)?;
            continue;
        }
        let most = out.one_too_many();
        let Decoded { bytes, whole } = decode(&rest[..end], dictionary, most);
        // Objects may lie in a stream, too.
        if has(dictionary, b"/ObjStm") {
            actions.look(&bytes);
        }
        let names = [name.unwrap_or_else(|| format!("stream{number}"))];
        // Of what begins too far away nobody knows what it is.
        let interesting =
            !begins || file || script || !format::candidates(&bytes).is_empty() || bytes.starts_with(b"MZ");
        if interesting || bytes.len() >= most {
            out.stored(&names, &bytes)?;
        }
        if interesting && !(whole && begins) {
            out.flaw(&Flaw::Unsupported(format!("dictionary or filters of {}", names[0])));
        }
    }
    actions.look(&data[at.min(data.len())..]);
    Ok(actions)
}

/// What the document does besides showing pages.
#[derive(Debug, Default, PartialEq, Eq)]
struct Actions {
    scripts: bool,
    at_opening: bool,
    launches: bool,
    links: usize,
}

impl Actions {
    /// What another reading of the same document does.
    fn add(&mut self, other: &Actions) {
        self.scripts |= other.scripts;
        self.at_opening |= other.at_opening;
        self.launches |= other.launches;
        self.links = self.links.max(other.links);
    }

    /// Looks at objects that are not packed.
    fn look(&mut self, objects: &[u8]) {
        // A name may be written with the numbers of its characters: `/J#61vaScript`.
        let plain = memchr::memchr(b'#', objects).map(|_| unescaped(objects));
        let objects = plain.as_deref().unwrap_or(objects);
        self.scripts |= keys(objects, b"/JavaScript").chain(keys(objects, b"/JS")).next().is_some();
        self.launches |= keys(objects, b"/Launch").next().is_some();
        // An array is a place on a page.
        let acts = |rest: &[u8]| rest.trim_ascii_start().first() != Some(&b'[');
        self.at_opening |= keys(objects, b"/OpenAction").any(acts) || keys(objects, b"/AA").next().is_some();
        let is_text = |rest: &&[u8]| matches!(rest.trim_ascii_start().first(), Some(b'(' | b'<'));
        self.links += keys(objects, b"/URI").filter(is_text).take(MOST).count();
    }

    fn tell(&self, out: &mut Members<'_, '_>) {
        for (found, kind) in [
            (self.scripts, FindingKind::PdfJavascript),
            (self.at_opening, FindingKind::PdfOpenAction),
            (self.launches, FindingKind::PdfLaunch),
        ] {
            if found {
                out.note(kind, "");
            }
        }
        if self.links > 0 {
            out.note(FindingKind::PdfLinks, &self.links.to_string());
        }
    }
}

/// What follows each name that is exactly this one.
fn keys<'d>(objects: &'d [u8], name: &'d [u8]) -> impl Iterator<Item = &'d [u8]> {
    let places = memmem::find_iter(objects, name).map(move |at| &objects[at + name.len()..]);
    places.filter(|rest| rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric()))
}

/// With `#61` as `a`.
fn unescaped(objects: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(objects.len()), objects);
    while let Some((&byte, next)) = rest.split_first() {
        match next.get(..2).and_then(codec::hex_pair) {
            Some(value) if byte == b'#' => {
                plain.push(value);
                rest = &next[2..];
            }
            _ => {
                plain.push(byte);
                rest = next;
            }
        }
    }
    plain
}

fn has(dictionary: &[u8], name: &[u8]) -> bool {
    memmem::find(dictionary, name).is_some()
}

fn is_picture(dictionary: &[u8]) -> bool {
    has(dictionary, b"/DCTDecode")
        || has(dictionary, b"/CCITTFaxDecode")
        || has(dictionary, b"/JPXDecode")
        || has(dictionary, b"/Image")
}

/// From the last `obj` on, and whether that was found.
fn dictionary(before: &[u8]) -> (&[u8], bool) {
    let near = &before[before.len().saturating_sub(DICTIONARY)..];
    let begin = memmem::rfind(near, b"obj");
    (&near[begin.unwrap_or_default()..], begin.is_some() || near.len() == before.len())
}

/// With names as they are meant: `/Fl#61teDecode` (ISO 32000-1 section 7.3.5).
fn plain(dictionary: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr(b'#', dictionary) {
        Some(_) => Cow::Owned(unescaped(dictionary)),
        None => Cow::Borrowed(dictionary),
    }
}

/// What a stream holds.
struct Decoded {
    bytes: Vec<u8>,
    /// All filters have been applied.
    whole: bool,
}

/// Applies the filters that are not for pictures, in their order; what cannot be decoded further stays as it is.
fn decode(data: &[u8], dictionary: &[u8], most: usize) -> Decoded {
    let mut bytes = data.to_vec();
    let mut filters: Vec<(usize, &str)> = Vec::new();
    for name in ["/ASCIIHexDecode", "/AHx", "/ASCII85Decode", "/A85", "/FlateDecode", "/Fl", "/RunLengthDecode", "/RL"]
    {
        let places = memmem::find_iter(dictionary, name.as_bytes());
        // `/Fl` is the beginning of `/Flags`.
        let ends = |at: &usize| !dictionary.get(at + name.len()).is_some_and(u8::is_ascii_alphanumeric);
        filters.extend(places.filter(ends).map(|at| (at, name)));
    }
    filters.sort_unstable();
    if filters.is_empty() && has(dictionary, b"/Filter") {
        // It stands elsewhere, and hardly ever is another one.
        filters.push((0, "/FlateDecode"));
    }
    let unknown = ["/LZWDecode", "/LZW"].iter().any(|name| has(dictionary, name.as_bytes()));
    let mut whole = filters.len() <= FILTERS && !unknown;
    for (_, name) in filters.into_iter().take(FILTERS) {
        let decoded = match name {
            "/ASCIIHexDecode" | "/AHx" => hex(&bytes),
            "/ASCII85Decode" | "/A85" => ascii85(&bytes),
            "/RunLengthDecode" | "/RL" => run_length(&bytes, most),
            _ => inflate(&bytes, most),
        };
        // Packed, nothing at all is a few bytes long.
        if decoded.is_empty() && bytes.len() > 16 {
            whole = false;
            break;
        }
        bytes = decoded;
    }
    Decoded { bytes, whole }
}

fn inflate(data: &[u8], most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let most = most as u64;
    // What came out before an error counts.
    let _ = flate2::read::ZlibDecoder::new(data).take(most).read_to_end(&mut bytes);
    if bytes.is_empty() {
        // Some writers forget the two bytes of zlib, some readers do not mind.
        let _ = flate2::read::DeflateDecoder::new(data).take(most).read_to_end(&mut bytes);
    }
    bytes
}

fn hex(data: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> =
        data.iter().take_while(|byte| **byte != b'>').filter(|byte| byte.is_ascii_hexdigit()).copied().collect();
    digits.chunks(2).filter_map(codec::hex_pair).collect()
}

fn ascii85(data: &[u8]) -> Vec<u8> {
    let (mut bytes, mut group, mut count) = (Vec::new(), 0u32, 0);
    for byte in data.iter().take_while(|byte| **byte != b'~') {
        match byte {
            b'z' if count == 0 => bytes.extend_from_slice(&[0; 4]),
            b'!'..=b'u' => {
                group = group.wrapping_mul(85).wrapping_add(u32::from(byte - b'!'));
                count += 1;
                if count == 5 {
                    bytes.extend_from_slice(&group.to_be_bytes());
                    (group, count) = (0, 0);
                }
            }
            _ => {}
        }
    }
    if count > 1 {
        for _ in count..5 {
            group = group.wrapping_mul(85).wrapping_add(84);
        }
        bytes.extend_from_slice(&group.to_be_bytes()[..count - 1]);
    }
    bytes
}

fn run_length(data: &[u8], most: usize) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), data);
    while let Some((&length, next)) = rest.split_first() {
        match length {
            128 => break,
            0..=127 => {
                let count = (usize::from(length) + 1).min(next.len());
                bytes.extend_from_slice(&next[..count]);
                rest = &next[count..];
            }
            _ => {
                let Some((&byte, next)) = next.split_first() else { break };
                bytes.resize(bytes.len() + 257 - usize::from(length), byte);
                rest = next;
            }
        }
        if bytes.len() > most {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_document_does() {
        let actions = |objects: &[u8]| {
            let mut actions = Actions::default();
            actions.look(objects);
            (actions.scripts, actions.at_opening, actions.launches, actions.links)
        };
        assert_eq!(actions(b"<< /OpenAction [3 0 R /Fit] /JSX 1 /URI 5 0 R >>"), (false, false, false, 0));
        assert_eq!(actions(b"<</OpenAction 5 0 R>> <</S/J#61vaScript/J#53(app.alert(1))>>"), (true, true, false, 0));
        assert_eq!(actions(b"<</S /URI /URI (http://a)>> <</URI <6869>>> <</S/Launch/F(a)>>"), (false, false, true, 2));
    }

    #[test]
    fn filters() {
        assert_eq!(ascii85(b"87cURD]i,\"Ebo80~>"), b"Hello World!");
        assert_eq!(hex(b"4 8 69>"), b"Hi");
        assert_eq!(run_length(b"\x01ab\xfec\x80", 100), b"abccc");
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::ZlibEncoder::new(bytes, flate2::Compression::best()).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn filters_by_any_spelling_or_told_to_be_left() {
        let text = b"MZ this is what the attachment holds".repeat(9);
        let once = packed(&text);
        for dictionary in [
            &b"<</Filter/FlateDecode>>"[..],
            b"<</Filter /Fl#61teDecode /Flags 4>>",
            b"<</Filter 7 0 R>>",
            b"<</F#69lter[/Fl]>>",
        ] {
            let Decoded { bytes, whole } = decode(&once, &plain(dictionary), 10_000);
            assert!(whole && bytes == text, "{}", String::from_utf8_lossy(dictionary));
        }
        assert_eq!(decode(&text, b"<</Type/EmbeddedFile /Flags 4>>", 10_000).bytes, text, "no filter");
        let mut often = text.clone();
        (0..9).for_each(|_| often = packed(&often));
        let dictionary = [&b"<</Filter["[..], &b"/FlateDecode ".repeat(9), b"]>>"].concat();
        assert!(!decode(&often, &dictionary, 10_000).whole, "one more than are applied");
        assert!(!decode(&text, b"<</Filter/FlateDecode>>", 10_000).whole, "not what it says");
        assert!(!decode(&text, b"<</Filter/LZWDecode>>", 10_000).whole);
    }

    proptest! {
        #[test]
        fn any_bytes_end(data: Vec<u8>) {
            run_length(&data, 1000);
            ascii85(&data);
            decode(&data, b"/A85 /AHx /Fl", 1000);
            Actions::default().look(&data);
            plain(&data);
        }
    }
}
