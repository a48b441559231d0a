// SPDX-License-Identifier: GPL-3.0-or-later
//! winmail.dat (MS-OXTNEF): attachments with their long names, the body as text, RTF or HTML, messages within it.
//!
//! Checksums are not asked: Outlook does not ask them either.

use super::field::{index, le16, le32, slice, text, utf16};
use super::members::{Flaw, Members};

/// Attributes, by their 16-bit id.
const BODY: u16 = 0x800c;
const ATTACH_DATA: u16 = 0x800f;
const ATTACH_TITLE: u16 = 0x8010;
const ATTACH_RENDERING: u16 = 0x9002;
const MESSAGE_PROPERTIES: u16 = 0x9003;
const ATTACH_PROPERTIES: u16 = 0x9005;

/// MAPI properties.
const DATA_OBJECT: u16 = 0x3701;
const FILE_NAME: u16 = 0x3704;
const LONG_FILE_NAME: u16 = 0x3707;
const DISPLAY_NAME: u16 = 0x3001;
const RTF: u16 = 0x1009;
const HTML: u16 = 0x1013;

/// One attachment, gathered from several attributes.
#[derive(Default)]
struct Attachment<'d> {
    names: Vec<String>,
    data: Vec<&'d [u8]>,
}

impl Attachment<'_> {
    fn name(&mut self, name: String) {
        if !name.is_empty() && !self.names.contains(&name) {
            self.names.insert(0, name);
        }
    }

    fn give(self, out: &mut Members<'_, '_>) -> Result<(), Flaw> {
        for data in self.data {
            out.stored(&self.names, data)?;
        }
        Ok(())
    }
}

/// Opens all attachments and bodies.
pub(super) fn unpack(data: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let mut at = 6;
    let mut attachment = Attachment::default();
    while at < data.len() {
        out.clock()?;
        let (Some(id), Some(length)) = (le16(data, at + 1), le32(data, at + 5)) else { break };
        let value = slice(data, at + 9, index(length));
        // What is cut off still counts as far as it goes.
        let cut = value.is_none();
        let value = value.unwrap_or_else(|| data.get(at + 9..).unwrap_or_default());
        attribute(id, value, &mut attachment, out)?;
        if cut {
            attachment.give(out)?;
            return Err(Flaw::Truncated);
        }
        at = at.saturating_add(11).saturating_add(index(length));
    }
    attachment.give(out)
}

fn attribute<'d>(
    id: u16,
    value: &'d [u8],
    attachment: &mut Attachment<'d>,
    out: &mut Members<'_, '_>,
) -> Result<(), Flaw> {
    match id {
        // A new attachment begins.
        ATTACH_RENDERING => std::mem::take(attachment).give(out)?,
        ATTACH_TITLE => attachment.name(text(value)),
        ATTACH_DATA => attachment.data.push(value),
        BODY => out.stored(&["body.txt".to_owned()], value)?,
        MESSAGE_PROPERTIES => {
            for (id, value) in properties(value) {
                match id {
                    RTF => rtf(value, out)?,
                    HTML => out.stored(&["body.html".to_owned()], value)?,
                    _ => {}
                }
            }
        }
        ATTACH_PROPERTIES => {
            for (id, value) in properties(value) {
                match id {
                    LONG_FILE_NAME | FILE_NAME | DISPLAY_NAME => {
                        // Unicode names have a NUL in every second byte, as far as they are Latin.
                        let wide = value.get(1) == Some(&0);
                        attachment.name(if wide { utf16(value) } else { text(value) });
                    }
                    // An object begins with the 16 bytes of its interface.
                    DATA_OBJECT => attachment.data.push(value.get(16..).unwrap_or(value)),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Compressed RTF (MS-OXRTFCP).
fn rtf(value: &[u8], out: &mut Members<'_, '_>) -> Result<(), Flaw> {
    let names = ["body.rtf".to_owned()];
    match super::rtf::decompress(value, out.one_too_many()) {
        Some(bytes) => out.stored(&names, &bytes)?,
        None => out.closed(&names, &Flaw::Damaged("rtf"))?,
    }
    Ok(())
}

/// The properties of a list (MS-OXTNEF 2.1.3.4): id and value, variable values one by one.
fn properties(list: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    let mut at = 4;
    for _ in 0..le32(list, 0).unwrap_or_default() {
        if property(list, &mut at, &mut found).is_none() {
            break;
        }
    }
    found
}

fn property<'d>(list: &'d [u8], at: &mut usize, found: &mut Vec<(u16, &'d [u8])>) -> Option<()> {
    let (kind, id) = (le16(list, *at)?, le16(list, *at + 2)?);
    *at += 4;
    // Named properties carry a class and a number or a name.
    if id >= 0x8000 {
        let by_name = le32(list, *at + 16)? == 1;
        *at += 20;
        let extra = if by_name { index(le32(list, *at)?).checked_next_multiple_of(4)?.checked_add(4)? } else { 4 };
        *at = at.checked_add(extra)?;
    }
    let many = kind & 0x1000 != 0;
    let fixed = match kind & 0xfff {
        2 | 3 | 4 | 10 | 11 => Some(4),
        5 | 6 | 7 | 20 | 64 => Some(8),
        72 => Some(16),
        13 | 30 | 31 | 258 => None,
        _ => return None,
    };
    let count = if many || fixed.is_none() { le32(list, *at).inspect(|_| *at += 4)? } else { 1 };
    for _ in 0..count {
        let length = match fixed {
            Some(length) => length,
            None => {
                let length = index(le32(list, *at)?);
                *at += 4;
                length
            }
        };
        let value = slice(list, *at, length).or_else(|| list.get(*at..))?;
        found.push((id, value));
        *at = at.checked_add(length.checked_next_multiple_of(4)?)?;
        if *at > list.len() {
            return None;
        }
    }
    Some(())
}
