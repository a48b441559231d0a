// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[spam]`: which rules, and what they may cost a message. Pure, but for the look whether the files are there.

use std::path::PathBuf;
use std::time::Duration;

use common::units::{Period, Size};
use serde::{Deserialize, Serialize};

/// Section `[spam]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpamSettings {
    /// Folders and files of rules; empty: no rules are run.
    pub rules: Vec<PathBuf>,
    /// How much of a message the rules see; the rest of a larger one they do not.
    pub max_size: Size,
    /// Processor time that the rules may take for one message.
    pub time: Period,
    /// The same for one rule; one that takes more is set aside for the message.
    pub rule_time: Period,
    /// How long it is remembered what the rules did on a day.
    pub stats_keep: Period,
}

impl Default for SpamSettings {
    fn default() -> SpamSettings {
        SpamSettings {
            rules: Vec::new(),
            max_size: Size(400 * 1024),
            time: Period::seconds(2),
            rule_time: Period(Duration::from_millis(200)),
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
        if self.max_size.0 == 0 {
            wrong.push(("max_size", "must not be 0".to_owned()));
        }
        for (key, time) in [("time", self.time), ("rule_time", self.rule_time)] {
            if time.0.is_zero() {
                wrong.push((key, "must not be 0".to_owned()));
            }
        }
        if self.stats_keep < Period::seconds(86_400) {
            wrong.push(("stats_keep", "must be at least 1d".to_owned()));
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
            max_size: Size(0),
            time: zero,
            rule_time: zero,
            stats_keep: zero,
        };
        let keys: Vec<_> = wrong.mistakes().iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["rules", "max_size", "time", "rule_time", "stats_keep"]);
    }
}
