// SPDX-License-Identifier: GPL-3.0-or-later
//! Zstandard (RFC 8878): all frames behind each other are one file. A window over the limit is not allocated.

use super::field::{index, le32};
use super::members::{Flaw, Members};
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::io::{self, Read};

/// Opens the one file.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let names = [out.inner_name(&[(".tzst", ".tar"), (".tar.zst", ".tar"), (".zst", "")])];
    let data = skip(data);
    let first = reader(data, out.memory())?;
    let mut frames = Frames { current: Some(first), memory: out.memory() };
    Ok(out.stream(&names, &mut frames)?)
}

/// One frame.
pub(super) fn reader(data: &[u8], memory: u64) -> Result<StreamingDecoder<&[u8], FrameDecoder>, Flaw> {
    StreamingDecoder::new_with_max_window_size(data, memory).map_err(|error| match error {
        FrameDecoderError::WindowSizeTooBig { .. } => Flaw::Memory,
        FrameDecoderError::ReadFrameHeaderError(_) => Flaw::Truncated,
        _ => Flaw::Damaged("zstd"),
    })
}

/// Passes over skippable frames (RFC 8878 section 3.1.2).
fn skip(mut data: &[u8]) -> &[u8] {
    while le32(data, 0).is_some_and(|magic| magic & 0xffff_fff0 == 0x184d_2a50) {
        let length = le32(data, 4).map_or(usize::MAX, |length| index(length).saturating_add(8));
        data = data.get(length..).unwrap_or_default();
    }
    data
}

/// One frame after the other.
struct Frames<'d> {
    current: Option<StreamingDecoder<&'d [u8], FrameDecoder>>,
    memory: u64,
}

impl Read for Frames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.current {
            let read = decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let rest = skip(decoder.get_ref());
            self.current = if rest.starts_with(b"\x28\xb5\x2f\xfd") {
                Some(reader(rest, self.memory).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?)
            } else {
                None
            };
        }
        Ok(0)
    }
}
