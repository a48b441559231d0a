// SPDX-License-Identifier: GPL-3.0-or-later
//! Digests as lists of hashes and rules on documents write them: MD5 and SHA-1 in hexadecimal, SHA-256 in base32 (RFC 4648 section 6,
//! small letters, no padding). They name things; nothing here is a secret or a signature.

use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

pub(crate) fn md5(octets: &[u8]) -> String {
    hexadecimal(&Md5::digest(octets))
}

pub(crate) fn sha1(octets: &[u8]) -> String {
    hexadecimal(&Sha1::digest(octets))
}

pub(crate) fn sha256(octets: &[u8]) -> String {
    base32(&Sha256::digest(octets))
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn base32(octets: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut out = String::with_capacity(octets.len().div_ceil(5) * 8);
    for group in octets.chunks(5) {
        let bits = (0..5).fold(0_u64, |bits, at| (bits << 8) | u64::from(group.get(at).copied().unwrap_or(0)));
        for letter in 0..(group.len() * 8).div_ceil(5) {
            let index = usize::try_from(bits >> (35 - 5 * letter) & 31).unwrap_or(0);
            out.push(char::from(LETTERS.get(index).copied().unwrap_or(b'a')));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        assert_eq!(md5(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(sha1(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(sha256(b"abc"), "xj4bnp4pahh6uqkbidpf3lrceoyagyndsylxvhfucd7wd4qacwwq");
    }

    #[test]
    fn base32_of_any_length() {
        // RFC 4648 section 10
        for (text, code) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(base32(text.as_bytes()), code);
        }
    }
}
