// SPDX-License-Identifier: GPL-3.0-or-later
//! What this host remembers of recipients: known ones for days, unknown ones for minutes, each kind bounded.
//!
//! Pure: whoever asks says what time it is, in seconds since 1970, because what is known outlives the process.

use std::collections::HashMap;

/// What is remembered of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// It is known, as of the last time somebody who must know was asked.
    Known,
    /// It is known, but it is time to ask again.
    Ageing,
    /// It is unknown.
    Unknown,
}

/// For how many seconds what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spans {
    /// Known ones.
    pub known: u64,
    /// Known ones, until somebody asks again.
    pub refresh: u64,
    /// Unknown ones.
    pub unknown: u64,
}

/// A known recipient: when it was last found, and until when that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Number of its address.
    pub number: u64,
    /// Seconds since 1970.
    pub checked: u64,
    /// Seconds since 1970.
    pub expires: u64,
}

/// The memory of one host. Each half holds up to `most` entries; of a full one the older half is forgotten.
#[derive(Debug)]
pub struct Cache {
    most: usize,
    known: Generations<(u64, u64)>,
    /// Until when.
    unknown: Generations<u64>,
    changes: u64,
}

impl Cache {
    /// One that holds so many known and so many unknown recipients.
    pub fn new(most: usize) -> Self {
        Self { most, known: Generations::default(), unknown: Generations::default(), changes: 0 }
    }

    /// What is remembered of it.
    pub fn find(&self, number: u64, spans: Spans, now: u64) -> Option<Remembered> {
        if let Some((checked, expires)) = self.known.get(number).filter(|(_, expires)| *expires > now) {
            let age = now.saturating_sub(checked);
            // Settings may have become shorter since it was found.
            let (young, good) = (age < spans.refresh && expires > now, age < spans.known);
            return good.then_some(if young { Remembered::Known } else { Remembered::Ageing });
        }
        self.unknown.get(number).filter(|until| *until > now).map(|_| Remembered::Unknown)
    }

    /// Somebody who must know says that it is known.
    pub fn found(&mut self, number: u64, spans: Spans, now: u64) -> Known {
        let known = Known { number, checked: now, expires: now.saturating_add(spans.known) };
        self.learned(known);
        known
    }

    /// Another host, or an earlier run of this one, has found it. What was found later counts.
    pub fn learned(&mut self, known: Known) {
        if self.known.get(known.number).is_some_and(|(checked, _)| checked > known.checked) {
            return;
        }
        self.unknown.remove(known.number);
        self.known.insert(known.number, (known.checked, known.expires), self.most);
        self.changes += 1;
    }

    /// Somebody who must know says that it is unknown; true when it was known before.
    pub fn missed(&mut self, number: u64, spans: Spans, now: u64) -> bool {
        let was_known = self.known.remove(number);
        self.changes += u64::from(was_known);
        self.unknown.insert(number, now.saturating_add(spans.unknown), self.most);
        was_known
    }

    /// Another host has found it missing at this time; what was found later counts.
    pub fn forget(&mut self, number: u64, checked: u64) {
        if self.known.get(number).is_some_and(|(found, _)| found <= checked) {
            self.known.remove(number);
            self.changes += 1;
        }
    }

    /// How many known ones.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True when none is known.
    pub fn is_empty(&self) -> bool {
        self.known.len() == 0
    }

    /// Grows with every change of what is known.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All known ones that still hold.
    pub fn all(&self, now: u64) -> Vec<Known> {
        let entry = |(number, (checked, expires)): (u64, (u64, u64))| Known { number, checked, expires };
        self.known.iter().map(entry).filter(|known| known.expires > now).collect()
    }
}

/// Two halves of a table: when the young one is full, the old one is forgotten and they change places.
#[derive(Debug)]
struct Generations<V> {
    young: HashMap<u64, V>,
    old: HashMap<u64, V>,
}

impl<V> Default for Generations<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V: Copy> Generations<V> {
    fn get(&self, number: u64) -> Option<V> {
        self.young.get(&number).or_else(|| self.old.get(&number)).copied()
    }

    fn insert(&mut self, number: u64, value: V, most: usize) {
        self.old.remove(&number);
        if self.young.len() >= most.div_ceil(2) && !self.young.contains_key(&number) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(number, value);
    }

    fn remove(&mut self, number: u64) -> bool {
        self.young.remove(&number).is_some() | self.old.remove(&number).is_some()
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn iter(&self) -> impl Iterator<Item = (u64, V)> {
        self.young.iter().chain(&self.old).map(|(number, value)| (*number, *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const SPANS: Spans = Spans { known: 7 * DAY, refresh: DAY, unknown: 600 };

    #[test]
    fn known_ones_last_for_days_and_unknown_ones_for_minutes() {
        let mut cache = Cache::new(100);
        cache.found(1, SPANS, 1000);
        assert!(!cache.missed(2, SPANS, 1000));
        for (later, one, two) in [
            (0, Some(Remembered::Known), Some(Remembered::Unknown)),
            (599, Some(Remembered::Known), Some(Remembered::Unknown)),
            (600, Some(Remembered::Known), None),
            (DAY - 1, Some(Remembered::Known), None),
            (DAY, Some(Remembered::Ageing), None),
            (7 * DAY - 1, Some(Remembered::Ageing), None),
            (7 * DAY, None, None),
        ] {
            assert_eq!((cache.find(1, SPANS, 1000 + later), cache.find(2, SPANS, 1000 + later)), (one, two), "{later}");
        }
    }

    #[test]
    fn the_last_answer_counts() {
        let mut cache = Cache::new(100);
        cache.found(1, SPANS, 1000);
        assert!(cache.missed(1, SPANS, 1001), "gone");
        assert_eq!(cache.find(1, SPANS, 1002), Some(Remembered::Unknown));
        cache.found(1, SPANS, 1003);
        assert_eq!(cache.find(1, SPANS, 1004), Some(Remembered::Known));
        cache.learned(Known { number: 1, checked: 5, expires: 6 });
        assert_eq!(cache.find(1, SPANS, 1004), Some(Remembered::Known), "what others found before is older");
        assert_eq!((cache.len(), cache.all(1004).len(), cache.all(u64::MAX).len()), (1, 1, 0));
    }

    #[test]
    fn shorter_settings_hold_at_once() {
        let mut cache = Cache::new(100);
        cache.found(1, SPANS, 1000);
        let short = Spans { known: 60, refresh: 30, unknown: 600 };
        assert_eq!(cache.find(1, short, 1040), Some(Remembered::Ageing));
        assert_eq!(cache.find(1, short, 1060), None);
    }

    #[test]
    fn memory_is_bounded_and_unknown_ones_do_not_push_out_known_ones() {
        let mut cache = Cache::new(1000);
        for number in 0..100 {
            cache.found(number, SPANS, 0);
        }
        for number in 1000..100_000 {
            cache.missed(number, SPANS, 0);
        }
        assert!(cache.unknown.len() <= 1000);
        assert!((0..100).all(|number| cache.find(number, SPANS, 1) == Some(Remembered::Known)));
        for number in 200..100_000 {
            cache.found(number, SPANS, 0);
        }
        assert!(cache.len() <= 1000 && cache.find(99_999, SPANS, 1).is_some());
    }
}
