// SPDX-License-Identifier: GPL-3.0-or-later
//! The rules of an administrator: an ordered list of "when this, then that" (docs/rules.md). Expressions are those of CEL; they are
//! read by its grammar ([`syntax`]), compiled with their types ([`compile`]) and evaluated by us ([`expression`]), see
//! docs/decisions/0006-rule-language.md.
//!
//! Pure, but for reading list files at load: look-ups, clock and what actions do are in `checks::rules`.

pub mod action;
pub mod attribute;
pub mod compile;
pub mod expression;
pub mod functions;
pub mod list;
pub mod need;
pub mod prefilter;
pub mod sets;
pub mod syntax;
pub mod text;
pub mod theirs;
pub mod walk;

use std::collections::HashMap;
use std::sync::Arc;

use common::config::{Listed, Mistakes};

pub use self::action::Action;
use self::compile::Compiler;
use self::expression::Test;
use self::list::{List, Lists};
use self::need::Need;
use self::prefilter::Filters;
use self::syntax::Node;
use crate::config::{LimitSettings, ListSettings, RuleSettings};
use crate::lists::{Refreshed, Stamp};

/// Most rules: a name each in metrics.
pub const MAX_RULES: usize = 2000;

/// Names in other sections of the configuration that rules can use.
#[derive(Debug, Clone, Default)]
pub struct Names<'a> {
    /// DNS lists of the perimeter.
    pub dns_lists: Vec<&'a str>,
    /// Limits.
    pub limits: Vec<LimitName<'a>>,
    /// Named lists.
    pub lists: Vec<(&'a str, &'a ListSettings)>,
    /// Who has passed greylisting is kept.
    pub trust: bool,
    /// There is a file that tells countries.
    pub countries: bool,
    /// There is a file that tells autonomous systems.
    pub asns: bool,
    /// Who carries out orders.
    pub orders: OrdersTo,
}

/// Who carries out orders (hold, redirect ...).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OrdersTo {
    /// Nobody would hear of them.
    #[default]
    Nobody,
    /// contentd, by a header line.
    Contentd,
    /// Postfix itself.
    Postfix,
}

/// A limit that rules can name.
#[derive(Debug, Clone, Copy)]
pub struct LimitName<'a> {
    /// Its name.
    pub name: &'a str,
    /// Number of terms of its key.
    pub terms: usize,
    /// It counts bytes.
    pub bytes: bool,
}

impl<'a> LimitName<'a> {
    /// The name of a configured limit.
    pub fn of(limit: &'a LimitSettings) -> Self {
        Self { name: &limit.name, terms: limit.key.len(), bytes: limit.unit == crate::limits::unit::Unit::Bytes }
    }
}

/// A rule, compiled.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name.
    pub name: Arc<str>,
    /// When it matches.
    pub when: Test,
    /// What it does then.
    pub then: Vec<Action>,
    /// It only counts.
    pub shadow: bool,
}

/// The rules in their order.
#[derive(Debug, Default)]
pub struct Rules {
    list: Vec<Rule>,
    needs: Vec<Need>,
    filters: Filters,
    lists: Vec<Arc<List>>,
    looks_at_time: bool,
}

impl Rules {
    /// Compiles rules. Every mistake in any of them is told with its place. With `open` the list files are read too.
    pub fn compile(entries: &[Listed<RuleSettings>], names: &Names<'_>, open: bool) -> Result<Self, Mistakes> {
        if entries.is_empty() {
            return Ok(Self::default());
        }
        let (mut mistakes, mut lists) = (Mistakes::new(), Lists::new(open));
        let places = places(entries, &mut mistakes);
        let texts: Vec<&str> = entries.iter().map(|entry| entry.value.when.as_str()).collect();
        let mut compiler = Compiler::new(&mut lists, names);
        let mut list = Vec::with_capacity(entries.len());
        for (at, (entry, parsed)) in entries.iter().zip(syntax::parse_all(&texts)).enumerate() {
            let when = parsed.and_then(|node: Node| compiler.test(&node));
            let when = when.unwrap_or_else(|wrong| {
                mistakes.push(entry.mistake("when", named(entry, &wrong.told(&entry.value.when))));
                Test::Always(false)
            });
            let then = actions(entry, at, &mut compiler, &places, &mut mistakes);
            list.push(Rule { name: entry.value.name.as_str().into(), when, then, shadow: entry.value.shadow });
        }
        let (needs, looks_at_time) = (compiler.needs.into_list(), compiler.looks_at_time);
        let filters = compiler.filters.finish();
        mistakes.extend(std::mem::take(&mut lists.mistakes));
        mistakes.into_result(Self { list, needs, filters, lists: lists.into_loaded(), looks_at_time })
    }

    /// The rules in their order.
    pub fn list(&self) -> &[Rule] {
        &self.list
    }

    /// What may have to be looked up, by number.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// True when some rule looks at the time.
    pub fn look_at_time(&self) -> bool {
        self.looks_at_time
    }

    /// What is odd in list files of other programs, with file and line.
    pub fn notices(&self) -> Vec<String> {
        self.lists.iter().flat_map(|list| list.notices()).collect()
    }

    /// Reads list files that have changed since they were read and since `tried`, the last try of this: all of them or none.
    pub fn refresh_lists(&self, tried: &mut Option<Vec<Stamp>>) -> Refreshed {
        list::refresh(&self.lists, tried)
    }

    /// True when there is no rule.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Where each name is in the list. Names that are wrong, or there twice, are mistakes.
fn places<'e>(entries: &'e [Listed<RuleSettings>], mistakes: &mut Mistakes) -> HashMap<&'e str, usize> {
    let mut places = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let name = entry.value.name.as_str();
        if let Err(message) = action::tag_name(name) {
            mistakes.push(entry.mistake("name", message));
        }
        if places.insert(name, at).is_some() {
            mistakes.push(entry.mistake("name", format!("there is a rule {name:?} already")));
        }
    }
    if let Some(entry) = entries.get(MAX_RULES) {
        mistakes.push(entry.mistake("name", format!("there are more than {MAX_RULES} rules")));
    }
    places
}

fn actions(
    entry: &Listed<RuleSettings>,
    at: usize,
    compiler: &mut Compiler<'_>,
    places: &HashMap<&str, usize>,
    mistakes: &mut Mistakes,
) -> Vec<Action> {
    let later = |name: &str| match places.get(name) {
        Some(place) if *place > at => Ok(*place),
        Some(_) => Err(format!("skip_to goes forward only; {name:?} is not after this rule")),
        None => Err(format!("there is no rule {name:?}{}", compile::meant(name, places.keys().copied()))),
    };
    let mut wrong = |message: &str| mistakes.push(entry.mistake("then", named(entry, message)));
    if entry.value.then.is_empty() {
        wrong("needs at least one action");
    }
    let mut actions = Vec::with_capacity(entry.value.then.len());
    for text in &entry.value.then {
        match Action::parse(text, compiler, &later) {
            Ok(action) => actions.push(action),
            Err(message) => wrong(&format!("{text:?}: {message}")),
        }
    }
    if let Some(message) = action::contradiction(&actions) {
        wrong(&message);
    }
    actions
}

/// A message with the name of its rule: a line number alone says little in a long list.
fn named(entry: &Listed<RuleSettings>, message: &str) -> String {
    format!("rule {:?}: {message}", entry.value.name)
}

#[cfg(test)]
mod tests;
