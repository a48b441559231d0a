// SPDX-License-Identifier: GPL-3.0-or-later
//! A message, split into parts as SpamAssassin splits it: rules were written for that reading.

mod headers;
mod part;

pub(crate) use headers::{Header, Headers};
pub(crate) use part::Part;

/// A message, parsed once.
#[derive(Debug)]
pub struct Message {
    raw: Vec<u8>,
    headers: Headers,
    parts: Vec<Part>,
}

impl Message {
    /// Takes any bytes. A first line that begins with `From ` is kept as the mbox separator that it is.
    pub fn parse(raw: &[u8]) -> Message {
        Message { raw: raw.to_vec(), headers: Headers::default(), parts: Vec::new() }
    }

    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    pub(crate) fn headers(&self) -> &Headers {
        &self.headers
    }

    /// All parts, the top one first, in the order in which rules meet them.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }
}
