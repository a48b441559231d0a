// SPDX-License-Identifier: GPL-3.0-or-later
//! Installers of the Nullsoft system. Their files are given without names: those stand in a compiled script that every version
//! encodes in its own way, and are not needed to look at the files.

use super::field::{index, le32, slice};
use super::members::{Flaw, Members};
use std::io::{self, Read};

/// Length of the first header.
const HEADER: usize = 28;
/// Marks a block as packed.
const PACKED: u32 = 0x8000_0000;

/// Opens every block.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let length = index(le32(data, 24).ok_or(Flaw::Truncated)?);
    let body = &data[HEADER.min(data.len())..length.min(data.len()).max(HEADER.min(data.len()))];
    let first = le32(body, 0).ok_or(Flaw::Truncated)?;
    // Either each block is packed by itself, or all of them as one.
    if first & PACKED != 0 && index(first & !PACKED) < body.len() {
        return each_by_itself(body, out);
    }
    let header = index(le32(data, 20).ok_or(Flaw::Truncated)?);
    if index(first) == header {
        return each_by_itself(body, out);
    }
    solid(body, out)
}

fn each_by_itself(body: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let (mut at, mut number) = (0, 0);
    while let Some(length) = le32(body, at) {
        let size = index(length & !PACKED);
        let Some(block) = slice(body, at + 4, size) else { break };
        if size == 0 {
            break;
        }
        let names = [name(number)];
        if length & PACKED != 0 {
            out.stream(&names, &mut decoder(block, out.memory())?)?;
        } else {
            out.stored(&names, block)?;
        }
        at += 4 + size;
        number += 1;
    }
    // Behind the last block there is a checksum of four bytes.
    if number == 0 { Err(Flaw::Damaged("block")) } else { Ok(()) }
}

/// Blocks within one packed stream, each behind its length.
fn solid(body: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let mut stream = decoder(body, out.memory())?;
    for number in 0.. {
        let mut length = [0; 4];
        match stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(_) if number > 0 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let size = u64::from(u32::from_le_bytes(length) & !PACKED);
        let mut block = (&mut stream).take(size);
        out.stream(&[name(number)], &mut block)?;
        // What one member may not have is passed over.
        io::copy(&mut Clocked { inner: block, out }, &mut io::sink())?;
    }
    Ok(())
}

/// The first block is the script.
fn name(number: usize) -> String {
    if number == 0 { "script.bin".to_owned() } else { format!("file{number}") }
}

/// LZMA begins with its properties, bzip2 with a level that NSIS leaves out, everything else is deflate.
fn decoder<'d>(block: &'d [u8], memory: u64) -> Result<Box<dyn Read + 'd>, Flaw> {
    // A filter for the code of programs may stand before LZMA.
    let lzma = match *block {
        [0x5d, 0, 0, ..] => Some(block),
        [0 | 1, 0x5d, 0, 0, ..] => Some(&block[1..]),
        _ => None,
    };
    if let Some(lzma) = lzma {
        let dictionary = le32(lzma, 1).ok_or(Flaw::Truncated)?;
        let needed = lzma_rust2::lzma_get_memory_usage_by_props(dictionary, lzma[0]).map_err(Flaw::from)?;
        if u64::from(needed) * 1024 > memory {
            return Err(Flaw::Memory);
        }
        let reader = lzma_rust2::LzmaReader::new_with_props(&lzma[5..], u64::MAX, lzma[0], dictionary, None)?;
        return Ok(Box::new(reader));
    }
    if block.first() == Some(&b'1') && block.get(1).is_some_and(|level| *level < 14) {
        return Err(Flaw::Unsupported("nsis bzip2".to_owned()));
    }
    Ok(Box::new(flate2::read::DeflateDecoder::new(block)))
}

/// Reads on while there is time.
struct Clocked<'o, 'w, 'b, R> {
    inner: R,
    out: &'o Members<'w, 'b>,
}

impl<R: Read> Read for Clocked<'_, '_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.out.clock().map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        self.inner.read(buffer)
    }
}
