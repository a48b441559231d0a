// SPDX-License-Identifier: GPL-3.0-or-later
//! An encrypted PDF as the same document that is not (ISO 32000-1 section 7.6): strings and streams are decrypted where they stand, and all the rest
//! is left as it is, so that everything behind this sees an ordinary PDF. As in `pdf`, no table of objects is believed. Where bytes may
//! be meant in two ways, as an attacker would like, both are written down.

use super::lock::{Opened, header};
use super::objects::{Reader, Value, ends_word};
use super::security::{self, Kind, Method};
use crate::budget::Over;
use crate::unpack::format;
use crate::unpack::members::Members;
use memchr::memmem;
use std::io::Read;

/// Strings that do not end; one of them makes every one behind it expensive.
const UNENDED: usize = 100;

/// Whether a stream is what it is without being decrypted: nothing that is encrypted looks like this by chance.
pub(super) fn looks_plain(data: &[u8], dictionary: &[u8]) -> bool {
    let start = &data[..data.len().min(256)];
    let printable = start.len() >= 64 && start.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~'));
    if !super::has(dictionary, b"/Filter") {
        return printable || start.starts_with(b"MZ") || format::candidates(data).iter().any(|found| found.certain);
    }
    let zlib = matches!(data, [first, second, ..] if first & 15 == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0);
    let mut bytes = Vec::new();
    let ended = flate2::read::ZlibDecoder::new(if zlib { data } else { &[] }).take(64).read_to_end(&mut bytes);
    printable || zlib && !bytes.is_empty() && (ended.is_ok() || bytes.len() >= 64)
}

/// The document without its encryption.
pub(super) fn decrypted(data: &[u8], opened: &Opened, out: &Members<'_, '_>) -> Result<Vec<u8>, Over> {
    let plain = Vec::with_capacity(data.len());
    let mut copy = Copy { data, opened, plain, besides: Vec::new(), again: Vec::new(), unended: 0, ends: true };
    copy.range(0, data.len(), out)?;
    while let Some((from, to)) = copy.again.pop().filter(|_| copy.has_room()) {
        copy.range(from, to, out)?;
    }
    let Copy { mut plain, besides, .. } = copy;
    plain.extend_from_slice(&besides);
    Ok(plain)
}

/// A copy in the making.
struct Copy<'d> {
    data: &'d [u8],
    opened: &'d Opened,
    plain: Vec<u8>,
    /// Second readings of streams, as objects.
    besides: Vec<u8>,
    /// Strings in which there seem to be objects: to whoever reads the table of objects there may be no string.
    again: Vec<(usize, usize)>,
    unended: usize,
    /// There may be an `endstream` still.
    ends: bool,
}

impl<'d> Copy<'d> {
    /// Whether there is room for what is written twice.
    fn has_room(&self) -> bool {
        self.plain.len() + self.besides.len() < self.data.len().saturating_mul(3)
    }

    fn range(&mut self, from: usize, to: usize, out: &Members<'_, '_>) -> Result<(), Over> {
        let mut at = from;
        while let Some(found) = self.data.get(at..to).and_then(|rest| memmem::find(rest, b"obj")) {
            out.clock()?;
            let begin = at + found + 3;
            self.plain.extend_from_slice(&self.data[at..begin]);
            at = match header(&self.data[..begin - 3]) {
                Some(object) => self.object(object, begin),
                None => begin,
            };
        }
        self.plain.extend_from_slice(self.data.get(at..to).unwrap_or_default());
        Ok(())
    }

    /// From behind `obj` up to the end of the object or of its stream.
    fn object(&mut self, object: (u32, u16), begin: usize) -> usize {
        let (data, wrote) = (self.data, self.plain.len());
        let mut at = begin;
        while let Some(&byte) = data.get(at) {
            let from = at;
            match byte {
                b'%' => at += memchr::memchr2(b'\r', b'\n', &data[at..]).unwrap_or(data.len() - at),
                b'<' if data[at..].starts_with(b"<<") => at += 2,
                b'(' | b'<' => match self.string(object, at) {
                    Some(end) => {
                        at = end;
                        continue;
                    }
                    None => at += 1,
                },
                b'/' => at += 1 + word(&data[at + 1..]),
                _ => at += word(&data[at..]).max(1),
            }
            let run = &data[from..at];
            if !ends_word(byte) && run.ends_with(b"obj") && !run.ends_with(b"endobj") {
                // This one is not ended, and there is the next one.
                self.plain.extend_from_slice(&run[..run.len() - 3]);
                return at - 3;
            }
            self.plain.extend_from_slice(run);
            if !ends_word(byte) && run.ends_with(b"endobj") {
                return at;
            }
            if !ends_word(byte) && run.ends_with(b"stream") && !run.ends_with(b"endstream") {
                return self.stream(object, &data[begin..at], at, wrote);
            }
        }
        at
    }

    /// Writes a string; where it ends. None: it does not.
    fn string(&mut self, object: (u32, u16), at: usize) -> Option<usize> {
        let mut reader = Reader::new(self.data, at);
        let text = match self.data.get(at)? {
            b'(' if self.unended < UNENDED => {
                let text = reader.literal();
                self.unended += usize::from(text.is_none());
                text?
            }
            b'<' => reader.hexadecimal(),
            _ => return None,
        };
        let raw = &self.data[at..reader.at];
        let method = self.opened.handler.method(Kind::Text);
        let encrypted = method != Method::Identity && !self.opened.except.contains(&object.0);
        let plain = security::decrypt(method, &self.opened.key, object, &text);
        match plain.filter(|plain| encrypted && (is_readable(plain) || !is_readable(&text))) {
            Some(plain) => write_string(&plain, &mut self.plain),
            None => self.plain.extend_from_slice(raw),
        }
        if super::has(raw, b"obj") {
            self.again.push((at + 1, reader.at));
        }
        Some(reader.at)
    }

    /// Writes a stream, whose object goes up to the word `stream` and is written from `wrote` on; where it ends.
    fn stream(&mut self, object: (u32, u16), head: &'d [u8], at: usize, wrote: usize) -> usize {
        let dictionary = &*super::plain(head);
        let start = at + usize::from(self.data.get(at) == Some(&b'\r'));
        let start = start + usize::from(self.data.get(start) == Some(&b'\n'));
        let rest = self.data.get(start..).unwrap_or_default();
        let first = self.end(rest);
        let exact = declared_length(dictionary).filter(|length| is_end(rest.get(*length..).unwrap_or_default()));
        let (method, other) = self.methods(dictionary);
        let body = match exact {
            Some(length) if length <= first => &rest[..length],
            _ => without_line_end(&rest[..first], method),
        };
        let decrypted = |method: Method, body: &[u8]| security::decrypt(method, &self.opened.key, object, body);
        let plain = decrypted(method, body).filter(|_| method != Method::Identity);
        let longer = exact.filter(|length| *length > first).and_then(|length| decrypted(method, &rest[..length]));
        let other = other.and_then(|other| decrypted(other, body));
        let raw = plain.is_some() && looks_plain(body, dictionary);
        for bytes in [longer, other, raw.then(|| body.to_vec())].into_iter().flatten() {
            self.beside(object, head, &bytes);
        }
        let bytes = plain.as_deref().unwrap_or(body);
        self.set_length(wrote, bytes.len());
        self.plain.push(b'\n');
        self.plain.extend_from_slice(bytes);
        self.plain.push(b'\n');
        start.saturating_add(first).min(self.data.len())
    }

    /// How a stream is encrypted, and how it is to other readers.
    fn methods(&self, dictionary: &[u8]) -> (Method, Option<Method>) {
        let handler = &self.opened.handler;
        let is = |kind: &[u8]| super::keys(dictionary, kind).next().is_some();
        let names = |key: &'static [u8], value: &'static str| {
            super::keys(dictionary, key)
                .any(|rest| Reader::new(rest, 0).value().is_some_and(|found| found.name() == Some(value.as_bytes())))
        };
        if names(b"/Type", "XRef") || !handler.metadata && names(b"/Type", "Metadata") {
            return (Method::Identity, None);
        }
        if is(b"/Crypt") {
            let name = super::keys(dictionary, b"/Name").find_map(|rest| Reader::new(rest, 0).value());
            let name = name.as_ref().and_then(Value::name).unwrap_or(b"Identity");
            return (handler.method(Kind::Named(name)), None);
        }
        let method = handler.method(Kind::Stream);
        if is(b"/EmbeddedFile") {
            // Not every reader knows that files may be encrypted in another way than the rest.
            let own = handler.method(Kind::EmbeddedFile);
            return (own, Some(method).filter(|method| *method != own));
        }
        (method, None)
    }

    /// Length of a stream up to its end.
    fn end(&mut self, rest: &[u8]) -> usize {
        let end = if self.ends { memmem::find(rest, b"endstream") } else { None };
        self.ends = end.is_some();
        end.or_else(|| memmem::find(rest, b"endobj")).unwrap_or(rest.len())
    }

    /// Writes a stream as an object of its own, with the number that it has.
    fn beside(&mut self, object: (u32, u16), head: &[u8], bytes: &[u8]) {
        if self.has_room() {
            let begin = format!("\n{} {} obj", object.0, object.1);
            for piece in [begin.as_bytes(), head, b"\n", bytes, b"\nendstream\nendobj\n"] {
                self.besides.extend_from_slice(piece);
            }
        }
    }

    /// What is decrypted is shorter.
    fn set_length(&mut self, wrote: usize, length: usize) {
        let written = &self.plain[wrote..];
        let key = memmem::find_iter(written, b"/Length").map(|at| at + 7);
        let Some(at) = { key }.find(|at| written.get(*at).is_none_or(|byte| !byte.is_ascii_alphanumeric())) else {
            return;
        };
        let mut reader = Reader::new(written, at);
        if matches!(reader.value(), Some(Value::Number(_) | Value::Reference(..))) {
            self.plain.splice(wrote + at..wrote + reader.at, format!(" {length}").into_bytes());
        }
    }
}

/// How long the run of characters is that make a word.
fn word(text: &[u8]) -> usize {
    text.iter().position(|byte| ends_word(*byte)).unwrap_or(text.len())
}

fn is_readable(text: &[u8]) -> bool {
    text.len() > 3 && text.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~'))
}

/// The length of a stream, when it stands in its dictionary.
fn declared_length(dictionary: &[u8]) -> Option<usize> {
    let value = super::keys(dictionary, b"/Length").next().and_then(|rest| Reader::new(rest, 0).value())?;
    usize::try_from(value.number()?).ok()
}

fn is_end(rest: &[u8]) -> bool {
    rest[..rest.len().min(16)].trim_ascii_start().starts_with(b"endstream")
}

/// Without the end of line that stands before `endstream`.
fn without_line_end(data: &[u8], method: Method) -> &[u8] {
    let aes = matches!(method, Method::AesV2 | Method::AesV3);
    if aes && data.len().is_multiple_of(super::BLOCK) {
        return data;
    }
    let data = data.strip_suffix(b"\n").unwrap_or(data);
    data.strip_suffix(b"\r").unwrap_or(data)
}

fn write_string(text: &[u8], to: &mut Vec<u8>) {
    to.push(b'(');
    for byte in text {
        match byte {
            b'(' | b')' | b'\\' => to.extend_from_slice(&[b'\\', *byte]),
            b'\r' => to.extend_from_slice(b"\\015"),
            _ => to.push(*byte),
        }
    }
    to.push(b')');
}
