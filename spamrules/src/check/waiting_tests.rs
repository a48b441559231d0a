// SPDX-License-Identifier: GPL-3.0-or-later
//! Answers that come later lead to what answers known from the beginning lead to.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::{Answers, Budget, Checked, Environment, Message, Options, Record, Report, Ruleset, SpfQuestion, SpfResult};

type Zone = BTreeMap<(String, Record), Vec<String>>;

/// Answers what has been looked up; notes the rest.
#[derive(Default)]
struct Later {
    known: RefCell<Zone>,
    wanted: RefCell<BTreeSet<(String, Record)>>,
    waiting: Cell<u64>,
}

impl Answers for Later {
    fn dns(&self, name: &str, record: Record) -> Option<Vec<String>> {
        if let Some(known) = self.known.borrow().get(&(name.to_owned(), record)) {
            return Some(known.clone());
        }
        self.wanted.borrow_mut().insert((name.to_owned(), record));
        self.waiting.set(self.waiting.get() + 1);
        None
    }

    fn waiting(&self) -> u64 {
        self.waiting.get()
    }
}

impl Later {
    /// Looks up what is wanted; whether that was anything.
    fn look_up(&self, zone: &Zone) -> bool {
        let wanted = std::mem::take(&mut *self.wanted.borrow_mut());
        for key in &wanted {
            let found = zone.get(key).cloned().unwrap_or_default();
            self.known.borrow_mut().insert(key.clone(), found);
        }
        !wanted.is_empty()
    }
}

/// Knows everything at once.
struct AtOnce(Zone);

impl Answers for AtOnce {
    fn dns(&self, name: &str, record: Record) -> Option<Vec<String>> {
        Some(self.0.get(&(name.to_owned(), record)).cloned().unwrap_or_default())
    }
}

fn zone(records: &[(&str, Record, &str)]) -> Zone {
    records.iter().map(|(name, record, value)| (((*name).to_owned(), *record), vec![(*value).to_owned()])).collect()
}

fn load(rules: &str) -> Ruleset {
    let options = Options { network: true, ..Options::default() };
    let set = Ruleset::load([("local.cf", rules.as_bytes())], options, &|_| None);
    assert!(set.lint().is_empty(), "{:?}", set.lint());
    set
}

struct Bench {
    set: Ruleset,
    message: Message,
    answers: Later,
}

impl Bench {
    fn new(rules: &str, message: &str) -> Bench {
        Bench { set: load(rules), message: Message::parse(message.as_bytes()), answers: Later::default() }
    }

    fn begin(&self, levels: &[f64]) -> Checked {
        let budget = Budget { levels, ..Budget::default() };
        self.set.begin(&self.message, &Environment::default(), &self.answers, budget)
    }

    fn resume(&self, checked: Checked) -> Checked {
        let waiting = checked.waiting.expect("it waits");
        self.set.resume(waiting, &self.message, &Environment::default(), &self.answers, Budget::default())
    }

    /// To the end: the report, and how often somebody looked something up.
    fn through(&self, levels: &[f64], zone: &Zone) -> (Report, u32) {
        let (mut checked, mut rounds) = (self.begin(levels), 0);
        while checked.waiting.is_some() && self.answers.look_up(zone) {
            checked = self.resume(checked);
            rounds += 1;
            assert!(rounds < 10);
        }
        (checked.report, rounds)
    }

    fn at_once(&self, levels: &[f64], zone: &Zone) -> Report {
        let budget = Budget { levels, ..Budget::default() };
        self.set.check(&self.message, &Environment::default(), &AtOnce(zone.clone()), budget)
    }
}

fn names(report: &Report) -> Vec<&str> {
    report.hits.iter().map(|hit| hit.rule.as_str()).collect()
}

const MESSAGE: &str = "Received: from a (a.example.org [203.0.113.7]) by mx.example.com (Postfix) with SMTP id 1111\n\
    Subject: tail.example.net is listed\n\nsee http://www.bad.org/ now\n";

const RULES: &str = "util_rb_tld org com net\n\
    uridnsbl SLOW_LIST sbl.test A\nbody SLOW_LIST eval:check_uridnsbl('SLOW_LIST')\ntflags SLOW_LIST net\nscore SLOW_LIST 2\n\
    header IN_LIST eval:check_rbl('x-lastexternal', 'bl.test.')\ntflags IN_LIST net\nscore IN_LIST 3\n\
    header __NAMED Subject =~ /^(?<TAIL>\\S+)/\naskdns NAMED _TAIL_.names.test A\nscore NAMED 0.5\n\
    meta NOT_IN_LIST !IN_LIST && __NOW\nscore NOT_IN_LIST -1\nbody __NOW /now/\n\
    meta BOTH IN_LIST && SLOW_LIST\nscore BOTH 4\n";

#[test]
fn one_question_leads_to_another() {
    let zone = zone(&[
        ("bad.org", Record::Ns, "ns.example.com"),
        ("ns.example.com", Record::A, "192.0.2.53"),
        ("53.2.0.192.sbl.test", Record::A, "127.0.0.2"),
        ("7.113.0.203.bl.test", Record::A, "127.0.0.4"),
        ("tail.example.net.names.test", Record::A, "127.0.0.2"),
    ]);
    for levels in [&[][..], &[5.0, 15.0], &[9.0]] {
        let bench = Bench::new(RULES, MESSAGE);
        let first = bench.begin(levels);
        assert_eq!(names(&first.report), ["NOT_IN_LIST"], "as long as nothing is known");
        assert!((first.report.score + 1.0).abs() < 1e-9 && first.report.complete);
        assert_eq!(first.waiting.as_ref().map(|waiting| waiting.rules()), Some(3));
        assert!(bench.answers.look_up(&zone));
        let second = bench.resume(first);
        assert_eq!(names(&second.report), ["IN_LIST", "NAMED"]);
        let (report, rounds) = Bench::new(RULES, MESSAGE).through(levels, &zone);
        assert_eq!((names(&report), rounds), (vec!["SLOW_LIST", "IN_LIST", "NAMED", "BOTH"], 3));
        assert!((report.score - 9.5).abs() < 1e-9, "{report:?}");
    }
}

#[test]
fn nothing_is_looked_up_that_cannot_matter() {
    let bench = Bench::new(&format!("{RULES}header HEAVY Subject =~ /listed/\nscore HEAVY 30\n"), MESSAGE);
    let checked = bench.begin(&[5.0, 15.0]);
    assert!(checked.waiting.is_none(), "{:?}", checked.report);
    let bound = checked.report.bound.unwrap();
    assert!(bound.low >= 15.0 && bound.left > 0, "{bound:?}");
    assert!(bench.begin(&[]).waiting.is_some(), "without levels everything is asked");
    // An answer could lift it over a level: the rule that asks is undecided.
    let bench = Bench::new(RULES, MESSAGE);
    assert!(bench.begin(&[8.5]).waiting.is_some());
    assert!(bench.begin(&[9.6]).waiting.is_none());
}

#[test]
fn what_never_comes_does_not_hit() {
    let (report, rounds) = Bench::new(RULES, MESSAGE).through(&[5.0], &Zone::new());
    assert_eq!((names(&report), rounds), (vec!["NOT_IN_LIST"], 1));
    assert_eq!(report.bound.map(|bound| (bound.low, bound.high, bound.left)), Some((-1.0, -1.0, 0)));
}

#[test]
fn rules_on_spf_run_without_a_network_where_the_answer_is_known() {
    struct Spf;
    impl Answers for Spf {
        fn spf(&self, _: &SpfQuestion<'_>) -> Option<SpfResult> {
            Some(SpfResult::Fail)
        }
    }
    let rules = b"header FAIL eval:check_for_spf_fail()\ntflags FAIL net\nscore FAIL 2\n\
        header LIST eval:check_rbl('x', 'bl.test')\ntflags LIST net\n";
    for (spf, expected) in [(true, &["FAIL"][..]), (false, &[])] {
        let set = Ruleset::load([("local.cf", &rules[..])], Options { spf, ..Options::default() }, &|_| None);
        let message = Message::parse(format!("Return-Path: <a@example.org>\n{MESSAGE}").as_bytes());
        let report = set.check(&message, &Environment::default(), &Spf, Budget::default());
        assert_eq!(names(&report), expected);
        assert_eq!(set.list().filter(|rule| rule.state == crate::State::Runs).count(), expected.len());
    }
}

/// A rule that asks, one that does not, or a meta over rules before it.
fn rule(number: usize) -> impl Strategy<Value = String> {
    let score = prop::sample::select(&["0.5", "1.5", "-1", "-2.5", "3", "10"][..]);
    let term = move || {
        (0..number + 1).prop_map(move |other| if other < number { format!("R{other}") } else { "NONE".to_owned() })
    };
    let operator = prop::sample::select(&["&&", "||", "+", "&& !", "> 1 +", "/ 2 -"][..]);
    let asks = (0..4usize, 0..3usize).prop_map(move |(list, form)| match form {
        0 => format!("header R{number} eval:check_rbl('x-lastexternal', 'l{list}.test.')\ntflags R{number} net\n"),
        1 => format!("askdns R{number} _LASTEXTERNALREVIP_.l{list}.test A /^127/\n"),
        _ => format!(
            "uridnsbl R{number} l{list}.test A\nbody R{number} eval:check_uridnsbl('R{number}')\ntflags R{number} net\n"
        ),
    });
    let local =
        prop::sample::select(&["now", "nowhere"][..]).prop_map(move |word| format!("body R{number} /{word}/\n"));
    let meta = (term(), operator, term(), prop::bool::ANY).prop_map(move |(one, operator, other, not)| {
        format!("meta R{number} {}{one} {operator} {other}\n", if not { "!" } else { "" })
    });
    (prop_oneof![3 => asks, 2 => local, 3 => meta], score)
        .prop_map(move |(rule, score)| format!("{rule}score R{number} {score}\n"))
}

fn rules() -> impl Strategy<Value = String> {
    (1usize..12).prop_flat_map(|count| (0..count).map(rule).collect::<Vec<_>>().prop_map(|rules| rules.concat()))
}

fn action(score: f64, levels: &[f64]) -> usize {
    levels.iter().filter(|level| score >= **level).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn late_answers_lead_to_the_same(
        rules in rules(),
        listed in proptest::collection::vec(prop::bool::ANY, 4),
        served in prop::bool::ANY,
        levels in proptest::collection::vec(-5.0f64..12.0, 1..4),
    ) {
        let rules = format!("util_rb_tld org com net\n{rules}");
        let options = Options { network: true, ..Options::default() };
        let set = || Ruleset::load([("local.cf", rules.as_bytes())], options.clone(), &|_| None);
        let mut records = vec![("ns.example.com", Record::A, "192.0.2.53")];
        if served {
            records.push(("bad.org", Record::Ns, "ns.example.com"));
        }
        let mut zone = zone(&records);
        for (number, _) in listed.iter().enumerate().filter(|(_, listed)| **listed) {
            for name in ["7.113.0.203", "53.2.0.192"] {
                zone.insert((format!("{name}.l{number}.test"), Record::A), vec!["127.0.0.2".to_owned()]);
            }
        }
        let bench = || Bench { set: set(), message: Message::parse(MESSAGE.as_bytes()), answers: Later::default() };
        let whole = bench().at_once(&[], &zone);
        let (later, _) = bench().through(&[], &zone);
        prop_assert_eq!(&later.hits, &whole.hits, "{}", rules);
        let (some, _) = bench().through(&levels, &zone);
        prop_assert_eq!(action(some.score, &levels), action(whole.score, &levels), "{}\n{:?}\n{:?}", rules, whole, some);
        let bound = some.bound.unwrap();
        prop_assert!(bound.low - 1e-6 <= whole.score && whole.score <= bound.high + 1e-6, "{}\n{:?}\n{:?}", rules, whole, some);
    }
}
