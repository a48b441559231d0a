// SPDX-License-Identifier: GPL-3.0-or-later
//! What an extension is shown of a message while rules run: the same texts, fields and parts that rules read. Nothing can be changed.

use crate::answers::Answers;
use crate::context::Context;
use crate::headers::{self, Selector};
use crate::message::Part;

/// A message as rules read it. Texts are made when they are first asked for.
pub struct View<'v> {
    context: &'v Context<'v>,
}

impl<'v> View<'v> {
    pub(crate) fn new(context: &'v Context<'v>) -> View<'v> {
        View { context }
    }

    /// The value of a header field or a part of it, by a selector as in header rules: `Subject`, `From:addr`, `Received:last:ip`,
    /// `ALL:raw`, `X-Spam-Relays-External`. Decoded fields end with a line end, parts of fields do not; several are one text, one
    /// to a line. `None` when the message has no such field.
    pub fn header(&self, selector: &str) -> Option<Vec<u8>> {
        let selector = Selector::parse(selector).ok()?;
        headers::get(self.context, &selector).map(std::borrow::Cow::into_owned)
    }

    /// The values of a selector, each by itself, in the order of the message; with `ALL` and `ALL:raw` one for each field.
    pub fn headers(&self, selector: &str) -> Vec<Vec<u8>> {
        let Ok(parsed) = Selector::parse(selector) else { return Vec::new() };
        let values = headers::values(self.context, &parsed);
        if selector != "ALL" {
            return values;
        }
        values.iter().flat_map(|text| text.split_inclusive(|&octet| octet == b'\n')).map(<[u8]>::to_vec).collect()
    }

    /// The message as it came, without an mbox separator: what full rules read.
    pub fn raw(&self) -> &'v [u8] {
        self.context.message.raw()
    }

    /// The header as it came, with the empty line after it.
    pub fn raw_header(&self) -> &'v [u8] {
        self.context.message.raw_header()
    }

    /// The body as it came.
    pub fn raw_body(&self) -> &'v [u8] {
        self.context.message.raw_body()
    }

    /// What body rules read: the subject, then the text that is shown, in paragraphs.
    pub fn body(&self) -> impl Iterator<Item = &'v [u8]> {
        self.context.texts().body.iter().map(Vec::as_slice)
    }

    /// What rawbody rules read: textual parts, decoded but not rendered.
    pub fn rawbody(&self) -> impl Iterator<Item = &'v [u8]> {
        self.context.texts().rawbody.iter().map(Vec::as_slice)
    }

    /// The URIs of the message, in all forms that uri rules read.
    pub fn uris(&self) -> impl Iterator<Item = &'v [u8]> {
        self.context.uris().list.iter().map(Vec::as_slice)
    }

    /// The parts of the message, the top one first, each followed by those inside it.
    pub fn parts(&self) -> impl Iterator<Item = PartView<'v>> {
        self.context.message.typed_parts().map(|part| PartView { part })
    }

    /// What the caller knows from networks and databases.
    pub fn answers(&self) -> &'v dyn Answers {
        self.context.answers.all()
    }

    /// Now, in seconds since 1970-01-01 UTC, as the caller has told.
    pub fn now(&self) -> i64 {
        self.context.environment.now
    }

    /// The name of the rule that calls; empty while a header field is made.
    pub fn rule(&self) -> String {
        self.context.rule()
    }

    /// Says what the rule has found; with the hit it is in [`crate::Hit::details`].
    pub fn note(&self, text: impl Into<String>) {
        self.context.note(text);
    }
}

/// One part of a message.
pub struct PartView<'v> {
    part: &'v Part,
}

impl<'v> PartView<'v> {
    /// `type/subtype` in lower case, as rules see it: what cannot be understood is `text/plain`.
    pub fn kind(&self) -> &'v str {
        &self.part.kind
    }

    /// The file name that the part gives itself.
    pub fn name(&self) -> Option<&'v [u8]> {
        self.part.name.as_deref()
    }

    /// The charset that the part gives itself.
    pub fn charset(&self) -> Option<&'v str> {
        self.part.charset.as_deref()
    }

    /// Whether the part has content and does not hold other parts.
    pub fn is_leaf(&self) -> bool {
        self.part.is_leaf()
    }

    /// The last field of that name in the header of the part, decoded.
    pub fn header(&self, name: &str) -> Option<&'v [u8]> {
        self.part.headers.last(name).map(|field| field.decoded())
    }

    /// The content as it came; empty for parts that hold others.
    pub fn raw(&self) -> &'v [u8] {
        self.part.raw()
    }

    /// The content without its transfer encoding; line ends of text are LF.
    pub fn content(&self) -> &'v [u8] {
        self.part.decoded()
    }
}
