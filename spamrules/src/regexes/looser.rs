// SPDX-License-Identifier: GPL-3.0-or-later
//! A first look for long patterns that are one group, repeated, and require no literal: a pattern that matches wherever they do and has few
//! states, so that the linear engine is quick with it. Two in a row are enough, and counts that go far are left open.

use regex_syntax::hir::{Hir, HirKind, Repetition};

use super::{cached, is_long, translate::Translated};

/// A group repeated less often is looked for as it is.
const FEW: u32 = 3;
/// Counts up to this one are kept.
const NEAR: u32 = 4;
/// Bytes of the linear engine's cache in each thread: few patterns have such a first look, and with less room their states are made again and
/// again.
const CACHE_LIMIT: usize = 8 << 20;
/// Nesting followed; what is deeper stays as it is.
const MAX_DEPTH: usize = 100;

/// A pattern with fewer states than another one, and no fewer matches.
#[derive(Debug, Clone)]
pub(super) struct Looser(regex::bytes::Regex);

impl Looser {
    /// For a long pattern that is a repeated group; `None` for others.
    pub(super) fn of(translated: &Translated, hir: &Hir) -> Option<Looser> {
        if !translated.exact || !is_long(translated) {
            return None;
        }
        if !matches!(hir.kind(), HirKind::Repetition(Repetition { min: FEW.., .. })) {
            return None;
        }
        cached(&looser(hir, 0).to_string(), CACHE_LIMIT).map(Looser)
    }

    /// Whether the pattern cannot match the text.
    pub(super) fn rules_out(&self, text: &[u8]) -> bool {
        !self.0.is_match(text)
    }
}

fn looser(hir: &Hir, depth: usize) -> Hir {
    if depth > MAX_DEPTH {
        return hir.clone();
    }
    match hir.kind() {
        HirKind::Repetition(repetition) => {
            let (min, max) = match (repetition.min, repetition.max) {
                (FEW.., _) if depth == 0 => (2, Some(2)),
                (min, max) if max.is_none_or(|max| max > NEAR) => (min.min(1), None),
                counts => counts,
            };
            let sub = Box::new(looser(&repetition.sub, depth + 1));
            Hir::repetition(Repetition { min, max, greedy: repetition.greedy, sub })
        }
        HirKind::Capture(capture) => looser(&capture.sub, depth + 1),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(|part| looser(part, depth + 1)).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(|part| looser(part, depth + 1)).collect()),
        _ => hir.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regexes::{Pattern, translate};

    #[test]
    fn the_same_hits() {
        let words = (0..60).map(|number| format!("w{number}x?y?[a-c]{{1,9}}z")).collect::<Vec<_>>().join("|");
        let pattern = Pattern::new(&format!("/(?:[a-z]{{0,3}}(?:{words}){{1,4}} ?){{5}}/i")).unwrap();
        assert!(pattern.is_match(b"- w1xaz w2yaz W3az w4az w59aaz"));
        assert!(!pattern.is_match(b"- w1xaz w2yaz - W3az w4az w5az"));
        assert!(!pattern.is_match(b"nothing"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_matches_is_ruled_out(pattern in r"\(\?:(\(\?:[a-c|]{1,4}\)(\{[1-6](,[6-9]?)?\})?[abc^$]?){1,4}\)\{[3-5](,[6-9]?)?\}", text in "[a-c]{0,24}") {
            let (Ok(translated), Ok(regex)) = (
                translate::translate(pattern.as_bytes(), Default::default()),
                regex::bytes::RegexBuilder::new(&pattern).unicode(false).build(),
            ) else { return Ok(()) };
            let long = Translated { counted: u32::MAX, ..translated };
            let looser = crate::regexes::tree(&long.linear).and_then(|tree| Looser::of(&long, &tree));
            if let Some(looser) = looser && regex.is_match(text.as_bytes()) {
                proptest::prop_assert!(!looser.rules_out(text.as_bytes()));
            }
        }
    }
}
