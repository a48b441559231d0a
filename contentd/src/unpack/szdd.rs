// SPDX-License-Identifier: GPL-3.0-or-later
//! Files of MS-DOS COMPRESS.EXE, read by EXPAND.EXE: LZSS with a window of 4 KiB.

use super::members::{Flaw, Members};
use std::io::{self, Read};

/// Opens the one file. The last letter of its name may be in the header.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    // The QBasic form has a shorter header and begins to write elsewhere.
    let (start, place) = if data.starts_with(b"SZDD") { (14, 4096 - 16) } else { (12, 4096 - 18) };
    let packed = data.get(start..).ok_or(Flaw::Truncated)?;
    let name = out.inner_name(&[("_", ""), (".szdd", "")]);
    let last = data.get(9).filter(|letter| letter.is_ascii_alphanumeric() && start == 14 && name.ends_with('.'));
    let name = last.map_or_else(|| name.clone(), |letter| format!("{name}{}", char::from(*letter)));
    let mut reader = Lzss { data: packed, window: Box::new([b' '; 4096]), place, flags: 0, copy: (0, 0) };
    Ok(out.stream(&[name], &mut reader)?)
}

struct Lzss<'d> {
    data: &'d [u8],
    window: Box<[u8; 4096]>,
    place: usize,
    /// Control bits still to come, above them a bit that marks the end.
    flags: u16,
    /// From where so many bytes are to be copied.
    copy: (usize, usize),
}

impl Lzss<'_> {
    fn next(&mut self) -> Option<u8> {
        if self.copy.1 == 0 {
            if self.flags <= 1 {
                self.flags = 0x100 | u16::from(self.take()?);
            }
            let literal = self.flags & 1 == 1;
            self.flags >>= 1;
            if literal {
                let byte = self.take()?;
                return Some(self.put(byte));
            }
            let (low, high) = (usize::from(self.take()?), usize::from(self.take()?));
            self.copy = (low | (high & 0xf0) << 4, (high & 15) + 3);
        }
        let byte = self.window[self.copy.0 % 4096];
        self.copy = (self.copy.0 + 1, self.copy.1 - 1);
        Some(self.put(byte))
    }

    fn take(&mut self) -> Option<u8> {
        let (&byte, rest) = self.data.split_first()?;
        self.data = rest;
        Some(byte)
    }

    fn put(&mut self, byte: u8) -> u8 {
        self.window[self.place % 4096] = byte;
        self.place += 1;
        byte
    }
}

impl Read for Lzss<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for (count, place) in buffer.iter_mut().enumerate() {
            match self.next() {
                Some(byte) => *place = byte,
                None => return Ok(count),
            }
        }
        Ok(buffer.len())
    }
}
