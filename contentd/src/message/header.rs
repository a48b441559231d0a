// SPDX-License-Identifier: GPL-3.0-or-later
//! The header section of a message or a MIME part, field by field, as byte offsets (RFC 5322 section 2.2).
//!
//! It reads what arrives, not what is allowed: any line end, fields without values, lines that are no fields.
//! It does not decode values (`parse`) and changes nothing (`edit`).

use super::Limits;
use std::ops::Range;

/// One field. All offsets count from the start of the entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The name without blanks around it and without the colon.
    pub name: Range<usize>,
    /// Everything behind the colon, folding included, without the last line end.
    pub value: Range<usize>,
    /// Name, value and line end.
    pub whole: Range<usize>,
}

impl Field {
    /// Whether the field has this name, in whatever case.
    pub fn is(&self, entity: &[u8], name: &str) -> bool {
        entity[self.name.clone()].eq_ignore_ascii_case(name.as_bytes())
    }
}

/// What is wrong with a header section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// A line that is neither a field nor the continuation of one.
    NotAField,
    /// Blanks between a field's name and its colon (RFC 5322 section 4.5 allows it, many programs do not).
    BlankBeforeColon,
    /// A continuation line of blanks only, which some take for the end of the header section.
    BlankLine,
    /// A CR that does not belong to a line end.
    BareCr,
    /// The section is longer, or has more fields, than is looked at.
    TooLong,
    /// The section ends without an empty line.
    Unfinished,
}

/// A header section taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// The fields in their order.
    pub fields: Vec<Field>,
    /// Offset of the first byte of the body.
    pub body: usize,
    /// What is wrong with the section, each once.
    pub flaws: Vec<Flaw>,
}

impl Section {
    /// The fields of this name.
    pub fn named<'s>(&'s self, entity: &'s [u8], name: &'s str) -> impl Iterator<Item = &'s Field> + 's {
        self.fields.iter().filter(move |field| field.is(entity, name))
    }

    fn flaw(&mut self, flaw: Flaw) {
        if !self.flaws.contains(&flaw) {
            self.flaws.push(flaw);
        }
    }
}

/// One line: where its text ends and where the next line begins.
struct Line {
    start: usize,
    end: usize,
    next: usize,
}

impl Line {
    /// The line at `start`. CR LF, LF, CR CR LF and a lone CR all end a line.
    fn at(entity: &[u8], start: usize) -> Line {
        let Some(end) = memchr::memchr2(b'\r', b'\n', &entity[start..]).map(|at| start + at) else {
            return Line { start, end: entity.len(), next: entity.len() };
        };
        let crs = entity[end..].iter().take_while(|byte| **byte == b'\r').count();
        let next = match entity.get(end + crs) {
            Some(b'\n') => end + crs + 1,
            _ => end + 1,
        };
        Line { start, end, next }
    }

    fn text<'e>(&self, entity: &'e [u8]) -> &'e [u8] {
        &entity[self.start..self.end]
    }

    fn is_continuation(&self, entity: &[u8]) -> bool {
        self.text(entity).first().is_some_and(|byte| matches!(byte, b' ' | b'\t'))
    }

    /// The name, and where the colon stands, when this line begins a field.
    fn field_name(&self, entity: &[u8]) -> Option<(Range<usize>, usize)> {
        let text = self.text(entity);
        let colon = memchr::memchr(b':', text)?;
        let name = text[..colon].trim_ascii_end();
        let valid = !name.is_empty() && name.iter().all(|byte| matches!(byte, 33..=126));
        valid.then(|| (self.start..self.start + name.len(), self.start + colon))
    }
}

/// Length of an mbox `From ` line at the start of a file, which belongs to the mailbox and not to the message; 0 without one.
pub fn mailbox_line(message: &[u8]) -> usize {
    if message.starts_with(b"From ") || message.starts_with(b">From ") { Line::at(message, 0).next } else { 0 }
}

/// Takes the header section at the start of an entity apart. Never fails; what is wrong is in `flaws`.
pub fn read(entity: &[u8], limits: &Limits) -> Section {
    let mut section = Section::default();
    let mut at = 0;
    loop {
        if at >= entity.len() {
            section.body = entity.len();
            section.flaw(Flaw::Unfinished);
            return section;
        }
        if at > limits.header_bytes || section.fields.len() >= limits.header_fields {
            section.body = at;
            section.flaw(Flaw::TooLong);
            return section;
        }
        let line = Line::at(entity, at);
        if line.end == line.start {
            section.body = line.next;
            return section;
        }
        if entity.get(line.end) == Some(&b'\r') && entity.get(line.end + 1) != Some(&b'\n') {
            section.flaw(Flaw::BareCr);
        }
        if !take_line(entity, &line, &mut section) {
            section.body = at;
            return section;
        }
        at = line.next;
    }
}

/// Adds one line to the section; false when the body begins with it although no empty line came before.
fn take_line(entity: &[u8], line: &Line, section: &mut Section) -> bool {
    if line.is_continuation(entity) {
        if line.text(entity).trim_ascii().is_empty() {
            section.flaw(Flaw::BlankLine);
        }
        match section.fields.last_mut() {
            Some(field) => (field.value.end, field.whole.end) = (line.end, line.next),
            None => section.flaw(Flaw::NotAField),
        }
        return true;
    }
    if let Some((name, colon)) = line.field_name(entity) {
        if name.end != colon {
            section.flaw(Flaw::BlankBeforeColon);
        }
        section.fields.push(Field { name, value: colon + 1..line.end, whole: line.start..line.next });
        return true;
    }
    section.flaw(Flaw::NotAField);
    // A stray line among fields is passed over, since the fields behind it may declare an attachment;
    // without a field behind it, it is the first line of a body that lacks its empty line.
    let next = Line::at(entity, line.next.min(entity.len()));
    !section.fields.is_empty() && (next.field_name(entity).is_some() || next.is_continuation(entity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The fields as `name=value` and the body, for one entity.
    fn taken_apart(entity: &str) -> (Vec<String>, String, Vec<Flaw>) {
        let section = read(entity.as_bytes(), &Limits::default());
        let fields = section.fields.iter().map(|f| format!("{}={}", &entity[f.name.clone()], &entity[f.value.clone()]));
        (fields.collect(), entity[section.body..].to_owned(), section.flaws)
    }

    #[test]
    fn fields_folding_and_body() {
        for newline in ["\r\n", "\n", "\r\r\n"] {
            let entity = ["A: 1", "B:2", "\tmore", "", "body"].join(newline);
            let (fields, body, flaws) = taken_apart(&entity);
            assert_eq!(fields, vec!["A= 1".to_owned(), format!("B=2{newline}\tmore")]);
            assert_eq!(body, "body");
            assert!(flaws.iter().all(|flaw| *flaw == Flaw::BareCr), "{flaws:?}");
        }
    }

    #[test]
    fn strange_sections() {
        let long = |count: usize| "A: b\n".repeat(count);
        for (entity, fields, body, flaws) in [
            ("", 0, "", vec![Flaw::Unfinished]),
            ("\nbody", 0, "body", vec![]),
            ("A: b", 1, "", vec![Flaw::Unfinished]),
            ("A : b\n\nbody", 1, "body", vec![Flaw::BlankBeforeColon]),
            ("no field\nmore\n", 0, "no field\nmore\n", vec![Flaw::NotAField]),
            ("A: b\nstray\nC: d\n\nbody", 2, "body", vec![Flaw::NotAField]),
            ("A: b\nfirst line\n\nbody", 1, "first line\n\nbody", vec![Flaw::NotAField]),
            ("A: b\n \nC: d\n\nbody", 2, "body", vec![Flaw::BlankLine]),
            ("A: b\rC: d\n\nbody", 2, "body", vec![Flaw::BareCr]),
            (&format!("{}\nbody", long(5001)), 5000, "A: b\n\nbody", vec![Flaw::TooLong]),
        ] {
            let (found, rest, seen) = taken_apart(entity);
            assert_eq!((found.len(), rest.as_str(), seen), (fields, body, flaws), "{entity:.40}");
        }
    }

    #[test]
    fn a_mailbox_line_is_no_field() {
        assert_eq!(mailbox_line(b"From a@b Thu\r\nA: b\r\n"), 14);
        assert_eq!(mailbox_line(b"From: a@b\r\n"), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let section = read(&bytes, &Limits::default());
            prop_assert!(section.body <= bytes.len());
            for field in section.fields {
                prop_assert!(field.whole.end <= bytes.len() && field.name.end < field.value.start);
            }
        }

        #[test]
        fn lines_of_header_like_text_are_read(text in "([ \\t:A\\r\\n]|From ){0,60}") {
            let section = read(text.as_bytes(), &Limits::default());
            prop_assert!(section.body <= text.len());
        }
    }
}
