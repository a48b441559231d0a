// SPDX-License-Identifier: GPL-3.0-or-later
//! Literals of which every match of a pattern contains at least one, letters' case aside: what the shared prefilter looks for.

use std::collections::BTreeSet;

use regex_syntax::hir::{Class, Hir, HirKind};

/// How many literals one pattern may ask for.
const MAX_LITERALS: usize = 300;
/// How many of them may come from joining parts with parts.
const MAX_JOINED: usize = 48;
/// Longer ones are cut: the head is enough to decide whether to look closer.
const MAX_LENGTH: usize = 12;
/// Shorter ones are found everywhere and decide nothing, rare signs aside.
const MIN_LENGTH: usize = 2;
/// Single bytes that are rare enough in text.
const RARE: &[u8] = b"$%@#&*+=<>[]{}|\\^~`\0\x01";
/// Nesting followed; deeper parts count as unknown.
const MAX_DEPTH: usize = 60;

type Set = BTreeSet<Vec<u8>>;

/// The literals, in small letters. `None`: a match may have none.
pub(super) fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    Some(best(hir, 0)?.into_iter().collect())
}

/// How good a set is as a filter: long ones are rare in text, many of them are not.
fn worth(set: &Set) -> Option<i64> {
    if set.is_empty() || set.len() > MAX_LITERALS {
        return None;
    }
    let shortest = set.iter().map(Vec::len).min()?;
    let rare = |literal: &Vec<u8>| matches!(literal.as_slice(), [byte] if !byte.is_ascii() || RARE.contains(byte));
    if !set.iter().all(|literal| literal.len() >= MIN_LENGTH || rare(literal)) {
        return None;
    }
    let length = i64::try_from(shortest.min(8)).ok()? * 4;
    let odd = set.iter().all(|literal| literal.iter().any(|byte| !byte.is_ascii_lowercase() && *byte != b' '));
    let many = i64::from(usize::BITS - set.len().leading_zeros());
    Some(length + i64::from(odd) * 2 - many)
}

fn better(one: Option<Set>, other: Option<Set>) -> Option<Set> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if worth(&other) > worth(&one) { other } else { one }),
        (one, other) => one.or(other),
    }
}

/// The best set that every match of `hir` must meet.
fn best(hir: &Hir, depth: usize) -> Option<Set> {
    if depth > MAX_DEPTH {
        return None;
    }
    // A concatenation joins its parts itself, and finds this on the way.
    let whole = match hir.kind() {
        HirKind::Concat(_) => None,
        _ => exact(hir, depth).filter(|set| worth(set).is_some()),
    };
    let within = match hir.kind() {
        HirKind::Capture(capture) => best(&capture.sub, depth + 1),
        HirKind::Repetition(repetition) if repetition.min > 0 => best(&repetition.sub, depth + 1),
        HirKind::Alternation(branches) => {
            let mut union = Set::new();
            for branch in branches {
                union.extend(best(branch, depth + 1)?);
            }
            Some(union).filter(|set| worth(set).is_some())
        }
        HirKind::Concat(parts) => concatenation(parts, depth),
        _ => None,
    };
    better(whole, within)
}

/// Runs of parts whose texts are known are joined; the best run or part wins.
fn concatenation(parts: &[Hir], depth: usize) -> Option<Set> {
    let mut found = None;
    let mut run = Set::from([Vec::new()]);
    for part in parts {
        let texts = exact(part, depth + 1);
        if let Some(joined) = texts.as_ref().and_then(|texts| join(&run, texts)) {
            run = joined;
            continue;
        }
        found = better(found, Some(std::mem::take(&mut run)).filter(|set| worth(set).is_some()));
        if texts.is_none() {
            found = better(found, best(part, depth + 1));
        }
        run = texts.unwrap_or_else(|| Set::from([Vec::new()]));
    }
    better(found, Some(run).filter(|set| worth(set).is_some()))
}

fn join(left: &Set, right: &Set) -> Option<Set> {
    if left.len().saturating_mul(right.len()) > MAX_JOINED || left.iter().any(|text| text.len() >= MAX_LENGTH) {
        return None;
    }
    Some(
        left.iter()
            .flat_map(|head| right.iter().map(move |tail| [head.as_slice(), tail.as_slice()].concat()))
            .collect(),
    )
}

/// All texts that `hir` can match, when they are few.
fn exact(hir: &Hir, depth: usize) -> Option<Set> {
    if depth > MAX_DEPTH {
        return None;
    }
    let set = match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Set::from([Vec::new()]),
        HirKind::Literal(literal) => Set::from([literal.0.to_ascii_lowercase()]),
        HirKind::Class(class) => small_class(class)?,
        HirKind::Capture(capture) => exact(&capture.sub, depth + 1)?,
        HirKind::Repetition(repetition) => {
            let once = exact(&repetition.sub, depth + 1)?;
            match (repetition.min, repetition.max) {
                (0, Some(1)) => once.into_iter().chain([Vec::new()]).collect(),
                (1, Some(1)) => once,
                (2..=4, max) if max == Some(repetition.min) => {
                    let mut all = once.clone();
                    for _ in 1..repetition.min {
                        all = join(&all, &once)?;
                    }
                    all
                }
                _ => return None,
            }
        }
        HirKind::Concat(parts) => {
            let mut all = Set::from([Vec::new()]);
            for part in parts {
                all = join(&all, &exact(part, depth + 1)?)?;
            }
            all
        }
        HirKind::Alternation(branches) => {
            let mut all = Set::new();
            for branch in branches {
                all.extend(exact(branch, depth + 1)?);
            }
            all
        }
    };
    (set.len() <= MAX_JOINED).then_some(set)
}

fn small_class(class: &Class) -> Option<Set> {
    let bytes: Vec<(u8, u8)> = match class {
        Class::Bytes(class) => class.ranges().iter().map(|range| (range.start(), range.end())).collect(),
        Class::Unicode(class) => {
            let ascii = |letter: char| u8::try_from(u32::from(letter)).ok().filter(u8::is_ascii);
            class
                .ranges()
                .iter()
                .map(|range| Some((ascii(range.start())?, ascii(range.end())?)))
                .collect::<Option<_>>()?
        }
    };
    let mut set = Set::new();
    for (first, last) in bytes {
        for byte in first..=last {
            set.insert(vec![byte.to_ascii_lowercase()]);
            if set.len() > 8 {
                return None;
            }
        }
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(pattern: &str) -> Option<Vec<String>> {
        let tree = crate::regexes::tree(pattern).unwrap();
        required(&tree).map(|set| set.into_iter().map(|text| String::from_utf8(text).unwrap()).collect())
    }

    #[test]
    fn literals_of_patterns() {
        assert_eq!(literals("(?i)ViaGra").unwrap(), ["viagra"]);
        assert_eq!(literals("a.*(?:hello|goodbye)").unwrap(), ["goodbye", "hello"]);
        assert_eq!(literals("[0-9]+ dollars").unwrap(), [" dollars"]);
        assert_eq!(literals("colou?r").unwrap(), ["color", "colour"]);
        assert_eq!(literals("(?:abc)+x").unwrap(), ["abc"]);
        assert_eq!(literals("(?:abc)?"), None);
        assert_eq!(literals("[a-z]+"), None);
        assert_eq!(literals("abc|[0-9]"), None);
    }
}
