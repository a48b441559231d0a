// SPDX-License-Identifier: GPL-3.0-or-later
//! Texts cut into what one rule reads at a time: white space joined, empty lines as ends of paragraphs, lines and chunks of limited length.

use super::chars::{Chars, space_len};
use super::html::links::first_chars;

/// Longest line, and half the longest chunk, in bytes.
const MAX_LINE: usize = 2048;
/// How far after the wanted end of a window a better one is looked for.
const WINDOW_SLACK: usize = 1024;

/// The subject and the paragraphs of all parts. `None`: a part that shows nothing. `size`: how many characters of each part are read, 0 all.
pub(super) fn paragraphs(subject: &[u8], parts: &[Option<(&[u8], bool)>], size: usize) -> Vec<Vec<u8>> {
    let mut text = Chars::default();
    for part in parts {
        if !text.is_empty() {
            text.push_octets(b"\n", false);
        }
        if let Some((octets, wide)) = *part {
            text.push_octets(text_window(octets, wide, size), wide);
        }
    }
    let mut out = Vec::with_capacity(subject.len() + text.octets().len());
    out.extend_from_slice(subject);
    join_blanks(text.octets(), text.is_wide(), &mut out);
    lines(&out)
}

/// The first `size` characters, up to the end of a line or word where one is near.
fn text_window(text: &[u8], wide: bool, size: usize) -> &[u8] {
    if size == 0 || text.len() <= size {
        return text;
    }
    let start = first_chars(text, wide, size).len();
    if start == text.len() {
        return text;
    }
    let near = first_chars(text.get(start..).unwrap_or_default(), wide, WINDOW_SLACK + 1);
    cut(text, start, near, b"\n ")
}

/// The first `size` bytes, up to the end of a line, tag or word where one is near; 0 is all.
pub(super) fn window(text: &[u8], size: usize) -> &[u8] {
    if size == 0 || text.len() <= size {
        return text;
    }
    let near = text.get(size..text.len().min(size + WINDOW_SLACK + 1)).unwrap_or_default();
    cut(text, size, near, b"\n> ")
}

fn cut<'t>(text: &'t [u8], start: usize, near: &[u8], ends: &[u8]) -> &'t [u8] {
    let end = ends.iter().find_map(|&end| memchr::memchr(end, near)).map_or(start, |at| start + at + 1);
    text.get(..end).unwrap_or_default()
}

/// Each run of white space becomes one space, or the end of a paragraph where it holds two line ends. A NUL is taken for such an end, too.
fn join_blanks(text: &[u8], wide: bool, out: &mut Vec<u8>) {
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let (mut first, mut last) = (None, 0);
        while let Some(len) = text.get(at..).map(|rest| space_len(rest, wide)).filter(|&len| len > 0) {
            if text.get(at) == Some(&b'\n') {
                first.get_or_insert(at);
                last = at;
            }
            at += len;
        }
        match first {
            _ if at == start => {}
            Some(first) if first < last => {
                if first > start {
                    out.push(b' ');
                }
                out.push(b'\n');
                if last + 1 < at {
                    out.push(b' ');
                }
            }
            _ => out.push(b' '),
        }
        let rest = text.get(at..).unwrap_or_default();
        let plain = rest
            .iter()
            .position(|&byte| matches!(byte, b'\t'..=b'\r' | b' ' | 0) || (wide && matches!(byte, 0xc2 | 0xe1..=0xe3)))
            .unwrap_or(rest.len());
        out.extend_from_slice(rest.get(..plain).unwrap_or_default());
        at += plain;
        if let Some(&byte) = text.get(at).filter(|_| space_len(text.get(at..).unwrap_or_default(), wide) == 0) {
            out.push(if byte == 0 { b'\n' } else { byte });
            at += 1;
        }
    }
}

/// Lines of limited length, broken after a space where there is one.
fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for line in crate::message::Lines::new(text) {
        let mut rest = line;
        while rest.len() > MAX_LINE {
            let space = memchr::memrchr(b' ', rest.get(..=MAX_LINE).unwrap_or_default());
            let (piece, after) = rest.split_at(space.map_or(MAX_LINE, |at| at + 1));
            out.push(piece.to_vec());
            rest = after;
        }
        if !rest.is_empty() || line.is_empty() {
            out.push(rest.to_vec());
        }
    }
    out
}

/// Chunks of one to two times [`MAX_LINE`], ending after a line, a tag or a word where that is possible.
pub(crate) fn chunks(text: &[u8]) -> Vec<Vec<u8>> {
    if text.len() <= MAX_LINE {
        return vec![text.to_vec()];
    }
    let mut out = Vec::with_capacity(text.len() / MAX_LINE + 1);
    let mut rest = text;
    while rest.len() > 2 * MAX_LINE {
        let near = rest.get(MAX_LINE..2 * MAX_LINE).unwrap_or_default();
        let end = b"\n> ".iter().find_map(|&end| memchr::memchr(end, near)).unwrap_or(0);
        let (chunk, after) = rest.split_at(MAX_LINE + end + 1);
        out.push(chunk.to_vec());
        rest = after;
    }
    if !rest.is_empty() {
        out.push(rest.to_vec());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(text: &str) -> String {
        let mut out = Vec::new();
        join_blanks(text.as_bytes(), true, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn white_space_is_joined() {
        assert_eq!(folded("a \n b\n \nc \n\n d\u{a0}\te"), "a b\nc \n d e");
        assert_eq!(folded("\n\n\0x"), "\n\nx");
        assert_eq!(folded("é\u{2028}\u{200b}"), "é \u{200b}");
    }

    #[test]
    fn long_lines_break_at_spaces() {
        let text = format!("{} {}\nx", "a".repeat(2000), "b".repeat(3000));
        let lengths: Vec<_> = lines(text.as_bytes()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2001, 2048, 953, 1]);
    }

    #[test]
    fn chunks_end_at_lines() {
        let text = "0123456789\n".repeat(1000);
        let found = chunks(text.as_bytes());
        assert!(found.iter().all(|chunk| chunk.len() <= 2 * MAX_LINE && chunk.ends_with(b"\n")));
        assert_eq!(found.concat(), text.as_bytes());
        assert_eq!(chunks(b""), [b""]);
    }

    #[test]
    fn windows_end_at_lines_or_words() {
        assert_eq!(window(b"abc def\nghi", 2), b"abc def\n");
        assert_eq!(window(b"abc <d> ghi", 2), b"abc <d>");
        assert_eq!(text_window("ééé é".as_bytes(), true, 2), "ééé ".as_bytes());
        assert_eq!(text_window(b"abcdef", false, 3), b"abc");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..400), size in 0usize..50) {
            let _ = paragraphs(b"x\n", &[Some((&text, false)), None], size);
            let lossy = String::from_utf8_lossy(&text).into_owned();
            let _ = paragraphs(b"", &[Some((lossy.as_bytes(), true))], size);
            let _ = chunks(window(&text, size));
        }
    }
}
