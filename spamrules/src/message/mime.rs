// SPDX-License-Identifier: GPL-3.0-or-later
//! Splitting a message into its parts, by SpamAssassin's rules: boundaries are lines, a lost one is forgiven, flags are kept for rules.
//!
//! Not a MIME parser for delivery. Depth and number of parts are limited; every line is looked at once per level.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::content_type::ContentType;
use super::head::{self, Head};
use super::headers::{Header, Headers, is_space};
use super::lines::{self, Lines};
use super::part::Part;

/// How many levels are opened.
const MAX_DEPTH: u32 = 20;
/// How many parts one multipart may have.
const MAX_PARTS: usize = 1000;
/// Longest line of a part; longer ones are broken.
const MAX_LINE: usize = 2048;

/// What the parser noticed, by the names under which rules ask for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) missing_head_body_separator: bool,
    pub(crate) truncated_header: bool,
    pub(crate) missing_mime_headers: bool,
    pub(crate) missing_mime_head_body_separator: bool,
    pub(crate) mime_epilogue_exists: bool,
    pub(crate) mimepart_limit_exceeded: bool,
    /// A boundary was opened and never closed (or closed twice).
    pub(crate) unbalanced_boundary: bool,
}

/// One part while the tree grows.
#[derive(Debug, Default)]
struct Node {
    part: Part,
    children: Vec<usize>,
}

/// Work that is left: a part, the boundary that divides it, its text, and how many levels may still be opened.
struct Task {
    node: usize,
    boundary: Option<Bytes>,
    text: Bytes,
    levels: u32,
}

/// The tree of a message while it is built.
#[derive(Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    queue: VecDeque<Task>,
    flags: Flags,
    boundaries: HashMap<Bytes, i64>,
}

/// The parts of a message, in the order in which rules meet them, and what was noticed.
pub(super) fn parse(head: &mut Head) -> (Vec<Part>, Flags) {
    let mut tree = Tree::default();
    tree.flags.missing_head_body_separator = head.missing_separator;
    tree.flags.truncated_header = head.truncated;
    tree.add_message(head, MAX_DEPTH);
    while let Some(task) = tree.queue.pop_front() {
        tree.open(task);
    }
    tree.flags.unbalanced_boundary = tree.boundaries.values().any(|&open| open != 0);
    (order(tree.nodes), tree.flags)
}

impl Tree {
    /// Adds a message, the top one or one inside it; gives its place.
    fn add_message(&mut self, head: &mut Head, levels: u32) -> usize {
        let headers = Headers::new(std::mem::take(&mut head.fields));
        let content_type = content_type(&headers);
        let boundary = content_type.boundary.map(Bytes::from);
        let mut text = head.parsed.clone();
        let first = Lines::new(&text).next().unwrap_or_default();
        // a multipart body that begins at once with something else: its first lines are no header
        if content_type.kind.starts_with("multipart/")
            && first.len() < text.len()
            && !lines::is_blank(first)
            && !boundary.as_ref().is_some_and(|boundary| starts_with_boundary(first, boundary))
        {
            let mut longer = BytesMut::with_capacity(text.len() + 1);
            longer.extend_from_slice(b"\n");
            longer.extend_from_slice(&text);
            text = longer.freeze();
        }
        let node = self.nodes.len();
        let part = Part { headers, kind: content_type.kind, ..Part::default() };
        self.nodes.push(Node { part, children: Vec::new() });
        self.queue.push_back(Task { node, boundary, text, levels });
        node
    }

    fn kind(&self, node: usize) -> &str {
        self.nodes.get(node).map_or("", |node| &node.part.kind)
    }

    fn open(&mut self, task: Task) {
        match &task.boundary {
            Some(boundary) if task.levels > 0 && self.kind(task.node).starts_with("multipart/") => {
                let boundary = boundary.clone();
                self.split(&task, &boundary);
            }
            _ => self.leaf(task),
        }
    }

    /// A part with content; a message in it is opened in turn.
    fn leaf(&mut self, task: Task) {
        let Some(node) = self.nodes.get_mut(task.node) else { return };
        let part = &mut node.part;
        let content_type = content_type(&part.headers);
        if !content_type.missing {
            let kept = !content_type.kind.starts_with("multipart/") || task.boundary.is_some();
            part.kind = if kept { content_type.kind } else { "text/plain".to_owned() };
        }
        part.charset = content_type.charset;
        part.name = disposition_name(&part.headers).or(content_type.name);
        part.raw = Some(task.text);
        if task.levels == 0 || !matches!(part.kind.as_str(), "message/rfc822" | "message/global") {
            return;
        }
        let inner = part.shared();
        if inner.is_empty() {
            return;
        }
        part.open();
        let child = self.add_message(&mut head::divide(&inner), task.levels - 1);
        if let Some(node) = self.nodes.get_mut(task.node) {
            node.children.push(child);
        }
    }

    /// Divides a multipart at its boundary.
    fn split(&mut self, task: &Task, boundary: &Bytes) {
        let start = self.skip_preamble(&task.text, boundary);
        let mut splitter = Splitter::new(task.text.slice(start..), boundary.clone());
        let mut count = 0;
        while let Some(found) = splitter.next_part(&mut self.flags) {
            let last = found.closed;
            self.add_part(task, found);
            if last {
                *self.boundaries.entry(boundary.clone()).or_default() -= 1;
                break;
            }
            splitter.look_at_header(&mut self.flags);
            count += 1;
            if count == MAX_PARTS {
                self.flags.mimepart_limit_exceeded = true;
                return;
            }
        }
        if !splitter.rest().iter().all(|&byte| is_space(byte) || byte == b'.') {
            self.flags.mime_epilogue_exists = true;
        }
    }

    /// The place after the first boundary; 0 when there is none.
    fn skip_preamble(&mut self, text: &Bytes, boundary: &Bytes) -> usize {
        let mut at = 0;
        let mut lines = Lines::new(text);
        while let Some(line) = lines.next() {
            at += line.len();
            if is_boundary(line, boundary) == Some(false) {
                self.boundaries.insert(boundary.clone(), 1);
                if lines.next().is_some_and(|line| !lines::is_strict_field(line)) {
                    self.flags.missing_mime_headers = true;
                }
                return at;
            }
        }
        0
    }

    fn add_part(&mut self, task: &Task, found: Found) {
        let headers = Headers::new(found.fields);
        let mut content_type = content_type(&headers);
        if content_type.missing && self.kind(task.node) == "multipart/digest" {
            content_type.kind = "message/rfc822".to_owned();
        }
        let own = content_type.boundary.filter(|own| own != b"0").map(Bytes::from);
        let boundary = own.or_else(|| task.boundary.clone());
        let child = self.nodes.len();
        let part = Part { headers, kind: content_type.kind, ..Part::default() };
        self.nodes.push(Node { part, children: Vec::new() });
        if let Some(node) = self.nodes.get_mut(task.node) {
            node.children.push(child);
        }
        self.queue.push_back(Task { node: child, boundary, text: found.text, levels: task.levels - 1 });
    }
}

fn content_type(headers: &Headers) -> ContentType {
    ContentType::parse(headers.last("content-type").map(|field| field.decoded()))
}

/// The file name of a `Content-Disposition:` field.
fn disposition_name(headers: &Headers) -> Option<Vec<u8>> {
    let text = headers.last("content-disposition")?.decoded();
    let lower = text.to_ascii_lowercase();
    memchr::memmem::find_iter(&lower, b"name=").find_map(|at| {
        let rest = text.get(at + 5..)?;
        let value = rest.trim_ascii_start();
        let quoted = value.strip_prefix(b"\"").unwrap_or(value);
        let end = quoted.iter().position(|&byte| matches!(byte, b'"' | b';')).unwrap_or(quoted.len());
        let name = quoted.get(..end).filter(|name| !name.is_empty());
        // only blanks before the quote or semicolon: they are the name
        name.or_else(|| rest.get(..rest.len() - value.len()).filter(|blanks| !blanks.is_empty())).map(<[u8]>::to_vec)
    })
}

/// `Some(false)` for a line that opens a part, `Some(true)` for the one after the last.
fn is_boundary(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    match rest.strip_prefix(b"--") {
        Some(rest) if lines::is_blank(rest) => Some(true),
        _ => lines::is_blank(rest).then_some(false),
    }
}

fn starts_with_boundary(line: &[u8], boundary: &[u8]) -> bool {
    line.strip_prefix(b"--").is_some_and(|rest| rest.starts_with(boundary))
}

/// One part as it was found in its multipart.
struct Found {
    fields: Vec<Header>,
    text: Bytes,
    /// The boundary after it is the last one.
    closed: bool,
}

/// Walks over the lines of one multipart.
struct Splitter {
    text: Bytes,
    at: usize,
    boundary: Bytes,
    /// A part declares the very boundary that divides us: one level of it is passed over.
    nested: bool,
}

impl Splitter {
    fn new(text: Bytes, boundary: Bytes) -> Splitter {
        Splitter { text, at: 0, boundary, nested: false }
    }

    /// What has not been read.
    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// After a boundary a header should begin.
    fn look_at_header(&self, flags: &mut Flags) {
        if Lines::new(self.rest()).next().is_some_and(|line| !lines::is_strict_field(line)) {
            flags.missing_mime_headers = true;
        }
    }

    /// Reads up to the next boundary or the end.
    fn next_part(&mut self, flags: &mut Flags) -> Option<Found> {
        if self.rest().is_empty() {
            return None;
        }
        let text = self.text.clone();
        let mut fields = Fields::default();
        let mut body: Option<usize> = None;
        let mut long = false;
        loop {
            let line = Lines::new(text.get(self.at..).unwrap_or_default()).next()?;
            let start = self.at;
            self.at += line.len();
            let mut end = is_boundary(line, &self.boundary);
            if let Some(closing) = end.filter(|_| self.nested) {
                self.nested = !closing;
                end = None;
            }
            if let Some(closed) = end {
                let from = body.unwrap_or(start);
                // the line end before a boundary belongs to the boundary (RFC 2046, section 5.1.1)
                let to = if start > from && text.get(start - 1) == Some(&b'\n') { start - 1 } else { start };
                return Some(Found { fields: fields.done, text: broken(text.slice(from..to), long), closed });
            }
            let last = self.at == text.len();
            if body.is_none() && !last && !fields.take(&text, start, line) {
                self.nested |= fields.finish(&text, start, &self.boundary);
                let empty = matches!(line, b"\n" | b"\r\n" | b"\r" | b"");
                flags.missing_mime_head_body_separator |= !empty;
                body = Some(if empty { self.at } else { start });
            }
            long |= line.len() > MAX_LINE;
            if last {
                let from = body.unwrap_or(start);
                return Some(Found { fields: fields.done, text: broken(text.slice(from..), long), closed: false });
            }
        }
    }
}

/// The header of a part while it is read.
#[derive(Default)]
struct Fields {
    done: Vec<Header>,
    open: Option<usize>,
}

impl Fields {
    /// Takes a line of the header; false when it belongs to the body.
    fn take(&mut self, text: &Bytes, start: usize, line: &[u8]) -> bool {
        if lines::is_field(line) {
            self.flush(text, start);
            self.open = Some(start);
            return true;
        }
        matches!(line.first(), Some(b' ' | b'\t')) && self.open.is_some()
    }

    fn flush(&mut self, text: &Bytes, end: usize) {
        let Some(from) = self.open.take() else { return };
        let field = text.slice(from..end);
        let colon = memchr::memchr(b':', &field).unwrap_or(field.len());
        let name = field.slice(..colon);
        let value = field.slice((colon + 1).min(field.len())..);
        let blanks = value.iter().take_while(|&&byte| is_space(byte)).count();
        self.done.push(Header::new(name, value.slice(blanks..)));
    }

    /// The header is complete; whether its last field declares `boundary` for the part, too.
    fn finish(&mut self, text: &Bytes, end: usize, boundary: &Bytes) -> bool {
        if self.open.is_none() {
            return false;
        }
        self.flush(text, end);
        let last = self.done.last().filter(|field| field.name.eq_ignore_ascii_case(b"content-type"));
        last.is_some_and(|field| {
            ContentType::parse(Some(field.decoded())).boundary.is_some_and(|inner| inner == boundary[..])
        })
    }
}

/// Breaks lines that are too long.
fn broken(text: Bytes, long: bool) -> Bytes {
    if !long {
        return text;
    }
    let mut out = BytesMut::with_capacity(text.len() + text.len() / MAX_LINE + 1);
    for line in Lines::new(&text) {
        let mut rest = line;
        while rest.len() > MAX_LINE {
            let (piece, after) = rest.split_at(MAX_LINE);
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\n");
            rest = after;
        }
        out.extend_from_slice(rest);
    }
    out.freeze()
}

/// The tree as a list: every part is followed by the parts inside it.
fn order(mut nodes: Vec<Node>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(nodes.len());
    let mut left = vec![(0usize, 0u32)];
    while let Some((place, depth)) = left.pop() {
        let Some(node) = nodes.get_mut(place) else { continue };
        left.extend(node.children.iter().rev().map(|&child| (child, depth + 1)));
        parts.push(Part { depth, ..std::mem::take(&mut node.part) });
    }
    // a part holds what follows it and lies deeper
    let mut open: Vec<usize> = Vec::new();
    for place in 0..=parts.len() {
        let depth = parts.get(place).map_or(0, |part| part.depth);
        while let Some(&top) = open.last().filter(|&&top| parts.get(top).is_some_and(|part| part.depth >= depth)) {
            open.pop();
            if let Some(part) = parts.get_mut(top) {
                part.inside = top + 1..place;
            }
        }
        open.push(place);
    }
    parts
}

#[cfg(test)]
#[path = "mime_tests.rs"]
mod tests;
