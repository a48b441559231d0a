// SPDX-License-Identifier: GPL-3.0-or-later
//! Compares the hits on a set of messages with SpamAssassin's, and measures what a message costs.
//!
//! `cargo run --release --example reference -- RULES REFERENCE MAIL [lint | time | everything | levels | crafted | explain FILE]`: the folder of the rule files, that of
//! SpamAssassin's answers, and the one that the paths in the answers begin at. `time` measures with everything run and with levels;
//! `everything` and `levels` only one of them, for a profiler; `crafted` takes messages made to be slow instead. Every fourth message is left for the test of `make test-corpus`.
#![allow(clippy::print_stdout, missing_docs)]

#[path = "../../tests/support/reference.rs"]
#[allow(dead_code, unreachable_pub)]
mod reference;
#[path = "../../tests/support/shapes.rs"]
#[allow(unreachable_pub)]
mod shapes;

use std::path::Path;
use std::time::Duration;

use spamrules::{Budget, Environment, Message, NoAnswers, Ruleset};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rules, answers, mail, rest @ ..] = arguments.as_slice() else {
        println!("usage: reference RULES REFERENCE MAIL [lint | time | everything | levels | crafted | explain FILE]");
        return;
    };
    let start = std::time::Instant::now();
    let set = reference::load(Path::new(rules));
    println!(
        "{} rules, {} remarks, loaded in {:.2?}, {} MB resident",
        set.len(),
        set.lint().len(),
        start.elapsed(),
        resident() / 1024
    );
    match rest.first().map(String::as_str) {
        Some("lint") => set.lint().iter().for_each(|remark| println!("{remark}")),
        Some("everything") => measure(&set, &messages(Path::new(answers), Path::new(mail)), "everything", &[]),
        Some("levels") => measure(&set, &messages(Path::new(answers), Path::new(mail)), "with levels", LEVELS),
        Some("crafted") => crafted(&set),
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

/// Levels at which an action changes in the measurement with levels: marked, and refused.
const LEVELS: &[f64] = &[5.0, 10.0];
/// How often the messages are checked before and while times are taken.
const ROUNDS: usize = 5;

fn time(set: &Ruleset, answers: &Path, mail: &Path) {
    let messages = messages(answers, mail);
    measure(set, &messages, "everything", &[]);
    measure(set, &messages, "with levels", LEVELS);
    actions(set, &messages);
    costs(set, &messages, &[]);
    costs(set, &messages, LEVELS);
    println!("{} MB resident", resident() / 1024);
}

fn messages(answers: &Path, mail: &Path) -> Vec<(String, Vec<u8>)> {
    let (all, _) = reference::expected(answers);
    all.iter().filter_map(|one| Some((one.file.clone(), std::fs::read(mail.join(&one.file)).ok()?))).collect()
}

/// CPU time per message: the least of several rounds, which is the one least disturbed by others on the machine.
fn measure(set: &Ruleset, messages: &[(String, Vec<u8>)], what: &str, levels: &[f64]) {
    let mut times: Vec<(Duration, &str, usize)> =
        messages.iter().map(|(name, raw)| (Duration::MAX, name.as_str(), raw.len())).collect();
    for _ in 0..ROUNDS {
        for ((_, raw), (least, ..)) in messages.iter().zip(&mut times) {
            let begun = cpu_time();
            let budget = Budget { clock: Some(&cpu_time), levels, ..Budget::default() };
            let report = set.check(&Message::parse(raw), &environment(), &NoAnswers, budget);
            *least = (*least).min(cpu_time() - begun);
            report.set_aside.iter().for_each(|aside| println!("{aside:?}"));
        }
    }
    times.sort_unstable();
    let at =
        |share: usize| times.get(times.len().saturating_sub(1) * share / 100).map_or(0, |(time, ..)| time.as_micros());
    let mean = times.iter().map(|(time, ..)| *time).sum::<Duration>() / u32::try_from(times.len().max(1)).unwrap_or(1);
    println!(
        "{what}: {} messages, CPU mean {:.2} ms, p50 {} us, p99 {} us, most {} us",
        times.len(),
        mean.as_secs_f64() * 1000.0,
        at(50),
        at(99),
        at(100)
    );
    times
        .iter()
        .rev()
        .take(4)
        .for_each(|(time, name, size)| println!("  {:8} us {size:8} bytes  {name}", time.as_micros()));
}

/// Compares the action with levels to that of everything run.
fn actions(set: &Ruleset, messages: &[(String, Vec<u8>)]) {
    let (mut same, mut stopped, mut left) = (0, 0, 0);
    for (name, raw) in messages {
        let message = Message::parse(raw);
        let [all, some] = [&[], LEVELS]
            .map(|levels| set.check(&message, &environment(), &NoAnswers, Budget { levels, ..Budget::default() }));
        let action = |score: f64| LEVELS.iter().filter(|level| score >= **level).count();
        if action(all.score) == action(some.score) {
            same += 1;
        } else {
            println!("{name}: {} with everything run, {} with levels, {:?}", all.score, some.score, some.bound);
        }
        let open = some.bound.map_or(0, |bound| bound.left);
        stopped += usize::from(open > 0);
        left += open;
    }
    println!(
        "{same} of {} with the same action; {stopped} stopped early, {left} rules left out by a bound",
        messages.len()
    );
}

/// What messages made to be slow cost, without a limit of time; the rules that cost most of it.
fn crafted(set: &Ruleset) {
    for (name, raw) in shapes::all() {
        let begun = cpu_time();
        let message = Message::parse(&raw);
        let parsed = cpu_time() - begun;
        let no_limit = Duration::from_secs(3600);
        let budget =
            Budget { clock: Some(&cpu_time), total: no_limit, rule: no_limit, measure: 1, ..Budget::default() };
        let report = set.check(&message, &environment(), &NoAnswers, budget);
        let spent = cpu_time() - begun;
        let mut costs: Vec<_> = report.costs.iter().zip(set.rules()).collect();
        costs.sort_unstable_by_key(|(cost, _)| std::cmp::Reverse(**cost));
        let slowest: Vec<String> = costs.iter().take(4).map(|(cost, (name, _))| format!("{name} {cost:.0?}")).collect();
        println!("{:7.0?} (parsing {parsed:.0?})  {name}: {}", spent, slowest.join(", "));
    }
}

/// The most expensive rules.
fn costs(set: &Ruleset, messages: &[(String, Vec<u8>)], levels: &[f64]) {
    let mut costs = vec![Duration::ZERO; set.len()];
    let mut most = vec![Duration::ZERO; set.len()];
    for (_, raw) in messages {
        let budget = Budget { clock: Some(&cpu_time), measure: 1, levels, ..Budget::default() };
        let report = set.check(&Message::parse(raw), &environment(), &NoAnswers, budget);
        costs.iter_mut().zip(&report.costs).for_each(|(sum, cost)| *sum += *cost);
        most.iter_mut().zip(&report.costs).for_each(|(most, cost)| *most = (*most).max(*cost));
    }
    let mut rules: Vec<(Duration, Duration, &str)> =
        costs.into_iter().zip(most).zip(set.rules()).map(|((sum, most), (name, _))| (sum, most, name)).collect();
    rules.sort_unstable();
    let all: Duration = rules.iter().map(|(cost, ..)| *cost).sum();
    println!("all rules, clock included: {all:.0?}; the most expensive ones, in all and at most in one message:");
    rules.iter().rev().take(25).for_each(|(cost, most, name)| println!("  {cost:10.1?} {most:10.1?}  {name}"));
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
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
