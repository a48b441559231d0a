// SPDX-License-Identifier: GPL-3.0-or-later
//! Objects in RTF (`\objdata`, hexadecimal) and pictures, whatever stands between their digits; and the compressed form of RTF that
//! Outlook uses (MS-OXRTFCP).

use super::field::{index, le16, le32, slice, text};
use super::members::{Flaw, Members};
use memchr::memmem;

/// Opens every object.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    for (kind, detail) in super::office::look_at_rtf(data) {
        out.note(kind, detail);
    }
    let mut done = 0;
    for (word, _) in [(&b"\\objdata"[..], 0), (b"\\datastore", 0)] {
        for at in memmem::find_iter(data, word) {
            out.clock()?;
            let bytes = digits(&data[at + word.len()..], out.one_too_many());
            if !bytes.is_empty() {
                done += 1;
                object(&bytes, done, out)?;
            }
        }
    }
    Ok(())
}

/// The bytes that hexadecimal digits stand for, up to the end of the group. Readers pass over blanks, control words and inner
/// groups, and so do those who hide an object.
fn digits(text: &[u8], most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut half, mut depth, mut at): (Option<u8>, usize, usize) = (None, 0, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b'\\' if text[at..].starts_with(b"bin") => {
                let run = &text[at + 3..];
                let length = run.iter().take(9).take_while(|digit| digit.is_ascii_digit()).count();
                let count: usize = std::str::from_utf8(&run[..length]).ok().and_then(|n| n.parse().ok()).unwrap_or(0);
                let start = at + 3 + length + usize::from(run.get(length) == Some(&b' '));
                bytes.extend_from_slice(&text[start.min(text.len())..start.saturating_add(count).min(text.len())]);
                at = start.saturating_add(count);
            }
            b'\\' => at += control(&text[at..]),
            byte => {
                let Some(value) = char::from(byte).to_digit(16).filter(|_| depth == 0) else { continue };
                half = match half.take() {
                    Some(high) => {
                        bytes.push(high << 4 | value as u8);
                        None
                    }
                    None => Some(value as u8),
                };
            }
        }
        if bytes.len() >= most {
            break;
        }
    }
    bytes
}

/// Length of a control word or symbol behind its backslash.
fn control(text: &[u8]) -> usize {
    let letters = text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    if letters == 0 {
        return 1;
    }
    let rest = &text[letters..];
    let number = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'-').count();
    letters + number + usize::from(rest.get(number) == Some(&b' '))
}

/// An object of OLE 1.0: a class name, then data that is a compound file, a package or anything else.
fn object(bytes: &[u8], number: usize, out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    if let Some((class, native)) = native(bytes) {
        if class.eq_ignore_ascii_case(b"Package")
            && let Some((names, content)) = super::ole::package(native)
        {
            return Ok(out.stored(&names, content)?);
        }
        return Ok(out.stored(&[format!("object{number}.{}", text(class))], native)?);
    }
    Ok(out.stored(&[format!("object{number}")], bytes)?)
}

/// Class and native data of an embedded object (MS-OLEDS 2.2.5).
fn native(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if le32(bytes, 4)? != 2 {
        return None;
    }
    let mut at = 8;
    let mut string = || {
        let length = index(le32(bytes, at)?);
        let value = slice(bytes, at + 4, length)?;
        at += 4 + length;
        Some(value.strip_suffix(b"\0").unwrap_or(value))
    };
    let class = string()?;
    string()?;
    string()?;
    let length = index(le32(bytes, at)?);
    let native = bytes.get(at + 4..)?;
    Some((class, &native[..length.min(native.len())]))
}

/// What the dictionary of compressed RTF begins with.
const START: &[u8] = b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript \\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx";

/// Decompresses RTF; none when the header is not one.
pub(super) fn decompress(data: &[u8], most: usize) -> Option<Vec<u8>> {
    let kind = le32(data, 8)?;
    let content = data.get(16..)?;
    match kind {
        0x414c_454d => return Some(content.to_vec()),
        0x7546_5a4c => {}
        _ => return None,
    }
    let mut window = [b' '; 4096];
    window[..START.len()].copy_from_slice(START);
    let (mut place, mut bytes) = (START.len(), Vec::new());
    let mut rest = content;
    'all: while let Some((&flags, next)) = rest.split_first() {
        rest = next;
        for bit in 0..8 {
            if flags >> bit & 1 == 0 {
                let Some((&byte, next)) = rest.split_first() else { break 'all };
                rest = next;
                bytes.push(byte);
                window[place % 4096] = byte;
                place += 1;
                continue;
            }
            let Some(token) = le16(rest, 0).map(u16::swap_bytes) else { break 'all };
            rest = &rest[2..];
            let from = usize::from(token >> 4);
            if from == place % 4096 {
                break 'all;
            }
            for offset in 0..usize::from(token & 15) + 2 {
                let byte = window[(from + offset) % 4096];
                bytes.push(byte);
                window[place % 4096] = byte;
                place += 1;
            }
        }
        if bytes.len() > most {
            break;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_between_anything() {
        assert_eq!(digits(b" 4d5a\r\n9 0{\\x 41}\\par20 00}41", 100), b"\x4d\x5a\x90\x00");
        assert_eq!(digits(b"4d\\bin2 AB5a}", 100), b"\x4dAB\x5a");
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "(\\\\(bin[0-9]{0,12}|objdata|'[0-9a-f]{2})| |[0-9a-f]{0,9}|[{}]){0,20}", data: Vec<u8>) {
            digits(text.as_bytes(), 1000);
            native(&data);
            let mut packed = vec![0; 8];
            packed.extend_from_slice(b"LZFu\0\0\0\0");
            packed.extend_from_slice(&data);
            prop_assert!(decompress(&packed, 1000).is_some());
        }
    }
}
