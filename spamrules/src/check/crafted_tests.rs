// SPDX-License-Identifier: GPL-3.0-or-later
//! Messages made to be slow, with rules whose patterns are made to be slow: no search, and no message, takes for ever.

use std::time::Duration;

use crate::{Budget, Environment, Message, NoAnswers, Options, Reason, Ruleset};

#[path = "../../../tests/support/shapes.rs"]
#[allow(unreachable_pub)]
mod shapes;

/// Patterns that backtracking engines are slow with, and that only the backtracking engine takes: each has a look-ahead or a reference.
const PATTERNS: &[&str] = &[
    r"(?!q)(?:a+)+b\z",
    r"(?!q)(?:a|a)*b\z",
    r"(?!q)(?:\w+\s?)+:\z",
    r"(?!q)(.*)(.*)(.*)(.*)(.*)x\d\z",
    r"(\w+)\s+\1\1\1",
    r"(?=(\w+)+!)q",
    r"(?<!q)(?:[a-z0-9._]{1,30}@?){1,40}\z!",
];
/// Patterns of the linear engine with many states.
const LINEAR: &[&str] = &[r"[a-z]{1,200}[0-9]{1,200}q", r"(?:a.{0,30}){8}z", r"(?:\w{1,30}\W{1,9}){20}!"];

fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn set(strikes: u32) -> Ruleset {
    let mut rules = "util_rb_tld com org\n".to_owned();
    for (number, pattern) in PATTERNS.iter().chain(LINEAR).enumerate() {
        for kind in ["body", "rawbody", "uri"] {
            rules.push_str(&format!("{kind} {}_{number} /{pattern}/i\n", kind.to_uppercase()));
        }
        rules.push_str(&format!("header SUBJECT_{number} Subject =~ /{pattern}/i\n"));
    }
    let set = Ruleset::load([("local.cf", rules.as_bytes())], Options { strikes, ..Options::default() }, &|_| None);
    assert!(set.lint().is_empty(), "{:?}", set.lint());
    set
}

#[test]
fn the_budget_holds() {
    let set = set(0);
    // All of them run over the shipped rules in `make test-corpus`.
    for (name, raw) in shapes::all().into_iter().step_by(3) {
        let message = Message::parse(&raw);
        let begun = cpu();
        let budget = Budget { clock: Some(&cpu), total: Duration::from_millis(500), ..Budget::default() };
        let report = set.check(&message, &Environment::default(), &NoAnswers, budget);
        let spent = cpu() - begun;
        // The limit, and generously what texts and one search more take in a build without optimisation.
        assert!(spent < Duration::from_secs(20), "{name}: {spent:.1?}");
        assert!(report.complete || spent > Duration::from_millis(500), "{name}: {spent:.1?}");
    }
}

#[test]
fn repeated_offenders_are_switched_off() {
    let rules = b"header BAIT Subject =~ /^(?!b)(?:a|aa)+$/\nheader FINE Subject =~ /a/\n";
    let set = Ruleset::load([("local.cf", &rules[..])], Options { strikes: 2, ..Options::default() }, &|_| None);
    let message = Message::parse(format!("Subject: {}c\n\nx\n", "a".repeat(400)).as_bytes());
    let check =
        |now, levels| set.check(&message, &Environment { now }, &NoAnswers, Budget { levels, ..Budget::default() });
    for _ in 0..2 {
        assert!(set.switched_off(1000).is_empty());
        let report = check(1000, &[]);
        assert_eq!(report.set_aside.iter().map(|aside| aside.reason).collect::<Vec<_>>(), [Reason::Steps]);
    }
    assert_eq!(set.switched_off(1000), ["BAIT"]);
    for levels in [&[][..], &[5.0]] {
        let report = check(2000, levels);
        assert_eq!((report.set_aside.len(), report.hits.len()), (0, 1));
    }
    // An hour later it gets another chance.
    assert!(set.switched_off(4600).is_empty());
    for levels in [&[][..], &[5.0]] {
        assert_eq!(check(4600, levels).set_aside.len(), usize::from(levels.is_empty()), "{levels:?}");
        assert_eq!(set.switched_off(4600), ["BAIT"]);
    }
}

#[test]
fn costs_are_measured_by_samples() {
    let set = set(0);
    let message = Message::parse(b"Subject: a\n\nb c d\n");
    let measured = |measure| {
        let budget = Budget { clock: Some(&cpu), measure, ..Budget::default() };
        (0..12).filter(|_| !set.check(&message, &Environment::default(), &NoAnswers, budget).costs.is_empty()).count()
    };
    assert_eq!((measured(1), measured(0), measured(4)), (12, 0, 3));
}
