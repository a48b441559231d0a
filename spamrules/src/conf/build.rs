// SPDX-License-Identifier: GPL-3.0-or-later
//! From what was read to rules that can run: tags replaced, patterns compiled, names linked, rules over the same text put together.

use std::collections::{BTreeMap, HashMap};

use super::draft::{CAPTURE_PRIORITY, Gathered, Written};
use super::tests::template_names;
use crate::check::template;
use crate::eval::{self, Argument};
use crate::extension::{self, Extension, Function};
use crate::headers::Selector;
use crate::lint::Severity;
use crate::meta::Expression;
use crate::regexes::{Index, Pattern, Source};
use crate::rule::{Draft, EvalKind, Flags, Matcher, Rule, Template, Test};
use crate::scores::{self, Scores};

/// Rules over one kind of text, with their common prefilter.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Rules by their number in the index.
    pub(crate) rules: Vec<u32>,
    pub(crate) index: Index,
}

/// Rules that read the same header.
#[derive(Debug)]
pub(crate) struct HeaderGroup {
    pub(crate) selector: Selector,
    /// Rules that must see even a header without any of their literals: negated ones, `exists:`, those with a default.
    pub(crate) always: Vec<u32>,
    pub(crate) group: Group,
}

/// All rules of a set, ready to run. Scores are kept apart: users may change them.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<Rule>,
    pub(crate) names: HashMap<String, u32>,
    pub(crate) headers: Vec<HeaderGroup>,
    pub(crate) body: Group,
    pub(crate) rawbody: Group,
    pub(crate) uri: Group,
    pub(crate) full: Group,
    pub(crate) mime_headers: Vec<u32>,
    /// Rules whose captures others use; they run first.
    pub(crate) captures: Vec<u32>,
    /// Rules that use captures of others.
    pub(crate) templates: Vec<u32>,
    pub(crate) evals: Vec<u32>,
    /// In an order in which each comes after those it depends on.
    pub(crate) metas: Vec<u32>,
    /// Metas that depend on themselves.
    pub(crate) circular: Vec<u32>,
}

/// Compiles everything. Rules that cannot be compiled are left out and remarked upon.
pub(crate) fn rules(gathered: &mut Gathered, extensions: &[Extension]) -> Rules {
    let mut made = Rules::default();
    for written in gathered.rules.clone() {
        let written = with_tags(gathered, written);
        let mut flags = gathered.flags.get(&written.name).map_or_else(|| Flags::parse(""), |words| Flags::parse(words));
        if let Draft::Eval { function, arguments, .. } = &written.test {
            flags.spf = eval::auth::asks_spf(function);
            let words = gathered.flags.get(&written.name).map_or("", String::as_str);
            gathered.settings.zones.note(&written.name, function, arguments, words);
        }
        match compile(&written, extensions) {
            Ok((test, warning)) => {
                if let Some(warning) = warning {
                    gathered.remark(Severity::Warning, &written.place, Some(&written.name), warning);
                }
                let priority = gathered
                    .priorities
                    .get(&written.name)
                    .copied()
                    .filter(|priority| *priority != 0)
                    .unwrap_or(if flags.network { -100 } else { 0 });
                made.rules.push(Rule {
                    description: gathered.descriptions.get(&written.name).cloned().unwrap_or_default(),
                    name: written.name,
                    priority,
                    flags,
                    test,
                    place: written.place,
                });
            }
            Err(error) => gathered.remark(Severity::Error, &written.place, Some(&written.name), error),
        }
    }
    made.names = (0u32..).zip(&made.rules).map(|(id, rule)| (rule.name.clone(), id)).collect();
    metas(gathered, &mut made);
    group(&mut made);
    order_metas(gathered, &mut made);
    made
}

/// The scores of each rule, default ones included.
pub(crate) fn scores_of(gathered: &Gathered, rules: &Rules) -> Vec<Scores> {
    rules
        .rules
        .iter()
        .map(|rule| {
            gathered
                .scores
                .get(&rule.name)
                .copied()
                .unwrap_or_else(|| [scores::default(&rule.name, rule.flags.nice); 4])
        })
        .collect()
}

fn with_tags(gathered: &mut Gathered, mut written: Written) -> Written {
    if !gathered.tags.rules().contains(&written.name) {
        return written;
    }
    let Some(source) = written.test.pattern() else { return written };
    match gathered.tags.expand(source.text()) {
        Ok(expanded) => {
            let expanded = source.with_text(expanded);
            match expanded.check() {
                Ok(()) => {
                    if let Some(pattern) = written.test.pattern_mut() {
                        *pattern = expanded;
                    }
                }
                Err(error) => gathered.remark(
                    Severity::Error,
                    &written.place,
                    Some(&written.name),
                    format!("with its tags replaced: {error}"),
                ),
            }
        }
        Err(error) => gathered.remark(Severity::Error, &written.place, Some(&written.name), error),
    }
    written
}

/// The test, and why it cannot run if it cannot.
fn compile(written: &Written, extensions: &[Extension]) -> Result<(Test, Option<String>), String> {
    let test = match &written.test {
        Draft::Header { selector, pattern, negated, unset } => Test::Header {
            selector: Selector::parse(selector)?,
            written: selector.clone(),
            matcher: matcher(pattern)?,
            negated: *negated,
            unset: unset.clone(),
        },
        Draft::Exists { selector } => Test::Exists { selector: Selector::parse(selector)?, written: selector.clone() },
        Draft::Body(pattern) => Test::Body(matcher(pattern)?),
        Draft::Rawbody(pattern) => Test::Rawbody(matcher(pattern)?),
        Draft::Uri(pattern) => Test::Uri(matcher(pattern)?),
        Draft::Full(pattern) => Test::Full(matcher(pattern)?),
        Draft::MimeHeader { selector, pattern, negated, unset } => Test::MimeHeader {
            selector: selector.clone(),
            pattern: pattern_of(pattern)?,
            negated: *negated,
            unset: unset.clone(),
        },
        Draft::Eval { kind, function, arguments } => match function_of(function, extensions) {
            Some(function) => {
                Test::Eval { kind: *kind, function, arguments: arguments.iter().map(Argument::new).collect() }
            }
            None => return Ok((Test::Idle, Some(format!("there is no function {function}, here or in an extension")))),
        },
        // Linked when all names are known.
        Draft::Meta(_) => Test::Idle,
    };
    Ok((test, None))
}

/// The function that a rule calls: of an extension, or of ours.
fn function_of(name: &str, extensions: &[Extension]) -> Option<Function> {
    extension::function(extensions, name).or_else(|| eval::find(name).map(Function::Own))
}

fn pattern_of(source: &Source) -> Result<Pattern, String> {
    source.compile().map_err(|error| error.to_string())
}

fn matcher(source: &Source) -> Result<Matcher, String> {
    if template_names(source.text()).is_empty() {
        return pattern_of(source).map(Matcher::Fixed);
    }
    let trial = source.with_text(template::superset(source.text()));
    trial.check().map_err(|error| error.to_string())?;
    Ok(Matcher::Template(Template { source: source.clone(), superset: trial.superset() }))
}

/// Expands `rules_matching(GLOB)`.
pub(super) fn without_globs(text: &str, expand: &dyn Fn(&str) -> String) -> String {
    const CALL: &str = "rules_matching(";
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(CALL) {
        let Some((glob, after)) = after.split_once(')') else { break };
        out.push_str(before);
        out.push_str(" (");
        out.push_str(&expand(glob.trim()));
        out.push_str(") ");
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether a name fits a glob of letters, `*` and `?`.
fn fits(glob: &[u8], name: &[u8]) -> bool {
    let (mut at, mut place, mut star) = (0, 0, None);
    while place < name.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(&letter) if letter == b'?' || Some(&letter) == name.get(place) => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((star_at, star_place)) = star else { return false };
                star = Some((star_at, star_place + 1));
                at = star_at + 1;
                place = star_place + 1;
            }
        }
    }
    glob.get(at..).unwrap_or_default().iter().all(|&letter| letter == b'*')
}

fn metas(gathered: &mut Gathered, made: &mut Rules) {
    let mut all: Vec<&str> = made.rules.iter().map(|rule| rule.name.as_str()).collect();
    all.sort_unstable();
    let mut linked = Vec::new();
    for written in gathered.rules.clone() {
        let (Draft::Meta(text), Some(&id)) = (&written.test, made.names.get(&written.name)) else { continue };
        let expand = |glob: &str| {
            let names: Vec<&str> = all
                .iter()
                .copied()
                .filter(|name| *name != written.name && fits(glob.as_bytes(), name.as_bytes()))
                .collect();
            if names.is_empty() { "0".to_owned() } else { names.join("+") }
        };
        // It was parsed before with its globs empty; with them filled it may divide by zero or be too long.
        match Expression::parse(&without_globs(text, &expand)) {
            Ok(expression) => {
                linked.push((id, Test::Meta(expression.over(|name| made.names.get(name).copied()))));
            }
            Err(error) => gathered.remark(Severity::Error, &written.place, Some(&written.name), error.to_string()),
        }
    }
    for (id, test) in linked {
        if let Some(rule) = made.rules.get_mut(usize::try_from(id).unwrap_or(usize::MAX)) {
            rule.test = test;
        }
    }
}

/// Rules over one text.
type Members = Vec<u32>;

/// Puts rules over the same text together.
fn group(made: &mut Rules) {
    let mut kinds: [Members; 4] = Default::default();
    let mut headers: BTreeMap<String, HeaderDraft> = BTreeMap::new();
    for (id, rule) in (0u32..).zip(&made.rules) {
        let matcher = match &rule.test {
            Test::Header { matcher, .. }
            | Test::Body(matcher)
            | Test::Rawbody(matcher)
            | Test::Uri(matcher)
            | Test::Full(matcher) => Some(matcher),
            _ => None,
        };
        match matcher {
            Some(Matcher::Template(_)) => {
                made.templates.push(id);
                continue;
            }
            Some(Matcher::Fixed(pattern)) if rule.priority <= CAPTURE_PRIORITY && pattern.has_names() => {
                made.captures.push(id);
                continue;
            }
            _ => {}
        }
        match &rule.test {
            Test::Header { selector, written, negated, unset, .. } => {
                let group = headers.entry(written.clone()).or_insert_with(|| HeaderDraft::new(selector));
                if *negated || unset.is_some() { group.always.push(id) } else { group.filtered.push(id) }
            }
            Test::Exists { selector, written } => {
                headers.entry(written.clone()).or_insert_with(|| HeaderDraft::new(selector)).always.push(id)
            }
            Test::Body(_) => kinds[0].push(id),
            Test::Rawbody(_) => kinds[1].push(id),
            Test::Uri(_) => kinds[2].push(id),
            Test::Full(_) => kinds[3].push(id),
            Test::MimeHeader { .. } => made.mime_headers.push(id),
            Test::Eval { .. } => made.evals.push(id),
            Test::Meta(_) | Test::Idle => {}
        }
    }
    let [body, rawbody, uri, full] = kinds.map(|members| indexed(&made.rules, members));
    (made.body, made.rawbody, made.uri, made.full) = (body, rawbody, uri, full);
    made.headers = headers
        .into_values()
        .map(|draft| HeaderGroup {
            selector: draft.selector,
            always: draft.always,
            group: indexed(&made.rules, draft.filtered),
        })
        .collect();
    let rules = &made.rules;
    let key = |id: &u32| {
        let rule = rules.get(usize::try_from(*id).unwrap_or(usize::MAX));
        let kind = rule
            .map_or(EvalKind::Full, |rule| if let Test::Eval { kind, .. } = rule.test { kind } else { EvalKind::Full });
        (rule.map_or(0, |rule| rule.priority), kind)
    };
    made.evals.sort_by_key(key);
}

struct HeaderDraft {
    selector: Selector,
    always: Vec<u32>,
    filtered: Members,
}

impl HeaderDraft {
    fn new(selector: &Selector) -> HeaderDraft {
        HeaderDraft { selector: selector.clone(), always: Vec::new(), filtered: Vec::new() }
    }
}

fn indexed(rules: &[Rule], members: Members) -> Group {
    let pattern = |id: &u32| rules.get(usize::try_from(*id).unwrap_or(usize::MAX)).and_then(Rule::pattern);
    let index = Index::new(members.iter().map(pattern));
    Group { rules: members, index }
}

/// Sorts metas so that each comes after those it depends on (Kahn's algorithm); what remains is circular.
fn order_metas(gathered: &mut Gathered, made: &mut Rules) {
    let place = |id: u32| usize::try_from(id).unwrap_or(usize::MAX);
    let mut waiting: HashMap<u32, usize> = HashMap::new();
    let mut dependants: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut ready = Vec::new();
    for (id, rule) in (0u32..).zip(&made.rules) {
        let Test::Meta(formula) = &rule.test else { continue };
        let metas: Vec<u32> = formula
            .rules()
            .iter()
            .copied()
            .filter(|&name| made.rules.get(place(name)).is_some_and(|rule| matches!(rule.test, Test::Meta(_))))
            .collect();
        waiting.insert(id, metas.len());
        if metas.is_empty() {
            ready.push(id);
        }
        for meta in metas {
            dependants.entry(meta).or_default().push(id);
        }
    }
    while let Some(id) = ready.pop() {
        waiting.remove(&id);
        made.metas.push(id);
        for dependant in dependants.get(&id).into_iter().flatten() {
            if let Some(count) = waiting.get_mut(dependant) {
                *count -= 1;
                if *count == 0 {
                    ready.push(*dependant);
                }
            }
        }
    }
    made.circular = waiting.into_keys().collect();
    made.circular.sort_unstable();
    for &id in &made.circular {
        if let Some(rule) = made.rules.get(place(id)) {
            gathered.remark(
                Severity::Warning,
                &rule.place,
                Some(&rule.name),
                "it depends on itself, or on a rule that does",
            );
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn globs() {
        assert!(fits(b"A_*_?", b"A_b_c_d"));
        assert!(!fits(b"A_*_?", b"A_b"));
        assert!(fits(b"*", b""));
        assert_eq!(without_globs("rules_matching(A_*) > 1", &|glob| format!("[{glob}]")), " ([A_*])  > 1");
    }
}
