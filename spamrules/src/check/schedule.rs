// SPDX-License-Identifier: GPL-3.0-or-later
//! Only what can still change the action: rules run until it is proven between which levels the score will be, whatever the others say.
//!
//! Everything is cheap that shows for many rules at once that they cannot hit: headers first, then one search for literals and skeletons
//! over each text. What remains runs one by one: rules that can lower the score, then the others by what they give for their cost.
//! A rule that nothing undecided depends on does not run at all.

use std::collections::BTreeSet;

use super::Bound;
use super::run::{Run, place, skips_subject};
use crate::conf::build::Group;
use crate::plan::names_of;
use crate::range::{self, Range};
use crate::rule::{EvalKind, Matcher, Rule, Test};

/// A score this close to a level counts as on both sides of it: sums of numbers differ by their order.
const MARGIN: f64 = 1e-6;

/// Which rules run in a stage.
type Stage = fn(&Run<'_>, u32) -> bool;

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
    /// Per rule over a text the texts that it could match; only those of rules that are not decided.
    places: Vec<(u32, u32)>,
}

/// Runs rules until the score is known well enough.
pub(super) fn run(run: &mut Run<'_>, levels: &[f64]) {
    let mut state = State::new(run, levels);
    run.captures();
    state.captured(run);
    run.headers();
    state.headers_done(run);
    let mut order: Vec<u32> = run.learnt.order(run.plan).to_vec();
    let stages: [Stage; 4] = [|run, id| lowers(run, id) && reads_header(run, id), reads_header, lowers, |_, _| true];
    // Metas are looked at as soon as the hits of headers alone could be enough, and in any case when all texts have been searched.
    let mut metas_known = state.is_promising(run) && state.metas(run);
    for (number, belongs) in stages.into_iter().enumerate() {
        if number == 2 {
            state.texts(run);
            metas_known = state.metas(run);
            order.retain(|&id| state.matters(run, id) && !is_meta(run, id));
        } else if number == 1 && !metas_known {
            // Without texts nothing can be proven: what can be decided only by running it waits until texts have excluded much.
            continue;
        }
        if metas_known && state.is_settled(run) {
            break;
        }
        if !state.one_by_one(run, &order, belongs, metas_known) {
            break;
        }
    }
    state.finish(run, metas_known);
}

/// Goes on when answers have come: only rules that waited for them run, then what depends on them is known.
pub(super) fn resume(run: &mut Run<'_>, mut state: State, asked: &BTreeSet<u32>) {
    for &id in asked {
        if state.matters(run, id) {
            run.retry(id);
            state.ran(run, id);
            state.spread(run, id);
        }
    }
    state.finish(run, true);
}

fn lowers(run: &Run<'_>, id: u32) -> bool {
    run.plan.lowers.get(place(id)).copied().unwrap_or(false)
}

/// Whether a rule reads nothing but the header.
fn reads_header(run: &Run<'_>, id: u32) -> bool {
    run.rules.rules.get(place(id)).is_some_and(|rule| match rule.test {
        Test::Header { .. } | Test::Exists { .. } => true,
        Test::Eval { kind, .. } => matches!(kind, EvalKind::Header | EvalKind::Dns),
        _ => false,
    })
}

impl State {
    fn new(run: &Run<'_>, levels: &[f64]) -> State {
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
            places: Vec::new(),
        }
    }

    fn count(&self, id: u32) -> Range {
        self.counts.get(place(id)).copied().unwrap_or(Range::exactly(0.0))
    }

    /// Whether anything depends on a rule that is not decided.
    fn matters(&self, run: &Run<'_>, id: u32) -> bool {
        !self.count(id).is_known() && (adds(run, id) || self.users.get(place(id)).is_some_and(|users| *users > 0))
    }

    /// Notes that a rule has run. One that waits for an answer is as undecided as before.
    fn ran(&mut self, run: &Run<'_>, id: u32) {
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

    fn captured(&mut self, run: &Run<'_>) {
        run.rules.captures.iter().for_each(|&id| self.ran(run, id));
    }

    fn headers_done(&mut self, run: &Run<'_>) {
        for header in &run.rules.headers {
            header.always.iter().chain(&header.group.rules).for_each(|&id| self.ran(run, id));
        }
    }

    /// Whether what has hit so far could be enough for an action of its own.
    fn is_promising(&self, run: &Run<'_>) -> bool {
        let sum: f64 = (0u32..)
            .zip(&run.plan.adds)
            .filter(|(id, adds)| **adds != 0.0 && self.count(*id).is_known() && run.count(*id) > 0.0)
            .map(|(_, adds)| *adds)
            .sum();
        let lowest = self.levels.iter().copied().fold(f64::INFINITY, f64::min);
        sum >= lowest
    }

    /// Searches each kind of text once; what is not in them excludes most rules.
    fn texts(&mut self, run: &mut Run<'_>) {
        let rules = run.rules;
        let context = run.context;
        self.group(run, &rules.full, std::iter::once(context.message.raw()));
        self.group(run, &rules.body, context.texts().body.iter().map(Vec::as_slice));
        self.group(run, &rules.rawbody, context.texts().rawbody.iter().map(Vec::as_slice));
        self.group(run, &rules.uri, context.uris().list.iter().map(Vec::as_slice));
        self.places.sort_unstable();
    }

    fn group<'t>(&mut self, run: &mut Run<'_>, group: &Group, texts: impl Iterator<Item = &'t [u8]>) {
        let mut possible = vec![false; group.rules.len()];
        let mut mark = |at: u32| {
            if let Some(slot) = possible.get_mut(place(at)) {
                *slot = true;
            }
        };
        let mut empty = true;
        let mut seen = std::mem::take(&mut run.seen);
        for (number, text) in (0u32..).zip(texts) {
            empty = false;
            for candidate in group.index.filtered(text, &mut seen) {
                let Some(&id) = group.rules.get(place(candidate)) else { continue };
                if self.matters(run, id) {
                    mark(candidate);
                    self.places.push((id, number));
                }
            }
        }
        run.seen = seen;
        if !empty {
            group.index.always().iter().for_each(|&candidate| mark(candidate));
        }
        for (&id, possible) in group.rules.iter().zip(possible) {
            if !possible && !self.count(id).is_known() {
                self.ran(run, id);
            }
        }
    }

    /// Looks at all metas, each after those it uses.
    fn metas(&mut self, run: &mut Run<'_>) -> bool {
        for &id in &run.rules.metas {
            if self.matters(run, id) {
                self.meta(run, id);
            }
        }
        true
    }

    /// Looks at one meta; says whether more is known of it now.
    fn meta(&mut self, run: &mut Run<'_>, id: u32) -> bool {
        let Some(Rule { test: Test::Meta { expression, names }, .. }) = run.rules.rules.get(place(id)) else {
            return false;
        };
        let name = |at: usize| names.get(at).copied().flatten().map_or(Range::exactly(0.0), |name| self.count(name));
        let Some(range) = range::of(expression.root(), &name).map(Range::as_count) else {
            return self.divided(run, id);
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
    fn divided(&mut self, run: &mut Run<'_>, id: u32) -> bool {
        let Some(Rule { test: Test::Meta { expression, names }, .. }) = run.rules.rules.get(place(id)) else {
            return false;
        };
        let terms = || names.iter().map(|name| name.map_or(Range::exactly(0.0), |name| self.count(name)));
        if !terms().all(Range::is_known) {
            return false;
        }
        let values: Vec<f64> = terms().map(|term| term.low).collect();
        let value = expression.value(&|at| values.get(at).copied().unwrap_or(0.0)).unwrap_or(0.0);
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
        let mut gone = vec![id];
        while let Some(id) = gone.pop() {
            for name in names_of(run.rules, id) {
                let Some(users) = self.users.get_mut(place(name)).filter(|users| **users > 0) else { continue };
                *users -= 1;
                if *users == 0 && is_meta(run, name) && !self.count(name).is_known() && !adds(run, name) {
                    gone.push(name);
                }
            }
        }
    }

    /// Runs the rules that belong to a stage until the score is settled; says whether to go on.
    fn one_by_one(&mut self, run: &mut Run<'_>, order: &[u32], belongs: Stage, metas_known: bool) -> bool {
        for &id in order {
            if !self.matters(run, id) || is_meta(run, id) || run.waits(id) || !belongs(run, id) {
                continue;
            }
            self.one(run, id);
            self.ran(run, id);
            if run.account.is_over() || (metas_known && self.spread(run, id) && self.is_settled(run)) {
                return false;
            }
        }
        true
    }

    /// Runs one rule.
    fn one(&mut self, run: &mut Run<'_>, id: u32) {
        let Some(rule) = run.active(id) else { return };
        let context = run.context;
        match &rule.test {
            Test::Eval { .. } => run.eval(id),
            Test::MimeHeader { .. } => run.mime_header(id),
            Test::Full(Matcher::Fixed(_)) => self.search(run, id, rule, &[context.message.raw()]),
            Test::Body(Matcher::Fixed(_)) => self.search(run, id, rule, &context.texts().body),
            Test::Rawbody(Matcher::Fixed(_)) => self.search(run, id, rule, &context.texts().rawbody),
            Test::Uri(Matcher::Fixed(_)) => self.search(run, id, rule, &context.uris().list),
            _ => run.template(id),
        }
    }

    /// Searches the texts that a rule could match: those noted, or all when none were.
    fn search<'a, T: AsRef<[u8]>>(&self, run: &mut Run<'a>, id: u32, rule: &'a Rule, texts: &[T]) {
        let Some(pattern) = rule.pattern() else { return };
        let begin = self.places.partition_point(|(known, _)| *known < id);
        let noted = self.places.get(begin..).unwrap_or_default().iter().take_while(|(known, _)| *known == id);
        let mut noted = noted.map(|(_, text)| place(*text)).peekable();
        let all = if noted.peek().is_none() { 0..texts.len() } else { 0..0 };
        run.account.skip();
        for number in noted.chain(all) {
            if run.active(id).is_none() || run.account.is_over() {
                break;
            }
            if let Some(text) = texts.get(number).filter(|_| number > 0 || !skips_subject(rule)) {
                run.search(id, rule, pattern, text.as_ref());
            }
        }
    }

    /// Tells the metas what is known of a rule now; says whether anything followed for the score.
    fn spread(&mut self, run: &mut Run<'_>, id: u32) -> bool {
        let mut changed = adds(run, id);
        let mut known = vec![id];
        while let Some(id) = known.pop() {
            for &user in run.plan.users.get(place(id)).into_iter().flatten() {
                if self.matters(run, user) && self.meta(run, user) {
                    changed |= adds(run, user);
                    known.push(user);
                }
            }
        }
        changed
    }

    /// What a rule adds, from the least to the most.
    fn adds(&self, run: &Run<'_>, id: u32) -> Range {
        let adds = run.plan.adds.get(place(id)).copied().unwrap_or(0.0);
        let count = self.count(id);
        let counts = run.rules.rules.get(place(id)).is_some_and(Rule::adds_each_hit);
        match (counts, count.low > 0.0) {
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
            (0u32..).take(self.counts.len()).filter(|&id| adds(run, id)).for_each(|id| self.enter(run, id));
        }
        Range {
            low: if self.unbounded.0 > 0 { f64::NEG_INFINITY } else { self.bounds.low },
            high: if self.unbounded.1 > 0 { f64::INFINITY } else { self.bounds.high },
        }
    }

    /// Whether all that the score can be lies between two levels.
    fn is_settled(&mut self, run: &Run<'_>) -> bool {
        let bounds = self.bounds(run);
        self.levels.iter().all(|&level| bounds.high + MARGIN < level || bounds.low - MARGIN >= level)
    }

    /// What has not been answered does not hit: so says the report, as long as no answer comes.
    fn give_up_waiting(&mut self, run: &mut Run<'_>) {
        for id in std::mem::take(&mut run.asked) {
            if self.matters(run, id) {
                self.decided(run, id);
                self.spread(run, id);
            }
        }
    }

    /// Notes what is known of the score, and metas that are known to hit.
    fn finish(mut self, run: &mut Run<'_>, metas_known: bool) {
        if !metas_known {
            self.metas(run);
        }
        if !run.asked.is_empty() && !self.is_settled(run) {
            run.pause(Some(self.clone()));
            self.give_up_waiting(run);
        }
        let Range { low, high } = self.bounds(run);
        let left = (0u32..).take(self.counts.len()).filter(|&id| self.matters(run, id) && !is_meta(run, id)).count();
        for &id in &run.rules.metas {
            let count = self.count(id);
            let known = count.low;
            if known > 0.0
                && !count.is_known()
                && let Some(slot) = run.counts.get_mut(place(id))
            {
                *slot = known;
            }
        }
        run.bound = Some(Bound { low, high, left });
    }
}

fn is_meta(run: &Run<'_>, id: u32) -> bool {
    run.rules.rules.get(place(id)).is_some_and(|rule| matches!(rule.test, Test::Meta { .. }))
}

fn adds(run: &Run<'_>, id: u32) -> bool {
    run.plan.adds.get(place(id)).is_some_and(|score| *score != 0.0)
}
