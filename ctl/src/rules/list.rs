// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi rules list`: the spam rules with type, score, place and description, and whether they run.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use spamrules::{Listed, Ruleset, State};

use super::glob::Glob;
use super::spam::Which;
use crate::session::{columns, end, printable, say};

/// Which rules are shown, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rules with such names only; * and ? stand for any characters
    pattern: Option<Glob>,
    #[command(flatten)]
    which: Which,
    /// Sub-rules, whose names begin with two underscores, too
    #[arg(long)]
    subrules: bool,
    /// Only rules that do not run, or have no effect on the score
    #[arg(long)]
    off: bool,
    /// One JSON object a line, per rule
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: Option<&Path>, args: &Args) -> ExitCode {
    end(args.which.need(config).map(|(_, set)| {
        let rules = chosen(&set.rules, args);
        if args.json {
            rules.iter().for_each(|rule| say(json_of(rule)));
            return;
        }
        let rows: Vec<[String; 6]> = rules.iter().map(row).collect();
        columns(["RULE", "TYPE", "SCORE", "STATE", "WHERE", "DESCRIPTION"], &rows);
        say(format_args!("{} of {} rules", rules.len(), set.rules.len()));
    }))
}

fn chosen<'s>(set: &'s Ruleset, args: &Args) -> Vec<Listed<'s>> {
    let is_wanted = |rule: &Listed<'_>| {
        let named = match &args.pattern {
            Some(glob) => glob.fits(rule.name),
            None => args.subrules || !is_subrule(rule),
        };
        named && (!args.off || rule.state != State::Runs || has_no_score(rule))
    };
    set.list().filter(is_wanted).collect()
}

fn is_subrule(rule: &Listed<'_>) -> bool {
    rule.name.starts_with("__")
}

fn has_no_score(rule: &Listed<'_>) -> bool {
    rule.score == 0.0 && !is_subrule(rule)
}

/// What keeps it from having an effect, if anything does.
fn state(rule: &Listed<'_>) -> String {
    match rule.state {
        State::Runs if has_no_score(rule) => "score 0".to_owned(),
        state => state.to_string(),
    }
}

fn row(rule: &Listed<'_>) -> [String; 6] {
    let score = if is_subrule(rule) { "-".to_owned() } else { rule.score.to_string() };
    [
        printable(rule.name),
        rule.kind.to_owned(),
        score,
        state(rule),
        printable(&format!("{}:{}", rule.file, rule.line)),
        printable(rule.description),
    ]
}

fn json_of(rule: &Listed<'_>) -> serde_json::Value {
    json!({
        "rule": rule.name,
        "type": rule.kind,
        "score": rule.score,
        "state": state(rule),
        "file": rule.file,
        "line": rule.line,
        "description": rule.description,
    })
}
