// SPDX-License-Identifier: GPL-3.0-or-later
//! How one rule is tried, by the kind of its test.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::account::Reason;
use super::run::{Run, place};
use super::template;
use crate::headers;
use crate::regexes::{Exhausted, Pattern};
use crate::rule::{EvalKind, Matcher, Rule, Test};

impl<'a> Run<'a> {
    /// How many more hits of a rule count.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn wanted(&self, id: u32, rule: &Rule) -> u32 {
        rule.flags.limit().saturating_sub(self.count(id) as u32)
    }

    /// Searches a text for the pattern of a rule, charges it and notes its hits.
    pub(super) fn search(&mut self, id: u32, rule: &Rule, pattern: &Pattern, text: &[u8]) {
        let wanted = self.wanted(id, rule);
        if wanted == 0 {
            return;
        }
        let found = if wanted == 1 { pattern.search(text).map(u32::from) } else { pattern.count(text, wanted) };
        self.settle(id, found);
    }

    /// One header rule that has to see its header whatever it holds.
    pub(super) fn header(&mut self, id: u32, rule: &'a Rule, value: Option<&[u8]>) {
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
    pub(super) fn mime_header(&mut self, id: u32) {
        let Some(rule) = self.active(id) else { return };
        let Test::MimeHeader { selector, pattern, negated, unset } = &rule.test else { return };
        self.account.skip();
        let limit =
            if rule.flags.multiple { Some(rule.flags.max_hits).filter(|max| *max > 0).unwrap_or(1000) } else { 1 };
        let found = self.mime_fields(rule, selector, pattern, unset, limit);
        let found = match found {
            Ok(count) if *negated => Ok(u32::from(count == 0)),
            other => other,
        };
        self.settle(id, found);
    }

    fn mime_fields(
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

    /// One rule whose captures others use.
    pub(super) fn capture(&mut self, id: u32) {
        let Some(rule) = self.active(id) else { return };
        let Some(pattern) = rule.pattern() else { return };
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

    /// The texts that one rule reads, when it does not run in a group.
    pub(super) fn texts_of(&self, rule: &'a Rule) -> Vec<Cow<'a, [u8]>> {
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

    /// One rule that uses captures of others.
    pub(super) fn template(&mut self, id: u32) {
        let Some(rule) = self.active(id) else { return };
        let (Test::Header { matcher: Matcher::Template(template), .. }
        | Test::Body(Matcher::Template(template))
        | Test::Rawbody(Matcher::Template(template))
        | Test::Uri(Matcher::Template(template))
        | Test::Full(Matcher::Template(template))) = &rule.test
        else {
            return;
        };
        self.account.skip();
        let negated = matches!(rule.test, Test::Header { negated: true, .. });
        let texts = self.texts_of(rule);
        let possible = template.superset.as_ref().is_none_or(|pattern| texts.iter().any(|text| pattern.is_match(text)));
        let pattern = if possible || negated { template::compile(&template.source, self.context) } else { None };
        self.account.charge(place(id));
        let Some(pattern) = pattern else { return };
        for text in texts {
            if negated {
                let found = pattern.search(&text).map(|found| u32::from(!found));
                self.settle(id, found);
            } else {
                self.search(id, rule, &pattern, &text);
            }
        }
    }

    /// One eval function.
    pub(super) fn eval(&mut self, id: u32) {
        let Some(rule) = self.active(id) else { return };
        let Test::Eval { kind, function, arguments } = &rule.test else { return };
        if !rule.is_asked(*kind, self.options) {
            return;
        }
        self.context.set_rule(&rule.name);
        self.context.set_reads_source(*kind == EvalKind::Rawbody);
        self.account.skip();
        let waiting = self.context.answers.waiting();
        let count = function.call(self.context, arguments);
        if self.context.answers.waiting() != waiting {
            self.asked.insert(id);
        }
        self.settle(id, Ok(count));
    }

    /// One eval function that ran before, when it did not know all that it asked for.
    pub(super) fn retry(&mut self, id: u32) {
        if let Some(count) = self.counts.get_mut(place(id)) {
            *count = 0.0;
        }
        self.eval(id);
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
