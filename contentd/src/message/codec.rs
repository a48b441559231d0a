// SPDX-License-Identifier: GPL-3.0-or-later
//! Tolerant decoders of the two content transfer encodings (RFC 2045 sections 6.7 and 6.8).
//!
//! They never fail: a mail client shows what it can decode, so a filter that gives up at the first bad
//! character lets the attachment through unseen. What was strange is reported beside the bytes.

/// How data behind `=` padding is read. Clients differ, hence both readings exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// The padding ends the data (RFC 2045 section 6.8, last but one paragraph).
    Ends,
    /// The padding ends one group only; decoding goes on behind it.
    Continues,
}

/// Decoded bytes and what was odd about their encoding.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The decoded bytes.
    pub bytes: Vec<u8>,
    /// Characters that the encoding does not know and that are neither blanks nor line ends.
    pub junk: usize,
    /// Encoded characters stand behind the padding (base64 only).
    pub data_after_padding: bool,
}

/// Value of a base64 character; 64 for `=`, 65 for white space, 66 for anything else.
const fn base64_value(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        b'=' => PAD,
        b' ' | b'\t' | b'\r' | b'\n' => BLANK,
        _ => JUNK,
    }
}

const PAD: u8 = 64;
const BLANK: u8 = 65;
const JUNK: u8 = 66;

const BASE64: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = base64_value(byte as u8);
        byte += 1;
    }
    table
};

/// Decodes base64, passing over every byte that is not of its alphabet. A group cut short gives the whole bytes it holds.
pub fn base64(input: &[u8], padding: Padding) -> Decoded {
    let mut decoded = Decoded { bytes: Vec::with_capacity(input.len() / 4 * 3 + LINE), ..Decoded::default() };
    let (mut group, mut filled) = (0u32, 0u8);
    let (mut padded, mut line) = (false, LINE);
    let mut rest = input;
    while let Some(&byte) = rest.first() {
        if filled == 0 && !padded {
            let clean = clean_groups(rest, &mut line, &mut decoded.bytes);
            if clean > 0 {
                rest = &rest[clean..];
                continue;
            }
        }
        rest = &rest[1..];
        match BASE64[usize::from(byte)] {
            BLANK => {}
            JUNK => decoded.junk += 1,
            // A `=` where no group is open pads nothing: it is passed over, as junk is.
            PAD => {
                decoded.junk += usize::from(filled < 2 && !padded);
                padded |= filled >= 2;
                flush(&mut decoded.bytes, &mut group, &mut filled);
            }
            value => {
                if padded {
                    decoded.data_after_padding = true;
                    if padding == Padding::Ends {
                        return decoded;
                    }
                }
                group = group << 6 | u32::from(value);
                filled += 1;
                if filled == 4 {
                    decoded.bytes.extend_from_slice(&group.to_be_bytes()[1..]);
                    (group, filled) = (0, 0);
                }
            }
        }
    }
    flush(&mut decoded.bytes, &mut group, &mut filled);
    decoded
}

/// The most that is decoded at once: a line of a MIME body with room to spare (RFC 2045 section 6.8 has 76).
const LINE: usize = 128;

/// Decodes the groups at the start of `input` that are of the alphabet and nothing else, and gives the length of what was
/// decoded: nearly every line of nearly every attachment is one such run, and nearly all lines of one are as long as the first, `line`.
fn clean_groups(input: &[u8], line: &mut usize, bytes: &mut Vec<u8>) -> usize {
    let mut used = 0;
    while let Some((run, _)) = input[used..].split_at_checked(*line)
        && input.get(used + *line).is_none_or(|end| *end == b'\r' || *end == b'\n')
        && decode_run(run, bytes)
    {
        let end = &input[used + *line..];
        used += *line + end.iter().take(2).take_while(|byte| matches!(**byte, b'\r' | b'\n')).count();
    }
    if used > 0 {
        return used;
    }
    let most = input.len().min(LINE);
    let run = &input[..memchr::memchr2(b'\r', b'\n', &input[..most]).unwrap_or(most)];
    let run = &run[..run.len() / 4 * 4];
    if decode_run(run, bytes) {
        *line = run.len().max(4);
        return run.len();
    }
    // What ends the run is somewhere in this line.
    run.chunks_exact(4).take_while(|group| decode_run(group, bytes)).count() * 4
}

/// Decodes whole groups, of at most one line; false, and nothing added, when a character is not of the alphabet.
fn decode_run(run: &[u8], bytes: &mut Vec<u8>) -> bool {
    let mut decoded = [0; LINE / 4 * 3];
    let decoded = &mut decoded[..run.len() / 4 * 3];
    let clean = decode_groups(run, decoded);
    if clean {
        bytes.extend_from_slice(decoded);
    }
    clean
}

/// What the characters at the four places of a group add to its value. With a table for each place a group is four look-ups and three
/// or-operations.
static GROUPS: [[u32; 256]; 4] = {
    let mut tables = [[0; 256]; 4];
    let (mut place, mut byte) = (0, 0);
    while place < 4 {
        while byte < 256 {
            let value = BASE64[byte];
            tables[place][byte] = if value < PAD { (value as u32) << (18 - 6 * place) } else { ALIEN };
            byte += 1;
        }
        (place, byte) = (place + 1, 0);
    }
    tables
};

/// Added by what is not of the alphabet.
const ALIEN: u32 = 1 << 31;

/// Decodes whole groups; false when a character is not of the alphabet, and `out` is then meaningless.
fn decode_groups(input: &[u8], out: &mut [u8]) -> bool {
    let mut seen = 0;
    for (group, out) in input.as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<3>().0) {
        let [a, b, c, d] = group.map(usize::from);
        let bits = GROUPS[0][a] | GROUPS[1][b] | GROUPS[2][c] | GROUPS[3][d];
        seen |= bits;
        let [_, bytes @ ..] = bits.to_be_bytes();
        *out = bytes;
    }
    seen & ALIEN == 0
}

/// Writes the whole bytes of an unfinished group: two characters hold one, three hold two.
fn flush(bytes: &mut Vec<u8>, group: &mut u32, filled: &mut u8) {
    match *filled {
        2 => bytes.push((*group >> 4) as u8),
        3 => bytes.extend_from_slice(&(*group >> 2).to_be_bytes()[2..]),
        _ => {}
    }
    (*group, *filled) = (0, 0);
}

/// Whether bytes look like base64 and nothing else: lines of its alphabet in whole groups. Only the start is looked at.
pub fn looks_like_base64(bytes: &[u8]) -> bool {
    const SHORTEST: usize = 16;
    const SAMPLE: usize = 1024;
    let bytes = bytes.trim_ascii();
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    let first = sample.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let of_alphabet = |byte: &u8| BASE64[usize::from(*byte)] <= PAD || matches!(byte, b'\r' | b'\n');
    let kinds = [u8::is_ascii_uppercase, u8::is_ascii_lowercase];
    sample.len() >= SHORTEST
        && first.len().is_multiple_of(4)
        && sample.iter().all(of_alphabet)
        && kinds.iter().all(|kind| sample.iter().any(kind))
}

/// Decodes quoted-printable. Blanks at a line's end go (RFC 2045 section 6.7 rule 3); a `=` that encodes nothing stays.
pub fn quoted_printable(input: &[u8]) -> Decoded {
    let mut decoded = Decoded { bytes: Vec::with_capacity(input.len()), ..Decoded::default() };
    let mut rest = input;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, next) = rest.split_at(end);
        quoted_line(line, &mut decoded);
        rest = next;
    }
    decoded
}

fn quoted_line(line: &[u8], decoded: &mut Decoded) {
    let content = line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
    let ending = &line[content.len()..];
    let blanks = content.len();
    let content = content.trim_ascii_end();
    let blanks = blanks > content.len();
    let (content, soft_break) = match content.strip_suffix(b"=") {
        Some(content) => {
            // Some see no soft break there.
            decoded.junk += usize::from(blanks);
            (content, true)
        }
        None => (content, false),
    };
    let mut rest = content;
    while let Some(at) = memchr::memchr(b'=', rest) {
        decoded.bytes.extend_from_slice(&rest[..at]);
        match rest.get(at + 1..at + 3).and_then(hex_pair) {
            Some(byte) => {
                decoded.bytes.push(byte);
                rest = &rest[at + 3..];
            }
            None => {
                decoded.junk += 1;
                decoded.bytes.push(b'=');
                rest = &rest[at + 1..];
            }
        }
    }
    decoded.bytes.extend_from_slice(rest);
    if !soft_break {
        decoded.bytes.extend_from_slice(ending);
    }
}

/// The byte that two hexadecimal digits, of either case, stand for.
pub fn hex_pair(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    let digit = |byte: u8| (byte as char).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(decoded: Decoded) -> String {
        String::from_utf8(decoded.bytes).unwrap()
    }

    /// Plain encoder, the other way round, for the round trip.
    fn encode(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for chunk in bytes.chunks(3) {
            let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for place in 0..4 {
                let index = (group >> (18 - 6 * place)) as usize & 63;
                out.push(if place <= chunk.len() { ALPHABET[index] as char } else { '=' });
            }
        }
        out
    }

    #[test]
    fn base64_of_rfc_4648_section_10() {
        for (encoded, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9v\r\nYmFy\r\n", "foobar"),
            ("Zm9vYg", "foob"),
            ("Zm9vYmE", "fooba"),
        ] {
            assert_eq!(text(base64(encoded.as_bytes(), Padding::Ends)), plain, "{encoded}");
        }
    }

    #[test]
    fn base64_passes_over_junk_and_counts_it() {
        let decoded = base64(b"Zm#9v\xe9YmFy!", Padding::Ends);
        assert_eq!((decoded.junk, decoded.data_after_padding), (3, false));
        assert_eq!(text(decoded), "foobar");
    }

    #[test]
    fn base64_has_two_readings_behind_the_padding() {
        let ends = base64(b"Zg==\r\nZm9v", Padding::Ends);
        assert!(ends.data_after_padding);
        assert_eq!(text(ends), "f");
        assert_eq!(text(base64(b"Zg==\r\nZm9v", Padding::Continues)), "ffoo");
        assert!(!base64(b"Zg==\r\n\r\n", Padding::Ends).data_after_padding);
    }

    #[test]
    fn a_padding_sign_that_pads_nothing_ends_nothing() {
        assert_eq!(text(base64(b"=Zm9v=Zm9v", Padding::Ends)), "foofoo");
    }

    #[test]
    fn base64_is_known_by_its_look() {
        assert!(looks_like_base64(b"\r\nVEhFIEhJRERFTiBBVFRBQ0hNRU5U\r\n"));
        for text in ["", "Zm9v", "A sentence of several words", "Averyverylongword", "ABCDEFGHIJKLMNOPQRSTUVWX"] {
            assert!(!looks_like_base64(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn quoted_printable_lines() {
        for (encoded, plain) in [
            ("a=3Db=3db", "a=b=b"),
            ("soft=\r\nbreak", "softbreak"),
            ("soft= \t\r\nbreak\n", "softbreak\n"),
            ("blanks \t\r\nend ", "blanks\r\nend"),
            ("bad=ZZ=4", "bad=ZZ=4"),
            ("last=", "last"),
            ("=C3=A9", "é"),
        ] {
            assert_eq!(text(quoted_printable(encoded.as_bytes())), plain, "{encoded}");
        }
        assert_eq!(quoted_printable(b"bad=ZZ=4").junk, 2);
    }

    proptest! {
        #[test]
        fn base64_round_trip(bytes: Vec<u8>) {
            let decoded = base64(encode(&bytes).as_bytes(), Padding::Ends);
            prop_assert_eq!(decoded, Decoded { bytes, ..Decoded::default() });
        }

        #[test]
        fn lines_of_any_length_decode_alike(bytes: Vec<u8>, length in 1usize..100, junk in "[ \r\n#!]{1,3}") {
            let encoded = encode(&bytes);
            let lines: Vec<&[u8]> = encoded.as_bytes().chunks(length).collect();
            prop_assert_eq!(base64(&lines.join(junk.as_bytes()), Padding::Ends).bytes, bytes);
        }

        #[test]
        fn any_bytes_are_decoded_and_never_grow(bytes: Vec<u8>) {
            prop_assert!(base64(&bytes, Padding::Continues).bytes.len() <= bytes.len());
            prop_assert!(quoted_printable(&bytes).bytes.len() <= bytes.len());
        }
    }
}
