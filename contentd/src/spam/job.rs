// SPDX-License-Identifier: GPL-3.0-or-later
//! The rules over one message: the copy that they see, within its limits, and what they say. Runs on a thread for such work.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use spamrules::{Budget, Checked, Environment, Message, Report, Waiting};

use super::clock::RuleClock;
use super::hop;
use super::notebook::Notebook;
use super::set::RuleSet;
use super::settings::SpamSettings;
use crate::budget::thread_time;
use crate::envelope::Envelope;

/// What the rules may cost one message.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the message that they see.
    pub size: usize,
    /// Processor time for all rules.
    pub time: Duration,
    /// Processor time for one rule.
    pub rule_time: Duration,
}

impl Limits {
    /// Those of the configuration.
    pub fn of(settings: &SpamSettings) -> Limits {
        Limits {
            size: usize::try_from(settings.max_size.0).unwrap_or(usize::MAX),
            time: settings.time.0,
            rule_time: settings.rule_time.0,
        }
    }
}

/// What has come of it.
#[derive(Debug)]
pub struct Done {
    /// What the rules say.
    pub report: Report,
    /// Set when answers to what they have asked could change something.
    pub waiting: Option<Waiting>,
    /// Processor time that it took.
    pub cpu: Duration,
}

/// A message for the rules.
#[derive(Debug)]
pub struct Job {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// The start of the message, no more than the rules may see.
    pub raw: Bytes,
    /// What Postfix will write before it.
    pub hop: Vec<u8>,
    /// Its time.
    pub now: Timestamp,
    /// What it may cost.
    pub limits: Limits,
    /// The scores of the rules at which what is done with the message changes; empty: all rules run.
    pub levels: Vec<f64>,
    /// What the rules have asked the network, and what is known of it.
    pub notebook: Notebook,
    /// Set when the rules have run before and some of them waited for answers.
    pub waiting: Option<Waiting>,
    /// The message as the rules see it, once it has been read.
    message: Option<Message>,
}

impl Job {
    /// The job for a message, the network not being asked.
    pub fn new(rules: Arc<RuleSet>, envelope: &Envelope, hostname: &str, raw: Bytes, limits: Limits) -> Job {
        let now = Timestamp::now();
        let hop = hop::lines(envelope, hostname, now, hop::newline(&raw));
        let notebook = Notebook::closed(envelope);
        Job { rules, raw, hop, now, limits, levels: Vec::new(), notebook, waiting: None, message: None }
    }

    /// Runs the rules, those that waited for answers when they have run before. Blocks.
    pub fn run(&mut self) -> Done {
        let begun = thread_time();
        let Checked { report, waiting } = self.check();
        Done { report, waiting, cpu: thread_time().saturating_sub(begun) }
    }

    fn check(&mut self) -> Checked {
        let read = || match self.hop.is_empty() {
            true => Message::parse(&self.raw),
            false => Message::parse(&[&self.hop, &self.raw[..]].concat()),
        };
        let message = &*self.message.get_or_insert_with(read);
        let clock = RuleClock::start();
        let time = || clock.now();
        let budget = Budget {
            clock: Some(&time),
            total: self.limits.time,
            rule: self.limits.rule_time,
            // Who asks for everything gets the costs, too.
            measure: if self.levels.is_empty() { 1 } else { Budget::default().measure },
            levels: &self.levels,
        };
        let environment = Environment { now: self.now.as_second() };
        match self.waiting.take() {
            None => self.rules.rules.begin(message, &environment, &self.notebook, budget),
            Some(waiting) => self.rules.rules.resume(waiting, message, &environment, &self.notebook, budget),
        }
    }
}
