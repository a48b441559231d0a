// SPDX-License-Identifier: GPL-3.0-or-later
//! The rules of SpamAssassin in spamrules: the same hits as SpamAssassin 4.0.1 on real mail.

use std::collections::BTreeSet;

use spamrules::{Budget, Environment, Message, NoAnswers, Report, Ruleset, Severity};
use tests::reference::{self, Tally};

use crate::Collection;

/// The day on which SpamAssassin was asked: 2026-11-22.
const DAY: i64 = 1_795_305_600;

fn check(set: &Ruleset, raw: &[u8]) -> Report {
    set.check(&Message::parse(raw), &Environment { now: DAY }, &NoAnswers, Budget::default())
}

#[test]
fn the_hits_are_those_of_spamassassin() {
    let (rules, answers, mail) =
        (Collection::unpack("sa-rules"), Collection::unpack("sa-reference-dev"), Collection::unpack("mail-dev"));
    let set = reference::load(&rules.path("sa-rules"));
    let wrong: Vec<String> =
        set.lint().iter().filter(|remark| remark.severity == Severity::Error).map(ToString::to_string).collect();
    assert!(set.len() >= 2_900, "{} rules", set.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (all, ignored) = reference::expected(&answers.path("sa-reference"));
    let (mut tally, mut kept) = (Tally::default(), Tally::default());
    for (number, expected) in all.iter().enumerate() {
        let raw = std::fs::read(mail.path(&expected.file)).expect("the message is there");
        let found = reference::rules_of(&check(&set, &raw), &ignored);
        if number % 4 == 3 { &mut kept } else { &mut tally }.add(expected, &found);
    }
    println!("{}every fourth message:\n{}", tally.table(), kept.table());
    for tally in [tally, kept] {
        assert!(tally.messages_agree() >= 0.95, "{:.3} of the messages agree", tally.messages_agree());
        assert!(tally.hits_agree() >= 0.995, "{:.4} of the hits agree", tally.hits_agree());
    }
}

#[test]
fn the_action_with_levels_is_that_of_everything_run() {
    let (rules, answers, mail) =
        (Collection::unpack("sa-rules"), Collection::unpack("sa-reference-dev"), Collection::unpack("mail-dev"));
    let set = reference::load(&rules.path("sa-rules"));
    let (mut left, mut total) = (0, 0);
    for (number, expected) in reference::expected(&answers.path("sa-reference")).0.iter().enumerate() {
        let raw = std::fs::read(mail.path(&expected.file)).expect("the message is there");
        let all = check(&set, &raw);
        // Levels of all heights and distances, so that the score is close to one now and then.
        let first = f64::from(u32::try_from(number % 13).expect("small")) - 2.0;
        for levels in [&[5.0][..], &[2.0, 6.3, 10.0], &[first], &[first, first + 0.5]] {
            let budget = Budget { levels, ..Budget::default() };
            let some = set.check(&Message::parse(&raw), &Environment { now: DAY }, &NoAnswers, budget);
            let action = |score: f64| levels.iter().filter(|level| score >= **level).count();
            assert_eq!(action(all.score), action(some.score), "{} {levels:?} {:?}", expected.file, some.bound);
            let bound = some.bound.expect("there are levels");
            assert!(bound.low - 1e-6 <= all.score && all.score <= bound.high + 1e-6, "{} {bound:?}", expected.file);
            left += usize::from(bound.left > 0);
            total += 1;
        }
    }
    println!("{left} of {total} runs ended before all rules that could matter had run");
    assert!(left * 2 > total, "{left} of {total}");
}

/// CPU time that one message may take. An optimised build has to do with 2 s (`reference … crafted` of spamrules shows by how much it does);
/// the builds of tests are about ten times slower.
const MOST: std::time::Duration = std::time::Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });

#[test]
fn crafted_messages_end_soon() {
    let rules = Collection::unpack("sa-rules");
    let set = reference::load(&rules.path("sa-rules"));
    let cpu = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        std::time::Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    };
    for (name, raw) in tests::shapes::all() {
        let begun = cpu();
        // Without a clock there is no limit but those that are always there.
        let report = check(&set, &raw);
        let spent = cpu() - begun;
        println!("{spent:7.0?}  {name}");
        assert!(report.complete && spent < MOST, "{name}: {spent:.1?}");
    }
}

#[test]
fn scan_says_the_same() {
    let (rules, answers, mail) =
        (Collection::unpack("sa-rules"), Collection::unpack("sa-reference-dev"), Collection::unpack("mail-dev"));
    let folder = rules.path("sa-rules");
    let configuration = rules.path("octroi.toml");
    let text = format!("[spam]\nrules = [\"{}\", \"{}\"]\n", folder.display(), folder.join("etc").display());
    std::fs::write(&configuration, text).expect("written");
    let (all, ignored) = reference::expected(&answers.path("sa-reference"));
    let scan = std::process::Command::new(tests::daemon::binary("contentd").expect("built"))
        .args(["scan", "--json", "--config"])
        .arg(&configuration)
        .args(all.iter().map(|expected| mail.path(&expected.file)))
        .output()
        .expect("contentd runs");
    let lines = String::from_utf8(scan.stdout).expect("UTF-8");
    let (mut messages, mut equal) = (0, 0);
    for (expected, line) in all.iter().zip(lines.lines()) {
        let report: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let symbols = report["symbols"].as_array().into_iter().flatten();
        let names = symbols.filter_map(|symbol| symbol["name"].as_str());
        // Signs that are no rules have small letters.
        let ours = names.filter(|name| !name.contains(|c: char| c.is_ascii_lowercase()) && !ignored.contains(*name));
        let theirs = expected.rules.iter().map(String::as_str).filter(|rule| !rule.starts_with("__"));
        messages += 1;
        equal += usize::from(ours.collect::<BTreeSet<_>>() == theirs.collect());
    }
    println!("{equal} of {messages} messages have the same rules");
    assert_eq!(messages, all.len());
    assert!(equal * 100 >= messages * 95, "{equal} of {messages}");
}
