// SPDX-License-Identifier: GPL-3.0-or-later
//! PDF (ISO 32000-1): embedded files under their names, and scripts. No document is built: every object with a stream is looked
//! at where it stands, so that a broken or forged table of objects hides nothing.

use super::field::{text, utf16_be};
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
    let encrypted = memmem::find(data, b"/Encrypt").is_some();
    let names = names(data);
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
        let object = object_number(&data[..word], dictionary.len());
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
        if encrypted && file {
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
    actions.tell(out);
    Ok(())
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

/// The number in `12 0 obj`.
fn object_number(before: &[u8], dictionary: usize) -> Option<u32> {
    let head = before[..before.len() - dictionary].trim_ascii_end();
    let generation = head.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let head = head[..head.len() - generation].trim_ascii_end();
    let digits = head.iter().rev().take(10).take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&head[head.len() - digits..]).ok()?.parse().ok()
}

/// File specifications: which object is embedded under which name (`/F (a.exe) /EF << /F 12 0 R >>`).
fn names(data: &[u8]) -> Vec<(u32, String)> {
    let mut names = Vec::new();
    for at in memmem::find_iter(data, b"/EF").take(1000) {
        let reference = &data[at..data.len().min(at + 200)];
        let Some(reference) =
            memmem::find(reference, b"/F ").or_else(|| memmem::find(reference, b"/UF ")).map(|f| &reference[f..])
        else {
            continue;
        };
        let digits: Vec<u8> = reference
            .iter()
            .skip_while(|byte| !byte.is_ascii_digit())
            .take_while(|byte| byte.is_ascii_digit())
            .copied()
            .collect();
        let Some(object) = std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok()) else { continue };
        // The names stand in the same dictionary, before or behind.
        let from = memmem::rfind(&data[..at], b"obj").unwrap_or_default().max(at.saturating_sub(4096));
        let to = memmem::find(&data[at..], b"endobj").map_or(data.len(), |end| at + end).min(at + 4096);
        let around = &data[from..to];
        for key in [&b"/UF"[..], b"/F"] {
            for place in memmem::find_iter(around, key).take(4) {
                if let Some(name) = string(around[place + key.len()..].trim_ascii_start()) {
                    names.push((object, name));
                }
            }
        }
    }
    names
}

/// A string, in parentheses or in hexadecimal digits.
fn string(text: &[u8]) -> Option<String> {
    let bytes = match text.first()? {
        b'(' => literal(&text[1..]),
        b'<' if text.get(1) != Some(&b'<') => {
            let digits: Vec<u8> = text[1..]
                .iter()
                .take_while(|byte| **byte != b'>')
                .filter(|byte| !byte.is_ascii_whitespace())
                .copied()
                .collect();
            digits.chunks(2).filter_map(codec::hex_pair).collect()
        }
        _ => return None,
    };
    match bytes.strip_prefix(b"\xfe\xff") {
        Some(wide) => Some(utf16_be(wide)),
        None => Some(self::text(&bytes)),
    }
}

fn literal(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut depth, mut rest) = (Vec::new(), 0usize, text.iter());
    while let Some(&byte) = rest.next() {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 0 => break,
            b')' => depth -= 1,
            b'\\' => {
                match rest.as_slice() {
                    [a @ b'0'..=b'7', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                        let value = u32::from(a - b'0') << 6 | u32::from(b - b'0') << 3 | u32::from(c - b'0');
                        bytes.push(value as u8);
                        rest = tail.iter();
                    }
                    _ => bytes.extend(rest.next()),
                }
                continue;
            }
            _ => {}
        }
        bytes.push(byte);
        if bytes.len() > 2048 {
            break;
        }
    }
    bytes
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
    let unknown = ["/LZWDecode", "/LZW", "/Crypt"].iter().any(|name| has(dictionary, name.as_bytes()));
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
    fn names_of_embedded_files() {
        let file = b"1 0 obj\n<< /Type /Filespec /F (a\\)\\056exe) /EF << /F 12 0 R >> >>\nendobj\n";
        assert_eq!(names(file), [(12, "a).exe".to_owned())]);
        assert_eq!(object_number(b"x 12 0 obj<< >>", 8), Some(12));
    }

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
        fn any_bytes_end(data: Vec<u8>, text in "(1 0 obj|<<|>>|/EF|/F |/UF|\\(|\\)|\\\\|<fe|12 0 R|endobj){0,20}") {
            names(text.as_bytes());
            literal(&data);
            run_length(&data, 1000);
            ascii85(&data);
            decode(&data, b"/A85 /AHx /Fl", 1000);
            Actions::default().look(&data);
            plain(&data);
        }
    }
}
