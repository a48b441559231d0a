// SPDX-License-Identifier: GPL-3.0-or-later
//! One run over one message. What a run knows is in [`Run`]; how one rule is tried is in `rule`, what the hits say in `report`.
//!
//! Without levels everything runs, stage by stage; with levels [`super::schedule`] decides.

use std::collections::{BTreeMap, BTreeSet};

use super::account::{Account, Budget, Reason};
use super::schedule;
use super::waiting::{Earlier, Waiting};
use super::{Bound, Checked};
use crate::conf::Options;
use crate::conf::build::{Group, Rules};
use crate::context::Context;
use crate::headers;
use crate::learnt::Learnt;
use crate::plan::Plan;
use crate::regexes::{Exhausted, Seen};
use crate::rule::{Rule, Test};
use crate::scores::Scores;

/// What a run is made of, beside the message.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) scores: &'a [f64],
    pub(crate) options: &'a Options,
    pub(crate) plan: &'a Plan,
    pub(crate) learnt: &'a Learnt,
    pub(crate) all_scores: &'a [Scores],
    pub(crate) required: f64,
}

/// The state of a run.
pub(super) struct Run<'a> {
    pub(super) rules: &'a Rules,
    pub(super) scores: &'a [f64],
    pub(super) options: &'a Options,
    pub(super) plan: &'a Plan,
    pub(super) learnt: &'a Learnt,
    pub(super) all_scores: &'a [Scores],
    pub(super) required: f64,
    pub(super) context: &'a Context<'a>,
    pub(super) counts: Vec<f64>,
    pub(super) aside: BTreeMap<u32, Reason>,
    pub(super) account: Account<'a>,
    pub(super) bound: Option<Bound>,
    pub(super) seen: Seen,
    /// Rules that have asked a question whose answer is to come.
    pub(super) asked: BTreeSet<u32>,
    /// What it takes to go on when it has come.
    pub(super) waiting: Option<Waiting>,
    /// What was known before this run went on.
    pub(super) earlier: Option<Earlier>,
}

/// Runs all rules with a score other than 0, or as many as it takes to know between which levels the score is.
pub(crate) fn run<'a>(setting: Setting<'a>, context: &'a Context<'a>, budget: Budget<'a>) -> Checked {
    let Setting { rules, scores, options, plan, learnt, all_scores, required } = setting;
    let size = rules.rules.len();
    let mut run = Run {
        rules,
        scores,
        options,
        plan,
        learnt,
        all_scores,
        required,
        context,
        counts: vec![0.0; size],
        aside: BTreeMap::new(),
        account: Account::new(budget, learnt.measures(budget.measure), size),
        bound: None,
        seen: Seen::default(),
        asked: BTreeSet::new(),
        waiting: None,
        earlier: None,
    };
    if budget.levels.is_empty() || !plan.can_bound {
        run.everything();
    } else {
        schedule::run(&mut run, budget.levels);
    }
    run.checked()
}

/// Whether a rule leaves the subject out, which is the first text of the body.
pub(super) fn skips_subject(rule: &Rule) -> bool {
    rule.flags.no_subject && matches!(rule.test, Test::Body(_))
}

pub(super) fn place(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

/// A count as metas see it.
fn number(count: u32) -> f64 {
    f64::from(count)
}

impl<'a> Run<'a> {
    fn everything(&mut self) {
        for stage in [Run::captures, Run::headers, Run::texts, Run::mime_headers, Run::templates, Run::evals] {
            if !self.account.is_over() {
                stage(self);
            }
        }
        self.finish_all();
    }

    /// The end of a run of everything: metas, and what it takes to go on.
    pub(super) fn finish_all(&mut self) {
        self.metas();
        if !self.asked.is_empty() {
            self.pause(None);
        }
    }

    /// The rule, if it is to run: it has a score, has not been given up, and is not switched off.
    pub(super) fn active(&self, id: u32) -> Option<&'a Rule> {
        let rule = self.rules.rules.get(place(id))?;
        let scored = self.scores.get(place(id)).is_some_and(|score| *score != 0.0);
        let given_up = (!self.aside.is_empty() && self.aside.contains_key(&id))
            || self.learnt.is_off(place(id), self.context.environment.now);
        (scored && !given_up).then_some(rule)
    }

    pub(super) fn count(&self, id: u32) -> f64 {
        self.counts.get(place(id)).copied().unwrap_or(0.0)
    }

    pub(super) fn add(&mut self, id: u32, count: u32) {
        if count == 0 {
            return;
        }
        if let Some(slot) = self.counts.get_mut(place(id)) {
            *slot += number(count);
        }
    }

    /// Charges a rule for what it has done and notes its hits.
    pub(super) fn settle(&mut self, id: u32, found: Result<u32, Exhausted>) {
        let too_slow = self.account.charge(place(id));
        match found {
            Ok(count) => self.add(id, count),
            Err(Exhausted) => {
                self.aside.insert(id, Reason::Steps);
            }
        }
        if too_slow {
            self.aside.entry(id).or_insert(Reason::Time);
        }
    }

    /// Runs a group over texts. The first one is the subject for rules that leave it out.
    pub(super) fn group<'t>(&mut self, group: &'a Group, texts: impl Iterator<Item = &'t [u8]>) {
        let mut seen = std::mem::take(&mut self.seen);
        for (number, text) in texts.enumerate() {
            self.account.skip();
            for candidate in group.index.candidates(text, &mut seen) {
                let Some(&id) = group.rules.get(place(candidate)) else { continue };
                let Some(rule) = self.active(id) else { continue };
                if number == 0 && skips_subject(rule) {
                    continue;
                }
                if let Some(pattern) = rule.pattern() {
                    self.search(id, rule, pattern, text);
                }
            }
            if self.account.is_over() {
                break;
            }
        }
        self.seen = seen;
    }

    fn texts(&mut self) {
        let rules = self.rules;
        let context = self.context;
        self.group(&rules.full, std::iter::once(context.message.raw()));
        self.group(&rules.body, context.texts().body.iter().map(Vec::as_slice));
        self.group(&rules.rawbody, context.texts().rawbody.iter().map(Vec::as_slice));
        self.group(&rules.uri, context.uris().list.iter().map(Vec::as_slice));
    }

    pub(super) fn headers(&mut self) {
        let rules = self.rules;
        let context = self.context;
        for header in &rules.headers {
            let value = headers::get(context, &header.selector);
            self.account.skip();
            for &id in &header.always {
                if let Some(rule) = self.active(id) {
                    self.header(id, rule, value.as_deref());
                }
            }
            self.group(&header.group, std::iter::once(value.as_deref().unwrap_or_default()));
        }
    }

    fn mime_headers(&mut self) {
        let rules = self.rules;
        rules.mime_headers.iter().for_each(|&id| self.mime_header(id));
    }

    pub(super) fn captures(&mut self) {
        let rules = self.rules;
        rules.captures.iter().for_each(|&id| self.capture(id));
    }

    fn templates(&mut self) {
        let rules = self.rules;
        rules.templates.iter().for_each(|&id| self.template(id));
    }

    fn evals(&mut self) {
        let rules = self.rules;
        for &id in &rules.evals {
            self.eval(id);
            if self.account.is_over() {
                return;
            }
        }
    }

    /// Metas, each after those it depends on. One that depends on a meta that never runs, because its score is 0, does not run either:
    /// SpamAssassin 4.0 waits for such a meta until the end.
    fn metas(&mut self) {
        let rules = self.rules;
        let mut never = vec![false; rules.rules.len()];
        for &id in rules.circular.iter().chain(&rules.metas) {
            let Some(rule) = rules.rules.get(place(id)) else { continue };
            let Test::Meta { expression, names } = &rule.test else { continue };
            let blocked = names.iter().flatten().any(|&name| never.get(place(name)).copied().unwrap_or(false));
            if blocked || self.active(id).is_none() {
                if let Some(slot) = never.get_mut(place(id)) {
                    *slot = true;
                }
                continue;
            }
            let of = |at: usize| names.get(at).copied().flatten().map_or(0.0, |name| self.count(name));
            let value = expression.value(&of).unwrap_or(0.0);
            if value != 0.0
                && let Some(slot) = self.counts.get_mut(place(id))
            {
                *slot = if value > 0.0 { value } else { 1.0 };
            }
        }
    }
}
