// SPDX-License-Identifier: GPL-3.0-or-later
//! ARJ (technical note of ARJ 2.x): headers with their own checksum. Methods 1 to 3 are the code of LHA's -lh7- with a
//! smaller window, which `delharc` decodes; method 4 is here.

use super::field::{index, le16, le32, slice, text};
use super::lha::Lzh;
use super::members::{Flaw, Members};
use delharc::decode::Lh7Decoder;
use std::io::{self, Read};

/// Longest header that ARJ writes.
const LONGEST: usize = 2600;

/// Whether a header with a true checksum begins here.
pub(super) fn is_header(data: &[u8]) -> bool {
    data.starts_with(b"\x60\xea") && header(data).is_some_and(|(header, _)| header.len() >= 30)
}

/// A header without its extensions, and where it ends with them.
fn header(data: &[u8]) -> Option<(&[u8], usize)> {
    if slice(data, 0, 2)? != b"\x60\xea" {
        return None;
    }
    let length = usize::from(le16(data, 2)?);
    if length == 0 || length > LONGEST {
        return None;
    }
    let header = slice(data, 4, length)?;
    let mut sum = flate2::Crc::new();
    sum.update(header);
    if sum.sum() != le32(data, 4 + length)? {
        return None;
    }
    let mut end = 8 + length;
    while let extension @ 1.. = usize::from(le16(data, end)?) {
        end = end.checked_add(extension + 6)?;
    }
    Some((header, end + 2))
}

/// Opens all members.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let (_, mut at) = header(data).ok_or(Flaw::Damaged("header"))?;
    loop {
        let rest = data.get(at..).ok_or(Flaw::Truncated)?;
        if rest.starts_with(b"\x60\xea\0\0") {
            return Ok(());
        }
        let (header, end) =
            header(rest).ok_or(if rest.len() < 4 { Flaw::Truncated } else { Flaw::Damaged("header") })?;
        let first = usize::from(header[0]);
        let (Some(packed), Some(size)) = (le32(header, 12), le32(header, 16)) else {
            return Err(Flaw::Damaged("header"));
        };
        let (flags, method, kind) = (header[4], header[5], header[6]);
        let name = text(header.get(first..).unwrap_or_default());
        let content = &rest[end..end.saturating_add(index(packed)).min(rest.len())];
        at = at.saturating_add(end).saturating_add(index(packed));
        if kind <= 1 {
            let names = [name];
            if flags & 1 != 0 {
                out.closed(&names, &Flaw::Encrypted)?;
            } else if flags & 4 != 0 {
                member(method, content, size, &names, out)?;
                out.flaw(&Flaw::MultiVolume);
            } else {
                member(method, content, size, &names, out)?;
            }
        }
        if at > data.len() {
            return Err(Flaw::Truncated);
        }
    }
}

fn member(method: u8, content: &[u8], size: u32, names: &[String], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    match method {
        0 => out.stored(names, content)?,
        1..=3 => out.stream(names, &mut Lzh { decoder: Lh7Decoder::new(content), left: u64::from(size) })?,
        4 => out.stream(names, &mut Fastest::new(content, index(size)))?,
        method => out.closed(names, &Flaw::Unsupported(format!("arj method {method}")))?,
    }
    Ok(())
}

/// Method 4: lengths and distances in a unary prefix code, most significant bit first.
struct Fastest<'d> {
    data: &'d [u8],
    /// Place of the next bit.
    at: usize,
    size: usize,
    window: Vec<u8>,
    given: usize,
}

impl<'d> Fastest<'d> {
    fn new(data: &'d [u8], size: usize) -> Fastest<'d> {
        Fastest { data, at: 0, size, window: Vec::new(), given: 0 }
    }

    fn bits(&mut self, count: usize) -> io::Result<usize> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.data.get(self.at / 8).ok_or(io::ErrorKind::UnexpectedEof)?;
            value = value << 1 | usize::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    /// A number in classes of doubling size: as many ones as the class, a zero unless it is the last, then the rest.
    fn number(&mut self, first: usize, last: usize) -> io::Result<usize> {
        let (mut width, mut base) = (first, 0);
        while width < last && self.bits(1)? == 1 {
            base += 1 << width;
            width += 1;
        }
        Ok(base + self.bits(width)?)
    }

    fn step(&mut self) -> io::Result<()> {
        let length = self.number(0, 7)?;
        if length == 0 {
            let byte = self.bits(8)? as u8;
            self.window.push(byte);
            return Ok(());
        }
        let distance = self.number(9, 13)? + 1;
        let from = self.window.len().checked_sub(distance).ok_or(io::ErrorKind::InvalidData)?;
        for place in from..from + length + 2 {
            self.window.push(self.window[place]);
        }
        Ok(())
    }
}

impl Read for Fastest<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.window.len() && self.given < self.size {
            self.step()?;
            // Only the last 16 KiB can be referred to.
            if self.window.len() > 1 << 20 && self.given == self.window.len() {
                let cut = self.window.len() - (1 << 15);
                self.window.drain(..cut);
                self.given -= cut;
                self.size -= cut;
            }
        }
        let end = self.window.len().min(self.size);
        let read = (&self.window[self.given.min(end)..end]).read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_end(data: Vec<u8>, size in 0usize..100_000) {
            let _ = io::copy(&mut Fastest::new(&data, size), &mut io::sink());
            is_header(&data);
        }
    }
}
