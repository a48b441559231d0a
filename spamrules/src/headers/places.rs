// SPDX-License-Identifier: GPL-3.0-or-later
//! Host names and addresses in running text, for the modifiers `:host`, `:domain`, `:ip` and `:revip`.

use crate::domains::{self, Settings};
use crate::message::is_space;
use crate::relays::ip;

/// Longest name that is looked for, in bytes before its last dot.
const LONGEST: usize = 251;

/// The host behind the last `@` of an address.
pub(super) fn host_of_address(address: &[u8]) -> Option<&[u8]> {
    address.split(|b| *b == b'\n').find_map(|line| {
        let at = (0..line.len()).rev().find(|i| line[*i] == b'@' && line.get(i + 1).is_some_and(|b| !is_space(*b)))?;
        Some(&line[at + 1..word_end(line, at + 1)])
    })
}

/// The first host name of a text: first of all behind an `@`, otherwise wherever one is.
pub(super) fn host<'t>(text: &'t [u8], domains: &Settings) -> Option<&'t [u8]> {
    behind_at(text, domains).or_else(|| anywhere(text, domains))
}

fn behind_at<'t>(text: &'t [u8], domains: &Settings) -> Option<&'t [u8]> {
    let found = text.split(|b| *b == b'\n').find_map(|line| {
        let signs = (0..line.len()).rev().filter(|at| line[*at] == b'@');
        signs.take(50).find_map(|at| name_at(line, at + 1, domains))
    })?;
    is_host(found).then_some(found)
}

fn anywhere<'t>(text: &'t [u8], domains: &Settings) -> Option<&'t [u8]> {
    let mut at = 0;
    while at < text.len() {
        let follows_dot = at.checked_sub(1).is_some_and(|i| matches!(text[i], b'.' | b'_' | b'-'));
        if is_space(text[at]) || follows_dot {
            at += 1;
            continue;
        }
        match name_at(text, at, domains) {
            Some(name) if is_host(name) => return Some(name),
            Some(name) => at += name.len().max(1),
            // No name begins in the rest of a word that holds none, unless the word is longer than a name.
            None => at = word_end(text, at).min(at + LONGEST).max(at + 1),
        }
    }
    None
}

/// The longest text from `at` that ends with a known top-level domain.
fn name_at<'t>(text: &'t [u8], at: usize, domains: &Settings) -> Option<&'t [u8]> {
    let end = word_end(text, at).min(at + LONGEST + 1);
    (at + 1..end).rev().filter(|dot| text[*dot] == b'.').find_map(|dot| {
        let rest = text.get(dot + 1..)?;
        let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'-').count();
        let label = std::str::from_utf8(rest.get(..length)?).ok()?;
        let follows = rest.get(length);
        (domains.is_tld(label) && !matches!(follows, Some(b'.' | b'_' | b'-'))).then(|| &text[at..dot + 1 + length])
    })
}

fn is_host(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(domains::is_well_formed)
}

fn word_end(text: &[u8], at: usize) -> usize {
    at + text.get(at..).unwrap_or_default().iter().take_while(|b| !is_space(**b)).count()
}

/// The first IP address that stands by itself.
pub(super) fn address(text: &[u8]) -> Option<&[u8]> {
    (0..text.len()).find_map(|at| {
        let length = ip::length_at(text, at)?;
        let before = at.checked_sub(1).and_then(|i| text.get(i)).copied();
        let (first, last, after) = (text[at], text[at + length - 1], text.get(at + length).copied());
        let boundary = |a: Option<u8>, b: u8| a.is_some_and(ip::is_word) != ip::is_word(b);
        (before != Some(b'.') && after != Some(b'.') && boundary(before, first) && boundary(after, last))
            .then(|| &text[at..at + length])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(text: &str) -> Option<String> {
        let mut domains = Settings::default();
        domains.set("util_rb_tld", "com org").unwrap().unwrap();
        host(text.as_bytes(), &domains).map(|h| String::from_utf8_lossy(h).into_owned())
    }

    #[test]
    fn hosts_in_text() {
        assert_eq!(find("<id.com@mail.example.org>").unwrap(), "mail.example.org");
        assert_eq!(find("from (x mail.example.com) by").unwrap(), "mail.example.com");
        assert_eq!(find("(mail.example.com [192.0.2.1]) by mx.example.org with").unwrap(), "mx.example.org");
        assert_eq!(find("a@host.invalid"), None);
        assert_eq!(find("example.com.invalid"), None);
    }

    #[test]
    fn hosts_of_addresses() {
        assert_eq!(host_of_address(b"a@b@example.org x").unwrap(), b"example.org");
        assert_eq!(host_of_address(b"nobody"), None);
    }

    #[test]
    fn addresses_in_text() {
        assert_eq!(address(b"x [192.0.2.1] y").unwrap(), b"192.0.2.1");
        assert_eq!(address(b"v1.192.0.2.1"), None);
        assert_eq!(address(b"192.0.2.1.5"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_searched(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut domains = Settings::default();
            domains.set("util_rb_tld", "com a").unwrap().unwrap();
            host(&text, &domains);
            host_of_address(&text);
            address(&text);
        }
    }
}
