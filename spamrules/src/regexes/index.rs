// SPDX-License-Identifier: GPL-3.0-or-later
//! The prefilter that all patterns over one kind of text share: one Aho-Corasick search over a text says which patterns could match it.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::Pattern;
use super::sieve::Sieve;

/// Fewer skeletons are not worth a pass over the text.
const FEW_SKELETONS: usize = 4;

/// Which patterns could match a text, by the literals or the skeleton that they require.
#[derive(Debug, Default)]
pub(crate) struct Index {
    automaton: Option<AhoCorasick>,
    /// Per literal the patterns that require it.
    wanted_by: Vec<Vec<u32>>,
    /// Patterns without literals.
    sieve: Sieve,
    /// Patterns with neither.
    always: Vec<u32>,
    patterns: usize,
}

/// What has been seen in one text: kept between texts, so that nothing is allocated for each.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    round: u32,
    literals: Vec<u32>,
    patterns: Vec<u32>,
    found: Vec<u32>,
}

impl Index {
    /// An index over patterns; `None` for one that is always to be searched for.
    pub(crate) fn new<'a>(patterns: impl IntoIterator<Item = Option<&'a Pattern>>) -> Index {
        let mut index = Index::default();
        let mut literals: Vec<Vec<u8>> = Vec::new();
        let mut skeletons = Vec::new();
        let mut places = std::collections::HashMap::new();
        for (number, pattern) in (0u32..).zip(patterns) {
            index.patterns += 1;
            let Some(wanted) = pattern.and_then(Pattern::literals) else {
                match pattern.and_then(Pattern::skeleton) {
                    Some(skeleton) => skeletons.push((number, skeleton)),
                    None => index.always.push(number),
                }
                continue;
            };
            let pattern = number;
            for literal in wanted {
                let place = *places.entry(literal.clone()).or_insert_with(|| {
                    literals.push(literal.clone());
                    index.wanted_by.push(Vec::new());
                    literals.len() - 1
                });
                if let Some(list) = index.wanted_by.get_mut(place) {
                    list.push(pattern);
                }
            }
        }
        if skeletons.len() >= FEW_SKELETONS {
            index.sieve = Sieve::new(skeletons);
        } else {
            index.always.extend(skeletons.iter().map(|(number, _)| *number));
        }
        if !literals.is_empty() {
            let kind = if literals.len() > 4000 { AhoCorasickKind::ContiguousNFA } else { AhoCorasickKind::DFA };
            index.automaton = AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .match_kind(MatchKind::Standard)
                .kind(Some(kind))
                .build(&literals)
                .ok();
            if index.automaton.is_none() {
                index.always = (0..u32::try_from(index.patterns).unwrap_or(0)).collect();
            }
        }
        index
    }

    /// The patterns that could match the text, in no particular order.
    pub(crate) fn candidates<'a>(&'a self, text: &[u8], seen: &'a mut Seen) -> impl Iterator<Item = u32> + 'a {
        self.always.iter().copied().chain(self.filtered(text, seen))
    }

    /// Patterns that could match any text: nothing is known that they require.
    pub(crate) fn always(&self) -> &[u32] {
        &self.always
    }

    /// The patterns that could match the text because something that they require is in it.
    pub(crate) fn filtered<'a>(&'a self, text: &[u8], seen: &'a mut Seen) -> impl Iterator<Item = u32> + 'a {
        seen.begin(self.wanted_by.len(), self.patterns);
        if let Some(automaton) = &self.automaton {
            for found in automaton.find_overlapping_iter(text) {
                let literal = found.pattern().as_usize();
                if !mark(&mut seen.literals, literal, seen.round) {
                    continue;
                }
                for &pattern in self.wanted_by.get(literal).into_iter().flatten() {
                    if mark(&mut seen.patterns, usize::try_from(pattern).unwrap_or(usize::MAX), seen.round) {
                        seen.found.push(pattern);
                    }
                }
            }
        }
        self.sieve.find(text, |pattern| seen.found.push(pattern));
        seen.found.iter().copied()
    }
}

impl Seen {
    fn begin(&mut self, literals: usize, patterns: usize) {
        self.found.clear();
        if self.literals.len() < literals {
            self.literals.resize(literals, 0);
        }
        if self.patterns.len() < patterns {
            self.patterns.resize(patterns, 0);
        }
        self.round = self.round.wrapping_add(1);
        if self.round == 0 {
            self.literals.fill(0);
            self.patterns.fill(0);
            self.round = 1;
        }
    }
}

/// Marks a place for this round; `false` when it was marked already.
fn mark(places: &mut [u32], place: usize, round: u32) -> bool {
    match places.get_mut(place) {
        Some(slot) if *slot != round => {
            *slot = round;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_by_literal() {
        let patterns = ["/viagra/i", "/[a-z]+/", "/(?:agr|zzz)/i"].map(|text| Pattern::new(text).unwrap());
        let index = Index::new(patterns.iter().map(Some));
        let mut seen = Seen::default();
        let mut found = |text: &[u8]| {
            let mut all: Vec<u32> = index.candidates(text, &mut seen).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(found(b"cheap ViAgRa agr"), [0, 1, 2]);
        assert_eq!(found(b"nothing"), [1]);
        assert_eq!(found(b"xzzzx"), [1, 2]);
    }
}
