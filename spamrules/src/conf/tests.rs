// SPDX-License-Identifier: GPL-3.0-or-later
//! The tests of rules as they are written: `Subject =~ /…/i [if-unset: …]`, `exists:…`, `eval:function('…')`, plain patterns.

use super::draft::text;
use crate::meta::Expression;
use crate::regexes::Source;
use crate::rule::{Draft, EvalKind};

/// Reads what follows the name of a rule.
pub(super) fn read(key: &str, value: &[u8]) -> Result<Draft, String> {
    match key {
        "header" => header(value),
        "mimeheader" => mime_header(value),
        "meta" => meta(value),
        "uri_detail" => Ok(call(EvalKind::Body, "check_uri_detail")),
        "askdns" => {
            let arguments = vec![text(value)];
            Ok(Draft::Eval { kind: EvalKind::Dns, function: "check_askdns".to_owned(), arguments })
        }
        _ => match value.strip_prefix(b"eval:") {
            Some(function) => eval(key, function),
            None => pattern(value).map(|pattern| match key {
                "rawbody" => Draft::Rawbody(pattern),
                "uri" => Draft::Uri(pattern),
                "full" => Draft::Full(pattern),
                _ => Draft::Body(pattern),
            }),
        },
    }
}

fn call(kind: EvalKind, function: &str) -> Draft {
    Draft::Eval { kind, function: function.to_owned(), arguments: Vec::new() }
}

fn pattern(value: &[u8]) -> Result<Source, String> {
    let source = Source::parse(value).map_err(|error| error.to_string())?;
    if template_names(source.text()).is_empty() {
        source.check().map_err(|error| error.to_string())?;
    }
    Ok(source)
}

fn meta(value: &[u8]) -> Result<Draft, String> {
    let value = text(value);
    let plain = super::build::without_globs(&value, &|_| "0".to_owned());
    Expression::parse(&plain).map_err(|error| error.to_string())?;
    Ok(Draft::Meta(value))
}

fn header(value: &[u8]) -> Result<Draft, String> {
    if let Some(function) = value.strip_prefix(b"eval:").or_else(|| value.strip_prefix(b"rbleval:")) {
        return eval("header", function);
    }
    if let Some(selector) = value.strip_prefix(b"exists:") {
        let selector = text(selector);
        let selector = selector.strip_suffix(':').unwrap_or(&selector).to_owned();
        if selector.is_empty()
            || !selector.bytes().all(|byte| matches!(byte, b'_' | b'.' | b'-') || byte.is_ascii_alphanumeric())
        {
            return Err(format!("{selector:?} is not a header field"));
        }
        return Ok(Draft::Exists { selector });
    }
    let Comparison { selector, pattern, negated, unset } = compare(value)?;
    crate::headers::Selector::parse(&selector)?;
    Ok(Draft::Header { selector, pattern, negated, unset })
}

fn mime_header(value: &[u8]) -> Result<Draft, String> {
    let Comparison { selector, pattern, negated, unset } = compare(value)?;
    Ok(Draft::MimeHeader { selector, pattern, negated, unset: unset.unwrap_or_default() })
}

struct Comparison {
    selector: String,
    pattern: Source,
    negated: bool,
    unset: Option<Vec<u8>>,
}

/// `Selector =~ /pattern/ [if-unset: text]`.
fn compare(value: &[u8]) -> Result<Comparison, String> {
    let at = value.windows(2).position(|pair| pair == b"=~" || pair == b"!~").ok_or("neither =~ nor !~")?;
    let (selector, rest) = value.split_at(at);
    let negated = rest.first() == Some(&b'!');
    let selector = text(selector.trim_ascii());
    let selector = selector.strip_suffix(':').unwrap_or(&selector).to_owned();
    if selector.is_empty() || selector.contains(char::is_whitespace) {
        return Err(format!("{selector:?} is not a header field"));
    }
    let rest = rest.get(2..).unwrap_or_default().trim_ascii();
    let (rest, unset) = if_unset(rest);
    Ok(Comparison { selector, pattern: pattern(rest)?, negated, unset })
}

/// Takes off `[if-unset: text]` at the end.
fn if_unset(value: &[u8]) -> (&[u8], Option<Vec<u8>>) {
    const START: &[u8] = b"[if-unset:";
    let Some(inner) = value.strip_suffix(b"]") else { return (value, None) };
    let Some(at) = inner.windows(START.len()).position(|window| window == START) else { return (value, None) };
    let (before, after) = inner.split_at(at);
    if !before.last().is_some_and(u8::is_ascii_whitespace) {
        return (value, None);
    }
    let unset = after.get(START.len()..).unwrap_or_default().trim_ascii_start();
    (before.trim_ascii_end(), Some(unset.to_vec()))
}

/// `function('a', "b", 3)`.
fn eval(key: &str, value: &[u8]) -> Result<Draft, String> {
    let value = text(value);
    let inner = value.trim_end().strip_suffix(')').and_then(|value| value.split_once('('));
    let (function, list) = inner.ok_or("an eval test is written as function(arguments)")?;
    if function.is_empty() || !function.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
        return Err(format!("{function:?} is not a function"));
    }
    let kind = match key {
        "header" if function.starts_with("check_rbl") || function.starts_with("check_dns") => EvalKind::Dns,
        "header" => EvalKind::Header,
        "rawbody" => EvalKind::Rawbody,
        "full" => EvalKind::Full,
        _ => EvalKind::Body,
    };
    Ok(Draft::Eval { kind, function: function.to_owned(), arguments: arguments(list)? })
}

/// Quoted strings, and bare words of digits, letters, dots, colons and dashes, between commas.
fn arguments(list: &str) -> Result<Vec<String>, String> {
    let mut arguments = Vec::new();
    let mut rest = list.trim();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|letter| matches!(letter, '\'' | '"'));
        let (argument, after) = match quote {
            Some(quote) => rest.get(1..).and_then(|inner| inner.split_once(quote)).ok_or("a quote is not closed")?,
            None => rest.split_at(rest.find(',').unwrap_or(rest.len())),
        };
        let bare = |letter: char| matches!(letter, '.' | ':' | '-') || letter.is_ascii_alphanumeric();
        let argument = if quote.is_some() { argument } else { argument.trim_end() };
        if quote.is_none() && (argument.is_empty() || !argument.chars().all(bare)) {
            return Err(format!("{argument:?} needs quotes"));
        }
        arguments.push(argument.to_owned());
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after.is_empty() => after,
            None => return Err(format!("{after:?} where a comma is expected")),
        };
    }
    Ok(arguments)
}

/// Whether a pattern has a named group in capital letters: its text becomes a tag that other rules may use.
pub(super) fn captures(pattern: &[u8]) -> bool {
    pattern.windows(4).any(|four| matches!(four, [b'(', b'?', b'<' | b'\'', b'A'..=b'Z']))
        || pattern.windows(5).any(|five| matches!(five, [b'(', b'?', b'P', b'<' | b'\'', b'A'..=b'Z']))
}

/// The names in `%{NAME}` and `%{NAME(argument)}`: texts captured by other rules, and tags such as `HEADER(From:addr)`.
pub(crate) fn template_names(pattern: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in pattern.windows(2).enumerate().filter(|(_, pair)| *pair == b"%{") {
        if at > 0 && pattern.get(at - 1) == Some(&b'\\') {
            continue;
        }
        let rest = pattern.get(at + 2..).unwrap_or_default();
        let Some(end) = rest.iter().take(256).position(|&byte| byte == b'}') else { continue };
        let inner = rest.get(..end).unwrap_or_default();
        let word = inner.split(|&byte| byte == b'(').next().unwrap_or_default();
        let named = word.first().is_some_and(u8::is_ascii_uppercase)
            && word.iter().all(|byte| *byte == b'_' || byte.is_ascii_uppercase() || byte.is_ascii_digit());
        let argument = inner.get(word.len()..).unwrap_or_default();
        let called = argument.is_empty()
            || (argument.last() == Some(&b')') && !argument.get(1..argument.len() - 1).unwrap_or(b")").contains(&b')'));
        if named && called {
            names.push(text(inner));
        }
    }
    names
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn header_tests() {
        let Ok(Draft::Header { selector, negated, unset, .. }) = header(b"X-Foo:addr !~ /a/ [if-unset: none such]")
        else {
            panic!()
        };
        assert_eq!((selector.as_str(), negated, unset.as_deref()), ("X-Foo:addr", true, Some(&b"none such"[..])));
        assert!(matches!(header(b"exists:X-Foo:"), Ok(Draft::Exists { selector }) if selector == "X-Foo"));
        assert!(header(b"Subject").is_err());
        assert!(header(b"exists:").is_err());
        assert!(header(b"Subject =~ abc").is_err());
    }

    #[test]
    fn eval_tests() {
        let Ok(Draft::Eval { kind, function, arguments }) = header(b"eval:check_x('a, b', \"c\", -3.5 )") else {
            panic!()
        };
        assert_eq!((kind, function.as_str()), (EvalKind::Header, "check_x"));
        assert_eq!(arguments, ["a, b", "c", "-3.5"]);
        assert!(matches!(header(b"eval:check_rbl('a')"), Ok(Draft::Eval { kind: EvalKind::Dns, .. })));
        assert!(header(b"eval:check_x('a)").is_err());
        assert!(header(b"eval:check_x(a b)").is_err());
        assert!(header(b"eval:check_x").is_err());
    }

    #[test]
    fn templates() {
        assert_eq!(template_names(b"a%{GB_TO}b\\%{NO}%{3}"), ["GB_TO"]);
        assert_eq!(template_names(b"%{HEADER(From:addr)}%{A(}%{A(b)c}"), ["HEADER(From:addr)"]);
        assert!(captures(b"(?<ADDR>x)"));
        assert!(!captures(b"(?<!A)(?<=x)"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(key in "header|body|meta|mimeheader|uri", value: Vec<u8>) {
            let _ = read(&key, &value);
        }
    }
}
