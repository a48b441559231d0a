// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[spam]`: which rules, and what they may cost a message. Pure, but for the look whether the files are there.

use std::path::PathBuf;
use std::time::Duration;

use common::units::{Period, Size};
use serde::{Deserialize, Serialize};

use crate::scan::scores::Score;

/// Longest `subject_tag`.
const MAX_TAG: usize = 60;
/// Longest `network_time`: Postfix and its client wait meanwhile.
const MAX_NETWORK_TIME: Duration = Duration::from_secs(60);
/// Most `network_questions`.
const MAX_QUESTIONS: u32 = 1000;

/// Section `[spam]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpamSettings {
    /// Folders and files of rules; empty: no rules are run.
    pub rules: Vec<PathBuf>,
    /// From this score on a message is tagged; when absent, from the `required_score` of the rules, which is 5 unless they say otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_level: Option<Score>,
    /// From this score on it is spam.
    pub kill_level: Score,
    /// From this score on the fields of `headers.add` about spam are added; when absent, always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_level: Option<Score>,
    /// Put before the subject of tagged messages that pass; empty: nothing.
    pub subject_tag: String,
    /// Whether all rules run for every message; otherwise those that can still change what is done with it.
    pub all: bool,
    /// How often it is looked whether the files have changed; zero: never.
    pub watch: Period,
    /// How much of a message the rules see; the rest of a larger one they do not.
    pub max_size: Size,
    /// Processor time that the rules may take for one message.
    pub time: Period,
    /// The same for one rule; one that takes more is set aside for the message.
    pub rule_time: Period,
    /// Whether rules that ask the network do so.
    pub network: bool,
    /// How long a message waits for all answers together.
    pub network_time: Period,
    /// Most questions that the rules ask for one message.
    pub network_questions: u32,
    /// How long it is remembered what the rules did on a day.
    pub stats_keep: Period,
}

impl Default for SpamSettings {
    fn default() -> SpamSettings {
        SpamSettings {
            rules: Vec::new(),
            tag_level: None,
            kill_level: Score(15.0),
            header_level: None,
            subject_tag: String::new(),
            all: false,
            watch: Period::seconds(60),
            max_size: Size(400 * 1024),
            time: Period::seconds(2),
            rule_time: Period(Duration::from_millis(200)),
            network: false,
            network_time: Period::seconds(2),
            network_questions: 100,
            stats_keep: Period::seconds(400 * 86_400),
        }
    }
}

impl SpamSettings {
    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        for path in &self.rules {
            if let Err(error) = std::fs::metadata(path) {
                wrong.push(("rules", format!("{}: {error}", path.display())));
            }
        }
        wrong.extend(self.wrong_levels());
        let printable = self.subject_tag.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !printable || self.subject_tag.len() > MAX_TAG || self.subject_tag.trim() != self.subject_tag {
            wrong.push((
                "subject_tag",
                format!("must be at most {MAX_TAG} printable ASCII characters, no blank at its ends"),
            ));
        }
        if self.max_size.0 == 0 {
            wrong.push(("max_size", "must not be 0".to_owned()));
        }
        for (key, time) in [("time", self.time), ("rule_time", self.rule_time)] {
            if time.0.is_zero() {
                wrong.push((key, "must not be 0".to_owned()));
            }
        }
        if self.network_time.0 < Duration::from_millis(10) || self.network_time.0 > MAX_NETWORK_TIME {
            wrong.push(("network_time", "must be between 10ms and 60s".to_owned()));
        }
        if self.network_questions == 0 || self.network_questions > MAX_QUESTIONS {
            wrong.push(("network_questions", format!("must be between 1 and {MAX_QUESTIONS}")));
        }
        if self.stats_keep < Period::seconds(86_400) {
            wrong.push(("stats_keep", "must be at least 1d".to_owned()));
        }
        wrong
    }

    fn wrong_levels(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let levels =
            [("tag_level", self.tag_level), ("kill_level", Some(self.kill_level)), ("header_level", self.header_level)];
        for (key, level) in levels {
            if level.is_some_and(|level| !level.0.is_finite() || level.0.abs() > 1000.0) {
                wrong.push((key, "must be between -1000 and 1000".to_owned()));
            }
        }
        if self.tag_level.is_some_and(|tag| tag.0 > self.kill_level.0) {
            wrong.push(("tag_level", "must not be above spam.kill_level".to_owned()));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_found() {
        assert_eq!(SpamSettings::default().mistakes(), []);
        let zero = Period::seconds(0);
        let wrong = SpamSettings {
            rules: vec!["/no/such/folder".into()],
            tag_level: Some(Score(16.0)),
            header_level: Some(Score(f64::NAN)),
            subject_tag: "a\r\nBcc: b".into(),
            max_size: Size(0),
            time: zero,
            rule_time: zero,
            network_time: zero,
            network_questions: 0,
            stats_keep: zero,
            ..SpamSettings::default()
        };
        let keys: Vec<_> = wrong.mistakes().iter().map(|(key, _)| *key).collect();
        assert_eq!(
            keys,
            [
                "rules",
                "header_level",
                "tag_level",
                "subject_tag",
                "max_size",
                "time",
                "rule_time",
                "network_time",
                "network_questions",
                "stats_keep"
            ]
        );
    }
}
