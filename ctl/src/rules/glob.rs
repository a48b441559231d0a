// SPDX-License-Identifier: GPL-3.0-or-later
//! Patterns for names of rules on the command line: `*` for any characters, `?` for one; capital letters or not is the same. Pure.

use std::convert::Infallible;
use std::str::FromStr;

/// A pattern for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(Vec<u8>);

impl FromStr for Glob {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Glob, Infallible> {
        Ok(Glob(text.to_ascii_uppercase().into_bytes()))
    }
}

impl Glob {
    /// Whether all of the name fits. Time is at most the product of both lengths.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let (pattern, name) = (&self.0, name.to_ascii_uppercase().into_bytes());
        let (mut at, mut read) = (0, 0);
        // Where the last star is, and how much of the name it has taken.
        let mut star: Option<(usize, usize)> = None;
        while read < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(letter) if *letter == b'?' || name.get(read) == Some(letter) => {
                    at += 1;
                    read += 1;
                }
                _ => match &mut star {
                    None => return false,
                    Some((place, taken)) => {
                        *taken += 1;
                        (at, read) = (*place + 1, *taken);
                    }
                },
            }
        }
        pattern.get(at..).unwrap_or_default().iter().all(|letter| *letter == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        let fits = |pattern: &str, name: &str| pattern.parse::<Glob>().unwrap().fits(name);
        assert!(
            fits("BAYES_99", "BAYES_99") && fits("bayes_*", "BAYES_99") && fits("*", "") && fits("*_9?", "BAYES_99")
        );
        assert!(fits("*A*B*", "xAyyBz") && fits("A**", "A") && fits("*AAB", "AAAAB"));
        assert!(!fits("BAYES", "BAYES_99") && !fits("?", "") && !fits("A*B", "AC") && !fits("", "A"));
    }
}
