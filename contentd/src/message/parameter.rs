// SPDX-License-Identifier: GPL-3.0-or-later
//! The parameters of a structured MIME field, all of them (RFC 2045 section 5.1, RFC 2231).
//!
//! The second reading beside mail-parser's: it keeps every duplicate, since programs differ in which one they
//! take, and it reads on behind illegal characters. It knows no meaning of any parameter.

use super::codec::hex_pair;

/// One parameter. A name may occur several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name in lower case, without RFC 2231's `*` and numbers.
    pub name: String,
    /// Value without quotes, escapes and percent encoding, in its own character set.
    pub value: Vec<u8>,
    /// The character set that RFC 2231 syntax names for the value.
    pub charset: Option<String>,
}

/// A field's first value and its parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scanned {
    /// What stands before the first `;`, without comments, in lower case.
    pub head: String,
    /// The parameters in their order, RFC 2231 continuations joined and last.
    pub parameters: Vec<Parameter>,
    /// There were more parameters than are looked at.
    pub too_many: bool,
    /// What no program should have written, of which several make different things.
    pub odd: Option<&'static str>,
}

/// One numbered piece of a long parameter (RFC 2231 section 3).
struct Piece {
    name: String,
    number: u32,
    encoded: bool,
    value: Vec<u8>,
}

/// What is done with `(...)` outside quotes: a comment by the standard, part of the value to many programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comments {
    /// They are no part of any value (RFC 5322 section 3.2.2).
    Dropped,
    /// Parentheses are characters like others.
    Kept,
}

/// Reads a field's value, of which at most `limit` parameters.
pub fn scan(value: &[u8], comments: Comments, limit: usize) -> Scanned {
    let (items, odd) = split(value, comments);
    let mut items = items.into_iter();
    let head = items.next().map(|item| lower(&item.name)).unwrap_or_default();
    let mut scanned = Scanned { head, odd, ..Scanned::default() };
    let mut pieces = Vec::new();
    for item in items {
        if scanned.parameters.len() + pieces.len() >= limit {
            scanned.too_many = true;
            break;
        }
        if !item.name.is_ascii() {
            scanned.odd.get_or_insert("8-bit name");
        }
        let Some(value) = item.value else {
            if !item.name.trim_ascii().is_empty() {
                scanned.odd.get_or_insert("no value");
            }
            continue;
        };
        add(lower(&item.name), value, &mut scanned.parameters, &mut pieces);
    }
    join(pieces, &mut scanned.parameters);
    scanned
}

/// Sorts one `name=value` by the form of its name: plain, encoded (`name*`), or a piece (`name*0`, `name*0*`).
fn add(name: String, value: Vec<u8>, parameters: &mut Vec<Parameter>, pieces: &mut Vec<Piece>) {
    let Some((base, rest)) = name.split_once('*') else {
        parameters.push(Parameter { name, value, charset: None });
        return;
    };
    let (digits, encoded) = match rest.strip_suffix('*') {
        Some(digits) => (digits, true),
        None => (rest, rest.is_empty()),
    };
    match digits.parse() {
        Ok(number) => pieces.push(Piece { name: base.to_owned(), number, encoded, value }),
        Err(_) => {
            let (charset, value) = extended(&value);
            parameters.push(Parameter { name: base.to_owned(), value, charset });
        }
    }
}

/// Joins the pieces of each parameter in the order of their numbers. When a number is there twice or one is missing, programs differ
/// in which pieces they take: each way is one more parameter.
fn join(mut pieces: Vec<Piece>, parameters: &mut Vec<Parameter>) {
    pieces.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
    for group in pieces.chunk_by(|a, b| a.name == b.name) {
        parameters.push(whole(group.iter()));
        let twice = group.windows(2).any(|two| two[0].number == two[1].number);
        if twice {
            parameters.push(whole(group.chunk_by(|a, b| a.number == b.number).filter_map(|same| same.first())));
            parameters.push(whole(group.chunk_by(|a, b| a.number == b.number).filter_map(|same| same.last())));
        }
        let gap = group.windows(2).position(|two| two[1].number > two[0].number.saturating_add(1));
        if let Some(gap) = gap {
            parameters.push(whole(group[..=gap].iter()));
        }
    }
}

fn whole<'p>(pieces: impl Iterator<Item = &'p Piece>) -> Parameter {
    let mut whole = Parameter { name: String::new(), value: Vec::new(), charset: None };
    for (place, piece) in pieces.enumerate() {
        whole.name.clone_from(&piece.name);
        match (piece.encoded, place) {
            (true, 0) => (whole.charset, whole.value) = extended(&piece.value),
            (true, _) => whole.value.extend(percent_decoded(&piece.value)),
            (false, _) => whole.value.extend_from_slice(&piece.value),
        }
    }
    whole
}

/// Takes `charset'language'value` apart (RFC 2231 section 4). Without the two quotes everything is value.
fn extended(value: &[u8]) -> (Option<String>, Vec<u8>) {
    let mut fields = value.splitn(3, |byte| *byte == b'\'');
    match (fields.next(), fields.next(), fields.next()) {
        (Some(charset), Some(_language), Some(text)) => (Some(lower(charset)), percent_decoded(text)),
        _ => (None, percent_decoded(value)),
    }
}

/// The bytes that `%` and two hexadecimal digits stand for; other bytes stay.
pub fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        match value.get(at + 1..at + 3).and_then(hex_pair) {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn lower(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.trim_ascii()).to_ascii_lowercase()
}

/// Text between two `;`: what stands before the first `=` and behind it.
#[derive(Default)]
struct Item {
    name: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Item {
    fn push(&mut self, byte: u8) {
        self.value.as_mut().unwrap_or(&mut self.name).push(byte);
    }

    /// Blanks around an unquoted value are not part of it; those inside quotes were pushed as they are.
    fn finish(mut self, quoted: bool) -> Item {
        if let (Some(value), false) = (&mut self.value, quoted) {
            *value = value.trim_ascii().to_vec();
        }
        self
    }
}

/// Cuts a value at each `;` outside quotes and comments. Folding and comments go, quotes and escapes are taken off.
fn split(value: &[u8], comments: Comments) -> (Vec<Item>, Option<&'static str>) {
    let (mut items, mut odd) = (Vec::new(), None);
    let mut item = Item::default();
    let (mut in_quotes, mut quoted, mut depth) = (false, false, 0usize);
    let mut bytes = value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n'));
    while let Some(byte) = bytes.next() {
        if byte.is_ascii_control() && byte != b'\t' {
            odd = Some("control character");
        }
        match byte {
            b'\\' if in_quotes => item.push(bytes.next().unwrap_or(b'\\')),
            b'"' if depth == 0 => {
                in_quotes = !in_quotes;
                // Blanks before the quotes are not part of the value.
                if let (true, Some(value)) = (in_quotes, &mut item.value)
                    && value.trim_ascii().is_empty()
                {
                    value.clear();
                }
                quoted = true;
            }
            _ if in_quotes => item.push(byte),
            b'(' if comments == Comments::Dropped => {
                depth += 1;
                if item.value.is_none() && !items.is_empty() {
                    odd = Some("comment in a name");
                }
            }
            b')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            b';' => {
                items.push(std::mem::take(&mut item).finish(quoted));
                quoted = false;
            }
            b'=' if item.value.is_none() => item.value = Some(Vec::new()),
            // Behind the closing quote only blanks may come before the next `;`.
            b' ' | b'\t' if quoted => {}
            _ => item.push(byte),
        }
    }
    items.push(item.finish(quoted));
    if in_quotes {
        odd = Some("quote that does not end");
    } else if depth > 0 {
        odd = Some("comment that does not end");
    }
    (items, odd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parameters(value: &str) -> Vec<(String, String)> {
        let scanned = scan(value.as_bytes(), Comments::Dropped, 100);
        scanned.parameters.into_iter().map(|p| (p.name, String::from_utf8_lossy(&p.value).into_owned())).collect()
    }

    #[test]
    fn heads() {
        for (value, head) in [
            (" text/plain", "text/plain"),
            (" Text/HTML ; charset=x", "text/html"),
            ("multipart/mixed (a; comment) ; x=y", "multipart/mixed"),
            ("base64;", "base64"),
            ("\"base64\"", "base64"),
            ("", ""),
        ] {
            assert_eq!(scan(value.as_bytes(), Comments::Dropped, 100).head, head, "{value}");
        }
    }

    #[test]
    fn every_parameter_is_kept() {
        for (value, expected) in [
            ("a/b; boundary=A; boundary=\"B\"", vec![("boundary", "A"), ("boundary", "B")]),
            ("a/b;boundary=\"x y\" ;charset = u", vec![("boundary", "x y"), ("charset", "u")]),
            ("a/b; boun(c)dary=A", vec![("boundary", "A")]),
            ("a/b; boundary= (c) \"A;\\\"B\"", vec![("boundary", "A;\"B")]),
            ("a/b; b\u{f6}se; x; boundary=A", vec![("boundary", "A")]),
            ("a/b; boundary=\"A\r\n B\"", vec![("boundary", "A B")]),
            ("a/b; boundary=\"unclosed; x=y", vec![("boundary", "unclosed; x=y")]),
            ("a/b; name=a b.exe ", vec![("name", "a b.exe")]),
            ("a/b; boundary=\"\"", vec![("boundary", "")]),
            ("a/b; boundary=\"A \"", vec![("boundary", "A ")]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            assert_eq!(parameters(value), expected, "{value}");
        }
    }

    #[test]
    fn rfc_2231_forms() {
        for (value, expected) in [
            ("a; filename*=utf-8'de'%e2%82%ac.exe", vec![("filename", "€.exe")]),
            ("a; filename*=utf-8'en-GB-x'a.exe", vec![("filename", "a.exe")]),
            ("a; filename=a.txt; filename*=''x.exe", vec![("filename", "a.txt"), ("filename", "x.exe")]),
            ("a; filename*1=.exe; filename*0=a", vec![("filename", "a.exe")]),
            ("a; filename*0*=utf-8''a%20; filename*1=b; filename*2*=%2e", vec![("filename", "a b.")]),
            ("a; filename*=noquotes%41", vec![("filename", "noquotesA")]),
            ("a; filename*0*=%; filename*x=y", vec![("filename", "y"), ("filename", "%")]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            assert_eq!(parameters(value), expected, "{value}");
        }
    }

    #[test]
    fn pieces_that_are_there_twice_or_missing() {
        for (value, expected) in [
            ("a; filename*0=a; filename*0=b; filename*1=.exe", vec!["ab.exe", "a.exe", "b.exe"]),
            ("a; filename*0=a.exe; filename*2=.txt", vec!["a.exe.txt", "a.exe"]),
        ] {
            let values: Vec<_> = parameters(value).into_iter().map(|(_, value)| value).collect();
            assert_eq!(values, expected, "{value}");
        }
    }

    #[test]
    fn what_is_odd_is_named() {
        for (value, odd) in [
            ("a/b (comment); boundary=\"A\"; charset=utf-8 (really);", None),
            ("a/b; boun(c)dary=A", Some("comment in a name")),
            ("a/b; boundary=\"A", Some("quote that does not end")),
            ("a/b; boundary=A (x (y)", Some("comment that does not end")),
            ("a/b; b\u{f6}x=y; boundary=A", Some("8-bit name")),
            ("a/b; nonsense; boundary=A", Some("no value")),
            ("a/b; boundary=\"A\0B\"", Some("control character")),
        ] {
            assert_eq!(scan(value.as_bytes(), Comments::Dropped, 100).odd, odd, "{value}");
        }
    }

    #[test]
    fn nested_comments_cost_little() {
        let value = format!("a/b; {}boundary=A", "(".repeat(100_000));
        assert_eq!(scan(value.as_bytes(), Comments::Dropped, 100).parameters, []);
        assert_eq!(scan(value.as_bytes(), Comments::Kept, 100).parameters.len(), 1);
    }

    #[test]
    fn parentheses_are_text_to_some() {
        let scanned = scan(b"a/b; name=x(1).exe; name=y(.exe", Comments::Kept, 100);
        let values: Vec<_> = scanned.parameters.iter().map(|p| p.value.as_slice()).collect();
        assert_eq!(values, [&b"x(1).exe"[..], b"y(.exe"]);
    }

    #[test]
    fn parameters_are_counted() {
        let value = format!("a/b{}", "; x=y".repeat(11));
        assert!(scan(value.as_bytes(), Comments::Dropped, 10).too_many);
        assert!(!scan(value.as_bytes(), Comments::Dropped, 11).too_many);
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned(bytes: Vec<u8>) {
            prop_assert!(scan(&bytes, Comments::Dropped, 10).parameters.len() <= 40);
        }

        #[test]
        fn field_like_text_is_scanned(text in "[a*0-2=;\"\\\\()%' ]{0,60}") {
            prop_assert!(scan(text.as_bytes(), Comments::Kept, 10).parameters.len() <= 40);
        }
    }
}
