// SPDX-License-Identifier: GPL-3.0-or-later
//! Messages through all that rules look at: headers, parts, rendered text, URIs, relays, and the eval functions that read them.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spamrules::{Budget, Environment, Message, NoAnswers, Options, Ruleset};

static RULES: LazyLock<Ruleset> = LazyLock::new(|| {
    let set = Ruleset::load([("rules.cf", &include_bytes!("rules.cf")[..])], Options { network: true, bayes: true, ..Options::default() }, &|_| None);
    assert!(set.lint().iter().all(|remark| remark.severity == spamrules::Severity::Note), "{:?}", set.lint());
    set
});

fuzz_target!(|input: &[u8]| {
    let report = RULES.check(&Message::parse(input), &Environment { now: 1_795_305_600 }, &NoAnswers, Budget::default());
    assert!(report.score.is_finite());
    assert!(spamrules::without_markup(input, &["*****SPAM*****"]).len() <= input.len());
});
