// SPDX-License-Identifier: GPL-3.0-or-later
//! Rendering: tags and texts of one HTML source to the text that a reader sees, with all facts gathered on the way.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::attributes::Attributes;
use super::facts::Facts;
use super::pieces::Pieces;
use super::style::{Element, Styles, Unseen};
use super::tokens::{Token, Tokens};
use super::{entities, words};
use crate::text::chars::{Chars, space_len};

/// Most different element names that are kept apart.
const MAX_NAMES: usize = 1 << 16;

/// A rendered source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rendered {
    pub(crate) pieces: Pieces,
    pub(crate) facts: Facts,
}

/// Renders a source. `octets`: how long it was before its charset was decoded.
pub(crate) fn render(source: &Chars, octets: usize) -> Rendered {
    let wide = source.is_wide();
    let mut renderer = Renderer { wide, ..Renderer::default() };
    renderer.facts.length = source.count();
    let tidy = tidy(source.octets(), wide);
    let mut tokens = Tokens::new(&tidy);
    while let Some(token) = tokens.next() {
        match token {
            Token::Start(name) => renderer.tag(name, Some(&Attributes::new(tokens.attributes(), wide))),
            Token::End(name) => renderer.tag(name, None),
            Token::Text { text, literal } => renderer.source_text(text, literal),
            Token::Comment(text) => renderer.comment(text),
            Token::Declaration(text) => renderer.declaration(text),
        }
    }
    renderer.finish(octets)
}

/// Small repairs of the source: `&nbsp;` is a space, `<br/>` is `<br>`, typographic quotes are quotes.
fn tidy(source: &[u8], wide: bool) -> Cow<'_, [u8]> {
    static EMPTY: LazyLock<Regex> = LazyLock::new(|| pattern(r"<(\w+)\s*/>"));
    static EMPTY_OCTETS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?-u)<(\w+)\s*/>"));
    let mut text = Cow::Borrowed(source);
    if memchr::memmem::find(&text, b"&nbsp;").is_some() {
        text = Cow::Owned(replaced(&text, &[b"&nbsp;"], b" "));
    }
    if memchr::memmem::find(&text, b"/>").is_some() {
        let pattern = if wide { &EMPTY } else { &EMPTY_OCTETS };
        if let Cow::Owned(changed) = pattern.replace_all(&text, &b"<$1>"[..]) {
            text = Cow::Owned(changed);
        }
    }
    let quotes: [&[u8]; 2] = ["\u{201c}".as_bytes(), "\u{201d}".as_bytes()];
    if memchr::memmem::find(&text, b"\xe2\x80").is_some() {
        text = Cow::Owned(replaced(&text, &quotes, b"\""));
    }
    text
}

/// `text` with each of `what` replaced.
fn replaced(text: &[u8], what: &[&[u8]], by: &[u8]) -> Vec<u8> {
    let first = what.first().and_then(|word| word.first()).copied().unwrap_or_default();
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(first, rest) {
        let (before, found) = rest.split_at(at);
        out.extend_from_slice(before);
        match what.iter().find_map(|word| found.strip_prefix(*word)) {
            Some(after) => {
                out.extend_from_slice(by);
                rest = after;
            }
            None => {
                out.push(first);
                rest = found.get(1..).unwrap_or_default();
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern written here")
}

#[derive(Default)]
struct Renderer {
    wide: bool,
    facts: Facts,
    pieces: Pieces,
    styles: Styles,
    /// Where the text of an open anchor goes.
    anchor: Option<usize>,
    backhair: HashSet<(usize, usize)>,
    scratch: Chars,
    name: Vec<u8>,
}

impl Renderer {
    fn depth(&self, name: &[u8]) -> i64 {
        self.facts.inside.get(name).copied().unwrap_or(0)
    }

    /// A start tag (with attributes) or an end tag.
    fn tag(&mut self, name: &[u8], attributes: Option<&Attributes<'_>>) {
        let mut lower = std::mem::take(&mut self.name);
        lower.clear();
        lower.extend(name.iter().map(u8::to_ascii_lowercase));
        self.lower_tag(&lower, attributes);
        self.name = lower;
    }

    fn lower_tag(&mut self, name: &[u8], attributes: Option<&Attributes<'_>>) {
        let kind = words::kind(name);
        self.count(name, kind, attributes.is_some());
        if !matches!(kind, words::Kind::Element | words::Kind::Trick) {
            return;
        }
        if let Some(element) = Element::named(name) {
            match attributes {
                Some(attributes) => self.styles.open(element, attributes),
                None => self.styles.close(element),
            }
        }
        if let Some(blank) = words::blank(name) {
            self.pieces.push_blank(blank);
        }
        if let Some(attributes) = attributes {
            self.links(name, attributes);
            self.tests(name, attributes);
        }
    }

    fn count(&mut self, name: &[u8], kind: words::Kind, opens: bool) {
        let counts = matches!(kind, words::Kind::Element | words::Kind::Namespace);
        self.facts.tags += 1;
        self.facts.elements += u64::from(counts);
        let full = self.facts.inside.len() >= MAX_NAMES;
        let depth = match self.facts.inside.get_mut(name) {
            Some(depth) => depth,
            None => {
                self.facts.tags_seen += 1;
                self.facts.elements_seen += u64::from(counts);
                if full {
                    return;
                }
                self.facts.inside.entry(name.to_vec()).or_default()
            }
        };
        *depth += if opens { 1 } else { -1 };
        if *depth < 0 {
            *depth = 0;
            self.facts.closed_extra += 1;
        }
    }

    /// Attributes that link somewhere.
    fn links(&mut self, name: &[u8], attributes: &Attributes<'_>) {
        let Some(element) = words::link_element(name) else { return };
        let links = &mut self.facts.links;
        match element {
            "body" | "table" | "tr" | "td" => {
                if let Some(uri) = attributes.get(b"background") {
                    links.add(element, &uri);
                }
            }
            "a" | "area" | "link" => {
                if let Some(uri) = attributes.get_tolerantly(b"href") {
                    links.add(element, &without_mark(uri));
                }
                if let Some(uri) = attributes.get(b"data-saferedirecturl") {
                    links.add(element, &uri);
                }
            }
            "form" => {
                if let Some(uri) = attributes.get(b"action") {
                    links.add(element, &uri);
                }
            }
            "base" => {
                if let Some(uri) = attributes.get(b"href").filter(|uri| !matches!(uri.octets(), b"" | b"0")) {
                    links.add(element, &uri);
                    links.set_base(&uri);
                }
            }
            "meta" => self.refresh(attributes),
            _ => {
                if let Some(uri) = attributes.get_tolerantly(b"src") {
                    links.add(element, &uri);
                }
            }
        }
    }

    /// `<meta http-equiv=refresh content="0; url=…">`
    fn refresh(&mut self, attributes: &Attributes<'_>) {
        static URL: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i-u)^.*\burl\s*=\s*"));
        static ANY_URL: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i-u)\burl\s*="));
        static REST: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?-u)\s*;.*"));
        let (Some(equivalent), Some(content)) = (attributes.get(b"http-equiv"), attributes.get(b"content")) else {
            return;
        };
        if !contains(equivalent.octets(), b"refresh") || !ANY_URL.is_match(content.octets()) {
            return;
        }
        let uri = URL.replace(content.octets(), &b""[..]);
        let uri = REST.replace(&uri, &b""[..]);
        let mut target = Chars::default();
        target.push_octets(&uri, content.is_wide());
        self.facts.links.add("meta", &target);
    }

    /// What else rules ask about start tags.
    fn tests(&mut self, name: &[u8], attributes: &Attributes<'_>) {
        match name {
            b"font" => self.font_face(attributes),
            b"img" => self.image(attributes),
            b"form" => {
                let action = attributes.get(b"action");
                self.facts.form_action_mailto |= action.is_some_and(|action| contains(action.octets(), b"mailto:"));
            }
            b"object" | b"embed" => self.facts.embeds = true,
            b"a" => {
                self.anchor = self.facts.links.add_anchor(attributes.get(b"href").map(without_mark).as_ref());
                self.facts.anchors.push(Chars::default());
            }
            b"title" => self.facts.titles.push(Chars::default()),
            _ => {}
        }
    }

    /// A list of names of letters, blanks and dashes is a good one.
    fn font_face(&mut self, attributes: &Attributes<'_>) {
        static GOOD: LazyLock<Regex> = LazyLock::new(|| {
            pattern(r#"(?i-u)^\s*["'.]?[a-z ][a-z -]*[a-z]\d?["']?(?:,\s*["']?[a-z][a-z -]*[a-z]\d?["']?)*;?\n?$"#)
        });
        if let Some(face) = attributes.get(b"face") {
            self.facts.font_face_bad |= !GOOD.is_match(face.octets());
        }
    }

    fn image(&mut self, attributes: &Attributes<'_>) {
        if self.depth(b"a") > 0 {
            self.anchor_text(&Chars::from_octets(b"<img>\n"));
        }
        if let (Some(width), Some(height)) = (attributes.get(b"width"), attributes.get(b"height")) {
            self.facts.image_area += pixels(width.octets(), 8.0) * pixels(height.octets(), 6.0);
        }
    }

    fn anchor_text(&mut self, text: &Chars) {
        if let Some(place) = self.anchor {
            self.facts.links.add_text(place, text);
        }
        if let Some(anchor) = self.facts.anchors.last_mut() {
            anchor.push(text);
        }
    }

    fn source_text(&mut self, source: &[u8], literal: bool) {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        if literal {
            text.push_octets(source, self.wide);
        } else {
            entities::decode_octets(source, self.wide, true, &mut text);
        }
        self.text(&text);
        self.scratch = text;
    }

    fn text(&mut self, text: &Chars) {
        if self.depth(b"script") > 0 {
            self.facts.scripts.push(text.clone());
            return;
        }
        if self.depth(b"style") > 0 {
            return;
        }
        if self.depth(b"a") > 0 {
            self.anchor_text(text);
        }
        if self.depth(b"title") > 0
            && let Some(title) = self.facts.titles.last_mut()
        {
            title.push(text);
        }
        let unseen = if is_blank(text) { None } else { self.styles.unseen() };
        match unseen {
            Some(Unseen::LowContrast) => self.facts.font_low_contrast = true,
            Some(Unseen::InvalidColor) => self.facts.font_invalid_color = true,
            _ => {}
        }
        if let Some((before, wide)) = self.pieces.last() {
            self.facts.obfuscation += u64::from(words::is_split(before, wide, text));
            self.backhair.extend(words::halves(before, wide, text));
        }
        self.pieces.push_text(text, unseen.is_some());
    }

    fn own(&self, text: &[u8]) -> Chars {
        let mut out = Chars::default();
        out.push_octets(text, self.wide);
        out
    }

    fn comment(&mut self, text: &[u8]) {
        let comment = self.own(text);
        self.facts.comments.push(comment);
    }

    fn declaration(&mut self, text: &[u8]) {
        if text.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"<!doctype")) {
            self.facts.tags += 1;
            self.facts.elements += 1;
            self.facts.inside.insert(b"!doctype".to_vec(), 0);
        }
    }

    fn finish(mut self, octets: usize) -> Rendered {
        self.pieces.finish();
        let (text, wide) = self.pieces.all();
        let (mut length, mut solid, mut rest) = (0, 0, text);
        // ASCII stretches are counted bytewise
        while let Some(&first) = rest.first() {
            let step = match space_len(rest, wide) {
                0 if wide && first >= 0xc0 => {
                    1 + rest.iter().skip(1).take_while(|&&octet| octet & 0xc0 == 0x80).count()
                }
                0 => 1,
                len => len,
            };
            let blank =
                if wide { space_len(rest, true) > 0 } else { matches!(first, b' ' | b'\t' | b'\n' | b'\r' | 0x0b) };
            length += 1;
            solid += usize::from(!blank);
            rest = rest.get(step..).unwrap_or_default();
        }
        self.facts.text_length = length;
        self.facts.solid_length = solid;
        #[allow(clippy::cast_precision_loss)] // lengths of one message
        if octets > 0 {
            self.facts.ratio = Some((octets as f64 - length as f64) / octets as f64);
        }
        self.facts.smallest_font = self.styles.smallest;
        self.facts.largest_font = self.styles.largest;
        self.facts.backhair = (!self.backhair.is_empty()).then_some(self.backhair.len());
        Rendered { pieces: self.pieces, facts: self.facts }
    }
}

/// A link without the byte order marks in it.
fn without_mark(uri: Chars) -> Chars {
    let mark = "\u{feff}".as_bytes();
    if memchr::memmem::find(uri.octets(), mark).is_none() {
        return uri;
    }
    let mut out = Chars::default();
    out.push_octets(&replaced(uri.octets(), &[mark], b""), uri.is_wide());
    out
}

fn contains(text: &[u8], lower: &[u8]) -> bool {
    text.windows(lower.len()).any(|window| window.eq_ignore_ascii_case(lower))
}

/// A width or height in pixels; `per_cent` of the screen that is assumed.
fn pixels(text: &[u8], per_cent: f64) -> f64 {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let (digits, factor) = match text.strip_suffix(b"%") {
        Some(digits) => (digits, per_cent),
        None => (text, 1.0),
    };
    let number: f64 = match std::str::from_utf8(digits) {
        Ok(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().unwrap_or(0.0),
        _ => 0.0,
    };
    if number * factor > 0.0 { number * factor } else { 200.0 }
}

/// Nothing but blanks and non-breaking spaces in UTF-8 that was not decoded.
fn is_blank(text: &Chars) -> bool {
    let mut rest = text.octets();
    while !rest.is_empty() {
        match rest {
            [b'\t'..=b'\r' | b' ', after @ ..] => rest = after,
            [0xc2, 0xa0, after @ ..] if !text.is_wide() => rest = after,
            [0xc3, 0x82, 0xc2, 0xa0, after @ ..] if text.is_wide() => rest = after,
            _ => return false,
        }
    }
    true
}
