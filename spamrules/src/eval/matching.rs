// SPDX-License-Identifier: GPL-3.0-or-later
//! Help for eval functions: patterns that are compiled once, on bytes, and lists of addresses with wildcards.

use std::collections::BTreeMap;

/// Whether a pattern is in a text. The pattern is a literal; it is compiled at the first use, for bytes.
macro_rules! has {
    ($pattern:expr, $text:expr) => {
        $crate::eval::matching::pattern!($pattern).is_match($text.as_ref())
    };
}

/// A pattern, compiled once.
macro_rules! pattern {
    ($pattern:expr) => {{
        static PATTERN: std::sync::LazyLock<regex::bytes::Regex> = std::sync::LazyLock::new(|| {
            regex::bytes::RegexBuilder::new($pattern).unicode(false).build().expect("a literal pattern of this crate")
        });
        &*PATTERN
    }};
}

pub(super) use {has, pattern};

/// An IP address in a pattern, as loosely as rules on forged fields need it.
macro_rules! ip {
    () => {
        r"(?:\d{1,3}(?:\.\d{1,3}){3}|(?:IPv6:)?[0-9A-Fa-f]*:[0-9A-Fa-f:.]+)"
    };
}

pub(super) use ip;

/// Text with every run of white space as one space.
pub(super) fn on_one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        let blank = letter.is_ascii_whitespace() || letter == '\u{b}';
        if !blank {
            out.push(letter);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out
}

/// Whether a text is what a pattern with `*` (anything) and `?` (one letter) says; letters' case must agree.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(letter) if *letter == b'?' || *letter == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|b| *b == b'*'))
}

/// Addresses and patterns of addresses, in lower case, each with what a directive says of it.
#[derive(Debug, Clone)]
pub(crate) struct AddressList<T = ()> {
    exact: Entries<T>,
    /// Patterns by what they end with, see [`tail`]: few of a long list can fit an address.
    globs: BTreeMap<Box<str>, Entries<T>>,
}

type Entries<T> = BTreeMap<Box<str>, Vec<T>>;

/// The part of a pattern behind its last wildcard from the first `@` or `.` in it, so that it is the end of every address that fits; often empty.
fn tail(pattern: &str) -> &str {
    let end = pattern.rsplit(['*', '?']).next().unwrap_or_default();
    end.find(['@', '.']).and_then(|at| end.get(at..)).unwrap_or_default()
}

/// All tails that a pattern that fits an address can have.
fn tails(address: &str) -> impl Iterator<Item = &str> {
    address.match_indices(['@', '.']).filter_map(|(at, _)| address.get(at..)).chain([""])
}

impl<T> Default for AddressList<T> {
    fn default() -> Self {
        Self { exact: BTreeMap::new(), globs: BTreeMap::new() }
    }
}

impl<T: PartialEq> AddressList<T> {
    pub(crate) fn add(&mut self, address: &str, about: T) {
        let address = address.to_ascii_lowercase().into_boxed_str();
        self.entries_for(&address).entry(address).or_default().push(about);
    }

    pub(crate) fn remove(&mut self, address: &str) {
        let address = address.to_ascii_lowercase();
        self.entries_for(&address).remove(address.as_str());
    }

    /// Where an address or a pattern stands.
    fn entries_for(&mut self, address: &str) -> &mut Entries<T> {
        if !address.contains(['*', '?']) {
            return &mut self.exact;
        }
        self.globs.entry(tail(address).into()).or_default()
    }

    /// Removes what was said of an address; the address too when nothing is left.
    pub(crate) fn remove_one(&mut self, address: &str, about: &T) {
        let address = address.to_ascii_lowercase();
        let list = self.entries_for(&address);
        if let Some(known) = list.get_mut(address.as_str()) {
            known.retain(|k| k != about);
            if known.is_empty() {
                list.remove(address.as_str());
            }
        }
    }

    /// What is said of an address, over all entries that fit it.
    pub(crate) fn about(&self, address: &str) -> Vec<&T> {
        let address = address.to_ascii_lowercase();
        self.fitting(&address).collect()
    }

    fn fitting<'l>(&'l self, address: &str) -> impl Iterator<Item = &'l T> {
        let patterns = tails(address).filter_map(|tail| self.globs.get(tail)).flatten();
        let fitting = patterns.filter(|(pattern, _)| glob(pattern.as_bytes(), address.as_bytes()));
        self.exact.get(address).into_iter().flatten().chain(fitting.flat_map(|(_, about)| about))
    }

    pub(crate) fn holds(&self, address: &str) -> bool {
        let address = address.to_ascii_lowercase();
        self.fitting(&address).next().is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.globs.values().all(BTreeMap::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn globs() {
        for (pattern, text) in
            [("*@example.org", "a@example.org"), ("a?c", "abc"), ("*", ""), ("a*b*c", "aXbXbc"), ("abc", "abc")]
        {
            assert!(glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("*@example.org", "a@example.org.x"), ("a?c", "ac"), ("a*b", "ac"), ("", "a")] {
            assert!(!glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn lists_forget() {
        let mut list = AddressList::default();
        list.add("*@Example.org", "a");
        list.add("b@example.net", "b");
        list.add("b@example.net", "c");
        assert!(list.holds("X@EXAMPLE.org"));
        list.remove_one("b@example.net", &"b");
        assert_eq!(list.about("b@example.net"), [&"c"]);
        list.remove("*@example.ORG");
        assert!(!list.holds("x@example.org"));
    }

    #[test]
    fn hostile_globs_end() {
        let begun = std::time::Instant::now();
        assert!(!glob("*a".repeat(200).as_bytes(), "a".repeat(150).as_bytes()));
        assert!(!glob(b"*a*b*c*d*e", "a".repeat(100_000).as_bytes()));
        assert!(begun.elapsed().as_secs() < 10);
    }

    proptest! {
        #[test]
        fn a_list_holds_what_one_of_its_patterns_fits(
            patterns in proptest::collection::vec(r"[ab*?@.]{1,8}", 0..8), address in "[ab@.]{0,8}",
        ) {
            let mut list = AddressList::default();
            patterns.iter().for_each(|pattern| list.add(pattern, ()));
            let fits = patterns.iter().any(|pattern| glob(pattern.as_bytes(), address.as_bytes()));
            prop_assert_eq!(list.holds(&address), fits);
            patterns.iter().for_each(|pattern| list.remove_one(pattern, &()));
            prop_assert!(list.is_empty());
        }

        #[test]
        fn a_text_is_a_glob_of_itself(text in "[a-z@.]{0,20}") {
            prop_assert!(glob(text.as_bytes(), text.as_bytes()));
            let open = format!("*{text}*");
            prop_assert!(glob(open.as_bytes(), text.as_bytes()));
        }
    }
}
