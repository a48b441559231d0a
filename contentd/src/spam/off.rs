// SPDX-License-Identifier: GPL-3.0-or-later
//! Which rules of the set in force are switched off for a while, because too many messages have set them aside: told in the log when that
//! changes, and shown by name on the metrics page. It switches nothing: the library does (`spamrules::Options::strikes`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use metrics::gauge;

use super::set::RuleSet;

/// Rules that are shown by name, since the start: a metrics page keeps each name that it has once shown.
const MAX_SHOWN: usize = 50;

/// What is known of rules that are, or were, switched off.
#[derive(Debug, Default)]
pub(super) struct SwitchedOff(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of this set.
    generation: u64,
    off: Vec<String>,
    /// By name whether it is off now.
    shown: BTreeMap<String, bool>,
}

/// What has changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    off: Vec<String>,
    /// None of the set before: those ended with it.
    back: Vec<String>,
}

impl SwitchedOff {
    /// Looks which rules are off now, in seconds since 1970.
    pub(super) fn look(&self, set: Option<&RuleSet>, now: i64) {
        let (generation, off) = set.map_or((0, Vec::new()), |set| (set.generation, set.rules.switched_off(now)));
        // What is half noted is noted again with the next look.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let change = known.note(generation, &off);
        for rule in &change.off {
            tracing::error!(rule, "a spam rule was set aside too often and does not run for an hour");
        }
        for rule in &change.back {
            tracing::info!(rule, "a spam rule that was switched off is tried again");
        }
        gauge!("octroi_contentd_spam_rules_off").set(off.len() as f64);
        for (rule, is_off) in &known.shown {
            gauge!("octroi_contentd_spam_rule_off", "rule" => rule.clone()).set(if *is_off { 1.0 } else { 0.0 });
        }
    }
}

impl Known {
    fn note(&mut self, generation: u64, off: &[&str]) -> Change {
        let before = std::mem::replace(&mut self.off, off.iter().map(ToString::to_string).collect());
        let same_set = std::mem::replace(&mut self.generation, generation) == generation;
        let new = |rule: &&String| !(same_set && before.contains(rule));
        let change = Change {
            off: self.off.iter().filter(new).cloned().collect(),
            back: before.iter().filter(|rule| same_set && !self.off.contains(rule)).cloned().collect(),
        };
        self.shown.values_mut().for_each(|is_off| *is_off = false);
        for rule in &self.off {
            if self.shown.len() < MAX_SHOWN || self.shown.contains_key(rule) {
                self.shown.insert(rule.clone(), true);
            }
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let mut known = Known::default();
        let change = |off: &[&str], back: &[&str]| {
            let owned = |rules: &[&str]| rules.iter().map(ToString::to_string).collect();
            Change { off: owned(off), back: owned(back) }
        };
        assert_eq!(known.note(1, &["A"]), change(&["A"], &[]));
        assert_eq!(known.note(1, &["A"]), Change::default());
        assert_eq!(known.note(1, &["A", "B"]), change(&["B"], &[]));
        assert_eq!(known.note(1, &["B"]), change(&[], &["A"]));
        assert_eq!(known.shown, [("A".to_owned(), false), ("B".to_owned(), true)].into());
        assert_eq!(known.note(2, &[]), Change::default(), "another set begins anew");
        assert_eq!(known.note(3, &["B"]), change(&["B"], &[]));
    }

    #[test]
    fn names_are_bounded() {
        let names: Vec<String> = (0..80).map(|number| format!("R{number}")).collect();
        let mut known = Known::default();
        for name in &names {
            known.note(1, &[name]);
        }
        assert_eq!(known.shown.len(), MAX_SHOWN);
        assert!(known.note(1, &[&names[0]]).off == [names[0].clone()] && known.shown[&names[0]]);
    }
}
