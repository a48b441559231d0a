// SPDX-License-Identifier: GPL-3.0-or-later
//! Names of embedded files (ISO 32000-1 section 7.11): which object is embedded under which name, `/F (a.exe) /EF << /F 12 0 R >>`. They stand
//! in objects, or in objects that are packed in streams (section 7.5.7).

use super::objects::{Reader, Value};
use crate::budget::Over;
use crate::unpack::field::{index, text, utf16_be};
use crate::unpack::members::Members;
use memchr::memmem;

/// Specifications that are looked at, and bytes of a name.
const MOST: usize = 1000;
const LONGEST: usize = 2048;
/// Streams of objects that are looked at, and objects of one.
const STREAMS: usize = 1000;
const OBJECTS: usize = 10_000;

/// Objects with their names, in the whole document.
pub(super) fn all(data: &[u8], locked: bool, out: &Members<'_, '_>) -> Result<Vec<(u32, String)>, Over> {
    let mut names = names(data);
    if locked || !super::has(data, b"/EmbeddedFile") || !super::has(data, b"/ObjStm") {
        return Ok(names);
    }
    let mut at = 0;
    for _ in 0..STREAMS {
        out.clock()?;
        let Some(found) = memmem::find(&data[at..], b"/ObjStm") else { break };
        at += found + 7;
        let (Some(word), true) = (memmem::find(&data[at..], b"stream"), names.len() < MOST) else { break };
        let (dictionary, begins) = super::dictionary(&data[..at + word]);
        let start = at + word + 6;
        let end = memmem::find(&data[start..], b"endstream").map_or(data.len(), |end| start + end);
        if begins && dictionary.len() >= word {
            let bytes =
                super::decode(data[start..end].trim_ascii_start(), &super::plain(dictionary), out.one_too_many()).bytes;
            names.extend(
                objects(&bytes, &super::plain(dictionary)).into_iter().flat_map(|(_, object)| self::names(object)),
            );
        }
        at = end;
    }
    Ok(names)
}

/// The objects of a stream of objects, with their numbers.
pub(super) fn objects<'b>(bytes: &'b [u8], dictionary: &[u8]) -> Vec<(u32, &'b [u8])> {
    let number = |key: &'static [u8]| {
        super::keys(dictionary, key).find_map(|rest| Reader::new(rest, 0).value()?.number()).map_or(0, index)
    };
    let first = number(b"/First");
    let mut reader = Reader::new(bytes.get(..first).unwrap_or_default(), 0);
    let mut places: Vec<(u32, usize)> = Vec::new();
    while places.len() < number(b"/N").min(OBJECTS) {
        let pair = (reader.value().and_then(|value| value.number()), reader.value().and_then(|value| value.number()));
        let (Some(object), Some(offset)) = pair else { break };
        places.push((u32::try_from(object).unwrap_or_default(), index(offset).saturating_add(first)));
    }
    let end = |place: usize| {
        places.iter().map(|(_, other)| *other).filter(|other| *other > place).min().unwrap_or(bytes.len())
    };
    let ends: Vec<usize> = if places.is_sorted_by_key(|(_, place)| *place) {
        places.iter().skip(1).map(|(_, place)| *place).chain([bytes.len()]).collect()
    } else {
        places.iter().take(OBJECTS / 10).map(|(_, place)| end(*place)).collect()
    };
    let all = places.iter().zip(ends);
    all.filter_map(|((object, place), end)| Some((*object, bytes.get(*place..end.min(bytes.len()))?))).collect()
}

/// Objects with their names, in objects that are not packed.
fn names(data: &[u8]) -> Vec<(u32, String)> {
    let mut names = Vec::new();
    for at in memmem::find_iter(data, b"/EF").take(MOST) {
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
                if let Some(name) = name(&around[place + key.len()..]) {
                    names.push((object, name));
                }
            }
        }
    }
    names
}

/// A string, in parentheses or in hexadecimal digits.
fn name(behind: &[u8]) -> Option<String> {
    let start = behind.trim_ascii_start();
    if !start.starts_with(b"(") && (!start.starts_with(b"<") || start.starts_with(b"<<")) {
        return None;
    }
    let Some(Value::Text(mut bytes)) = Reader::new(start, 0).value() else { return None };
    bytes.truncate(LONGEST);
    match bytes.strip_prefix(b"\xfe\xff") {
        Some(wide) => Some(utf16_be(wide)),
        None => Some(text(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_embedded_files() {
        let file = b"1 0 obj\n<< /Type /Filespec /F (a\\)\\056exe) /EF << /F 12 0 R >> >>\nendobj\n";
        assert_eq!(names(file), [(12, "a).exe".to_owned())]);
        assert_eq!(name(b" <FEFF00 61>"), Some("a".to_owned()));
        assert_eq!(name(b" 12 0 R"), None);
    }

    #[test]
    fn objects_in_a_stream() {
        let dictionary = b"obj <</Type/ObjStm/N 3/First 15>>";
        let found = objects(b"7 0 8 5 9 8    <<>> (a) /X", dictionary);
        assert_eq!(found, [(7, &b"<<>> "[..]), (8, b"(a)"), (9, b" /X")]);
        assert_eq!(objects(b"7 9 8 5 9 0    <<>> (a) /X", dictionary).len(), 3);
        assert!(objects(b"7 99", b"/First 4 /N 100000000").is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_end(data: Vec<u8>, text in "(1 0 obj|<<|>>|/EF|/F |/UF|\\(|\\)|\\\\|<fe|12 0 R|endobj|/N 9|/First 4){0,20}") {
            names(text.as_bytes());
            objects(&data, text.as_bytes());
            objects(text.as_bytes(), text.as_bytes());
        }
    }
}
