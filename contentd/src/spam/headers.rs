// SPDX-License-Identifier: GPL-3.0-or-later
//! What header fields, log and `scan` show of a score: all signs with their points, and amavis' `X-Spam-*` fields made of them. Pure.

use std::ops::Range;

use crate::ambiguity::AmbiguitySettings;
use crate::findings::{FindingKind, Findings, Spam, Symbol};
use crate::message::edit::{Edit, OwnField};
use crate::message::{Limits, header};

use super::rounded;
use super::settings::SpamSettings;

/// Signs named in a field or in the log.
const MAX_SHOWN: usize = 60;
/// Stars of `X-Spam-Level`.
const MAX_STARS: usize = 64;
/// Longest line with the tag in it (RFC 5322 section 2.1.1).
const LINE: usize = 998;

/// All signs of spam in a message: rules that hit, what engines and documents add, ambiguities with a score.
pub fn symbols(findings: &Findings, ambiguity: &AmbiguitySettings) -> Vec<Symbol> {
    let rule = |hit: &spamrules::Hit| Symbol {
        name: hit.rule.clone(),
        score: rounded(hit.score),
        description: hit.described(),
    };
    let odd = |(kind, points): (FindingKind, crate::points::Points)| Symbol {
        name: kind.word().to_owned(),
        score: points.value(),
        description: "ambiguity".to_owned(),
    };
    let rules = findings.spam.iter().flat_map(|spam| &spam.report.hits).map(rule);
    let others = findings.symbols.iter().cloned();
    rules.chain(others).chain(ambiguity.scores(findings).into_iter().map(odd)).collect()
}

/// `15.5..22/812`: between which scores the message lies, whatever the rules say that did not run, and how many of them there are. None when all
/// have run.
pub fn bound(findings: &Findings) -> Option<String> {
    let spam = findings.spam.as_ref()?;
    let bound = spam.report.bound.filter(|bound| bound.left > 0)?;
    let others = spam.score - spam.report.score;
    Some(format!("{}..{}/{}", rounded(bound.low + others), rounded(bound.high + others), bound.left))
}

/// `A=1, B=0.1`: the heaviest first, so that what is cut off matters least.
pub fn tests(mut symbols: Vec<Symbol>, between: &str) -> String {
    symbols.sort_by(|a, b| b.score.abs().total_cmp(&a.score.abs()));
    let more = symbols.len() > MAX_SHOWN;
    let shown = symbols.iter().take(MAX_SHOWN).map(|symbol| format!("{}={}", name(&symbol.name), symbol.score));
    let mut shown: Vec<String> = shown.collect();
    if more {
        shown.push("...".to_owned());
    }
    shown.join(between)
}

/// A name that cannot be taken for several: engines name things as they like.
fn name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' };
    name.chars().map(safe).take(80).collect()
}

/// What the fields of one message show.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    score: f64,
    required: f64,
    partial: Option<String>,
    bound: Option<String>,
    symbols: Vec<Symbol>,
}

impl Shown {
    /// None where no fields are to be added: no rules have run, or the score is below `spam.header_level`.
    pub fn of(findings: &Findings, ambiguity: &AmbiguitySettings, settings: &SpamSettings) -> Option<Shown> {
        let Spam { score, required, .. } = findings.spam.as_ref()?;
        if settings.header_level.is_some_and(|level| *score < level.0) {
            return None;
        }
        let partial = findings.found.iter().find(|finding| finding.kind == FindingKind::RulesPartial);
        let partial = partial.map(|finding| finding.detail.clone());
        let bound = bound(findings);
        Some(Shown { score: *score, required: *required, partial, bound, symbols: symbols(findings, ambiguity) })
    }

    fn is_tagged(&self) -> bool {
        self.score >= self.required
    }

    /// The value of a field; none when it is not to be added.
    pub fn value(&self, field: OwnField) -> Option<String> {
        match field {
            OwnField::SpamFlag => Some(if self.is_tagged() { "YES" } else { "NO" }.to_owned()),
            OwnField::SpamScore => Some(self.score.to_string()),
            OwnField::SpamLevel => {
                let stars = (1..=MAX_STARS).take_while(|star| *star as f64 <= self.score).count();
                (stars > 0).then(|| "*".repeat(stars))
            }
            OwnField::SpamStatus => Some(self.status()),
            OwnField::SpamReport => {
                let line =
                    |symbol: &Symbol| format!("* {} {} {}", symbol.score, name(&symbol.name), symbol.description);
                let lines: Vec<String> = self.symbols.iter().take(MAX_SHOWN).map(line).collect();
                (!lines.is_empty()).then(|| lines.join(" "))
            }
            OwnField::VirusScanned | OwnField::Status | OwnField::Scanned | OwnField::Id => None,
        }
    }

    fn status(&self) -> String {
        let word = if self.is_tagged() { "Yes" } else { "No" };
        let partial = self.partial.as_ref().map(|why| format!(" partial={}", name(why))).unwrap_or_default();
        let bound = self.bound.as_ref().map(|bound| format!(" bound={bound}")).unwrap_or_default();
        let tests = tests(self.symbols.clone(), ", ");
        format!("{word}, score={} required={} tests=[{tests}]{bound}{partial}", self.score, self.required)
    }
}

/// Puts the tag before the subject of a tagged message, once. `head` holds the whole header section.
pub fn tag_subject(head: &[u8], tag: &str, edit: &mut Edit) {
    let everything = Limits { header_bytes: usize::MAX, header_fields: usize::MAX, ..Limits::default() };
    let section = header::read(head, &everything);
    let Some(field) = section.fields.iter().find(|field| field.is(head, "Subject")) else {
        edit.prepend.extend_from_slice(format!("Subject: {tag}\r\n").as_bytes());
        return;
    };
    let value = head.get(field.value.clone()).unwrap_or_default();
    if value.trim_ascii_start().starts_with(tag.as_bytes()) {
        return;
    }
    let at = field.value.start;
    // A line that would be too long is folded behind the tag; what follows begins with a blank then.
    let text = match (first_line(head, &field.whole) + tag.len() + 2 > LINE, value.first()) {
        (true, Some(b' ' | b'\t')) => format!(" {tag}\r\n"),
        (true, _) => format!(" {tag}\r\n "),
        (false, Some(b' ' | b'\t' | b'\r' | b'\n') | None) => format!(" {tag}"),
        (false, Some(_)) => format!(" {tag} "),
    };
    edit.put.push((at as u64, text.into_bytes()));
    edit.put.sort_by_key(|(at, _)| *at);
}

/// The length of the first line of a field.
fn first_line(head: &[u8], field: &Range<usize>) -> usize {
    let text = head.get(field.clone()).unwrap_or_default();
    memchr::memchr(b'\n', text).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, score: f64) -> Symbol {
        Symbol { name: name.into(), score, description: format!("about {name}") }
    }

    fn shown(score: f64, symbols: Vec<Symbol>) -> Shown {
        Shown { score, required: 5.0, partial: None, bound: None, symbols }
    }

    #[test]
    fn fields_are_those_of_amavis() {
        let spam = shown(7.1, vec![symbol("B", 0.1), symbol("A", 7.0)]);
        let value = |field| spam.value(field).unwrap_or_default();
        assert_eq!(value(OwnField::SpamFlag), "YES");
        assert_eq!(value(OwnField::SpamScore), "7.1");
        assert_eq!(value(OwnField::SpamLevel), "*******");
        assert_eq!(value(OwnField::SpamStatus), "Yes, score=7.1 required=5 tests=[A=7, B=0.1]");
        assert_eq!(value(OwnField::SpamReport), "* 0.1 B about B * 7 A about A");
        let ham = Shown { partial: Some("size".into()), ..shown(-1.0, Vec::new()) };
        assert_eq!(ham.value(OwnField::SpamStatus).unwrap(), "No, score=-1 required=5 tests=[] partial=size");
        assert_eq!(ham.value(OwnField::SpamLevel), None);
        assert_eq!(shown(1e9, Vec::new()).value(OwnField::SpamLevel).unwrap().len(), 64);
    }

    #[test]
    fn many_and_odd_names_stay_within_bounds() {
        let many: Vec<Symbol> = (0..1000).map(|n| symbol("X, Y]\r\nZ", f64::from(n))).collect();
        let text = tests(many, ",");
        assert!(text.starts_with("X__Y___Z=999,") && text.ends_with(",..."), "{text}");
        assert_eq!(text.split(',').count(), MAX_SHOWN + 1);
    }

    fn tagged(head: &str) -> String {
        let mut edit = Edit::default();
        tag_subject(head.as_bytes(), "***SPAM***", &mut edit);
        let mut out = edit.prepend.clone();
        edit.pass(0, head.as_bytes(), |piece| out.extend_from_slice(piece));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_subject_is_tagged_once() {
        for (head, expected) in [
            ("A: b\r\nSubject: x\r\n y\r\n\r\n", "A: b\r\nSubject: ***SPAM*** x\r\n y\r\n\r\n"),
            ("subject:x\r\n\r\n", "subject: ***SPAM*** x\r\n\r\n"),
            ("Subject:\r\n\r\n", "Subject: ***SPAM***\r\n\r\n"),
            ("Subject: ***SPAM*** x\r\n\r\n", "Subject: ***SPAM*** x\r\n\r\n"),
            ("A: b\r\n\r\n", "Subject: ***SPAM***\r\nA: b\r\n\r\n"),
        ] {
            assert_eq!(tagged(head), expected, "{head:?}");
        }
        let long = format!("Subject: {}\r\n\r\n", "x".repeat(985));
        assert!(tagged(&long).starts_with("Subject: ***SPAM***\r\n xxx"), "{}", &tagged(&long)[..40]);
    }
}
