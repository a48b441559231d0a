// SPDX-License-Identifier: GPL-3.0-or-later
//! An ordered list of header fields. Not address or `Received:` parsing.

/// One header field.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// The name as written.
    pub(crate) name: Vec<u8>,
    /// The value with its folding, without the line end.
    pub(crate) raw: Vec<u8>,
    /// The value unfolded and decoded (RFC 2047).
    pub(crate) decoded: Vec<u8>,
}

/// The header of a message or of a part, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers {
    fields: Vec<Header>,
}

impl Headers {
    /// All fields in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Header> {
        self.fields.iter()
    }

    /// The fields of one name in order; letters' case is ignored.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Header> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    pub(crate) fn first(&self, name: &str) -> Option<&Header> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    pub(crate) fn last(&self, name: &str) -> Option<&Header> {
        self.fields.iter().rfind(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
    }
}
