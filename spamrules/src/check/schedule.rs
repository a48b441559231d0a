// SPDX-License-Identifier: GPL-3.0-or-later
//! Only what can still change the action: rules run until it is proven between which levels the score will be, whatever the others say.
//!
//! Everything is cheap that shows for many rules at once that they cannot hit: headers first, then one search for literals and skeletons
//! over each text. What remains runs one by one: rules that can lower the score, then the others by what they give for their cost.
//! What is known meanwhile is in [`State`].

use std::collections::BTreeSet;

use super::run::{Run, batches, place, skips_subject, slices};
use super::state::{State, is_meta};
use crate::conf::build::Group;
use crate::learnt::Order;
use crate::plan::Traits;
use crate::rule::{Matcher, Rule, Test};

/// So many rules run before metas are told what came of them: a meta of many rules is then looked at less often.
const NEWS: usize = 4;
/// Rules and texts that are noted together.
const MAX_PLACES: usize = 100_000;

/// What a run with levels is made of.
struct Schedule {
    state: State,
    /// Per rule over a text the texts that it could match; only those of rules that are not decided.
    places: Places,
}

/// Texts by rule, noted in any order of the rules: each rule has a chain through one list.
struct Places {
    /// Per rule its first and its last link, counted from 1.
    ends: Vec<(u32, u32)>,
    /// Texts, each with the next link of its rule.
    links: Vec<(u32, u32)>,
    /// There was too much to note.
    is_full: bool,
}

/// Runs rules until the score is known well enough.
pub(super) fn run(run: &mut Run<'_>, levels: &[f64]) {
    let mut schedule = Schedule { state: State::new(run, levels), places: Places::new(run.rules.rules.len()) };
    run.captures();
    run.headers();
    schedule.headers_done(run);
    let order = run.learnt.order(run.plan);
    if schedule.by_headers(run, &order) && !run.account.is_over() {
        schedule.texts(run);
        schedule.state.metas(run);
        let left = order.sort(schedule.state.undecided(run));
        let _ = schedule.one_by_one(run, &left, Traits::LOWERS, true)
            && schedule.one_by_one(run, &left, Traits::default(), true);
    } else {
        schedule.state.metas(run);
    }
    schedule.state.finish(run);
}

/// Goes on when answers have come: only rules that waited for them run, then what depends on them is known.
pub(super) fn resume(run: &mut Run<'_>, mut state: State, asked: &BTreeSet<u32>) {
    for &id in asked {
        if state.matters(run, id) {
            run.retry(id);
            state.ran(run, id);
            state.spread(run, &mut vec![id]);
        }
    }
    state.finish(run);
}

impl Schedule {
    /// Runs rules on the header that can lower the score, and all of them where the hits of headers alone could be enough: only then metas are
    /// looked at, without which nothing is proven. What can be decided only by running it else waits until texts have excluded much. Says
    /// whether to go on.
    fn by_headers(&mut self, run: &mut Run<'_>, order: &Order) -> bool {
        let is_promising = self.state.is_promising(run);
        if is_promising {
            self.state.metas(run);
        }
        let lowering = Traits::HEADER.and(Traits::LOWERS);
        self.one_by_one(run, &order.headers, lowering, is_promising)
            && (!is_promising || self.one_by_one(run, &order.headers, Traits::HEADER, true))
    }

    fn headers_done(&mut self, run: &Run<'_>) {
        run.rules.captures.iter().for_each(|&id| self.state.ran(run, id));
        for header in &run.rules.headers {
            header.always.iter().chain(&header.group.rules).for_each(|&id| self.state.ran(run, id));
        }
    }

    /// Searches each kind of text once; what is not in them excludes most rules.
    fn texts(&mut self, run: &mut Run<'_>) {
        let rules = run.rules;
        let context = run.context;
        self.group(run, &rules.full, &[context.message.raw()]);
        self.group(run, &rules.body, &slices(&context.texts().body));
        self.group(run, &rules.rawbody, &slices(&context.texts().rawbody));
        self.group(run, &rules.uri, &slices(&context.uris().list));
    }

    fn group(&mut self, run: &mut Run<'_>, group: &Group, texts: &[&[u8]]) {
        let mut possible = vec![false; group.rules.len()];
        let mut mark = |at: u32| {
            if let Some(slot) = possible.get_mut(place(at)) {
                *slot = true;
            }
        };
        let mut seen = std::mem::take(&mut run.seen);
        for (begin, texts) in batches(texts) {
            for &(candidate, number) in group.index.filter(texts, &mut seen) {
                let Some(&id) = group.rules.get(place(candidate)) else { continue };
                if self.state.matters(run, id) {
                    mark(candidate);
                    self.places.note(id, begin + number);
                }
            }
        }
        run.seen = seen;
        if !texts.is_empty() {
            group.index.always().iter().for_each(|&candidate| mark(candidate));
        }
        for (&id, possible) in group.rules.iter().zip(possible) {
            if !possible && !self.state.count(id).is_known() {
                self.state.ran(run, id);
            }
        }
    }

    /// Runs those of some rules that have all the traits until the score is settled; says whether to go on. It can be settled only once metas
    /// are known.
    fn one_by_one(&mut self, run: &mut Run<'_>, rules: &[u32], traits: Traits, metas_known: bool) -> bool {
        if metas_known && self.state.is_settled(run) {
            return false;
        }
        let mut news = Vec::with_capacity(NEWS);
        for &id in rules {
            if !run.plan.traits(id).has(traits) || !self.state.matters(run, id) || is_meta(run, id) || run.waits(id) {
                continue;
            }
            self.one(run, id);
            self.state.ran(run, id);
            news.push(id);
            if run.account.is_over() {
                return false;
            }
            if metas_known && news.len() >= NEWS && self.state.spread(run, &mut news) && self.state.is_settled(run) {
                return false;
            }
        }
        !(metas_known && self.state.spread(run, &mut news) && self.state.is_settled(run))
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
        let mut noted = self.places.of(id).map(place).peekable();
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
}

impl Places {
    fn new(rules: usize) -> Places {
        Places { ends: vec![(0, 0); rules], links: Vec::new(), is_full: false }
    }

    /// Notes that a rule could match a text. When there is too much to note, rules look at all texts.
    fn note(&mut self, id: u32, text: u32) {
        self.is_full |= self.links.len() >= MAX_PLACES;
        let Some((first, last)) = self.ends.get_mut(place(id)).filter(|_| !self.is_full) else { return };
        let Ok(link) = u32::try_from(self.links.len() + 1) else { return };
        match self.links.get_mut(place(*last).wrapping_sub(1)) {
            Some((_, next)) => *next = link,
            None => *first = link,
        }
        *last = link;
        self.links.push((text, 0));
    }

    /// The texts of a rule, in the order in which they were noted.
    fn of(&self, id: u32) -> impl Iterator<Item = u32> {
        let at = |link: u32| self.links.get(place(link).wrapping_sub(1));
        let first = self.ends.get(place(id)).filter(|_| !self.is_full).and_then(|(first, _)| at(*first));
        std::iter::successors(first, move |(_, next)| at(*next)).map(|(text, _)| *text)
    }
}
