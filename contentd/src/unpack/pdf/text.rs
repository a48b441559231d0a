// SPDX-License-Identifier: GPL-3.0-or-later
//! The text of a PDF (ISO 32000-1 section 9.4): what the pages show, in the order in which it is drawn, with the fonts' own tables. No layout: a new line
//! begins where the position moves up or down, a blank stands where it moves aside. Read only when words are needed that may be passwords.

use super::fonts::Font;
use super::objects::{Dictionary, Reader, Value};
use super::table::Table;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Pages that are read.
const PAGES: usize = 200;
/// Forms within forms, and pages within nodes of pages.
const DEPTH: usize = 8;
const NODES: usize = 24;
/// Operands that are kept.
const OPERANDS: usize = 64;
/// Fonts.
const FONTS: usize = 200;
/// Gap between two pieces of one string, in thousandths of the font's size, that is as wide as a blank.
const GAP: f64 = -180.0;

/// Whether a file is a PDF, which may begin a little later.
pub(in crate::unpack) fn is_pdf(data: &[u8]) -> bool {
    super::has(&data[..data.len().min(1024)], b"%PDF-")
}

/// At most about `most` bytes of text. `go_on`: whether there is time left.
pub(in crate::unpack) fn text(data: &[u8], most: usize, go_on: &dyn Fn() -> bool) -> String {
    let table = Table::new(data, go_on);
    let mut reading = Reading { table: &table, fonts: HashMap::new(), text: String::new(), most, go_on };
    for (page, resources) in pages(&table, go_on) {
        let contents = page.get("Contents").cloned();
        let contents = match contents.as_ref().and_then(|value| table.resolve(value)) {
            Some(Value::List(list)) => list,
            _ => contents.into_iter().collect(),
        };
        let streams: Vec<Vec<u8>> = contents.iter().take(OPERANDS).filter_map(|value| table.stream(value)).collect();
        reading.run(&streams.join(&b'\n'), &resources, DEPTH);
        reading.line();
        if reading.is_full() {
            break;
        }
    }
    reading.text
}

/// The pages with their resources: in the order of their tree, and where there is none, of their numbers.
fn pages(table: &Table<'_>, go_on: &dyn Fn() -> bool) -> Vec<(Dictionary, Dictionary)> {
    let mut pages = Vec::new();
    let mut seen = HashSet::new();
    let is =
        |object: &Value, kind: &[u8]| matches!(object, Value::Dictionary(object) if object.name("Type") == Some(kind));
    let numbers: Vec<u32> = table.numbers().into_iter().take_while(|_| go_on()).collect();
    let roots = numbers.iter().filter_map(|number| table.object(*number)).filter(|object| is(object, b"Catalog"));
    for root in roots.take(4) {
        if let Value::Dictionary(root) = root
            && let Some(node) = root.get("Pages")
        {
            tree(table, node, &Dictionary::default(), NODES, &mut seen, &mut pages);
        }
    }
    if pages.is_empty() {
        for number in numbers.iter().filter(|number| table.object(**number).is_some_and(|object| is(&object, b"Page")))
        {
            tree(table, &Value::Reference(*number, 0), &Dictionary::default(), 1, &mut seen, &mut pages);
        }
    }
    pages
}

fn tree(
    table: &Table<'_>,
    node: &Value,
    inherited: &Dictionary,
    depth: usize,
    seen: &mut HashSet<u32>,
    pages: &mut Vec<(Dictionary, Dictionary)>,
) {
    let known = matches!(node, Value::Reference(number, _) if !seen.insert(*number));
    let (Some(depth), Some(Value::Dictionary(page))) = (depth.checked_sub(1), table.resolve(node)) else { return };
    if known || pages.len() >= PAGES {
        return;
    }
    let resources = table.dictionary(&page, "Resources").unwrap_or_else(|| inherited.clone());
    match page.get("Kids").and_then(|kids| table.resolve(kids)) {
        Some(Value::List(kids)) => kids.iter().for_each(|kid| tree(table, kid, &resources, depth, seen, pages)),
        _ => pages.push((page, resources)),
    }
}

/// Text that is being read.
struct Reading<'t, 'd> {
    table: &'t Table<'d>,
    /// By the number of their object.
    fonts: HashMap<u32, Rc<Font>>,
    text: String,
    most: usize,
    go_on: &'t dyn Fn() -> bool,
}

impl Reading<'_, '_> {
    fn is_full(&self) -> bool {
        self.text.len() >= self.most || !(self.go_on)()
    }

    /// Runs the operators of a content stream.
    fn run(&mut self, content: &[u8], resources: &Dictionary, depth: usize) {
        let mut reader = Reader::new(content, 0);
        let mut operands: Vec<Value> = Vec::new();
        let (mut font, mut height) = (Rc::new(Font::default()), 0.0);
        while reader.at < content.len() {
            let Some(value) = reader.value() else {
                // A bracket that closes nothing.
                reader.at += 1;
                continue;
            };
            let Value::Word(operator) = &value else {
                if operands.len() < OPERANDS {
                    operands.push(value);
                }
                continue;
            };
            let number = |place: usize| match operands.get(place) {
                Some(Value::Number(number)) => *number,
                _ => 0.0,
            };
            match &operator[..] {
                b"Tf" => font = self.font(resources, operands.first()),
                b"Tj" => self.show(&font, operands.last()),
                b"'" | b"\"" => {
                    self.line();
                    self.show(&font, operands.last());
                }
                b"TJ" => self.pieces(&font, operands.last()),
                b"Td" | b"TD" => self.moved(number(1) != 0.0),
                b"T*" => self.line(),
                b"Tm" => {
                    self.moved(number(5) != height);
                    height = number(5);
                }
                b"Do" => self.form(resources, operands.last(), depth),
                b"ID" => skip_picture(&mut reader, content),
                _ => {}
            }
            operands.clear();
            if self.is_full() {
                break;
            }
        }
    }

    fn show(&mut self, font: &Font, string: Option<&Value>) {
        if let Some(Value::Text(string)) = string {
            font.show(string, &mut self.text);
        }
    }

    fn pieces(&mut self, font: &Font, pieces: Option<&Value>) {
        let Some(Value::List(pieces)) = pieces else { return };
        for piece in pieces {
            match piece {
                Value::Number(gap) if *gap < GAP => self.moved(false),
                piece => self.show(font, Some(piece)),
            }
        }
    }

    fn line(&mut self) {
        self.moved(true);
    }

    /// The position has moved, to another line or not.
    fn moved(&mut self, line: bool) {
        let last = self.text.chars().next_back();
        match (last, line) {
            (None | Some('\n'), _) | (Some(' '), false) => {}
            (_, true) => self.text.push('\n'),
            (_, false) => self.text.push(' '),
        }
    }

    fn font(&mut self, resources: &Dictionary, name: Option<&Value>) -> Rc<Font> {
        let fonts = self.table.dictionary(resources, "Font").unwrap_or_default();
        let font = name.and_then(Value::name).and_then(|name| fonts.get(std::str::from_utf8(name).ok()?));
        let number = match font {
            Some(Value::Reference(number, _)) => Some(*number),
            _ => None,
        };
        if let Some(known) = number.and_then(|number| self.fonts.get(&number)) {
            return Rc::clone(known);
        }
        let Some(Value::Dictionary(dictionary)) = font.and_then(|font| self.table.resolve(font)) else {
            return Rc::default();
        };
        let font = Rc::new(Font::read(&dictionary, self.table));
        if let Some(number) = number.filter(|_| self.fonts.len() < FONTS) {
            self.fonts.insert(number, Rc::clone(&font));
        }
        font
    }

    /// What is drawn elsewhere and shown here.
    fn form(&mut self, resources: &Dictionary, name: Option<&Value>, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        let forms = self.table.dictionary(resources, "XObject").unwrap_or_default();
        let Some(form) = name.and_then(Value::name).and_then(|name| forms.get(std::str::from_utf8(name).ok()?)) else {
            return;
        };
        let Some(Value::Dictionary(dictionary)) = self.table.resolve(form) else { return };
        if dictionary.name("Subtype") != Some(b"Form") {
            return;
        }
        if let Some(content) = self.table.stream(form) {
            let own = self.table.dictionary(&dictionary, "Resources");
            self.moved(true);
            self.run(&content, own.as_ref().unwrap_or(resources), depth);
        }
    }
}

/// The bytes of a picture end at `EI` between blanks.
fn skip_picture(reader: &mut Reader<'_>, content: &[u8]) {
    let rest = content.get(reader.at..).unwrap_or_default();
    let is_blank = |byte: Option<&u8>| byte.is_none_or(|byte| super::objects::is_blank(*byte));
    let mut ends = memchr::memmem::find_iter(rest, b"EI");
    let end = ends.find(|at| is_blank(at.checked_sub(1).and_then(|at| rest.get(at))) && is_blank(rest.get(at + 2)));
    reader.at += end.map_or(rest.len(), |at| at + 2);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(number: u32, dictionary: &str, content: &str) -> String {
        format!("{number} 0 obj << {dictionary} /Length {} >>\nstream\n{content}\nendstream endobj\n", content.len())
    }

    fn document(content: &str) -> String {
        let map =
            "1 begincodespacerange <0000> <ffff> endcodespacerange 1 beginbfrange <0001> <001a> <0061> endbfrange";
        [
            "%PDF-1.4\n1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj\n",
            "2 0 obj <</Type/Pages/Kids[3 0 R 2 0 R]/Resources 8 0 R>> endobj 3 0 obj <</Type/Page/Contents [4 0 R]>> endobj\n",
            "8 0 obj <</Font <</F1 5 0 R /F2 6 0 R>> /XObject <</X 9 0 R>>>> endobj\n",
            "5 0 obj <</Type/Font/Subtype/Type1/Encoding <</BaseEncoding/WinAnsiEncoding/Differences [1 /P /w]>>>> endobj\n",
            "6 0 obj <</Type/Font/Subtype/Type0/Encoding/Identity-H/ToUnicode 7 0 R>> endobj\n",
            &stream(4, "", content),
            &stream(7, "", map),
            &stream(9, "/Subtype/Form", "BT /F1 1 Tf (in a form) Tj /X Do ET"),
        ]
        .concat()
    }

    fn read(content: &str) -> String {
        text(document(content).as_bytes(), 10_000, &|| true)
    }

    #[test]
    fn what_pages_show() {
        for (content, shown) in [
            ("BT /F1 12 Tf (Pass) Tj (word\\072 ) Tj (Geheim7) ' ET", "Password: \nGeheim7\n"),
            ("BT /F1 12 Tf [(Pa) 20 (ss) -300 (w\\374)] TJ ET", "Pass wü\n"),
            ("BT /F1 1 Tf (\\001\\002:) Tj 5 0 Td (x) Tj 0 -12 TD (y) Tj ET", "Pw: x\ny\n"),
            ("BT /F2 1 Tf <000100020003> Tj 1 0 0 1 0 0 Tm <0004> Tj 1 0 0 1 0 9 Tm <0005> Tj ET", "abc d\ne\n"),
            ("BI /W 1 ID (junk \u{1} xEI EI BT /F1 1 Tf (text) Tj ET", "text\n"),
            ("BT (no font) Tj ET ] ) > /X Do", "no font\nin a form"),
        ] {
            let found = read(content);
            assert!(found.starts_with(shown), "{content}: {found:?}");
        }
    }

    #[test]
    fn text_is_bounded() {
        let many = "BT /F1 1 Tf (many words) ' ET ".repeat(1000);
        assert!(text(document(&many).as_bytes(), 100, &|| true).len() < 200);
        assert_eq!(text(document(&many).as_bytes(), 100, &|| false), "");
        assert!(is_pdf(document("").as_bytes()) && !is_pdf(b"%PS"));
    }

    proptest! {
        #[test]
        fn any_bytes_end(
            content in "(BT|/F1|/F2|/X| Do | Tf | Tj | TJ |\\(a|\\)|\\[|\\]|<0001>|1 |ID|EI|<<|>>|\\PC){0,60}",
            broken: prop::sample::Index, byte: u8, data: Vec<u8>,
        ) {
            let mut file = document(&content).into_bytes();
            let at = broken.index(file.len());
            file[at] = byte;
            text(&file, 1000, &|| true);
            text(&[b"%PDF-1 0 obj", &data[..]].concat(), 1000, &|| true);
        }
    }
}
