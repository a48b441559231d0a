// SPDX-License-Identifier: GPL-3.0-or-later
//! gzip (RFC 1952): all members behind each other are one file, as gzip itself reads them.

use super::field::text;
use super::members::{Flaw, Members};
use flate2::bufread::GzDecoder;
use std::io::{self, Read};

/// A name longer than this may be something else.
const NAME: usize = 255;

/// Opens the one file, under the name in the header or that of the archive.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let first = GzDecoder::new(data);
    let name = first.header().and_then(|header| header.filename());
    let written = name.map_or(0, <[u8]>::len);
    let name = name.map(text).unwrap_or_default();
    let names =
        [name, out.inner_name(&[(".tgz", ".tar"), (".tar.gz", ".tar"), (".gz", ""), (".z", ""), (".svgz", ".svg")])];
    let mut reader = Concatenated { current: Some(first), trailing: &[], count: 1 };
    out.stream(&names, &mut reader)?;
    let trailing = reader.trailing;
    // tar pads with zeros, which mean nothing.
    if trailing.iter().any(|byte| *byte != 0) {
        out.aside("trailing data", &mut &*trailing)?;
    }
    // One member, in whose header is a name at most, and nothing behind it: programs cannot differ, and nothing else is in it.
    let named_at_most = data.get(3).is_some_and(|flags| flags & !8 == 0) && written <= NAME;
    if reader.current.is_none() && reader.count == 1 && trailing.is_empty() && named_at_most {
        out.whole();
    }
    Ok(())
}

/// One member after the other.
struct Concatenated<'d> {
    current: Option<GzDecoder<&'d [u8]>>,
    /// What is behind the last member.
    trailing: &'d [u8],
    /// Members so far.
    count: usize,
}

impl Read for Concatenated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.current {
            let read = decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let rest = *decoder.get_ref();
            if rest.starts_with(b"\x1f\x8b") {
                self.current = Some(GzDecoder::new(rest));
                self.count += 1;
            } else {
                self.current = None;
                self.trailing = rest;
            }
        }
        Ok(0)
    }
}
