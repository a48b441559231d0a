// SPDX-License-Identifier: GPL-3.0-or-later
//! LHA and LZH. The headers and the decoders are those of `delharc`; where one header is broken, the next is looked for.

use super::members::{Flaw, Members};
use delharc::decode::{Decoder, DecoderAny, Lh7Decoder};
use std::io::{self, Read};

/// Opens all members.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let mut rest = data;
    // The end is a header of length nought.
    while rest.first().is_some_and(|length| *length != 0) {
        out.clock()?;
        let mut source = rest;
        let Some(header) = delharc::LhaHeader::read(&mut source).map_err(|_| Flaw::Damaged("header"))? else {
            return Ok(());
        };
        let packed = usize::try_from(header.compressed_size).unwrap_or(usize::MAX);
        let content = &source[..packed.min(source.len())];
        let names = [header.parse_pathname_to_str().replace('\\', "/")];
        if !header.is_directory() {
            let decoder =
                header.compression_method().ok().map(|method| DecoderAny::new_from_compression(method, content));
            if let Some(decoder) = decoder.filter(DecoderAny::is_supported) {
                out.stream(&names, &mut Lzh { decoder, left: header.original_size })?;
            } else {
                let method = String::from_utf8_lossy(&header.compression).into_owned();
                out.closed(&names, &Flaw::Unsupported(format!("lha method {method}")))?;
            }
        }
        if packed > source.len() {
            return Err(Flaw::Truncated);
        }
        rest = &source[packed..];
    }
    Ok(())
}

/// Data without an end of its own, up to the size that the header names.
pub(super) struct Lzh<D> {
    pub(super) decoder: D,
    pub(super) left: u64,
}

/// How much is decoded at once: what an error spoils is not more than this.
const STEP: usize = 512;

impl<D> Lzh<D> {
    fn fill<R>(&mut self, buffer: &mut [u8]) -> io::Result<usize>
    where
        D: Decoder<R>,
    {
        let wanted = buffer.len().min(STEP).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted > 0 {
            self.decoder.fill_buffer(&mut buffer[..wanted]).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            self.left -= wanted as u64;
        }
        Ok(wanted)
    }
}

impl Read for Lzh<DecoderAny<&[u8]>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(buffer)
    }
}

impl Read for Lzh<Lh7Decoder<&[u8]>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(buffer)
    }
}
