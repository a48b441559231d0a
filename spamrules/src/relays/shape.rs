// SPDX-License-Identifier: GPL-3.0-or-later
//! Shapes: a small pattern language in which the formats of `Received` fields are written down, and its matcher.
//!
//! A shape is text with holes in braces; it matches at the beginning of a line and need not reach its end.
//!
//! | hole | matches |
//! | --- | --- |
//! | `{helo}` `{helo*}` | a word (bytes that are no space), at least one byte, or none too; kept in that field; `_` is kept nowhere, `a+b` in two fields |
//! | `{ip}` `{ip_}` `{local}` | an IP address, kept or not; a name of the local host |
//! | `{..}` `{..>}` `{..3,80}` | any bytes, as few as possible; as many as possible; a bounded number |
//! | `{^xy*}` `{^xy+}` `{^xy40}` | bytes other than `x` and `y`: any number, at least one, at most 40 |
//! | `{#}` `{#*}` `{a}` | digits, perhaps none; one letter |
//! | `{by:…}` | what the shape inside matches, kept |
//! | `{?…}` | the shape inside, or nothing |
//! | `{=a\|b}` | one of these texts |
//! | `{&…}` `{!…}` | looks ahead: the shape inside must match here, must not match here |
//! | `{b}` `{$}` | a boundary of a word; the end |
//!
//! The matcher backtracks within a step limit: a crafted line costs at most [`STEPS`] per shape and then does not match.

use super::ip;

/// Most steps spent on one line with one shape.
const STEPS: u32 = 30_000;

/// What a hole is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Field {
    Ip,
    Helo,
    Rdns,
    By,
    Id,
    Ident,
    From,
    /// Text with `helo=` and `ident=` in it.
    Notes,
    /// The method of an authentication.
    Auth,
}

const FIELDS: usize = 9;

/// Where each field was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    spans: [Option<(usize, usize)>; FIELDS],
}

impl Found {
    /// The text of a field, if the shape held it.
    pub(super) fn get<'t>(&self, field: Field, text: &'t str) -> Option<&'t str> {
        let (start, end) = self.spans[field as usize]?;
        text.get(start..end)
    }
}

#[derive(Debug, Clone)]
enum Op {
    Text(Vec<u8>),
    Run { class: Class, least: usize, most: usize, longest: bool },
    Address,
    Local,
    Open(u16),
    Close(u16),
    Try(usize),
    OneOf(Vec<Vec<u8>>),
    Look { wanted: bool, end: usize },
    Accept,
    Boundary,
    End,
}

#[derive(Debug, Clone)]
enum Class {
    Word,
    Any,
    Digit,
    Letter,
    Not(Vec<u8>),
}

impl Class {
    fn holds(&self, byte: u8) -> bool {
        match self {
            Self::Word => !ip::is_space(byte),
            Self::Any => true,
            Self::Digit => byte.is_ascii_digit(),
            Self::Letter => byte.is_ascii_alphabetic(),
            Self::Not(bytes) => !bytes.contains(&byte),
        }
    }
}

/// A shape, ready to match.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    ops: Vec<Op>,
}

impl Shape {
    /// Reads a shape. Shapes are literals of this crate; a mistake in one is found by the test that reads them all.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let mut ops = Vec::new();
        let rest = compile(text, &mut ops, 0)?;
        if !rest.is_empty() {
            return Err(format!("too many closing braces: {text}"));
        }
        ops.push(Op::Accept);
        Ok(Self { ops })
    }

    /// The fields, if the line begins as the shape says.
    pub(super) fn find(&self, line: &[u8]) -> Option<Found> {
        let mut run = Run { ops: &self.ops, line, opened: [0; FIELDS], found: Found::default(), steps: STEPS };
        run.at(0, 0).then_some(run.found)
    }
}

/// Compiles up to the closing brace of the enclosing hole; returns what follows it.
fn compile<'t>(mut text: &'t str, ops: &mut Vec<Op>, depth: usize) -> Result<&'t str, String> {
    if depth > 4 {
        return Err("holes too deep".into());
    }
    loop {
        let end = text.find(['{', '}']).unwrap_or(text.len());
        if end > 0 {
            ops.push(Op::Text(text.as_bytes()[..end].to_vec()));
        }
        match text.as_bytes().get(end) {
            None => return Ok(""),
            Some(b'}') if depth == 0 => return Err("a closing brace without an opening one".into()),
            Some(b'}') => return Ok(&text[end + 1..]),
            Some(_) => text = hole(&text[end + 1..], ops, depth)?,
        }
    }
}

fn hole<'t>(text: &'t str, ops: &mut Vec<Op>, depth: usize) -> Result<&'t str, String> {
    let (kind, inside) = text.split_at(usize::from(!text.is_empty()));
    match kind {
        "?" | "&" | "!" => {
            let place = ops.len();
            ops.push(Op::Accept);
            let rest = compile(inside, ops, depth + 1)?;
            if kind == "?" {
                ops[place] = Op::Try(ops.len());
            } else {
                ops.push(Op::Accept);
                ops[place] = Op::Look { wanted: kind == "&", end: ops.len() };
            }
            return Ok(rest);
        }
        _ => {}
    }
    let close = text.find('}').ok_or("an opening brace without a closing one")?;
    if let Some(colon) = text[..close].find(':')
        && let Some(fields) = fields(&text[..colon])
    {
        ops.push(Op::Open(fields));
        let rest = compile(&text[colon + 1..], ops, depth + 1)?;
        ops.push(Op::Close(fields));
        return Ok(rest);
    }
    simple(&text[..close], ops)?;
    Ok(&text[close + 1..])
}

fn simple(hole: &str, ops: &mut Vec<Op>) -> Result<(), String> {
    let run = |class, least, most, longest| Op::Run { class, least, most, longest };
    let op = match hole {
        "b" => Op::Boundary,
        "$" => Op::End,
        "ip_" => Op::Address,
        "local" => Op::Local,
        "#" => run(Class::Digit, 1, usize::MAX, true),
        "#*" => run(Class::Digit, 0, usize::MAX, true),
        "a" => run(Class::Letter, 1, 1, true),
        ".." => run(Class::Any, 0, usize::MAX, false),
        "..>" => run(Class::Any, 0, usize::MAX, true),
        "_" => run(Class::Word, 1, usize::MAX, true),
        "_*" => run(Class::Word, 0, usize::MAX, true),
        _ => {
            if let Some(texts) = hole.strip_prefix('=') {
                Op::OneOf(texts.split('|').map(|t| t.as_bytes().to_vec()).collect())
            } else if let Some(bounds) = hole.strip_prefix("..") {
                let (least, most) = bounds.split_once(',').ok_or_else(|| format!("bounds: {hole}"))?;
                let number = |t: &str| t.parse::<usize>().map_err(|e| format!("{hole}: {e}"));
                run(Class::Any, number(least)?, number(most)?, true)
            } else if let Some(rest) = hole.strip_prefix('^') {
                negated(rest)?
            } else {
                return word(hole, ops);
            }
        }
    };
    ops.push(op);
    Ok(())
}

fn negated(rest: &str) -> Result<Op, String> {
    let digits = rest.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (bytes, least, most) = match rest.as_bytes().last() {
        Some(b'*') => (&rest[..rest.len() - 1], 0, usize::MAX),
        Some(b'+') => (&rest[..rest.len() - 1], 1, usize::MAX),
        _ => {
            let (bytes, number) = rest.split_at(rest.len() - digits);
            (bytes, 0, number.parse().map_err(|e| format!("{rest}: {e}"))?)
        }
    };
    Ok(Op::Run { class: Class::Not(bytes.as_bytes().to_vec()), least, most, longest: true })
}

/// `{helo}`, `{helo*}`, `{rdns+helo}`, `{ip}`.
fn word(hole: &str, ops: &mut Vec<Op>) -> Result<(), String> {
    let (name, least) = hole.strip_suffix('*').map_or((hole, 1), |name| (name, 0));
    let fields = fields(name).ok_or_else(|| format!("no such field: {hole}"))?;
    ops.push(Op::Open(fields));
    ops.push(match name {
        "ip" => Op::Address,
        _ => Op::Run { class: Class::Word, least, most: usize::MAX, longest: true },
    });
    ops.push(Op::Close(fields));
    Ok(())
}

/// The fields of a name, as bits.
fn fields(names: &str) -> Option<u16> {
    names.split('+').try_fold(0_u16, |bits, name| {
        let field = match name {
            "ip" => Field::Ip,
            "helo" => Field::Helo,
            "rdns" => Field::Rdns,
            "by" => Field::By,
            "id" => Field::Id,
            "ident" => Field::Ident,
            "from" => Field::From,
            "notes" => Field::Notes,
            "auth" => Field::Auth,
            _ => return None,
        };
        Some(bits | 1 << field as u16)
    })
}

struct Run<'s> {
    ops: &'s [Op],
    line: &'s [u8],
    opened: [usize; FIELDS],
    found: Found,
    steps: u32,
}

impl Run<'_> {
    /// Whether the operations from `op` on match the line from `pos` on. Recursion is as deep as the shape is long.
    fn at(&mut self, mut op: usize, mut pos: usize) -> bool {
        loop {
            let Some(steps) = self.steps.checked_sub(1) else { return false };
            self.steps = steps;
            let ops = self.ops;
            match &ops[op] {
                Op::Text(text) => match self.line.get(pos..pos + text.len()) {
                    Some(here) if here == &text[..] => pos += text.len(),
                    _ => return false,
                },
                Op::Run { class, least, most, longest } => {
                    return self.run(class, (*least, *most), *longest, op + 1, pos);
                }
                Op::Address => match ip::length_at(self.line, pos) {
                    Some(length) => pos += length,
                    None => return false,
                },
                Op::Local => match ip::localhost_length(self.line, pos) {
                    Some(length) => pos += length,
                    None => return false,
                },
                Op::Open(fields) => return self.keeping(*fields, true, op + 1, pos),
                Op::Close(fields) => return self.keeping(*fields, false, op + 1, pos),
                Op::Try(other) => {
                    if self.at(op + 1, pos) {
                        return true;
                    }
                    op = *other;
                    continue;
                }
                Op::OneOf(texts) => {
                    return texts.iter().any(|t| {
                        self.line.get(pos..).is_some_and(|r| r.starts_with(t)) && self.at(op + 1, pos + t.len())
                    });
                }
                Op::Look { wanted, end } => {
                    if self.at(op + 1, pos) != *wanted {
                        return false;
                    }
                    op = *end;
                    continue;
                }
                Op::Accept => return true,
                Op::Boundary => {
                    let word = |at: Option<usize>| at.and_then(|i| self.line.get(i)).is_some_and(|b| ip::is_word(*b));
                    if word(pos.checked_sub(1)) == word(Some(pos)) {
                        return false;
                    }
                }
                Op::End => {
                    if pos != self.line.len() {
                        return false;
                    }
                }
            }
            op += 1;
        }
    }

    fn run(&mut self, class: &Class, (least, most): (usize, usize), longest: bool, next: usize, pos: usize) -> bool {
        let rest = &self.line[pos.min(self.line.len())..];
        let length = match class {
            Class::Any => most.min(rest.len()),
            _ => rest.iter().take(most).take_while(|b| class.holds(**b)).count(),
        };
        // Looking at many bytes is work too.
        self.steps = self.steps.saturating_sub(u32::try_from(length / 32).unwrap_or(u32::MAX));
        if length < least {
            return false;
        }
        // A text that must follow is looked for before anything is tried.
        let ops = self.ops;
        let text = match &ops[next] {
            Op::Text(text) => Some(text.as_slice()),
            _ => None,
        };
        let mut left = least..length + 1;
        while let Some(taken) = following(rest, &mut left, longest, text) {
            if self.at(next, pos + taken) {
                return true;
            }
            if self.steps == 0 {
                return false;
            }
        }
        false
    }

    fn keeping(&mut self, fields: u16, open: bool, next: usize, pos: usize) -> bool {
        let mut before = [(0, None); FIELDS];
        let is_meant = |field: &usize| fields & (1 << field) != 0;
        for field in (0..FIELDS).filter(is_meant) {
            before[field] = (self.opened[field], self.found.spans[field]);
            if open {
                self.opened[field] = pos;
            } else {
                self.found.spans[field] = Some((self.opened[field], pos));
            }
        }
        let matched = self.at(next, pos);
        if !matched {
            for field in (0..FIELDS).filter(is_meant) {
                (self.opened[field], self.found.spans[field]) = before[field];
            }
        }
        matched
    }
}

/// The next length to be tried, from one end or the other: one that `text` follows, where it is known.
fn following(rest: &[u8], left: &mut std::ops::Range<usize>, longest: bool, text: Option<&[u8]>) -> Option<usize> {
    let Some(text) = text else { return if longest { left.next_back() } else { left.next() } };
    // The last text that counts begins at the last length.
    let end = left.end.saturating_sub(1).saturating_add(text.len()).min(rest.len());
    let window = rest.get(left.start..end).filter(|_| left.start < left.end)?;
    if longest {
        left.end = left.start + memchr::memmem::rfind(window, text)?;
        Some(left.end)
    } else {
        let at = left.start + memchr::memmem::find(window, text)?;
        left.start = at + 1;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(shape: &str, line: &str, field: Field) -> Option<String> {
        Shape::new(shape).unwrap().find(line.as_bytes()).map(|f| f.get(field, line).unwrap_or("-").to_string())
    }

    #[test]
    fn holes_take_what_they_say() {
        let line = "mail.example.org (unknown [192.0.2.1]) by mx.example.com (Postfix) with ESMTP";
        let shape = "{helo} ({rdns} [{ip}]) by {by} (";
        assert_eq!(find(shape, line, Field::Helo).unwrap(), "mail.example.org");
        assert_eq!(find(shape, line, Field::Ip).unwrap(), "192.0.2.1");
        assert_eq!(find(shape, line, Field::By).unwrap(), "mx.example.com");
        assert_eq!(find(shape, "mail.example.org ([192.0.2.1]) by mx (", Field::By), None);
    }

    #[test]
    fn options_alternatives_and_looks() {
        let shape = "{&{..} by }{helo} {?({=HELO|EHLO} {rdns*}) }[{ip}]{! bad}";
        assert_eq!(find(shape, "a (EHLO ) [192.0.2.1] by x", Field::Rdns).unwrap(), "");
        assert_eq!(find(shape, "a [192.0.2.1] by x", Field::Rdns).unwrap(), "-");
        assert_eq!(find(shape, "a [192.0.2.1] bad by x", Field::Rdns), None);
        assert_eq!(find(shape, "a [192.0.2.1]", Field::Rdns), None);
    }

    #[test]
    fn groups_boundaries_and_bounds() {
        assert_eq!(find("{..}by {by:{_}.example.org} ", "x by mx.example.org y", Field::By).unwrap(), "mx.example.org");
        assert_eq!(find("{by}{b}", "mx.example.org;, y", Field::By).unwrap(), "mx.example.org");
        assert_eq!(find("({notes:{^)3}})", "(abc)", Field::Notes).unwrap(), "abc");
        assert_eq!(find("({notes:{^)3}})", "(abcd)", Field::Notes), None);
        assert_eq!(find("{..2,3}x", "aaaax", Field::By), None);
    }

    #[test]
    fn mistakes_in_shapes_are_told() {
        for wrong in ["{nothing}", "{helo", "}", "{..a}", "{^x}"] {
            assert!(Shape::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_crafted_line_ends_soon() {
        let shape = Shape::new("{..}a{..}a{..}a{..}a{..}a{..}b").unwrap();
        let begun = std::time::Instant::now();
        assert!(shape.find(&vec![b'a'; 8192]).is_none());
        assert!(begun.elapsed().as_secs() < 5);
    }

    proptest! {
        #[test]
        fn any_line_is_matched_or_not(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let shape = Shape::new("{&{..}[{ip_}]}{?{helo*} }({..>}) {rdns+id}{^(*}{b}{local}{#}{$}").unwrap();
            shape.find(&line);
        }
    }
}
