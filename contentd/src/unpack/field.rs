// SPDX-License-Identifier: GPL-3.0-or-later
//! Numbers and names out of headers of archives. A field that lies behind the end is none, never a panic.

/// The bytes `at..at + length`, when all of them are there.
pub(super) fn slice(data: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    data.get(at..at.checked_add(length)?)
}

/// A 16-bit number, little-endian.
pub(super) fn le16(data: &[u8], at: usize) -> Option<u16> {
    slice(data, at, 2)?.try_into().ok().map(u16::from_le_bytes)
}

/// A 32-bit number, little-endian.
pub(super) fn le32(data: &[u8], at: usize) -> Option<u32> {
    slice(data, at, 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// A 64-bit number, little-endian.
pub(super) fn le64(data: &[u8], at: usize) -> Option<u64> {
    slice(data, at, 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// A 16-bit number, big-endian.
pub(super) fn be16(data: &[u8], at: usize) -> Option<u16> {
    slice(data, at, 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// A 32-bit number, big-endian.
pub(super) fn be32(data: &[u8], at: usize) -> Option<u32> {
    slice(data, at, 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// A 64-bit number, big-endian.
pub(super) fn be64(data: &[u8], at: usize) -> Option<u64> {
    slice(data, at, 8)?.try_into().ok().map(u64::from_be_bytes)
}

/// A size or offset as an index; what no machine can address lies behind every end.
pub(super) fn index(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

/// A name: UTF-8 where it is, else byte by byte, so that no two names become the same one.
pub(super) fn text(name: &[u8]) -> String {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    match std::str::from_utf8(name) {
        Ok(text) => text.to_owned(),
        Err(_) => name.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// A name in UTF-16, little-endian, up to its NUL.
pub(super) fn utf16(name: &[u8]) -> String {
    let units = name.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A name in UTF-16, big-endian.
pub(super) fn utf16_be(name: &[u8]) -> String {
    let units = name.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A number in ASCII digits of this base up to a NUL, blanks around it.
pub(super) fn digits(field: &[u8], base: u32) -> Option<u64> {
    let field: &[u8] = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(field).ok()?.trim();
    if text.is_empty() || text.starts_with('+') { None } else { u64::from_str_radix(text, base).ok() }
}
