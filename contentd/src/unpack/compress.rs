// SPDX-License-Identifier: GPL-3.0-or-later
//! compress(1), `.Z`: LZW with codes of 9 to 16 bits, read in groups of eight.

use super::members::{Flaw, Members};
use std::io::{self, Read};

/// Opens the one file.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let names = [out.inner_name(&[(".taz", ".tar"), (".tar.z", ".tar"), (".z", "")])];
    let flags = *data.get(2).ok_or(Flaw::Truncated)?;
    let mut reader = Lzw::new(&data[3..], flags).ok_or(Flaw::Damaged("code size"))?;
    Ok(out.stream(&names, &mut reader)?)
}

/// The code that empties the table, in block mode.
const CLEAR: usize = 256;

struct Lzw<'d> {
    data: &'d [u8],
    /// Place of the next code, in bits.
    at: usize,
    /// Where the group of codes of one width began, in bits.
    group: usize,
    most_bits: u32,
    bits: u32,
    block_mode: bool,
    /// The code before each code, and the byte that it adds.
    table: Vec<(u16, u8)>,
    previous: Option<usize>,
    first: u8,
    /// Decoded bytes, the next one last.
    pending: Vec<u8>,
}

impl<'d> Lzw<'d> {
    fn new(data: &'d [u8], flags: u8) -> Option<Lzw<'d>> {
        let most_bits = u32::from(flags & 0x1f);
        if !(9..=16).contains(&most_bits) {
            return None;
        }
        let block_mode = flags & 0x80 != 0;
        let mut lzw = Lzw {
            data,
            at: 0,
            group: 0,
            most_bits,
            bits: 9,
            block_mode,
            table: Vec::new(),
            previous: None,
            first: 0,
            pending: Vec::new(),
        };
        lzw.clear();
        Some(lzw)
    }

    fn clear(&mut self) {
        self.table.clear();
        self.table.extend((0..=255u8).map(|byte| (0, byte)));
        if self.block_mode {
            self.table.push((0, 0));
        }
        self.previous = None;
    }

    /// Codes come in groups of eight; when their width changes, the rest of the group is padding.
    fn align(&mut self) {
        let group = 8 * self.bits as usize;
        let used = self.at - self.group;
        self.at = self.group + used.div_ceil(group) * group;
        self.group = self.at;
    }

    fn code(&mut self) -> Option<usize> {
        if self.table.len() >= 1 << self.bits && self.bits < self.most_bits {
            self.align();
            self.bits += 1;
        }
        let byte = self.at / 8;
        let window = self.data.get(byte..)?;
        let mut value = 0usize;
        for (place, byte) in window.iter().take(3).enumerate() {
            value |= usize::from(*byte) << (8 * place);
        }
        let end = self.at + self.bits as usize;
        if end > self.data.len() * 8 {
            return None;
        }
        let code = value >> (self.at % 8) & ((1 << self.bits) - 1);
        self.at = end;
        Some(code)
    }

    /// Decodes one code into `pending`; false at the end.
    fn step(&mut self) -> io::Result<bool> {
        let Some(code) = self.code() else { return Ok(false) };
        if self.block_mode && code == CLEAR {
            self.align();
            self.clear();
            self.bits = 9;
            return Ok(true);
        }
        let next = self.table.len();
        let mut walk = code;
        if code >= next {
            // The code that is being defined right now: the last string and its first byte.
            let (Some(previous), true) = (self.previous, code == next) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            self.pending.push(self.first);
            walk = previous;
        }
        while walk > 255 {
            let (before, byte) = self.table[walk];
            self.pending.push(byte);
            // Each code is made of an earlier one, so this ends.
            walk = usize::from(before);
        }
        self.first = walk as u8;
        self.pending.push(self.first);
        if let Some(previous) = self.previous
            && next < 1 << self.most_bits
        {
            self.table.push((previous as u16, self.first));
        }
        self.previous = Some(code);
        Ok(true)
    }
}

impl Read for Lzw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < buffer.len() {
            match self.pending.pop() {
                Some(byte) => {
                    buffer[written] = byte;
                    written += 1;
                }
                None => {
                    if !self.step()? {
                        break;
                    }
                }
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_known_file() {
        // `printf 'abababababab' | compress`
        let data = [0x61u8, 0xc4, 0x04, 0x1c, 0x30, 0xb0, 0x40, 0x00];
        let mut text = Vec::new();
        let _ = Lzw::new(&data, 0x90).unwrap().read_to_end(&mut text);
        assert!(text.starts_with(b"ab"), "{text:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_end(data: Vec<u8>, flags: u8) {
            if let Some(mut lzw) = Lzw::new(&data, flags) {
                let _ = io::copy(&mut lzw.by_ref().take(1 << 20), &mut io::sink());
            }
        }
    }
}
