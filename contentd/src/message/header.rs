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
        let own = &entity[self.name.clone()];
        own.eq_ignore_ascii_case(name.as_bytes()) || !is_name(own) && graphic(own).eq_ignore_ascii_case(name.as_bytes())
    }
}

/// What is wrong with a header section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// A line that is neither a field nor the continuation of one.
    NotAField,
    /// Blanks between a field's name and its colon (RFC 5322 section 4.5 allows it, many programs do not).
    BlankBeforeColon,
    /// Bytes in the name of a MIME field that no name can have, a NUL for one: some pass over them.
    OddName,
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
    /// The line at `start`. CR LF, LF, CR CR LF and a lone CR all end a line; the last only if `cr_ends`.
    fn at(entity: &[u8], start: usize, cr_ends: bool) -> Line {
        if !cr_ends {
            return Line::up_to_lf(entity, start);
        }
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

    fn up_to_lf(entity: &[u8], start: usize) -> Line {
        let next = memchr::memchr(b'\n', &entity[start..]).map(|at| start + at + 1);
        let line = &entity[start..next.unwrap_or(entity.len())];
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let crs = text.iter().rev().take_while(|byte| **byte == b'\r').count();
        Line { start, end: start + text.len() - crs, next: next.unwrap_or(entity.len()) }
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
        let valid = is_name(name) || MIME.iter().any(|field| graphic(name).eq_ignore_ascii_case(field.as_bytes()));
        valid.then(|| (self.start..self.start + name.len(), self.start + colon))
    }
}

/// The fields that say what a part is.
const MIME: [&str; 3] = ["content-type", "content-transfer-encoding", "content-disposition"];

/// Whether these bytes are a field's name (RFC 5322 section 2.2).
fn is_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| matches!(byte, 33..=126))
}

/// The bytes of a name that names may have. Nothing for long ones: the fields that this is for are short.
fn graphic(name: &[u8]) -> Vec<u8> {
    const LONGEST: usize = 60;
    if name.len() > LONGEST { Vec::new() } else { name.iter().copied().filter(u8::is_ascii_graphic).collect() }
}

/// Length of an mbox `From ` line at the start of a file, which belongs to the mailbox and not to the message; 0 without one.
pub fn mailbox_line(message: &[u8]) -> usize {
    let there = message.starts_with(b"From ") || message.starts_with(b">From ");
    if there { Line::at(message, 0, true).next } else { 0 }
}

/// What programs differ in when they look for the end of a header section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rules {
    /// A lone CR ends a line.
    cr_ends: bool,
    /// A line of blanks only ends the section.
    blank_ends: bool,
    stray: Stray,
}

/// What a line is that is neither a field nor the continuation of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stray {
    /// Nothing, when a field follows; else the first line of a body that lacks its empty line.
    Guessed,
    /// The first line of the body.
    Ends,
    /// Nothing.
    Passed,
}

const USUAL: Rules = Rules { cr_ends: true, blank_ends: false, stray: Stray::Guessed };

/// Other readings of a section with a flaw, and the suffix in the path of what is found by them.
const OTHERS: [(Flaw, &str, Rules); 4] = [
    (Flaw::BlankLine, ":blank-line", Rules { blank_ends: true, ..USUAL }),
    (Flaw::NotAField, ":early-body", Rules { stray: Stray::Ends, ..USUAL }),
    (Flaw::NotAField, ":late-body", Rules { stray: Stray::Passed, ..USUAL }),
    (Flaw::BareCr, ":lf-lines", Rules { cr_ends: false, ..USUAL }),
];

/// Takes the header section at the start of an entity apart. Never fails; what is wrong is in `flaws`.
pub fn read(entity: &[u8], limits: &Limits) -> Section {
    read_by(entity, limits, USUAL)
}

/// All readings of the header section, the likeliest first, each with the suffix for its parts. A section without flaws has one.
pub fn readings(entity: &[u8], limits: &Limits) -> Vec<(&'static str, Section)> {
    let mut all = vec![("", read(entity, limits))];
    for (flaw, suffix, rules) in OTHERS {
        if !all[0].1.flaws.contains(&flaw) {
            continue;
        }
        let other = read_by(entity, limits, rules);
        if all.iter().all(|(_, section)| section.fields != other.fields || section.body != other.body) {
            all.push((suffix, other));
        }
    }
    all
}

fn read_by(entity: &[u8], limits: &Limits, rules: Rules) -> Section {
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
        let line = Line::at(entity, at, rules.cr_ends);
        let blank = rules.blank_ends && line.text(entity).trim_ascii().is_empty();
        if line.end == line.start || blank {
            section.body = line.next;
            return section;
        }
        if entity.get(line.end) == Some(&b'\r') && entity.get(line.end + 1) != Some(&b'\n') {
            section.flaw(Flaw::BareCr);
        }
        if !take_line(entity, &line, rules, &mut section) {
            section.body = at;
            return section;
        }
        at = line.next;
    }
}

/// Adds one line to the section; false when the body begins with it although no empty line came before.
fn take_line(entity: &[u8], line: &Line, rules: Rules, section: &mut Section) -> bool {
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
        if !is_name(&entity[name.clone()]) {
            section.flaw(Flaw::OddName);
        }
        section.fields.push(Field { name, value: colon + 1..line.end, whole: line.start..line.next });
        return true;
    }
    section.flaw(Flaw::NotAField);
    match rules.stray {
        Stray::Ends => false,
        Stray::Passed => true,
        // A stray line among fields is passed over, since the fields behind it may declare an attachment;
        // without a field behind it, it is the first line of a body that lacks its empty line.
        Stray::Guessed => {
            let next = Line::at(entity, line.next.min(entity.len()), rules.cr_ends);
            !section.fields.is_empty() && (next.field_name(entity).is_some() || next.is_continuation(entity))
        }
    }
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
    fn a_section_with_a_flaw_has_other_readings() {
        let bodies = |entity: &str| -> Vec<String> {
            let readings = readings(entity.as_bytes(), &Limits::default());
            readings.iter().map(|(suffix, section)| format!("{suffix} {}", &entity[section.body..])).collect()
        };
        assert_eq!(bodies("A: b\n\nbody"), [" body"]);
        assert_eq!(bodies("A: b\n \nC: d\n\nbody"), [" body", ":blank-line C: d\n\nbody"]);
        assert_eq!(bodies("A: b\nstray\nC: d\n\nbody"), [" body", ":early-body stray\nC: d\n\nbody"]);
        assert_eq!(bodies("A: b\nx\ny\n\nbody"), [" x\ny\n\nbody", ":late-body body"]);
        assert_eq!(bodies("A: b\r\rC: d\r\n\r\nbody"), [" C: d\r\n\r\nbody", ":lf-lines body"]);
    }

    #[test]
    fn names_of_mime_fields_may_hold_other_bytes() {
        for name in ["Content-Type", "content\0-type", "Content-Type\u{e9}", "Content -Type"] {
            let entity = format!("{name}: text/html\n\n");
            let section = read(entity.as_bytes(), &Limits::default());
            assert_eq!(section.named(entity.as_bytes(), "content-type").count(), 1, "{name}");
        }
        assert_eq!(read(b"Sub\0ject: x\n\n", &Limits::default()).fields, []);
    }

    #[test]
    fn a_mailbox_line_is_no_field() {
        assert_eq!(mailbox_line(b"From a@b Thu\r\nA: b\r\n"), 14);
        assert_eq!(mailbox_line(b"From: a@b\r\n"), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            for (_, section) in readings(&bytes, &Limits::default()) {
                prop_assert!(section.body <= bytes.len());
                for field in section.fields {
                    prop_assert!(field.whole.end <= bytes.len() && field.name.end < field.value.start);
                }
            }
        }

        #[test]
        fn lines_of_header_like_text_are_read(text in "([ \\t:A\\r\\n]|From ){0,60}") {
            for (_, section) in readings(text.as_bytes(), &Limits::default()) {
                prop_assert!(section.body <= text.len());
            }
        }
    }
}
