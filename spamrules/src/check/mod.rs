// SPDX-License-Identifier: GPL-3.0-or-later
//! Running the rules over one message: captures first, then texts and headers, then eval functions by priority, metas last.
//!
//! SpamAssassin runs rules of lower priority first; as only captures, eval functions and metas see what others have found, the order of
//! all others is free, and rules over the same text run together.

mod account;
#[cfg(test)]
mod crafted_tests;
mod report;
mod rule;
mod run;
mod schedule;
#[cfg(test)]
mod schedule_tests;
mod state;
pub(crate) mod template;
mod waiting;
#[cfg(test)]
mod waiting_tests;

use std::time::Duration;

use crate::autolearn::Autolearn;
pub use account::{Budget, Clock, Reason};
pub(crate) use run::{Setting, run};
pub(crate) use waiting::resume;
pub use waiting::{Checked, Waiting};

/// A rule that hit.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The name of the rule.
    pub rule: String,
    /// What it adds to the score.
    pub score: f64,
    /// How often it hit, as metas see it: more than 1 only for rules that count, and the value of metas.
    pub count: f64,
    /// Its description, empty when it has none.
    pub description: String,
    /// What was found, where the test can tell: `URI: example.com`, `203.0.113.7 listed in zen.spamhaus.org`. Text of the message may be in
    /// it.
    pub details: Vec<String>,
}

/// Details of one hit that [`Hit::described`] names.
const MOST_DESCRIBED: usize = 5;

impl Hit {
    /// The description with the first details in brackets, as SpamAssassin's report has it: `Contains a listed URL [URI: example.com]`.
    pub fn described(&self) -> String {
        let details = self.details.iter().take(MOST_DESCRIBED).map(|detail| format!("[{detail}]"));
        let first = Some(self.description.clone()).filter(|text| !text.is_empty());
        first.into_iter().chain(details).collect::<Vec<_>>().join(" ")
    }
}

/// A rule that was given up for this message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The name of the rule.
    pub rule: String,
    /// Why.
    pub reason: Reason,
    /// What it had cost by then; zero without a clock.
    pub spent: Duration,
}

/// Where the score of a message lies, whatever the rules that did not run would say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// The least that the score would be with all rules run.
    pub low: f64,
    /// The most that it would be; infinite while a rule is left whose hits count without a limit.
    pub high: f64,
    /// How many rules that could still have changed the score did not run.
    pub left: usize,
}

/// What the rules say about a message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// The rules that hit and count, in the order of the rule files.
    pub hits: Vec<Hit>,
    /// Names of sub-rules (`__…`) that hit: they count only within metas.
    pub subrules: Vec<String>,
    /// The sum of the scores.
    pub score: f64,
    /// The score from which the rule files call a message spam (`required_score`).
    pub required: f64,
    /// Rules given up for this message.
    pub set_aside: Vec<SetAside>,
    /// What each rule has cost, in the order of [`crate::Ruleset::rules`]; empty without a clock, and for messages that were not measured
    /// (see [`Budget::measure`]).
    pub costs: Vec<Duration>,
    /// Whether rules did not see all URIs: the message has too many, or one of them has too many inside it, or following redirectors would
    /// have cost too much.
    pub uris_missing: bool,
    /// Whether everything ran that should. If not, the budget was spent.
    pub complete: bool,
    /// With [`Budget::levels`]: what is proven of the score. `hits` and `score` are then those of the rules that ran.
    pub bound: Option<Bound>,
    /// What the message is to be learnt as by itself, by the thresholds of `bayes_auto_learn_threshold_*`. [`Autolearn::No`] also where
    /// rules that could have changed the score did not run.
    pub autolearn: Autolearn,
    /// Whether it is to be learnt although its points come from one side, because a rule with `tflags autolearn_force` has hit.
    pub autolearn_forced: bool,
}

impl Report {
    /// Whether the message reaches the score from which the rule files call it spam.
    pub fn is_spam(&self) -> bool {
        self.score >= self.required
    }
}

#[cfg(test)]
mod tests {
    use crate::{Budget, Environment, Hit, Message, NoAnswers, Options, Report, Ruleset};

    fn check(rules: &str, message: &str) -> Report {
        let set = Ruleset::load([("local.cf", rules.as_bytes())], Options::default(), &|_| None);
        set.check(&Message::parse(message.as_bytes()), &Environment::default(), &NoAnswers, Budget::default())
    }

    #[test]
    fn descriptions_with_details() {
        let hit = |description: &str, details: &[&str]| Hit {
            rule: "A".into(),
            score: 1.0,
            count: 1.0,
            description: description.into(),
            details: details.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(hit("Listed", &["URI: a.com", "URI: b.com"]).described(), "Listed [URI: a.com] [URI: b.com]");
        assert_eq!((hit("Listed", &[]).described(), hit("", &["a"]).described()), ("Listed".into(), "[a]".into()));
        assert_eq!(hit("", &["a"; 9]).described().len(), "[a] [a] [a] [a] [a]".len());
    }

    #[test]
    fn missing_uris_are_told() {
        let rules = "util_rb_tld com\nuri HTTP /^http:/\n";
        let message = |count: u32| {
            let links: String = (0..count).map(|n| format!("<a href=http://a{n}.com/>")).collect();
            format!("Content-Type: text/html\n\n{links}")
        };
        let few = check(rules, &message(10));
        assert!(!few.uris_missing && few.complete);
        assert_eq!(few.hits.len(), 1);
        assert!(check(rules, &message(10_001)).uris_missing);
        let nested = |count| format!("Subject: x\n\nhttp://a.com/?{}\n", "http://b.com/?".repeat(count));
        assert!(!check(rules, &nested(3)).uris_missing);
        assert!(check(rules, &nested(12)).uris_missing);
    }
}
