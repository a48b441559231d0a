// SPDX-License-Identifier: GPL-3.0-or-later
//! What every match of a pattern has in common, byte by byte: a sequence of steps, each a byte of some set followed by any number of bytes
//! of another. Much is lost (which branch, how often), but nothing that a match could have is ruled out, and [`super::sieve`] looks for
//! many such sequences at once. For patterns that require no literal.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Steps of one skeleton: what comes after them is not looked at.
const MAX_STEPS: usize = 48;
/// Steps that are looked for, of those.
pub(super) const MAX_WINDOW: usize = 32;
/// Nesting followed; a pattern nested deeper has no skeleton.
const MAX_DEPTH: usize = 100;
/// How often a skeleton may be met in running text, per byte, to be as good as any: longer ones would cost more and save nothing.
const GOOD: f64 = 2e-6;
/// Skeletons met more often decide nothing.
const USELESS: f64 = 1e-3;

/// A set of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bytes([u64; 4]);

impl Bytes {
    fn add(&mut self, byte: u8) {
        if let Some(word) = self.0.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }

    fn merge(&mut self, other: Bytes) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }

    pub(super) fn contains(self, byte: u8) -> bool {
        self.0.get(usize::from(byte >> 6)).is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }

    /// The share of text that these bytes make up, roughly; of bytes without a space the share of those that follow others, for words end.
    fn share(self) -> f64 {
        let most = if self.contains(b' ') { 1.0 } else { 0.8 };
        (0..=u8::MAX).filter(|byte| self.contains(*byte)).map(share).sum::<f64>().min(most)
    }
}

/// How often a byte stands in the text of mail, roughly. It decides only which part of a pattern is looked for.
fn share(byte: u8) -> f64 {
    const LETTERS: [f64; 26] = [
        8.2, 1.5, 2.8, 4.3, 12.7, 2.2, 2.0, 6.1, 7.0, 0.2, 0.8, 4.0, 2.4, 6.7, 7.5, 1.9, 0.1, 6.0, 6.3, 9.1, 2.8, 1.0,
        2.4, 0.2, 2.0, 0.1,
    ];
    let letter = LETTERS.get(usize::from(byte.to_ascii_lowercase().wrapping_sub(b'a'))).copied().unwrap_or(0.0) / 130.0;
    match byte {
        b'a'..=b'z' => letter,
        b'A'..=b'Z' => letter / 6.0,
        b' ' => 0.16,
        b'0'..=b'9' => 0.008,
        b'\n' | b'.' | b',' | b'-' | b'/' | b':' | b'=' | b'<' | b'>' | b'_' => 0.01,
        b'!'..=b'~' => 0.003,
        _ => 0.001,
    }
}

/// A byte that must be there, and bytes that may follow it before the next step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    pub(super) first: Bytes,
    pub(super) then: Bytes,
}

/// The steps that every match goes through.
#[derive(Debug, Clone)]
pub(crate) struct Skeleton {
    pub(super) steps: Vec<Step>,
}

impl Skeleton {
    /// The skeleton of a pattern of the linear engine; `None` when it has none that would decide anything.
    pub(super) fn of(hir: &Hir) -> Option<Skeleton> {
        Some(Skeleton { steps: window(&path(hir, 0)?.steps)? })
    }

    /// The first steps, whether they decide anything or not.
    #[cfg(test)]
    pub(super) fn first(linear: &str) -> Option<Skeleton> {
        let steps: Vec<Step> = path(&super::tree(linear)?, 0)?.steps.into_iter().take(MAX_WINDOW).collect();
        (!steps.is_empty()).then_some(Skeleton { steps })
    }
}

/// The shortest part of the steps that is rare, or the rarest of those that are no better.
fn window(steps: &[Step]) -> Option<Vec<Step>> {
    let mut best: Option<(f64, &[Step])> = None;
    for begin in 0..steps.len() {
        let mut standing = 1.0_f64;
        for (length, step) in (1..=MAX_WINDOW).zip(steps.get(begin..).unwrap_or_default()) {
            let reached = standing * step.first.share();
            standing = (reached / (1.0 - step.then.share()).max(0.01)).min(1.0);
            let shorter = |known: &[Step]| reached <= GOOD && length < known.len();
            if best.is_none_or(|(rate, known)| (reached < rate && rate > GOOD) || shorter(known)) {
                best = Some((reached, steps.get(begin..begin + length)?));
            }
        }
    }
    best.filter(|(rate, _)| *rate < USELESS).map(|(_, steps)| steps.to_vec())
}

/// The steps of a part of a pattern.
#[derive(Debug, Clone, Default)]
struct Path {
    /// Bytes that may come before the first step.
    lead: Bytes,
    steps: Vec<Step>,
}

impl Path {
    /// All bytes that may occur from a step on.
    fn bytes_from(&self, step: usize) -> Bytes {
        let mut all = Bytes::default();
        for step in self.steps.iter().skip(step) {
            all.merge(step.first);
            all.merge(step.then);
        }
        all
    }

    fn bytes(&self) -> Bytes {
        let mut all = self.bytes_from(0);
        all.merge(self.lead);
        all
    }

    /// Lets some bytes follow, as many as there are.
    fn allow(&mut self, bytes: Bytes) {
        match self.steps.last_mut() {
            Some(last) => last.then.merge(bytes),
            None => self.lead.merge(bytes),
        }
    }

    fn append(&mut self, next: &Path) {
        self.allow(next.lead);
        let room = MAX_STEPS.saturating_sub(self.steps.len());
        self.steps.extend(next.steps.iter().take(room));
        self.allow(next.bytes_from(room));
    }
}

fn path(hir: &Hir, depth: usize) -> Option<Path> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut made = Path::default();
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => {
            for &byte in &literal.0 {
                made.append(&one(|first| first.add(byte)));
            }
        }
        HirKind::Class(class) => {
            let ranges = ranges(class)?;
            made.append(&one(|first| {
                ranges.iter().for_each(|&(from, to)| (from..=to).for_each(|byte| first.add(byte)))
            }));
        }
        HirKind::Capture(capture) => made = path(&capture.sub, depth + 1)?,
        HirKind::Repetition(repetition) => {
            let inner = path(&repetition.sub, depth + 1)?;
            let times = usize::try_from(repetition.min).unwrap_or(usize::MAX);
            (0..times.min(MAX_STEPS)).for_each(|_| made.append(&inner));
            if repetition.max != Some(repetition.min) || times > MAX_STEPS {
                made.allow(inner.bytes());
            }
        }
        HirKind::Concat(parts) => {
            for part in parts {
                made.append(&path(part, depth + 1)?);
            }
        }
        HirKind::Alternation(branches) => {
            let branches: Vec<Path> = branches.iter().map(|branch| path(branch, depth + 1)).collect::<Option<_>>()?;
            made = any_of(&branches);
        }
    }
    Some(made)
}

fn one(fill: impl FnOnce(&mut Bytes)) -> Path {
    let mut first = Bytes::default();
    fill(&mut first);
    Path { lead: Bytes::default(), steps: vec![Step { first, then: Bytes::default() }] }
}

/// Steps that a match of any of several parts goes through: as many as the shortest has; what others have more may follow the last.
fn any_of(branches: &[Path]) -> Path {
    let shortest = branches.iter().map(|branch| branch.steps.len()).min().unwrap_or(0);
    let mut made = Path { lead: Bytes::default(), steps: vec![Step::default(); shortest] };
    for branch in branches {
        made.lead.merge(branch.lead);
        for (mine, theirs) in made.steps.iter_mut().zip(&branch.steps) {
            mine.first.merge(theirs.first);
            mine.then.merge(theirs.then);
        }
        made.allow(branch.bytes_from(shortest));
    }
    made
}

fn ranges(class: &Class) -> Option<Vec<(u8, u8)>> {
    match class {
        Class::Bytes(class) => Some(class.ranges().iter().map(|range| (range.start(), range.end())).collect()),
        Class::Unicode(class) => {
            let ascii = |letter: char| u8::try_from(u32::from(letter)).ok().filter(u8::is_ascii);
            class.ranges().iter().map(|range| Some((ascii(range.start())?, ascii(range.end())?))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(pattern: &str) -> Option<usize> {
        Skeleton::of(&crate::regexes::tree(pattern).unwrap()).map(|skeleton| skeleton.steps.len())
    }

    #[test]
    fn what_is_looked_for() {
        assert_eq!(length("[a-z]+"), None);
        assert_eq!(length("(?:abcdefgh)?"), None);
        assert_eq!(length("[vV][i1][a4][gG][rR][a4]"), Some(4));
        assert!(length("(?:[xX]|xyz)[_\\W]{0,3}[yY][_\\W]{0,3}[zZ][qQ]").is_some());
        assert_eq!(length("[a-z]{100}"), Some(MAX_WINDOW));
    }
}
