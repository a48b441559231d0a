// SPDX-License-Identifier: GPL-3.0-or-later
//! LZX, block by block, for cabinets and HTML help (MS-PATCH, LZX DELTA without the delta). The decoder is the crate `lzxd`,
//! which stops with a panic where data contradicts itself; here that is an error. The addresses of calls (E8) are put right
//! here, because lzxd takes those of zero for negative ones.

use super::members::Flaw;
use lzxd::{Lzxd, WindowSize};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A stream of blocks.
pub(super) struct Lzx {
    /// None after an error.
    decoder: Option<Lzxd>,
    /// The size that addresses of calls are taken against; known after the first block, 0 for none.
    calls: Option<i32>,
    /// Decoded bytes so far.
    done: i32,
}

impl Lzx {
    /// With a window of so many bits, 15 to 21.
    pub(super) fn new(bits: u32) -> Result<Lzx, Flaw> {
        let window = match bits {
            15 => WindowSize::KB32,
            16 => WindowSize::KB64,
            17 => WindowSize::KB128,
            18 => WindowSize::KB256,
            19 => WindowSize::KB512,
            20 => WindowSize::MB1,
            21 => WindowSize::MB2,
            _ => return Err(Flaw::Damaged("window")),
        };
        Ok(Lzx { decoder: Some(Lzxd::new(window)), calls: None, done: 0 })
    }

    /// Decodes one block of known size.
    pub(super) fn block(&mut self, data: &[u8], size: usize) -> Result<Vec<u8>, Flaw> {
        let mut plain = None;
        let calls = *self.calls.get_or_insert_with(|| {
            let (size, rest) = without_calls(data).unwrap_or_default();
            plain = rest;
            size
        });
        let data = plain.as_deref().unwrap_or(data);
        let mut decoder = self.decoder.take().ok_or(Flaw::Damaged("lzx"))?;
        let decoded = catch_unwind(AssertUnwindSafe(|| decoder.decompress_next(data, size).map(<[u8]>::to_vec)));
        let Ok(Ok(mut bytes)) = decoded else { return Err(Flaw::Damaged("lzx")) };
        self.decoder = Some(decoder);
        if calls != 0 && self.done < 0x4000_0000 {
            put_calls_right(&mut bytes, self.done, calls);
        }
        self.done = self.done.saturating_add(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        Ok(bytes)
    }
}

/// The first bit of a stream says whether 32 bits with the size for calls follow. Without them, and with that bit at nought,
/// it is a stream without calls: two words shorter.
fn without_calls(data: &[u8]) -> Option<(i32, Option<Vec<u8>>)> {
    let words: Vec<u32> = (0..3).map_while(|word| super::field::le16(data, 2 * word).map(u32::from)).collect();
    let [first, second, third] = words[..] else { return None };
    if first >> 15 == 0 {
        return Some((0, None));
    }
    let size = first << 17 | second << 1 | third >> 15;
    let mut rest = data[4..].to_vec();
    rest[1] &= 0x7f;
    Some((size.cast_signed(), Some(rest)))
}

/// Turns the absolute addresses of calls back into relative ones.
fn put_calls_right(bytes: &mut [u8], done: i32, size: i32) {
    let mut at = 0;
    while at + 10 < bytes.len() {
        if bytes[at] != 0xe8 {
            at += 1;
            continue;
        }
        let place = done.saturating_add(i32::try_from(at).unwrap_or(i32::MAX));
        let field = &mut bytes[at + 1..at + 5];
        let absolute = i32::from_le_bytes([field[0], field[1], field[2], field[3]]);
        if absolute >= -place && absolute < size {
            let relative = if absolute >= 0 { absolute - place } else { absolute.wrapping_add(size) };
            field.copy_from_slice(&relative.to_le_bytes());
        }
        at += 5;
    }
}
