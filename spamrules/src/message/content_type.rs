// SPDX-License-Identifier: GPL-3.0-or-later
//! The `Content-Type:` field, read as SpamAssassin reads it (not as RFC 2045 has it): what looks like a parameter is one.

use std::sync::LazyLock;

use regex::bytes::Regex;

/// What a `Content-Type:` field says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContentType {
    /// `type/subtype` in lower case; kinds of text that are not told apart are `text/plain`.
    pub(crate) kind: String,
    /// The `boundary` parameter.
    pub(crate) boundary: Option<Vec<u8>>,
    /// The `charset` parameter.
    pub(crate) charset: Option<String>,
    /// The `name` or `filename` parameter.
    pub(crate) name: Option<Vec<u8>>,
    /// There is no such field, or it is empty.
    pub(crate) missing: bool,
}

impl ContentType {
    /// Reads the decoded value of the last such field.
    pub(crate) fn parse(value: Option<&[u8]>) -> ContentType {
        let value = value.filter(|value| !value.is_empty() && *value != b"0");
        let text = value.unwrap_or(b"text/plain; charset=us-ascii");
        let (kind, empty) = kind(text);
        ContentType {
            kind,
            boundary: boundary(text),
            charset: parameter(&CHARSET, text).map(|charset| String::from_utf8_lossy(charset).into_owned()),
            name: name(text),
            missing: value.is_none() || empty,
        }
    }
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern written here")
}

static BOUNDARY: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?i-u)\bboundary\s*=\s*(?:"([^"]+)|([^\s";]+)(?:[\s;]|$))"#));
static CHARSET: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(?i-u)\bcharset\s*=\s*["']?(.*?)["']?(?:;|$)"#));
static NAME: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(?i-u)\b(?:file)?name\s*=\s*["']?(.*?)["']?(?:;|$)"#));
static PIECE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?i-u)\b(?:file)?name\*(\d+)\s*=\s*["']?(.*?)["']?(?:;|$)"#));

fn boundary(text: &[u8]) -> Option<Vec<u8>> {
    let found = BOUNDARY.captures(text)?;
    let value = found.get(1).or(found.get(2))?.as_bytes();
    Some(value.iter().copied().filter(|&byte| byte != b'"').collect())
}

fn parameter<'t>(pattern: &Regex, text: &'t [u8]) -> Option<&'t [u8]> {
    Some(pattern.captures(text)?.get(1)?.as_bytes())
}

/// The name, also in pieces (RFC 2231, section 3).
fn name(text: &[u8]) -> Option<Vec<u8>> {
    if let Some(whole) = parameter(&NAME, text).filter(|name| !name.is_empty()) {
        return Some(whole.to_vec());
    }
    let mut pieces = std::collections::BTreeMap::new();
    for found in PIECE.captures_iter(text) {
        let number: Option<u32> =
            found.get(1).and_then(|digits| std::str::from_utf8(digits.as_bytes()).ok()?.parse().ok());
        if let (Some(number), Some(piece)) = (number, found.get(2)) {
            pieces.insert(number, piece.as_bytes());
        }
    }
    pieces.contains_key(&0).then(|| pieces.into_values().collect::<Vec<_>>().concat())
}

/// The type alone, and whether there is none.
fn kind(text: &[u8]) -> (String, bool) {
    let text = text.trim_ascii_start();
    let text = text.split(|&byte| byte == b';').next().unwrap_or_default();
    let slash = text.iter().position(|&byte| byte == b'/');
    let end = slash.filter(|&at| at > 0).and_then(|slash| {
        let subtype = text.get(slash + 1..)?;
        subtype.iter().position(|&byte| super::headers::is_space(byte)).map(|at| slash + 1 + at)
    });
    let text = text.get(..end.unwrap_or(text.len())).unwrap_or_default().to_ascii_lowercase();
    let empty = text.is_empty() || text == b"0";
    if empty || is_plain(&text) {
        return ("text/plain".to_owned(), empty);
    }
    let kept = text.iter().filter(|&&byte| (0x21..0x7f).contains(&byte) && !br#""(),:;<=>?@[\]"#.contains(&byte));
    (kept.map(|&byte| char::from(byte)).collect(), empty)
}

/// Text of a kind that is shown as it is.
fn is_plain(kind: &[u8]) -> bool {
    let Some(rest) = kind.strip_prefix(b"text") else { return false };
    let word_ends = !rest.first().is_some_and(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
    word_ends && !matches!(rest, b"/x-vcard" | b"/calendar" | b"/html")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> ContentType {
        ContentType::parse(Some(text.as_bytes()))
    }

    #[test]
    fn types() {
        assert_eq!(parse("Text/HTML; x").kind, "text/html");
        assert_eq!(parse("text/x-foo").kind, "text/plain");
        assert_eq!(parse("text").kind, "text/plain");
        assert_eq!(parse("textual/x").kind, "textual/x");
        assert_eq!(parse("text/plain charset=us-ascii").kind, "text/plain");
        assert_eq!(parse("image/gif (comment)").kind, "image/gif");
        assert_eq!(parse("<image/gif>").kind, "image/gif");
        assert!(ContentType::parse(None).missing);
        assert!(parse(" ;").missing);
    }

    #[test]
    fn parameters() {
        let found = parse(r#"multipart/mixed; boundary="a b"; charset='utf-8'; name=x.gif"#);
        assert_eq!(found.boundary.as_deref(), Some(&b"a b"[..]));
        assert_eq!(found.charset.as_deref(), Some("utf-8"));
        assert_eq!(found.name.as_deref(), Some(&b"x.gif"[..]));
        assert_eq!(parse("multipart/mixed; boundary = x;y").boundary.as_deref(), Some(&b"x"[..]));
        assert_eq!(parse("multipart/mixed; boundary=x\"y").boundary, None);
        assert_eq!(parse("a/b; name*0=\"x\"; name*1=y").name.as_deref(), Some(&b"xy"[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ContentType::parse(Some(&bytes));
        }
    }
}
