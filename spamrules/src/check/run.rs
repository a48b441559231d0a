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
    let measured = setting.learnt.measures(budget.measure);
    let account = Account::new(budget, measured, setting.rules.rules.len());
    let mut run = Run::new(setting, context, account);
    if budget.levels.is_empty() || !setting.plan.can_bound {
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

/// So many bytes of text are looked through before rules are tried on them: what is noted of them is bounded, and the texts stay in the caches.
const BATCH: usize = 64 << 10;

/// The texts in batches, each with the number of its first one.
pub(super) fn batches<'s, 't>(texts: &'s [&'t [u8]]) -> impl Iterator<Item = (u32, &'s [&'t [u8]])> {
    let mut begin = 0;
    std::iter::from_fn(move || {
        let rest = texts.get(begin..).filter(|rest| !rest.is_empty())?;
        let mut size = 0;
        let fitting = rest.iter().take_while(|text| {
            size += text.len() + 1;
            size <= BATCH
        });
        let batch = rest.get(..fitting.count().max(1))?;
        let number = u32::try_from(begin).ok()?;
        begin += batch.len();
        Some((number, batch))
    })
}

pub(super) fn slices(texts: &[Vec<u8>]) -> Vec<&[u8]> {
    texts.iter().map(Vec::as_slice).collect()
}

/// A count as metas see it.
fn number(count: u32) -> f64 {
    f64::from(count)
}

impl<'a> Run<'a> {
    /// A run of which nothing is known yet.
    pub(super) fn new(setting: Setting<'a>, context: &'a Context<'a>, account: Account<'a>) -> Run<'a> {
        let Setting { rules, scores, options, plan, learnt, all_scores, required } = setting;
        Run {
            rules,
            scores,
            options,
            plan,
            learnt,
            all_scores,
            required,
            context,
            counts: vec![0.0; rules.rules.len()],
            aside: BTreeMap::new(),
            account,
            bound: None,
            seen: Seen::default(),
            asked: BTreeSet::new(),
            waiting: None,
            earlier: None,
        }
    }

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
    pub(super) fn group(&mut self, group: &'a Group, texts: &[&[u8]]) {
        let mut seen = std::mem::take(&mut self.seen);
        for (begin, texts) in batches(texts) {
            let found = group.index.filter(texts, &mut seen);
            self.account.skip();
            for &candidate in group.index.always() {
                (0u32..).zip(texts).for_each(|(number, text)| self.candidate(group, candidate, begin + number, text));
            }
            for &(candidate, number) in found {
                if let Some(text) = texts.get(place(number)) {
                    self.candidate(group, candidate, begin + number, text);
                }
            }
            if self.account.is_over() {
                break;
            }
        }
        self.seen = seen;
    }

    /// Tries a rule on a text that it could match.
    fn candidate(&mut self, group: &'a Group, candidate: u32, number: u32, text: &[u8]) {
        let Some(&id) = group.rules.get(place(candidate)) else { return };
        let Some(rule) = self.active(id).filter(|rule| number > 0 || !skips_subject(rule)) else { return };
        if let Some(pattern) = rule.pattern().filter(|_| !self.account.is_over()) {
            self.search(id, rule, pattern, text);
        }
    }

    fn texts(&mut self) {
        let rules = self.rules;
        let context = self.context;
        self.group(&rules.full, &[context.message.raw()]);
        self.group(&rules.body, &slices(&context.texts().body));
        self.group(&rules.rawbody, &slices(&context.texts().rawbody));
        self.group(&rules.uri, &slices(&context.uris().list));
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
            self.group(&header.group, &[value.as_deref().unwrap_or_default()]);
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
            let Test::Meta(formula) = &rule.test else { continue };
            let blocked = formula.rules().iter().any(|&name| never.get(place(name)).copied().unwrap_or(false));
            if blocked || self.active(id).is_none() {
                if let Some(slot) = never.get_mut(place(id)) {
                    *slot = true;
                }
                continue;
            }
            let value = formula.value(|rule| self.counts.get(rule).copied().unwrap_or(0.0)).unwrap_or(0.0);
            if value != 0.0
                && let Some(slot) = self.counts.get_mut(place(id))
            {
                *slot = if value > 0.0 { value } else { 1.0 };
            }
        }
    }
}
