// SPDX-License-Identifier: GPL-3.0-or-later
//! Objects of PDF as values (ISO 32000-1 section 7.3): names, strings, numbers, lists, dictionaries, references, and the words of content streams.
//! Knows no table of objects: a value is read where it stands. Lenient: what is broken ends the value, and nothing is deeper than `DEPTH`. Pure.

use crate::message::codec;

/// Lists and dictionaries within each other.
const DEPTH: usize = 24;
/// Values of one list or dictionary.
const MOST: usize = 100_000;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::unpack) enum Value {
    Number(f64),
    /// Without its slash, and with `#61` as `a`.
    Name(Vec<u8>),
    /// A string, as the bytes that it stands for.
    Text(Vec<u8>),
    List(Vec<Value>),
    Dictionary(Dictionary),
    /// Number and generation of another object.
    Reference(u32, u16),
    /// Anything else: `true`, `null`, `endobj`, operators.
    Word(Vec<u8>),
}

/// Keys and values in their order; of a key that stands twice the last one counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::unpack) struct Dictionary(Vec<(Vec<u8>, Value)>);

impl Dictionary {
    pub(in crate::unpack) fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value)
    }

    pub(in crate::unpack) fn number(&self, key: &str) -> Option<i64> {
        self.get(key)?.number()
    }

    pub(in crate::unpack) fn text(&self, key: &str) -> Option<&[u8]> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(in crate::unpack) fn name(&self, key: &str) -> Option<&[u8]> {
        self.get(key)?.name()
    }

    pub(in crate::unpack) fn dictionary(&self, key: &str) -> Option<&Dictionary> {
        match self.get(key)? {
            Value::Dictionary(inner) => Some(inner),
            _ => None,
        }
    }

    /// The entries that are dictionaries themselves.
    pub(in crate::unpack) fn dictionaries(&self) -> impl Iterator<Item = (&[u8], &Dictionary)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::Dictionary(inner) => Some((&name[..], inner)),
            _ => None,
        })
    }

    pub(in crate::unpack) fn is_false(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Value::Word(word)) if word == b"false")
    }
}

impl Value {
    pub(in crate::unpack) fn number(&self) -> Option<i64> {
        match self {
            Value::Number(number) => Some(*number as i64),
            _ => None,
        }
    }

    pub(in crate::unpack) fn name(&self) -> Option<&[u8]> {
        match self {
            Value::Name(name) => Some(name),
            _ => None,
        }
    }
}

/// Reads values one after the other.
#[derive(Debug, Clone)]
pub(in crate::unpack) struct Reader<'d> {
    data: &'d [u8],
    /// Where the next one is looked for.
    pub(in crate::unpack) at: usize,
    /// A list or dictionary is not ended where its object is. Nothing is read behind that: it would be read once more for every object.
    ended: bool,
}

/// A byte that ends names, numbers and words.
pub(in crate::unpack) fn ends_word(byte: u8) -> bool {
    is_blank(byte) || matches!(byte, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%')
}

pub(in crate::unpack) fn is_blank(byte: u8) -> bool {
    matches!(byte, 0 | 9 | 10 | 12 | 13 | 32)
}

impl<'d> Reader<'d> {
    pub(in crate::unpack) fn new(data: &'d [u8], at: usize) -> Reader<'d> {
        Reader { data, at, ended: false }
    }

    fn rest(&self) -> &'d [u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    /// Blanks and comments.
    fn skip(&mut self) {
        while let Some(byte) = self.peek() {
            if byte == b'%' {
                let rest = self.rest();
                self.at += memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            } else if is_blank(byte) {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    /// The next value. None: the data ends, or a list or dictionary that was not begun.
    pub(in crate::unpack) fn value(&mut self) -> Option<Value> {
        self.value_within(DEPTH)
    }

    fn value_within(&mut self, depth: usize) -> Option<Value> {
        self.skip();
        if self.ended {
            return None;
        }
        match self.peek()? {
            b'/' => {
                self.at += 1;
                Some(Value::Name(super::unescaped(self.run())))
            }
            b'(' => self.literal().map(Value::Text),
            b'<' if self.rest().starts_with(b"<<") => {
                self.at += 2;
                self.dictionary(depth.checked_sub(1)?).map(Value::Dictionary)
            }
            b'<' => Some(Value::Text(self.hexadecimal())),
            b'[' => {
                self.at += 1;
                self.list(depth.checked_sub(1)?).map(Value::List)
            }
            b'{' | b'}' => {
                self.at += 1;
                self.value_within(depth.checked_sub(1)?)
            }
            b')' | b'>' | b']' => None,
            _ => Some(self.number_or_word()),
        }
    }

    /// A value within a list or dictionary.
    fn inner(&mut self, depth: usize) -> Option<Value> {
        let value = self.value_within(depth)?;
        self.ended |= matches!(&value, Value::Word(word) if word.ends_with(b"obj") || word.ends_with(b"stream"));
        (!self.ended).then_some(value)
    }

    /// Up to what ends a word.
    fn run(&mut self) -> &'d [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|byte| ends_word(*byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// A number, a reference `12 0 R`, or a word.
    fn number_or_word(&mut self) -> Value {
        let word = self.run();
        let Some(number) = number(word) else { return Value::Word(word.to_vec()) };
        let before = self.at;
        if let Some(object) = digits(word) {
            self.skip();
            let generation = digits(self.run());
            self.skip();
            if let Some(generation) = generation.and_then(|number| u16::try_from(number).ok())
                && self.run() == b"R"
            {
                return Value::Reference(object, generation);
            }
            self.at = before;
        }
        Value::Number(number)
    }

    fn list(&mut self, depth: usize) -> Option<Vec<Value>> {
        let mut list = Vec::new();
        loop {
            self.skip();
            if self.peek()? == b']' {
                self.at += 1;
                return Some(list);
            }
            list.push(self.inner(depth)?);
            if list.len() > MOST {
                return None;
            }
        }
    }

    /// Behind `<<`. A dictionary that is not ended is what there is of it.
    fn dictionary(&mut self, depth: usize) -> Option<Dictionary> {
        let mut entries = Vec::new();
        while entries.len() < MOST {
            self.skip();
            match self.peek() {
                Some(b'/') => {
                    self.at += 1;
                    let key = super::unescaped(self.run());
                    let Some(value) = self.inner(depth) else { break };
                    entries.push((key, value));
                }
                Some(b'>') => {
                    self.at += if self.rest().starts_with(b">>") { 2 } else { 1 };
                    break;
                }
                // What is no key is passed over.
                Some(_) if self.inner(depth).is_some() => {}
                _ => break,
            }
        }
        Some(Dictionary(entries))
    }

    /// A string in parentheses, from the first of them on. None: it does not end.
    pub(in crate::unpack) fn literal(&mut self) -> Option<Vec<u8>> {
        let (mut bytes, mut depth, mut at) = (Vec::new(), 0usize, self.at + 1);
        loop {
            let byte = *self.data.get(at)?;
            at += 1;
            match byte {
                b'(' => depth += 1,
                b')' if depth == 0 => break,
                b')' => depth -= 1,
                b'\\' => {
                    at += escape(self.data.get(at..)?, &mut bytes);
                    continue;
                }
                // An end of line is one line feed, however it is written.
                b'\r' => {
                    at += usize::from(self.data.get(at) == Some(&b'\n'));
                    bytes.push(b'\n');
                    continue;
                }
                _ => {}
            }
            bytes.push(byte);
        }
        self.at = at;
        Some(bytes)
    }

    /// A string in hexadecimal digits, from its `<` on.
    pub(in crate::unpack) fn hexadecimal(&mut self) -> Vec<u8> {
        self.at += 1;
        let rest = self.rest();
        let length = memchr::memchr(b'>', rest).unwrap_or(rest.len());
        self.at = (self.at + length + 1).min(self.data.len());
        let mut digits: Vec<u8> = rest[..length].iter().filter(|byte| byte.is_ascii_hexdigit()).copied().collect();
        if digits.len() % 2 == 1 {
            digits.push(b'0');
        }
        digits.chunks(2).filter_map(codec::hex_pair).collect()
    }
}

/// What stands behind a backslash; how long it is.
fn escape(rest: &[u8], bytes: &mut Vec<u8>) -> usize {
    let Some(&byte) = rest.first() else { return 0 };
    match byte {
        b'n' => bytes.push(b'\n'),
        b'r' => bytes.push(b'\r'),
        b't' => bytes.push(b'\t'),
        b'b' => bytes.push(8),
        b'f' => bytes.push(12),
        b'\n' => {}
        b'\r' => return 1 + usize::from(rest.get(1) == Some(&b'\n')),
        b'0'..=b'7' => {
            let digits = rest.iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte));
            let (length, value) =
                digits.fold((0, 0u32), |(length, value), digit| (length + 1, value << 3 | u32::from(digit - b'0')));
            bytes.push((value & 255) as u8);
            return length;
        }
        other => bytes.push(other),
    }
    1
}

fn digits(word: &[u8]) -> Option<u32> {
    let digits = word.iter().all(u8::is_ascii_digit) && word.len() <= 10;
    std::str::from_utf8(word).ok().filter(|_| digits)?.parse().ok()
}

fn number(word: &[u8]) -> Option<f64> {
    let looks = word.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.'));
    std::str::from_utf8(word).ok().filter(|_| looks && word.len() < 40)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &[u8]) -> Value {
        Reader::new(text, 0).value().unwrap()
    }

    #[test]
    fn values() {
        assert_eq!(value(b" % note\n -1.5 "), Value::Number(-1.5));
        assert_eq!(value(b"12 0 R"), Value::Reference(12, 0));
        assert_eq!(value(b"12 0 obj"), Value::Number(12.0));
        assert_eq!(value(b"/A#42c/D"), Value::Name(b"ABc".to_vec()));
        assert_eq!(value(b"<48 6 9 7>"), Value::Text(b"Hip".to_vec()));
        assert_eq!(value(b"true]"), Value::Word(b"true".to_vec()));
        let list = vec![Value::Number(1.0), Value::Text(b"x".to_vec()), Value::List(Vec::new())];
        assert_eq!(value(b"[1(x)[]]"), Value::List(list));
        let Value::Dictionary(dictionary) = value(b"<</V 1/CF<</StdCF<</CFM/AESV2>>>>/E false/O<00>/V 4>>") else {
            panic!("no dictionary")
        };
        assert_eq!(dictionary.number("V"), Some(4), "the last one");
        let filter = dictionary.dictionary("CF").and_then(|filters| filters.dictionary("StdCF")).unwrap();
        assert_eq!(filter.name("CFM"), Some(&b"AESV2"[..]));
        assert!(dictionary.is_false("E"));
        assert_eq!(dictionary.text("O"), Some(&[0][..]));
    }

    #[test]
    fn strings_as_they_are_meant() {
        for (text, meant) in [
            (&b"(a(b)c)"[..], &b"a(b)c"[..]),
            (b"(\\n\\)\\\\\\101\\7x\\q)", b"\n)\\A\x07xq"),
            (b"(a\\\r\nb\r\nc\rd)", b"ab\nc\nd"),
            (b"(\\400)", b"\0"),
        ] {
            assert_eq!(value(text), Value::Text(meant.to_vec()));
        }
        assert_eq!(Reader::new(b"(a(b)", 0).value(), None);
    }

    #[test]
    fn nothing_is_read_beyond_its_object() {
        let mut reader = Reader::new(b"<</A [<</B 1 /C [2 endobj 3 0 obj <</D 4>>", 0);
        assert!(reader.value().is_some());
        assert_eq!((reader.value(), reader.at), (None, 26));
    }

    #[test]
    fn depth_is_bounded() {
        assert_eq!(Reader::new(&b"[".repeat(100_000), 0).value(), None);
        assert!(Reader::new(&b"<</A".repeat(100_000), 0).value().is_some());
        assert_eq!(Reader::new(&b"{".repeat(100_000), 0).value(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end(data: Vec<u8>, text in "(<<|>>|\\[|\\]|\\(|\\)|/A|1|0|R| |\\\\|<|>|%|\\{){0,40}") {
            for bytes in [&data[..], text.as_bytes()] {
                let mut reader = Reader::new(bytes, 0);
                while reader.value().is_some() {}
                prop_assert!(reader.at <= bytes.len());
            }
        }
    }
}
