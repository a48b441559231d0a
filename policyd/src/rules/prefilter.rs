// SPDX-License-Identifier: GPL-3.0-or-later
//! Which patterns can match at all: of most patterns some text must be in what they match (`\.isp7\.` of `^dsl.*\.isp7\.net$`). One pass
//! over an attribute finds the texts of all rules at once, and only patterns whose text is there are tried.
//!
//! Pure. What a pattern means is not changed; one without such a text is always tried. Two hundred patterns cost what two do.

use std::cell::OnceCell;

use aho_corasick::AhoCorasick;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind};

/// Shortest text worth looking for, in bytes.
const SHORTEST: usize = 3;
/// Most texts of one pattern, one of which must be there.
const MOST: usize = 16;

/// The place of a pattern in its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    filter: usize,
    pattern: usize,
}

/// The patterns of one attribute while rules are compiled.
#[derive(Debug, Default)]
struct Draft {
    attribute: String,
    /// Texts, each with its pattern.
    texts: Vec<(Vec<u8>, usize)>,
    patterns: usize,
}

/// The filters while rules are compiled.
#[derive(Debug, Default)]
pub struct Drafts(Vec<Draft>);

impl Drafts {
    /// Takes up a pattern that is looked for in an attribute; none when no text must be there.
    pub fn add(&mut self, attribute: &str, pattern: &str) -> Option<Place> {
        let texts = required(pattern)?;
        let filter = self.0.iter().position(|draft| draft.attribute == attribute).unwrap_or(self.0.len());
        if filter == self.0.len() {
            self.0.push(Draft { attribute: attribute.to_owned(), ..Draft::default() });
        }
        let draft = &mut self.0[filter];
        let place = Place { filter, pattern: draft.patterns };
        draft.texts.extend(texts.into_iter().map(|text| (text, place.pattern)));
        draft.patterns += 1;
        Some(place)
    }

    /// The filters, ready.
    pub fn finish(self) -> Filters {
        Filters(self.0.into_iter().map(Filter::new).collect())
    }
}

/// What is found in one attribute.
#[derive(Debug)]
struct Filter {
    /// None when it could not be built: then everything is tried.
    finder: Option<AhoCorasick>,
    /// By text: its pattern.
    patterns: Box<[usize]>,
    /// Words of 64 bits that have one for each pattern.
    words: usize,
}

impl Filter {
    fn new(draft: Draft) -> Self {
        let texts = draft.texts.iter().map(|(text, _)| text);
        let finder = AhoCorasick::builder().ascii_case_insensitive(true).build(texts).ok();
        let patterns = draft.texts.iter().map(|(_, pattern)| *pattern).collect();
        Self { finder, patterns, words: draft.patterns.div_ceil(64) }
    }

    fn scan(&self, text: &str) -> Box<[u64]> {
        let Some(finder) = &self.finder else { return vec![u64::MAX; self.words].into_boxed_slice() };
        let mut found = vec![0u64; self.words].into_boxed_slice();
        for hit in finder.find_overlapping_iter(text) {
            let pattern = self.patterns[hit.pattern().as_usize()];
            found[pattern / 64] |= 1 << (pattern % 64);
        }
        found
    }
}

/// The filters of a list of rules.
#[derive(Debug, Default)]
pub struct Filters(Vec<Filter>);

impl Filters {
    /// Room for what is found for one request.
    pub fn room(&self) -> Scans<'_> {
        Scans { filters: self, found: self.0.iter().map(|_| OnceCell::new()).collect() }
    }
}

/// What was found for one request, attribute by attribute, when it was first asked for.
#[derive(Debug)]
pub struct Scans<'f> {
    filters: &'f Filters,
    found: Vec<OnceCell<Box<[u64]>>>,
}

impl Scans<'_> {
    /// False when the pattern cannot match `text`, which is the value of its attribute.
    pub fn may_match(&self, place: Place, text: &str) -> bool {
        let (Some(filter), Some(cell)) = (self.filters.0.get(place.filter), self.found.get(place.filter)) else {
            return true;
        };
        cell.get_or_init(|| filter.scan(text))[place.pattern / 64] >> (place.pattern % 64) & 1 == 1
    }
}

/// Texts of which one is in everything that the pattern matches, the case of letters aside.
fn required(pattern: &str) -> Option<Vec<Vec<u8>>> {
    let mut parser = ParserBuilder::new().unicode(false).utf8(false).build();
    let texts = texts(&parser.parse(pattern).ok()?)?;
    (worth(&texts) >= SHORTEST).then_some(texts)
}

fn texts(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(vec![literal.0.to_vec()]),
        HirKind::Capture(capture) => texts(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => texts(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().filter_map(texts).max_by_key(|texts| worth(texts)),
        HirKind::Alternation(sides) => {
            let all: Vec<Vec<u8>> = sides.iter().map(texts).collect::<Option<Vec<_>>>()?.concat();
            (all.len() <= MOST).then_some(all)
        }
        _ => None,
    }
}

/// The longer the shortest, the rarer a hit.
fn worth(texts: &[Vec<u8>]) -> usize {
    texts.iter().map(Vec::len).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::bytes::RegexBuilder;

    #[test]
    fn the_longest_text_that_must_be_there_is_found() {
        for (pattern, texts) in [
            (r"^(dsl|cable)[-.][0-9]+.*\.isp7\.(net|com)$", Some(vec![".isp7."])),
            (r"(bounce|news)[0-9]{4}", Some(vec!["bounce", "news"])),
            (r"(?:abc)+\d", Some(vec!["abc"])),
            (r"(?:abc)?\d", None),
            (r"a|bcd", None),
            (r"[a-z]+", None),
            (r"(?-i)Exact[0-9]", Some(vec!["Exact"])),
            (r"(?i)any[0-9]", None),
            ("(", None),
        ] {
            let expected = texts.map(|texts| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>());
            assert_eq!(required(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn patterns_of_an_attribute_share_one_pass() {
        let mut drafts = Drafts::default();
        let first = drafts.add("sender", r"news[0-9]").unwrap();
        let places: Vec<Place> = (0..100).map(|n| drafts.add("sender", &format!("x[0-9]*shop{n}z")).unwrap()).collect();
        let other = drafts.add("helo_name", r"^mail\d").unwrap();
        let filters = drafts.finish();
        let scans = filters.room();
        assert!(scans.may_match(places[77], "A@SHOP77Z.example"));
        assert!(!scans.may_match(first, "A@SHOP77Z.example") && !scans.may_match(places[7], "A@SHOP77Z.example"));
        assert!(!scans.may_match(other, "nothing"));
    }

    proptest! {
        #[test]
        fn nothing_that_matches_is_passed_over(pattern in "(\\(?(abc|ab|a\\.|[ab]|c\\+|\\||x\\?|\\.\\*|\\^|\\$)\\)?){1,6}", text in "[abcABC.x|]{0,12}") {
            let mut drafts = Drafts::default();
            let built = RegexBuilder::new(&pattern).case_insensitive(true).unicode(false).build();
            if let (Ok(regex), Some(place)) = (built, drafts.add("a", &pattern)) {
                let filters = drafts.finish();
                prop_assert!(!regex.is_match(text.as_bytes()) || filters.room().may_match(place, &text), "{} {}", pattern, text);
            }
        }
    }
}
