// SPDX-License-Identifier: GPL-3.0-or-later
//! What is known of the score while rules run: what each rule can still count, what each meta can still be, and between which scores the
//! sum lies. A rule that nothing undecided depends on does not matter any more.

use super::Bound;
use super::run::{Run, place};
use crate::meta::Formula;
use crate::plan::{Traits, names_of};
use crate::range::{self, Range};
use crate::rule::{Rule, Test};

/// A score this close to a level counts as on both sides of it: sums of numbers differ by their order.
const MARGIN: f64 = 1e-6;

/// What is known of each rule while a message is checked.
#[derive(Debug, Clone)]
pub(super) struct State {
    levels: Vec<f64>,
    /// Per rule what its count can still be.
    counts: Vec<Range>,
    /// Per rule how many undecided metas that matter use it.
    users: Vec<u32>,
    /// Per rule what it adds, as far as it is in the bounds; made when they are first asked for.
    open: Option<Vec<Range>>,
    /// The sums of what all rules add, without what is infinite.
    bounds: Range,
    /// How many rules could lower the score without a limit, and raise it.
    unbounded: (u32, u32),
}

impl State {
    pub(super) fn new(run: &Run<'_>, levels: &[f64]) -> State {
        let mut counts = run.plan.first.clone();
        for rule in run.learnt.off(run.context.environment.now) {
            if let Some(slot) = counts.get_mut(rule) {
                *slot = Range::exactly(0.0);
            }
        }
        let bounds = Range::exactly(0.0);
        State {
            levels: levels.to_vec(),
            counts,
            users: run.plan.waiting_users.clone(),
            open: None,
            bounds,
            unbounded: (0, 0),
        }
    }

    pub(super) fn count(&self, id: u32) -> Range {
        self.counts.get(place(id)).copied().unwrap_or(Range::exactly(0.0))
    }

    /// Whether anything depends on a rule that is not decided.
    pub(super) fn matters(&self, run: &Run<'_>, id: u32) -> bool {
        !self.count(id).is_known() && (adds(run, id) || self.users.get(place(id)).is_some_and(|users| *users > 0))
    }

    /// Notes that a rule has run. One that waits for an answer is as undecided as before.
    pub(super) fn ran(&mut self, run: &Run<'_>, id: u32) {
        if !run.waits(id) {
            self.decided(run, id);
        }
    }

    /// Notes that nothing more will be known of a rule than its hits so far.
    fn decided(&mut self, run: &Run<'_>, id: u32) {
        if let Some(slot) = self.counts.get_mut(place(id)) {
            *slot = Range::exactly(run.count(id));
        }
        if self.open.is_some() && adds(run, id) {
            self.enter(run, id);
        }
    }

    /// Whether what has hit so far could be enough for an action of its own.
    pub(super) fn is_promising(&self, run: &Run<'_>) -> bool {
        let sum: f64 = (0u32..)
            .zip(&run.plan.adds)
            .zip(&run.counts)
            .filter(|((id, adds), count)| **count > 0.0 && **adds != 0.0 && self.count(*id).is_known())
            .map(|((_, adds), _)| *adds)
            .sum();
        let lowest = self.levels.iter().copied().fold(f64::INFINITY, f64::min);
        sum >= lowest
    }

    /// Looks at all metas, each after those it uses. Most use no rule that hits or could: what they count then has been found out beforehand.
    pub(super) fn metas(&mut self, run: &mut Run<'_>) {
        let mut stirred = vec![false; self.counts.len()];
        for ((users, count), traits) in run.plan.users.iter().zip(&self.counts).zip(&run.plan.traits) {
            if count.high != 0.0 && !traits.has(Traits::META) {
                stir(&mut stirred, users);
            }
        }
        for &id in &run.rules.metas {
            if self.count(id).is_known() {
                self.stir_users(run, &mut stirred, id);
                continue;
            }
            // Nothing that matters uses a meta that does not, and what it is made of has perhaps not been looked for.
            if !self.matters(run, id) {
                continue;
            }
            if stirred.get(place(id)).copied().unwrap_or(true) {
                self.meta(run, id);
                self.stir_users(run, &mut stirred, id);
            } else {
                self.quiet(run, id);
            }
        }
    }

    /// A meta of rules of which none hits.
    fn quiet(&mut self, run: &mut Run<'_>, id: u32) {
        let value = run.plan.quiet.get(place(id)).copied().unwrap_or(0.0);
        if let (Some(slot), Some(hits)) = (self.counts.get_mut(place(id)), run.counts.get_mut(place(id))) {
            (*slot, *hits) = (Range::exactly(value), value);
        }
        if self.open.is_some() && adds(run, id) {
            self.enter(run, id);
        }
    }

    /// Has the metas that use a meta looked at, unless it is as they take it to be.
    fn stir_users(&self, run: &Run<'_>, stirred: &mut [bool], id: u32) {
        let quiet = run.plan.quiet.get(place(id)).copied().unwrap_or(0.0);
        if self.count(id) != Range::exactly(quiet)
            && let Some(users) = run.plan.users.get(place(id))
        {
            stir(stirred, users);
        }
    }

    /// Looks at one meta; says whether more is known of it now.
    fn meta(&mut self, run: &mut Run<'_>, id: u32) -> bool {
        let Some(Rule { test: Test::Meta(formula), .. }) = run.rules.rules.get(place(id)) else { return false };
        let count = |rule: usize| self.counts.get(rule).copied().unwrap_or(Range::exactly(0.0));
        let Some(range) = range::of(formula.root(), &count).map(Range::as_count) else {
            return self.divided(run, id, formula);
        };
        let before = self.count(id);
        if range == before {
            return false;
        }
        if let Some(slot) = self.counts.get_mut(place(id)) {
            *slot = range;
        }
        if self.open.is_some() && adds(run, id) {
            self.enter(run, id);
        }
        if range.is_known() {
            if let Some(slot) = run.counts.get_mut(place(id)) {
                *slot = range.low;
            }
            self.forget_terms(run, id);
        }
        true
    }

    /// A meta that might divide by zero: it is decided only when all of its terms are.
    fn divided(&mut self, run: &mut Run<'_>, id: u32, formula: &Formula) -> bool {
        if !formula.rules().iter().all(|&rule| self.count(rule).is_known()) {
            return false;
        }
        let value = formula.value(|rule| self.counts.get(rule).map_or(0.0, |count| count.low)).unwrap_or(0.0);
        let count = Range::exactly(value).as_count();
        if let (Some(slot), Some(hits)) = (self.counts.get_mut(place(id)), run.counts.get_mut(place(id))) {
            (*slot, *hits) = (count, count.low);
        }
        if self.open.is_some() && adds(run, id) {
            self.enter(run, id);
        }
        self.forget_terms(run, id);
        true
    }

    /// The terms of a decided meta matter less; a meta that nothing undecided uses any more is given up with its terms.
    fn forget_terms(&mut self, run: &Run<'_>, id: u32) {
        let mut gone = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            for name in names_of(run.rules, id) {
                let Some(users) = self.users.get_mut(place(name)).filter(|users| **users > 0) else { continue };
                *users -= 1;
                if *users == 0 && is_meta(run, name) && !self.count(name).is_known() && !adds(run, name) {
                    gone.push(name);
                }
            }
            next = gone.pop();
        }
    }

    /// Tells the metas what is known of some rules now; says whether anything followed for the score.
    pub(super) fn spread(&mut self, run: &mut Run<'_>, news: &mut Vec<u32>) -> bool {
        let mut changed = news.iter().any(|&id| adds(run, id));
        while let Some(id) = news.pop() {
            for &user in run.plan.users.get(place(id)).into_iter().flatten() {
                if self.matters(run, user) && self.meta(run, user) {
                    changed |= adds(run, user);
                    news.push(user);
                }
            }
        }
        changed
    }

    /// What a rule adds, from the least to the most.
    fn adds(&self, run: &Run<'_>, id: u32) -> Range {
        let adds = run.plan.adds.get(place(id)).copied().unwrap_or(0.0);
        let count = self.count(id);
        match (run.plan.traits(id).has(Traits::EACH_HIT), count.low > 0.0) {
            _ if count.high == 0.0 => Range::exactly(0.0),
            (true, _) => Range { low: adds * count.low, high: adds * count.high }.upwards(),
            (false, true) => Range::exactly(adds),
            (false, false) => Range { low: adds.min(0.0), high: adds.max(0.0) },
        }
    }

    /// Enters what a rule adds now in place of what it was taken to add.
    fn enter(&mut self, run: &Run<'_>, id: u32) {
        let adds = self.adds(run, id);
        let Some(slot) = self.open.as_mut().and_then(|open| open.get_mut(place(id))) else { return };
        let before = std::mem::replace(slot, adds);
        let change = |sum: &mut f64, many: &mut u32, before: f64, now: f64| {
            if before.is_finite() {
                *sum -= before
            } else {
                *many = many.saturating_sub(1)
            }
            if now.is_finite() { *sum += now } else { *many += 1 }
        };
        change(&mut self.bounds.low, &mut self.unbounded.0, before.low, adds.low);
        change(&mut self.bounds.high, &mut self.unbounded.1, before.high, adds.high);
    }

    /// The least and the most that the score can be.
    fn bounds(&mut self, run: &Run<'_>) -> Range {
        if self.open.is_none() {
            self.open = Some(vec![Range::exactly(0.0); self.counts.len()]);
            for id in (0u32..).take(self.counts.len()) {
                if self.count(id).high != 0.0 && adds(run, id) {
                    self.enter(run, id);
                }
            }
        }
        Range {
            low: if self.unbounded.0 > 0 { f64::NEG_INFINITY } else { self.bounds.low },
            high: if self.unbounded.1 > 0 { f64::INFINITY } else { self.bounds.high },
        }
    }

    /// Whether all that the score can be lies between two levels.
    pub(super) fn is_settled(&mut self, run: &Run<'_>) -> bool {
        let bounds = self.bounds(run);
        self.levels.iter().all(|&level| bounds.high + MARGIN < level || bounds.low - MARGIN >= level)
    }

    /// The rules that matter and have not run, metas left out.
    pub(super) fn undecided<'r>(&'r self, run: &'r Run<'_>) -> impl Iterator<Item = u32> + 'r {
        let open = (0u32..).zip(&self.counts).filter(|(_, count)| !count.is_known()).map(|(id, _)| id);
        open.filter(|&id| self.matters(run, id) && !is_meta(run, id))
    }

    /// What has not been answered does not hit: so says the report, as long as no answer comes.
    fn give_up_waiting(&mut self, run: &mut Run<'_>) {
        for id in std::mem::take(&mut run.asked) {
            if self.matters(run, id) {
                self.decided(run, id);
                self.spread(run, &mut vec![id]);
            }
        }
    }

    /// Notes what is known of the score, and metas that are known to hit.
    pub(super) fn finish(mut self, run: &mut Run<'_>) {
        if !run.asked.is_empty() && !self.is_settled(run) {
            run.pause(Some(self.clone()));
            self.give_up_waiting(run);
        }
        let Range { low, high } = self.bounds(run);
        let left = self.undecided(run).count();
        for &id in &run.rules.metas {
            let count = self.count(id);
            if count.low > 0.0
                && !count.is_known()
                && let Some(slot) = run.counts.get_mut(place(id))
            {
                *slot = count.low;
            }
        }
        run.bound = Some(Bound { low, high, left });
    }
}

fn stir(stirred: &mut [bool], users: &[u32]) {
    for &user in users {
        if let Some(slot) = stirred.get_mut(place(user)) {
            *slot = true;
        }
    }
}

pub(super) fn is_meta(run: &Run<'_>, id: u32) -> bool {
    run.plan.traits(id).has(Traits::META)
}

fn adds(run: &Run<'_>, id: u32) -> bool {
    run.plan.adds.get(place(id)).is_some_and(|score| *score != 0.0)
}
