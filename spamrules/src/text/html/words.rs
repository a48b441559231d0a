// SPDX-License-Identifier: GPL-3.0-or-later
//! What is known about element names, and about words that tags divide.

use crate::text::chars::{Chars, space_len};

/// What an element name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// HTML 4 has it, or it is common.
    Element,
    /// Rendered, but not counted as valid.
    Trick,
    /// Of an office program: `o:p`, `st1:place`.
    Namespace,
    Unknown,
}

const ELEMENTS: [&str; 94] = [
    "a",
    "abbr",
    "acronym",
    "address",
    "applet",
    "area",
    "b",
    "base",
    "basefont",
    "bdo",
    "big",
    "blockquote",
    "body",
    "br",
    "button",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "dfn",
    "dir",
    "div",
    "dl",
    "dt",
    "em",
    "fieldset",
    "font",
    "form",
    "frame",
    "frameset",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "hr",
    "html",
    "i",
    "iframe",
    "img",
    "input",
    "ins",
    "isindex",
    "kbd",
    "label",
    "legend",
    "li",
    "link",
    "map",
    "menu",
    "meta",
    "nobr",
    "noframes",
    "noscript",
    "object",
    "ol",
    "optgroup",
    "option",
    "p",
    "param",
    "pre",
    "q",
    "s",
    "samp",
    "script",
    "select",
    "small",
    "span",
    "strike",
    "strong",
    "style",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "textarea",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "x-sigsep",
    "x-tab",
];
const TRICKS: [&str; 5] = ["bgsound", "embed", "listing", "plaintext", "xmp"];

/// The kind of a name in lower case.
pub(super) fn kind(name: &[u8]) -> Kind {
    if ELEMENTS.binary_search_by(|known| known.as_bytes().cmp(name)).is_ok() {
        Kind::Element
    } else if TRICKS.iter().any(|known| known.as_bytes() == name) {
        Kind::Trick
    } else if is_namespace(name) {
        Kind::Namespace
    } else {
        Kind::Unknown
    }
}

fn is_namespace(name: &[u8]) -> bool {
    let rest = match name {
        [b'o', b':', rest @ ..] => rest,
        [b's', b't', digit, b':', rest @ ..] if digit.is_ascii_digit() => rest,
        _ => return false,
    };
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    !rest.is_empty() && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The white space that an element makes before and after it.
pub(super) fn blank(name: &[u8]) -> Option<&'static str> {
    match name {
        b"br" | b"div" => Some("\n"),
        b"li" | b"th" | b"td" | b"dt" | b"dd" | b"embed" | b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" => Some(" "),
        b"p" | b"hr" | b"blockquote" | b"pre" | b"listing" | b"plaintext" | b"xmp" | b"title" => Some("\n\n"),
        _ => None,
    }
}

/// The name of an element that may link somewhere.
pub(super) fn link_element(name: &[u8]) -> Option<&'static str> {
    const NAMES: [&str; 15] = [
        "a", "area", "base", "bgsound", "body", "embed", "form", "frame", "iframe", "img", "link", "meta", "script",
        "table", "td",
    ];
    if name == b"tr" {
        return Some("tr");
    }
    NAMES.binary_search_by(|known| known.as_bytes().cmp(name)).ok().and_then(|at| NAMES.get(at).copied())
}

/// Length of the character at the start, if it is one of words: neither white space nor ASCII punctuation.
fn letter_len(text: &[u8], wide: bool) -> usize {
    let Some(&first) = text.first() else { return 0 };
    if space_len(text, wide) > 0 || first.is_ascii_punctuation() {
        return 0;
    }
    if wide && first >= 0xc0 { 1 + text.iter().skip(1).take_while(|&&octet| octet & 0xc0 == 0x80).count() } else { 1 }
}

/// The last character of a text.
fn last_char(text: &[u8], wide: bool) -> &[u8] {
    let start = if wide { text.iter().rposition(|&octet| octet & 0xc0 != 0x80) } else { text.len().checked_sub(1) };
    start.and_then(|start| text.get(start..)).unwrap_or_default()
}

/// A tag in the middle of a word.
pub(super) fn is_split(before: &[u8], before_wide: bool, after: &Chars) -> bool {
    letter_len(last_char(before, before_wide), before_wide) > 0 && letter_len(after.octets(), after.is_wide()) > 0
}

/// Perl's `\w`.
fn is_word(letter: &[u8], wide: bool) -> bool {
    match letter {
        [byte] if byte.is_ascii() => byte.is_ascii_alphanumeric() || *byte == b'_',
        _ if !wide => false,
        _ => {
            std::str::from_utf8(letter).ok().and_then(|letter| letter.chars().next()).is_some_and(char::is_alphanumeric)
        }
    }
}

/// Longest half of a divided word that counts, in characters.
const MAX_HALF: usize = 7;

/// The lengths of the two halves of a short word that a tag divides.
pub(super) fn halves(before: &[u8], before_wide: bool, after: &Chars) -> Option<(usize, usize)> {
    let (text, wide) = (after.octets(), after.is_wide());
    if letter_len(text, wide) == 0 {
        return None;
    }
    let first = first_half(before, before_wide)?;
    let mut letters = Vec::with_capacity(MAX_HALF);
    let mut rest = text;
    while letters.len() < MAX_HALF {
        let len = letter_len(rest, wide);
        if len == 0 {
            break;
        }
        let (letter, after) = rest.split_at(len.min(rest.len()));
        letters.push(is_word(letter, wide));
        rest = after;
    }
    let next_len = if wide { rest.iter().skip(1).take_while(|&&octet| octet & 0xc0 == 0x80).count() + 1 } else { 1 };
    let next = is_word(rest.get(..next_len.min(rest.len())).unwrap_or_default(), wide);
    let second = (1..=letters.len()).rev().find(|&len| {
        let following = letters.get(len).copied().unwrap_or(next);
        letters.get(len - 1).is_some_and(|&word| word != following)
    })?;
    Some((first, second))
}

/// Length of what stands before the tag.
fn first_half(before: &[u8], wide: bool) -> Option<usize> {
    let mut letters = Vec::with_capacity(MAX_HALF);
    let mut rest = before;
    let mut preceding = false;
    while letters.len() < MAX_HALF {
        let letter = last_char(rest, wide);
        if letter_len(letter, wide) == 0 {
            break;
        }
        letters.push(is_word(letter, wide));
        rest = rest.get(..rest.len() - letter.len()).unwrap_or_default();
    }
    preceding |= is_word(last_char(rest, wide), wide);
    (1..=letters.len()).rev().find(|&len| {
        let earlier = letters.get(len).copied().unwrap_or(preceding);
        letters.get(len - 1).is_some_and(|&word| word != earlier)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_known() {
        assert!(ELEMENTS.is_sorted());
        assert_eq!(
            (kind(b"x-tab"), kind(b"embed"), kind(b"o:p"), kind(b"st1:"), kind(b"blink")),
            (Kind::Element, Kind::Trick, Kind::Namespace, Kind::Unknown, Kind::Unknown)
        );
        assert_eq!((link_element(b"tr"), link_element(b"td"), link_element(b"p")), (Some("tr"), Some("td"), None));
    }

    #[test]
    fn divided_words() {
        let after = Chars::from_octets(b"gra");
        assert!(is_split(b"Via", false, &after));
        assert_eq!(halves(b"Via", false, &after), Some((3, 3)));
        assert_eq!(halves(b"a.b", false, &Chars::from_octets(b"cd,")), Some((1, 2)));
        assert_eq!(halves(b"abcdefgh", false, &after), None);
        assert_eq!(halves(b"a ", false, &after), None);
        assert!(!is_split(b"a", false, &Chars::from_octets(b" b")));
    }
}
