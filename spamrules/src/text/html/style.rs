// SPDX-License-Identifier: GPL-3.0-or-later
//! Which colours, size and visibility text has: the stack of open elements that change them, with their attributes and inline styles.
//! Style sheets are not read.

use super::attributes::Attributes;
use super::color::{BLACK, Color, WHITE};

/// Size of text before any element changes it.
pub(super) const BASE_SIZE: f64 = 3.0;

/// Elements that change how text looks; `th` counts as `td`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Body,
    Font,
    Table,
    Tr,
    Td,
    Big,
    Small,
    Basefont,
    Marquee,
    Span,
    P,
    Div,
    A,
}

const ELEMENTS: usize = 13;

impl Element {
    pub(super) fn named(name: &[u8]) -> Option<Element> {
        Some(match name {
            b"body" => Element::Body,
            b"font" => Element::Font,
            b"table" => Element::Table,
            b"tr" => Element::Tr,
            b"td" | b"th" => Element::Td,
            b"big" => Element::Big,
            b"small" => Element::Small,
            b"basefont" => Element::Basefont,
            b"marquee" => Element::Marquee,
            b"span" => Element::Span,
            b"p" => Element::P,
            b"div" => Element::Div,
            b"a" => Element::A,
            _ => return None,
        })
    }

    fn reads_style(self) -> bool {
        matches!(
            self,
            Element::Table | Element::Td | Element::Tr | Element::Span | Element::P | Element::Div | Element::A
        )
    }
}

/// How text looks.
#[derive(Debug, Clone, Copy)]
struct Look {
    foreground: Color,
    background: Color,
    size: f64,
    /// `display: none`
    gone: bool,
    /// `visibility: hidden`
    hidden: bool,
}

/// What makes text invisible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unseen {
    LowContrast,
    InvalidColor,
    Otherwise,
}

/// The open elements.
#[derive(Debug)]
pub(super) struct Styles {
    stack: Vec<(Element, Look)>,
    open: [usize; ELEMENTS],
    default: Look,
    base: f64,
    pub(super) smallest: f64,
    pub(super) largest: f64,
}

impl Default for Styles {
    fn default() -> Styles {
        let default = Look { foreground: BLACK, background: WHITE, size: BASE_SIZE, gone: false, hidden: false };
        Styles {
            stack: Vec::new(),
            open: [0; ELEMENTS],
            default,
            base: BASE_SIZE,
            smallest: BASE_SIZE,
            largest: BASE_SIZE,
        }
    }
}

impl Styles {
    fn look(&self) -> Look {
        self.stack.last().map_or(self.default, |&(_, look)| look)
    }

    /// A start tag.
    pub(super) fn open(&mut self, element: Element, attributes: &Attributes<'_>) {
        if element == Element::Basefont
            && let Some(size) = attributes.get(b"size").and_then(|size| number(size.octets()))
        {
            self.base = size;
            return;
        }
        if matches!(element, Element::Td | Element::Tr) {
            self.close_cells(element);
        }
        let mut look = self.look();
        match element {
            Element::Big => look.size += 1.0,
            Element::Small => look.size -= 1.0,
            _ => self.read(element, attributes, &mut look),
        }
        self.push(element, look);
    }

    fn push(&mut self, element: Element, look: Look) {
        self.open[element as usize] += 1;
        self.stack.push((element, look));
    }

    fn pop(&mut self) -> Option<Element> {
        let (element, _) = self.stack.pop()?;
        self.open[element as usize] -= 1;
        Some(element)
    }

    /// The attributes that this element has for looks.
    fn read(&mut self, element: Element, attributes: &Attributes<'_>, look: &mut Look) {
        let mut known = false;
        if matches!(element, Element::Font | Element::Basefont) {
            if let Some(color) = attributes.get(b"color") {
                look.foreground = Color::parse(color.octets());
                known = true;
            }
            if let Some(size) = attributes.get(b"size") {
                look.size = font_size(size.octets(), self.base).unwrap_or(look.size);
                known = true;
            }
            known |= attributes.has(b"face");
        }
        if element == Element::Body {
            if let Some(color) = attributes.get(b"text") {
                look.foreground = Color::parse(color.octets());
                known = true;
            }
            known |=
                [&b"bgcolor"[..], b"link", b"alink", b"vlink", b"background"].iter().any(|name| attributes.has(name));
        }
        if element.reads_style()
            && let Some(style) = attributes.get(b"style")
        {
            self.inline_style(style.octets(), look);
            known = true;
        }
        known |= matches!(element, Element::Table | Element::Td | Element::Tr | Element::Marquee)
            && attributes.has(b"bgcolor");
        if known && look.size > self.largest {
            self.largest = look.size;
        } else if known && look.size < self.smallest {
            self.smallest = look.size;
        }
    }

    fn inline_style(&self, style: &[u8], look: &mut Look) {
        for declaration in style.split(|&byte| byte == b';') {
            let Some(colon) = memchr::memchr(b':', declaration) else { continue };
            let (name, value) = declaration.split_at(colon);
            let (name, tight) = (name.trim_ascii_start(), !name.last().is_some_and(u8::is_ascii_whitespace));
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let property = name.trim_ascii_end();
            if value.is_empty() || value.contains(&b'\n') {
                continue;
            }
            if tight && property.eq_ignore_ascii_case(b"color") {
                set_color(&mut look.foreground, value);
            } else if tight && property.eq_ignore_ascii_case(b"background-color") {
                set_color(&mut look.background, value);
            } else if tight && property == b"background" {
                if let Some(color) = background_color(&value.to_ascii_lowercase()) {
                    look.background = color;
                }
            } else if property == b"display" {
                look.gone = value.eq_ignore_ascii_case(b"none");
            } else if property == b"visibility" {
                look.hidden = value.eq_ignore_ascii_case(b"hidden");
            }
        }
        if look.background == Color::Transparent {
            look.background = self.look().background;
        }
        if look.foreground == Color::Transparent {
            look.foreground = look.background;
        }
    }

    /// An end tag: everything up to the element closes, if it is open.
    pub(super) fn close(&mut self, element: Element) {
        if element == Element::Body || self.open[element as usize] == 0 {
            return;
        }
        while self.pop().is_some_and(|closed| closed != element) {}
    }

    /// A new cell or row ends the one before it.
    fn close_cells(&mut self, element: Element) {
        if self.open[element as usize] == 0 {
            return;
        }
        while let Some((top, _)) = self.stack.last() {
            let ends = matches!(top, Element::Font | Element::Td) || (element == Element::Tr && *top == Element::Tr);
            if !ends {
                break;
            }
            self.pop();
        }
    }

    /// Whether text at this place cannot be seen, and why.
    pub(super) fn unseen(&self) -> Option<Unseen> {
        let look = self.look();
        if look.foreground == look.background || look.foreground.is_near(look.background) {
            return Some(Unseen::LowContrast);
        }
        if look.foreground == Color::Invalid || look.background == Color::Invalid {
            return Some(Unseen::InvalidColor);
        }
        (look.size <= 1.0 || look.gone || look.hidden).then_some(Unseen::Otherwise)
    }
}

/// The value of `color:` or `background-color:`.
fn set_color(color: &mut Color, value: &[u8]) {
    let value = value.to_ascii_lowercase();
    let value = match value.strip_suffix(b"important").map(|rest| rest.trim_ascii_end()) {
        Some(rest) => rest.strip_suffix(b"!").map_or(&value[..], |rest| rest.trim_ascii_end()),
        None => &value,
    };
    if memchr::memmem::find(value, b"rgb").is_some() {
        *color = Color::from_numbers(value);
    } else if value == b"transparent" {
        *color = Color::Transparent;
    } else if value != b"inherit" {
        *color = Color::parse(value);
    }
}

/// The colour in a `background:`: the first that is one in the last layer. Blanks and commas between parentheses or quotes separate nothing.
fn background_color(value: &[u8]) -> Option<Color> {
    let mut found = None;
    let mut token = Vec::new();
    let take = |token: &mut Vec<u8>, found: &mut Option<Color>| {
        if found.is_none() && !token.is_empty() {
            *found = Some(Color::parse(token)).filter(|&color| color != Color::Invalid);
        }
        token.clear();
    };
    let mut inside: Vec<u8> = Vec::new();
    for (at, &byte) in value.iter().enumerate() {
        match (inside.last(), byte) {
            (None, b' ') => {
                take(&mut token, &mut found);
                continue;
            }
            (None, b',') => {
                take(&mut token, &mut found);
                if at + 1 < value.len() {
                    found = None;
                }
                continue;
            }
            (None, b'(') => inside.push(b')'),
            (Some(b')') | None, b'"' | b'\'') => inside.push(byte),
            (Some(&end), _) if end == byte => {
                inside.pop();
                if byte == b')' {
                    token.push(byte);
                    take(&mut token, &mut found);
                    continue;
                }
            }
            _ => {}
        }
        token.push(byte);
    }
    take(&mut token, &mut found);
    found
}

/// Digits after blanks.
fn number(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii_start();
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(text.get(..len)?).ok()?.parse().ok()
}

/// `size` of a font: absolute, or relative to the base.
fn font_size(text: &[u8], base: f64) -> Option<f64> {
    match *text.trim_ascii_start() {
        [b'+', ref rest @ ..] if rest.first().is_some_and(u8::is_ascii_digit) => Some(base + number(rest)?),
        [b'-', ref rest @ ..] if rest.first().is_some_and(u8::is_ascii_digit) => Some(base - number(rest)?),
        ref rest => number(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(tags: &[(&str, &str, &str)]) -> Option<Unseen> {
        let mut styles = Styles::default();
        for (name, attribute, value) in tags {
            let pairs = [(attribute.as_bytes(), Some(value.as_bytes()))];
            styles.open(Element::named(name.as_bytes()).unwrap(), &Attributes::new(&pairs, false));
        }
        styles.unseen()
    }

    #[test]
    fn colours_and_sizes_hide_text() {
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[("font", "color", "white")]), Some(Unseen::LowContrast));
        assert_eq!(after(&[("font", "color", "nonsense")]), Some(Unseen::InvalidColor));
        assert_eq!(after(&[("font", "size", "1")]), Some(Unseen::Otherwise));
        assert_eq!(after(&[("span", "style", "a: b; display: none")]), Some(Unseen::Otherwise));
        assert_eq!(after(&[("p", "style", "color:#000;background-color:rgb(0,0,0)")]), Some(Unseen::LowContrast));
        assert_eq!(after(&[("div", "style", "background: url(a b) black")]), Some(Unseen::LowContrast));
        assert_eq!(after(&[("table", "bgcolor", "black")]), None);
        assert_eq!(after(&[("span", "style", "color: transparent")]), Some(Unseen::LowContrast));
    }

    #[test]
    fn elements_close_down_to_the_one_named() {
        let none = Attributes::new(&[], false);
        let white = [(&b"color"[..], Some(&b"white"[..]))];
        let mut styles = Styles::default();
        styles.open(Element::Td, &none);
        styles.open(Element::Font, &Attributes::new(&white, false));
        assert!(styles.unseen().is_some());
        styles.close(Element::Span);
        assert!(styles.unseen().is_some());
        styles.open(Element::Td, &none);
        assert!(styles.unseen().is_none());
    }
}
