// SPDX-License-Identifier: GPL-3.0-or-later
//! A message, split into parts as SpamAssassin splits it: rules were written for that reading. Not a MIME parser for anything else.
//!
//! Buffers are shared: parts are slices of the message wherever nothing had to be decoded.

mod content_type;
mod decode;
mod head;
mod headers;
mod lines;
mod mime;
mod part;
mod words;

use bytes::Bytes;

pub(crate) use content_type::ContentType;
pub(crate) use headers::{Header, Headers, is_space};
pub(crate) use lines::{Lines, is_blank};
pub(crate) use mime::Flags;
pub(crate) use part::Part;
pub(crate) use words::decode_text as decode_words;

/// A message, parsed once.
#[derive(Debug)]
pub struct Message {
    header: Bytes,
    body: Bytes,
    full: Bytes,
    parts: Vec<Part>,
    flags: Flags,
}

impl Message {
    /// Takes any bytes. A first line that begins with `From ` is an mbox separator, which no rule reads.
    pub fn parse(raw: &[u8]) -> Message {
        let raw = Bytes::copy_from_slice(raw);
        let mut head = head::divide(&raw);
        let (parts, flags) = mime::parse(&mut head);
        let separator = head.separator.as_ref().map_or(0, Bytes::len);
        let full = if raw.len() == separator + head.header.len() + head.body.len() {
            raw.slice(separator..)
        } else {
            [&head.header[..], &head.body[..]].concat().into()
        };
        Message { header: head.header, body: head.body, full, parts, flags }
    }

    /// What full rules read: header and body without the mbox separator.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.full
    }

    /// The header as it came, with the empty line after it.
    pub(crate) fn raw_header(&self) -> &[u8] {
        &self.header
    }

    /// The body as it came.
    pub(crate) fn raw_body(&self) -> &[u8] {
        &self.body
    }

    /// The fields of the message.
    pub(crate) fn headers(&self) -> &Headers {
        static NONE: std::sync::LazyLock<Headers> = std::sync::LazyLock::new(Headers::default);
        self.parts.first().map_or(&NONE, |top| &top.headers)
    }

    /// All parts, the top one first, each followed by those inside it.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The parts that rules meet: those that have a type.
    pub(crate) fn typed_parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| !part.kind.is_empty())
    }

    /// The parts that have content.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Part> {
        self.typed_parts().filter(|part| part.is_leaf())
    }

    /// The places of the part itself and of all parts inside it in [`Message::parts`].
    pub(crate) fn places_within(&self, part: &Part) -> std::ops::Range<usize> {
        part.inside.start.saturating_sub(1)..part.inside.end
    }

    /// The parts directly inside a part.
    pub(crate) fn children(&self, part: &Part) -> impl Iterator<Item = &Part> {
        let depth = part.depth + 1;
        self.parts.get(part.inside.clone()).unwrap_or_default().iter().filter(move |child| child.depth == depth)
    }

    /// What the parser noticed.
    pub(crate) fn flags(&self) -> Flags {
        self.flags
    }
}
