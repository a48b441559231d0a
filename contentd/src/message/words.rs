// SPDX-License-Identifier: GPL-3.0-or-later
//! Encoded words (RFC 2047) as mail clients read them: anywhere, next to other text, in the middle of quotes, with blanks inside.
//!
//! The second reading beside mail-parser's, which keeps to the rules. It looks at each character a bounded number of times,
//! however often a word begins and never ends.

use super::codec::{self, Padding, hex_pair};
use mail_parser::decoders::charsets::map::charset_decoder;

/// The text with every word decoded. Words that only blanks part stand together (section 6.2).
pub(crate) fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut behind_word) = (text, false);
    while let Some(at) = rest.find("=?") {
        let (before, from) = rest.split_at(at);
        let Some((word, behind)) = word(from) else {
            out.push_str(before);
            // One that does not end is text, and so is all that follows up to the next `=?`.
            out.push_str("=?");
            (rest, behind_word) = (&from[2..], false);
            continue;
        };
        if !(behind_word && before.trim().is_empty()) {
            out.push_str(before);
        }
        out.push_str(&word);
        (rest, behind_word) = (behind, true);
    }
    out.push_str(rest);
    out
}

/// Longest word that is looked at; the rules allow 75 characters.
const LONGEST: usize = 2000;

/// The word at the start of a text, decoded, and what follows it.
fn word(text: &str) -> Option<(String, &str)> {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let near = &text[2..end];
    let (charset, rest) = near.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let length = rest.find("?=")?;
    let data = &rest.as_bytes()[..length];
    let bytes = match encoding.trim() {
        "B" | "b" => codec::base64(data, Padding::Continues).bytes,
        "Q" | "q" => quoted(data),
        _ => return None,
    };
    // A language may follow the character set (RFC 2231 section 5).
    let charset = charset.split('*').next().unwrap_or_default().trim();
    let used = near.len() - rest.len() + length;
    Some((in_charset(charset, &bytes), &text[2 + used + 2..]))
}

/// The Q encoding (section 4.2): as quoted-printable, and `_` is a blank.
fn quoted(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut at = 0;
    while let Some(&byte) = data.get(at) {
        match (byte, data.get(at + 1..at + 3).and_then(hex_pair)) {
            (b'=', Some(decoded)) => {
                out.push(decoded);
                at += 2;
            }
            (b'_', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    out
}

/// Bytes as text: in the character set that is named, else UTF-8, else Latin-1.
pub(super) fn in_charset(charset: &str, bytes: &[u8]) -> String {
    match (charset_decoder(charset.as_bytes()), std::str::from_utf8(bytes)) {
        (Some(decode), _) => decode(bytes),
        (None, Ok(text)) => text.to_owned(),
        (None, Err(_)) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_wherever_they_stand() {
        for (text, decoded) in [
            ("=?utf-8?B?eC5leGU=?=", "x.exe"),
            ("a=?utf-8?Q?.exe?=", "a.exe"),
            ("=?utf-8?Q?a?=.exe", "a.exe"),
            ("=?utf-8?q?a?= =?iso-8859-1?q?=E4.exe?=", "aä.exe"),
            ("=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
            ("=?utf-8*en?q?a b_c?=", "a b c"),
            ("=?x?y?z?= =?utf-8?q?a", "=?x?y?z?= =?utf-8?q?a"),
            ("=?=?utf-8?Q?a?=", "=?a"),
            ("plain", "plain"),
        ] {
            assert_eq!(decode(text), decoded, "{text}");
        }
    }

    #[test]
    fn words_that_never_end_cost_little() {
        for text in ["=?a?b", "=?", "=?a?q?x"] {
            let text = text.repeat(100_000);
            assert!(decode(&text) == text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_decoded(text: String) {
            decode(&text);
        }

        #[test]
        fn word_like_text_is_decoded(text in "(=\\?|\\?|utf-8|[qbQB]|=|_|ä| |41){0,40}") {
            decode(&text);
        }
    }
}
