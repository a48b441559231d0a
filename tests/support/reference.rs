// SPDX-License-Identifier: GPL-3.0-or-later
//! What SpamAssassin answered for a set of messages, beside what spamrules says: which rules, how often, and how much they agree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use spamrules::{Options, Report, Ruleset};

/// One message and SpamAssassin's answer.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Path of the message below the folder of the corpus.
    pub file: String,
    /// All rules that hit, sub-rules included.
    pub rules: BTreeSet<String>,
    /// The total score.
    pub score: f64,
}

/// Agreement over some messages.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Messages compared.
    pub messages: usize,
    /// Messages with the same set of rules, sub-rules included.
    pub equal: usize,
    /// Messages with the same set of scored rules.
    pub equal_scored: usize,
    /// Hits of both.
    pub both: usize,
    /// Per rule: hits of SpamAssassin alone, hits of ours alone, and one message with a difference.
    pub rules: BTreeMap<String, (usize, usize, String)>,
}

/// The files of a rule folder in the order in which SpamAssassin reads them: site `.pre`, distributed `.cf`, site `.cf`.
pub fn rule_files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let site = folder.join("etc");
    [(&site, "pre"), (&folder.to_path_buf(), "cf"), (&site, "cf")]
        .into_iter()
        .flat_map(|(folder, extension)| by_name(folder, extension))
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("a rule file can be read")))
        .collect()
}

fn by_name(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    paths
}

/// Loads the rules of a folder, without network and Bayes.
pub fn load(folder: &Path) -> Ruleset {
    let files = rule_files(folder);
    let views = files.iter().map(|(name, text)| (name.as_str(), text.as_slice()));
    Ruleset::load(views, Options::default(), &|path| std::fs::read(path).ok())
}

/// Reads the answers and the names to ignore.
pub fn expected(folder: &Path) -> (Vec<Expected>, BTreeSet<String>) {
    let meta: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("META.json")).expect("META.json")).expect("JSON");
    let ignored = names(&meta["ignore_when_comparing"]);
    let lines = std::fs::read_to_string(folder.join("sa-local-rules.jsonl")).expect("sa-local-rules.jsonl");
    let all = lines
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let mut rules = names(&value["rules"]);
            rules.extend(names(&value["subtests"]));
            rules.retain(|rule| !ignored.contains(rule));
            Expected {
                file: value["file"].as_str().unwrap_or_default().to_owned(),
                rules,
                score: value["score"].as_f64().unwrap_or(0.0),
            }
        })
        .collect();
    (all, ignored)
}

fn names(list: &serde_json::Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// All rules of a report.
pub fn rules_of(report: &Report, ignored: &BTreeSet<String>) -> BTreeSet<String> {
    let scored = report.hits.iter().map(|hit| hit.rule.clone());
    scored.chain(report.subrules.iter().cloned()).filter(|rule| !ignored.contains(rule)).collect()
}

impl Tally {
    /// Adds one message.
    pub fn add(&mut self, expected: &Expected, found: &BTreeSet<String>) {
        self.messages += 1;
        self.equal += usize::from(expected.rules == *found);
        let scored =
            |rules: &BTreeSet<String>| rules.iter().filter(|rule| !rule.starts_with("__")).cloned().collect::<Vec<_>>();
        self.equal_scored += usize::from(scored(&expected.rules) == scored(found));
        self.both += expected.rules.intersection(found).count();
        for rule in expected.rules.difference(found) {
            self.rules.entry(rule.clone()).or_insert_with(|| (0, 0, expected.file.clone())).0 += 1;
        }
        for rule in found.difference(&expected.rules) {
            self.rules.entry(rule.clone()).or_insert_with(|| (0, 0, expected.file.clone())).1 += 1;
        }
    }

    /// The share of messages with the same rules.
    pub fn messages_agree(&self) -> f64 {
        share(self.equal, self.messages)
    }

    /// The share of hits that both have, of those that either has.
    pub fn hits_agree(&self) -> f64 {
        let apart: usize = self.rules.values().map(|(theirs, ours, _)| theirs + ours).sum();
        share(self.both, self.both + apart)
    }

    /// The table of differences, the most frequent first.
    pub fn table(&self) -> String {
        let mut rows: Vec<_> = self.rules.iter().collect();
        rows.sort_by_key(|(_, (theirs, ours, _))| std::cmp::Reverse(theirs + ours));
        let mut text = format!(
            "{} messages, {} equal ({:.1} %), {} equal in scored rules; {:.2} % of hits agree\n",
            self.messages,
            self.equal,
            100.0 * self.messages_agree(),
            self.equal_scored,
            100.0 * self.hits_agree()
        );
        for (rule, (theirs, ours, file)) in rows {
            text.push_str(&format!("{theirs:5} only SpamAssassin {ours:5} only here  {rule}  ({file})\n"));
        }
        text
    }
}

fn share(part: usize, whole: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if whole == 0 { 1.0 } else { number(part) / number(whole) }
}
