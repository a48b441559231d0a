// SPDX-License-Identifier: GPL-3.0-or-later
//! Taking the delimiters and the modifiers off a pattern: `/…/i`, `m{…}s`, `qr!…!`. Not the pattern itself.

use super::Error;

/// Modifiers that change what a pattern matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) ignore_case: bool,
    pub(super) multi_line: bool,
    pub(super) dot_all: bool,
    pub(super) extended: bool,
    pub(super) no_capture: bool,
    /// Not of the pattern: whether texts of numbered groups are wanted, which costs the linear engine something.
    pub(super) numbered: bool,
}

impl Flags {
    /// Sets or clears the flag of one letter. Letters about character sets and the engine's habits say nothing to bytes.
    pub(super) fn set(&mut self, letter: u8, on: bool) -> Result<(), Error> {
        match letter {
            b'i' => self.ignore_case = on,
            b'm' => self.multi_line = on,
            b's' => self.dot_all = on,
            b'x' => self.extended = on,
            b'n' => self.no_capture = on,
            b'a' | b'd' | b'l' | b'u' | b'p' | b'o' | b'g' | b'c' => {}
            _ => return Err(Error::Modifier(char::from(letter))),
        }
        Ok(())
    }
}

/// The pattern between its delimiters, and its modifiers.
pub(super) fn split(text: &[u8]) -> Result<(&[u8], Flags), Error> {
    let (open, rest) = match text {
        [b'/', rest @ ..] => (b'/', rest),
        [b'm', open, rest @ ..] | [b'q', b'r', open, rest @ ..] if !is_word(*open) => (*open, rest),
        _ => return Err(Error::NoDelimiters),
    };
    if open == b'\\' {
        return Err(Error::NoDelimiters);
    }
    let close = closing(open);
    let end = rest.iter().rposition(|&byte| byte == close).ok_or(Error::NoEnd(char::from(close)))?;
    let (pattern, modifiers) = rest.split_at(end);
    let mut flags = Flags::default();
    for &letter in modifiers.get(1..).unwrap_or_default() {
        flags.set(letter, true)?;
    }
    if open == close && has_bare(pattern, close) {
        return Err(Error::BareDelimiter(char::from(close)));
    }
    Ok((pattern, flags))
}

fn closing(open: u8) -> u8 {
    match open {
        b'{' => b'}',
        b'(' => b')',
        b'<' => b'>',
        b'[' => b']',
        other => other,
    }
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// Whether the delimiter stands in the pattern without a backslash.
fn has_bare(pattern: &[u8], delimiter: u8) -> bool {
    let mut escaped = false;
    for &byte in pattern {
        if escaped {
            escaped = false;
        } else if byte == b'\\' {
            escaped = true;
        } else if byte == delimiter {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_of_all_kinds() {
        assert_eq!(split(b"/a\\/b/i").unwrap().0, b"a\\/b");
        assert!(split(b"/a\\/b/i").unwrap().1.ignore_case);
        assert_eq!(split(b"m{a{2}}s").unwrap().0, b"a{2}");
        assert_eq!(split(b"qr!x!").unwrap().0, b"x");
        assert_eq!(split(b"m;a/b;").unwrap().0, b"a/b");
    }

    #[test]
    fn what_is_not_a_pattern() {
        assert!(split(b"abc").is_err());
        assert!(split(b"/abc").is_err());
        assert!(split(b"/a/b/").is_err());
        assert!(split(b"/a/e").is_err());
        assert!(split(b"").is_err());
        assert!(split(b"m").is_err());
    }
}
