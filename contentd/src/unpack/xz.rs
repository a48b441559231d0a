// SPDX-License-Identifier: GPL-3.0-or-later
//! xz, the older .lzma, and lzip. The dictionary that a header asks for is checked before it is allocated.

use super::members::{Flaw, Members};
use lzma_rust2::{LzipReader, LzmaReader, XzReader};

fn kib(out: &Members<'_, '_>) -> u32 {
    u32::try_from(out.memory() / 1024).unwrap_or(u32::MAX)
}

/// Opens the one file of an .xz, all streams of it.
pub(super) fn unpack_xz(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let names = [out.inner_name(&[(".txz", ".tar"), (".tar.xz", ".tar"), (".xz", "")])];
    let mut reader = XzReader::new_mem_limit(data, true, kib(out));
    Ok(out.stream(&names, &mut reader)?)
}

/// Opens the one file of an .lzma.
pub(super) fn unpack_lzma(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let names = [out.inner_name(&[(".tlz", ".tar"), (".lzma", "")])];
    let mut reader = LzmaReader::new_mem_limit(data, kib(out), None)?;
    Ok(out.stream(&names, &mut reader)?)
}

/// Opens the one file of an .lz. The dictionary has at most 512 MiB and its size is in the sixth byte.
pub(super) fn unpack_lzip(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let names = [out.inner_name(&[(".tlz", ".tar"), (".lz", "")])];
    let power = data.get(5).map_or(0, |byte| byte & 31);
    if 1u64 << power > out.memory() {
        return Err(Flaw::Memory);
    }
    Ok(out.stream(&names, &mut LzipReader::new(data))?)
}
