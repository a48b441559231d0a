// SPDX-License-Identifier: GPL-3.0-or-later
//! What both kinds of table share: the lines with their places, the regular expressions, and loading from files or from entries
//! that somebody else keeps.

use std::collections::HashMap;
use std::hash::Hash;

use regex::{RegexSet, RegexSetBuilder};

use super::Match;
use super::dialect::{Dialect, Key, ListFile, Reading};
use crate::config::{Mistake, Mistakes};

/// One entry as written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    origin: u32,
    /// 0 when the origin has no lines.
    number: u32,
    text: Box<str>,
}

/// The entries of one list, and its regular expressions.
#[derive(Debug, Default)]
pub(super) struct Lines {
    origins: Vec<String>,
    lines: Vec<Line>,
    patterns: Vec<(String, u32)>,
    set: Option<RegexSet>,
    /// What was odd, of foreign formats.
    pub(super) notices: Mistakes,
}

impl Lines {
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn get(&self, index: u32) -> Option<Match<'_>> {
        let line = self.lines.get(index as usize)?;
        let origin = self.origins.get(line.origin as usize)?;
        let origin = if line.number == 0 { origin.clone() } else { format!("{origin}:{}", line.number) };
        Some(Match { entry: &line.text, origin })
    }

    pub(super) fn find_pattern(&self, text: &str) -> Option<u32> {
        let hit = self.set.as_ref()?.matches(text).into_iter().next()?;
        self.patterns.get(hit).map(|(_, index)| *index)
    }

    fn compile(&mut self, mistakes: &mut Mistakes) {
        if self.patterns.is_empty() {
            return;
        }
        match RegexSetBuilder::new(self.patterns.iter().map(|(pattern, _)| pattern)).build() {
            Ok(set) => self.set = Some(set),
            Err(error) => mistakes.push(Mistake {
                origin: self.origins.join(", "),
                key: String::new(),
                message: format!("the regular expressions are too large together: {error}"),
            }),
        }
    }
}

/// A table of one kind of keys.
pub(super) trait Table: Default {
    /// What an entry is.
    type Key;

    /// Reads an entry without its comment.
    fn reading(dialect: Dialect, entry: &str) -> Reading<Self::Key>;

    /// Takes a key; of two equal ones the first counts.
    fn insert(&mut self, key: Self::Key, index: u32);

    /// Takes the lines when all keys are there.
    fn finish(&mut self, lines: Lines);
}

/// Reads the files as one list, from top to bottom.
pub(super) fn from_files<T: Table>(files: impl Iterator<Item = ListFile>) -> Result<T, Mistakes> {
    let mut build = Build::<T>::default();
    for file in files {
        let name = file.path.display().to_string();
        match std::fs::read(&file.path) {
            // Old lists have comments in old character sets.
            Ok(bytes) => build.add_file(name, file.dialect, &String::from_utf8_lossy(&bytes)),
            Err(error) => build.mistakes.push(Mistake {
                origin: name,
                key: String::new(),
                message: format!("cannot be read: {error}"),
            }),
        }
    }
    let (table, mistakes) = build.finish();
    mistakes.into_result(table)
}

/// Takes entries of our own format; what is wrong is left out and told.
pub(super) fn from_entries<'a, T: Table>(origin: &str, entries: impl Iterator<Item = &'a str>) -> (T, Mistakes) {
    let mut build = Build::<T>::default();
    build.lines.origins.push(origin.to_owned());
    entries.for_each(|entry| build.add(Dialect::Own, 0, entry.trim()));
    build.finish()
}

struct Build<T> {
    table: T,
    lines: Lines,
    mistakes: Mistakes,
}

impl<T: Default> Default for Build<T> {
    fn default() -> Self {
        Self { table: T::default(), lines: Lines::default(), mistakes: Mistakes::new() }
    }
}

impl<T: Table> Build<T> {
    fn add_file(&mut self, name: String, dialect: Dialect, text: &str) {
        self.lines.origins.push(name);
        for (number, line) in (1u32..).zip(text.lines()) {
            let entry = line.split('#').next().unwrap_or_default();
            if !entry.trim().is_empty() {
                self.add(dialect, number, entry);
            }
        }
    }

    fn add(&mut self, dialect: Dialect, number: u32, entry: &str) {
        let index = self.lines.lines.len() as u32;
        let (key, told) = match T::reading(dialect, entry) {
            Reading::Entry(key) => (Some(key), None),
            Reading::Odd(key, told) => (Some(key), Some(told)),
            Reading::Never(told) => (None, Some(told)),
            Reading::Wrong(message) => {
                let mistake = self.place(number, message);
                return self.mistakes.push(mistake);
            }
        };
        if let Some(told) = told {
            let notice = self.place(number, told);
            self.lines.notices.push(notice);
        }
        let Some(key) = key else { return };
        let origin = (self.lines.origins.len() as u32).saturating_sub(1);
        self.lines.lines.push(Line { origin, number, text: entry.trim().into() });
        match key {
            Key::Plain(key) => self.table.insert(key, index),
            Key::Pattern(pattern) => self.lines.patterns.push((pattern, index)),
        }
    }

    fn place(&self, number: u32, message: String) -> Mistake {
        let origin = self.lines.origins.last().map(String::as_str).unwrap_or_default();
        let origin = if number == 0 { origin.to_owned() } else { format!("{origin}:{number}") };
        Mistake { origin, key: String::new(), message }
    }

    fn finish(mut self) -> (T, Mistakes) {
        self.lines.compile(&mut self.mistakes);
        self.table.finish(self.lines);
        (self.table, self.mistakes)
    }
}

/// Domain names: with their sub-domains, or these only, or the name only.
#[derive(Debug, Default)]
pub(super) struct Domains {
    pub(super) whole: HashMap<Box<str>, u32>,
    pub(super) below: HashMap<Box<str>, u32>,
    pub(super) exact: HashMap<Box<str>, u32>,
}

impl Domains {
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.find_named(name).map(|(index, _, _)| index)
    }

    /// The same, with the name that matched and whether only what is below it does.
    pub(super) fn find_named<'a>(&self, name: &'a str) -> Option<(u32, &'a str, bool)> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(index) = self.exact.get(name).or_else(|| self.whole.get(name)) {
            return Some((*index, name, false));
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            match (self.below.get(parent), self.whole.get(parent)) {
                (Some(index), _) => return Some((*index, parent, true)),
                (None, Some(index)) => return Some((*index, parent, false)),
                (None, None) => rest = parent,
            }
        }
        None
    }
}

pub(super) fn insert<K: Hash + Eq>(table: &mut HashMap<K, u32>, key: impl Into<K>, index: u32) {
    table.entry(key.into()).or_insert(index);
}
