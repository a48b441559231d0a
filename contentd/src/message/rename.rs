// SPDX-License-Identifier: GPL-3.0-or-later
//! Gives an attachment another name, by fields of ours in the place of its Content-Type and Content-Disposition (RFC 2183, 2231).
//!
//! Only where those fields stand in the message as they are: what is within an archive or came out of a decoder cannot be renamed, and
//! counts as banned then. A signature over the body breaks.

use super::Limits;
use super::edit::Change;
use super::header;
use super::parts::Head;
use crate::checks::Outcome;
use crate::findings::Banned;
use std::fmt::Write;

/// An attachment that is to get another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The rule, the part and its present name.
    pub banned: Banned,
    /// The new name.
    pub to: String,
}

/// Plans the changes, one per attachment, with a note. What cannot be renamed comes back.
pub fn apply(renamed: &[Renamed], message: &[u8], heads: &[Head], outcome: &mut Outcome) -> Vec<Banned> {
    let mut left = Vec::new();
    let mut done: Vec<&str> = Vec::new();
    for Renamed { banned, to } in renamed {
        let path = banned.part.split(':').next().unwrap_or_default();
        if done.contains(&path) {
            continue;
        }
        let head = heads.iter().find(|head| head.path == path);
        match head.map(|head| changes(message, head, to)).filter(|changes| !changes.is_empty()) {
            Some(changes) => {
                done.push(path);
                outcome.changes.extend(changes);
                outcome.note("renamed", &banned.rule, &banned.matched);
            }
            None => left.push(banned.clone()),
        }
    }
    left
}

/// Our fields in the place of the first of theirs; the others go.
fn changes(message: &[u8], head: &Head, name: &str) -> Vec<Change> {
    let bytes = &message[head.range.clone()];
    let everything = Limits { header_bytes: usize::MAX, header_fields: usize::MAX, ..Limits::default() };
    let section = header::read(bytes, &everything);
    let naming = ["content-type", "content-disposition"];
    let theirs = section.fields.iter().filter(|field| naming.iter().any(|name| field.is(bytes, name)));
    let mut changes: Vec<Change> = theirs
        .map(|field| Change::new(head.range.start + field.whole.start..head.range.start + field.whole.end, ""))
        .collect();
    if let Some(first) = changes.first_mut() {
        first.text = fields(name).into_bytes();
    }
    changes
}

/// Both fields with this name, in ASCII and, where it is not, as RFC 2231 has it.
fn fields(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '_' };
    let ascii: String = name.chars().map(safe).take(200).collect();
    let mut disposition = format!("Content-Disposition: attachment; filename=\"{ascii}\"");
    if !name.is_ascii() {
        disposition.push_str(";\r\n\tfilename*=utf-8''");
        for byte in name.chars().filter(|c| !c.is_control()).take(80).collect::<String>().bytes() {
            if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
                disposition.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(disposition, "%{byte:02X}");
            }
        }
    }
    format!("Content-Type: application/octet-stream; name=\"{ascii}\"\r\n{disposition}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::message::edit::Edit;
    use crate::message::parts;

    const MESSAGE: &str = "Content-Type: multipart/mixed; boundary=A\r\n\r\n--A\r\nContent-Type: text/plain;\r\n name=x.js\r\n\
        Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=y.js\r\n\r\nQUJD\r\n--A--\r\n";

    fn renamed(part: &str, to: &str) -> Renamed {
        let banned = Banned { rule: "scripts".into(), part: part.into(), matched: "x.js".into() };
        Renamed { banned, to: to.into() }
    }

    #[test]
    fn fields_of_ours_take_the_place_of_theirs() {
        let message = bytes::Bytes::from_static(MESSAGE.as_bytes());
        let view = parts::walk(&message, &Limits::default(), &mut Budget::ample());
        let mut outcome = Outcome::default();
        let orders = [renamed("1", "x.js.é\"\r\n"), renamed("1:base64", "x"), renamed("1/a.zip", "x")];
        let left = apply(&orders, &message, &view.heads, &mut outcome);
        assert_eq!(left, [orders[2].banned.clone()]);
        assert_eq!(outcome.notes, ["renamed scripts x.js"]);
        let mut edit = Edit::default();
        edit.add(&outcome.changes);
        let mut out = Vec::new();
        edit.pass(0, &message, |piece| out.extend_from_slice(piece));
        let expected = MESSAGE.replace("Content-Disposition: attachment; filename=y.js\r\n", "").replace(
            "Content-Type: text/plain;\r\n name=x.js\r\n",
            "Content-Type: application/octet-stream; name=\"x.js.____\"\r\nContent-Disposition: attachment; \
                 filename=\"x.js.____\";\r\n\tfilename*=utf-8''x.js.%C3%A9%22\r\n",
        );
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
