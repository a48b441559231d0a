// SPDX-License-Identifier: GPL-3.0-or-later
//! The fields that only trusted (internal) hosts can have written, and the others: `ALL-TRUSTED` and its siblings.
//!
//! Each host writes its fields above those that it found. The `Received` field of the last trusted host is in both halves: it can be
//! believed, and it tells of the first host that cannot.

use crate::context::Context;
use crate::relays::Which;

/// The fields of one side, each with its line end.
pub(super) fn fields(context: &Context<'_>, which: Which, raw: bool) -> Vec<Vec<u8>> {
    let relays = context.relays();
    let last = match which {
        Which::Trusted | Which::Untrusted => relays.last_trusted,
        Which::Internal | Which::External => relays.last_internal,
    };
    let border = last + 1;
    let upper = matches!(which, Which::Trusted | Which::Internal);
    let mut received: isize = -1;
    let mut out = Vec::new();
    for field in lines(context, raw) {
        if field.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"Received:")) {
            received += 1;
        }
        if upper && received >= border {
            if received == border {
                out.push(field);
            }
            break;
        }
        if upper || received >= border {
            out.push(field);
        }
    }
    out
}

fn lines(context: &Context<'_>, raw: bool) -> Vec<Vec<u8>> {
    if raw {
        return raw_fields(context.message.raw_header());
    }
    let (text, _) = context.message.headers().text(false);
    text.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
}

/// The fields as written, with their folding; lines of folding before the first field are left out.
pub(super) fn raw_fields(header: &[u8]) -> Vec<Vec<u8>> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in header.split_inclusive(|b| *b == b'\n') {
        match line.first() {
            Some(b' ' | b'\t') => {
                if let Some(field) = fields.last_mut() {
                    field.extend_from_slice(line);
                }
            }
            Some(b'\n') | None => {}
            Some(_) => fields.push(line.to_vec()),
        }
    }
    fields
}
