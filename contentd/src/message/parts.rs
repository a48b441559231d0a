// SPDX-License-Identifier: GPL-3.0-or-later
//! Walks a message and describes every part: name, types, size and digest of the decoded bytes (RFC 2046).
//!
//! The walk is a work list with limits, not a recursion. Where a header leaves several readings open, all are
//! followed: every end of the header section, every type, every way to divide a multipart (`multipart`), every encoding, and data
//! behind padding both ways. A message without such places is read once. Archives are opened by `unpack`.

use super::codec::{self, Decoded, Padding};
use super::header::{self, Flaw, Section};
use super::parse::{self, Encoding, Entity};
use super::{Limits, kind, multipart, nesting, syntax};
use crate::budget::Budget;
use crate::category::Category;
use crate::digest::Digest;
use crate::findings::{Finding, FindingKind, Part};
use crate::unpack::format;
use bytes::Bytes;
use std::collections::HashSet;
use std::ops::Range;

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
    /// The same of every body in any encoding that is kept, or among the texts; none in a message that is not `plain`.
    pub bodies: Vec<Range<usize>>,
    /// The whole message can be read in one way only.
    pub plain: bool,
    /// Where header sections stand in the message, by the likeliest reading; those that come out of a decoder stand nowhere.
    pub heads: Vec<Head>,
}

/// A header section in the message as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// From its first field to the end of the empty line.
    pub range: Range<usize>,
    /// Path of the part that it describes; empty for one that may hold others.
    pub path: String,
    /// What it belongs to.
    pub of: HeadOf,
}

/// What a header section belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOf {
    /// The message.
    Message,
    /// A part of a multipart.
    Part,
    /// An attached message.
    Attached,
}

/// The decoded bytes of one leaf.
#[derive(Debug)]
pub struct Kept {
    /// Path of the leaf.
    pub path: String,
    /// Its decoded bytes.
    pub bytes: Bytes,
    /// It lies in an archive that is kept as well, and that every program opens in the same way.
    pub alike: bool,
}

/// One entity still to be looked at.
#[derive(Clone)]
struct Item {
    data: Bytes,
    range: Range<usize>,
    /// Path of what holds it.
    prefix: String,
    /// Its number there; none for the root of a message.
    number: Option<usize>,
    /// Which reading of it this is; empty for the likeliest.
    suffix: String,
    depth: usize,
    /// It lies in a multipart/digest, where the default type is message/rfc822 (RFC 2046 section 5.1.5).
    in_digest: bool,
    /// Its bytes came out of a decoder.
    decoded: bool,
    container: Option<&'static str>,
}

impl Item {
    /// Path of the entity when it is a leaf; the single part of a message is number 1.
    fn leaf_path(&self) -> String {
        join(&self.prefix, self.number.unwrap_or(1)) + &self.suffix
    }

    /// Path of the entity when it holds others; the root multipart of a message has the path of the message.
    fn holder_path(&self) -> String {
        match self.number {
            Some(number) => join(&self.prefix, number) + &self.suffix,
            None => format!("{}{}", self.prefix, self.suffix),
        }
    }

    /// The same in another reading.
    fn read_as(&self, suffix: &str) -> Item {
        Item { suffix: format!("{}{suffix}", self.suffix), ..self.clone() }
    }
}

fn join(prefix: &str, number: usize) -> String {
    if prefix.is_empty() { number.to_string() } else { format!("{prefix}.{number}") }
}

/// Types whose body begins with a header section again (RFC 2046 section 5.2, RFC 6532, RFC 5537).
const MESSAGE_TYPES: [&str; 5] =
    ["message/rfc822", "message/global", "message/news", "message/partial", "message/external-body"];

/// Walks the whole message. What the budget does not allow is left out and reported.
pub fn walk(message: &Bytes, limits: &Limits, budget: &mut Budget) -> View {
    let start = header::mailbox_line(message);
    let readings = limits.readings;
    let view = View::default();
    let mut walk = Walk { message, limits, view, list: Vec::new(), budget, ambiguous: false, readings };
    walk.list.push(Item {
        data: message.clone(),
        range: start..message.len(),
        prefix: String::new(),
        number: None,
        suffix: String::new(),
        depth: 0,
        in_digest: false,
        decoded: false,
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
    walk.compare_readings();
    walk.view.plain = walk.is_plain();
    if !walk.view.plain {
        walk.view.bodies.clear();
    }
    walk.view
}

struct Walk<'l> {
    message: &'l Bytes,
    limits: &'l Limits,
    view: View,
    /// Entities still to be looked at; the next one is last.
    list: Vec<Item>,
    budget: &'l mut Budget,
    /// Something was found that other programs may read in another way.
    ambiguous: bool,
    /// Readings beside the first that may still be followed.
    readings: usize,
}

impl Walk<'_> {
    fn find(&mut self, kind: FindingKind, part: &str, detail: impl Into<String>) {
        self.ambiguous |= kind.is_ambiguity();
        // A reading that is wrong looks odd; that there are several is told already.
        let telling = [FindingKind::ReadingsDiffer, FindingKind::DataInPreamble, FindingKind::DataInEpilogue];
        if part.contains(':') && kind.category() != Some(Category::Unchecked) && !telling.contains(&kind) {
            return;
        }
        let finding = Finding::new(kind, part, detail);
        if !self.view.findings.contains(&finding) && self.view.findings.len() < MAX_FINDINGS {
            self.view.findings.push(finding);
        }
    }

    /// Whether no other reading was followed, none was left out, and nothing was seen that another program may take in another way.
    fn is_plain(&self) -> bool {
        let control = self.view.findings.iter().any(|finding| finding.kind == FindingKind::HeaderControl);
        !self.ambiguous && !control && self.readings == self.limits.readings
    }

    /// Whether one more reading may be followed.
    fn another(&mut self) -> bool {
        if self.readings == 0 {
            self.find(FindingKind::OverLimits, "", "readings");
            return false;
        }
        self.readings -= 1;
        true
    }

    /// Looks at an entity by every reading of its header section.
    fn entity(&mut self, item: Item) {
        let bytes = item.data.slice(item.range.clone());
        if item.depth > self.limits.depth {
            self.find(FindingKind::OverLimits, &item.leaf_path(), "depth");
            let entity = Entity { encodings: vec![Encoding::Identity], ..Entity::default() };
            return self.leaf(&item, &entity, bytes);
        }
        let mut first: Option<(Entity, usize)> = None;
        for (suffix, section) in header::readings(&bytes, self.limits) {
            let entity = parse::interpret(&bytes, &section, self.limits);
            let range = item.range.start + section.body..item.range.end;
            match &first {
                None => {
                    self.remember_head(&item, &entity, section.body);
                    self.report(&item, &bytes, &section, &entity);
                    self.body(&item, &entity, range);
                    first = Some((entity, section.body));
                }
                // Where the body begins matters only when it is decoded.
                Some((known, body))
                    if known.says_the_same(&entity)
                        && (*body == section.body || entity.encodings == [Encoding::Identity]) => {}
                Some(_) => {
                    if self.another() {
                        self.oddities(&item, &entity);
                        self.body(&item.read_as(suffix), &entity, range);
                    }
                }
            }
        }
    }

    /// Remembers where a header section of this length stands.
    fn remember_head(&mut self, item: &Item, entity: &Entity, length: usize) {
        let path = item.leaf_path();
        let head = item.data.slice(item.range.start..item.range.start + length);
        if item.decoded || path.contains(':') {
            return;
        }
        let of = match (item.depth, item.number) {
            (0, _) => HeadOf::Message,
            (_, Some(_)) => HeadOf::Part,
            (_, None) => HeadOf::Attached,
        };
        let holds = entity.has_type("multipart") || !entity.boundaries.is_empty();
        let path = if holds { String::new() } else { path };
        let head = self.place(&head).map(|range| Head { range, path, of });
        self.view.heads.extend(head);
    }

    fn report(&mut self, item: &Item, bytes: &[u8], section: &Section, entity: &Entity) {
        let path = item.leaf_path();
        for flaw in &section.flaws {
            let (kind, detail) = match flaw {
                Flaw::NotAField => (FindingKind::HeaderSyntax, ""),
                Flaw::OddName => (FindingKind::HeaderSyntax, "field name"),
                Flaw::BlankBeforeColon => (FindingKind::BlankBeforeColon, ""),
                Flaw::BlankLine => (FindingKind::HeaderBlankLine, ""),
                Flaw::BareCr => (FindingKind::HeaderControl, "lone CR"),
                Flaw::TooLong => (FindingKind::OverLimits, "header section"),
                Flaw::Unfinished => (FindingKind::HeaderUnfinished, ""),
            };
            self.find(kind, &path, detail);
        }
        self.oddities(item, entity);
        if entity.has_type("message/partial") {
            self.find(FindingKind::Fragment, &path, "");
        }
        if item.depth == 0 {
            for (kind, detail) in syntax::check(bytes, section) {
                self.find(kind, "", detail);
            }
        }
    }

    fn oddities(&mut self, item: &Item, entity: &Entity) {
        let path = item.leaf_path();
        self.ambiguous |= entity.unusual;
        for (kind, detail) in &entity.oddities {
            self.find(*kind, &path, detail.clone());
        }
    }

    /// Looks at a body as everything that its header section calls it: a multipart, a message, something else.
    fn body(&mut self, item: &Item, entity: &Entity, body: Range<usize>) {
        let may_divide = entity.has_type("multipart") || !entity.boundaries.is_empty() || entity.untyped;
        let division = if may_divide { self.multipart(item, entity, body.clone()) } else { Division::None };
        // To most programs what is guessed is one text.
        if division == Division::Guessed {
            self.leaf(item, entity, item.data.slice(body.clone()));
        }
        let divided = division != Division::None;
        let message = message_type(item, entity).filter(|_| !(divided && entity.types.is_empty()));
        if let Some(kind) = message {
            self.nested(item, entity, body.clone(), kind);
        }
        let bytes = item.data.slice(body);
        if !divided && message.is_none() {
            let before = (self.view.kept.len(), self.view.texts.len());
            self.leaf(item, entity, bytes.clone());
            return self.remember_body(item, entity, &bytes, before);
        }
        let holds = |kind: &str| kind.starts_with("multipart") || MESSAGE_TYPES.contains(&kind);
        let also = entity.types.iter().any(|kind| !holds(kind)) || divided && entity.types.is_empty();
        if also && division != Division::Guessed && self.another() {
            self.leaf(&item.read_as(":undivided"), entity, bytes);
        }
    }

    /// Notes the body of a leaf that is read in one way only and whose decoded bytes are given away. `before`: how many were before it.
    fn remember_body(&mut self, item: &Item, entity: &Entity, body: &Bytes, before: (usize, usize)) {
        let kept = self.view.kept.len() > before.0;
        let given = kept || self.view.texts.len() > before.1;
        let [encoding] = entity.encodings[..] else { return };
        if item.decoded || self.ambiguous || !given {
            return;
        }
        let Some(range) = self.place(body) else { return };
        if kept && encoding == Encoding::Base64 {
            self.view.encoded.push(range.clone());
        }
        self.view.bodies.push(range);
    }

    /// Where in the message these bytes of it lie.
    fn place(&self, piece: &Bytes) -> Option<Range<usize>> {
        let start = (piece.as_ptr() as usize).checked_sub(self.message.as_ptr() as usize)?;
        let end = start.checked_add(piece.len()).filter(|end| *end <= self.message.len())?;
        (!piece.is_empty()).then_some(start..end)
    }

    /// Puts the parts of a multipart on the list, those of every way to divide it.
    fn multipart(&mut self, item: &Item, entity: &Entity, body: Range<usize>) -> Division {
        let path = item.holder_path();
        let data = item.data.slice(body);
        let readings = self.divisions(entity, &data, &path);
        let Some((_, first)) = readings.first() else { return Division::None };
        let guessed = first.finding == Some(FindingKind::GuessedBoundary);
        if !first.split.closed {
            self.find(FindingKind::Unclosed, &path, "");
        }
        if first.split.after_close {
            self.find(FindingKind::PartsAfterClose, &path, "");
        }
        self.holder(item, entity, &path);
        let (before, behind) = (first.split.preamble.clone(), first.split.epilogue.clone());
        let whole = readings[0].0.clone();
        // The list is taken from its end, so the first part of the first reading goes onto it last.
        for (place, (data, reading)) in readings.into_iter().enumerate().rev() {
            if let Some(kind) = reading.finding {
                self.find(kind, &path, "");
            }
            if place == 0 || self.another() {
                self.put_parts(item, entity, data, &reading);
            }
        }
        self.edge(item, ":preamble", FindingKind::DataInPreamble, whole.slice(before));
        self.edge(item, ":epilogue", FindingKind::DataInEpilogue, whole.slice(behind));
        if guessed { Division::Guessed } else { Division::Declared }
    }

    /// All ways to divide a multipart, each with the bytes that it divides.
    fn divisions(&mut self, entity: &Entity, data: &Bytes, path: &str) -> Vec<(Bytes, multipart::Reading)> {
        let limit = self.limits.parts;
        let mut readings = multipart::readings(data, &entity.boundaries, limit);
        if !entity.has_type("multipart/digest") {
            self.drop_what_is_nested(data, &mut readings);
        }
        let mut readings: Vec<_> = readings.into_iter().map(|reading| (data.clone(), reading)).collect();
        if let Some(decoded) = self.decoded_multipart(entity, data) {
            self.find(FindingKind::EncodedMultipart, path, "");
            for mut reading in multipart::readings(&decoded, &entity.boundaries, limit) {
                reading.suffix.insert_str(0, if readings.is_empty() { "" } else { ":decoded" });
                readings.push((decoded.clone(), reading));
            }
        }
        if !readings.is_empty() {
            return readings;
        }
        if entity.has_type("multipart") {
            let unused = !entity.boundaries.is_empty();
            let kind = if unused { FindingKind::BoundaryUnused } else { FindingKind::BoundaryMissing };
            self.find(kind, path, "");
        }
        multipart::guessed(data, limit).map(|reading| (data.clone(), reading)).into_iter().collect()
    }

    /// Leaves out the reading by the beginnings of lines where it shows nothing that the reading by whole lines does not show.
    fn drop_what_is_nested(&self, data: &[u8], readings: &mut Vec<multipart::Reading>) {
        let explained = match &readings[..] {
            [lines, letter] if letter.finding == Some(FindingKind::LongerDelimiter) => {
                nesting::explains(data, &lines.split, &letter.split, self.limits)
            }
            _ => false,
        };
        if explained {
            readings.truncate(1);
        }
    }

    /// A multipart must not be encoded as a whole (RFC 2045 section 6.4), yet some clients decode it.
    fn decoded_multipart(&mut self, entity: &Entity, body: &Bytes) -> Option<Bytes> {
        let encoding = entity.encodings.iter().find(|e| matches!(e, Encoding::Base64 | Encoding::QuotedPrintable))?;
        if entity.boundaries.is_empty() || self.too_large(*encoding, body) {
            return None;
        }
        let decoded = decode(*encoding, body, Padding::Continues).bytes;
        let found = !multipart::readings(&decoded, &entity.boundaries, 1).is_empty();
        (found && self.spend(decoded.len())).then_some(decoded)
    }

    /// Puts the parts of one reading on the list.
    fn put_parts(&mut self, item: &Item, entity: &Entity, data: Bytes, reading: &multipart::Reading) {
        let in_digest = entity.has_type("multipart/digest");
        let prefix = item.holder_path() + &reading.suffix;
        let decoded = item.decoded || !is_within(&data, &item.data);
        for (place, range) in reading.split.parts.iter().enumerate().rev() {
            self.list.push(Item {
                data: data.clone(),
                range: range.clone(),
                prefix: prefix.clone(),
                number: Some(place + 1),
                suffix: String::new(),
                depth: item.depth + 1,
                in_digest,
                decoded,
                container: item.container,
            });
        }
    }

    /// What stands before or behind the parts of a multipart is for nobody, and mostly blank or a note for programs without MIME.
    /// Where it holds something, programs that show everything show that.
    fn edge(&mut self, item: &Item, suffix: &str, kind: FindingKind, bytes: Bytes) {
        if bytes.trim_ascii().is_empty() {
            return;
        }
        let path = item.holder_path() + suffix;
        let edge = Item { prefix: path.clone(), number: None, suffix: String::new(), ..item.clone() };
        if let Some(reading) = multipart::guessed(&bytes, self.limits.parts) {
            self.find(kind, &path, "parts");
            return self.put_parts(&edge, &Entity::default(), bytes, &reading);
        }
        let base64 = codec::looks_like_base64(&bytes);
        if base64 || format::may_hold(&bytes) {
            self.find(kind, &path, "");
            let encodings = [Encoding::Identity, Encoding::Base64];
            let encodings = encodings[..1 + usize::from(base64)].to_vec();
            self.leaf(&edge, &Entity { encodings, ..Entity::default() }, bytes);
        }
    }

    /// Puts the message inside a message/rfc822 on the list, once per encoding that is named or shows.
    fn nested(&mut self, item: &Item, entity: &Entity, body: Range<usize>, kind: &'static str) {
        let path = item.leaf_path();
        self.holder(item, entity, &path);
        let bytes = item.data.slice(body);
        let mut encodings = entity.encodings.clone();
        let other = if encodings == [Encoding::Identity] {
            codec::looks_like_base64(&bytes).then_some(Encoding::Base64)
        } else {
            // It must not be encoded (RFC 2046 section 5.2.1), and when a field stands there it is not.
            let field = header::read(&bytes, self.limits).fields.first().is_some_and(|field| field.name.start == 0);
            (field && !encodings.contains(&Encoding::Identity)).then_some(Encoding::Identity)
        };
        if other.is_some() && self.another() {
            encodings.extend(other);
        }
        for (place, encoding) in encodings.iter().enumerate().rev() {
            let (data, decoded) = match encoding {
                Encoding::Identity | Encoding::Unknown => (bytes.clone(), item.decoded),
                encoding => {
                    let decoded = decode(*encoding, &bytes, Padding::Ends).bytes;
                    if !self.spend(decoded.len()) {
                        self.find(FindingKind::OverLimits, &path, "expansion");
                        continue;
                    }
                    (decoded, true)
                }
            };
            let suffix = suffix(place, *encoding);
            self.list.push(Item {
                range: header::mailbox_line(&data)..data.len(),
                data,
                prefix: format!("{path}{suffix}"),
                number: None,
                suffix: String::new(),
                depth: item.depth + 1,
                in_digest: false,
                decoded,
                container: Some(kind),
            });
        }
    }

    fn holder(&mut self, item: &Item, entity: &Entity, path: &str) {
        self.view.parts.push(Part {
            path: path.to_owned(),
            names: entity.names.clone(),
            types: entity.types.clone(),
            detected_type: String::new(),
            size: 0,
            digest: Digest::default(),
            container: item.container,
            leaf: false,
        });
    }

    /// Describes a leaf, once per reading of its bytes.
    fn leaf(&mut self, item: &Item, entity: &Entity, body: Bytes) {
        let path = item.leaf_path();
        let mut encodings = entity.encodings.clone();
        if let Some(encoding) = undeclared(entity, &body)
            && self.another()
        {
            self.find(FindingKind::UndeclaredEncoding, &path, "base64");
            encodings.push(encoding);
        }
        for (place, encoding) in encodings.into_iter().enumerate() {
            if self.too_large(encoding, &body) {
                self.find(FindingKind::OverLimits, &path, "part");
                continue;
            }
            let suffix = suffix(place, encoding);
            let reading = decode(encoding, &body, Padding::Ends);
            let odd = place > 0 || reading.junk > 0;
            if reading.junk > 0 {
                self.find(FindingKind::EncodingJunk, &path, format!("{} characters", reading.junk));
            }
            self.reading(item, entity, format!("{path}{suffix}"), reading.bytes, reading.decoded, odd);
            if reading.data_after_padding {
                self.find(FindingKind::DataAfterPadding, &path, "");
                let whole = decode(encoding, &body, Padding::Continues).bytes;
                self.reading(item, entity, format!("{path}{suffix}:whole"), whole, true, true);
            }
        }
    }

    /// Whether a part is larger than is looked at.
    fn too_large(&self, encoding: Encoding, body: &[u8]) -> bool {
        let size = if encoding == Encoding::Base64 { body.len() / 4 * 3 } else { body.len() };
        size as u64 > self.limits.part_bytes
    }

    fn reading(&mut self, item: &Item, entity: &Entity, path: String, bytes: Bytes, decoded: bool, odd: bool) {
        if decoded && !self.spend(bytes.len()) {
            return self.find(FindingKind::OverLimits, &path, "expansion");
        }
        let detected_type = kind::detect(&bytes);
        // The scanner gets the raw message in any case. Text it finds in there by itself, unless something about
        // the message may make it read on another way than we did.
        let known = detected_type.starts_with("text/") && !format::may_hold(&bytes);
        self.view.parts.push(Part {
            path: path.clone(),
            names: entity.names.clone(),
            types: entity.types.clone(),
            detected_type,
            size: bytes.len() as u64,
            digest: Digest::of(&bytes, self.limits.sha256),
            container: item.container,
            leaf: true,
        });
        if !bytes.is_empty() && (odd || item.decoded || self.ambiguous || !known) {
            self.view.kept.push(Kept { path, bytes, alike: false });
        } else if !bytes.is_empty() && self.limits.texts {
            self.view.texts.push(bytes);
        }
    }

    /// Takes decoded bytes off the budget; false when they do not fit.
    fn spend(&mut self, bytes: usize) -> bool {
        self.budget.reading(bytes).is_ok()
    }

    /// Says when another reading shows a file that the first one does not: then some see an attachment that others do not.
    fn compare_readings(&mut self) {
        let is_other = |part: &&Part| part.path.contains(':');
        if !self.view.parts.iter().any(|part| is_other(&part)) {
            return;
        }
        let leaves = || self.view.parts.iter().filter(|part| part.leaf);
        let first: HashSet<&Digest> = leaves().filter(|part| !is_other(part)).map(|part| &part.digest).collect();
        let differs = |part: &&Part| is_other(part) && is_file(&part.detected_type) && !first.contains(&part.digest);
        let found = leaves().find(differs).map(|part| (part.path.clone(), part.detected_type.clone()));
        if let Some((path, kind)) = found {
            self.find(FindingKind::ReadingsDiffer, &path, kind);
        }
    }
}

/// Whether content of this type is a file; what a wrong reading shows is text or noise.
fn is_file(detected_type: &str) -> bool {
    let noise = ["application/octet-stream", "application/x-empty"].contains(&detected_type);
    !noise && !detected_type.starts_with("text/") && !detected_type.starts_with("message/")
}

/// More findings than this say nothing new; a kind that puts the message into a category comes early or repeats.
const MAX_FINDINGS: usize = 300;

/// Under which type the entity holds a message, if it does.
fn message_type(item: &Item, entity: &Entity) -> Option<&'static str> {
    if item.in_digest && entity.types.is_empty() {
        return Some(MESSAGE_TYPES[0]);
    }
    MESSAGE_TYPES.into_iter().find(|kind| entity.types.iter().any(|declared| declared == kind))
}

/// An encoding that no field names and that shows: in a part whose encoding is not known, and in a file that is said to be none.
fn undeclared(entity: &Entity, body: &[u8]) -> Option<Encoding> {
    let no_text = !entity.names.is_empty() || entity.types.iter().any(|kind| !kind.starts_with("text/"));
    let open = entity.encodings.contains(&Encoding::Unknown) || entity.encodings == [Encoding::Identity] && no_text;
    let seen = open && !entity.encodings.contains(&Encoding::Base64) && codec::looks_like_base64(body);
    seen.then_some(Encoding::Base64)
}

/// What tells the path of a further reading from that of the first.
fn suffix(place: usize, encoding: Encoding) -> &'static str {
    match (place, encoding) {
        (0, _) => "",
        (_, Encoding::Base64) => ":base64",
        (_, Encoding::QuotedPrintable) => ":quoted-printable",
        (_, Encoding::Identity | Encoding::Unknown) => ":identity",
    }
}

/// Whether these bytes are a piece of those.
fn is_within(piece: &Bytes, whole: &Bytes) -> bool {
    whole.as_ptr_range().contains(&piece.as_ptr()) || piece.is_empty()
}

/// Whether a body holds parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Division {
    /// It does not.
    None,
    /// By a boundary that its header section names.
    Declared,
    /// By what looks like delimiters.
    Guessed,
}

/// One reading of a body.
struct Reading {
    bytes: Bytes,
    decoded: bool,
    junk: usize,
    data_after_padding: bool,
}

fn decode(encoding: Encoding, body: &Bytes, padding: Padding) -> Reading {
    let decoded: Decoded = match encoding {
        Encoding::Identity | Encoding::Unknown => {
            return Reading { bytes: body.clone(), decoded: false, junk: 0, data_after_padding: false };
        }
        Encoding::Base64 => codec::base64(body, padding),
        Encoding::QuotedPrintable => codec::quoted_printable(body),
    };
    let Decoded { bytes, junk, data_after_padding } = decoded;
    Reading { bytes: bytes.into(), decoded: true, junk, data_after_padding }
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
