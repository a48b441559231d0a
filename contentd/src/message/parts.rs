// SPDX-License-Identifier: GPL-3.0-or-later
//! Walks a message and describes every part: name, types, size and SHA-256 of the decoded bytes (RFC 2046).
//!
//! The walk is a work list with limits, not a recursion. Where a header leaves several readings open, all are
//! followed: every boundary splits, every encoding is decoded, and data behind padding is read both ways.
//! Archives are opened by `unpack`.

use super::codec::{self, Decoded, Padding};
use super::header::{self, Flaw, Section};
use super::parse::{self, Encoding, Entity};
use super::{Limits, kind, syntax};
use crate::budget::Budget;
use crate::findings::{Finding, FindingKind, Part};
use crate::unpack::format;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

/// What the walk has found.
#[derive(Debug, Default)]
pub struct View {
    /// Leaves and containers in the order of the message.
    pub parts: Vec<Part>,
    /// What was strange.
    pub findings: Vec<Finding>,
    /// Decoded leaves that a scanner should see by themselves, or that may hold others.
    pub kept: Vec<Kept>,
    /// Texts that a scanner which reads mail finds in the message by itself; only where they are asked for.
    pub texts: Vec<Bytes>,
    /// Where in the message those of them lie that can be read in one way only: bodies in base64 of parts that are kept.
    pub encoded: Vec<Range<usize>>,
}

/// The decoded bytes of one leaf.
#[derive(Debug)]
pub struct Kept {
    /// Path of the leaf.
    pub path: String,
    /// Its decoded bytes.
    pub bytes: Bytes,
}

/// One entity still to be looked at.
struct Item<'m> {
    data: Rc<Cow<'m, [u8]>>,
    range: Range<usize>,
    /// Path of what holds it.
    prefix: String,
    /// Its number there; none for the root of a message.
    number: Option<usize>,
    depth: usize,
    /// It lies in a multipart/digest, where the default type is message/rfc822 (RFC 2046 section 5.1.5).
    in_digest: bool,
    container: Option<&'static str>,
}

impl Item<'_> {
    /// Path of the entity when it is a leaf; the single part of a message is number 1.
    fn leaf_path(&self) -> String {
        join(&self.prefix, self.number.unwrap_or(1))
    }

    /// Path of the entity when it holds others; the root multipart of a message has the path of the message.
    fn holder_path(&self) -> String {
        match self.number {
            Some(number) => join(&self.prefix, number),
            None => self.prefix.clone(),
        }
    }
}

fn join(prefix: &str, number: usize) -> String {
    if prefix.is_empty() { number.to_string() } else { format!("{prefix}.{number}") }
}

/// Types whose body begins with a header section again (RFC 2046 section 5.2, RFC 6532, RFC 5537).
const MESSAGE_TYPES: [&str; 5] =
    ["message/rfc822", "message/global", "message/news", "message/partial", "message/external-body"];

/// Walks the whole message. What the budget does not allow is left out and reported.
pub fn walk(message: &[u8], limits: &Limits, budget: &mut Budget) -> View {
    let start = header::mailbox_line(message);
    let mut walk = Walk { limits, view: View::default(), list: Vec::new(), budget, ambiguous: false };
    walk.list.push(Item {
        data: Rc::new(Cow::Borrowed(message)),
        range: start..message.len(),
        prefix: String::new(),
        number: None,
        depth: 0,
        in_digest: false,
        container: None,
    });
    while let Some(item) = walk.list.pop() {
        if walk.view.parts.len() >= limits.parts {
            walk.find(FindingKind::OverLimits, "", "parts");
            break;
        }
        if let Err(over) = walk.budget.object() {
            walk.find(FindingKind::OverLimits, "", over.word());
            break;
        }
        walk.entity(item);
    }
    walk.view
}

struct Walk<'m, 'l> {
    limits: &'l Limits,
    view: View,
    /// Entities still to be looked at; the next one is last.
    list: Vec<Item<'m>>,
    budget: &'l mut Budget,
    /// Something was found that other programs may read in another way.
    ambiguous: bool,
}

impl<'m> Walk<'m, '_> {
    fn find(&mut self, kind: FindingKind, part: &str, detail: impl Into<String>) {
        self.ambiguous |= kind.is_ambiguity();
        let finding = Finding::new(kind, part, detail);
        if !self.view.findings.contains(&finding) && self.view.findings.len() < MAX_FINDINGS {
            self.view.findings.push(finding);
        }
    }

    fn entity(&mut self, item: Item<'m>) {
        let data = Rc::clone(&item.data);
        let bytes = &data[item.range.clone()];
        let path = item.leaf_path();
        if item.depth > self.limits.depth {
            self.find(FindingKind::OverLimits, &path, "depth");
            let entity = Entity { encodings: vec![Encoding::Identity], ..Entity::default() };
            return self.leaf(&item, &entity, bytes);
        }
        let section = header::read(bytes, self.limits);
        let entity = parse::interpret(bytes, &section, self.limits);
        self.report(&item, bytes, &section, &entity);
        let body = item.range.start + section.body..item.range.end;
        if entity.has_type("multipart/") && self.multipart(&item, &entity, body.clone()) {
            return;
        }
        if let Some(kind) = message_type(&item, &entity) {
            return self.nested(&item, &entity, body, kind);
        }
        self.leaf(&item, &entity, &data[body.clone()]);
        self.plainly_encoded(&item, &entity, body);
    }

    /// Notes a body that is base64 and nothing else, and whose decoded bytes are kept.
    fn plainly_encoded(&mut self, item: &Item<'m>, entity: &Entity, body: Range<usize>) {
        let kept = self.view.kept.last().is_some_and(|kept| kept.path == item.leaf_path());
        let in_message = matches!(*item.data, Cow::Borrowed(_));
        if kept && in_message && !self.ambiguous && entity.encodings == [Encoding::Base64] {
            self.view.encoded.push(body);
        }
    }

    fn report(&mut self, item: &Item<'m>, bytes: &[u8], section: &Section, entity: &Entity) {
        let path = item.leaf_path();
        for flaw in &section.flaws {
            let (kind, detail) = match flaw {
                Flaw::NotAField => (FindingKind::HeaderSyntax, ""),
                Flaw::BlankBeforeColon => (FindingKind::BlankBeforeColon, ""),
                Flaw::BlankLine => (FindingKind::HeaderBlankLine, ""),
                Flaw::BareCr => (FindingKind::HeaderControl, "lone CR"),
                Flaw::TooLong => (FindingKind::OverLimits, "header section"),
                Flaw::Unfinished => (FindingKind::HeaderUnfinished, ""),
            };
            self.find(kind, &path, detail);
        }
        for (kind, detail) in &entity.oddities {
            self.find(*kind, &path, detail.clone());
        }
        if entity.has_type("message/partial") {
            self.find(FindingKind::Fragment, &path, "");
        }
        if item.depth == 0 {
            for (kind, detail) in syntax::check(bytes, section) {
                self.find(kind, "", detail);
            }
        }
    }

    /// Puts the parts of a multipart on the list; false when there are none to be found.
    fn multipart(&mut self, item: &Item<'m>, entity: &Entity, body: Range<usize>) -> bool {
        let path = item.holder_path();
        if entity.boundaries.is_empty() {
            self.find(FindingKind::BoundaryMissing, &path, "");
            return false;
        }
        let mut data = Rc::clone(&item.data);
        let mut offset = body.start;
        let mut split = split(&data[body.clone()], &entity.boundaries, self.limits.parts);
        if split.parts.is_empty()
            && let Some(decoded) = self.decoded_multipart(entity, &data[body])
        {
            self.find(FindingKind::EncodedMultipart, &path, "");
            (data, offset) = (Rc::new(Cow::Owned(decoded)), 0);
            split = self::split(&data, &entity.boundaries, self.limits.parts);
        }
        if split.parts.is_empty() {
            self.find(FindingKind::BoundaryUnused, &path, "");
            return false;
        }
        if !split.closed {
            self.find(FindingKind::Unclosed, &path, "");
        }
        if split.after_close {
            self.find(FindingKind::PartsAfterClose, &path, "");
        }
        self.holder(item, entity, &path);
        let in_digest = entity.has_type("multipart/digest");
        for (place, range) in split.parts.into_iter().enumerate().rev() {
            self.list.push(Item {
                data: Rc::clone(&data),
                range: offset + range.start..offset + range.end,
                prefix: path.clone(),
                number: Some(place + 1),
                depth: item.depth + 1,
                in_digest,
                container: item.container,
            });
        }
        true
    }

    /// A multipart must not be encoded as a whole (RFC 2045 section 6.4), yet some clients decode it.
    fn decoded_multipart(&mut self, entity: &Entity, body: &[u8]) -> Option<Vec<u8>> {
        let encoding = entity.encodings.iter().find(|e| matches!(e, Encoding::Base64 | Encoding::QuotedPrintable))?;
        let decoded = decode(*encoding, body, Padding::Continues).bytes.into_owned();
        let found = !split(&decoded, &entity.boundaries, 1).parts.is_empty();
        (found && self.spend(decoded.len())).then_some(decoded)
    }

    /// Puts the message inside a message/rfc822 on the list, once per encoding that is named.
    fn nested(&mut self, item: &Item<'m>, entity: &Entity, body: Range<usize>, kind: &'static str) {
        let path = item.leaf_path();
        self.holder(item, entity, &path);
        for encoding in entity.encodings.iter().rev() {
            let (data, range) = match encoding {
                Encoding::Identity | Encoding::Unknown => (Rc::clone(&item.data), body.clone()),
                encoding => {
                    let decoded = decode(*encoding, &item.data[body.clone()], Padding::Ends).bytes.into_owned();
                    if !self.spend(decoded.len()) {
                        self.find(FindingKind::OverLimits, &path, "expansion");
                        continue;
                    }
                    let range = 0..decoded.len();
                    (Rc::new(Cow::Owned(decoded)), range)
                }
            };
            let range = range.start + header::mailbox_line(&data[range.clone()])..range.end;
            self.list.push(Item {
                data,
                range,
                prefix: path.clone(),
                number: None,
                depth: item.depth + 1,
                in_digest: false,
                container: Some(kind),
            });
        }
    }

    fn holder(&mut self, item: &Item<'m>, entity: &Entity, path: &str) {
        self.view.parts.push(Part {
            path: path.to_owned(),
            names: entity.names.clone(),
            types: entity.types.clone(),
            detected_type: String::new(),
            size: 0,
            sha256: [0; 32],
            container: item.container,
            leaf: false,
        });
    }

    /// Describes a leaf, once per reading of its bytes.
    fn leaf(&mut self, item: &Item<'m>, entity: &Entity, body: &[u8]) {
        let path = item.leaf_path();
        for (place, encoding) in entity.encodings.iter().enumerate() {
            let suffix = match (place, encoding) {
                (0, _) => "",
                (_, Encoding::Base64) => ":base64",
                (_, Encoding::QuotedPrintable) => ":quoted-printable",
                (_, Encoding::Identity | Encoding::Unknown) => ":identity",
            };
            let reading = decode(*encoding, body, Padding::Ends);
            let odd = place > 0 || reading.junk > 0;
            if reading.junk > 0 {
                self.find(FindingKind::EncodingJunk, &path, format!("{} characters", reading.junk));
            }
            self.reading(item, entity, format!("{path}{suffix}"), reading.bytes, odd);
            if reading.data_after_padding {
                self.find(FindingKind::DataAfterPadding, &path, "");
                let whole = decode(*encoding, body, Padding::Continues).bytes;
                self.reading(item, entity, format!("{path}{suffix}:whole"), whole, true);
            }
        }
    }

    fn reading(&mut self, item: &Item<'m>, entity: &Entity, path: String, bytes: Cow<'_, [u8]>, odd: bool) {
        if matches!(bytes, Cow::Owned(_)) && !self.spend(bytes.len()) {
            return self.find(FindingKind::OverLimits, &path, "expansion");
        }
        let detected_type = kind::detect(&bytes);
        self.view.parts.push(Part {
            path: path.clone(),
            names: entity.names.clone(),
            types: entity.types.clone(),
            detected_type: detected_type.clone(),
            size: bytes.len() as u64,
            sha256: Sha256::digest(&bytes).into(),
            container: item.container,
            leaf: true,
        });
        // The scanner gets the raw message in any case. Text it finds in there by itself, unless something about
        // the message may make it read on another way than we did.
        let inside_decoded = matches!(*item.data, Cow::Owned(_));
        let known = detected_type.starts_with("text/") && !format::may_hold(&bytes);
        if !bytes.is_empty() && (odd || inside_decoded || self.ambiguous || !known) {
            self.view.kept.push(Kept { path, bytes: bytes.into_owned().into() });
        } else if !bytes.is_empty() && self.limits.texts {
            self.view.texts.push(bytes.into_owned().into());
        }
    }

    /// Takes decoded bytes off the budget; false when they do not fit.
    fn spend(&mut self, bytes: usize) -> bool {
        self.budget.reading(bytes).is_ok()
    }
}

/// More findings than this say nothing new; a kind that puts the message into a category comes early or repeats.
const MAX_FINDINGS: usize = 300;

/// Under which type the entity holds a message, if it does.
fn message_type(item: &Item<'_>, entity: &Entity) -> Option<&'static str> {
    if item.in_digest && entity.types.is_empty() {
        return Some(MESSAGE_TYPES[0]);
    }
    MESSAGE_TYPES.into_iter().find(|kind| entity.types.iter().any(|declared| declared == kind))
}

/// One reading of a body.
struct Reading<'b> {
    bytes: Cow<'b, [u8]>,
    junk: usize,
    data_after_padding: bool,
}

fn decode(encoding: Encoding, body: &[u8], padding: Padding) -> Reading<'_> {
    let decoded: Decoded = match encoding {
        Encoding::Identity | Encoding::Unknown => {
            return Reading { bytes: Cow::Borrowed(body), junk: 0, data_after_padding: false };
        }
        Encoding::Base64 => codec::base64(body, padding),
        Encoding::QuotedPrintable => codec::quoted_printable(body),
    };
    Reading { bytes: Cow::Owned(decoded.bytes), junk: decoded.junk, data_after_padding: decoded.data_after_padding }
}

/// Where the parts of a multipart lie.
#[derive(Debug, Default, PartialEq, Eq)]
struct Split {
    parts: Vec<Range<usize>>,
    closed: bool,
    after_close: bool,
}

/// Splits a multipart's body at every delimiter line of any of the boundaries (RFC 2046 section 5.1.1).
/// Text before the first delimiter and behind the last closing one belongs to no part.
fn split(body: &[u8], boundaries: &[Vec<u8>], limit: usize) -> Split {
    let mut split = Split::default();
    let mut open: Option<usize> = None;
    for start in delimiter_starts(body) {
        let end = memchr::memchr(b'\n', &body[start..]).map_or(body.len(), |at| start + at + 1);
        let Some(closing) = delimiter(&body[start + 2..end], boundaries) else { continue };
        if let Some(from) = open.take() {
            split.parts.push(from..before_line_end(body, from, start));
            if split.parts.len() >= limit {
                return split;
            }
        }
        if closing {
            split.closed = true;
        } else {
            split.after_close |= split.closed;
            open = Some(end);
        }
    }
    if let Some(from) = open {
        split.closed = false;
        split.parts.push(from..body.len());
    }
    split
}

/// Offsets of all lines that begin with `--`.
fn delimiter_starts(body: &[u8]) -> impl Iterator<Item = usize> {
    let first = body.starts_with(b"--").then_some(0);
    first.into_iter().chain(memchr::memmem::find_iter(body, b"\n--").map(|at| at + 1))
}

/// Whether a line, without its two hyphens, is a delimiter, and if so whether a closing one.
fn delimiter(line: &[u8], boundaries: &[Vec<u8>]) -> Option<bool> {
    let text = line.trim_ascii_end();
    let is = |text: &[u8]| boundaries.iter().any(|boundary| boundary == text);
    if is(text) {
        return Some(false);
    }
    text.strip_suffix(b"--").is_some_and(|text| is(text) || is(text.trim_ascii_end())).then_some(true)
}

/// The line end before a delimiter belongs to the delimiter.
fn before_line_end(body: &[u8], from: usize, delimiter: usize) -> usize {
    let part = &body[from..delimiter.max(from)];
    let part = part.strip_suffix(b"\n").map_or(part, |part| part.strip_suffix(b"\r").unwrap_or(part));
    from + part.len()
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
