// SPDX-License-Identifier: GPL-3.0-or-later
//! Mail addresses that a reader of the text would write to: in running text and in `mailto:` links, not those of quoted senders.

use std::ops::Range;

use super::matching::pattern;
use crate::context::Context;
use crate::domains::Settings;

/// Most addresses that are looked at.
const MOST: usize = 40;

/// Longest user part, in bytes.
const USER: usize = 64;

/// The addresses in small letters, each once.
pub(super) fn of_text(context: &Context<'_>) -> Vec<String> {
    let domains = &context.settings.domains;
    let mut found: Vec<String> = Vec::new();
    for link in mail_links(context) {
        let address = next(link, 0, domains).filter(|range| range.start == 0).map(|range| &link[range]);
        if let Some(address) = address.filter(|_| found.len() < MOST / 2) {
            note(&mut found, address);
        }
    }
    for line in &context.texts().body {
        let line = without_quoted(&without_links(line), domains);
        let mut at = 0;
        while let Some(range) = next(&line, at, domains) {
            at = range.end;
            note(&mut found, &line[range]);
            if found.len() >= MOST {
                return found;
            }
        }
    }
    found
}

/// What `mailto:` links of HTML say behind the colon.
pub(super) fn mail_links<'c>(context: &'c Context<'_>) -> impl Iterator<Item = &'c [u8]> {
    let links = context.uris().details.iter().filter(|uri| uri.types.contains(&"a") && !uri.types.contains(&"parsed"));
    links.filter_map(|uri| uri.raw.get(7..).filter(|_| uri.raw[..7].eq_ignore_ascii_case(b"mailto:")))
}

/// The addresses in a text as they are written, each once.
pub(super) fn all(text: &[u8], domains: &Settings) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(range) = next(text, at, domains) {
        at = range.end;
        let address = String::from_utf8_lossy(&text[range]).into_owned();
        if found.len() < MOST && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

fn note(found: &mut Vec<String>, address: &[u8]) {
    let address = String::from_utf8_lossy(address).to_ascii_lowercase();
    if !found.contains(&address) {
        found.push(address);
    }
}

/// Text without links that hold an address.
pub(super) fn without_links(text: &[u8]) -> Vec<u8> {
    pattern!(r"(?i)<?https?://\S{0,255}(?:@|%40)\S{0,255}").replace_all(text, &b" "[..]).into_owned()
}

/// Text without addresses in angle brackets and without those before a word like `wrote:`.
pub(super) fn without_quoted(text: &[u8], domains: &Settings) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut at, mut from) = (0, 0);
    while let Some(range) = next(text, from, domains) {
        from = range.end;
        let Some(length) = quote_mark(&text[range.end..]) else { continue };
        let bracket = range.start > at && text[range.start - 1] == b'<';
        let start = range.start - usize::from(bracket);
        if !bracket && text[..start].ends_with(b"mailto:") {
            continue;
        }
        out.extend_from_slice(&text[at..start]);
        out.push(b' ');
        at = range.end + length;
        from = at;
    }
    out.extend_from_slice(&text[at..]);
    out
}

/// The closing bracket, or `wrote:` in any language; not `fax:` and the like, which come before the next thing.
fn quote_mark(rest: &[u8]) -> Option<usize> {
    if rest.first() == Some(&b'>') {
        return Some(1);
    }
    let blanks = rest.iter().take_while(|b| crate::message::is_space(**b)).count();
    let word = rest.get(blanks..)?;
    let letters = word.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    let other = pattern!(r"(?i)^(?:fax|facsi|tel|phone|e?-?mail)").is_match(word);
    let fits = (1..=10).contains(&blanks) && (2..=11).contains(&letters) && word.get(letters) == Some(&b':') && !other;
    fits.then_some(blanks + letters + 1)
}

/// The first address that begins at `from` or later.
fn next(text: &[u8], from: usize, domains: &Settings) -> Option<Range<usize>> {
    let mut search = from;
    loop {
        let sign = search + memchr::memchr(b'@', text.get(search..)?)?;
        if let Some(start) = user_start(text, from, sign)
            && let Some(end) = host_end(text, sign + 1, domains)
        {
            return Some(start..end);
        }
        search = sign + 1;
    }
}

fn is_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&byte)
}

/// Where the user part before an `@` begins: words joined by single dots.
fn user_start(text: &[u8], from: usize, sign: usize) -> Option<usize> {
    let mut start = None;
    let mut at = sign;
    loop {
        let word = text[from..at].iter().rev().take_while(|b| is_user(**b)).count();
        // What stands before `from` belongs to the address before.
        let cut = at - word == from && from > 0 && is_user(text[from - 1]);
        if word == 0 || cut || sign - (at - word) > USER {
            return start;
        }
        start = Some(at - word);
        at -= word;
        if at <= from || text[at - 1] != b'.' {
            return start;
        }
        at -= 1;
    }
}

/// Where the host behind an `@` ends: one to four labels and a known top-level domain.
fn host_end(text: &[u8], start: usize, domains: &Settings) -> Option<usize> {
    let mut at = start;
    let mut labels = 0;
    loop {
        let length = text.get(at..)?.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'-').count();
        let label = &text[at..at + length];
        let follows =
            text.get(at + length) == Some(&b'.') && text.get(at + length + 1).is_some_and(u8::is_ascii_alphanumeric);
        if !follows {
            let known = labels > 0 && std::str::from_utf8(label).is_ok_and(|l| domains.is_tld(l));
            return known.then_some(at + length);
        }
        labels += 1;
        if labels > 4 || length > 61 || length == 0 || label.starts_with(b"-") || label.ends_with(b"-") {
            return None;
        }
        at += length + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domains() -> Settings {
        let mut domains = Settings::default();
        domains.set("util_rb_tld", "com org").unwrap().unwrap();
        domains
    }

    fn found(text: &str) -> Vec<String> {
        let (domains, line) = (domains(), without_quoted(&without_links(text.as_bytes()), &domains()));
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(range) = next(&line, at, &domains) {
            at = range.end;
            note(&mut found, &line[range]);
        }
        found
    }

    #[test]
    fn addresses_in_text() {
        assert_eq!(found("Write to Joe.Doe@mail.example.org. Now"), ["joe.doe@mail.example.org"]);
        assert_eq!(found("a@b.com,c@d.org"), ["a@b.com", "c@d.org"]);
        assert_eq!(found("x..y@b.com"), ["y@b.com"]);
        assert!(found("a@b.invalid a@com a@b.com.invalid @b.com").is_empty());
    }

    #[test]
    fn quoted_senders_and_links_are_left_out() {
        assert!(found("Joe <joe@example.org> and http://x.org/?u=a@b.com").is_empty());
        assert!(found("joe@example.org wrote:").is_empty());
        assert_eq!(found("joe@example.org fax: 1"), ["joe@example.org"]);
    }

    #[test]
    fn crafted_text_ends() {
        let begun = std::time::Instant::now();
        found(&"a@".repeat(100_000));
        found(&"a.".repeat(100_000));
        found(&"a@b.com ".repeat(20_000));
        assert!(begun.elapsed().as_secs() < 30);
    }

    proptest! {
        #[test]
        fn any_bytes_are_searched(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let domains = domains();
            without_quoted(&without_links(&text), &domains);
        }

        #[test]
        fn likely_text_is_searched(text in "([ab.@<>-]|com|mailto:| wrote:){0,30}") {
            found(&text);
        }
    }
}
