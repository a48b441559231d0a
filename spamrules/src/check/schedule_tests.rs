// SPDX-License-Identifier: GPL-3.0-or-later
//! With levels the action is the one that running everything leads to.

use proptest::prelude::*;

use crate::{Budget, Environment, Message, NoAnswers, Options, Report, Ruleset};

/// Words of rules and of messages.
const WORDS: &[&str] = &["free", "money", "viagra", "meeting", "a1b2", "http://e.com/x", "offer", "Re:"];

fn load(rules: &str) -> Ruleset {
    Ruleset::load([("local.cf", rules.as_bytes())], Options::default(), &|_| None)
}

fn check(set: &Ruleset, message: &str, levels: &[f64]) -> Report {
    let budget = Budget { levels, ..Budget::default() };
    set.check(&Message::parse(message.as_bytes()), &Environment::default(), &NoAnswers, budget)
}

/// How many levels a score reaches.
fn action(score: f64, levels: &[f64]) -> usize {
    levels.iter().filter(|level| score >= **level).count()
}

/// The name of a rule: every third is a sub-rule.
fn name(number: usize) -> String {
    if number % 3 == 1 { format!("__R{number}") } else { format!("R{number}") }
}

/// A rule over some text, or a meta over rules before it.
fn rule(number: usize) -> impl Strategy<Value = String> {
    let word = proptest::sample::select(WORDS);
    let kinds = &["body", "rawbody", "uri", "full", "header Subject =~", "header ALL =~", "mimeheader X =~"][..];
    let flags = prop::sample::select(&["", "multiple", "multiple maxhits=2", "nosubject"][..]);
    let score = prop::sample::select(&["0", "0.5", "1.5", "-1", "-2.5", "3", "10"][..]);
    let term =
        move || (0..number + 1).prop_map(move |other| if other < number { name(other) } else { "NONE".to_owned() });
    let operator = prop::sample::select(&["&&", "||", "+", "-", "*", ">", "&& !", "== 1 +", "/ 2 +", "/ 2 -"][..]);
    let form = prop::sample::select(&["WORD", "[WORD]{6}", "(?!x)WORD", "[a-z]+\\s", "^WORD"][..]);
    let test = (prop::sample::select(kinds), form, word, flags).prop_map(move |(kind, form, word, flags)| {
        let (kind, operator) = kind.split_once(' ').unwrap_or((kind, ""));
        let pattern = form.replace("WORD", &word.replace('/', "\\/"));
        format!("{kind} {0} {operator} /{pattern}/i\ntflags {0} {flags}\n", name(number))
    });
    let meta = (term(), operator, term(), prop::bool::ANY).prop_map(move |(one, operator, other, not)| {
        format!("meta {} {}{one} {operator} {other}\n", name(number), if not { "!" } else { "" })
    });
    (prop_oneof![3 => test, 2 => meta], score)
        .prop_map(move |(rule, score)| format!("{rule}score {} {score}\n", name(number)))
}

fn rules() -> impl Strategy<Value = String> {
    (1usize..14).prop_flat_map(|count| (0..count).map(rule).collect::<Vec<_>>().prop_map(|rules| rules.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_action_is_the_same(
        rules in rules(),
        subject in proptest::sample::subsequence(WORDS, 0..4),
        body in proptest::collection::vec(proptest::sample::select(WORDS), 0..12),
        levels in proptest::collection::vec(-5.0f64..12.0, 1..4),
    ) {
        let set = load(&format!("util_rb_tld com\n{rules}"));
        let message = format!("Subject: {}\n\n{}\n", subject.join(" "), body.join(" \n"));
        let all = check(&set, &message, &[]);
        for _ in 0..3 {
            let some = check(&set, &message, &levels);
            let bound = some.bound.unwrap();
            prop_assert_eq!(action(all.score, &levels), action(some.score, &levels), "{}\n{:?}\n{:?}", rules, all, some);
            prop_assert!(bound.low - 1e-6 <= all.score && all.score <= bound.high + 1e-6, "{}\n{:?}\n{:?}", rules, all, some);
            prop_assert!(some.hits.iter().all(|hit| all.hits.iter().any(|other| other.rule == hit.rule)));
            prop_assert!(some.subrules.iter().all(|rule| all.subrules.contains(rule)), "{}\n{:?}\n{:?}", rules, all, some);
        }
    }
}

#[test]
fn what_cannot_matter_does_not_run() {
    let set = load(
        "header GOOD Subject =~ /meeting/\nscore GOOD -100\nbody BAD /money/\nscore BAD 4\n\
         body __PART /free/\nmeta WHOLE __PART && BAD\nscore WHOLE 3\n",
    );
    let report = check(&set, "Subject: meeting\n\nfree money\n", &[5.0]);
    assert!(report.bound.is_some_and(|bound| bound.left > 0 && bound.high < 5.0), "{report:?}");
    assert_eq!(report.hits.len(), 1);
    let report = check(&set, "Subject: hello\n\nfree money\n", &[5.0]);
    assert!((report.score - 7.0).abs() < 1e-9, "{report:?}");
    let report = check(&set, "Subject: hello\n\nnothing\n", &[5.0]);
    assert!(report.bound.is_some_and(|bound| bound.left == 0 && bound.low == 0.0 && bound.high == 0.0), "{report:?}");
    assert_eq!(check(&set, "Subject: hello\n\nnothing\n", &[]).bound, None);
}

#[test]
fn a_meta_that_does_not_matter_is_not_told() {
    let set = load("body __A /free/\nmeta __NONE !__A\nbody B /money/\nscore B 4\n");
    for levels in [&[][..], &[5.0], &[1.0]] {
        assert!(
            !check(&set, "Subject: x\n\nfree money\n", levels).subrules.contains(&"__NONE".to_owned()),
            "{levels:?}"
        );
    }
}

#[test]
fn metas_in_a_circle_run_everything() {
    let set = load("meta A B\nmeta B A\nbody C /x/\n");
    let report = check(&set, "Subject: a\n\nx\n", &[5.0]);
    assert_eq!((report.bound, report.hits.len()), (None, 1));
}
