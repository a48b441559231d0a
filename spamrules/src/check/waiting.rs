// SPDX-License-Identifier: GPL-3.0-or-later
//! Going on when answers have come: what a run leaves behind that had to ask what the caller does not know yet, and the run that takes it up.
//!
//! Only the rules that asked run again, then the metas over them; everything else is as it was. While an answer is to come, its rule counts
//! as undecided, so that what is proven of the score holds whatever the answer is; in the report it has not hit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Report;
use super::account::{Account, Budget, Reason};
use super::run::{Run, Setting, place};
use super::schedule;
use super::state::State;
use crate::context::Context;

/// What the rules say about a message, and what it takes to go on.
#[derive(Debug)]
pub struct Checked {
    /// What they say if no answer comes: rules that wait for one have not hit.
    pub report: Report,
    /// Set when answers to come could change what the caller does: [`crate::Ruleset::resume`] goes on with them.
    pub waiting: Option<Waiting>,
}

/// A check in the middle: some rules wait for answers ([`crate::Answers::waiting`]).
#[derive(Debug)]
pub struct Waiting {
    counts: Vec<f64>,
    aside: BTreeMap<u32, Reason>,
    tags: BTreeMap<String, Vec<String>>,
    /// What rules have found, by their names.
    notes: Vec<(String, String)>,
    asked: BTreeSet<u32>,
    /// With levels.
    state: Option<State>,
    costs: Vec<Duration>,
    complete: bool,
    uris_missing: bool,
}

impl Waiting {
    /// How many rules wait.
    pub fn rules(&self) -> usize {
        self.asked.len()
    }
}

/// What an earlier part of the run has found, for who learns from the whole.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    pub(super) counts: Vec<f64>,
    pub(super) aside: BTreeSet<u32>,
    pub(super) incomplete: bool,
    pub(super) uris_missing: bool,
}

impl Run<'_> {
    /// Whether a rule has asked a question whose answer is to come.
    pub(super) fn waits(&self, id: u32) -> bool {
        self.asked.contains(&id)
    }

    /// What is needed to go on. `state` is that with levels.
    pub(super) fn pause(&mut self, state: Option<State>) {
        self.waiting = Some(Waiting {
            counts: self.counts.clone(),
            aside: self.aside.clone(),
            tags: self.context.tags(),
            notes: self.context.notes(),
            asked: self.asked.clone(),
            state,
            costs: Vec::new(),
            complete: true,
            uris_missing: false,
        });
    }

    /// The report, and what it takes to go on.
    pub(super) fn checked(mut self) -> Checked {
        let waiting = self.waiting.take();
        let report = self.report();
        let waiting = waiting.map(|waiting| Waiting {
            costs: report.costs.clone(),
            complete: report.complete,
            uris_missing: report.uris_missing,
            ..waiting
        });
        Checked { report, waiting }
    }
}

/// Runs the rules again that waited, and what depends on them.
pub(crate) fn resume<'a>(
    setting: Setting<'a>,
    context: &'a Context<'a>,
    budget: Budget<'a>,
    waiting: Waiting,
) -> Checked {
    let Waiting { counts, aside, tags, notes, asked, state, costs, complete, uris_missing } = waiting;
    context.set_tags(tags);
    context.set_notes(notes);
    let earlier =
        Earlier { counts: counts.clone(), aside: aside.keys().copied().collect(), incomplete: !complete, uris_missing };
    let known = Run::new(setting, context, Account::resumed(budget, costs));
    let mut run = Run { counts, aside, earlier: Some(earlier), ..known };
    match state {
        Some(state) => schedule::resume(&mut run, state, &asked),
        None => again(&mut run, &asked),
    }
    run.checked()
}

/// Without levels: the rules in the order of the first time, then all metas.
fn again(run: &mut Run<'_>, asked: &BTreeSet<u32>) {
    let rules = run.rules;
    for &id in rules.evals.iter().filter(|id| asked.contains(id)) {
        run.retry(id);
    }
    for &id in rules.circular.iter().chain(&rules.metas) {
        if let Some(count) = run.counts.get_mut(place(id)) {
            *count = 0.0;
        }
    }
    run.finish_all();
}
