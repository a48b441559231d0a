// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi rules lint`: rules of policyd that are correct and yet cannot be meant: what stands after a rule that always ends the list, a condition
//! that is never true, two rules with the same condition. And of the spam rules of contentd the lines that are wrong, the rules that cannot run, and
//! why.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

use common::config::{Mistakes, Source};
use common::exit;
use contentd::spam::set::RuleSet;
use policyd::config::Settings;
use policyd::rules::{Rule, Rules};
use spamrules::{Listed, Severity, State};

use super::spam::Which;
use crate::session::{Failure, end, printable, say};

/// Which rules, and what is told of them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// Directives of spam rules that are accepted and have no effect, too
    #[arg(long)]
    notes: bool,
}

/// Status 0 when there is nothing to mend: spam rules that cannot run are told, but common sets have some.
pub(super) fn run(config: Option<&Path>, args: &Args) -> ExitCode {
    match lint(config, args) {
        Ok(wrong) => ExitCode::from(if wrong == 0 { exit::OK } else { exit::DATA }),
        Err(failure) => end(Err(failure)),
    }
}

/// Says what there is to say; gives how much of it is to be mended.
fn lint(config: Option<&Path>, args: &Args) -> Result<usize, Failure> {
    let hints = lint_policy(config).map_err(Failure::Config)?;
    let (_, set) = args.which.load(config)?;
    Ok(hints + set.map_or(0, |set| lint_spam(&set, args.notes)))
}

fn lint_policy(config: Option<&Path>) -> Result<usize, Mistakes> {
    let settings = Source::load(config).and_then(|source| Settings::read(&source))?;
    let rules = Rules::compile(&settings.rules, &settings.names(), true)?;
    let conditions: Vec<&str> = settings.rules.iter().map(|entry| entry.value.when.as_str()).collect();
    let hints = hints(rules.list(), &conditions);
    for (at, hint) in &hints {
        say(format_args!("{}: rule {:?}: {hint}", settings.rules[*at].origin(), rules.list()[*at].name));
    }
    say(format_args!("{} rules, {} hints", rules.list().len(), hints.len()));
    Ok(hints.len())
}

fn lint_spam(set: &RuleSet, notes: bool) -> usize {
    let remarks = set.rules.lint();
    let count = |severity| remarks.iter().filter(|remark| remark.severity == severity).count();
    let shown = remarks.iter().filter(|remark| notes || remark.severity > Severity::Note);
    let mut lines: Vec<(&str, u32, String)> =
        shown.map(|remark| (remark.file.as_str(), remark.line, remark.to_string())).collect();
    let waits = |rule: &Listed<'_>| matches!(rule.state, State::NeedsNetwork | State::NeedsBayes);
    let waiting: Vec<Listed<'_>> = set.rules.list().filter(waits).collect();
    lines.extend(waiting.iter().map(|rule| {
        let Listed { name, file, line, state, .. } = rule;
        (*file, *line, format!("{file}:{line}: warning: {name}: {state}"))
    }));
    lines.sort_by_key(|(file, line, _)| (*file, *line));
    lines.iter().for_each(|(_, _, line)| say(printable(line)));
    let (errors, idle) = (count(Severity::Error), count(Severity::Warning) + waiting.len());
    say(format_args!(
        "{} spam rules of {} files, {errors} errors, {idle} rules cannot run, {} directives without effect",
        set.rules.len(),
        set.files,
        count(Severity::Note)
    ));
    errors
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
