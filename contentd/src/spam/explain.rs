// SPDX-License-Identifier: GPL-3.0-or-later
//! `contentd scan --explain`: what a score is made of, for people. Pure text; control characters are the caller's business.

use std::fmt::Write;
use std::time::Duration;

use spamrules::Reason;

use super::rounded;
use crate::findings::{Spam, Symbol};

/// The rules that cost most, as many as are shown.
const DEAREST: usize = 10;

/// The lines about a message. `symbols`: all signs of spam, `kill_level`: from which score it is spam.
pub fn text(spam: &Spam, symbols: &[Symbol], kill_level: f64) -> String {
    let mut out = String::new();
    let level = match spam.score {
        score if score >= kill_level => "spam",
        score if score >= spam.required => "tagged",
        _ => "neither tagged nor spam",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "  score {}: {level} (tagged from {}, spam from {kill_level})", spam.score, spam.required);
    let mut symbols: Vec<&Symbol> = symbols.iter().collect();
    symbols.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.name.cmp(&b.name)));
    for Symbol { name, score, description } in symbols {
        let _ = writeln!(out, "  {:>8} {name:<32} {description}", rounded(*score));
    }
    let report = &spam.report;
    if !report.subrules.is_empty() {
        let _ = writeln!(out, "  sub-rules: {}", report.subrules.join(" "));
    }
    for aside in &report.set_aside {
        let why = match aside.reason {
            Reason::Steps => "too many steps",
            Reason::Time => "too much time",
        };
        let _ = writeln!(out, "  set aside: {} ({why}, {})", aside.rule, millis(aside.spent));
    }
    if !report.complete {
        let _ = writeln!(out, "  not all rules have run: the time of the message was spent");
    }
    if report.uris_missing {
        let _ = writeln!(out, "  the rules have not seen all URIs");
    }
    out + &costs(spam)
}

/// The rules that cost most.
fn costs(spam: &Spam) -> String {
    let costs = &spam.report.costs;
    if costs.is_empty() {
        return String::new();
    }
    let total: Duration = costs.iter().sum();
    let mut dear: Vec<_> = spam.rules.rules.rules().map(|(name, _)| name).zip(costs).collect();
    dear.sort_by_key(|(_, cost)| std::cmp::Reverse(**cost));
    let shown = dear.iter().take(DEAREST).filter(|(_, cost)| !cost.is_zero());
    let shown: Vec<String> = shown.map(|(name, cost)| format!("{name} {}", millis(**cost))).collect();
    format!("  rules took {}, most: {}\n", millis(total), shown.join(", "))
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spam::set::RuleSet;
    use spamrules::{Report, SetAside};

    #[test]
    fn everything_about_a_score_is_told() {
        let report = Report {
            subrules: vec!["__X".into(), "__Y".into()],
            set_aside: vec![SetAside { rule: "SLOW".into(), reason: Reason::Time, spent: Duration::from_millis(210) }],
            costs: vec![Duration::from_micros(1500), Duration::ZERO],
            complete: true,
            ..Report::default()
        };
        let rules = RuleSet::for_tests("body A /a/\nbody B /b/\n");
        let spam = Spam { score: 7.0, required: 5.0, report, rules };
        let symbol = |name: &str, score| Symbol { name: name.into(), score, description: format!("about {name}") };
        let text = text(&spam, &[symbol("B", -0.5), symbol("A", 7.5)], 15.0);
        let expected = [
            "  score 7: tagged (tagged from 5, spam from 15)",
            "       7.5 A                                about A",
            "      -0.5 B                                about B",
            "  sub-rules: __X __Y",
            "  set aside: SLOW (too much time, 210.00 ms)",
            "  rules took 1.50 ms, most: A 1.50 ms",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
