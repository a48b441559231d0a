// SPDX-License-Identifier: GPL-3.0-or-later
//! What a message would teach Bayes without anybody saying so: the decision of SpamAssassin's plugin AutoLearnThreshold, a pure function
//! of the rules that hit. Whether anything is learnt is the caller's business.
//!
//! Scores are those without Bayes, so that Bayes does not teach itself.

use std::fmt;

use crate::conf::Options;
use crate::conf::build::Rules;
use crate::plan::names_of;
use crate::rule::{EvalKind, Rule, Test};
use crate::scores::{self, Scores};

/// What a message is to be learnt as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Autolearn {
    /// Nothing: its score lies between the thresholds, its points come from one side only, or the settings say so.
    #[default]
    No,
    /// Ham.
    Ham,
    /// Spam.
    Spam,
}

impl fmt::Display for Autolearn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Autolearn::No => "no",
            Autolearn::Ham => "ham",
            Autolearn::Spam => "spam",
        })
    }
}

/// Points that spam needs from the header and from the body each, unless a rule with `autolearn_force` has hit.
const SIDE: f64 = 3.0;
/// What rules flagged `learn` may say against the decision before it is dropped.
const CONTRADICTION: f64 = 1.0;

/// `bayes_auto_learn` and its thresholds.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    enabled: bool,
    ham_below: f64,
    spam_from: f64,
    on_error: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { enabled: true, ham_below: 0.1, spam_from: 12.0, on_error: false }
    }
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        Some(match key {
            "bayes_auto_learn" => switch(value).map(|on| self.enabled = on),
            "bayes_auto_learn_on_error" => switch(value).map(|on| self.on_error = on),
            "bayes_auto_learn_threshold_nonspam" => score(value).map(|score| self.ham_below = score),
            "bayes_auto_learn_threshold_spam" => score(value).map(|score| self.spam_from = score),
            _ => return None,
        })
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "yes" => Ok(true),
        "0" | "no" => Ok(false),
        other => Err(format!("{other:?} is neither 1 nor 0")),
    }
}

fn score(value: &str) -> Result<f64, String> {
    let number = value.trim().parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| format!("{value:?} is not a number"))
}

/// Which half of a message a rule's points come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Head,
    Body,
    Neither,
}

/// The points of a message, sorted by where they come from.
#[derive(Debug, Default)]
pub(crate) struct Points {
    all: f64,
    head: f64,
    body: f64,
    learnt: f64,
    known_spam: bool,
    known_ham: bool,
    /// Whether a rule with `autolearn_force` has hit.
    pub(crate) forced: bool,
}

impl Points {
    /// Adds the rule with this number, which hit so many times.
    pub(crate) fn add(&mut self, rules: &Rules, id: u32, rule: &Rule, times: f64, scores: &Scores, options: &Options) {
        let with_bayes = scores[scores::set(options.network, options.bayes)];
        let score = scores[scores::set(options.network, false)] * times;
        self.known_spam |= rule.name == "BAYES_99";
        self.known_ham |= rule.name == "BAYES_00";
        let flags = &rule.flags;
        if flags.no_autolearn || flags.user {
            return;
        }
        if flags.learn {
            self.learnt += with_bayes * times;
            return;
        }
        self.forced |= flags.autolearn_force;
        let (head, body) = match (flags.autolearn_head, flags.autolearn_body, side(rule)) {
            (true, ..) | (false, false, Side::Head) => (1.0, 0.0),
            (false, true, _) | (false, false, Side::Body) => (0.0, 1.0),
            (false, false, Side::Neither) => shares(rules, id),
        };
        self.head += thousandths(score * head);
        self.body += thousandths(score * body);
        self.all += score;
    }

    /// What the message is to be learnt as, given what it counts as.
    pub(crate) fn decide(&self, settings: &Settings, is_spam: bool) -> Autolearn {
        let all = thousandths(self.all);
        let (ham, spam) = (all < settings.ham_below, all >= settings.spam_from);
        let known = |known: bool| settings.on_error && known;
        if !settings.enabled {
            Autolearn::No
        } else if ham {
            let agreed = !is_spam && self.learnt <= CONTRADICTION && !known(self.known_ham);
            if agreed { Autolearn::Ham } else { Autolearn::No }
        } else if spam {
            let both = self.forced || (self.head >= SIDE && self.body >= SIDE);
            let agreed = is_spam && both && self.learnt >= -CONTRADICTION && !known(self.known_spam);
            if agreed { Autolearn::Spam } else { Autolearn::No }
        } else {
            Autolearn::No
        }
    }
}

/// Sums of scores are compared to three digits, as they are shown.
fn thousandths(score: f64) -> f64 {
    (score * 1000.0).round() / 1000.0
}

fn side(rule: &Rule) -> Side {
    match &rule.test {
        Test::Header { .. } | Test::Exists { .. } | Test::Eval { kind: EvalKind::Header, .. } => Side::Head,
        Test::Body(_)
        | Test::Rawbody(_)
        | Test::Uri(_)
        | Test::MimeHeader { .. }
        | Test::Eval { kind: EvalKind::Body | EvalKind::Rawbody, .. } => Side::Body,
        Test::Full(_) | Test::Eval { kind: EvalKind::Full | EvalKind::Dns, .. } | Test::Meta { .. } | Test::Idle => {
            Side::Neither
        }
    }
}

/// How much of a meta's points come from the header and from the body: by the number of rules of each kind that it names.
fn shares(rules: &Rules, id: u32) -> (f64, f64) {
    let (mut head, mut body) = (0.0, 0.0);
    for name in names_of(rules, id) {
        match usize::try_from(name).ok().and_then(|at| rules.rules.get(at)).map(side) {
            Some(Side::Head) => head += 1.0,
            Some(Side::Body) => body += 1.0,
            _ => {}
        }
    }
    let all: f64 = head + body;
    if all > 0.0 { (head / all, body / all) } else { (0.0, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::Autolearn;
    use crate::{Budget, Environment, Message, NoAnswers, Options, Report, Ruleset};

    const RULES: &str = "header HEAD From =~ /a/\nbody BODY /text/\nfull FULL /text/\n";

    fn check(rules: &str) -> Report {
        check_with(rules, Budget::default())
    }

    fn check_with(rules: &str, budget: Budget<'_>) -> Report {
        let rules = format!("{RULES}{rules}");
        let set = Ruleset::load([("local.cf", rules.as_bytes())], Options::default(), &|_| None);
        assert!(set.lint().is_empty(), "{:?}", set.lint());
        let message = Message::parse(b"From: a@example.com\n\nSome text\n");
        set.check(&message, &Environment::default(), &NoAnswers, budget)
    }

    #[test]
    fn spam_needs_points_from_both_sides() {
        assert_eq!(check("score HEAD 6\nscore BODY 6\n").autolearn, Autolearn::Spam);
        assert_eq!(check("score HEAD 6\nscore BODY 2.9\nscore FULL 9\n").autolearn, Autolearn::No);
        let forced = check("score HEAD 12\ntflags HEAD autolearn_force\n");
        assert!(forced.autolearn_forced);
        assert_eq!(forced.autolearn, Autolearn::Spam);
        assert_eq!(check("score HEAD 12\n").autolearn, Autolearn::No);
        assert_eq!(check("score HEAD 9\nscore FULL 3\ntflags FULL autolearn_body\n").autolearn, Autolearn::Spam);
    }

    #[test]
    fn metas_share_their_points() {
        assert_eq!(check("meta BOTH HEAD && BODY\nscore BOTH 10\n").autolearn, Autolearn::Spam);
        assert_eq!(check("meta ONE HEAD && FULL\nscore ONE 10\n").autolearn, Autolearn::No);
    }

    #[test]
    fn ham_and_what_does_not_count() {
        let low = "score HEAD 0.01\nscore BODY 0.01\nscore FULL 0.01\n";
        assert_eq!(check(low).autolearn, Autolearn::Ham);
        assert_eq!(check("score HEAD 1\n").autolearn, Autolearn::No);
        for flag in ["noautolearn", "userconf", "learn"] {
            let rules = format!("{low}score HEAD 1\ntflags HEAD {flag}\n");
            assert_eq!(check(&rules).autolearn, Autolearn::Ham, "{flag}");
        }
        let welcome = format!("{low}score HEAD 100\ntflags HEAD userconf noautolearn\n");
        assert_eq!(check(&welcome).autolearn, Autolearn::No, "it counts as spam");
        assert_eq!(check(&format!("{low}score HEAD 2\ntflags HEAD learn\n")).autolearn, Autolearn::No);
    }

    #[test]
    fn settings() {
        let low = "score HEAD 0.01\nscore BODY 0.01\nscore FULL 0.01\n";
        assert_eq!(check(&format!("{low}bayes_auto_learn 0\n")).autolearn, Autolearn::No);
        assert_eq!(check(&format!("{low}bayes_auto_learn_threshold_nonspam -1\n")).autolearn, Autolearn::No);
        assert_eq!(check("score HEAD 3\nscore BODY 3\nbayes_auto_learn_threshold_spam 6\n").autolearn, Autolearn::Spam);
        let known = "header BAYES_00 From =~ /a/\nscore BAYES_00 -2\ntflags BAYES_00 learn\n";
        assert_eq!(check(&format!("{low}{known}")).autolearn, Autolearn::Ham);
        assert_eq!(check(&format!("{low}{known}bayes_auto_learn_on_error 1\n")).autolearn, Autolearn::No);
    }

    #[test]
    fn nothing_is_learnt_from_a_part_of_the_rules() {
        let budget = || Budget { levels: &[5.0], ..Budget::default() };
        let low = "score HEAD 0.01\nscore BODY 0.01\nscore FULL 0.01\n";
        let report = check_with(low, budget());
        assert!(report.bound.is_some_and(|bound| bound.left > 0));
        assert_eq!(report.autolearn, Autolearn::No);
    }
}
