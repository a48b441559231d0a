// SPDX-License-Identifier: GPL-3.0-or-later
//! BinHex 4.0 (RFC 1741 appendix A): six bits a character, runs, then a header with both forks.

use super::field::{be32, index, slice, text};
use super::members::{Flaw, Members};

const ALPHABET: &[u8; 64] = b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr";

/// The byte that announces a run.
const RUN: u8 = 0x90;

/// Opens both forks.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let start = memchr::memmem::find(data, b"(This file must be converted with BinHex").unwrap_or_default();
    let line = memchr::memchr(b'\n', &data[start..]).or_else(|| memchr::memchr(b'\r', &data[start..]));
    let body = &data[start + line.ok_or(Flaw::Truncated)?..];
    let colon = memchr::memchr(b':', body).ok_or(Flaw::Truncated)?;
    let bytes = expand(&decode(&body[colon + 1..]), out.one_too_many());
    let length = usize::from(*bytes.first().ok_or(Flaw::Truncated)?);
    let name = text(slice(&bytes, 1, length).ok_or(Flaw::Truncated)?);
    // NUL, type, creator, flags, the two lengths, a checksum.
    let at = 1 + length + 1;
    let (fork, resources) = be32(&bytes, at + 10).zip(be32(&bytes, at + 14)).ok_or(Flaw::Truncated)?;
    let (fork, resources) = (index(fork), index(resources));
    let start = at + 20;
    let content = &bytes[start.min(bytes.len())..start.saturating_add(fork).min(bytes.len())];
    out.stored(std::slice::from_ref(&name), content)?;
    let from = start.saturating_add(fork).saturating_add(2);
    if resources > 0 {
        let content = &bytes[from.min(bytes.len())..from.saturating_add(resources).min(bytes.len())];
        out.stored(&[format!("{name}.rsrc")], content)?;
    }
    if from.saturating_add(resources) > bytes.len() { Err(Flaw::Truncated) } else { Ok(()) }
}

/// Six bits a character up to the closing colon; what is not of the alphabet is passed over.
fn decode(text: &[u8]) -> Vec<u8> {
    let (mut bits, mut count) = (0u32, 0);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for byte in text.iter().take_while(|byte| **byte != b':') {
        let Some(value) = memchr::memchr(*byte, ALPHABET) else { continue };
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// `90 n` repeats the byte before up to n times in all; `90 00` is that byte itself.
fn expand(bytes: &[u8], most: usize) -> Vec<u8> {
    let mut expanded: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        if byte != RUN {
            expanded.push(byte);
            continue;
        }
        match (rest.next(), expanded.last().copied()) {
            (Some(0), _) => expanded.push(RUN),
            (Some(count), Some(last)) => expanded.resize(expanded.len() + usize::from(*count) - 1, last),
            _ => {}
        }
        if expanded.len() > most {
            break;
        }
    }
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_decoded(text: Vec<u8>) {
            prop_assert!(expand(&decode(&text), 1000).len() < 2000);
        }
    }
}
