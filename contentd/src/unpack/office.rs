// SPDX-License-Identifier: GPL-3.0-or-later
//! What a document does by itself besides macros: templates and objects that are fetched from elsewhere, DDE, sheets of Excel 4 macros. Told by
//! the files of an Office Open XML document, by streams of the older ones, and by RTF. Looks for a few words, parses nothing. Pure.

use super::field::{utf16, utf16_be};
use crate::findings::FindingKind;
use memchr::memmem;
use std::borrow::Cow;

/// What one file of a zip says about the document that it belongs to.
pub(super) fn look(name: &str, data: &[u8]) -> Vec<(FindingKind, &'static str)> {
    let name = name.replace('\\', "/").to_ascii_lowercase();
    let xml = name.ends_with(".xml");
    if name.contains("macrosheets/") && (xml || name.ends_with(".bin")) {
        return vec![(FindingKind::Excel4Macros, "sheet")];
    }
    if name.ends_with(".rels") {
        return relations(&characters(data));
    }
    if xml && name.contains("externallinks/") && has(&characters(data), b"ddelink") {
        return vec![(FindingKind::Dde, "link")];
    }
    if xml && name.starts_with("word/") && has_dde_field(&characters(data)) {
        return vec![(FindingKind::Dde, "field")];
    }
    Vec::new()
}

/// XML in UTF-16 as single bytes; all words looked for are ASCII.
pub(super) fn characters(data: &[u8]) -> Cow<'_, [u8]> {
    match data {
        [0xff, 0xfe, rest @ ..] => utf16(rest).into_bytes().into(),
        [0xfe, 0xff, rest @ ..] => utf16_be(rest).into_bytes().into(),
        _ => data.into(),
    }
}

/// Whether a word in lower case is in it, in any case.
fn has(data: &[u8], word: &[u8]) -> bool {
    data.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

/// Relations to what lies outside, of kinds that are fetched when the document is opened.
fn relations(xml: &[u8]) -> Vec<(FindingKind, &'static str)> {
    let mut found = Vec::new();
    for at in memmem::find_iter(xml, b"Relationship ").take(10_000) {
        let element = &xml[at..];
        let element = &element[..memchr::memchr(b'>', element).unwrap_or(element.len()).min(8192)];
        let element = references(element);
        if !has(&element, b"external") {
            continue;
        }
        let elsewhere = [&b"http"[..], b"ftp:", b"file:", b"mhtml:", b"\\\\"].iter().any(|scheme| {
            value(&element, b"Target").is_some_and(|target| {
                target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            })
        });
        let kind = value(&element, b"Type").unwrap_or_default();
        let kind = kind.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let detail = match kind {
            b"attachedTemplate" => "template",
            b"oleObject" => "object",
            b"frame" | b"subDocument" => "document",
            _ => continue,
        };
        let finding = (FindingKind::RemoteTemplate, detail);
        if elsewhere && !found.contains(&finding) {
            found.push(finding);
        }
    }
    found
}

/// The value of an attribute. `Target` is not `TargetMode`.
pub(super) fn value<'x>(element: &'x [u8], name: &[u8]) -> Option<&'x [u8]> {
    for at in memmem::find_iter(element, name) {
        let rest = element.get(at + name.len()..)?.trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b"=") else { continue };
        let (quote, rest) = rest.trim_ascii_start().split_first()?;
        let end = memchr::memchr(*quote, rest).unwrap_or(rest.len());
        return Some(rest[..end].trim_ascii_start());
    }
    None
}

/// Characters that are written as numbers.
fn references(text: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::new(), text);
    while let Some((&byte, next)) = rest.split_first() {
        let end = memchr::memchr(b';', &next[..next.len().min(10)]);
        let number = next.strip_prefix(b"#").zip(end).and_then(|(_, end)| number(next.get(1..end)?));
        match (byte, number, end) {
            (b'&', Some(number), Some(end)) => {
                plain.push(number);
                rest = &next[end + 1..];
            }
            _ => {
                plain.push(byte);
                rest = next;
            }
        }
    }
    plain
}

fn number(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok()?;
    match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u8::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// Whether the instructions of fields, which may come in many pieces, have DDE in them.
fn has_dde_field(xml: &[u8]) -> bool {
    let mut instructions = Vec::new();
    for at in memmem::find_iter(xml, b"instrText").take(100_000) {
        // The closing tag has the same name.
        if at > 0 && xml[..at].iter().rev().take(20).take_while(|byte| **byte != b'<').any(|byte| *byte == b'/') {
            continue;
        }
        let rest = &xml[at..];
        let Some(start) = memchr::memchr(b'>', rest) else { break };
        let text = &rest[start + 1..];
        let text = &text[..memchr::memchr(b'<', text).unwrap_or(text.len())];
        instructions.extend_from_slice(text);
    }
    for at in memmem::find_iter(xml, b"instr=").take(100_000) {
        let rest = xml.get(at + 7..).unwrap_or_default();
        instructions.push(b' ');
        instructions.extend_from_slice(&rest[..memchr::memchr2(b'"', b'\'', rest).unwrap_or(rest.len())]);
    }
    is_dde(&references(&instructions))
}

/// `DDEAUTO` anywhere, `DDE` as a word.
fn is_dde(text: &[u8]) -> bool {
    let word = |at: usize| {
        let before = at.checked_sub(1).and_then(|at| text.get(at));
        let after = text.get(at + 3);
        !before.is_some_and(u8::is_ascii_alphanumeric) && after.is_some_and(u8::is_ascii_whitespace)
    };
    let places = text.windows(3).enumerate().filter(|(_, window)| window.eq_ignore_ascii_case(b"dde"));
    let mut places = places.map(|(at, _)| at);
    places.any(|at| word(at) || text.get(at + 3..at + 7).is_some_and(|rest| rest.eq_ignore_ascii_case(b"auto")))
}

/// Whether the text of an old Word document begins a field (0x13) with DDE.
pub(super) fn has_old_dde(document: &[u8]) -> bool {
    memchr::memchr_iter(0x13, document).take(100_000).any(|at| {
        let field = document[at + 1..].iter().take(60).filter(|byte| **byte != 0);
        let field: Vec<u8> = field.copied().collect();
        is_dde(&field.trim_ascii_start()[..field.trim_ascii_start().len().min(12)])
    })
}

/// What an RTF document fetches or starts.
pub(super) fn look_at_rtf(data: &[u8]) -> Vec<(FindingKind, &'static str)> {
    let mut found = Vec::new();
    let behind = |word: &[u8], length: usize, test: &dyn Fn(&[u8]) -> bool| {
        let mut places = memmem::find_iter(data, word).take(10_000).map(|at| at + word.len());
        places.any(|at| test(&data[at..data.len().min(at + length)]))
    };
    if behind(b"\\*\\template", 300, &|text| has(text, b"http") || has(text, b"\\\\\\\\")) {
        found.push((FindingKind::RemoteTemplate, "template"));
    }
    if behind(b"\\fldinst", 300, &is_dde) {
        found.push((FindingKind::Dde, "field"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn templates_from_elsewhere() {
        let relation = |kind: &str, target: &str, mode: &str| {
            format!(
                "<Relationships><Relationship Id=\"r1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}\" Target=\"{target}\" TargetMode=\"{mode}\"/></Relationships>"
            )
        };
        let name = "word/_rels/settings.xml.rels";
        let template = [(FindingKind::RemoteTemplate, "template")];
        for target in ["http://evil.example/x.dotm", "\\\\host\\share\\x.dotm", "&#x68;ttps://evil.example"] {
            assert_eq!(look(name, relation("attachedTemplate", target, "External").as_bytes()), template, "{target}");
        }
        assert_eq!(look(name, relation("oleObject", "mhtml:http://x", "External").as_bytes()).len(), 1);
        for quiet in [
            relation("attachedTemplate", "Normal.dotm", "External"),
            relation("hyperlink", "http://example.org", "External"),
            relation("image", "media/a.png", "Internal"),
        ] {
            assert_eq!(look(name, quiet.as_bytes()), []);
        }
        let wide: Vec<u8> =
            relation("attachedTemplate", "http://x", "External").encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(look(name, &[&[0xff, 0xfe][..], &wide].concat()), template);
    }

    #[test]
    fn dde_in_fields() {
        let dde = [(FindingKind::Dde, "field")];
        let pieces = b"<w:instrText xml:space=\"preserve\"> DD</w:instrText><w:instrText>EAUTO c:\\\\cmd</w:instrText>";
        assert_eq!(look("word/document.xml", pieces), dde);
        assert_eq!(look("word/document.xml", b"<w:fldSimple w:instr='DDE cmd x'>"), dde);
        assert_eq!(look("word/document.xml", b"<w:instrText>PAGE</w:instrText><w:t>DDEAUTO</w:t>"), []);
        assert_eq!(
            look("xl/externalLinks/externalLink1.xml", b"<ddeLink ddeService=\"cmd\"/>"),
            [(FindingKind::Dde, "link")]
        );
        assert_eq!(look("xl/macrosheets/sheet1.xml", b""), [(FindingKind::Excel4Macros, "sheet")]);
        assert!(has_old_dde(b"text\x13 DDEAUTO c:\\cmd"));
        assert!(has_old_dde(b"\x13\0 \0D\0D\0E\0 \0c\0"));
        assert!(!has_old_dde(b"\x13 HYPERLINK added"));
    }

    #[test]
    fn rtf() {
        assert_eq!(
            look_at_rtf(b"{\\rtf1{\\*\\template http://evil.example/x}}"),
            [(FindingKind::RemoteTemplate, "template")]
        );
        assert_eq!(look_at_rtf(b"{\\field{\\*\\fldinst DDEAUTO cmd}}"), [(FindingKind::Dde, "field")]);
        assert_eq!(look_at_rtf(b"{\\rtf1{\\*\\template Normal.dotm}}"), []);
    }

    proptest! {
        #[test]
        fn any_bytes_end(data: Vec<u8>, text in "(<Relationship |Target|=|\"|'|>|&#x4|;|instrText|instr=|DDE|\\PC){0,30}") {
            for name in ["word/a.xml", "a.rels", "xl/externalLinks/a.xml"] {
                look(name, &data);
                look(name, text.as_bytes());
            }
            has_old_dde(&data);
            look_at_rtf(&data);
        }
    }
}
