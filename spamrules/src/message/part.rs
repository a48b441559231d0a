// SPDX-License-Identifier: GPL-3.0-or-later
//! One part of a message: its header, its type, and its content, decoded when it is first asked for.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;

use super::content_type::ContentType;
use super::decode;
use super::headers::Headers;
use super::lines::Lines;

/// A part of a message.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// The fields of this part; for the top part those of the message.
    pub(crate) headers: Headers,
    /// `type/subtype` in lower case as SpamAssassin settles it: what is not understood is `text/plain`.
    pub(crate) kind: String,
    /// The charset declared.
    pub(crate) charset: Option<String>,
    /// The file name declared.
    pub(crate) name: Option<Vec<u8>>,
    /// The content as it came; `None` for parts that hold other parts.
    pub(super) raw: Option<Bytes>,
    pub(super) decoded: OnceLock<Bytes>,
    /// The parts inside this one, as places in the list of all parts.
    pub(super) inside: Range<usize>,
    /// How deep in the tree; the top part is 0.
    pub(super) depth: u32,
}

impl Part {
    /// Whether this part holds content and not other parts.
    pub(crate) fn is_leaf(&self) -> bool {
        self.raw.is_some()
    }

    /// The content as it came.
    pub(crate) fn raw(&self) -> &[u8] {
        self.raw.as_deref().unwrap_or_default()
    }

    /// The lines of the content as it came, each with its line end.
    pub(crate) fn raw_lines(&self) -> Lines<'_> {
        Lines::new(self.raw())
    }

    /// The last `Content-Transfer-Encoding:` in lower case.
    pub(crate) fn encoding(&self) -> Vec<u8> {
        self.headers
            .last("content-transfer-encoding")
            .map(|field| field.decoded().to_ascii_lowercase())
            .unwrap_or_default()
    }

    /// What this part's `Content-Type:` says, which is not always what it is taken for.
    pub(crate) fn content_type(&self) -> ContentType {
        ContentType::parse(self.headers.last("content-type").map(|field| field.decoded()))
    }

    /// The type, or `text/html` where the file name says so.
    pub(crate) fn effective_kind(&self) -> &str {
        let name = self.name.as_deref().unwrap_or_default();
        let ends = |end: &[u8]| {
            let start = name.len().checked_sub(end.len());
            start.and_then(|start| name.get(start..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
        };
        if [&b".htm"[..], b".html", b".shtm", b".shtml"].into_iter().any(ends) { "text/html" } else { &self.kind }
    }

    /// The content without its transfer encoding; line ends of text are LF.
    pub(crate) fn decoded(&self) -> &[u8] {
        self.decoded.get_or_init(|| self.decode())
    }

    fn decode(&self) -> Bytes {
        let Some(raw) = &self.raw else { return Bytes::new() };
        match self.encoding().as_slice() {
            b"quoted-printable" => decode::unix_lines(decode::quoted_printable(raw)).into(),
            b"base64" if self.is_text_or_message() => decode::unix_lines(decode::base64(raw)).into(),
            b"base64" => decode::base64(raw).into(),
            _ => raw.clone(),
        }
    }

    /// The decoded content as a buffer that can be shared.
    pub(super) fn shared(&self) -> Bytes {
        self.decoded.get_or_init(|| self.decode()).clone()
    }

    /// This part now holds other parts and no content of its own.
    pub(super) fn open(&mut self) {
        self.raw = None;
        self.decoded = OnceLock::new();
    }

    fn is_text_or_message(&self) -> bool {
        self.kind.starts_with("text/") || self.kind.starts_with("message/")
    }
}
