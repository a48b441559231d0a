// SPDX-License-Identifier: GPL-3.0-or-later
//! An ordered list of header fields, as rules see them. Not address or `Received:` parsing.
//!
//! A field is decoded when it is first read: most rules look at few of them.

use std::sync::OnceLock;

use bytes::Bytes;

use super::words;

/// Longest text that all fields of one header together have for rules on `ALL`, in bytes.
pub(crate) const MAX_ALL: usize = 65_536;

/// One header field.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// The name as written.
    pub(crate) name: Bytes,
    /// The value as written, with its folding and its line end.
    pub(crate) raw: Bytes,
    decoded: OnceLock<Vec<u8>>,
}

impl Header {
    pub(crate) fn new(name: Bytes, raw: Bytes) -> Header {
        Header { name, raw, decoded: OnceLock::new() }
    }

    /// The value unfolded, without blanks around it, encoded words (RFC 2047) turned to UTF-8.
    pub(crate) fn decoded(&self) -> &[u8] {
        self.decoded.get_or_init(|| words::decode(&self.name, &self.raw))
    }

    /// The value as written but on one line: every fold (line end and blanks) is one space.
    pub(crate) fn unfolded(&self) -> Vec<u8> {
        unfold_raw(&self.raw)
    }
}

/// Replaces each line end with the blanks after it by one space, where there are any.
fn unfold_raw(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\n', rest) {
        let (line, after) = rest.split_at(at);
        let after = after.get(1..).unwrap_or_default();
        let blanks = after.iter().take_while(|&&byte| is_space(byte)).count();
        if blanks == 0 {
            out.extend_from_slice(line);
            out.push(b'\n');
        } else {
            out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            out.push(b' ');
        }
        rest = after.get(blanks..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// What Perl's `\s` takes in a string of octets.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | b' ')
}

/// The header of a message or of a part, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers {
    fields: Vec<Header>,
    /// Digests of names, and places in `fields`; sorted. Every rule on a field looks it up, and most messages have few of them.
    by_name: OnceLock<Vec<(u32, u32)>>,
}

impl Headers {
    pub(crate) fn new(fields: Vec<Header>) -> Headers {
        Headers { fields, by_name: OnceLock::new() }
    }

    /// All fields in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Header> {
        self.fields.iter()
    }

    /// The fields of one name in order; letters' case is ignored.
    pub(crate) fn all<'h>(&'h self, name: &str) -> impl DoubleEndedIterator<Item = &'h Header> {
        let order = self.by_name.get_or_init(|| sorted(&self.fields));
        let digest = digest(name.as_bytes());
        let start = order.partition_point(|(other, _)| *other < digest);
        let found = order.get(start..).unwrap_or_default();
        let count = found.iter().take_while(|(other, _)| *other == digest).count();
        let fields = found.get(..count).unwrap_or_default().iter();
        let fields = fields.filter_map(|&(_, place)| self.fields.get(place as usize));
        // Others can have the same digest.
        fields.filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    pub(crate) fn first(&self, name: &str) -> Option<&Header> {
        self.all(name).next()
    }

    pub(crate) fn last(&self, name: &str) -> Option<&Header> {
        self.all(name).next_back()
    }

    /// All fields as one text, `Name: value` and a line end each; `raw` leaves encoded words. `None` beside it says that all fitted into
    /// [`MAX_ALL`]; otherwise fields are left out, name by name in the order in which names first appear, from the first that does not fit.
    pub(crate) fn text(&self, raw: bool) -> (Vec<u8>, bool) {
        let total: usize = self.fields.iter().map(|field| field.name.len() + field.raw.len() + 3).sum();
        let keep = if total > MAX_ALL { self.fitting(raw) } else { vec![true; self.fields.len()] };
        let truncated = keep.contains(&false);
        let mut out = Vec::with_capacity(total.min(2 * MAX_ALL));
        for (field, _) in self.fields.iter().zip(&keep).filter(|&(_, &keep)| keep) {
            out.extend_from_slice(&field.name);
            out.extend_from_slice(b": ");
            if raw {
                out.extend_from_slice(&field.unfolded());
            } else {
                out.extend_from_slice(field.decoded());
                out.push(b'\n');
            }
        }
        (out, truncated)
    }

    /// Which fields fit into [`MAX_ALL`] when those of one name are taken together.
    fn fitting(&self, raw: bool) -> Vec<bool> {
        let mut keep = vec![false; self.fields.len()];
        let mut seen = std::collections::HashMap::<Vec<u8>, Vec<usize>>::new();
        let mut names = Vec::new();
        for (place, field) in self.fields.iter().enumerate() {
            let name = field.name.to_ascii_lowercase();
            if !seen.contains_key(&name) {
                names.push(name.clone());
            }
            seen.entry(name).or_default().push(place);
        }
        let mut size = 0;
        for place in names.iter().filter_map(|name| seen.get(name)).flatten() {
            let Some(field) = self.fields.get(*place) else { continue };
            let value = if raw { field.unfolded().len() } else { field.decoded().len() + 1 };
            size += field.name.len() + value + 2;
            if size > MAX_ALL {
                break;
            }
            if let Some(keep) = keep.get_mut(*place) {
                *keep = true;
            }
        }
        keep
    }
}

fn sorted(fields: &[Header]) -> Vec<(u32, u32)> {
    let mut order: Vec<(u32, u32)> = fields.iter().map(|field| digest(&field.name)).zip(0..).collect();
    order.sort_unstable();
    order
}

/// A number that names have in common which differ in the case of their letters only (FNV-1a).
fn digest(name: &[u8]) -> u32 {
    name.iter()
        .fold(0x811c_9dc5, |digest, byte| (digest ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Headers {
        let field = |name: &'static str, raw: &'static str| {
            Header::new(Bytes::from_static(name.as_bytes()), Bytes::from_static(raw.as_bytes()))
        };
        Headers::new(vec![
            field("Received", " one\n"),
            field("Subject", " a\n\tb\n"),
            field("received", " two\n"),
            field("RECEIVED", " three\n"),
        ])
    }

    #[test]
    fn fields_are_found_by_name_in_order() {
        let headers = headers();
        let found: Vec<_> = headers.all("rEceived").map(Header::decoded).collect();
        assert_eq!(found, [&b"one"[..], b"two", b"three"]);
        assert_eq!(headers.first("Received").unwrap().decoded(), b"one");
        assert_eq!(headers.last("Received").unwrap().decoded(), b"three");
        assert!(headers.first("Receive").is_none());
        assert!(headers.first("Receivedd").is_none());
    }

    #[test]
    fn a_fold_is_one_space() {
        let headers = headers();
        assert_eq!(headers.first("Subject").unwrap().decoded(), b"a b");
        assert_eq!(headers.first("Subject").unwrap().unfolded(), b" a b\n");
    }

    #[test]
    fn the_whole_header_has_a_limit() {
        let (text, truncated) = headers().text(false);
        assert_eq!(text, b"Received: one\nSubject: a b\nreceived: two\nRECEIVED: three\n");
        assert!(!truncated);
        let long = Bytes::from(vec![b'x'; MAX_ALL / 2]);
        let fields = (0..3).map(|_| Header::new(Bytes::from_static(b"X"), long.clone())).collect();
        let (text, truncated) = Headers::new(fields).text(false);
        assert!(truncated && text.len() < MAX_ALL);
    }
}
