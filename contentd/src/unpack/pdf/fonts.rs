// SPDX-License-Identifier: GPL-3.0-or-later
//! What the bytes of a font mean (ISO 32000-1 sections 9.6.6, 9.10): by its own table, by the name of its encoding, by the names of its characters. Where
//! nothing tells, bytes that are printable are what they are in ASCII. Pure.

use super::objects::{Dictionary, Reader, Value};
use super::table::Table;
use crate::unpack::field::utf16_be;
use encoding_rs::{Encoding, MACINTOSH, WINDOWS_1252};
use std::collections::HashMap;

/// Characters of one table.
const MOST: usize = 70_000;
/// Characters that one code may stand for.
const LONGEST: usize = 32;

/// A font, as far as text needs it.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Font {
    /// Codes of one and of two bytes, by length and number.
    characters: HashMap<(usize, u32), String>,
    /// Lengths of codes, the longer ones first.
    lengths: Vec<usize>,
    /// For single bytes that are not in the table.
    encoding: Option<&'static Encoding>,
}

impl Font {
    pub(super) fn read(font: &Dictionary, table: &Table<'_>) -> Font {
        let mut read = Font::default();
        let composite = font.name("Subtype") == Some(b"Type0");
        match font.get("Encoding").and_then(|encoding| table.resolve(encoding)) {
            Some(Value::Name(name)) => read.encoding = encoding(&name),
            Some(Value::Dictionary(dictionary)) => {
                read.encoding = dictionary.name("BaseEncoding").and_then(encoding);
                if let Some(Value::List(list)) = dictionary.get("Differences").and_then(|list| table.resolve(list)) {
                    read.differences(&list);
                }
            }
            _ => {}
        }
        if let Some(map) = font.get("ToUnicode").and_then(|map| table.stream(map)) {
            read.map(&map);
        }
        if read.lengths.is_empty() {
            read.lengths = if composite { vec![2] } else { vec![1] };
        }
        read
    }

    /// Codes with the names of their characters: `[65 /A /B 97 /a]`.
    fn differences(&mut self, list: &[Value]) {
        let mut code = 0u32;
        for value in list.iter().take(MOST) {
            match value {
                Value::Number(number) => code = *number as u32,
                Value::Name(name) => {
                    if let Some(character) = named(name) {
                        self.characters.insert((1, code), character.to_string());
                    }
                    code = code.wrapping_add(1);
                }
                _ => {}
            }
        }
    }

    /// A table of the font's own: `<01> <0041>` between `beginbfchar` and `endbfchar`, `<01> <05> <0041>` or a list between `beginbfrange` and its end.
    fn map(&mut self, map: &[u8]) {
        let mut reader = Reader::new(map, 0);
        let mut operands: Vec<Value> = Vec::new();
        let mut left = 2 * MOST;
        while let Some(value) = reader.value() {
            let Value::Word(word) = &value else {
                if operands.len() < MOST {
                    operands.push(value);
                }
                continue;
            };
            match &word[..] {
                b"endcodespacerange" => self.lengths.extend(operands.iter().filter_map(|value| Some(code(value)?.0))),
                b"endbfchar" => {
                    for pair in operands.chunks_exact(2) {
                        self.set(code(&pair[0]), 0, &pair[1]);
                    }
                }
                b"endbfrange" => {
                    for three in operands.chunks_exact(3) {
                        self.range(three, &mut left);
                    }
                }
                _ => {}
            }
            operands.clear();
        }
        if self.lengths.is_empty() {
            self.lengths = self.characters.keys().map(|(length, _)| *length).collect();
        }
        self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.lengths.dedup();
    }

    fn range(&mut self, three: &[Value], left: &mut usize) {
        let (Some((length, first)), Some((_, last))) = (code(&three[0]), code(&three[1])) else { return };
        for (place, number) in (first..=last).enumerate().take(0x1_0000.min(*left)) {
            *left -= 1;
            match &three[2] {
                Value::List(list) => match list.get(place) {
                    Some(value) => self.set(Some((length, number)), 0, value),
                    None => break,
                },
                value => self.set(Some((length, number)), number - first, value),
            }
        }
    }

    /// The last character counts up within a range.
    fn set(&mut self, code: Option<(usize, u32)>, step: u32, meant: &Value) {
        let (Some(code), Value::Text(meant)) = (code, meant) else { return };
        let mut text: Vec<char> = utf16_be(meant).chars().take(LONGEST).collect();
        if let Some(last) = text.last_mut() {
            *last = char::from_u32(u32::from(*last).saturating_add(step)).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
        if self.characters.len() < MOST {
            self.characters.insert(code, text.into_iter().collect());
        }
    }

    /// The text that a string shows.
    pub(super) fn show(&self, string: &[u8], to: &mut String) {
        let mut rest = string;
        while !rest.is_empty() {
            let known = self.lengths.iter().find_map(|length| {
                let code = rest.get(..*length)?.iter().fold(0u32, |code, byte| code << 8 | u32::from(*byte));
                Some((*length, self.characters.get(&(*length, code))?))
            });
            if let Some((length, text)) = known {
                to.push_str(text);
                rest = &rest[length..];
                continue;
            }
            let length = self.lengths.last().copied().unwrap_or(1).clamp(1, rest.len());
            if length == 1 {
                self.single(rest[0], to);
            } else {
                // Two bytes that nothing is said of are mostly characters of Unicode, if anything.
                let printable = rest[..length].iter().filter(|byte| matches!(byte, b' '..=b'~'));
                to.extend(printable.map(|byte| char::from(*byte)));
            }
            rest = &rest[length..];
        }
    }

    fn single(&self, byte: u8, to: &mut String) {
        match (byte, self.encoding) {
            (b' '..=b'~', _) => to.push(char::from(byte)),
            (128.., Some(encoding)) => to.push_str(&encoding.decode_without_bom_handling(&[byte]).0),
            _ => {}
        }
    }
}

/// Length and number of a code.
fn code(value: &Value) -> Option<(usize, u32)> {
    match value {
        Value::Text(bytes) if (1..=4).contains(&bytes.len()) => {
            Some((bytes.len(), bytes.iter().fold(0, |code, byte| code << 8 | u32::from(*byte))))
        }
        _ => None,
    }
}

fn encoding(name: &[u8]) -> Option<&'static Encoding> {
    match name {
        b"WinAnsiEncoding" => Some(WINDOWS_1252),
        b"MacRomanEncoding" => Some(MACINTOSH),
        _ => None,
    }
}

/// The names of what is no letter (Adobe Glyph List).
const NAMES: &[(&str, char)] = &[
    ("space", ' '),
    ("exclam", '!'),
    ("quotedbl", '"'),
    ("numbersign", '#'),
    ("dollar", '$'),
    ("percent", '%'),
    ("ampersand", '&'),
    ("quotesingle", '\''),
    ("quoteright", '’'),
    ("quoteleft", '‘'),
    ("quotedblleft", '“'),
    ("quotedblright", '”'),
    ("quotedblbase", '„'),
    ("parenleft", '('),
    ("parenright", ')'),
    ("asterisk", '*'),
    ("plus", '+'),
    ("comma", ','),
    ("hyphen", '-'),
    ("minus", '-'),
    ("period", '.'),
    ("slash", '/'),
    ("zero", '0'),
    ("one", '1'),
    ("two", '2'),
    ("three", '3'),
    ("four", '4'),
    ("five", '5'),
    ("six", '6'),
    ("seven", '7'),
    ("eight", '8'),
    ("nine", '9'),
    ("colon", ':'),
    ("semicolon", ';'),
    ("less", '<'),
    ("equal", '='),
    ("greater", '>'),
    ("question", '?'),
    ("at", '@'),
    ("bracketleft", '['),
    ("backslash", '\\'),
    ("bracketright", ']'),
    ("asciicircum", '^'),
    ("underscore", '_'),
    ("grave", '`'),
    ("braceleft", '{'),
    ("bar", '|'),
    ("braceright", '}'),
    ("asciitilde", '~'),
    ("section", '§'),
    ("Euro", '€'),
    ("germandbls", 'ß'),
    ("ae", 'æ'),
    ("oslash", 'ø'),
    ("Oslash", 'Ø'),
];

/// Accents behind the name of a letter, and what they make of a, e, i, o, u, n, c, y (blank: nothing).
const ACCENTS: &[(&str, &str, &str)] = &[
    ("dieresis", "aeiouyAEIOU", "äëïöüÿÄËÏÖÜ"),
    ("acute", "aeiouyAEIOUY", "áéíóúýÁÉÍÓÚÝ"),
    ("grave", "aeiouAEIOU", "àèìòùÀÈÌÒÙ"),
    ("circumflex", "aeiouAEIOU", "âêîôûÂÊÎÔÛ"),
    ("tilde", "anoANO", "ãñõÃÑÕ"),
    ("ring", "aA", "åÅ"),
    ("cedilla", "cC", "çÇ"),
];

/// The character of a name.
fn named(name: &[u8]) -> Option<char> {
    let name = std::str::from_utf8(name).ok()?;
    let mut characters = name.chars();
    if let (Some(only), None) = (characters.next(), characters.next()) {
        return Some(only);
    }
    if let Some((_, character)) = NAMES.iter().find(|(other, _)| *other == name) {
        return Some(*character);
    }
    let digits =
        name.strip_prefix("uni").or_else(|| name.strip_prefix('u')).filter(|digits| (4..=6).contains(&digits.len()));
    if let Some(number) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
        return char::from_u32(number);
    }
    let (letter, accent) = name.split_at_checked(1)?;
    let (_, plain, accented) = ACCENTS.iter().find(|(other, _, _)| *other == accent)?;
    accented.chars().nth(plain.find(letter)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(font: &Font, string: &[u8]) -> String {
        let mut text = String::new();
        font.show(string, &mut text);
        text
    }

    #[test]
    fn names_of_characters() {
        for (name, character) in
            [("A", 'A'), ("seven", '7'), ("udieresis", 'ü'), ("Ccedilla", 'Ç'), ("uni0416", 'Ж'), ("u1F600", '😀')]
        {
            assert_eq!(named(name.as_bytes()), Some(character), "{name}");
        }
        assert_eq!(named(b"g12"), None);
    }

    #[test]
    fn tables_of_fonts() {
        let mut font = Font::default();
        font.map(b"1 begincodespacerange <0000> <ffff> endcodespacerange 2 beginbfchar <0003> <0020> <0010> <00660069> endbfchar
            2 beginbfrange <0024> <0026> <0041> <0030> <0031> [<0058> <0059>] endbfrange");
        assert_eq!(shown(&font, b"\0\x24\0\x26\0\x03\0\x31\0\x10"), "AC Yfi");
        let font = Font { encoding: Some(MACINTOSH), lengths: vec![1], ..Font::default() };
        assert_eq!(shown(&font, b"gr\x9fn\x01"), "grün");
    }

    #[test]
    fn differences() {
        let mut font = Font { lengths: vec![1], ..Font::default() };
        let Some(Value::List(list)) = Reader::new(b"[1 /P /w 10 /two /g99]", 0).value() else { panic!("no list") };
        font.differences(&list);
        assert_eq!(shown(&font, b"\x01\x02\x0a:\x0b"), "Pw2:");
    }

    proptest! {
        #[test]
        fn any_bytes_end(data: Vec<u8>, map in "(<[0-9a-f]{0,10}>| |endbfchar|endbfrange|endcodespacerange|\\[|\\]|1){0,40}") {
            let mut font = Font::default();
            font.map(map.as_bytes());
            font.map(&data);
            shown(&font, &data);
        }
    }
}
