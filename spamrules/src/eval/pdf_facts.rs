// SPDX-License-Identifier: GPL-3.0-or-later
//! What rules want to know of the PDF attachments of a message, read line by line as SpamAssassin's plugin PDFInfo reads them.
//!
//! Not a PDF parser: streams stay compressed, objects are not followed. Digests of rules were made from exactly this reading.

use super::matching::pattern;
use crate::digest;
use crate::message::{Message, Part};

/// Properties, names and sizes of one message that are kept.
const MOST: usize = 1_000;
/// Longest value of a property, in bytes.
const LONGEST: usize = 256;
/// Places of one line where a key is looked for, and how far behind it its text may end: a crafted line costs no more than its length.
const PLACES: usize = 8;
const REACH: usize = 16_384;
/// Where the sign of a PDF may begin.
const SIGN_WITHIN: usize = 1_024;
/// Lines that go into the fuzzy digest at most.
const FUZZY_LINES: usize = 69;

/// The properties that rules ask for, by the keys under which a PDF has them.
const PROPERTIES: [(&str, &[u8]); 4] =
    [("author", b"/Author"), ("creator", b"/Creator"), ("producer", b"/Producer"), ("title", b"/Title")];
const DATES: [(&str, &[u8]); 2] = [("created", b"/CreationDate"), ("modified", b"/ModDate")];

/// What is known of the documents of a message.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Attachments that are documents, or say so.
    pub(super) count: usize,
    pub(super) images: usize,
    /// Pixels of the images of the last document that has any.
    pub(super) pixels: Option<f64>,
    /// Height and width of each image, and of all images of a document together.
    pub(super) sizes: Vec<(f64, f64)>,
    pub(super) names: Vec<Vec<u8>>,
    pub(super) digests: Vec<String>,
    /// Digests of the first lines, and of the keys at the beginnings of lines.
    pub(super) fuzzy: Vec<String>,
    pub(super) encrypted: bool,
    pub(super) properties: Vec<(&'static str, Vec<u8>)>,
}

/// What the lines of one document have said so far.
#[derive(Default)]
struct Document {
    fuzzy: Vec<u8>,
    fuzzy_lines: usize,
    fuzzy_ended: bool,
    keys: Vec<u8>,
    in_image: bool,
    height: f64,
    width: f64,
    pixels: f64,
}

impl Facts {
    pub(super) fn of(message: &Message) -> Facts {
        let mut facts = Facts::default();
        for part in message.leaves().filter(|part| is_document(part)) {
            facts.count += 1;
            facts.document(part);
        }
        facts
    }

    fn document(&mut self, part: &Part) {
        let octets = part.decoded();
        let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
        let start = octets.get(..octets.len().min(SIGN_WITHIN + 8)).unwrap_or_default();
        if !pattern!(r"(?s)^.{0,1024}%PDF-\d\.\d").is_match(start) {
            return;
        }
        let named = part.name.as_ref().filter(|name| !name.is_empty() && self.names.len() < MOST);
        self.names.extend(named.cloned());
        let mut document = Document::default();
        for line in octets.split(|&octet| octet == b'\n').filter(|line| !line.is_empty()) {
            self.line(&mut document, line);
        }
        if document.pixels > 0.0 {
            self.add_size(document.height, document.width);
            self.pixels = Some(document.pixels);
        }
        self.digests.push(digest::md5(octets));
        self.fuzzy.extend(
            [&document.fuzzy, &document.keys].into_iter().filter(|text| !text.is_empty()).map(|t| digest::md5(t)),
        );
    }

    fn line(&mut self, document: &mut Document, line: &[u8]) {
        let line = document.fuzzy(line);
        let holds = |word: &[u8]| memchr::memmem::find(line, word).is_some();
        document.in_image |= holds(b"/Image");
        self.encrypted |= line.starts_with(b"/Encrypt");
        if document.in_image
            && let Some((height, width)) = size(line)
        {
            document.image(height, width);
            self.images += 1;
            self.add_size(height, width);
        }
        if !line.contains(&b'/') {
            return;
        }
        if let Some(rest) = line.strip_prefix(b"/") {
            document.keys.extend(rest.iter().take_while(|octet| octet.is_ascii_alphabetic()));
        }
        for (name, key) in PROPERTIES {
            self.add_property(name, value(line, key));
        }
        for (name, key) in DATES {
            self.add_property(name, date(line, key));
        }
    }

    fn add_size(&mut self, height: f64, width: f64) {
        if self.sizes.len() < MOST {
            self.sizes.push((height, width));
        }
    }

    fn add_property(&mut self, name: &'static str, value: Option<Vec<u8>>) {
        if let Some(value) = value.filter(|_| self.properties.len() < MOST) {
            self.properties.push((name, value));
        }
    }
}

impl Document {
    /// Takes a line into the text of the fuzzy digest, up to the first stream or image; lines that go in lose their blanks at the end.
    fn fuzzy<'l>(&mut self, line: &'l [u8]) -> &'l [u8] {
        if self.fuzzy_ended {
            return line;
        }
        self.fuzzy_lines += 1;
        if self.fuzzy_lines > FUZZY_LINES {
            return line;
        }
        let varies = pattern!(r"^(?:%|/(?:Height|Width|MediaBox|CropBox)|\d+\s+\d+\s+\d+\s+\d+\s+\d+\s+\d+\s+cm$)");
        let mut kept = line;
        if !varies.is_match(line) {
            kept = line.trim_ascii_end();
            self.fuzzy.extend_from_slice(kept);
        }
        self.fuzzy_ended |= memchr::memmem::find(line, b"stream").is_some();
        kept
    }

    fn image(&mut self, height: f64, width: f64) {
        self.fuzzy_ended = true;
        self.in_image = false;
        self.height += height;
        self.width += width;
        self.pixels += height * width;
    }
}

/// Whether a part is a PDF by its type, or by its name.
fn is_document(part: &Part) -> bool {
    let name = part.name.as_deref().unwrap_or_default();
    let named = name.len() >= 4
        && name
            .get(name.len() - 4..)
            .is_some_and(|end| end.eq_ignore_ascii_case(b".pdf") || end.eq_ignore_ascii_case(b".fdf"));
    match part.kind.as_str() {
        "application/pdf" | "image/pdf" => true,
        "application/octet-stream" | "image/octet-stream" => named,
        _ => false,
    }
}

/// Height and width of an image that a line draws or describes.
fn size(line: &[u8]) -> Option<(f64, f64)> {
    let number = |digits: Option<regex::bytes::Match<'_>>| -> Option<f64> {
        std::str::from_utf8(digits?.as_bytes()).ok()?.parse().ok().filter(|number| (1.0..=1e9).contains(number))
    };
    if let Some(found) = pattern!(r"^(\d+)\s+\d+\s+\d+\s+(\d+)\s+\d+\s+\d+\s+cm$").captures(line) {
        return Some((number(found.get(2))?, number(found.get(1))?));
    }
    if pattern!(r"^/(?:Width|Height)\s\d").is_match(line) {
        return None;
    }
    let found = pattern!(r"/Width\s(\d+)/Height\s(\d+)").captures(line)?;
    Some((number(found.get(2))?, number(found.get(1))?))
}

/// What stands behind a key, two blanks aside.
fn behind<'l>(line: &'l [u8], key: &'l [u8]) -> impl Iterator<Item = &'l [u8]> {
    memchr::memmem::find_iter(line, key).take(PLACES).filter_map(move |at| {
        let rest = line.get(at + key.len()..)?;
        let rest = rest.get(..REACH).unwrap_or(rest);
        let blanks = rest.iter().take(2).take_while(|&&octet| crate::message::is_space(octet)).count();
        rest.get(blanks..)
    })
}

/// The text that a key has in a line, in parentheses or in hexadecimal.
fn value(line: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    behind(line, key).find_map(|rest| match rest.split_first()? {
        (b'(', text) => {
            let mut ends = memchr::memchr_iter(b')', text);
            let end = ends.find(|&end| end == 0 || text.get(end - 1) != Some(&b'\\'))?;
            text.get(..end).map(literal)
        }
        (b'<', text) => text.get(..memchr::memchr(b'>', text)?).map(hexadecimal),
        _ => None,
    })
}

/// The digits of a date.
fn date(line: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    behind(line, key).find_map(|rest| {
        let digits = rest.strip_prefix(b"(D:")?;
        let end = digits.iter().take_while(|octet| octet.is_ascii_digit()).count();
        digits.get(..end.min(LONGEST)).filter(|digits| !digits.is_empty()).map(<[u8]>::to_vec)
    })
}

/// A literal string (ISO 32000-1, 7.3.4.2) as rules read it: three octal digits and escaped parentheses are undone.
fn literal(text: &[u8]) -> Vec<u8> {
    let octal = pattern!(r"\\\\|\\([0-3][0-7][0-7])");
    let decoded = octal.replace_all(text, |found: &regex::bytes::Captures<'_>| match found.get(1) {
        Some(digits) => vec![digits.as_bytes().iter().fold(0_u8, |sum, digit| (sum << 3) | (digit & 7))],
        None => found.get(0).map_or_else(Vec::new, |whole| whole.as_bytes().to_vec()),
    });
    let plain = narrow(decoded.into_owned());
    shortened(pattern!(r"\\([()\\])").replace_all(&plain, &b"$1"[..]).into_owned())
}

/// A hexadecimal string (7.3.4.3).
fn hexadecimal(text: &[u8]) -> Vec<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::new();
    let mut at = 0;
    while let (Some(&high), Some(&low)) = (text.get(at), text.get(at + 1)) {
        match (digit(high), digit(low)) {
            (Some(high), Some(low)) => {
                out.push((high << 4) | low);
                at += 2;
            }
            _ => at += 1,
        }
    }
    shortened(narrow(out))
}

/// UTF-16 with its mark becomes what its bytes other than 0 are.
fn narrow(mut text: Vec<u8>) -> Vec<u8> {
    if text.starts_with(b"\xfe\xff") || text.starts_with(b"\xff\xfe") {
        text.drain(..2);
        text.retain(|&octet| octet != 0);
    }
    text
}

fn shortened(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(LONGEST);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values() {
        let line = b"<</Creator( A\\(b\\) )/Producer<FEFF 0041>/Title (\\376\\377\\000H\\000i)/CreationDate(D:20070226165054-06'00')>>";
        assert_eq!(value(line, b"/Creator").unwrap(), b" A(b) ");
        assert_eq!(value(line, b"/Producer").unwrap(), b"A");
        assert_eq!(value(line, b"/Title").unwrap(), b"Hi");
        assert_eq!(date(line, b"/CreationDate").unwrap(), b"20070226165054");
        assert_eq!(value(line, b"/Author"), None);
        assert_eq!(value(b"/Author(open", b"/Author"), None);
        assert_eq!(value(b"/AuthorX /Author(a)", b"/Author").unwrap(), b"a");
    }

    #[test]
    fn sizes() {
        assert_eq!(size(b"630 0 0 149 0 0 cm"), Some((149.0, 630.0)));
        assert_eq!(size(b"/Subtype/Image/Width 3/Height 2"), Some((2.0, 3.0)));
        assert_eq!(size(b"/Width 3"), None);
        assert_eq!(size(b"0 0 0 0 0 0 cm"), None);
    }

    #[test]
    fn crafted_lines_end() {
        let begun = std::time::Instant::now();
        for line in ["/Author(\\)", "/Title<4", "/Image/Width 1/Height", "1 0 0 1 0 0 ", "/CreationDate(D:1"] {
            let text =
                format!("Content-Type: application/pdf\n\n%PDF-1.4\n/Image{}\n", line.repeat(1_000_000 / line.len()));
            let _ = Facts::of(&Message::parse(text.as_bytes()));
        }
        assert!(begun.elapsed().as_secs() < 30);
    }

    proptest! {
        #[test]
        fn any_document_is_read(lines in proptest::collection::vec("[/A-Za-z0-9()<>\\\\ .:%-]{0,40}|/Author[(<].{0,20}|[0-9 ]{0,20}cm", 0..20)) {
            let text = format!("Content-Type: application/pdf\n\n%PDF-1.4\n{}\n", lines.join("\n"));
            let _ = Facts::of(&Message::parse(text.as_bytes()));
        }

        #[test]
        fn any_bytes_are_read(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (value(&octets, b"/"), date(&octets, b"/"), size(&octets), literal(&octets), hexadecimal(&octets));
        }
    }
}
