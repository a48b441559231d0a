// SPDX-License-Identifier: GPL-3.0-or-later
//! Per cent encoding (RFC 3986, section 2.1) brought to one form: what needs no encoding is decoded, what needs it is encoded.

use std::fmt::Write as _;

/// Whether some octet is encoded.
pub(super) fn has_encoded(uri: &[u8]) -> bool {
    memchr::memchr_iter(b'%', uri).any(|at| octet_at(uri, at).is_some())
}

fn octet_at(uri: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| uri.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    u8::try_from(digit(at + 1)? << 4 | digit(at + 2)?).ok()
}

/// Brings the encoding to one form.
pub(super) fn normal(uri: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(uri.len() + 8);
    let mut at = 0;
    while let Some(&byte) = uri.get(at) {
        match octet_at(uri, at).filter(|_| byte == b'%') {
            Some(octet @ 0x21..=0x7e) => {
                out.push(octet);
                at += 3;
            }
            Some(_) => {
                out.extend_from_slice(uri.get(at..at + 3).unwrap_or_default());
                at += 3;
            }
            None => {
                push_encoded(&mut out, byte);
                at += 1;
            }
        }
    }
    out
}

fn push_encoded(out: &mut Vec<u8>, byte: u8) {
    if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%' | b'<' | b'>') {
        out.push(byte);
    } else {
        let mut text = String::with_capacity(3);
        // writing to a String cannot fail
        let _ = write!(text, "%{byte:02x}");
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_decoded_and_blanks_encoded() {
        assert_eq!(normal(b"a%62%20%7f%e9% <%7E"), b"ab%20%7f%e9%25%20%3c~");
        assert!(!has_encoded(b"a%2") && has_encoded(b"%20"));
    }
}
