// SPDX-License-Identifier: GPL-3.0-or-later
//! The value of a header field made readable: unfolded, encoded words (RFC 2047) decoded, everything in UTF-8.
//!
//! Tolerant where senders are wrong: multi-byte characters split over words, 8-bit text without any declaration.

use super::decode;
use super::headers::is_space;
use crate::text::charset;

/// Decodes a text that stands in a field, such as a display name; blanks at its ends stay.
pub(crate) fn decode_text(text: &[u8]) -> Vec<u8> {
    let blank = |byte: &&u8| is_space(**byte);
    let start = text.iter().take_while(blank).count();
    let tail = text.iter().skip(start).rev().take_while(blank).count();
    let (head, rest) = text.split_at(start);
    let (middle, end) = rest.split_at(rest.len() - tail);
    [head, &decode(b"", middle), end].concat()
}

/// Decodes the raw value of the field `name`.
pub(super) fn decode(name: &[u8], raw: &[u8]) -> Vec<u8> {
    let value = unfold(raw);
    let value = if value.is_ascii() {
        value
    } else {
        charset::decode(&value, "UTF-8", false).map_or(value, String::into_bytes)
    };
    if memchr::memmem::find(&value, b"=?").is_none() || is_structured(name) {
        return value;
    }
    decode_words(&value)
}

/// Fields in which encoded words have no meaning.
fn is_structured(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 8] = [
        b"received",
        b"message-id",
        b"date",
        b"resent-message-id",
        b"resent-date",
        b"mime-version",
        b"references",
        b"in-reply-to",
    ];
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
        || name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"list-"))
}

/// One line: a line end with the blanks and tabs after it becomes a space, other line ends go, and so do blanks at both ends.
fn unfold(raw: &[u8]) -> Vec<u8> {
    let start = raw.iter().take_while(|&&byte| is_space(byte)).count();
    let tail = raw.iter().rev().take_while(|&&byte| is_space(byte)).count();
    let mut rest = raw.get(start..raw.len() - tail).unwrap_or_default();
    let mut out = Vec::with_capacity(rest.len());
    while let Some(at) = memchr::memchr(b'\n', rest) {
        let (line, after) = rest.split_at(at);
        let after = after.get(1..).unwrap_or_default();
        let blanks = after.iter().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count();
        if blanks > 0 {
            out.extend_from_slice(line);
            out.push(b' ');
        } else {
            out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        }
        rest = after.get(blanks..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// One encoded word: its charset, its octets, and the text after it.
struct Word<'a> {
    charset: &'a [u8],
    octets: Vec<u8>,
    len: usize,
}

/// An encoded word at the start of the text.
fn word(text: &[u8]) -> Option<Word<'_>> {
    let (charset, encoding, data) = word_parts(text)?;
    let octets = if encoding.eq_ignore_ascii_case(&b'B') { decode::base64(data) } else { q(data) };
    Some(Word { charset, octets, len: charset.len() + data.len() + 7 })
}

/// Charset, encoding and data of `=?charset?encoding?data?=`.
fn word_parts(text: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let rest = text.strip_prefix(b"=?")?;
    let end = rest.iter().position(|&byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'_' | b'-')))?;
    let (charset, rest) = rest.split_at(end);
    let &[b'?', encoding, b'?', ref rest @ ..] = rest else { return None };
    let data = rest.get(..memchr::memchr(b'?', rest)?)?;
    let closed = rest.get(data.len()..)?.starts_with(b"?=");
    (closed && !charset.is_empty() && matches!(encoding, b'b' | b'B' | b'q' | b'Q'))
        .then_some((charset, encoding, data))
}

/// The Q encoding: quoted-printable with `_` for a space.
fn q(data: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = data
        .iter()
        .flat_map(|byte| if *byte == b'_' { &b"=20"[..] } else { std::slice::from_ref(byte) })
        .copied()
        .collect();
    decode::quoted_printable(&spaced)
}

/// Decodes all words; neighbours of one charset are joined before they are decoded, since characters may be split over them.
fn decode_words(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut open: Option<(Vec<u8>, Vec<u8>)> = None;
    let mut rest = value;
    while !rest.is_empty() {
        if let Some(word) = word(rest) {
            let charset = word.charset.to_ascii_lowercase();
            match &mut open {
                Some((last, octets)) if *last == charset => octets.extend_from_slice(&word.octets),
                _ => {
                    flush(&mut out, open.take());
                    open = Some((charset, word.octets));
                }
            }
            rest = rest.get(word.len..).unwrap_or_default();
            rest = skip_blanks_before_word(rest);
            continue;
        }
        flush(&mut out, open.take());
        let plain = memchr::memchr(b'=', rest.get(1..).unwrap_or_default()).map_or(rest.len(), |at| at + 1);
        let (plain, after) = rest.split_at(plain);
        out.extend_from_slice(plain);
        rest = after;
    }
    flush(&mut out, open);
    out
}

/// White space between two encoded words is not shown (RFC 2047, section 6.2).
fn skip_blanks_before_word(rest: &[u8]) -> &[u8] {
    let blanks = rest.iter().take_while(|&&byte| is_space(byte)).count();
    let after = rest.get(blanks..).unwrap_or_default();
    if blanks > 0 && word_parts(after).is_some() { after } else { rest }
}

fn flush(out: &mut Vec<u8>, open: Option<(Vec<u8>, Vec<u8>)>) {
    let Some((charset, octets)) = open else { return };
    // RFC 2231, section 5: a language may follow the charset
    let charset = charset.split(|&byte| byte == b'*').next().unwrap_or_default();
    match charset::decode(&octets, &String::from_utf8_lossy(charset), true) {
        Some(text) => out.extend_from_slice(text.as_bytes()),
        None => out.extend_from_slice(&octets),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subject(raw: &str) -> String {
        String::from_utf8(decode(b"Subject", raw.as_bytes())).unwrap()
    }

    #[test]
    fn encoded_words_are_decoded() {
        assert_eq!(subject(" =?iso-8859-1?Q?Andr=E9_?= Pirard\n"), "André  Pirard");
        assert_eq!(subject("=?utf-8?B?w6k=?=\n =?utf-8?B?w6k=?= x"), "éé x");
        assert_eq!(subject("=?utf-8?Q?=C3?= =?utf-8?Q?=A9?="), "é");
        assert_eq!(subject("=?utf-8*fr?q?a?= b =?x"), "a b =?x");
        assert_eq!(subject("=?none?q?a?="), "a");
    }

    #[test]
    fn structured_fields_keep_them() {
        assert_eq!(decode(b"References", b"=?utf-8?q?a?="), b"=?utf-8?q?a?=");
        assert_eq!(decode(b"List-Id", b" =?utf-8?q?a?=\n"), b"=?utf-8?q?a?=");
    }

    #[test]
    fn eight_bit_text_becomes_utf8() {
        assert_eq!(decode(b"Subject", b"caf\xe9"), "café".as_bytes());
        assert_eq!(decode(b"Subject", "café".as_bytes()), "café".as_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(b"Subject", &bytes);
            let mut word = b"=?utf-8?b?".to_vec();
            word.extend_from_slice(&bytes);
            let _ = decode(b"Subject", &word);
        }
    }
}
