// SPDX-License-Identifier: GPL-3.0-or-later
//! Text in one of the two states that Perl knows: octets, or decoded characters.
//!
//! Rules were written against this: in octets 0xA0 is no white space and 0xE9 no letter; in decoded text they are. A text that holds one
//! character above 255 becomes decoded as a whole, and all its octets become the characters of the same number.

/// A text: octets, one character each, or (wide) decoded characters kept as UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chars {
    octets: Vec<u8>,
    wide: bool,
}

impl Chars {
    pub(crate) fn from_octets(octets: &[u8]) -> Chars {
        Chars { octets: octets.to_vec(), wide: false }
    }

    pub(crate) fn from_text(text: String) -> Chars {
        Chars { octets: text.into_bytes(), wide: true }
    }

    /// The bytes: octets as they are, characters as UTF-8.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub(crate) fn is_wide(&self) -> bool {
        self.wide
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Makes the text wide: octets above 127 become the characters of that number.
    pub(crate) fn widen(&mut self) {
        if !self.wide {
            self.wide = true;
            if !self.octets.is_ascii() {
                self.octets = widened(&self.octets);
            }
        }
    }

    /// Appends octets or, `wide`, UTF-8.
    pub(crate) fn push_octets(&mut self, text: &[u8], wide: bool) {
        if wide {
            self.widen();
        }
        if self.wide && !wide && !text.is_ascii() {
            self.octets.extend_from_slice(&widened(text));
        } else {
            self.octets.extend_from_slice(text);
        }
    }

    pub(crate) fn push(&mut self, other: &Chars) {
        self.push_octets(&other.octets, other.wide);
    }

    /// Appends one character; one above 255 makes the text wide.
    pub(crate) fn push_char(&mut self, letter: char) {
        match u8::try_from(u32::from(letter)) {
            Ok(octet) if !self.wide => self.octets.push(octet),
            _ => {
                self.widen();
                self.octets.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }

    /// Takes the last character away.
    pub(crate) fn pop_char(&mut self) {
        while let Some(octet) = self.octets.pop() {
            if !self.wide || octet & 0xc0 != 0x80 {
                break;
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.octets.clear();
        self.wide = false;
    }

    /// How many characters.
    pub(crate) fn count(&self) -> usize {
        count(&self.octets, self.wide)
    }
}

/// How many characters `text` has.
pub(crate) fn count(text: &[u8], wide: bool) -> usize {
    if wide { text.iter().filter(|&&octet| octet & 0xc0 != 0x80).count() } else { text.len() }
}

/// Octets as the characters of the same numbers, in UTF-8.
pub(crate) fn widened(octets: &[u8]) -> Vec<u8> {
    octets.iter().map(|&octet| char::from(octet)).collect::<String>().into_bytes()
}

/// Length of the white space at the start of `text`, 0 when there is none: one character, as Perl's `\s` takes it.
pub(crate) fn space_len(text: &[u8], wide: bool) -> usize {
    match *text {
        [b'\t'..=b'\r' | b' ', ..] => 1,
        _ if !wide => 0,
        [0xc2, 0x85 | 0xa0, ..] => 2,
        [0xe1, 0x9a, 0x80, ..] | [0xe2, 0x80, 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf, ..] => 3,
        [0xe2, 0x81, 0x9f, ..] | [0xe3, 0x80, 0x80, ..] => 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wide_character_widens_all() {
        let mut text = Chars::from_octets(b"caf\xe9");
        assert_eq!((text.count(), text.is_wide()), (4, false));
        text.push_char('€');
        assert_eq!(text, Chars::from_text("café€".to_owned()));
        text.push_octets(b"\xe9", false);
        assert_eq!((text.octets(), text.count()), ("café€é".as_bytes(), 6));
        text.pop_char();
        text.pop_char();
        assert_eq!(text.octets(), "café".as_bytes());
    }

    #[test]
    fn spaces_depend_on_the_state() {
        assert_eq!((space_len(b"\xa0", false), space_len("\u{a0}".as_bytes(), true)), (0, 2));
        assert_eq!((space_len(" ".as_bytes(), true), space_len("\u{2003}".as_bytes(), true)), (1, 3));
        assert_eq!(space_len(b"\x0b", false), 1);
        assert_eq!(space_len("\u{200b}".as_bytes(), true), 0);
    }
}
