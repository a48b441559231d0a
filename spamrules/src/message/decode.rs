// SPDX-License-Identifier: GPL-3.0-or-later
//! Transfer encodings (RFC 2045, section 6), decoded as tolerantly as SpamAssassin does: what is broken still gives text.

/// Value of a letter of the base64 alphabet; 64 is padding, 255 everything else.
const fn values() -> [u8; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
    let mut table = [255; 256];
    let mut at = 0;
    while at < alphabet.len() {
        table[alphabet[at] as usize] = at as u8;
        at += 1;
    }
    table
}

const VALUES: [u8; 256] = values();
const PADDING: u8 = 64;

/// Decodes base64. White space is skipped. Where the rest is clean, padding in its midst counts as zero bits and decoding goes to the end;
/// where it is not, foreign octets are skipped and padding in its midst counts as the last letter of the alphabet.
pub(crate) fn base64(text: &[u8]) -> Vec<u8> {
    let mut sextets = Vec::with_capacity(text.len());
    let mut foreign = false;
    for &byte in text {
        match VALUES[usize::from(byte)] {
            255 => foreign |= !super::headers::is_space(byte),
            value => sextets.push(value),
        }
    }
    let clean = !foreign && sextets.len() % 4 == 0;
    let end = sextets.iter().rposition(|&value| value != PADDING).map_or(0, |at| at + 1);
    sextets.truncate(end);
    let inner = if clean { 0 } else { 63 };
    for value in &mut sextets {
        if *value == PADDING {
            *value = inner;
        }
    }
    join(&sextets)
}

fn join(sextets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(sextets.len() / 4 * 3 + 2);
    let mut groups = sextets.chunks_exact(4);
    for group in &mut groups {
        let bits = group.iter().fold(0u32, |bits, &value| bits << 6 | u32::from(value));
        let [_, first, second, third] = bits.to_be_bytes();
        out.extend_from_slice(&[first, second, third]);
    }
    match *groups.remainder() {
        [a, b] => out.push(a << 2 | b >> 4),
        [a, b, c] => out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2]),
        _ => {}
    }
    out
}

/// Decodes quoted-printable: blanks at line ends go, soft line breaks join lines, `=XX` is an octet; any other `=` stays.
pub(crate) fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\n', rest) {
        let line = rest.get(..at).unwrap_or_default();
        let (line, end) = match line.strip_suffix(b"\r") {
            Some(line) => (line, &b"\r\n"[..]),
            None => (line, &b"\n"[..]),
        };
        let blanks = line.iter().rev().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count();
        let line = line.get(..line.len() - blanks).unwrap_or_default();
        match line.strip_suffix(b"=") {
            Some(line) => out.extend_from_slice(line),
            None => {
                out.extend_from_slice(line);
                out.extend_from_slice(end);
            }
        }
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    octets(out)
}

/// Replaces each `=XX` in place.
fn octets(mut text: Vec<u8>) -> Vec<u8> {
    let Some(mut from) = memchr::memchr(b'=', &text) else { return text };
    let mut to = from;
    while from < text.len() {
        let digits = match text.get(from..from + 3) {
            Some(&[b'=', high, low]) => hex(high).zip(hex(low)),
            _ => None,
        };
        match digits {
            Some((high, low)) => {
                text[to] = high << 4 | low;
                from += 3;
            }
            None => {
                text[to] = text[from];
                from += 1;
            }
        }
        to += 1;
    }
    text.truncate(to);
    text
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// CR LF to LF.
pub(crate) fn unix_lines(text: Vec<u8>) -> Vec<u8> {
    if memchr::memmem::find(&text, b"\r\n").is_none() {
        return text;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_slice();
    while let Some(at) = memchr::memchr(b'\n', rest) {
        let line = rest.get(..at).unwrap_or_default();
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.push(b'\n');
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clean_and_broken_base64() {
        assert_eq!(base64(b"aGVsbG8="), b"hello");
        assert_eq!(base64(b"aGVs\r\nbG8="), b"hello");
        assert_eq!(base64(b"aGVsbG8"), b"hello");
        assert_eq!(base64(b"aGVs-bG8="), b"hello");
        assert_eq!(base64(b"aGVsb"), b"hel");
        assert_eq!(base64(b"YQ==YQ=="), b"a\0\0a");
        assert_eq!(base64(b""), b"");
    }

    #[test]
    fn quoted_printable_lines() {
        assert_eq!(quoted_printable(b"a=20b \t\nc=\nd= \r\ne=zz=3D"), b"a b\ncde=zz=");
        assert_eq!(quoted_printable(b"=3=\nD"), b"=");
        assert_eq!(quoted_printable(b"="), b"=");
    }

    #[test]
    fn carriage_returns_go_only_before_line_feeds() {
        assert_eq!(unix_lines(b"a\r\nb\rc\r\r\n".to_vec()), b"a\nb\rc\r\n");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = base64(&bytes);
            let _ = quoted_printable(&bytes);
            let _ = unix_lines(bytes);
        }
    }
}
