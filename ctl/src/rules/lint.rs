// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi rules lint`: rules that are correct and yet cannot be meant: what stands after a rule that always ends the list, a condition that
//! is never true, two rules with the same condition.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

use common::config::Source;
use common::exit::{self, fail};
use policyd::config::Settings;
use policyd::rules::{Rule, Rules};

use crate::session::say;

pub(super) fn run(config: Option<&Path>) -> ExitCode {
    let read = Source::load(config).and_then(|source| Settings::read(&source));
    let compiled = read.and_then(|settings| {
        let rules = Rules::compile(&settings.rules, &settings.names(), true)?;
        Ok((settings, rules))
    });
    let (settings, rules) = match compiled {
        Ok(compiled) => compiled,
        Err(mistakes) => return fail(crate::NAME, exit::CONFIG, mistakes),
    };
    let conditions: Vec<&str> = settings.rules.iter().map(|entry| entry.value.when.as_str()).collect();
    let hints = hints(rules.list(), &conditions);
    for (at, hint) in &hints {
        say(format_args!("{}: rule {:?}: {hint}", settings.rules[*at].origin(), rules.list()[*at].name));
    }
    say(format_args!("{} rules, {} hints", rules.list().len(), hints.len()));
    ExitCode::from(if hints.is_empty() { exit::OK } else { exit::DATA })
}

/// What is odd, by the place of the rule.
fn hints(rules: &[Rule], conditions: &[&str]) -> Vec<(usize, String)> {
    let (mut hints, mut ended, mut seen) = (Vec::new(), None, HashMap::new());
    for (at, rule) in rules.iter().enumerate() {
        if let Some(by) = ended {
            hints.push((at, format!("is never asked: {by:?} before it always ends the list")));
            continue;
        }
        if rule.when.constant() == Some(false) {
            hints.push((at, "never matches".to_owned()));
        }
        let ends = rule.then.iter().any(|action| action.is_last()) && !rule.shadow;
        let condition = conditions.get(at).copied().unwrap_or_default().trim();
        match seen.get(condition) {
            Some((by, true)) => {
                hints.push((at, format!("never matches: {by:?} has the same condition and ends the list")))
            }
            Some((by, false)) if condition != "true" => {
                hints.push((at, format!("has the same condition as {by:?}; one rule can have both actions")));
            }
            _ => drop(seen.insert(condition, (&rule.name, ends))),
        }
        if rule.when.constant() == Some(true) && ends && !may_be_skipped(rules, at) {
            ended = Some(&rule.name);
        }
    }
    hints
}

/// True when a rule before this one may go on behind it.
fn may_be_skipped(rules: &[Rule], place: usize) -> bool {
    use policyd::rules::Action::SkipTo;
    rules[..place].iter().flat_map(|rule| &rule.then).any(|action| matches!(action, SkipTo(to) if *to > place))
}
