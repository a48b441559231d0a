// SPDX-License-Identifier: GPL-3.0-or-later
//! One run over one message. What a run knows is in [`Run`]; each stage is a function of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::account::{Account, Budget, Reason};
use super::{Hit, Report, SetAside, template};
use crate::conf::Options;
use crate::conf::build::{Group, Rules};
use crate::context::Context;
use crate::headers;
use crate::regexes::{Exhausted, Pattern, Seen};
use crate::rule::{EvalKind, Matcher, Rule, Test};

/// The state of a run.
struct Run<'a> {
    rules: &'a Rules,
    scores: &'a [f64],
    options: &'a Options,
    context: &'a Context<'a>,
    counts: Vec<f64>,
    aside: BTreeMap<u32, Reason>,
    account: Account<'a>,
    seen: Seen,
}

/// Runs all rules with a score other than 0.
pub(crate) fn run<'a>(
    rules: &'a Rules,
    scores: &'a [f64],
    options: &'a Options,
    context: &'a Context<'a>,
    budget: Budget<'a>,
) -> Report {
    let mut run = Run {
        rules,
        scores,
        options,
        context,
        counts: vec![0.0; rules.rules.len()],
        aside: BTreeMap::new(),
        account: Account::new(budget, rules.rules.len()),
        seen: Seen::default(),
    };
    for stage in [Run::captures, Run::headers, Run::texts, Run::mime_headers, Run::templates, Run::evals] {
        if !run.account.is_over() {
            stage(&mut run);
        }
    }
    run.metas();
    run.report()
}

fn place(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

/// A count as metas see it.
fn number(count: u32) -> f64 {
    f64::from(count)
}

impl<'a> Run<'a> {
    /// The rule, if it is to run: it has a score and has not been given up.
    fn active(&self, id: u32) -> Option<&'a Rule> {
        let rule = self.rules.rules.get(place(id))?;
        let scored = self.scores.get(place(id)).is_some_and(|score| *score != 0.0);
        (scored && (self.aside.is_empty() || !self.aside.contains_key(&id))).then_some(rule)
    }

    fn count(&self, id: u32) -> f64 {
        self.counts.get(place(id)).copied().unwrap_or(0.0)
    }

    fn add(&mut self, id: u32, count: u32) {
        if count == 0 {
            return;
        }
        if let Some(slot) = self.counts.get_mut(place(id)) {
            *slot += number(count);
        }
    }

    /// How many more hits of a rule count.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn wanted(&self, id: u32, rule: &Rule) -> u32 {
        rule.flags.limit().saturating_sub(self.count(id) as u32)
    }

    /// Searches a text for the pattern of a rule, charges it and notes its hits.
    fn search(&mut self, id: u32, rule: &Rule, pattern: &Pattern, text: &[u8]) {
        let wanted = self.wanted(id, rule);
        if wanted == 0 {
            return;
        }
        let found = if wanted == 1 { pattern.search(text).map(u32::from) } else { pattern.count(text, wanted) };
        self.settle(id, found);
    }

    fn settle(&mut self, id: u32, found: Result<u32, Exhausted>) {
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
    fn group<'t>(&mut self, group: &'a Group, texts: impl Iterator<Item = &'t [u8]>) {
        let mut seen = std::mem::take(&mut self.seen);
        for (number, text) in texts.enumerate() {
            self.account.skip();
            for candidate in group.index.candidates(text, &mut seen) {
                let Some(&id) = group.rules.get(place(candidate)) else { continue };
                let Some(rule) = self.active(id) else { continue };
                if number == 0 && rule.flags.no_subject && matches!(rule.test, Test::Body(_)) {
                    continue;
                }
                if let Some(pattern) = fixed(rule) {
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

    fn headers(&mut self) {
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

    /// One header rule that has to see its header whatever it holds.
    fn header(&mut self, id: u32, rule: &'a Rule, value: Option<&[u8]>) {
        match &rule.test {
            Test::Exists { .. } => self.add(id, u32::from(value.is_some())),
            Test::Header { matcher: Matcher::Fixed(pattern), negated, unset, .. } => {
                let text = value.or(unset.as_deref()).unwrap_or_default();
                if *negated {
                    let found = pattern.search(text).map(|found| u32::from(!found));
                    self.settle(id, found);
                } else {
                    self.search(id, rule, pattern, text);
                }
            }
            _ => {}
        }
    }

    /// Header fields of every part, in order. Of rules that count, the first part with hits decides.
    fn mime_headers(&mut self) {
        let rules = self.rules;
        for &id in &rules.mime_headers {
            let Some(rule) = self.active(id) else { continue };
            let Test::MimeHeader { selector, pattern, negated, unset } = &rule.test else { continue };
            self.account.skip();
            let limit =
                if rule.flags.multiple { Some(rule.flags.max_hits).filter(|max| *max > 0).unwrap_or(1000) } else { 1 };
            let found = self.mime_header(rule, selector, pattern, unset, limit);
            let found = match found {
                Ok(count) if *negated => Ok(u32::from(count == 0)),
                other => other,
            };
            self.settle(id, found);
        }
    }

    fn mime_header(
        &self,
        rule: &Rule,
        selector: &str,
        pattern: &Pattern,
        unset: &[u8],
        limit: u32,
    ) -> Result<u32, Exhausted> {
        let (first, last) = rule.flags.range;
        let mut joined = Vec::new();
        for (number, part) in (1u32..).zip(self.context.message.parts()) {
            if number > last || number < first {
                continue;
            }
            let value = mime_value(part, selector).map_or(Cow::Borrowed(unset), Cow::Owned);
            if rule.flags.concat {
                joined.extend_from_slice(&value);
                if joined.last() != Some(&b'\n') {
                    joined.push(b'\n');
                }
                continue;
            }
            let count = pattern.count(&value, limit)?;
            if count > 0 {
                return Ok(count);
            }
        }
        if rule.flags.concat { pattern.count(&joined, limit) } else { Ok(0) }
    }

    fn captures(&mut self) {
        let rules = self.rules;
        for &id in &rules.captures {
            let Some(rule) = self.active(id) else { continue };
            let Some(pattern) = fixed(rule) else { continue };
            let limit = rule.flags.limit();
            let mut found = BTreeMap::new();
            let mut count = 0;
            self.account.skip();
            for text in self.texts_of(rule) {
                match pattern.captures(&text, limit.saturating_sub(count), &mut found) {
                    Ok(more) => count += more,
                    Err(Exhausted) => {
                        self.aside.insert(id, Reason::Steps);
                        break;
                    }
                }
                if count >= limit {
                    break;
                }
            }
            self.settle(id, Ok(count));
            for (name, values) in found {
                let mut texts: Vec<String> = Vec::new();
                for value in values {
                    let value = String::from_utf8_lossy(&value).into_owned();
                    if !texts.contains(&value) {
                        texts.push(value);
                    }
                }
                self.context.set_tag(&name, texts);
            }
        }
    }

    /// The texts that one rule reads, when it does not run in a group.
    fn texts_of(&self, rule: &'a Rule) -> Vec<Cow<'a, [u8]>> {
        let context = self.context;
        let borrow = |texts: &'a [Vec<u8>], skip: usize| {
            texts.iter().skip(skip).map(|text| Cow::Borrowed(text.as_slice())).collect()
        };
        match &rule.test {
            Test::Header { selector, unset, .. } => {
                vec![
                    headers::get(context, selector)
                        .unwrap_or_else(|| Cow::Borrowed(unset.as_deref().unwrap_or_default())),
                ]
            }
            Test::Body(_) => borrow(&context.texts().body, usize::from(rule.flags.no_subject)),
            Test::Rawbody(_) => borrow(&context.texts().rawbody, 0),
            Test::Uri(_) => borrow(&context.uris().list, 0),
            Test::Full(_) => vec![Cow::Borrowed(context.message.raw())],
            _ => Vec::new(),
        }
    }

    fn templates(&mut self) {
        let rules = self.rules;
        for &id in &rules.templates {
            let Some(rule) = self.active(id) else { continue };
            let (Test::Header { matcher: Matcher::Template(template), .. }
            | Test::Body(Matcher::Template(template))
            | Test::Rawbody(Matcher::Template(template))
            | Test::Uri(Matcher::Template(template))
            | Test::Full(Matcher::Template(template))) = &rule.test
            else {
                continue;
            };
            self.account.skip();
            let negated = matches!(rule.test, Test::Header { negated: true, .. });
            let texts = self.texts_of(rule);
            let possible =
                template.superset.as_ref().is_none_or(|pattern| texts.iter().any(|text| pattern.is_match(text)));
            let pattern = if possible || negated { template::compile(&template.source, self.context) } else { None };
            self.account.charge(place(id));
            let Some(pattern) = pattern else { continue };
            for text in texts {
                if negated {
                    let found = pattern.search(&text).map(|found| u32::from(!found));
                    self.settle(id, found);
                } else {
                    self.search(id, rule, &pattern, &text);
                }
            }
        }
    }

    fn evals(&mut self) {
        let rules = self.rules;
        for &id in &rules.evals {
            let Some(rule) = self.active(id) else { continue };
            let Test::Eval { kind, function, arguments } = &rule.test else { continue };
            let network = rule.flags.network || *kind == EvalKind::Dns;
            if (network && !self.options.network) || (rule.flags.learn && !self.options.bayes) {
                continue;
            }
            self.context.set_rule(&rule.name);
            self.context.set_reads_source(*kind == EvalKind::Rawbody);
            self.account.skip();
            let count = function(self.context, arguments);
            self.settle(id, Ok(count));
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

    fn report(mut self) -> Report {
        let mut report = Report { complete: !self.account.is_over(), ..Report::default() };
        for ((rule, &count), &score) in self.rules.rules.iter().zip(&self.counts).zip(self.scores) {
            if count == 0.0 || score == 0.0 {
                continue;
            }
            if rule.name.starts_with("__") {
                report.subrules.push(rule.name.clone());
                continue;
            }
            // A rule that counts adds its score for each hit, but a meta's value or an eval's count does not multiply it.
            let times = if rule.flags.multiple && fixed(rule).is_some() { count } else { 1.0 };
            report.score += score * times;
            report.hits.push(Hit {
                rule: rule.name.clone(),
                score: score * times,
                count,
                description: rule.description.clone(),
            });
        }
        report.set_aside = self
            .aside
            .iter()
            .filter_map(|(&id, &reason)| {
                Some(SetAside {
                    rule: self.rules.rules.get(place(id))?.name.clone(),
                    reason,
                    spent: self.account.spent(place(id)),
                })
            })
            .collect();
        report.costs = self.account.costs();
        report.uris_missing = self.context.misses_uris();
        report
    }
}

/// The pattern of a rule that has one and needs no captures of others.
fn fixed(rule: &Rule) -> Option<&Pattern> {
    match &rule.test {
        Test::Header { matcher: Matcher::Fixed(pattern), .. }
        | Test::Body(Matcher::Fixed(pattern))
        | Test::Rawbody(Matcher::Fixed(pattern))
        | Test::Uri(Matcher::Fixed(pattern))
        | Test::Full(Matcher::Fixed(pattern))
        | Test::MimeHeader { pattern, .. } => Some(pattern),
        _ => None,
    }
}

/// What a mimeheader rule reads of a part. Of several fields of a name SpamAssassin reads the last; a raw one that is missing is empty, and a
/// decoded one ends with a line end.
fn mime_value(part: &crate::message::Part, selector: &str) -> Option<Vec<u8>> {
    let (name, raw) = selector.strip_suffix(":raw").map_or((selector, false), |name| (name, true));
    if name == "ALL" {
        return Some(part.headers.text(raw).0);
    }
    let field = part.headers.last(name);
    if raw {
        return Some(field.map(|field| field.raw.to_vec()).unwrap_or_default());
    }
    field.map(|field| [field.decoded(), b"\n"].concat())
}
