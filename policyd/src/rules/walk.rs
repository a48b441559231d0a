// SPDX-License-Identifier: GPL-3.0-or-later
//! One request on its way through the rules, from the first to the one that ends the list.
//!
//! Pure: a state machine that says what it needs to go on. It asks for a look-up only when a rule cannot be decided without it, so
//! rules after the one that ends the list cost nothing, nor do look-ups in a condition that is false anyway.

use std::cell::Cell;

use super::expression::{Fact, Moment, Scene};
use super::need::Need;
use super::prefilter::Scans;
use super::{Action, Rule, Rules};
use crate::request::PolicyRequest;

/// What comes next.
#[derive(Debug)]
pub enum Step<'r> {
    /// This has to be looked up, and be given to [`Walk::learn`].
    Need(usize, &'r Need),
    /// The rule at this place matches; its actions are due, unless it is a shadow.
    Matched(usize, &'r Rule),
    /// The rule at this place does not match. Told only on request.
    Passed(usize, &'r Rule),
    /// Whether the rule at this place matches cannot be told, so it does not.
    Untold(usize, &'r Rule),
    /// No more rules.
    End,
}

/// A request on its way.
#[derive(Debug)]
pub struct Walk<'r> {
    rules: &'r Rules,
    next: usize,
    tags: u64,
    known: Vec<Option<Fact>>,
    scans: Scans<'r>,
    tells_all: bool,
}

impl<'r> Walk<'r> {
    /// At the first rule. With `tells_all` rules that do not match are told too.
    pub fn new(rules: &'r Rules, tells_all: bool) -> Self {
        // Without look-ups and patterns nothing is allocated.
        let (known, scans) = (vec![None; rules.needs.len()], rules.filters.room());
        Self { rules, next: 0, tags: 0, known, scans, tells_all }
    }

    /// What was looked up.
    pub fn learn(&mut self, number: usize, fact: Fact) {
        if let Some(known) = self.known.get_mut(number) {
            *known = Some(fact);
        }
    }

    /// Goes on to the next rule that says something. The request is the same each time.
    pub fn step(&mut self, request: &PolicyRequest<'_>, moment: Moment) -> Step<'r> {
        while let Some(rule) = self.rules.list.get(self.next) {
            let (place, missing) = (self.next, Cell::new(None));
            let (known, tags, scans) = (&self.known, self.tags, &self.scans);
            let scene = Scene { request, moment, known, tags, scans, missing: &missing };
            let truth = rule.when.holds(&scene);
            if let (None, Some(number)) = (truth, missing.get())
                && let Some(need) = self.rules.needs.get(number)
            {
                return Step::Need(number, need);
            }
            self.next += 1;
            match truth {
                Some(true) => return Step::Matched(place, rule),
                None => return Step::Untold(place, rule),
                Some(false) if self.tells_all => return Step::Passed(place, rule),
                Some(false) => {}
            }
        }
        Step::End
    }

    /// Does those actions of a rule that matched which are about the list itself; to be called with the rule, after its others.
    pub fn follow(&mut self, rule: &Rule) {
        for action in rule.then.iter().filter(|_| !rule.shadow) {
            match action {
                Action::Tag(tag) => self.tags |= tag,
                Action::SkipTo(place) => self.next = *place,
                action if action.is_last() => self.next = self.rules.list.len(),
                _ => {}
            }
        }
    }
}
