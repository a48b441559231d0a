// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi rules test`: the spam rules over messages from files, in this command: which hit, what the score is, which of them take long.
//!
//! Rules only, and the message as it is in the file: what engines add to a score, and the verdict, shows `contentd scan`.

use std::cmp::Reverse;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contentd::spam::clock::RuleClock;
use contentd::spam::set::RuleSet;
use contentd::spam::settings::SpamSettings;
use spamrules::{Budget, Environment, Message, NoAnswers, Reason, Report};

use super::spam::Which;
use crate::session::{Failure, columns, end, printable, say};

/// Rules shown by `--cost`.
const SLOWEST: usize = 20;
/// Folders within folders that are looked into.
const DEPTH: usize = 32;

/// Which messages, and what is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Messages: files, folders (with all that is below them), or "-" for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// Only this rule, sub-rules too: whether it hits, and how often
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Sub-rules that hit, too
    #[arg(long)]
    subrules: bool,
    /// The rules that took longest over all messages
    #[arg(long)]
    cost: bool,
}

pub(super) fn run(config: Option<&Path>, args: &Args) -> ExitCode {
    end(test(config, args))
}

fn test(config: Option<&Path>, args: &Args) -> Result<(), Failure> {
    let (settings, set) = args.which.need(config)?;
    if let Some(name) = &args.rule
        && !set.rules.rules().any(|(rule, _)| rule == name)
    {
        return Err(Failure::Data(format!("there is no rule {name:?}")));
    }
    let mut files = Vec::new();
    for file in &args.files {
        collect(file, DEPTH, &mut files)?;
    }
    let mut costs = vec![Duration::ZERO; set.rules.len()];
    for file in &files {
        let report = check(&set, &settings.spam, &read(file)?);
        costs.iter_mut().zip(&report.costs).for_each(|(sum, cost)| *sum += *cost);
        match &args.rule {
            Some(rule) => one(file, rule, &report),
            None => all(file, &report, args.subrules),
        }
    }
    if args.cost {
        slowest(&set, &costs, files.len());
    }
    Ok(())
}

/// Files in order; of folders all that is in them.
fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let wrong = |error: io::Error| Failure::Data(format!("{}: {error}", path.display()));
    if !path.is_dir() || depth == 0 {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries: io::Result<Vec<_>> = fs::read_dir(path).map_err(wrong)?.map(|entry| entry.map(|e| e.path())).collect();
    let mut entries = entries.map_err(wrong)?;
    entries.sort();
    entries.iter().try_for_each(|entry| collect(entry, depth - 1, files))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let done = match file.to_str() {
        Some("-") => io::stdin().lock().read_to_end(&mut bytes).map(drop),
        _ => fs::read(file).map(|read| bytes = read),
    };
    done.map_err(|error| Failure::Data(format!("{}: {error}", file.display())))?;
    Ok(bytes)
}

/// All of them, within the limits of contentd.
fn check(set: &RuleSet, settings: &SpamSettings, raw: &[u8]) -> Report {
    let most = usize::try_from(settings.max_size.0).unwrap_or(usize::MAX);
    let message = Message::parse(raw.get(..most).unwrap_or(raw));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let environment = Environment { now: i64::try_from(now.as_secs()).unwrap_or(i64::MAX) };
    let clock = RuleClock::start();
    let time = || clock.now();
    let budget =
        Budget { clock: Some(&time), total: settings.time.0, rule: settings.rule_time.0, measure: 1, levels: &[] };
    set.rules.check(&message, &environment, &NoAnswers, budget)
}

fn one(file: &Path, rule: &str, report: &Report) {
    let hit = report.hits.iter().find(|hit| hit.rule == rule);
    let told = match hit {
        Some(hit) => format!("hits, count {}, score {}", hit.count, hit.score),
        None if report.subrules.iter().any(|name| name == rule) => "hits".to_owned(),
        None => "does not hit".to_owned(),
    };
    say(printable(&format!("{}: {rule} {told}", file.display())));
}

fn all(file: &Path, report: &Report, subrules: bool) {
    let score = contentd::spam::rounded(report.score);
    let (hits, required) = (report.hits.len(), report.required);
    let took: Duration = report.costs.iter().sum();
    let shown = printable(&file.display().to_string());
    say(format_args!("{shown}: score {score}, required {required}, {hits} rules hit, {:.1} ms", millis(took)));
    let mut hits: Vec<_> = report.hits.iter().collect();
    hits.sort_by(|a, b| b.score.total_cmp(&a.score));
    for hit in hits {
        say(printable(&format!("  {:>6} {:32} {}", hit.score, hit.rule, hit.described())).trim_end());
    }
    if subrules && !report.subrules.is_empty() {
        say(printable(&format!("  sub-rules: {}", report.subrules.join(" "))));
    }
    for left in &report.set_aside {
        let why = match left.reason {
            Reason::Steps => "a search took too many steps".to_owned(),
            Reason::Time => format!("it took {:.1} ms", millis(left.spent)),
        };
        say(printable(&format!("  set aside: {}: {why}", left.rule)));
    }
    if !report.complete {
        say("  not all rules were run: the time of the message was over");
    }
}

fn slowest(set: &RuleSet, costs: &[Duration], messages: usize) {
    let mut rules: Vec<_> = set.rules.list().zip(costs).filter(|(_, cost)| !cost.is_zero()).collect();
    rules.sort_by_key(|(_, cost)| Reverse(**cost));
    let per_message = |cost: Duration| format!("{:.1}", 1000.0 * millis(cost) / messages.max(1) as f64);
    let row = |(rule, cost): &(spamrules::Listed<'_>, &Duration)| {
        let place = printable(&format!("{}:{}", rule.file, rule.line));
        [per_message(**cost), rule.kind.to_owned(), printable(rule.name), place]
    };
    let rows: Vec<[String; 4]> = rules.iter().take(SLOWEST).map(row).collect();
    let all: Duration = costs.iter().sum();
    say(format_args!("{messages} messages, {} us of rules for each; the slowest rules:", per_message(all)));
    columns(["US/MESSAGE", "TYPE", "RULE", "WHERE"], &rows);
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
