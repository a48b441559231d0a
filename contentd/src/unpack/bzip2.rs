// SPDX-License-Identifier: GPL-3.0-or-later
//! bzip2: all streams behind each other are one file.

use super::members::{Flaw, Members};
use ::bzip2::bufread::BzDecoder;
use std::io::{self, Read};

/// Opens the one file.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let names = [out.inner_name(&[(".tbz2", ".tar"), (".tbz", ".tar"), (".tar.bz2", ".tar"), (".bz2", "")])];
    let mut reader = Concatenated { current: Some(BzDecoder::new(data)), trailing: &[] };
    out.stream(&names, &mut reader)?;
    let trailing = reader.trailing;
    if trailing.iter().any(|byte| *byte != 0) {
        out.aside("trailing data", &mut &*trailing)?;
    }
    Ok(())
}

/// One stream after the other.
struct Concatenated<'d> {
    current: Option<BzDecoder<&'d [u8]>>,
    trailing: &'d [u8],
}

impl Read for Concatenated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.current {
            let read = decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let rest = *decoder.get_ref();
            if rest.starts_with(b"BZh") {
                self.current = Some(BzDecoder::new(rest));
            } else {
                self.current = None;
                self.trailing = rest;
            }
        }
        Ok(0)
    }
}
