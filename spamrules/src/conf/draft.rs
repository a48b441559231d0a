// SPDX-License-Identifier: GPL-3.0-or-later
//! What the lines of rule files have said so far: tests, scores, flags, texts and settings, by the names of rules. Nothing is compiled yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::line::word;
use super::replace::Tags;
use super::tests;
use crate::lint::{Remark, Severity};
use crate::rule::{Draft, Place};
use crate::scores::{self, Scores};
use crate::settings::Settings;

/// Rules of one set.
const MAX_RULES: usize = 200_000;
/// Remarks kept; more only repeat.
const MAX_REMARKS: usize = 20_000;

/// The priority of rules whose captures other rules use.
pub(crate) const CAPTURE_PRIORITY: i32 = -10_000;

/// One rule as written.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) name: String,
    pub(crate) test: Draft,
    pub(crate) place: Place,
}

/// Everything that has been read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered {
    pub(crate) rules: Vec<Written>,
    places: HashMap<String, usize>,
    pub(crate) scores: HashMap<String, Scores>,
    pub(crate) flags: HashMap<String, String>,
    pub(crate) priorities: HashMap<String, i32>,
    pub(crate) descriptions: HashMap<String, String>,
    pub(crate) tags: Tags,
    pub(crate) settings: Settings,
    pub(crate) required: Option<f64>,
    pub(crate) remarks: Vec<Remark>,
    inert: BTreeMap<String, (Place, u32)>,
}

impl Gathered {
    /// Adds a remark.
    pub(crate) fn remark(&mut self, severity: Severity, place: &Place, rule: Option<&str>, message: impl Into<String>) {
        if self.remarks.len() < MAX_REMARKS {
            self.remarks.push(Remark {
                severity,
                file: place.file.to_string(),
                line: place.line,
                rule: rule.map(str::to_owned),
                message: message.into(),
            });
        }
    }

    /// Takes one directive. An error says what is wrong with it, and nothing of it is kept.
    pub(super) fn directive(&mut self, key: &str, value: &[u8], place: &Place) -> Result<(), String> {
        match key {
            "header" | "body" | "rawbody" | "uri" | "full" | "meta" | "mimeheader" | "uri_detail" | "askdns" => {
                self.test(key, value, place)
            }
            "score" => self.score(value),
            "describe" => self.describe(value),
            "tflags" => {
                let (name, flags) = name_and_rest(value)?;
                self.flags.insert(name, flags);
                Ok(())
            }
            "priority" => {
                let (name, priority) = name_and_rest(value)?;
                let priority = priority.parse().map_err(|_| format!("{priority:?} is not a priority"))?;
                self.priorities.insert(name, priority);
                Ok(())
            }
            "required_score" | "required_hits" => {
                let text = text(value);
                let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
                self.required = Some(number).filter(|number| number.is_finite());
                Ok(())
            }
            _ => self.setting(key, value, place),
        }
    }

    fn setting(&mut self, key: &str, value: &[u8], place: &Place) -> Result<(), String> {
        let text = text(value);
        if let Some(done) = self.tags.set(key, value) {
            return done;
        }
        if let Some(done) = self.settings.set(key, &text) {
            return done;
        }
        if super::inert::is_inert(key) {
            let (_, count) = self.inert.entry(key.to_owned()).or_insert_with(|| (place.clone(), 0));
            *count += 1;
            return Ok(());
        }
        Err(format!("{key} is not a directive"))
    }

    fn test(&mut self, key: &str, value: &[u8], place: &Place) -> Result<(), String> {
        let (name, rest) = word(value);
        let name = rule_name(name)?;
        if rest.is_empty() {
            return Err(format!("{name} has no test"));
        }
        let test = tests::read(key, rest).map_err(|error| format!("{name}: {error}"))?;
        if matches!(key, "uri_detail" | "askdns")
            && let Some(done) = self.settings.set(key, &text(value))
        {
            done?;
        }
        if test.pattern().is_some_and(|pattern| tests::captures(pattern.text())) {
            self.priorities.insert(name.clone(), CAPTURE_PRIORITY);
        }
        self.add(Written { name, test, place: place.clone() })
    }

    /// A rule written twice counts as written last.
    fn add(&mut self, rule: Written) -> Result<(), String> {
        if let Some(known) = self.places.get(&rule.name).and_then(|&at| self.rules.get_mut(at)) {
            *known = rule;
            return Ok(());
        }
        if self.rules.len() >= MAX_RULES {
            return Err(format!("more than {MAX_RULES} rules"));
        }
        self.places.insert(rule.name.clone(), self.rules.len());
        self.rules.push(rule);
        Ok(())
    }

    fn score(&mut self, value: &[u8]) -> Result<(), String> {
        let (name, numbers) = name_and_rest(value)?;
        let scores = scores::parse(&numbers, self.scores.get(&name).copied())?;
        self.scores.insert(name, scores);
        Ok(())
    }

    fn describe(&mut self, value: &[u8]) -> Result<(), String> {
        let (name, description) = name_and_rest(value)?;
        self.descriptions.insert(name, description);
        Ok(())
    }

    /// Says once per directive that it has no effect.
    pub(crate) fn note_inert(&mut self) {
        for (key, (place, count)) in std::mem::take(&mut self.inert) {
            let times = if count == 1 { String::new() } else { format!(" ({count} times)") };
            self.remark(Severity::Note, &place, None, format!("{key}{times} has no effect on which rules hit"));
        }
    }
}

/// Bytes of a rule file as text; what is not UTF-8 is replaced.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// Checks the name of a rule.
fn rule_name(name: &[u8]) -> Result<String, String> {
    let valid = name.len() <= 128
        && name.first().is_some_and(|first| *first == b'_' || first.is_ascii_alphabetic())
        && name.iter().all(|byte| *byte == b'_' || byte.is_ascii_alphanumeric());
    if valid { Ok(text(name)) } else { Err(format!("{:?} is not a name for a rule", text(name))) }
}

fn name_and_rest(value: &[u8]) -> Result<(String, String), String> {
    let (name, rest) = word(value);
    let name = rule_name(name)?;
    if rest.is_empty() {
        return Err(format!("nothing is said about {name}"));
    }
    Ok((name, text(rest)))
}

/// A file's name, shared by all places in it.
pub(super) fn file(name: &str) -> Arc<str> {
    Arc::from(name)
}
