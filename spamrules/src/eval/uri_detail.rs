// SPDX-License-Identifier: GPL-3.0-or-later
//! `uri_detail` rules: several conditions on one and the same URI (SpamAssassin's plugin URIDetail).

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use super::{Argument, Eval};
use crate::context::Context;
use crate::regexes::Pattern;
use crate::uri::Uri;

pub(crate) fn find(name: &str) -> Option<Eval> {
    (name == "check_uri_detail").then_some(check_uri_detail)
}

/// What of a URI a condition reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Raw,
    Type,
    Cleaned,
    Text,
    Domain,
    Host,
}

/// One condition.
#[derive(Debug, Clone)]
struct Condition {
    target: Target,
    negated: bool,
    pattern: Pattern,
}

/// The conditions of each rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    rules: HashMap<String, Vec<Condition>>,
}

impl Settings {
    /// Takes `uri_detail NAME key =~ /…/ key !~ /…/`.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        (key == "uri_detail").then(|| self.add(value))
    }

    fn add(&mut self, value: &str) -> Result<(), String> {
        static CONDITION: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"^.*?\b(\w+)\s*([=!]~)\s*(/|m\W)").expect("a pattern written here"));
        let (name, mut rest) =
            value.trim().split_once(char::is_whitespace).ok_or("a name and conditions are needed")?;
        let mut conditions = Vec::new();
        while let Some(found) = CONDITION.captures(rest) {
            let (Some(key), Some(operator), Some(opening)) = (found.get(1), found.get(2), found.get(3)) else { break };
            let from = rest.get(opening.start()..).unwrap_or_default();
            let len = pattern_len(from, opening.len()).ok_or("a pattern does not end")?;
            let pattern = from.get(..len).unwrap_or_default();
            conditions.push(Condition {
                target: target(key.as_str())?,
                negated: operator.as_str() == "!~",
                pattern: Pattern::new(pattern).map_err(|error| error.to_string())?,
            });
            rest = from.get(len..).unwrap_or_default();
        }
        if conditions.is_empty() {
            return Err("no condition".to_owned());
        }
        let known = self.rules.entry(name.to_owned()).or_default();
        for condition in conditions {
            known.retain(|earlier| earlier.target != condition.target);
            known.push(condition);
        }
        Ok(())
    }
}

/// Length of a pattern with its modifiers; white space or the end follows it.
fn pattern_len(text: &str, opening: usize) -> Option<usize> {
    let delimiter = text.get(..opening)?.chars().last()?;
    let mut places = text.match_indices(delimiter).filter(|&(at, _)| at >= opening);
    places.find_map(|(at, _)| {
        let rest = text.get(at + delimiter.len_utf8()..)?;
        let modifiers = rest.len() - rest.trim_start_matches(['i', 'm', 's', 'x']).len();
        let after = rest.get(modifiers..)?;
        (after.is_empty() || after.starts_with(char::is_whitespace)).then_some(at + delimiter.len_utf8() + modifiers)
    })
}

fn target(key: &str) -> Result<Target, String> {
    Ok(match key {
        "raw" => Target::Raw,
        "type" => Target::Type,
        "cleaned" => Target::Cleaned,
        "text" => Target::Text,
        "domain" => Target::Domain,
        "host" => Target::Host,
        _ => return Err(format!("{key} is nothing that a URI has")),
    })
}

/// Some URI meets all conditions of the rule.
fn check_uri_detail(context: &Context<'_>, _: &[Argument]) -> u32 {
    let Some(conditions) = context.settings.uri_detail.rules.get(&context.rule()) else { return 0 };
    u32::from(context.uris().details.iter().any(|uri| conditions.iter().all(|condition| condition.meets(uri))))
}

impl Condition {
    /// Whether some value of the URI is as wanted; one without values never is.
    fn meets(&self, uri: &Uri) -> bool {
        let wanted = |text: &[u8]| self.pattern.is_match(text) != self.negated;
        match self.target {
            Target::Raw => wanted(&uri.raw),
            Target::Type => uri.types.iter().any(|kind| wanted(kind.as_bytes())),
            Target::Cleaned => uri.cleaned.iter().any(|form| wanted(form)),
            Target::Text => uri.anchors.iter().any(|text| wanted(text)),
            Target::Domain => uri.domains().any(|domain| wanted(domain.as_bytes())),
            Target::Host => uri.hosts.iter().any(|(host, _)| wanted(host.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::NoAnswers;
    use crate::eval::tests::with;

    fn hits(rule: &str) -> bool {
        let message = "Content-Type: text/html\n\n<a href='http://www.a.com/x y'>Click here</a><img src=http://b.com/>";
        with(message, &[("uri_detail", &format!("RULE {rule}"))], &NoAnswers, "check_uri_detail", &[]) > 0
    }

    #[test]
    fn all_conditions_are_met_by_one_uri() {
        assert!(hits("text =~ /click/i  type =~ /^a$/ raw !~ m,b\\.com,"));
        assert!(!hits("text =~ /click/i domain =~ /^b\\.com$/"));
        assert!(hits("host =~ /^www\\./ domain =~ /^a\\.com$/ cleaned =~ m!x%20y|x y!"));
        assert!(!hits("text =~ /click/"));
        assert!(!hits("text !~ /Click/"));
    }

    #[test]
    fn mistakes_are_named() {
        let mut settings = Settings::default();
        assert_eq!(settings.set("uri", "x"), None);
        for wrong in ["NAME", "NAME nothing", "NAME foo =~ /x/", "NAME raw =~ /(/", "NAME raw =~ /x"] {
            assert!(settings.set("uri_detail", wrong).unwrap().is_err(), "{wrong}");
        }
    }
}
