// SPDX-License-Identifier: GPL-3.0-or-later
//! LZ4 frames, the old form of the Linux kernel included. Blocks have at most 4 MiB (8 MiB in the old form).

use super::members::{Flaw, Members};
use lz4_flex::frame::FrameDecoder;

/// Opens the one file.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let names = [out.inner_name(&[(".tar.lz4", ".tar"), (".lz4", "")])];
    Ok(out.stream(&names, &mut FrameDecoder::new(data))?)
}
