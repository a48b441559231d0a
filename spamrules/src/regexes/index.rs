// SPDX-License-Identifier: GPL-3.0-or-later
//! The prefilter that all patterns over one kind of text share: one Aho-Corasick search over a text says which patterns could match it.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// Which patterns could match a text, by the literals that they require.
#[derive(Debug, Default)]
pub(crate) struct Index {
    automaton: Option<AhoCorasick>,
    /// Per literal the patterns that require it.
    wanted_by: Vec<Vec<u32>>,
    /// Patterns without literals.
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
    /// An index over patterns; `None` for one without literals.
    pub(crate) fn new<'a>(patterns: impl IntoIterator<Item = Option<&'a [Vec<u8>]>>) -> Index {
        let mut index = Index::default();
        let mut literals: Vec<Vec<u8>> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for (pattern, wanted) in (0u32..).zip(patterns) {
            index.patterns += 1;
            let Some(wanted) = wanted else {
                index.always.push(pattern);
                continue;
            };
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
        self.always.iter().copied().chain(seen.found.iter().copied())
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
        let one = [b"viagra".to_vec()];
        let two = [b"agr".to_vec(), b"zzz".to_vec()];
        let index = Index::new([Some(&one[..]), None, Some(&two[..])]);
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
