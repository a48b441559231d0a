// SPDX-License-Identifier: GPL-3.0-or-later
//! What an administrator wants to know about a rule: what kind it is, where it was written, whether it runs.

use std::fmt;

use crate::conf::Options;
use crate::rule::{Rule, Test};

/// What there is to know about a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it tests, in the words of rule files: `header`, `body`, `meta`, `eval` …
    pub kind: &'static str,
    /// Its score now.
    pub score: f64,
    /// Its description, empty when it has none.
    pub description: &'a str,
    /// The file, by the name under which it was given.
    pub file: &'a str,
    /// The line, counted from 1.
    pub line: u32,
    /// Whether it runs.
    pub state: State,
}

/// Whether a rule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Runs,
    /// It cannot: [`crate::Ruleset::lint`] says why.
    Idle,
    /// It would, if the caller had a network ([`Options::network`]).
    NeedsNetwork,
    /// It would, if the caller had Bayes ([`Options::bayes`]).
    NeedsBayes,
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            State::Runs => "runs",
            State::Idle => "idle",
            State::NeedsNetwork => "needs the network",
            State::NeedsBayes => "needs Bayes",
        })
    }
}

impl<'a> Listed<'a> {
    pub(crate) fn of(rule: &'a Rule, score: f64, options: &Options) -> Listed<'a> {
        Listed {
            name: &rule.name,
            kind: kind(&rule.test),
            score,
            description: &rule.description,
            file: &rule.place.file,
            line: rule.place.line,
            state: state(rule, options),
        }
    }
}

fn kind(test: &Test) -> &'static str {
    match test {
        Test::Header { .. } | Test::Exists { .. } => "header",
        Test::Body(_) => "body",
        Test::Rawbody(_) => "rawbody",
        Test::Uri(_) => "uri",
        Test::Full(_) => "full",
        Test::MimeHeader { .. } => "mimeheader",
        Test::Eval { .. } => "eval",
        Test::Meta(_) => "meta",
        Test::Idle => "idle",
    }
}

/// As `check` decides it.
fn state(rule: &Rule, options: &Options) -> State {
    match &rule.test {
        Test::Idle => State::Idle,
        Test::Eval { .. } if rule.flags.learn && !options.bayes => State::NeedsBayes,
        Test::Eval { kind, .. } if !rule.is_asked(*kind, options) => State::NeedsNetwork,
        _ => State::Runs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ruleset;

    #[test]
    fn kinds_places_and_states() {
        let text = b"body A /a/\ndescribe A Hello\nscore A 2\n\nmeta B A\nheader C eval:check_rbl('x', 'list.test.')\ntflags C net\n\
            body D eval:check_bayes('0.99', '1.00')\ntflags D learn\nheader E eval:no_such_function()\nheader F exists:X-Y\n";
        let set = Ruleset::load([("local.cf", &text[..])], Options::default(), &|_| None);
        let found: Vec<_> = set.list().map(|rule| (rule.name, rule.kind, rule.line, rule.state)).collect();
        let expected = [
            ("A", "body", 1, State::Runs),
            ("B", "meta", 5, State::Runs),
            ("C", "eval", 6, State::NeedsNetwork),
            ("D", "eval", 8, State::NeedsBayes),
            ("E", "idle", 10, State::Idle),
            ("F", "header", 11, State::Runs),
        ];
        assert_eq!(found, expected);
        let first = set.list().next().expect("a rule");
        assert_eq!((first.file, first.score, first.description), ("local.cf", 2.0, "Hello"));
    }
}
