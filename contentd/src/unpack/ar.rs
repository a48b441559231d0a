// SPDX-License-Identifier: GPL-3.0-or-later
//! ar, and with it Debian packages (ar(5), deb(5)): the names of GNU and of BSD.

use super::field::{digits, index, slice, text};
use super::members::{Flaw, Members};

const HEADER: usize = 60;

/// Opens all members.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let mut at = 8;
    let mut long_names: &[u8] = &[];
    while at < data.len() {
        let header = slice(data, at, HEADER).ok_or(Flaw::Truncated)?;
        if &header[58..60] != b"`\n" {
            return Err(Flaw::Damaged("header"));
        }
        let size = index(digits(&header[48..58], 10).ok_or(Flaw::Damaged("size"))?);
        let start = at + HEADER;
        let mut content = &data[start..start.saturating_add(size).min(data.len())];
        let whole = content.len() == size;
        let field = text(&header[..16]);
        let field = field.trim_end();
        let name = match field {
            "/" | "/SYM64/" | "__.SYMDEF" => None,
            "//" => {
                long_names = content;
                None
            }
            field if field.starts_with("#1/") => {
                let length = field[3..].parse().unwrap_or(0).min(content.len());
                let name = text(&content[..length]);
                content = &content[length..];
                Some(name)
            }
            field => Some(long_name(field, long_names).unwrap_or_else(|| field.trim_end_matches('/').to_owned())),
        };
        if let Some(name) = name {
            out.stored(&[name], content)?;
        }
        if !whole {
            return Err(Flaw::Truncated);
        }
        at = start.saturating_add(size.next_multiple_of(2));
    }
    Ok(())
}

/// `/123` points into the member `//`, where names end with a slash and a line end.
fn long_name(field: &str, names: &[u8]) -> Option<String> {
    let at: usize = field.strip_prefix('/')?.parse().ok()?;
    let name = names.get(at..)?.split(|byte| *byte == b'\n').next()?;
    Some(text(name.strip_suffix(b"/").unwrap_or(name)))
}
