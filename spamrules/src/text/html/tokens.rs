// SPDX-License-Identifier: GPL-3.0-or-later
//! HTML source to tags, text, comments and declarations, with the tolerance of the parser that SpamAssassin uses (HTML::Parser, in its mode
//! that is neither strict about names nor about comments). Not an HTML 5 tokenizer: what rules count depends on these very mistakes.
//!
//! One pass; only an unfinished construct at the very end is looked at a second time.

use std::collections::VecDeque;

/// A piece of HTML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'t> {
    /// A start tag, its name as written; its attributes are those of [`Tokens::attributes`].
    Start(&'t [u8]),
    /// An end tag, its name as written.
    End(&'t [u8]),
    /// Text; `literal` text has no entities.
    Text { text: &'t [u8], literal: bool },
    /// A comment with its marks.
    Comment(&'t [u8]),
    /// `<!DOCTYPE …>` or `<!ENTITY …>`.
    Declaration(&'t [u8]),
}

/// An attribute as written: its name, and its value without quotes, where there is one.
pub(super) type Attribute<'t> = (&'t [u8], Option<&'t [u8]>);

/// Elements whose content is text; the flag: without entities.
const LITERAL: [(&[u8], bool); 7] = [
    (b"script", true),
    (b"style", true),
    (b"xmp", true),
    (b"iframe", true),
    (b"plaintext", true),
    (b"title", false),
    (b"textarea", false),
];

/// Most nested marked sections (`<![CDATA[`) that are kept apart.
const MAX_SECTIONS: usize = 64;

/// What a marked section does to its content; the greatest of those that are open holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    None,
    Include,
    References,
    Characters,
    Ignore,
}

/// What a construct turned out to be.
enum Found {
    /// Complete; goes on there.
    Until(usize),
    /// It is text.
    Not,
    /// The source ends in it.
    Unfinished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Feed,
    Tail,
    Done,
}

/// The tokens of a source.
pub(super) struct Tokens<'t> {
    source: &'t [u8],
    /// Where what is not yet reported begins.
    at: usize,
    /// Up to here there is no construct.
    scanned: usize,
    phase: Phase,
    literal: Option<(&'static [u8], bool)>,
    pending_end: Option<&'static [u8]>,
    sections: Vec<Section>,
    short_comments: bool,
    /// The rest of the source is read a second time.
    again: bool,
    /// A script was never closed: entities are no longer read.
    stuck: bool,
    ready: VecDeque<Token<'t>>,
    attributes: Vec<Attribute<'t>>,
}

impl<'t> Tokens<'t> {
    pub(super) fn new(source: &'t [u8]) -> Tokens<'t> {
        Tokens {
            source,
            at: 0,
            scanned: 0,
            phase: Phase::Feed,
            literal: None,
            pending_end: None,
            sections: Vec::new(),
            short_comments: false,
            again: false,
            stuck: false,
            ready: VecDeque::new(),
            attributes: Vec::new(),
        }
    }

    /// The attributes of the start tag just given, in order.
    pub(super) fn attributes(&self) -> &[Attribute<'t>] {
        &self.attributes
    }

    pub(super) fn next(&mut self) -> Option<Token<'t>> {
        loop {
            if let Some(token) = self.ready.pop_front() {
                return Some(token);
            }
            match self.phase {
                Phase::Feed if self.literal.is_some() => self.literal_text(),
                Phase::Feed if matches!(self.section(), Section::Characters | Section::References) => {
                    self.section_text()
                }
                Phase::Feed => self.markup(),
                Phase::Tail => self.tail(),
                Phase::Done => return None,
            }
        }
    }

    fn byte(&self, at: usize) -> u8 {
        self.source.get(at).copied().unwrap_or(0)
    }

    fn slice(&self, from: usize, to: usize) -> &'t [u8] {
        self.source.get(from..to).unwrap_or_default()
    }

    /// First place from `from` where `wanted` holds; the end when there is none.
    fn find(&self, from: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.source.get(from..).unwrap_or_default();
        rest.iter().position(|&byte| wanted(byte)).map_or(self.source.len(), |at| from + at)
    }

    fn skip_space(&self, from: usize) -> usize {
        self.find(from, |byte| !is_space(byte))
    }

    fn section(&self) -> Section {
        self.sections.iter().copied().max().unwrap_or(Section::None)
    }

    fn report(&mut self, token: Token<'t>) {
        if self.section() == Section::Ignore {
            return;
        }
        if !matches!(token, Token::Text { .. } | Token::Comment(_)) {
            self.end_pending();
        }
        self.ready.push_back(token);
    }

    /// An element that was never closed ends at the first construct after its text.
    fn end_pending(&mut self) {
        if self.section() != Section::Ignore {
            self.ready.extend(self.pending_end.take().map(Token::End));
        }
    }

    fn report_text(&mut self, from: usize, to: usize) {
        if from < to {
            let within = self.literal.is_some_and(|(_, literal)| literal) || self.section() == Section::Characters;
            let literal = within || self.stuck;
            self.report(Token::Text { text: self.slice(from, to), literal });
        }
    }

    /// Text of an element that holds nothing else, up to its end tag.
    fn literal_text(&mut self) {
        let Some((name, _)) = self.literal else { return };
        let mut from = self.at;
        while let Some(open) = memchr::memchr(b'<', self.source.get(from..).unwrap_or_default()).map(|at| from + at) {
            from = open + 1;
            let end = open + 2 + name.len();
            let matches = self.byte(open + 1) == b'/' && self.slice(open + 2, end).eq_ignore_ascii_case(name);
            if !matches || name == b"plaintext" {
                continue;
            }
            let close = self.skip_space(end);
            if self.byte(close) == b'>' {
                self.report_text(self.at, open);
                self.literal = None;
                self.stuck = false;
                self.report(Token::End(self.slice(open + 2, end)));
                self.at = close + 1;
                return;
            }
        }
        self.phase = Phase::Tail;
    }

    /// Text of a CDATA or RCDATA section, up to `]]>`.
    fn section_text(&mut self) {
        let rest = self.source.get(self.at..).unwrap_or_default();
        match memchr::memmem::find(rest, b"]]>") {
            Some(len) => {
                self.report_text(self.at, self.at + len);
                self.at += len + 3;
                self.sections.pop();
            }
            None => self.phase = Phase::Tail,
        }
    }

    /// Text and then one construct.
    fn markup(&mut self) {
        let Some(open) = self.text_end(self.at.max(self.scanned)) else { return };
        self.report_text(self.at, open);
        self.at = open;
        if self.source.len() - open < 3 {
            self.phase = Phase::Tail;
            return;
        }
        match self.construct(open) {
            Found::Until(next) => self.at = next,
            Found::Unfinished => self.phase = Phase::Tail,
            Found::Not => self.scanned = open + 1,
        }
    }

    /// The place of the next `<`. Without one the text at the end is reported, but for its last word, which might go on.
    fn text_end(&mut self, from: usize) -> Option<usize> {
        let mut from = from;
        let marked = !self.sections.is_empty();
        while let Some(len) = {
            let rest = self.source.get(from..).unwrap_or_default();
            if marked { memchr::memchr2(b'<', b']', rest) } else { memchr::memchr(b'<', rest) }
        } {
            let found = from + len;
            if self.byte(found) == b'<' {
                return Some(found);
            }
            if self.slice(found, found + 3) == b"]]>" {
                self.report_text(self.at, found);
                self.at = found + 3;
                self.sections.pop();
                return None;
            }
            from = found + 1;
        }
        let text = self.slice(self.at, self.source.len());
        let blanks = |text: &[u8]| text.iter().rev().take_while(|&&byte| is_space(byte)).count();
        let word = if blanks(text) > 0 { 0 } else { text.iter().rev().take_while(|&&byte| !is_space(byte)).count() };
        let kept = text.get(..text.len() - word).unwrap_or_default();
        let end = self.at + kept.len() - blanks(kept);
        self.report_text(self.at, end);
        self.at = end;
        self.phase = Phase::Tail;
        None
    }

    /// What begins with the `<` at `open`.
    fn construct(&mut self, open: usize) -> Found {
        match self.byte(open + 1) {
            byte if begins_name(byte) => self.start_tag(open),
            b'/' => self.end_tag(open),
            b'!' => self.declaration(open),
            b'?' => match memchr::memchr(b'>', self.source.get(open..).unwrap_or_default()) {
                Some(len) => {
                    self.end_pending();
                    Found::Until(open + len + 1)
                }
                None => Found::Unfinished,
            },
            _ => Found::Not,
        }
    }

    fn start_tag(&mut self, open: usize) -> Found {
        let end = self.source.len();
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.clear();
        let name_end = self.find(open + 2, |byte| is_space(byte) || byte == b'>');
        let mut at = self.skip_space(name_end);
        while at < end && self.byte(at) != b'>' {
            match self.attribute(at) {
                Some((attribute, next)) => {
                    attributes.push(attribute);
                    at = next;
                }
                None => at = end,
            }
        }
        self.attributes = attributes;
        if at >= end {
            return Found::Unfinished;
        }
        let name = self.slice(open + 1, name_end);
        self.report(Token::Start(name));
        self.literal = LITERAL.into_iter().find(|(literal, _)| literal.eq_ignore_ascii_case(name));
        self.stuck &= self.literal.is_none();
        Found::Until(at + 1)
    }

    /// The attribute at `at`, and the place after it and the blanks that follow; `None`: the source ends in it.
    fn attribute(&self, at: usize) -> Option<(Attribute<'t>, usize)> {
        let end = self.source.len();
        let name_end = self.find(at + 1, |byte| is_space(byte) || byte == b'>' || byte == b'=');
        let name = self.slice(at, name_end);
        let next = self.skip_space(name_end);
        if next >= end {
            return None;
        }
        if self.byte(next) != b'=' {
            return Some(((name, None), next));
        }
        let start = self.skip_space(next + 1);
        let quote = self.byte(start);
        let (value, next) = match quote {
            _ if start >= end => return None,
            b'>' => return Some(((name, Some(b"")), start)),
            b'"' | b'\'' => {
                let len = memchr::memchr(quote, self.source.get(start + 1..)?)?;
                (self.slice(start + 1, start + 1 + len), start + len + 2)
            }
            _ => {
                let stop = self.find(start, |byte| is_space(byte) || byte == b'>');
                (self.slice(start, stop), stop)
            }
        };
        let next = self.skip_space(next);
        (next < end).then_some(((name, Some(value)), next))
    }

    fn end_tag(&mut self, open: usize) -> Found {
        let start = open + 2;
        let named = !is_space(self.byte(start)) && self.byte(start) != b'>';
        let name_end = if named { self.find(start, |byte| is_space(byte) || byte == b'>') } else { start };
        let Some(close) = self.close_of_tag(name_end) else { return Found::Unfinished };
        self.report(if named {
            Token::End(self.slice(start, name_end))
        } else {
            Token::Comment(self.slice(open, close + 1))
        });
        Found::Until(close + 1)
    }

    /// The `>` that is not between quotes; only quotes after a space or `=` count.
    fn close_of_tag(&self, from: usize) -> Option<usize> {
        let (mut quote, mut before) = (0, b' ');
        for (len, &byte) in self.source.get(from..)?.iter().enumerate() {
            match byte {
                b'>' if quote == 0 => return Some(from + len),
                b'"' | b'\'' if byte == quote => quote = 0,
                b'"' | b'\'' if quote == 0 && matches!(before, b' ' | b'=') => quote = byte,
                _ => {}
            }
            before = byte;
        }
        None
    }

    fn declaration(&mut self, open: usize) -> Found {
        let start = open + 2;
        let found = match self.byte(start) {
            b'-' if self.byte(start + 1) == b'-' => return self.comment(open),
            b'-' if start + 1 >= self.source.len() => return Found::Unfinished,
            b'[' => self.marked_section(open),
            b'>' => Found::Not,
            byte if byte.is_ascii_alphabetic() => self.doctype(open),
            _ => Found::Not,
        };
        match found {
            // up to the first `>` it is a comment
            Found::Not => match memchr::memchr(b'>', self.source.get(start..).unwrap_or_default()) {
                Some(len) => {
                    self.report(Token::Comment(self.slice(open, start + len + 1)));
                    Found::Until(start + len + 1)
                }
                None => Found::Unfinished,
            },
            other => other,
        }
    }

    /// `<!-- … -->`, with blanks between the dashes and the bracket.
    fn comment(&mut self, open: usize) -> Found {
        let mut from = open + 4;
        if self.short_comments {
            let close = memchr::memchr(b'>', self.source.get(from..).unwrap_or_default());
            let Some(close) = close.map(|len| from + len + 1) else { return Found::Unfinished };
            self.report(Token::Comment(self.slice(open, close)));
            return Found::Until(close);
        }
        while let Some(len) = memchr::memmem::find(self.source.get(from..).unwrap_or_default(), b"--") {
            let dashes = from + len;
            let close = self.skip_space(dashes + 2);
            if self.byte(close) == b'>' && close < self.source.len() {
                self.report(Token::Comment(self.slice(open, close + 1)));
                return Found::Until(close + 1);
            }
            // blanks were looked at once: the next dashes are not before `close`, or they begin right here
            from = if close > dashes + 2 { close } else { dashes + 1 };
        }
        Found::Unfinished
    }

    /// `<!DOCTYPE …>` and `<!ENTITY …>`.
    fn doctype(&mut self, open: usize) -> Found {
        let end = self.source.len();
        let start = open + 2;
        let name_end = self.find(start, |byte| !is_name(byte));
        if name_end >= end {
            return Found::Unfinished;
        }
        let name = self.slice(start, name_end);
        if !name.eq_ignore_ascii_case(b"doctype") && !name.eq_ignore_ascii_case(b"entity") {
            return Found::Not;
        }
        let mut at = name_end;
        loop {
            at = self.skip_space(at);
            if at >= end {
                return Found::Unfinished;
            }
            at = match self.byte(at) {
                quote @ (b'"' | b'\'') => match memchr::memchr(quote, self.source.get(at + 1..).unwrap_or_default()) {
                    Some(len) => at + len + 2,
                    None => return Found::Unfinished,
                },
                b'-' if at + 1 >= end => return Found::Unfinished,
                b'-' if self.byte(at + 1) != b'-' => return Found::Not,
                b'-' => match self.dashes(at + 2) {
                    Some(next) => next,
                    None => return Found::Unfinished,
                },
                b'>' => {
                    self.report(Token::Declaration(self.slice(open, at + 1)));
                    return Found::Until(at + 1);
                }
                _ => self.find(at + 1, |byte| is_space(byte) || byte == b'>'),
            };
        }
    }

    /// The place after the next `--`.
    fn dashes(&self, from: usize) -> Option<usize> {
        Some(from + memchr::memmem::find(self.source.get(from..)?, b"--")? + 2)
    }

    /// `<![name[`
    fn marked_section(&mut self, open: usize) -> Found {
        let end = self.source.len();
        let mut at = open + 3;
        let mut section = None;
        loop {
            at = self.skip_space(at);
            while begins_name(self.byte(at)) {
                let name_end = self.find(at, |byte| !is_name(byte));
                let name = self.slice(at, name_end);
                section = section.max(Some(section_named(name)));
                at = self.skip_space(name_end);
            }
            if at >= end {
                return Found::Unfinished;
            }
            match self.byte(at) {
                b'-' if self.byte(at + 1) == b'-' => match self.dashes(at + 2) {
                    Some(next) => at = next,
                    None => return Found::Unfinished,
                },
                b'[' if self.sections.len() < MAX_SECTIONS => {
                    self.sections.push(section.unwrap_or(Section::Include));
                    self.end_pending();
                    return Found::Until(at + 1);
                }
                _ => return Found::Not,
            }
        }
    }

    /// The source has ended: what was held back is settled.
    fn tail(&mut self) {
        let end = self.source.len();
        if self.at >= end && self.literal.is_none() {
            self.phase = Phase::Done;
            self.end_pending();
            return;
        }
        match self.literal {
            Some((name, _)) if matches!(name, b"script" | b"style") => {
                // read again: an element without content; otherwise one that ends with the source
                if !self.again {
                    self.report_text(self.at, end);
                    self.at = end;
                }
                self.literal = None;
                self.stuck = self.again;
                if self.at < end || !self.again {
                    self.report(Token::End(name));
                }
                self.phase = if self.again { Phase::Feed } else { Phase::Tail };
                return;
            }
            Some((b"title", _)) if self.at < end => {
                // read the rest again as if the title had ended
                self.literal = None;
                self.pending_end = Some(b"title");
                self.again = true;
                self.phase = Phase::Feed;
                return;
            }
            Some(_) => {
                self.report_text(self.at, end);
                self.literal = None;
            }
            None => {
                let rest = self.slice(self.at, end);
                if rest.starts_with(b"<!--") && rest.len() > 4 && !self.short_comments {
                    self.short_comments = true;
                    self.again = true;
                    self.phase = Phase::Feed;
                    return;
                }
                if rest.starts_with(b"<") && rest.get(1).is_none_or(|&byte| begins_construct(byte)) {
                    self.report(Token::Comment(rest));
                } else {
                    self.report_text(self.at, end);
                }
            }
        }
        self.at = end;
    }
}

/// The section of a name.
fn section_named(name: &[u8]) -> Section {
    match name.to_ascii_lowercase().as_slice() {
        b"include" => Section::Include,
        b"rcdata" => Section::References,
        b"cdata" => Section::Characters,
        b"ignore" => Section::Ignore,
        _ => Section::None,
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

fn begins_construct(byte: u8) -> bool {
    begins_name(byte) || matches!(byte, b'/' | b'!' | b'?')
}

fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':')
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-' | b'.')
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
