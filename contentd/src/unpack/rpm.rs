// SPDX-License-Identifier: GPL-3.0-or-later
//! RPM packages: lead, signature and header are passed over, what follows is a packed cpio archive (RPM package format V4).

use super::field::{be32, index};
use super::members::{Flaw, Members};

const LEAD: usize = 96;
const HEADER: usize = 16;

/// Gives the payload as one member, which is packed and opened like any other.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let signature_end = header_end(data, LEAD)?.next_multiple_of(8);
    let start = header_end(data, signature_end)?;
    let payload = data.get(start..).filter(|payload| !payload.is_empty()).ok_or(Flaw::Truncated)?;
    Ok(out.stored(&["payload.cpio".to_owned()], payload)?)
}

fn header_end(data: &[u8], at: usize) -> Result<usize, Flaw> {
    let magic = be32(data, at).ok_or(Flaw::Truncated)?;
    if magic != 0x8ead_e801 {
        return Err(Flaw::Damaged("header"));
    }
    let entries = index(be32(data, at + 8).ok_or(Flaw::Truncated)?);
    let store = index(be32(data, at + 12).ok_or(Flaw::Truncated)?);
    Ok(at.saturating_add(HEADER).saturating_add(entries.saturating_mul(16)).saturating_add(store))
}
