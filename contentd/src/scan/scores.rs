// SPDX-License-Identifier: GPL-3.0-or-later
//! Names that engines give to what is no virus: `virus_scores` makes them signs of spam. Pure.
//!
//! Third-party signatures name phishing, spam and credit card numbers like viruses (amavis: virus_name_to_spam_score_maps).

use serde::{Deserialize, Serialize};

use crate::findings::Symbol;

/// A score of spam: points.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(pub f64);

/// Mistakes are found before a score is used, so it is a number and equal to itself.
impl Eq for Score {}

/// One entry of `antivirus.virus_scores`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirusScore {
    /// Pattern of a virus name, in any case; `*` stands for any characters, `?` for one.
    pub name: String,
    /// What it adds to the score of spam.
    pub score: Score,
}

impl VirusScore {
    /// What is wrong with it.
    pub fn mistake(&self) -> Option<String> {
        if self.name.is_empty() {
            return Some("a name must not be empty".to_owned());
        }
        let number = self.score.0.is_finite() && self.score.0.abs() <= 1000.0;
        (!number).then(|| format!("{:?}: the score must be between -1000 and 1000", self.name))
    }
}

/// The sign of spam that a name is; none when it names a virus.
pub(super) fn symbol(name: &str, scores: &[VirusScore]) -> Option<Symbol> {
    let entry = scores.iter().find(|entry| fits(entry.name.as_bytes(), name.as_bytes()))?;
    let description = "named by a virus scanner, spam by configuration".to_owned();
    Some(Symbol { name: name.to_owned(), score: entry.score.0, description })
}

/// Whether a pattern fits the whole text. Takes one step back at most per character, so its time is bounded by the product of the lengths.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place, mut back) = (0, 0, None);
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                back = Some((at, place));
                at += 1;
            }
            Some(b'?') => (at, place) = (at + 1, place + 1),
            Some(byte) if byte.eq_ignore_ascii_case(&text[place]) => (at, place) = (at + 1, place + 1),
            _ => match back {
                // The star takes one more character.
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    (at, place) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("Heuristics.Phishing.*", "Heuristics.Phishing.Email.Spoofed", true),
            ("heuristics.phishing.*", "Heuristics.Phishing.", true),
            ("*.Spam.*.UNOFFICIAL", "Sanesecurity.Spam.1.2.UNOFFICIAL", true),
            ("*", "", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "abc", false),
            ("Eicar", "Eicar-Test", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_pattern_holds() {
        let entry = |name: &str, score| VirusScore { name: name.to_owned(), score: Score(score) };
        let scores = [entry("A.B.*", 1.0), entry("A.*", 2.0)];
        let score = |name| symbol(name, &scores).map(|symbol| symbol.score);
        assert_eq!((score("A.B.c"), score("A.c"), score("B")), (Some(1.0), Some(2.0), None));
        assert!(entry("x", f64::NAN).mistake().is_some());
        assert!(entry("x", -3.5).mistake().is_none());
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[ab*?]{0,30}", text in "[ab]{0,60}") {
            fits(pattern.as_bytes(), text.as_bytes());
        }

        #[test]
        fn a_text_fits_itself(text in "[a-zA-Z.0-9]{0,40}") {
            prop_assert!(fits(text.as_bytes(), text.to_ascii_uppercase().as_bytes()));
        }
    }
}
