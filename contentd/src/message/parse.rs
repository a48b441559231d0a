// SPDX-License-Identifier: GPL-3.0-or-later
//! What the header section of one MIME entity means: types, boundaries, encodings, file names (RFC 2045, 2183, 2231, 2047).
//!
//! Two readings are made of each field, mail-parser's and our own (`parameter`), and all answers are kept:
//! programs differ in which duplicate they take, and the filter must see what any of them would see.
//! mail-parser only ever gets one field's value. It never walks a message: version 0.11 follows nested messages
//! without a limit and overflows the stack when it drops 100 000 of them; `parts` walks, with a work list.

use super::Limits;
use super::header::{Field, Section};
use super::parameter::{self, Comments, Parameter};
use super::words;
use crate::findings::FindingKind;
use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;

/// A content transfer encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 7bit, 8bit, binary, or none named.
    Identity,
    /// RFC 2045 section 6.7.
    QuotedPrintable,
    /// RFC 2045 section 6.8.
    Base64,
    /// Something else, which is passed on undecoded and reported.
    Unknown,
}

/// What one entity's header section says of its body. Lists hold each different answer once, the likeliest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entity {
    /// Declared media types, lower case, `type/subtype`. Empty when there is no usable Content-Type.
    pub types: Vec<String>,
    /// Values of `boundary`.
    pub boundaries: Vec<Vec<u8>>,
    /// Content transfer encodings; never empty after [`interpret`].
    pub encodings: Vec<Encoding>,
    /// File names in every spelling: `filename`, `filename*`, `name`, `name*`, encoded words.
    pub names: Vec<String>,
    /// The disposition, lower case.
    pub disposition: Option<String>,
    /// There is a Content-Type, and no type in it.
    pub untyped: bool,
    /// Boundary or encoding are written in a way that the rules allow and few programs read.
    pub unusual: bool,
    /// What was strange.
    pub oddities: Vec<(FindingKind, String)>,
}

impl Entity {
    /// Whether one of the declared types starts with this (`multipart/`, `message/rfc822`).
    pub fn has_type(&self, prefix: &str) -> bool {
        self.types.iter().any(|kind| kind.starts_with(prefix))
    }

    /// Whether another header section says the same.
    pub fn says_the_same(&self, other: &Entity) -> bool {
        let of = |entity: &Entity| Entity { oddities: Vec::new(), ..entity.clone() };
        of(self) == of(other)
    }

    fn odd(&mut self, kind: FindingKind, detail: impl Into<String>) {
        let oddity = (kind, detail.into());
        if !self.oddities.contains(&oddity) {
            self.oddities.push(oddity);
        }
    }
}

/// Most fields of one name that are read, and most different values of one kind that are kept. No honest part comes near.
const MOST: usize = 20;

/// Reads what a section's MIME fields say.
pub fn interpret(bytes: &[u8], section: &Section, limits: &Limits) -> Entity {
    let mut entity = Entity::default();
    for field in section.named(bytes, "content-disposition").take(MOST) {
        disposition(bytes, field, limits, &mut entity);
    }
    for field in section.named(bytes, "content-type").take(MOST) {
        content_type(bytes, field, limits, &mut entity);
        entity.untyped = entity.types.is_empty();
    }
    for field in section.named(bytes, "content-transfer-encoding").take(MOST) {
        encoding(&bytes[field.value.clone()], &mut entity);
    }
    for (name, kind) in [
        ("content-type", FindingKind::DuplicateContentType),
        ("content-transfer-encoding", FindingKind::DuplicateEncoding),
        ("content-disposition", FindingKind::DuplicateDisposition),
    ] {
        let count = section.named(bytes, name).count();
        if count > 1 {
            entity.odd(kind, format!("{count} fields"));
        }
        if count > MOST {
            entity.odd(FindingKind::OverLimits, "fields");
        }
    }
    if entity.boundaries.len() > 1 {
        let count = entity.boundaries.len();
        entity.odd(FindingKind::SeveralBoundaries, format!("{count} values"));
    }
    compare_names(&mut entity);
    if entity.encodings.is_empty() {
        entity.encodings.push(Encoding::Identity);
    }
    entity
}

/// Notes spellings of a name that end in different extensions. Those with encoded words in them are there decoded too.
fn compare_names(entity: &mut Entity) {
    let extension = |name: &str| name.rsplit_once('.').map(|(_, last)| last.trim().to_lowercase()).unwrap_or_default();
    let mut plain = entity.names.iter().filter(|name| !name.contains("=?") && !name.contains('%'));
    let first = plain.next().map(|name| extension(name));
    if first.is_some_and(|first| plain.any(|name| extension(name) != first)) {
        let count = entity.names.len();
        entity.odd(FindingKind::NamesDiffer, format!("{count} spellings"));
    }
}

fn content_type(bytes: &[u8], field: &Field, limits: &Limits, entity: &mut Entity) {
    let value = &bytes[field.value.clone()];
    let first = first_reading(value);
    let (head, parameters) = readings(value, limits, entity);
    if let Some((kind, _)) = &first
        && !kind.trim().is_empty()
    {
        remember(kind.clone(), &mut entity.types);
    }
    if head.contains('/') {
        remember(head, &mut entity.types);
    }
    let attributes = first.map(|(_, attributes)| attributes).unwrap_or_default();
    let plain = !value.iter().any(|byte| b"(*\\".contains(byte));
    entity.unusual |= !plain && parameters.iter().any(|parameter| parameter.name == "boundary");
    for (name, value) in &attributes {
        match name.as_str() {
            "boundary" => boundary(value.as_bytes(), entity),
            "name" => remember_name(value.clone(), entity),
            _ => {}
        }
    }
    for parameter in &parameters {
        match parameter.name.as_str() {
            "boundary" => boundary(&parameter.value, entity),
            "name" | "filename" => remember_name(decoded_text(parameter), entity),
            _ => {}
        }
    }
}

fn disposition(bytes: &[u8], field: &Field, limits: &Limits, entity: &mut Entity) {
    let value = &bytes[field.value.clone()];
    let (head, parameters) = readings(value, limits, entity);
    if entity.disposition.is_none() && !head.is_empty() {
        entity.disposition = Some(head);
    }
    if let Some((_, attributes)) = first_reading(value) {
        for (name, value) in attributes {
            if name == "filename" || name == "name" {
                remember_name(value, entity);
            }
        }
    }
    for parameter in parameters.iter().filter(|p| p.name == "filename" || p.name == "name") {
        remember_name(decoded_text(parameter), entity);
    }
}

/// Our own readings: one, and further ones where parentheses may be text, a quote does not end, or a `;` is missing.
fn readings(value: &[u8], limits: &Limits, entity: &mut Entity) -> (String, Vec<Parameter>) {
    let scan = |value: &[u8], comments| parameter::scan(value, comments, limits.parameters);
    let scanned = scan(value, Comments::Dropped);
    if scanned.too_many {
        entity.odd(FindingKind::OverLimits, "parameters");
    }
    if value.len() > LONGEST_VALUE {
        entity.odd(FindingKind::OverLimits, "long field");
    }
    if let Some(odd) = scanned.odd {
        entity.odd(FindingKind::OddParameter, odd);
    }
    let mut parameters = scanned.parameters;
    if value.contains(&b'(') {
        parameters.extend(scan(value, Comments::Kept).parameters);
    }
    if scanned.odd.is_some() && value.contains(&b'"') {
        let unquoted: Vec<u8> = value.iter().copied().filter(|byte| *byte != b'"').collect();
        parameters.extend(scan(&unquoted, Comments::Dropped).parameters);
    }
    if scanned.head.contains([' ', '\t']) {
        entity.odd(FindingKind::OddParameter, "no semicolon");
        let parted: Vec<u8> = value.iter().map(|byte| if byte.is_ascii_whitespace() { b';' } else { *byte }).collect();
        parameters.extend(scan(&parted, Comments::Dropped).parameters);
    }
    (scanned.head, parameters)
}

/// Different programs drop different bytes at the end of a boundary, so blanks and NUL are compared without; some decode encoded words.
fn boundary(value: &[u8], entity: &mut Entity) {
    let value = value.trim_ascii_end();
    let cut = value.split(|byte| *byte == 0).next().unwrap_or_default();
    for reading in [value, cut] {
        remember(reading.to_vec(), &mut entity.boundaries);
    }
    if let Ok(text) = std::str::from_utf8(value)
        && text.contains("=?")
    {
        let decoded = words::decode(text);
        if decoded != text {
            entity.odd(FindingKind::OddParameter, "encoded word");
            remember(decoded.into_bytes(), &mut entity.boundaries);
        }
    }
}

fn encoding(value: &[u8], entity: &mut Entity) {
    let head = parameter::scan(value, Comments::Dropped, 1).head;
    let word = head.strip_prefix("x-").unwrap_or(&head);
    entity.unusual |= !value.trim_ascii().eq_ignore_ascii_case(word.as_bytes());
    let encoding = match word {
        "" | "7bit" | "8bit" | "binary" | "7-bit" | "8-bit" | "7bits" | "8bits" | "none" => Encoding::Identity,
        "quoted-printable" => Encoding::QuotedPrintable,
        "base64" => Encoding::Base64,
        _ => {
            entity.odd(FindingKind::UnknownEncoding, word);
            // Some compare the first letters only, or look for the word anywhere.
            if word.contains("base64") || word.contains("base-64") || word.contains("b64") {
                remember(Encoding::Base64, &mut entity.encodings);
            }
            if word.contains("quoted") || word.contains("printable") {
                remember(Encoding::QuotedPrintable, &mut entity.encodings);
            }
            Encoding::Unknown
        }
    };
    remember(encoding, &mut entity.encodings);
}

/// Keeps each value once, and no more than any honest part has.
fn remember<T: PartialEq>(value: T, list: &mut Vec<T>) {
    if list.len() < MOST && !list.contains(&value) {
        list.push(value);
    }
}

/// Keeps a name as written and, where programs may, with encoded words (RFC 2047, not allowed there but usual) and percent signs decoded.
fn remember_name(name: String, entity: &mut Entity) {
    if name.trim().is_empty() {
        return;
    }
    if entity.names.len() >= MOST && !entity.names.contains(&name) {
        return entity.odd(FindingKind::OverLimits, "names");
    }
    if name.contains("=?") {
        remember(unstructured(name.as_bytes()), &mut entity.names);
        remember(words::decode(&name), &mut entity.names);
    }
    if name.contains('%') {
        let decoded = parameter::percent_decoded(name.as_bytes());
        let decoded = words::in_charset("", &decoded);
        remember(name, &mut entity.names);
        return remember(decoded, &mut entity.names);
    }
    remember(name, &mut entity.names);
}

/// A parameter's value as text: in the character set that it names, else UTF-8, else Latin-1.
fn decoded_text(parameter: &Parameter) -> String {
    words::in_charset(parameter.charset.as_deref().unwrap_or_default(), &parameter.value)
}

/// mail-parser's reading of a structured field: `type/subtype` and its attributes.
fn first_reading(value: &[u8]) -> Option<(String, Vec<(String, String)>)> {
    let value = with_line_end(value);
    let HeaderValue::ContentType(parsed) = MessageStream::new(&value).parse_content_type() else { return None };
    let kind = match &parsed.c_subtype {
        Some(subtype) => format!("{}/{subtype}", parsed.c_type),
        None => parsed.c_type.to_string(),
    };
    let attributes = parsed.attributes.unwrap_or_default();
    Some((kind, attributes.into_iter().map(|a| (a.name.into_owned(), a.value.into_owned())).collect()))
}

/// The text of an unstructured value, encoded words decoded (RFC 2047).
pub fn unstructured(value: &[u8]) -> String {
    match MessageStream::new(&with_line_end(value)).parse_unstructured() {
        HeaderValue::Text(text) => text.into_owned(),
        _ => String::new(),
    }
}

/// What mail-parser gets of a value: its start, because it compares every parameter with every other one, and a
/// line end, because only that ends a value for it.
fn with_line_end(value: &[u8]) -> Vec<u8> {
    [&value[..value.len().min(LONGEST_VALUE)], b"\r\n"].concat()
}

/// No honest field comes near this length.
const LONGEST_VALUE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::super::header;
    use super::*;
    use proptest::prelude::*;

    fn entity(fields: &str) -> Entity {
        let limits = Limits::default();
        interpret(fields.as_bytes(), &header::read(fields.as_bytes(), &limits), &limits)
    }

    #[test]
    fn plain_fields() {
        let entity = entity(
            "Content-Type: Multipart/Mixed; boundary=\"a b\"\r\nContent-Transfer-Encoding: 7BIT\r\n\
             Content-Disposition: attachment; filename=\"x.pdf\"\r\n\r\n",
        );
        assert_eq!(entity.types, ["multipart/mixed"]);
        assert_eq!(entity.boundaries, [b"a b"]);
        assert_eq!(entity.encodings, [Encoding::Identity]);
        assert_eq!(entity.names, ["x.pdf"]);
        assert_eq!(entity.disposition.as_deref(), Some("attachment"));
        assert_eq!(entity.oddities, []);
    }

    #[test]
    fn encodings_as_they_come() {
        use Encoding::*;
        for (fields, encodings) in [
            ("X: y\n\n", vec![Identity]),
            ("Content-Transfer-Encoding: base64 (really)\n\n", vec![Base64]),
            ("Content-Transfer-Encoding: x-base64\n\n", vec![Base64]),
            ("Content-Transfer-Encoding: base64;\n\n", vec![Base64]),
            ("Content-Transfer-Encoding: \"base64\"\n\n", vec![Base64]),
            ("Content-Transfer-Encoding: Quoted-Printable\n\n", vec![QuotedPrintable]),
            ("Content-Transfer-Encoding: uuencode\n\n", vec![Unknown]),
            ("Content-Transfer-Encoding: base64, 7bit\n\n", vec![Base64, Unknown]),
            ("Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n\n", vec![Identity, Base64]),
        ] {
            assert_eq!(entity(fields).encodings, encodings, "{fields}");
        }
    }

    #[test]
    fn every_spelling_of_a_name() {
        for (value, names) in [
            ("attachment; filename=a.txt; filename*=utf-8''x.exe", vec!["a.txt", "x.exe"]),
            ("attachment; filename=\"=?utf-8?B?eC5leGU=?=\"", vec!["x.exe"]),
            ("attachment; filename*0=in; filename*1=voice.exe", vec!["invoice.exe"]),
            ("attachment; filename=x(1).exe", vec!["x(1).exe"]),
            ("attachment; filename*=iso-8859-1'de'%e4.exe", vec!["ä.exe"]),
            ("attachment; filename=a%2eexe", vec!["a.exe"]),
            ("attachment; filename=\"a=?utf-8?Q?.exe?=\"", vec!["a.exe"]),
            ("attachment; filename=\"a.exe; x=y", vec!["a.exe"]),
            ("attachment filename=a.exe", vec!["a.exe"]),
        ] {
            let fields = format!("Content-Disposition: {value}\r\n\r\n");
            let found = entity(&fields).names;
            for name in names {
                assert!(found.iter().any(|n| n == name), "{value}: {found:?}");
            }
        }
    }

    #[test]
    fn duplicates_are_all_kept_and_named() {
        let entity = entity(
            "Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=A; boundary=B\n\
             Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n\n",
        );
        assert_eq!(entity.types, ["text/plain", "multipart/mixed"]);
        assert_eq!(entity.boundaries, [b"A", b"B"]);
        let kinds: Vec<_> = entity.oddities.iter().map(|(kind, _)| *kind).collect();
        use FindingKind::*;
        assert_eq!(kinds, [DuplicateContentType, DuplicateEncoding, SeveralBoundaries]);
    }

    #[test]
    fn spellings_that_differ_in_what_they_name() {
        let differ = |value: &str| {
            let entity = entity(&format!("Content-Disposition: {value}\r\n\r\n"));
            entity.oddities.iter().any(|(kind, _)| *kind == FindingKind::NamesDiffer)
        };
        assert!(differ("attachment; filename=a.txt; filename*=utf-8''x.exe"));
        assert!(!differ("attachment; filename=a.txt; filename*=utf-8''%C3%A4.TXT"));
        assert!(!differ("attachment; filename=\"=?utf-8?B?eC5leGU=?=\""));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: String =
            (0..3000).map(|number| format!("Content-Type: a/b; name=n{number}; boundary=b{number}\n")).collect();
        let entity = entity(&format!("{many}\n"));
        assert_eq!((entity.names.len(), entity.boundaries.len()), (MOST, MOST));
        assert!(entity.oddities.iter().any(|(kind, _)| *kind == FindingKind::OverLimits));
    }

    #[test]
    fn words_of_rfc_2047_are_decoded() {
        assert_eq!(unstructured(b" =?utf-8?Q?caf=C3=A9?= au lait"), "café au lait");
    }

    proptest! {
        #[test]
        fn any_value_is_interpreted(value: Vec<u8>) {
            for name in ["Content-Type", "Content-Disposition", "Content-Transfer-Encoding"] {
                let fields = [format!("{name}: ").as_bytes(), &value, b"\r\n\r\n"].concat();
                let limits = Limits::default();
                let entity = interpret(&fields, &header::read(&fields, &limits), &limits);
                prop_assert!(!entity.encodings.is_empty());
            }
        }

        #[test]
        fn field_like_text_is_interpreted(value in "[a/=?;*0\"\\\\()'%QB \\r\\n-]{0,80}") {
            let fields = format!("Content-Type: {value}\r\n\r\n");
            prop_assert!(!entity(&fields).encodings.is_empty());
        }
    }
}
