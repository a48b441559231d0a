// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi rules stats`: what the spam rules have done in the last days, by all hosts: as a table, as JSON, as a picture. It reads the account that
//! contentd keeps in the store (docs/spam-stats.md) and changes nothing.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use common::store::Store;
use contentd::store::rules::{self as account, DayRow, RuleRow};
use serde_json::json;

use super::glob::Glob;
use crate::chart::{CURVES, Chart, Curve, Panel, svg};
use crate::session::{Failure, columns, moment, now, run, say};

const DAY: i64 = 86_400_000;

/// What is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rules with such names only; * and ? stand for any characters
    pattern: Option<Glob>,
    /// So many days, the present one included; days are UTC
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=36_500))]
    days: i64,
    /// What comes first
    #[arg(long, value_enum, default_value_t = Sort::Hits)]
    sort: Sort,
    /// Show so many rules; 0: all
    #[arg(long, default_value_t = 40, value_name = "NUMBER")]
    top: usize,
    /// Sub-rules, whose names begin with two underscores, too
    #[arg(long)]
    subrules: bool,
    /// One JSON object instead of the table, with every day
    #[arg(long)]
    json: bool,
    /// Also plot it, messages and the first of these rules by day, into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// By what rules are sorted, the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Sort {
    /// Messages that it hit
    Hits,
    /// Of these, tagged and spam
    Decided,
    /// Messages that it alone tipped
    Marginal,
    /// Points on average
    Score,
    /// False positives
    Fp,
    /// False negatives
    Fn,
    /// Processor time
    Cost,
    /// In the order of the alphabet
    Name,
}

pub(super) fn stats(config: Option<&Path>, args: &Args) -> ExitCode {
    run(config, async |_, store| {
        let account = Account::read(store, args, now().div_euclid(DAY)).await?;
        if let Some(file) = &args.svg {
            std::fs::write(file, svg(&account.chart()))
                .map_err(|error| Failure::Data(format!("{}: {error}", file.display())))?;
        }
        if args.json {
            say(account.json())
        } else {
            account.table()
        }
        Ok(())
    })
}

/// What the store knows of the days that were asked for.
#[derive(Debug)]
struct Account {
    /// All days, those without mail too.
    days: Vec<DayRow>,
    /// Their sums.
    all: DayRow,
    rules: Vec<Rule>,
    /// Rules that are not shown, because they are too many.
    more: usize,
}

/// One rule.
#[derive(Debug)]
struct Rule {
    sum: RuleRow,
    /// Day by day, as `Account::days`; zeros where only the table is wanted.
    hits: Vec<i64>,
}

impl Account {
    async fn read(store: &Store, args: &Args, today: i64) -> Result<Account, Failure> {
        let first = today - args.days + 1;
        let found = account::days(store, first, today).await?;
        let days = every_day(first, today, &found);
        let mut sums = account::totals(store, first, today).await?;
        let is_wanted = |rule: &RuleRow| {
            args.pattern.as_ref().map_or(args.subrules || !rule.rule.starts_with("__"), |glob| glob.fits(&rule.rule))
        };
        sums.retain(is_wanted);
        args.sort.apply(&mut sums);
        let shown = if args.top == 0 { sums.len() } else { args.top.min(sums.len()) };
        let more = sums.len() - shown;
        let mut rules = Vec::with_capacity(shown);
        for sum in sums.into_iter().take(shown) {
            let by_day = match args.json || args.svg.is_some() {
                true => account::by_day(store, &sum.rule, first, today).await?,
                false => Vec::new(),
            };
            let on = |day: &DayRow| by_day.iter().find(|row| row.day == day.day).map_or(0, |row| row.hits);
            rules.push(Rule { hits: days.iter().map(on).collect(), sum });
        }
        Ok(Account { all: summed(&days), days, rules, more })
    }

    fn table(&self) {
        self.heading();
        let rows: Vec<[String; 10]> = self.rules.iter().map(|rule| self.row(&rule.sum)).collect();
        let heading =
            ["HITS", "OF ALL", "DECIDED", "OF DECIDED", "MARGINAL", "SCORE", "FP", "FN", "US/MESSAGE", "RULE"];
        let (heading, rows) = to_the_right(heading, rows);
        columns(heading.each_ref().map(String::as_str), &rows);
        if self.more > 0 {
            say(format_args!("{} more rules; --top 0 shows all", self.more));
        }
    }

    fn heading(&self) {
        let all = &self.all;
        let range = match (self.days.first(), self.days.last()) {
            (Some(first), Some(last)) => format!("{} to {}", date(first.day), date(last.day)),
            _ => String::new(),
        };
        let share = |part| percent(part, all.messages);
        say(format_args!(
            "{range}: {} messages, {} spam ({}), {} tagged ({})",
            all.messages,
            all.spam,
            share(all.spam),
            all.tagged,
            share(all.tagged)
        ));
        say(format_args!(
            "feedback: {} spam, of which {} passed; {} not spam, of which {} were taken for it",
            all.told_spam, all.false_negatives, all.told_ham, all.false_positives
        ));
        say("");
    }

    fn row(&self, rule: &RuleRow) -> [String; 10] {
        [
            rule.hits.to_string(),
            percent(rule.hits, self.all.messages),
            rule.decided.to_string(),
            percent(rule.decided, self.all.spam + self.all.tagged),
            rule.marginal.to_string(),
            points(rule).map_or("-".to_owned(), |points| format!("{points:.2}")),
            rule.false_positives.to_string(),
            rule.false_negatives.to_string(),
            self.cost(rule).map_or("-".to_owned(), |nanoseconds| format!("{:.1}", nanoseconds / 1000.0)),
            crate::session::printable(&rule.rule),
        ]
    }

    /// Nanoseconds for each message that was measured.
    fn cost(&self, rule: &RuleRow) -> Option<f64> {
        (self.all.measured > 0).then(|| rule.cost as f64 / self.all.measured as f64)
    }

    fn json(&self) -> serde_json::Value {
        let rules: Vec<_> = self.rules.iter().map(|rule| self.rule_json(rule)).collect();
        json!({
            "days": self.days.iter().map(day_json).collect::<Vec<_>>(),
            "total": figures(&self.all),
            "rules": rules,
            "rules_left_out": self.more,
        })
    }

    fn rule_json(&self, rule: &Rule) -> serde_json::Value {
        let sum = &rule.sum;
        let share = |part: i64, whole: i64| (whole > 0).then(|| part as f64 / whole as f64);
        json!({
            "rule": sum.rule,
            "hits": sum.hits,
            "share": share(sum.hits, self.all.messages),
            "decided": sum.decided,
            "decided_share": share(sum.decided, self.all.spam + self.all.tagged),
            "marginal": sum.marginal,
            "score": points(sum),
            "told_spam": sum.told_spam,
            "told_ham": sum.told_ham,
            "false_positives": sum.false_positives,
            "false_negatives": sum.false_negatives,
            "cost_ns": sum.cost,
            "cost_ns_per_message": self.cost(sum),
            "hits_by_day": rule.hits,
        })
    }

    /// Messages above, the first rules below; days before the first with mail are left out.
    fn chart(&self) -> Chart {
        let begin = self.days.iter().position(|day| day.messages > 0).unwrap_or(0);
        let from = begin.min(self.days.len().saturating_sub(7));
        let days = self.days.get(from..).unwrap_or_default();
        let curve = |name: &str, of: fn(&DayRow) -> i64| Curve {
            name: name.to_owned(),
            values: days.iter().map(|day| count(of(day))).collect(),
        };
        let messages = vec![
            curve("messages", |day| day.messages),
            curve("spam", |day| day.spam),
            curve("tagged", |day| day.tagged),
        ];
        let of_rule = |rule: &Rule| Curve {
            name: rule.sum.rule.clone(),
            values: rule.hits.iter().skip(from).map(|hits| count(*hits)).collect(),
        };
        let rules = self.rules.iter().take(CURVES).map(of_rule).collect();
        let all = &self.all;
        Chart {
            title: "Spam rules".to_owned(),
            note: format!(
                "{} messages, {} spam ({}), {} tagged ({}); days are UTC",
                all.messages,
                all.spam,
                percent(all.spam, all.messages),
                all.tagged,
                percent(all.tagged, all.messages)
            ),
            days: days.iter().map(|day| date(day.day)).collect(),
            panels: vec![
                Panel { title: "Messages a day".to_owned(), curves: messages },
                Panel { title: "Hits of rules a day".to_owned(), curves: rules },
            ],
        }
    }
}

impl Sort {
    /// Equal ones stay in the order of their names.
    fn apply(self, rules: &mut [RuleRow]) {
        match self {
            Sort::Hits => rules.sort_by_key(|rule| Reverse(rule.hits)),
            Sort::Decided => rules.sort_by_key(|rule| Reverse((rule.decided, rule.hits))),
            Sort::Marginal => rules.sort_by_key(|rule| Reverse((rule.marginal, rule.hits))),
            Sort::Score => rules.sort_by(|a, b| points(b).unwrap_or(0.0).total_cmp(&points(a).unwrap_or(0.0))),
            Sort::Fp => rules.sort_by_key(|rule| Reverse((rule.false_positives, rule.hits))),
            Sort::Fn => rules.sort_by_key(|rule| Reverse((rule.false_negatives, rule.hits))),
            Sort::Cost => rules.sort_by_key(|rule| Reverse(rule.cost)),
            Sort::Name => rules.sort_by(|a, b| a.rule.cmp(&b.rule)),
        }
    }
}

/// The days from `first` to `last`, with zeros where nothing is known.
fn every_day(first: i64, last: i64, found: &[DayRow]) -> Vec<DayRow> {
    let of = |day| found.iter().find(|row| row.day == day).copied().unwrap_or(DayRow { day, ..DayRow::default() });
    (first..=last).map(of).collect()
}

fn summed(days: &[DayRow]) -> DayRow {
    days.iter().fold(DayRow::default(), |sum, day| DayRow {
        day: day.day,
        messages: sum.messages + day.messages,
        tagged: sum.tagged + day.tagged,
        spam: sum.spam + day.spam,
        measured: sum.measured + day.measured,
        told_spam: sum.told_spam + day.told_spam,
        told_ham: sum.told_ham + day.told_ham,
        false_positives: sum.false_positives + day.false_positives,
        false_negatives: sum.false_negatives + day.false_negatives,
    })
}

fn figures(day: &DayRow) -> serde_json::Value {
    json!({
        "messages": day.messages,
        "spam": day.spam,
        "tagged": day.tagged,
        "measured": day.measured,
        "told_spam": day.told_spam,
        "told_ham": day.told_ham,
        "false_positives": day.false_positives,
        "false_negatives": day.false_negatives,
    })
}

fn day_json(day: &DayRow) -> serde_json::Value {
    let mut value = figures(day);
    value["day"] = date(day.day).into();
    value
}

/// What it adds to the score of a message that it hits, on average.
fn points(rule: &RuleRow) -> Option<f64> {
    (rule.hits > 0).then(|| rule.points as f64 / 1000.0 / rule.hits as f64)
}

fn percent(part: i64, whole: i64) -> String {
    if whole > 0 { format!("{:.1} %", 100.0 * part as f64 / whole as f64) } else { "-".to_owned() }
}

fn date(day: i64) -> String {
    moment(day.saturating_mul(DAY)).chars().take(10).collect()
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Every column but the last set flush right.
fn to_the_right<const N: usize>(heading: [&str; N], mut rows: Vec<[String; N]>) -> ([String; N], Vec<[String; N]>) {
    let mut heading = heading.map(str::to_owned);
    for column in 0..N.saturating_sub(1) {
        let cells = rows.iter().map(|row| row[column].chars().count());
        let width = cells.max().unwrap_or_default().max(heading[column].len());
        for cell in rows.iter_mut().map(|row| &mut row[column]).chain([&mut heading[column]]) {
            *cell = format!("{cell:>width$}");
        }
    }
    (heading, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, hits: i64, marginal: i64, points: i64, cost: i64) -> RuleRow {
        RuleRow { rule: name.into(), hits, marginal, points, cost, ..RuleRow::default() }
    }

    #[test]
    fn sorted_by_what_was_asked_for() {
        let rules =
            [rule("A", 1, 0, 9000, 5), rule("B", 3, 1, 300, 0), rule("C", 3, 2, -3000, 9), rule("D", 0, 0, 0, 7)];
        let order = |sort: Sort| {
            let mut sorted = rules.to_vec();
            sort.apply(&mut sorted);
            sorted.iter().map(|rule| rule.rule.as_str()).collect::<String>()
        };
        assert_eq!(order(Sort::Hits), "BCAD");
        assert_eq!(order(Sort::Marginal), "CBAD");
        assert_eq!(order(Sort::Score), "ABDC");
        assert_eq!(order(Sort::Cost), "CDAB");
        assert_eq!(order(Sort::Name), "ABCD");
    }

    #[test]
    fn days_without_mail_are_zeros() {
        let found = [DayRow { day: 20_001, messages: 4, spam: 1, ..DayRow::default() }];
        let days = every_day(20_000, 20_002, &found);
        assert_eq!(
            days.iter().map(|day| (day.day, day.messages)).collect::<Vec<_>>(),
            [(20_000, 0), (20_001, 4), (20_002, 0)]
        );
        let account = Account { all: summed(&days), days, rules: Vec::new(), more: 0 };
        assert_eq!((account.all.messages, account.all.spam), (4, 1));
        assert_eq!(account.json()["days"][1]["day"], "2024-10-05");
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(percent(1, 0), "-");
    }

    #[test]
    fn the_picture_begins_with_the_first_mail() {
        let days: Vec<DayRow> =
            (0..30).map(|day| DayRow { day, messages: i64::from(day >= 10), ..DayRow::default() }).collect();
        let rules = vec![Rule { sum: rule("A", 20, 0, 0, 0), hits: days.iter().map(|day| day.messages).collect() }];
        let chart = Account { all: summed(&days), days, rules, more: 0 }.chart();
        assert_eq!((chart.days.len(), chart.days[0].as_str()), (20, "1970-01-11"));
        assert_eq!(chart.panels[1].curves, [Curve { name: "A".into(), values: vec![1; 20] }]);
    }

    #[test]
    fn columns_are_flush_right_but_for_the_last() {
        let (heading, rows) = to_the_right(["N", "NAME"], vec![["10".into(), "a".into()], ["5".into(), "bb".into()]]);
        assert_eq!(heading, [" N", "NAME"]);
        assert_eq!(rows, [["10", "a"], [" 5", "bb"]]);
    }
}
