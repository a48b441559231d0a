// SPDX-License-Identifier: GPL-3.0-or-later
//! Constant texts and networks of an expression, made ready for comparison: nothing is allocated when a request is looked up.
//!
//! Pure. Texts are compared without regard to the case of ASCII letters, as names and addresses are in mail (RFC 5321 section 2.4).

use std::net::IpAddr;

use ipnet::IpNet;
use memchr::memchr2;
use regex::bytes::{Regex, RegexBuilder};

/// Largest compiled pattern, in bytes.
const PATTERN_SIZE: usize = 1 << 20;

/// A set of texts, hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSet {
    /// A bit for each length that occurs, the last one for all longer ones: most texts need no hash.
    lengths: u64,
    /// A power of two of them.
    buckets: Box<[Vec<Box<str>>]>,
}

impl TextSet {
    /// A set of these.
    pub fn new(texts: impl ExactSizeIterator<Item = String>) -> Self {
        let count = (texts.len() * 2).next_power_of_two();
        let mut set = Self { lengths: 0, buckets: vec![Vec::new(); count].into_boxed_slice() };
        for text in texts {
            set.lengths |= 1 << text.len().min(63);
            let text = text.to_ascii_lowercase().into_boxed_str();
            let bucket = set.bucket(&text);
            if !set.buckets[bucket].contains(&text) {
                set.buckets[bucket].push(text);
            }
        }
        set
    }

    /// True when the text is one of them.
    pub fn contains(&self, text: &str) -> bool {
        self.lengths >> text.len().min(63) & 1 == 1
            && self.buckets[self.bucket(text)].iter().any(|known| known.eq_ignore_ascii_case(text))
    }

    /// FNV-1a of the lower-case text. The keys are the administrator's, so nobody can choose them to collide.
    fn bucket(&self, text: &str) -> usize {
        let step =
            |hash: u64, byte: u8| (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        // The low bits of a product know little of the high ones.
        (hash ^ hash >> 32) as usize & (self.buckets.len() - 1)
    }
}

/// True when `text` begins with `start`, in any case.
pub fn starts_with(text: &str, start: &str) -> bool {
    text.as_bytes().get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
}

/// True when `text` ends with `end`, in any case.
pub fn ends_with(text: &str, end: &str) -> bool {
    let cut = text.len().checked_sub(end.len());
    cut.is_some_and(|at| text.as_bytes()[at..].eq_ignore_ascii_case(end.as_bytes()))
}

/// True when `text` has `inner` in it, in any case.
pub fn contains(text: &str, inner: &str) -> bool {
    let (text, inner) = (text.as_bytes(), inner.as_bytes());
    let Some(first) = inner.first() else { return true };
    let (small, large) = (first.to_ascii_lowercase(), first.to_ascii_uppercase());
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(small, large, rest)) {
        let Some(here) = text.get(at + found..at + found + inner.len()) else { return false };
        if here.eq_ignore_ascii_case(inner) {
            return true;
        }
        at += found + 1;
    }
    false
}

/// Networks as ranges that neither touch nor overlap, in order: a look-up is a binary search whatever their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    /// A table of these.
    pub fn new(networks: &[IpNet]) -> Self {
        let v4 = networks.iter().filter_map(|network| match network {
            IpNet::V4(net) => Some((u32::from(net.network()), u32::from(net.broadcast()))),
            IpNet::V6(_) => None,
        });
        let v6 = networks.iter().filter_map(|network| match network {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some((u128::from(net.network()), u128::from(net.broadcast()))),
        });
        Self { v4: joined(v4.collect()), v6: joined(v6.collect()) }
    }

    /// True when the address is in one of them.
    pub fn contain(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => within(&self.v4, u32::from(ip)),
            IpAddr::V6(ip) => within(&self.v6, u128::from(ip)),
        }
    }
}

fn joined<N: Ord + Copy>(mut ranges: Vec<(N, N)>) -> Box<[(N, N)]> {
    ranges.sort_unstable();
    let mut out: Vec<(N, N)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => out.push((first, last)),
        }
    }
    out.into_boxed_slice()
}

fn within<N: Ord + Copy>(ranges: &[(N, N)], ip: N) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= ip);
    after.checked_sub(1).is_some_and(|at| ip <= ranges[at].1)
}

/// Reads a network or an address; the error says how it is written.
pub fn network(text: &str) -> Result<IpNet, String> {
    let wrong = || format!("{text:?} is not an address or a network such as \"192.0.2.0/24\"");
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip.to_canonical()));
    }
    let network: IpNet = text.parse().map_err(|_| wrong())?;
    match network.trunc() == network {
        true => Ok(network),
        false => Err(format!("{text:?} has bits beyond its prefix; the network is \"{}\"", network.trunc())),
    }
}

/// A regular expression, in any case (`(?-i)` in it for exact case). What is only a text with ends is compared as such.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// `^text$`
    Whole(Box<str>),
    /// `^text`
    Start(Box<str>),
    /// `text$`
    End(Box<str>),
    /// `text`
    Inside(Box<str>),
    /// Anything else. It works on bytes: `.` is one byte, and letters fold as in ASCII.
    Regex(Regex),
}

impl Pattern {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let body = pattern.strip_prefix('^');
        let (anchored, body) = (body.is_some(), body.unwrap_or(pattern));
        // An escaped dollar is a letter like any other.
        let cut = body.strip_suffix('$').filter(|rest| !rest.ends_with('\\'));
        let (ends, body) = (cut.is_some(), cut.unwrap_or(body));
        if let Some(text) = plain(body) {
            return Ok(match (anchored, ends) {
                (true, true) => Self::Whole(text),
                (true, false) => Self::Start(text),
                (false, true) => Self::End(text),
                (false, false) => Self::Inside(text),
            });
        }
        let built = RegexBuilder::new(pattern).case_insensitive(true).unicode(false).size_limit(PATTERN_SIZE).build();
        built.map(Self::Regex).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
            error => {
                let told = error.to_string();
                let last = told.lines().last().unwrap_or_default();
                format!("not a regular expression: {}", last.trim_start_matches("error: "))
            }
        })
    }

    /// True when the pattern is found in the text.
    pub fn is_in(&self, text: &str) -> bool {
        match self {
            Self::Whole(whole) => whole.eq_ignore_ascii_case(text),
            Self::Start(start) => starts_with(text, start),
            Self::End(end) => ends_with(text, end),
            Self::Inside(inner) => contains(text, inner),
            Self::Regex(regex) => regex.is_match(text.as_bytes()),
        }
    }
}

/// The text that a pattern stands for when it has no special character but escaped ones.
fn plain(pattern: &str) -> Option<Box<str>> {
    let mut text = String::with_capacity(pattern.len());
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => text.push(rest.next().filter(|c| c.is_ascii_punctuation() && !matches!(c, '<' | '>'))?),
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            // In the engine other letters are bytes, and fold no case either.
            c => text.push(c),
        }
    }
    Some(text.into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_found_in_any_case() {
        let set = TextSet::new(["Example.org", "b", "b", ""].map(str::to_owned).into_iter());
        for (text, found) in [("example.ORG", true), ("B", true), ("", true), ("example.or", false), ("c", false)] {
            assert_eq!(set.contains(text), found, "{text:?}");
        }
        assert!(!TextSet::new(Vec::new().into_iter()).contains(""));
        assert!(starts_with("Example", "eX") && !starts_with("e", "ex"));
        assert!(ends_with("Example", "PLE") && !ends_with("ple", "mple") && !ends_with("é", "\u{a9}"));
        assert!(contains("an ExAmple", "examp") && contains("x", "") && !contains("exampl", "example"));
    }

    #[test]
    fn networks_are_ranges() {
        let all = [
            "192.0.2.0/24",
            "192.0.2.128/25",
            "10.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "2001:db8::/32",
            "::ffff:198.51.100.7",
        ];
        let table = Networks::new(&all.map(|text| network(text).unwrap()));
        for (ip, found) in [
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
            ("0.0.0.0", true),
            ("255.255.255.255", true),
            ("::ffff:192.0.2.1", true),
            ("198.51.100.7", true),
            ("2001:db8:ffff::", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(table.contain(ip.parse().unwrap()), found, "{ip}");
        }
        assert!(network("192.0.2.1/24").unwrap_err().contains("192.0.2.0/24"));
        assert!(network("192.0.2").is_err() && network("x").is_err());
    }

    #[test]
    fn patterns_that_are_texts_need_no_engine() {
        for (pattern, text, found) in [
            ("^mail\\.", "MAIL.example", true),
            ("^mail\\.", "xmail.", false),
            ("\\.dyn\\.example$", "1.DYN.example", true),
            ("^a$", "A", true),
            ("^a$", "aa", false),
            ("dsl", "my-DSL-host", true),
            ("dsl|dyn", "x-DYN-x", true),
            ("^[0-9]{2}", "12x", true),
            ("(?-i)^Foo", "foo", false),
            ("a\\$", "A$", true),
            ("a\\\\$", "A\\", true),
            ("\\d", "7", true),
            ("é", "é", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().is_in(text), found, "{pattern} {text}");
        }
        assert!(matches!(Pattern::new("^mail\\."), Ok(Pattern::Start(text)) if &*text == "mail."));
        assert!(matches!(Pattern::new("a.c"), Ok(Pattern::Regex(_))));
        assert!(matches!(Pattern::new("^a\\$"), Ok(Pattern::Start(_))));
        assert!(Pattern::new("(").unwrap_err().starts_with("not a regular expression: unclosed group"));
        assert!(Pattern::new("(?:a{1000}){1000}").is_err());
    }

    proptest! {
        #[test]
        fn texts_as_the_engine_finds_them(pattern in "\\^?[aA.\\\\$é-]{0,5}\\$?", text in "[aA.\\\\$é-]{0,8}") {
            if let (Ok(ours), Ok(theirs)) = (Pattern::new(&pattern), RegexBuilder::new(&pattern).case_insensitive(true).unicode(false).build()) {
                prop_assert_eq!(ours.is_in(&text), theirs.is_match(text.as_bytes()), "{} in {}", pattern, text);
            }
        }
    }
}
