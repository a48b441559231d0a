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
    /// Patterns and texts.
    found: Vec<(u32, u32)>,
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
            let kind = if literals.len() > 1000 { AhoCorasickKind::ContiguousNFA } else { AhoCorasickKind::DFA };
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

    /// Patterns that could match any text: nothing is known that they require.
    pub(crate) fn always(&self) -> &[u32] {
        &self.always
    }

    /// The other patterns and the texts that they could match, because something that they require is in them; sorted. All texts are looked
    /// through before any pattern is tried: what this takes of memory would otherwise be gone from the caches at the next one.
    pub(crate) fn filter<'s>(&self, texts: &[&[u8]], seen: &'s mut Seen) -> &'s [(u32, u32)] {
        seen.found.clear();
        if let Some(automaton) = &self.automaton {
            for (number, text) in (0u32..).zip(texts) {
                seen.begin(self.wanted_by.len(), self.patterns);
                for found in automaton.find_overlapping_iter(text) {
                    let literal = found.pattern().as_usize();
                    if mark(&mut seen.literals, literal, seen.round) {
                        for &pattern in self.wanted_by.get(literal).into_iter().flatten() {
                            if mark(&mut seen.patterns, usize::try_from(pattern).unwrap_or(usize::MAX), seen.round) {
                                seen.found.push((pattern, number));
                            }
                        }
                    }
                }
            }
        }
        self.sieve.find(texts, |pattern, number| seen.found.push((pattern, number)));
        seen.found.sort_unstable();
        &seen.found
    }
}

impl Seen {
    fn begin(&mut self, literals: usize, patterns: usize) {
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
        let mut found = |texts: &[&[u8]]| index.filter(texts, &mut seen).to_vec();
        assert_eq!(index.always(), [1]);
        assert_eq!(found(&[b"cheap ViAgRa agr"]), [(0, 0), (2, 0)]);
        assert_eq!(found(&[b"nothing", b""]), []);
        assert_eq!(found(&[b"xzzzx", b"zz", b"agr agr", b"viagra"]), [(0, 3), (2, 0), (2, 2), (2, 3)]);
    }
}
