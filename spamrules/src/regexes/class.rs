// SPDX-License-Identifier: GPL-3.0-or-later
//! Bracketed character classes, read as Perl reads them (perlrecharclass) and written as plain byte ranges, which every engine
//! reads alike.

use std::fmt::Write as _;

use super::Error;

/// A set of bytes.
#[derive(Clone)]
pub(super) struct ByteSet(Box<[bool; 256]>);

impl ByteSet {
    pub(super) fn of(bytes: impl IntoIterator<Item = u8>) -> ByteSet {
        let mut set = ByteSet(Box::new([false; 256]));
        set.extend(bytes);
        set
    }

    pub(super) fn extend(&mut self, bytes: impl IntoIterator<Item = u8>) {
        for byte in bytes {
            self.0[usize::from(byte)] = true;
        }
    }

    fn merge(&mut self, other: &ByteSet) {
        for (mine, &theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine |= theirs;
        }
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }

    pub(super) fn negated(mut self) -> ByteSet {
        for slot in self.0.iter_mut() {
            *slot = !*slot;
        }
        self
    }

    /// Adds the other case of every letter, those of Latin-1 included: Perl folds them under `/a` and `/u`.
    pub(super) fn fold(&mut self) {
        for byte in 0..=255u8 {
            if self.contains(byte)
                && let Some(other) = other_case(byte)
            {
                self.extend([other]);
            }
        }
    }

    /// The set as a class that every engine reads alike.
    pub(super) fn write(&self, out: &mut String) {
        out.push('[');
        if !self.0.contains(&true) {
            out.push_str("^\\x00-\\xff");
        }
        let mut byte = 0usize;
        while byte < 256 {
            if !self.0[byte] {
                byte += 1;
                continue;
            }
            let first = byte;
            while byte < 256 && self.0[byte] {
                byte += 1;
            }
            let last = byte - 1;
            let _ = write!(out, "\\x{first:02x}");
            if last > first {
                let _ = write!(out, "-\\x{last:02x}");
            }
        }
        out.push(']');
    }
}

/// The letter of the other case, in ASCII and Latin-1.
pub(super) fn other_case(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' => Some(byte ^ 0x20),
        0xd7 | 0xf7 | 0xdf | 0xff => None,
        0xc0..=0xfe => Some(byte ^ 0x20),
        _ => None,
    }
}

/// What a backslash and a letter stand for when they are a set: `\d`, `\W`, `\h` …
pub(super) fn shorthand(letter: u8) -> Option<ByteSet> {
    let set = match letter.to_ascii_lowercase() {
        b'd' => ByteSet::of(b'0'..=b'9'),
        b'w' => ByteSet::of((0..=127u8).filter(|byte| *byte == b'_' || byte.is_ascii_alphanumeric())),
        b's' => ByteSet::of(*b"\t\n\x0b\x0c\r "),
        b'h' => ByteSet::of(*b"\t \xa0"),
        b'v' => ByteSet::of(*b"\n\x0b\x0c\r\x85"),
        b'n' if letter == b'N' => ByteSet::of(*b"\n"),
        _ => return None,
    };
    Some(if letter.is_ascii_uppercase() { set.negated() } else { set })
}

/// A POSIX class by name.
fn posix(name: &[u8]) -> Option<ByteSet> {
    let test: fn(&u8) -> bool = match name {
        b"alpha" => u8::is_ascii_alphabetic,
        b"digit" => u8::is_ascii_digit,
        b"alnum" => u8::is_ascii_alphanumeric,
        b"upper" => u8::is_ascii_uppercase,
        b"lower" => u8::is_ascii_lowercase,
        b"punct" => u8::is_ascii_punctuation,
        b"print" => |byte| byte.is_ascii_graphic() || *byte == b' ',
        b"graph" => u8::is_ascii_graphic,
        b"cntrl" => u8::is_ascii_control,
        b"xdigit" => u8::is_ascii_hexdigit,
        b"space" => |byte| matches!(byte, b'\t'..=b'\r' | b' '),
        b"blank" => |byte| matches!(byte, b'\t' | b' '),
        b"word" => |byte| *byte == b'_' || byte.is_ascii_alphanumeric(),
        b"ascii" => u8::is_ascii,
        _ => return None,
    };
    Some(ByteSet::of((0..=255u8).filter(test)))
}

enum Item {
    Byte(u8),
    Set(ByteSet),
    /// A character that no byte can be.
    Nothing,
}

/// Reads a class from the byte after its `[`. Returns the set and the place after its `]`.
pub(super) fn parse(pattern: &[u8], start: usize, ignore_case: bool) -> Result<(ByteSet, usize), Error> {
    let mut at = start;
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut set = ByteSet::of([]);
    let first = at;
    loop {
        let byte = *pattern.get(at).ok_or(Error::Unclosed('['))?;
        if byte == b']' && at > first {
            at += 1;
            break;
        }
        let (item, next) = item(pattern, at)?;
        at = next;
        let Item::Byte(low) = item else {
            if let Item::Set(other) = item {
                set.merge(&other);
            }
            continue;
        };
        match range_end(pattern, at)? {
            Some((high, next)) => {
                if high < low {
                    return Err(Error::Range);
                }
                set.extend(low..=high);
                at = next;
            }
            None => set.extend([low]),
        }
    }
    if ignore_case {
        set.fold();
    }
    Ok((if negated { set.negated() } else { set }, at))
}

/// The upper end of a range, when a `-` and a single byte follow.
fn range_end(pattern: &[u8], at: usize) -> Result<Option<(u8, usize)>, Error> {
    if pattern.get(at) != Some(&b'-') || matches!(pattern.get(at + 1), None | Some(b']')) {
        return Ok(None);
    }
    match item(pattern, at + 1)? {
        (Item::Byte(high), next) => Ok(Some((high, next))),
        (Item::Nothing, next) => Ok(Some((255, next))),
        (Item::Set(_), _) => Ok(None),
    }
}

fn item(pattern: &[u8], at: usize) -> Result<(Item, usize), Error> {
    match pattern.get(at) {
        Some(b'[') if pattern.get(at + 1) == Some(&b':') => Ok(named(pattern, at)),
        Some(b'\\') => escape(pattern, at),
        Some(&byte) => Ok((Item::Byte(byte), at + 1)),
        None => Err(Error::Unclosed('[')),
    }
}

fn named(pattern: &[u8], at: usize) -> (Item, usize) {
    let rest = pattern.get(at + 2..).unwrap_or_default();
    let known = rest.windows(2).position(|pair| pair == b":]").and_then(|end| {
        let name = rest.get(..end)?;
        let (name, negated) = name.strip_prefix(b"^").map_or((name, false), |name| (name, true));
        let set = posix(name)?;
        Some((Item::Set(if negated { set.negated() } else { set }), at + 2 + end + 2))
    });
    known.unwrap_or((Item::Byte(b'['), at + 1))
}

fn escape(pattern: &[u8], at: usize) -> Result<(Item, usize), Error> {
    let letter = *pattern.get(at + 1).ok_or(Error::Unclosed('['))?;
    if letter == b'b' {
        return Ok((Item::Byte(8), at + 2));
    }
    if let Some(set) = shorthand(letter) {
        return Ok((Item::Set(set), at + 2));
    }
    if letter.is_ascii_digit() {
        let (byte, next) = octal(pattern, at + 1);
        return Ok((Item::Byte(byte), next));
    }
    Ok(match character(pattern, at)? {
        (Some(byte), next) => (Item::Byte(byte), next),
        (None, next) => (Item::Nothing, next),
    })
}

/// Up to three octal digits.
pub(super) fn octal(pattern: &[u8], at: usize) -> (u8, usize) {
    let digits =
        pattern.get(at..).unwrap_or_default().iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    let value = pattern
        .get(at..at + digits)
        .unwrap_or_default()
        .iter()
        .fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
    (value.to_le_bytes()[0], at + digits.max(1))
}

/// A backslash and what it makes of the next characters, when that is one character. `None`: one that no byte can be.
pub(super) fn character(pattern: &[u8], at: usize) -> Result<(Option<u8>, usize), Error> {
    let letter = *pattern.get(at + 1).ok_or(Error::TrailingBackslash)?;
    let plain = |byte| Ok((Some(byte), at + 2));
    match letter {
        b'n' => plain(b'\n'),
        b'r' => plain(b'\r'),
        b't' => plain(b'\t'),
        b'f' => plain(0x0c),
        b'a' => plain(7),
        b'e' => plain(0x1b),
        b'c' => {
            let byte = *pattern.get(at + 2).ok_or(Error::TrailingBackslash)?;
            Ok((Some(byte.to_ascii_uppercase() ^ 0x40), at + 3))
        }
        b'x' => hexadecimal(pattern, at + 2),
        letter if letter.is_ascii_alphanumeric() => Err(Error::Escape(char::from(letter))),
        byte => plain(byte),
    }
}

fn hexadecimal(pattern: &[u8], at: usize) -> Result<(Option<u8>, usize), Error> {
    let rest = pattern.get(at..).unwrap_or_default();
    let value = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).unwrap_or_default().trim();
        if text.is_empty() { Some(0) } else { u32::from_str_radix(text, 16).ok() }
    };
    if rest.first() == Some(&b'{') {
        let end = rest.iter().position(|&byte| byte == b'}').ok_or(Error::Unclosed('{'))?;
        let value = value(rest.get(1..end).unwrap_or_default()).ok_or(Error::Escape('x'))?;
        return Ok((u8::try_from(value).ok(), at + end + 1));
    }
    let digits = rest.iter().take(2).take_while(|byte| byte.is_ascii_hexdigit()).count();
    let value = value(rest.get(..digits).unwrap_or_default()).unwrap_or(0);
    Ok((u8::try_from(value).ok(), at + digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str, ignore_case: bool) -> String {
        let mut out = String::new();
        parse(text.as_bytes(), 1, ignore_case).unwrap().0.write(&mut out);
        out
    }

    #[test]
    fn classes_become_ranges() {
        assert_eq!(class("[a-c]", false), "[\\x61-\\x63]");
        assert_eq!(class("[]a]", false), "[\\x5d\\x61]");
        assert_eq!(class("[a[b]", false), "[\\x5b\\x61-\\x62]");
        assert_eq!(class("[\\d-]", false), "[\\x2d\\x30-\\x39]");
        assert_eq!(class("[[:digit:]x]", false), "[\\x30-\\x39\\x78]");
        assert_eq!(class("[\\xc0]", true), "[\\xc0\\xe0]");
        assert_eq!(class("[^\\x00-\\xfe]", false), "[\\xff]");
    }

    #[test]
    fn classes_that_are_wrong() {
        assert!(parse(b"[abc", 1, false).is_err());
        assert!(parse(b"[z-a]", 1, false).is_err());
        assert!(parse(b"[\\", 1, false).is_err());
    }
}
