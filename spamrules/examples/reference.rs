// SPDX-License-Identifier: GPL-3.0-or-later
//! Compares the hits on a set of messages with SpamAssassin's, and measures what a message costs.
//!
//! `cargo run --release --example reference -- RULES REFERENCE MAIL [lint | time | explain FILE]`: the folder of the rule files, that of
//! SpamAssassin's answers, and the one that the paths in the answers begin at. Every fourth message is left for the test of `make test-corpus`.
#![allow(clippy::print_stdout, missing_docs)]

#[path = "../../tests/support/reference.rs"]
#[allow(dead_code, unreachable_pub)]
mod reference;

use std::path::Path;
use std::time::Instant;

use spamrules::{Budget, Environment, Message, NoAnswers, Ruleset};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rules, answers, mail, rest @ ..] = arguments.as_slice() else {
        println!("usage: reference RULES REFERENCE MAIL [lint | time | explain FILE]");
        return;
    };
    let start = Instant::now();
    let set = reference::load(Path::new(rules));
    println!(
        "{} rules, {} remarks, loaded in {:.0?}, {} MB resident",
        set.len(),
        set.lint().len(),
        start.elapsed(),
        resident() / 1024
    );
    match rest.first().map(String::as_str) {
        Some("lint") => set.lint().iter().for_each(|remark| println!("{remark}")),
        Some("time") => time(&set, Path::new(answers), Path::new(mail)),
        Some("explain") => explain(&set, Path::new(answers), Path::new(mail), rest.get(1).map_or("", String::as_str)),
        _ => compare(&set, Path::new(answers), Path::new(mail)),
    }
}

/// The day of SpamAssassin's answers.
fn environment() -> Environment {
    Environment { now: 1_795_305_600 }
}

fn compare(set: &Ruleset, answers: &Path, mail: &Path) {
    let (all, ignored) = reference::expected(answers);
    let mut tally = reference::Tally::default();
    let mut kept = reference::Tally::default();
    for (number, expected) in all.iter().enumerate() {
        let Ok(raw) = std::fs::read(mail.join(&expected.file)) else { continue };
        let report = set.check(&Message::parse(&raw), &environment(), &NoAnswers, Budget::default());
        let tally = if number % 4 == 3 { &mut kept } else { &mut tally };
        tally.add(expected, &reference::rules_of(&report, &ignored));
    }
    print!("{}", tally.table());
    println!("every fourth message: {}", kept.table().lines().next().unwrap_or_default());
}

fn explain(set: &Ruleset, answers: &Path, mail: &Path, file: &str) {
    let (all, ignored) = reference::expected(answers);
    for expected in all.iter().filter(|expected| expected.file.contains(file)) {
        let Ok(raw) = std::fs::read(mail.join(&expected.file)) else { continue };
        let report = set.check(&Message::parse(&raw), &environment(), &NoAnswers, Budget::default());
        let found = reference::rules_of(&report, &ignored);
        println!("{}", expected.file);
        println!("  only SpamAssassin: {:?}", expected.rules.difference(&found).collect::<Vec<_>>());
        println!("  only here: {:?}", found.difference(&expected.rules).collect::<Vec<_>>());
    }
}

fn time(set: &Ruleset, answers: &Path, mail: &Path) {
    let (all, _) = reference::expected(answers);
    let messages: Vec<(String, Vec<u8>)> =
        all.iter().filter_map(|one| Some((one.file.clone(), std::fs::read(mail.join(&one.file)).ok()?))).collect();
    let mut costs = vec![std::time::Duration::ZERO; set.len()];
    for round in 1..=3 {
        let mut times: Vec<(u128, &str, usize)> = Vec::new();
        let began = cpu_ticks();
        let start = Instant::now();
        for (name, raw) in &messages {
            let begun = Instant::now();
            let base = Instant::now();
            let clock = move || base.elapsed();
            let report = set.check(
                &Message::parse(raw),
                &environment(),
                &NoAnswers,
                Budget { clock: Some(&clock), ..Budget::default() },
            );
            if round == 3 {
                costs.iter_mut().zip(&report.costs).for_each(|(sum, cost)| *sum += *cost);
            }
            for aside in &report.set_aside {
                println!("{name}: {} set aside ({:?}, {:.0?})", aside.rule, aside.reason, aside.spent);
            }
            times.push((begun.elapsed().as_micros(), name, raw.len()));
        }
        let wall = start.elapsed();
        let cpu = cpu_ticks() - began;
        times.sort_unstable();
        let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 100).map_or(0, |(time, ..)| *time);
        println!(
            "round {round}: {} messages, {:.2} ms each ({} ticks of 10 ms CPU), median {} us, p99 {} us, most {} us, {} MB resident",
            messages.len(),
            wall.as_secs_f64() * 1000.0 / f64::from(u32::try_from(messages.len()).unwrap_or(1)),
            cpu,
            at(50),
            at(99),
            at(100),
            resident() / 1024
        );
        if round == 3 {
            times.iter().rev().take(8).for_each(|(time, name, size)| println!("  {time:8} us {size:8} bytes  {name}"));
        }
    }
    let mut rules: Vec<(std::time::Duration, &str)> =
        costs.into_iter().zip(set.rules().map(|(name, _)| name)).collect();
    rules.sort_unstable();
    println!("all rules: {:.0?}", rules.iter().map(|(cost, _)| *cost).sum::<std::time::Duration>());
    rules.iter().rev().take(40).for_each(|(cost, name)| println!("  {cost:10.1?}  {name}"));
}

/// Memory of this process in KB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// CPU time of this process, in ticks of 10 ms.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}
