// SPDX-License-Identifier: GPL-3.0-or-later
//! Addresses in `From`, `To` and the like, read as SpamAssassin 4.0.1 reads them without Perl's address module: no RFC 5322 parser,
//! but one that makes sense of what is really sent, and always the same sense.
//!
//! A list is read entry by entry. An entry is a name with an address in angle brackets, a bare address, or a name alone, perhaps
//! with one comment behind, up to a comma or semicolon. Where an entry cannot be read, only addresses in angle brackets are
//! taken from the rest.

use crate::domains;
use crate::message::is_space;

/// Longest value that is read, in bytes.
const LONGEST: usize = 16_384;

/// Most entries of one value.
const MOST: usize = 2000;

/// One entry of an address list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mailbox {
    /// The display name, or the comment where there is none; not decoded.
    pub(crate) name: Option<Vec<u8>>,
    /// The address without brackets.
    pub(crate) address: Option<Vec<u8>>,
}

/// Reads the raw value of a field.
pub(crate) fn parse(value: &[u8]) -> Vec<Mailbox> {
    let value = value.get(..LONGEST).unwrap_or(value);
    let text = without_group(without_double_escapes(trim_end(value)));
    let mut rest = &text[..];
    let mut found = Vec::new();
    while found.len() < MOST
        && let Some((entry, end)) = Entry::read(rest)
    {
        found.push(entry.mailbox());
        rest = rest.get(end..).unwrap_or_default();
    }
    if rest.contains(&b'@') {
        bracketed(rest, &mut found);
    }
    found
}

fn trim_end(text: &[u8]) -> &[u8] {
    let blanks = text.iter().rev().take_while(|b| is_space(**b)).count();
    &text[..text.len() - blanks]
}

/// Escaped backslashes mean nothing to a reader of names; without them every backslash escapes.
fn without_double_escapes(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        if *first == b'\\' && tail.first() == Some(&b'\\') {
            rest = &tail[1..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// `undisclosed recipients: a@example.org, b@example.org;`: the name of the group goes.
fn without_group(text: Vec<u8>) -> Vec<u8> {
    let head = text.iter().take_while(|b| !matches!(b, b'"' | b'(' | b')' | b'<' | b'>')).count();
    match text[..head].iter().rposition(|b| *b == b':').filter(|at| *at > 0) {
        Some(colon) => {
            let rest = &text[colon + 1..];
            let blanks = rest.iter().take_while(|b| is_space(**b)).count();
            let rest = &rest[blanks..];
            if rest.first() == Some(&b';') { Vec::new() } else { rest.to_vec() }
        }
        None => text,
    }
}

/// What is behind an address or a name: perhaps a comment, and where the entry ends.
type Tail<'t> = (Option<&'t [u8]>, usize);

/// The pieces of an entry as they stand.
#[derive(Debug, Default)]
struct Entry<'t> {
    phrase: Option<&'t [u8]>,
    address: Option<&'t [u8]>,
    /// Whether the address stood in angle brackets.
    bracketed: bool,
    comment: Option<&'t [u8]>,
}

impl<'t> Entry<'t> {
    /// The entry at the beginning of a text, and where it ends.
    fn read(text: &'t [u8]) -> Option<(Entry<'t>, usize)> {
        let start = text.iter().take_while(|b| is_space(**b)).count();
        let pieces = pieces(text, start);
        let after = pieces.last().map_or(start, |piece| piece.1);
        if text.get(after) == Some(&b'<')
            && let Some((inside, (comment, end))) = brackets(text, after)
        {
            let phrase = (after > start).then(|| &text[start..after]);
            return Some((Entry { phrase, address: Some(inside), bracketed: true, comment }, end));
        }
        if let Some(length) = address_length(&text[start..])
            && let Some((comment, end)) = ended(text, start + length)
        {
            let address = Some(&text[start..start + length]);
            return Some((Entry { address, comment, ..Entry::default() }, end));
        }
        pieces.iter().rev().find_map(|(_, stop)| {
            let (comment, end) = ended(text, *stop)?;
            Some((Entry { phrase: Some(&text[start..*stop]), comment, ..Entry::default() }, end))
        })
    }

    fn mailbox(&self) -> Mailbox {
        let mut address = self.address.map(<[u8]>::to_vec);
        if self.bracketed {
            address = address.map(|a| without_comments(&a)).filter(|a| is_address(a));
        }
        address = address.filter(|a| is_plausible(a));
        let mut name = self.phrase.map(readable);
        if let Some(phrase) = &name {
            if address.is_none() && is_address(phrase) && is_plausible(phrase) && has_host(phrase) {
                address = name.take();
            } else if phrase.is_empty() || address.as_deref() == Some(phrase) {
                name = None;
            }
        }
        Mailbox { name: name.or_else(|| self.comment.map(<[u8]>::to_vec)), address: address.map(one_at_sign) }
    }
}

/// Quoted strings and runs of other bytes, as far as they reach; each as (start, end).
fn pieces(text: &[u8], mut at: usize) -> Vec<(usize, usize)> {
    let mut pieces = Vec::new();
    loop {
        let end = match text.get(at) {
            Some(b'"') => quoted_end(text, at),
            _ => Some(at + text[at..].iter().take_while(|b| !matches!(b, b'"' | b',' | b';' | b'<')).count()),
        };
        match end {
            Some(end) if end > at => pieces.push((at, end)),
            _ => return pieces,
        }
        at = end.unwrap_or(at);
    }
}

/// Behind the closing quote of the string that begins at `at`.
fn quoted_end(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let mut i = at + 1;
    loop {
        match text.get(i)? {
            b'"' => return Some(i + 1),
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
}

/// What stands in the angle brackets that open at `open`, and what is behind them.
///
/// The address ends its first word, and that word may itself hold closing brackets: the farthest that fits is taken.
fn brackets(text: &[u8], open: usize) -> Option<(&[u8], Tail<'_>)> {
    let start = open + 1 + blanks(text, open + 1);
    let pivot = start + text.get(start..)?.iter().take_while(|b| !matches!(b, b'@' | b'>')).count();
    let word = pivot + text[pivot..].iter().take_while(|b| !is_space(**b)).count();
    let behind = word + blanks(text, word);
    let far = (word > pivot && text.get(behind) == Some(&b'>')).then_some((word, behind));
    let inner = (pivot + 1..word).rev().filter(|at| text[*at] == b'>').map(|at| (at, at));
    let near = (text.get(pivot) == Some(&b'>')).then(|| {
        let before = text[start..pivot].iter().rev().take_while(|b| is_space(**b)).count();
        (pivot - before, pivot)
    });
    far.into_iter().chain(inner).chain(near).find_map(|(stop, close)| {
        let tail = ended(text, without_repetition(text, close + 1))?;
        Some((&text[start..stop], tail))
    })
}

/// Some programs write the address in brackets twice.
fn without_repetition(text: &[u8], mut at: usize) -> usize {
    loop {
        let open = at + blanks(text, at);
        if text.get(open) != Some(&b'<') {
            return at;
        }
        let start = open + 1 + blanks(text, open + 1);
        let start = quoted_end(text, start).unwrap_or(start);
        let word = start + text[start.min(text.len())..].iter().take_while(|b| !is_space(**b) && **b != b'>').count();
        let close = word + blanks(text, word);
        if text.get(close) != Some(&b'>') {
            return at;
        }
        at = close + 1;
    }
}

fn blanks(text: &[u8], at: usize) -> usize {
    text.get(at..).unwrap_or_default().iter().take_while(|b| is_space(**b)).count()
}

/// Whether an entry ends at `at`, perhaps behind a comment; the end is behind the separator.
fn ended(text: &[u8], at: usize) -> Option<Tail<'_>> {
    let open = at + blanks(text, at);
    if text.get(open) == Some(&b'(')
        && let Some(close) = comment_end(text, open)
        && let Some(end) = separator(text, close)
    {
        return Some((Some(&text[open + 1..close - 1]), end));
    }
    separator(text, at).map(|end| (None, end))
}

fn separator(text: &[u8], at: usize) -> Option<usize> {
    let at = at + blanks(text, at);
    match text.get(at) {
        None => Some(text.len()),
        Some(b',' | b';') => Some(at + 1),
        Some(_) => None,
    }
}

/// Behind the parenthesis that closes the comment at `open`; comments in comments are not read.
fn comment_end(text: &[u8], open: usize) -> Option<usize> {
    let mut i = open + 1;
    loop {
        match text.get(i)? {
            b')' => return Some(i + 1),
            b'(' => return None,
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
}

fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    // Where one comment is not closed before the next opens, its parenthesis is plain text.
    while let Some(byte) = text.get(at) {
        match (*byte == b'(').then(|| comment_end(text, at)).flatten() {
            Some(end) => at = end,
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

/// A display name without its quotes, escapes and comments.
fn readable(phrase: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(phrase.len());
    let mut at = 0;
    while at < phrase.len() {
        if let Some(end) = quoted_end(phrase, at) {
            out.extend(phrase[at + 1..end - 1].iter().filter(|b| **b != b'\\'));
            at = end;
        } else {
            let plain = phrase[at..].iter().take_while(|b| **b != b'"').count().max(1);
            out.extend(without_comments(&phrase[at..at + plain]).into_iter().filter(|b| *b != b'"'));
            at += plain;
        }
    }
    out
}

/// Length of the address that begins a text.
fn address_length(text: &[u8]) -> Option<usize> {
    let plain = || text.iter().take_while(|b| !is_delimiter(**b) && **b != b'@').count();
    let user = quoted_end(text, 0).filter(|end| text.get(*end) == Some(&b'@')).unwrap_or_else(plain);
    if user == 0 || text.get(user) != Some(&b'@') {
        return None;
    }
    let host = text.get(user + 1..)?;
    let name = host.iter().take_while(|b| !is_delimiter(**b) && **b != b'"').count();
    if name > 0 {
        return Some(user + 1 + name);
    }
    let digits = host.get(1..)?.iter().take_while(|b| b.is_ascii_digit() || matches!(b, b':' | b'.')).count();
    let literal = host.first() == Some(&b'[') && digits > 0 && host.get(digits + 1) == Some(&b']');
    literal.then_some(user + digits + 3)
}

fn is_delimiter(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b'<' | b'>' | b'(' | b')' | b'[' | b']' | b',' | b':' | b';')
}

fn is_address(text: &[u8]) -> bool {
    address_length(text) == Some(text.len())
}

/// Not an empty quoted user, and no quote left alone.
fn is_plausible(address: &[u8]) -> bool {
    !address.starts_with(b"\"\"@") && address.iter().filter(|b| **b == b'"').count() != 1
}

fn has_host(address: &[u8]) -> bool {
    let host = address.split(|b| *b == b'@').nth(1).unwrap_or_default();
    std::str::from_utf8(host).is_ok_and(domains::is_well_formed)
}

/// What is behind a second `@` goes.
fn one_at_sign(mut address: Vec<u8>) -> Vec<u8> {
    let mut signs = address.iter().enumerate().filter(|(_, b)| **b == b'@').map(|(at, _)| at);
    if let Some(second) = signs.nth(1) {
        address.truncate(second);
    }
    address
}

/// Addresses in angle brackets, wherever they are.
fn bracketed(text: &[u8], found: &mut Vec<Mailbox>) {
    let mut at = 0;
    while let Some(open) = text.get(at..).and_then(|rest| memchr::memchr(b'<', rest)).map(|i| at + i) {
        at = open + 1;
        let Some(length) = address_length(&text[at..]) else { continue };
        if text.get(at + length) != Some(&b'>') || found.len() >= MOST {
            continue;
        }
        let address = &text[at..at + length];
        at += length + 1;
        if is_plausible(address) {
            found.push(Mailbox { name: None, address: Some(one_at_sign(address.to_vec())) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(value: &str) -> Vec<(String, String)> {
        let text = |t: Option<Vec<u8>>| t.map_or("-".into(), |t| String::from_utf8_lossy(&t).trim().to_string());
        parse(value.as_bytes()).into_iter().map(|m| (text(m.name), text(m.address))).collect()
    }

    fn one(value: &str) -> (String, String) {
        let mut all = read(value);
        assert_eq!(all.len(), 1, "{value}: {all:?}");
        all.remove(0)
    }

    #[test]
    fn usual_entries() {
        let pair = |n: &str, a: &str| (n.to_string(), a.to_string());
        assert_eq!(one("a@example.org"), pair("-", "a@example.org"));
        assert_eq!(one(" A Name <a@example.org>\n"), pair("A Name", "a@example.org"));
        assert_eq!(one("\"Name, A\" <a@example.org>"), pair("Name, A", "a@example.org"));
        assert_eq!(one("a@example.org (A Name)"), pair("A Name", "a@example.org"));
        assert_eq!(one("\"A \\\"B\\\" C\" <a@example.org>"), pair("A \"B\" C", "a@example.org"));
        assert_eq!(one("\"a@example.org\""), pair("-", "a@example.org"));
        assert_eq!(one("\"a@example.org\"<a@example.org>"), pair("-", "a@example.org"));
        assert_eq!(one("<\"a b\"@[192.0.2.1]>"), pair("-", "\"a b\"@[192.0.2.1]"));
        assert_eq!(one("Only A Name"), pair("Only A Name", "-"));
        assert_eq!(one("<>"), pair("-", "-"));
    }

    #[test]
    fn lists_and_groups() {
        let addresses = |v: &str| read(v).into_iter().map(|m| m.1).collect::<Vec<_>>();
        assert_eq!(
            addresses("a@example.org, B <b@example.org>; c@example.org (C)"),
            ["a@example.org", "b@example.org", "c@example.org"]
        );
        assert_eq!(addresses("friends: a@example.org, b@example.org;"), ["a@example.org", "b@example.org"]);
        assert!(addresses("undisclosed-recipients:;").is_empty());
    }

    #[test]
    fn what_is_wrong_is_still_read() {
        assert_eq!(one("=?UTF-8?Q?\"Foo\"_<a@example.org>?=").1, "a@example.org");
        assert_eq!(one("a@example.org <a@example.org> <a@example.org>").1, "a@example.org");
        assert_eq!(one("<a@example.org@example.net>").1, "a@example.org");
        assert_eq!(one("\"A\"b@example.org").1, "\"A\"b@example.org");
        assert_eq!(one("Name <not an address>"), ("Name".to_string(), "-".to_string()));
        assert_eq!(read("\"\"@example.org <x"), []);
    }

    #[test]
    fn long_values_are_bounded() {
        let begun = std::time::Instant::now();
        for pattern in ["<", "(", "\"", "a@b,", "<<a@", "\"(<", "((", "a@b.c>", ", ,"] {
            parse(pattern.repeat(1_000_000 / pattern.len()).as_bytes());
        }
        assert!(begun.elapsed().as_secs() < 30);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&value);
        }

        #[test]
        fn likely_bytes_are_read(value in "[a-c@<>()\",;: \\\\\\[\\].]{0,60}") {
            for mailbox in parse(value.as_bytes()) {
                if let Some(address) = mailbox.address {
                    prop_assert!(address.contains(&b'@'));
                }
            }
        }
    }
}
