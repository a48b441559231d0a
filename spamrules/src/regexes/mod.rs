// SPDX-License-Identifier: GPL-3.0-or-later
//! Perl's regular expressions on bytes: translated for the linear engine where it can run them, for PCRE2 where it cannot.
//!
//! A match of the linear engine costs at most time in proportion to the text; one of PCRE2 is held by a limit of steps, and reaching
//! it is an answer of its own.

mod class;
mod delimit;
mod index;
mod literals;
mod looser;
mod sieve;
mod skeleton;
mod translate;

use std::collections::BTreeMap;

pub(crate) use index::{Index, Seen};
use looser::Looser;
use regex_syntax::hir::Hir;
use skeleton::Skeleton;

/// Steps that one search of PCRE2 may take. The slowest of the shipped rules takes some thousand on common mail.
const MATCH_LIMIT: u32 = 2_000_000;
/// Bytes of state that the linear engine may need for one pattern, uncompiled.
const SIZE_LIMIT: usize = 4 << 20;
/// Bytes that the linear engine's cache of one pattern may take in each thread.
const CACHE_LIMIT: usize = 2 << 20;
/// A longer pattern has so many states that the linear engine builds more of them than it searches text: PCRE2 is faster then.
const LONG: usize = 500;
/// The same for a pattern that counts further in all.
const COUNTED: u32 = 16;
/// Bytes of stack that a PCRE2 search may take.
const JIT_STACK: usize = 256 << 10;

/// Why a pattern cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A rule writes its pattern as `/…/` or `m{…}`.
    #[error("a pattern is written as /…/ or m{{…}}")]
    NoDelimiters,
    /// The pattern does not end.
    #[error("the closing {0:?} is missing")]
    NoEnd(char),
    /// The delimiter stands in the pattern.
    #[error("{0:?} stands in the pattern without a backslash")]
    BareDelimiter(char),
    /// A letter after the pattern that means nothing.
    #[error("unknown modifier {0:?}")]
    Modifier(char),
    /// A bracket or brace that is not closed.
    #[error("{0:?} is not closed")]
    Unclosed(char),
    /// A closing parenthesis too many.
    #[error("')' without '('")]
    Unopened,
    /// A range such as `z-a`.
    #[error("a range ends before it begins")]
    Range,
    /// A backslash before a letter that means nothing.
    #[error("unknown escape \\{0}")]
    Escape(char),
    /// A backslash at the end.
    #[error("the pattern ends with a backslash")]
    TrailingBackslash,
    /// A quantifier at the start.
    #[error("a quantifier without anything before it")]
    NothingToRepeat,
    /// Code in patterns, recursion, conditions, verbs.
    #[error("a construct that rules may not use")]
    Construct,
    /// Too many groups within groups.
    #[error("groups are nested too deeply")]
    TooDeep,
    /// Neither engine takes it.
    #[error("{0}")]
    Refused(String),
}

/// How a search ended that did not find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the search took more steps than it may")]
pub(crate) struct Exhausted;

#[derive(Debug, Clone)]
enum Engine {
    Linear(regex::bytes::Regex),
    Backtracking(Box<pcre2::bytes::Regex>),
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    engine: Engine,
    names: Vec<String>,
    /// Literals in small letters of which every match contains one.
    literals: Option<Vec<Vec<u8>>>,
    /// For a pattern without literals: steps that every match goes through.
    skeleton: Option<Skeleton>,
    /// A pattern that matches wherever this one does, and costs much less.
    first: Option<Looser>,
}

impl Pattern {
    /// Compiles a pattern as a rule file writes it: `/…/flags` or `m{…}flags`; without delimiters it is taken whole.
    pub(crate) fn new(text: &str) -> Result<Pattern, Error> {
        match Source::parse(text.as_bytes()) {
            Ok(source) => source.compile(),
            Err(Error::NoDelimiters) => Source::bare(text.as_bytes()).compile(),
            Err(error) => Err(error),
        }
    }

    /// The same for a pattern whose groups are asked for by their numbers ([`Pattern::group`], [`Pattern::groups`]).
    pub(crate) fn with_groups(text: &str) -> Result<Pattern, Error> {
        let mut source = match Source::parse(text.as_bytes()) {
            Err(Error::NoDelimiters) => Source::bare(text.as_bytes()),
            other => other?,
        };
        source.flags.numbered = true;
        source.compile()
    }

    /// Literals of which every match contains one; `None` when there are none.
    pub(crate) fn literals(&self) -> Option<&[Vec<u8>]> {
        self.literals.as_deref()
    }

    /// Whether something is known that every match requires.
    pub(crate) fn is_prefiltered(&self) -> bool {
        self.literals.is_some() || self.skeleton.is_some()
    }

    /// Steps that every match goes through; only for patterns without literals.
    fn skeleton(&self) -> Option<&Skeleton> {
        self.skeleton.as_ref()
    }

    /// Whether the linear engine runs the pattern.
    #[cfg(test)]
    pub(crate) fn is_linear(&self) -> bool {
        matches!(self.engine, Engine::Linear(_))
    }

    /// Whether the pattern names groups whose texts other rules may use.
    pub(crate) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether the pattern matches somewhere. A search that takes too many steps counts as no match; see [`Pattern::search`].
    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        self.search(text).unwrap_or(false)
    }

    /// Whether the pattern matches somewhere.
    pub(crate) fn search(&self, text: &[u8]) -> Result<bool, Exhausted> {
        if self.first.as_ref().is_some_and(|first| first.rules_out(text)) {
            return Ok(false);
        }
        match &self.engine {
            Engine::Linear(regex) => Ok(regex.is_match(text)),
            Engine::Backtracking(regex) => regex.is_match(text).map_err(|_| Exhausted),
        }
    }

    /// The text of a group in the first match; `None` when there is no match or the group is no part of it.
    pub(crate) fn group<'t>(&self, text: &'t [u8], number: usize) -> Option<&'t [u8]> {
        match &self.engine {
            // Mostly there is no match, and room for groups is allocated before that is known.
            Engine::Linear(regex) if !regex.is_match(text) => None,
            Engine::Linear(regex) => Some(regex.captures(text)?.get(number)?.as_bytes()),
            Engine::Backtracking(regex) => {
                if !regex.is_match(text).ok()? {
                    return None;
                }
                Some(regex.captures(text).ok()??.get(number)?.as_bytes())
            }
        }
    }

    /// The texts of a group in up to `max` matches; what comes after a search that takes too many steps is left out.
    pub(crate) fn groups<'t>(&self, text: &'t [u8], number: usize, max: usize) -> Vec<&'t [u8]> {
        match &self.engine {
            Engine::Linear(regex) => {
                let found = regex.captures_iter(text).take(max);
                found.filter_map(|found| Some(found.get(number)?.as_bytes())).collect()
            }
            Engine::Backtracking(regex) => {
                let found = regex.captures_iter(text).take(max).map_while(Result::ok);
                found.filter_map(|found| Some(found.get(number)?.as_bytes())).collect()
            }
        }
    }

    /// How often the pattern matches, counted to `max` at most.
    pub(crate) fn count(&self, text: &[u8], max: u32) -> Result<u32, Exhausted> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let count = match &self.engine {
            Engine::Linear(regex) => regex.find_iter(text).take(max).count(),
            Engine::Backtracking(regex) => {
                let mut count = 0;
                for found in regex.find_iter(text).take(max) {
                    found.map_err(|_| Exhausted)?;
                    count += 1;
                }
                count
            }
        };
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// The texts of the named groups in up to `max` matches, and the number of matches.
    pub(crate) fn captures(
        &self,
        text: &[u8],
        max: u32,
        into: &mut BTreeMap<String, Vec<Vec<u8>>>,
    ) -> Result<u32, Exhausted> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut count = 0;
        let mut note = |name: &str, value: Option<&[u8]>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                into.entry(name.to_owned()).or_default().push(value.to_vec());
            }
        };
        match &self.engine {
            Engine::Linear(regex) => {
                for captures in regex.captures_iter(text).take(max) {
                    count += 1;
                    self.names.iter().for_each(|name| note(name, captures.name(name).map(|found| found.as_bytes())));
                }
            }
            Engine::Backtracking(regex) => {
                for captures in regex.captures_iter(text).take(max) {
                    let captures = captures.map_err(|_| Exhausted)?;
                    count += 1;
                    self.names.iter().for_each(|name| note(name, captures.name(name).map(|found| found.as_bytes())));
                }
            }
        }
        Ok(count)
    }
}

/// A pattern that has been read but not compiled.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pattern: Vec<u8>,
    flags: delimit::Flags,
}

impl Source {
    /// Reads a pattern with its delimiters and modifiers.
    pub(crate) fn parse(text: &[u8]) -> Result<Source, Error> {
        let (pattern, flags) = delimit::split(text)?;
        if always_matches(pattern) {
            return Err(Error::Refused("the pattern matches everything".to_owned()));
        }
        Ok(Source { pattern: pattern.to_vec(), flags })
    }

    fn bare(text: &[u8]) -> Source {
        Source { pattern: text.to_vec(), flags: delimit::Flags::default() }
    }

    /// The text between the delimiters.
    pub(crate) fn text(&self) -> &[u8] {
        &self.pattern
    }

    /// The same pattern with another text between the delimiters.
    pub(crate) fn with_text(&self, pattern: Vec<u8>) -> Source {
        Source { pattern, flags: self.flags }
    }

    /// Says what is wrong with the pattern, without compiling it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        translate::translate(&self.pattern, self.flags).map(drop)
    }

    /// A pattern that matches wherever this one does, and perhaps elsewhere: look-around and the like are left out. `None` when there is none.
    pub(crate) fn superset(&self) -> Option<Pattern> {
        let translated = translate::translate(&self.pattern, self.flags).ok()?;
        let literals = literals::required(&tree(&translated.linear)?);
        Some(Pattern { engine: linear(&translated.linear)?, names: Vec::new(), literals, skeleton: None, first: None })
    }

    /// Compiles the pattern for the engine that suits it.
    pub(crate) fn compile(&self) -> Result<Pattern, Error> {
        let translated = translate::translate(&self.pattern, self.flags)?;
        let tree = tree(&translated.linear);
        let literals = tree.as_ref().and_then(literals::required);
        let skeleton = tree.as_ref().filter(|_| literals.is_none()).and_then(Skeleton::of);
        let engine = engine(&translated)?;
        // PCRE2 has refused it, so it is large.
        let is_large = matches!(engine, Engine::Linear(_)) && literals.is_none() && skeleton.is_none();
        let first = tree.filter(|_| is_large).and_then(|tree| Looser::of(&translated, &tree));
        Ok(Pattern { engine, names: translated.names, literals, skeleton, first })
    }
}

/// A pattern with an empty branch at either end, or none at all, hits every message: SpamAssassin's lint refuses it, and so do we.
fn always_matches(pattern: &[u8]) -> bool {
    pattern.is_empty()
}

/// Chooses the engine. PCRE2 takes what is not regular, what is long and what counts far, as far as it can: it refuses what is larger than 64 KB compiled.
fn engine(translated: &translate::Translated) -> Result<Engine, Error> {
    let long = is_long(translated);
    if translated.exact
        && !long
        && let Some(engine) = linear(&translated.linear)
    {
        return Ok(engine);
    }
    match backtracking(&translated.backtracking) {
        Err(error) if translated.exact && long => linear(&translated.linear).ok_or(error),
        other => other,
    }
}

fn is_long(translated: &translate::Translated) -> bool {
    translated.linear.len() > LONG || translated.counted > COUNTED
}

/// What a pattern of the linear engine is made of; `None` where the engine does not take it.
fn tree(linear: &str) -> Option<Hir> {
    regex_syntax::ParserBuilder::new().unicode(false).utf8(false).nest_limit(1000).build().parse(linear).ok()
}

fn linear(pattern: &str) -> Option<Engine> {
    cached(pattern, CACHE_LIMIT).map(Engine::Linear)
}

fn cached(pattern: &str, cache: usize) -> Option<regex::bytes::Regex> {
    regex::bytes::RegexBuilder::new(pattern).unicode(false).size_limit(SIZE_LIMIT).dfa_size_limit(cache).build().ok()
}

fn backtracking(pattern: &str) -> Result<Engine, Error> {
    let limited = format!("(*LF)(*LIMIT_MATCH={MATCH_LIMIT})(*LIMIT_DEPTH={MATCH_LIMIT}){pattern}");
    pcre2::bytes::RegexBuilder::new()
        .utf(false)
        .ucp(false)
        .jit_if_available(true)
        .max_jit_stack_size(Some(JIT_STACK))
        .build(&limited)
        .map(|regex| Engine::Backtracking(Box::new(regex)))
        .map_err(|error| Error::Refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(pattern: &str, text: &[u8]) -> bool {
        Pattern::new(pattern).unwrap().is_match(text)
    }

    #[test]
    fn perl_spellings() {
        assert!(hits("/^foo$/", b"foo\n"));
        assert!(!hits("/^foo$/", b"foo\nbar"));
        assert!(hits("/^foo$/m", b"foo\nbar"));
        assert!(hits("/a\\/b\\@c\\#\\ d/", b"a/b@c# d"));
        assert!(hits("/\\e\\015/", b"\x1b\r"));
        assert!(hits("m{x{2}y{z}}", b"xxy{z}"));
        assert!(hits("/a b # c\n c/x", b"abc"));
        assert!(hits("/[[:alpha:]]{3}/", b"abc"));
        assert!(hits("/\\xe4/i", b"\xc4"));
        assert!(hits("/(?i:A)b/", b"ab"));
        assert!(!hits("/(?i:A)b/", b"aB"));
        assert!(hits("/a(?i)b|c/", b"C"));
        assert!(hits("/a{,2}b/", b"b"));
        assert!(hits("/\\h\\R/", b"\t\r\n"));
    }

    #[test]
    fn what_is_not_regular() {
        assert!(hits("/(\\w)\\1/", b"aa"));
        assert!(!hits("/(\\w)\\1/", b"ab"));
        assert!(hits("/foo(?!bar)/i", b"FOObaz"));
        assert!(!hits("/foo(?!bar)/i", b"FOObar"));
        assert!(hits("/(?<!x)y/", b"zy"));
        assert!(hits("/a++b(?>c|cd)e/", b"aabce"));
        assert!(hits("/^a$\\n/", b"a\n"));
        assert!(!Pattern::new("/x(?=y)/").unwrap().is_linear());
        assert!(Pattern::new("/x(?:y)/").unwrap().is_linear());
    }

    #[test]
    fn refused() {
        for pattern in
            ["/(/", "/)/", "/[a/", "/*a/", "/a\\/", "/(?{1})/", "/a(?(1)b)/", "/\\Qa/", "/(*FAIL)/", "//", "/z-a[z-a]/"]
        {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_runaway_search_ends() {
        let pattern = Pattern::new("/^(?!b)(?:a|aa)+$/").unwrap();
        let text = [&[b'a'; 400][..], b"c"].concat();
        assert_eq!(pattern.search(&text), Err(Exhausted));
    }

    #[test]
    fn captured_names() {
        let mut found = BTreeMap::new();
        let pattern = Pattern::new("/<(?<ADDR>[^>]+)>/").unwrap();
        assert_eq!(pattern.captures(b"<a@b> <c@d>", 9, &mut found), Ok(2));
        assert_eq!(found["ADDR"], [b"a@b".to_vec(), b"c@d".to_vec()]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(pattern: Vec<u8>, text: Vec<u8>) {
            let source = Source { pattern, flags: delimit::Flags::default() };
            if let Ok(pattern) = source.compile() {
                let _ = pattern.search(&text);
            }
        }

        #[test]
        fn letters_of_the_trade(pattern in r"[a-c\\\[\](){}|*+?^$.\-,0-9:=!<>PsSdDwWbBhRxXi]{0,24}", text in "[a-c\n ]{0,16}") {
            if let Ok(pattern) = Pattern::new(&format!("m\x01{pattern}\x01i")) {
                let found = pattern.search(text.as_bytes());
                if let (Ok(true), Some(literals)) = (found, pattern.literals()) {
                    let lower = text.to_ascii_lowercase();
                    proptest::prop_assert!(literals.iter().any(|literal| lower.as_bytes().windows(literal.len()).any(|window| window == literal.as_slice())));
                }
            }
        }
    }
}
