// SPDX-License-Identifier: GPL-3.0-or-later
//! SpamAssassin's own test suite, run with spamrules: its messages, its rules, and what its tests say must and must not come of them.
//!
//! Zones are ours ([`zone`]), as are the plugins that some tests bring in Perl ([`plugins`]). [`outside`] names what cannot be here, and why.

mod outside;
mod plugins;
mod zone;

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;
use spamrules::{Budget, Environment, Message, Options, Report, Ruleset, Severity, without_markup};

use crate::Collection;
use outside::{ADDED, FORBIDDEN, FORM, OUTSIDE, RUNS_OUTSIDE};
use plugins::Log;
use zone::Zone;

/// The day of the run: 2026-11-22.
const DAY: i64 = 1_795_305_600;

/// What the suite is made of.
struct Suite {
    folder: Collection,
    /// Signed messages of the suite are beside those of other programs.
    signed: Collection,
    domains: Vec<u8>,
}

impl Suite {
    fn read(&self, name: &str) -> Vec<u8> {
        let path = match name.strip_prefix("data/dkim/") {
            Some(name) => self.signed.path("conformance/dkim/spamassassin").join(name),
            None => self.folder.path("sa-test-suite").join(name),
        };
        std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// One run of one test.
struct Run<'a> {
    test: &'a str,
    number: usize,
    facts: &'a Value,
}

impl Run<'_> {
    fn text(&self, key: &str) -> &str {
        self.facts[key].as_str().unwrap_or_default()
    }

    fn strings(&self, key: &str) -> Vec<String> {
        let given = self.facts[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        given.filter(|text| !FORM.contains(&text.trim())).collect()
    }

    /// The expected strings, with those that the suite does not state as strings.
    fn expected(&self) -> Vec<String> {
        let added = ADDED.iter().filter(|(test, number, _)| *test == self.test && *number == self.number);
        let mut all = self.strings("expect_strings");
        all.extend(added.map(|(_, _, text)| (*text).to_owned()));
        all
    }

    /// The rule files of the run: of each kind the last block counts, as a test writes the file anew.
    fn files(&self, suite: &Suite) -> Vec<(String, Vec<u8>)> {
        let mut blocks = BTreeMap::new();
        for block in self.facts["config"].as_array().into_iter().flatten() {
            blocks.insert(block["kind"].as_str().unwrap_or_default(), block["text"].as_str().unwrap_or_default());
        }
        let own = |kind: &str| blocks.get(kind).copied().unwrap_or_default().as_bytes().to_vec();
        vec![
            ("01_test_rules.pre".to_owned(), suite.read("data/01_test_rules.pre")),
            ("tstpre".to_owned(), own("tstpre")),
            ("20_aux_tlds.cf".to_owned(), suite.domains.clone()),
            ("01_test_rules.cf".to_owned(), suite.read("data/01_test_rules.cf")),
            ("tstlocalrules".to_owned(), own("tstlocalrules")),
            ("tstprefs".to_owned(), own("tstprefs")),
            ("plugins.cf".to_owned(), plugins::RULES.to_vec()),
        ]
    }

    /// What is wrong with the outcome.
    fn mistakes(&self, suite: &Suite) -> Vec<String> {
        let shown = self.shown(suite);
        let missing = self.expected().into_iter().filter(|text| !shown.contains(text.as_str()));
        let added = FORBIDDEN.iter().filter(|(test, number, _)| *test == self.test && *number == self.number);
        let mut forbidden = self.strings("forbid_strings");
        forbidden.extend(added.map(|(_, _, text)| (*text).to_owned()));
        let extra = forbidden.into_iter().filter(|text| shown.contains(text.as_str()));
        let missing = missing.map(|text| format!("run {}: {text:?} is missing", self.number));
        missing.chain(extra.map(|text| format!("run {}: {text:?} is there", self.number))).collect()
    }

    /// Runs the rules; the outcome in the form in which the suite looks for strings.
    fn shown(&self, suite: &Suite) -> String {
        let files = self.files(suite);
        let log = Log::default();
        let network = !self.text("args").split(' ').any(|word| word == "-L");
        let config: String = files.iter().map(|(_, text)| String::from_utf8_lossy(text)).collect();
        let options = Options { network, extensions: plugins::all(&config, &log), ..Options::default() };
        let views = files.iter().map(|(name, text)| (name.as_str(), text.as_slice()));
        let set = Ruleset::load(views, options, &included);
        let mut raw = suite.read(self.text("message"));
        if self.text("args").split(' ').any(|word| word == "-d") {
            let tags: Vec<&str> =
                config.lines().filter_map(|line| line.trim().strip_prefix("rewrite_header subject ")).collect();
            raw = without_markup(&raw, &tags);
        }
        let zone = Zone::new(self.text("message"));
        let report = set.check(&Message::parse(&raw), &Environment { now: DAY }, &zone, Budget::default());
        assert!(report.complete, "{} run {}", self.test, self.number);
        let mut shown = header(&raw);
        shown.push_str(&verdict(&report));
        shown.push_str(&hits(&set, &report));
        for remark in set.lint().iter().filter(|remark| remark.severity > Severity::Note) {
            let _ = writeln!(shown, " warn: {remark}");
        }
        let loaded: Vec<String> = set.plugins().iter().map(|name| format!("{name}=HASH")).collect();
        let _ = writeln!(shown, " test: plugins loaded: {} ", loaded.join(" "));
        for question in zone.asked() {
            let _ = writeln!(shown, " dns: bgsend {question} ");
        }
        // Extensions end with the last set that has them.
        drop(set);
        log.lines().into_iter().for_each(|line| {
            let _ = writeln!(shown, " {line} ");
        });
        shown
    }
}

/// The header of the message, a line to a line, and the first line of its body.
fn header(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw).replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let head: String = head.lines().map(|line| format!(" {} \n", words(line))).collect();
    format!("{head} first line: {} \n", words(body.lines().next().unwrap_or_default()))
}

/// The one file that a test includes.
fn included(path: &str) -> Option<Vec<u8>> {
    (path == "prefs_include.inc").then(|| b"body INCLUDED /./\n".to_vec())
}

fn verdict(report: &Report) -> String {
    let word = if report.is_spam() { "Yes" } else { "No" };
    let flag = if report.is_spam() { " X-Spam-Flag: YES \n" } else { "" };
    let stars = report.hits.iter().map(|hit| hit.score).sum::<f64>().clamp(0.0, 50.0);
    let stars: String = (1..=50).take_while(|star| f64::from(*star) <= stars).map(|_| '*').collect();
    let forced = if report.autolearn_forced { "yes" } else { "no" };
    format!(
        " X-Spam-Status: {word}, score={} autolearn={} autolearn_force={forced} \n{flag} X-Spam-Level: {stars} \n",
        report.score, report.autolearn
    )
}

fn hits(set: &Ruleset, report: &Report) -> String {
    let mut text = String::new();
    for hit in &report.hits {
        let rule = set.list().find(|rule| rule.name == hit.rule).expect("it is in the set");
        // What one hit counts, as SpamAssassin's report shows it, also for a rule that counted several.
        let score = if rule.score.abs() >= 10.0 { format!("{:.0}", rule.score) } else { format!("{:.1}", rule.score) };
        let area = if rule.kind == "body" { "BODY: " } else { "" };
        let _ = writeln!(text, " {score} {} {area}{} ", hit.rule, hit.described());
    }
    text
}

#[test]
fn spamassassin_s_own_tests_pass() {
    let rules = Collection::unpack("sa-rules");
    let domains = std::fs::read(rules.path("sa-rules/20_aux_tlds.cf")).expect("the list of top-level domains");
    let suite =
        Suite { folder: Collection::unpack("sa-test-suite"), signed: Collection::unpack("conformance"), domains };
    let all: Value = serde_json::from_slice(&suite.read("expectations.json")).expect("JSON");
    let outside: BTreeMap<&str, &str> = OUTSIDE.iter().copied().collect();
    let (mut simple, mut others, mut failures) = (0, 0, Vec::new());
    for test in all.as_array().expect("a list") {
        let name = test["test"].as_str().unwrap_or_default();
        if outside.contains_key(name) {
            continue;
        }
        let runs = test["runs"].as_array().into_iter().flatten().enumerate();
        let runs = runs
            .filter(|(number, _)| !RUNS_OUTSIDE.iter().any(|(test, runs, _)| *test == name && runs.contains(number)));
        let wrong: Vec<String> =
            runs.flat_map(|(number, facts)| Run { test: name, number, facts }.mistakes(&suite)).collect();
        match (wrong.is_empty(), test["simple"] == true) {
            (true, true) => simple += 1,
            (true, false) => others += 1,
            (false, _) => failures.push(format!("{name}: {}", wrong.join(", "))),
        }
    }
    println!("{simple} simple tests and {others} others pass; outside:");
    OUTSIDE.iter().for_each(|(name, why)| println!("  {name}: {why}"));
    RUNS_OUTSIDE.iter().for_each(|(name, runs, why)| println!("  {name}, runs {runs:?}: {why}"));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(simple + others + OUTSIDE.len(), 74);
}
