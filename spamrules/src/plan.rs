// SPDX-License-Identifier: GPL-3.0-or-later
//! What follows from the rules and their scores alone, before any message: which rules can change a score and how much, which metas use
//! which rules. Made once for a set of scores; see `check::schedule`.

use crate::conf::Options;
use crate::conf::build::Rules;
use crate::range::Range;
use crate::rule::{EvalKind, Matcher, Rule, Test};

/// How much of its worth a meta passes on to the rules it uses.
const SHARE: f64 = 0.3;
/// The most that a rule can be worth.
const MOST: f64 = 20.0;

/// What is known before any message.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Whether the score can be bounded: not with metas that depend on themselves.
    pub(crate) can_bound: bool,
    /// Per rule the metas that use it.
    pub(crate) users: Vec<Vec<u32>>,
    /// Per rule what one hit adds to the score; 0 for sub-rules and for rules that never run.
    pub(crate) adds: Vec<f64>,
    /// Per rule whether it never runs, whatever the message.
    pub(crate) never: Vec<bool>,
    /// Per rule what it can count before it has run.
    pub(crate) first: Vec<Range>,
    /// Per rule how many metas could still matter that use it.
    pub(crate) waiting_users: Vec<u32>,
    /// Per rule how much it can change, its metas included.
    pub(crate) worth: Vec<f64>,
    /// Per rule in a byte what is asked of it again and again: rules themselves are spread over too much memory.
    pub(crate) traits: Vec<Traits>,
    /// Per rule what it counts when no other rule hits: 0 but for metas.
    pub(crate) quiet: Vec<f64>,
    /// Per rule a first guess at what it costs, in microseconds.
    pub(crate) cost: Vec<f64>,
}

/// What is asked of a rule while it is not known whether it hits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traits(u8);

impl Traits {
    /// It is made of other rules.
    pub(crate) const META: Traits = Traits(1);
    /// It reads nothing but the header.
    pub(crate) const HEADER: Traits = Traits(2);
    /// It can lower the score, by itself or through a meta.
    pub(crate) const LOWERS: Traits = Traits(4);
    /// Each of its hits adds its score.
    pub(crate) const EACH_HIT: Traits = Traits(8);

    fn of(rule: &Rule) -> Traits {
        let mut traits = Traits::default();
        traits.set(Traits::META, matches!(rule.test, Test::Meta(_)));
        traits.set(Traits::HEADER, reads_header(&rule.test));
        traits.set(Traits::EACH_HIT, rule.adds_each_hit());
        traits
    }

    fn set(&mut self, other: Traits, yes: bool) {
        self.0 |= if yes { other.0 } else { 0 };
    }

    /// Whether it has all of these.
    pub(crate) fn has(self, other: Traits) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    pub(crate) const fn and(self, other: Traits) -> Traits {
        Traits(self.0 | other.0)
    }
}

/// Whether a test reads nothing but the header.
fn reads_header(test: &Test) -> bool {
    match test {
        Test::Header { .. } | Test::Exists { .. } => true,
        Test::Eval { kind, .. } => matches!(kind, EvalKind::Header | EvalKind::Dns),
        _ => false,
    }
}

fn place(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

impl Plan {
    pub(crate) fn new(rules: &Rules, scores: &[f64], options: &Options) -> Plan {
        let size = rules.rules.len();
        let score = |at: usize| scores.get(at).copied().unwrap_or(0.0);
        let mut plan = Plan {
            can_bound: rules.circular.is_empty(),
            users: vec![Vec::new(); size],
            never: (0..size).map(|at| score(at) == 0.0).collect(),
            cost: rules.rules.iter().map(guess).collect(),
            traits: rules.rules.iter().map(Traits::of).collect(),
            ..Plan::default()
        };
        // A meta that uses one that never runs does not run either.
        for &id in &rules.metas {
            let names = names_of(rules, id);
            let is_meta =
                |name: u32| rules.rules.get(place(name)).is_some_and(|rule| matches!(rule.test, Test::Meta(_)));
            if names.clone().any(|name| is_meta(name) && plan.is_never(name))
                && let Some(slot) = plan.never.get_mut(place(id))
            {
                *slot = true;
            }
            for name in names {
                if let Some(users) = plan.users.get_mut(place(name)) {
                    users.push(id);
                }
            }
        }
        let adds = |(at, rule): (usize, &Rule)| {
            let counts = !rule.name.starts_with("__") && !plan.never.get(at).copied().unwrap_or(true);
            if counts { score(at) } else { 0.0 }
        };
        plan.first = rules.rules.iter().zip(&plan.never).map(|(rule, never)| at_first(rule, *never, options)).collect();
        plan.adds = rules.rules.iter().enumerate().map(adds).collect();
        plan.weigh(rules);
        plan.quieten(rules);
        plan
    }

    /// What is asked of a rule.
    pub(crate) fn traits(&self, id: u32) -> Traits {
        self.traits.get(place(id)).copied().unwrap_or_default()
    }

    /// Finds out what metas count when nothing hits.
    fn quieten(&mut self, rules: &Rules) {
        self.quiet = vec![0.0; rules.rules.len()];
        for &id in &rules.metas {
            let Some(Rule { test: Test::Meta(formula), .. }) = rules.rules.get(place(id)) else { continue };
            let value = formula.value(|rule| self.quiet.get(rule).copied().unwrap_or(0.0)).unwrap_or(0.0);
            if let Some(slot) =
                self.quiet.get_mut(place(id)).filter(|_| !self.never.get(place(id)).copied().unwrap_or(true))
            {
                *slot = Range::exactly(value).as_count().low;
            }
        }
    }

    fn is_never(&self, id: u32) -> bool {
        self.never.get(place(id)).copied().unwrap_or(true)
    }

    /// Gives each rule its worth: from the metas that nothing uses down to what they are made of.
    fn weigh(&mut self, rules: &Rules) {
        let size = rules.rules.len();
        self.worth = self.adds.iter().map(|score| score.abs()).collect();
        for (traits, score) in self.traits.iter_mut().zip(&self.adds) {
            traits.set(Traits::LOWERS, *score < 0.0);
        }
        self.waiting_users = vec![0; size];
        for &id in rules.metas.iter().rev() {
            let at = place(id);
            let (worth, lowers) = (self.worth.get(at).copied().unwrap_or(0.0), self.traits(id).has(Traits::LOWERS));
            if self.is_never(id) || worth == 0.0 {
                continue;
            }
            for name in names_of(rules, id) {
                let name = place(name);
                if let Some(slot) = self.worth.get_mut(name) {
                    *slot = (*slot + worth * SHARE).min(MOST);
                }
                if let Some(traits) = self.traits.get_mut(name) {
                    traits.set(Traits::LOWERS, lowers);
                }
                if let Some(slot) = self.waiting_users.get_mut(name) {
                    *slot += 1;
                }
            }
        }
    }
}

/// The rules that a meta uses, each once.
pub(crate) fn names_of(rules: &Rules, id: u32) -> impl Iterator<Item = u32> + Clone {
    let rules = match rules.rules.get(place(id)).map(|rule| &rule.test) {
        Some(Test::Meta(formula)) => formula.rules(),
        _ => &[],
    };
    rules.iter().copied()
}

/// What a rule can count before it has run.
fn at_first(rule: &Rule, never: bool, options: &Options) -> Range {
    let most = match &rule.test {
        _ if never => 0.0,
        Test::Idle => 0.0,
        Test::Eval { kind, .. } if !rule.is_asked(*kind, options) => 0.0,
        Test::Eval { .. } | Test::Meta(_) | Test::MimeHeader { .. } => f64::INFINITY,
        _ => f64::from(rule.flags.limit()),
    };
    Range { low: 0.0, high: most }
}

/// What a rule costs before anything has been measured, in microseconds.
fn guess(rule: &Rule) -> f64 {
    let slow = |fast: f64, matcher: &Matcher| match matcher {
        Matcher::Fixed(pattern) if pattern.is_prefiltered() => fast,
        _ => fast * 10.0,
    };
    match &rule.test {
        Test::Header { .. } | Test::Exists { .. } => 0.5,
        Test::Uri(matcher) => slow(1.0, matcher),
        Test::Body(matcher) | Test::Rawbody(matcher) | Test::Full(matcher) => slow(2.0, matcher),
        Test::MimeHeader { .. } => 2.0,
        Test::Eval { kind: EvalKind::Header | EvalKind::Dns, .. } => 2.0,
        Test::Eval { .. } => 5.0,
        Test::Meta(_) | Test::Idle => 0.0,
    }
}
