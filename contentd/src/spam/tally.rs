// SPDX-License-Identifier: GPL-3.0-or-later
//! Counting what rules do to messages, in memory, until it is taken to the store. Pure: the day is given.
//!
//! Rules are counted by name, since a new set of rules gives their numbers to others; only their costs, which come for every rule of the set with
//! each message, are summed up by number and given names when the set or the day changes or somebody asks.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use spamrules::{Report, Ruleset};

use crate::store::rules::{DayRow, RuleRow};

/// Most rules by day that are kept; a set has some thousands.
pub(crate) const MOST: usize = 60_000;

/// Scores at which a message is treated in another way.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    /// From here on it is tagged.
    pub tagged: f64,
    /// From here on it is spam; at least as high.
    pub spam: f64,
    /// Where else something changes.
    pub others: Vec<f64>,
}

/// What the rules said of one message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked<'a> {
    /// The rules.
    pub(crate) rules: &'a Ruleset,
    /// Of that set.
    pub(crate) generation: u64,
    /// Their report.
    pub(crate) report: &'a Report,
    /// All points, those that are not the rules' too.
    pub(crate) score: f64,
}

/// What people say of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It is spam.
    Spam,
    /// It is none.
    Ham,
}

impl Class {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Class::Spam => "spam",
            Class::Ham => "ham",
        }
    }
}

/// What is to be added to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) days: Vec<DayRow>,
    pub(crate) rules: Vec<RuleRow>,
}

/// What has been counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    days: BTreeMap<i64, Day>,
    costs: Option<Costs>,
    room: Room,
}

/// How much is kept.
#[derive(Debug, Default)]
struct Room {
    /// Rules of all days.
    kept: usize,
    /// Hits and costs that found no place.
    dropped: u64,
}

#[derive(Debug, Default)]
struct Day {
    all: DayRow,
    rules: HashMap<String, RuleRow, RandomState>,
}

/// What the rules of one set have cost on one day, by number.
#[derive(Debug)]
struct Costs {
    day: i64,
    generation: u64,
    rules: Ruleset,
    spent: Vec<u64>,
    measured: i64,
}

/// One rule that hit, seen from the message.
struct Mark {
    points: i64,
    is_marginal: bool,
}

impl Tally {
    /// Counts a message.
    pub(crate) fn note(&mut self, day: i64, checked: Checked<'_>, levels: &Levels) {
        let action = Action::of(thousandths(checked.score), levels);
        let Tally { days, room, .. } = self;
        let kept = Day::of(days, day);
        kept.all.messages += 1;
        kept.all.spam += i64::from(action.is_spam);
        kept.all.tagged += i64::from(action.is_decided && !action.is_spam);
        for hit in &checked.report.hits {
            let points = thousandths(hit.score);
            let without = Action::of(thousandths(checked.score).saturating_sub(points), levels);
            kept.hit(room, &hit.rule, &action, Mark { points, is_marginal: without != action });
        }
        for name in &checked.report.subrules {
            kept.hit(room, name, &action, Mark { points: 0, is_marginal: false });
        }
        self.charge(day, checked);
    }

    /// Counts what somebody says of a message, on the day when it is said.
    pub(crate) fn feedback(&mut self, day: i64, checked: Checked<'_>, is_decided: bool, class: Class) {
        let Tally { days, room, .. } = self;
        let kept = Day::of(days, day);
        let all = &mut kept.all;
        match class {
            Class::Spam => {
                all.told_spam += 1;
                all.false_negatives += i64::from(!is_decided);
            }
            Class::Ham => {
                all.told_ham += 1;
                all.false_positives += i64::from(is_decided);
            }
        }
        let hits = checked.report.hits.iter().map(|hit| (hit.rule.as_str(), thousandths(hit.score)));
        let subrules = checked.report.subrules.iter().map(|name| (name.as_str(), 0));
        for (name, points) in hits.chain(subrules) {
            let Some(rule) = kept.rule(room, name) else { continue };
            match class {
                Class::Spam => {
                    rule.told_spam += 1;
                    rule.false_negatives += i64::from(points < 0);
                }
                Class::Ham => {
                    rule.told_ham += 1;
                    rule.false_positives += i64::from(points > 0);
                }
            }
        }
    }

    /// Adds what the rules have cost the message, if that was measured.
    fn charge(&mut self, day: i64, checked: Checked<'_>) {
        let costs = &checked.report.costs;
        if costs.is_empty() {
            return;
        }
        let is_same = |kept: &Costs| (kept.day, kept.generation) == (day, checked.generation);
        if !self.costs.as_ref().is_some_and(is_same) {
            self.name_costs();
        }
        let fresh = || Costs {
            day,
            generation: checked.generation,
            rules: checked.rules.clone(),
            spent: vec![0; costs.len()],
            measured: 0,
        };
        let kept = self.costs.get_or_insert_with(fresh);
        kept.measured += 1;
        for (sum, cost) in kept.spent.iter_mut().zip(costs) {
            // Done for every rule with every message: cheaper than by way of 128 bits.
            let whole = cost.as_secs().saturating_mul(1_000_000_000);
            *sum = sum.saturating_add(whole).saturating_add(u64::from(cost.subsec_nanos()));
        }
    }

    /// Enters the costs under the names of their rules.
    fn name_costs(&mut self) {
        let Some(Costs { day, rules, spent, measured, .. }) = self.costs.take() else { return };
        let Tally { days, room, .. } = self;
        let kept = Day::of(days, day);
        kept.all.measured += measured;
        for ((name, _), cost) in rules.rules().zip(spent).filter(|(_, cost)| *cost > 0) {
            if let Some(rule) = kept.rule(room, name) {
                rule.cost = rule.cost.saturating_add(i64::try_from(cost).unwrap_or(i64::MAX));
            }
        }
    }

    /// Takes what has been counted, in order; `costs`: those of rules that did not hit, too.
    pub(crate) fn take(&mut self, costs: bool) -> Taken {
        if costs {
            self.name_costs();
        }
        self.room.kept = 0;
        let mut taken = Taken::default();
        for day in std::mem::take(&mut self.days).into_values() {
            taken.days.push(day.all);
            let mut rules: Vec<RuleRow> = day.rules.into_values().collect();
            rules.sort_unstable_by(|a, b| a.rule.cmp(&b.rule));
            taken.rules.append(&mut rules);
        }
        taken
    }

    /// How much found no room since this was asked last.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.room.dropped)
    }
}

impl Day {
    fn of(days: &mut BTreeMap<i64, Day>, day: i64) -> &mut Day {
        let fresh = || Day { all: DayRow { day, ..DayRow::default() }, rules: HashMap::default() };
        days.entry(day).or_insert_with(fresh)
    }

    fn hit(&mut self, room: &mut Room, name: &str, action: &Action, mark: Mark) {
        let Some(rule) = self.rule(room, name) else { return };
        rule.hits += 1;
        rule.decided += i64::from(action.is_decided);
        rule.marginal += i64::from(mark.is_marginal);
        rule.points = rule.points.saturating_add(mark.points);
    }

    /// The figures of a rule; none when there is no place for another one.
    fn rule(&mut self, room: &mut Room, name: &str) -> Option<&mut RuleRow> {
        if !self.rules.contains_key(name) {
            if room.kept >= MOST {
                room.dropped += 1;
                return None;
            }
            let fresh = RuleRow { day: self.all.day, rule: name.to_owned(), ..RuleRow::default() };
            self.rules.insert(name.to_owned(), fresh);
            room.kept += 1;
        }
        self.rules.get_mut(name)
    }
}

/// How a message with some score is treated.
#[derive(Debug, PartialEq, Eq)]
struct Action {
    /// How many levels it has reached.
    reached: usize,
    is_decided: bool,
    is_spam: bool,
}

impl Action {
    fn of(score: i64, levels: &Levels) -> Action {
        let reached = |level: &f64| score >= thousandths(*level);
        let all = levels.others.iter().chain([&levels.tagged, &levels.spam]);
        Action {
            reached: all.filter(|level| reached(level)).count(),
            is_decided: reached(&levels.tagged) || reached(&levels.spam),
            is_spam: reached(&levels.spam),
        }
    }
}

/// A score as a whole number, so that sums do not depend on their order.
pub(crate) fn thousandths(score: f64) -> i64 {
    // Out of range it becomes the largest number there is, and not a number 0.
    (score * 1000.0).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use spamrules::{Hit, Options};
    use std::time::Duration;

    const LEVELS: Levels = Levels { tagged: 5.0, spam: 8.0, others: Vec::new() };

    fn rules(text: &str) -> Ruleset {
        Ruleset::load([("test.cf", text.as_bytes())], Options::default(), &|_| None)
    }

    fn report(hits: &[(&str, f64)], costs: &[u64]) -> Report {
        let hit = |(rule, score): &(&str, f64)| Hit {
            rule: (*rule).into(),
            score: *score,
            count: 1.0,
            description: String::new(),
            details: Vec::new(),
        };
        Report {
            hits: hits.iter().map(hit).collect(),
            score: hits.iter().map(|(_, score)| score).sum(),
            costs: costs.iter().copied().map(Duration::from_nanos).collect(),
            ..Report::default()
        }
    }

    struct Bench {
        tally: Tally,
        rules: Ruleset,
        generation: u64,
    }

    impl Bench {
        fn new(text: &str) -> Bench {
            Bench { tally: Tally::default(), rules: rules(text), generation: 1 }
        }

        fn note(&mut self, day: i64, report: &Report, extra: f64) {
            let (rules, generation, score) = (&self.rules, self.generation, report.score + extra);
            self.tally.note(day, Checked { rules, generation, report, score }, &LEVELS);
        }

        fn tell(&mut self, day: i64, report: &Report, class: Class) {
            let (rules, generation, score) = (&self.rules, self.generation, report.score);
            self.tally.feedback(day, Checked { rules, generation, report, score }, score >= 5.0, class);
        }
    }

    fn row(taken: &Taken, day: i64, name: &str) -> RuleRow {
        taken.rules.iter().find(|row| (row.day, row.rule.as_str()) == (day, name)).cloned().unwrap_or_default()
    }

    #[test]
    fn hits_and_what_they_led_to() {
        let mut bench = Bench::new("body A /a/\nbody B /b/\n");
        bench.note(1, &report(&[("A", 4.0), ("B", 1.0)], &[]), 0.0);
        bench.note(1, &report(&[("A", 4.0)], &[]), 0.0);
        bench.note(1, &report(&[("A", 4.0), ("N", -1.0)], &[]), 2.0);
        bench.note(1, &report(&[("A", 4.0)], &[]), 4.5);
        let taken = bench.tally.take(false);
        let day = DayRow { day: 1, messages: 4, tagged: 2, spam: 1, ..DayRow::default() };
        assert_eq!(taken.days, [day]);
        let a = RuleRow {
            day: 1,
            rule: "A".into(),
            hits: 4,
            decided: 3,
            marginal: 3,
            points: 16_000,
            ..RuleRow::default()
        };
        assert_eq!(row(&taken, 1, "A"), a);
        let b =
            RuleRow { day: 1, rule: "B".into(), hits: 1, decided: 1, marginal: 1, points: 1000, ..RuleRow::default() };
        assert_eq!(row(&taken, 1, "B"), b);
        let n =
            RuleRow { day: 1, rule: "N".into(), hits: 1, decided: 1, marginal: 0, points: -1000, ..RuleRow::default() };
        assert_eq!(row(&taken, 1, "N"), n);
        assert_eq!(bench.tally.take(true), Taken::default());
    }

    #[test]
    fn a_rule_is_marginal_when_any_level_is_crossed_without_it() {
        let levels = Levels { tagged: 5.0, spam: 8.0, others: vec![2.0] };
        let rules = rules("");
        let marginal = |hits: &[(&str, f64)]| {
            let report = report(hits, &[]);
            let mut tally = Tally::default();
            tally.note(1, Checked { rules: &rules, generation: 1, report: &report, score: report.score }, &levels);
            row(&tally.take(false), 1, "A").marginal
        };
        assert_eq!(marginal(&[("A", 0.1), ("B", 1.9)]), 1);
        assert_eq!(marginal(&[("A", 0.1), ("B", 2.0)]), 0);
        assert_eq!(marginal(&[("A", -0.1), ("B", 8.0)]), 1, "without it the message would be spam");
        // 0.1 + 0.2 + 4.7 is less than 5 in binary fractions.
        assert_eq!(marginal(&[("B", 0.1), ("C", 0.2), ("A", 4.7)]), 1);
        assert_eq!(marginal(&[("A", 0.0), ("B", 5.0)]), 0);
    }

    #[test]
    fn costs_go_to_the_rules_of_the_set_that_was_used() {
        let mut bench = Bench::new("body A /a/\nbody B /b/\nbody C /c/\n");
        bench.note(1, &report(&[], &[10, 20, 0]), 0.0);
        bench.note(1, &report(&[("A", 1.0)], &[10, 20, 0]), 0.0);
        let early = bench.tally.take(false);
        assert_eq!((early.days[0].messages, early.days[0].measured, row(&early, 1, "A").cost), (2, 0, 0));
        bench.note(2, &report(&[], &[1, 0, 0]), 0.0);
        // Another set, in which the first number is another rule's.
        (bench.rules, bench.generation) = (rules("body B /b/\nbody A /a/\n"), 2);
        bench.note(2, &report(&[], &[100, 1000]), 0.0);
        bench.note(2, &report(&[], &[]), 0.0);
        let taken = bench.tally.take(true);
        let costs: Vec<_> = taken.rules.iter().map(|row| (row.day, row.rule.as_str(), row.cost)).collect();
        assert_eq!(costs, [(1, "A", 20), (1, "B", 40), (2, "A", 1001), (2, "B", 100)]);
        let days: Vec<_> = taken.days.iter().map(|day| (day.day, day.messages, day.measured)).collect();
        assert_eq!(days, [(1, 0, 2), (2, 3, 2)]);
    }

    #[test]
    fn feedback_says_who_was_wrong() {
        let mut bench = Bench::new("");
        let taken_for_spam = report(&[("A", 6.0), ("N", -1.0)], &[]);
        let passed = report(&[("A", 1.0), ("N", -1.0)], &[]);
        bench.tell(7, &taken_for_spam, Class::Ham);
        bench.tell(7, &taken_for_spam, Class::Spam);
        bench.tell(7, &passed, Class::Spam);
        bench.tell(7, &passed, Class::Ham);
        let taken = bench.tally.take(false);
        let day =
            DayRow { day: 7, told_spam: 2, told_ham: 2, false_positives: 1, false_negatives: 1, ..DayRow::default() };
        assert_eq!(taken.days, [day]);
        let told = |name: &str| {
            let row = row(&taken, 7, name);
            (row.hits, row.told_spam, row.told_ham, row.false_positives, row.false_negatives)
        };
        assert_eq!(told("A"), (0, 2, 2, 2, 0));
        assert_eq!(told("N"), (0, 2, 2, 0, 2));
    }

    #[test]
    fn rows_are_in_the_order_in_which_hosts_write_them() {
        let mut bench = Bench::new("");
        let names: Vec<String> = (0..200).map(|number| format!("R{}", (number * 7919) % 1000)).collect();
        let hits: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 0.1)).collect();
        [3, 1, 2].iter().for_each(|day| bench.note(*day, &report(&hits, &[]), 0.0));
        let taken = bench.tally.take(true);
        assert!(taken.rules.is_sorted_by_key(|row| (row.day, row.rule.clone())));
        assert_eq!(taken.rules.len(), 600);
    }

    #[test]
    fn memory_is_bounded() {
        let mut bench = Bench::new("");
        for number in 0..MOST + 10 {
            bench.note(1, &report(&[(&format!("R{number}"), 0.1)], &[]), 0.0);
        }
        assert_eq!(bench.tally.take_dropped(), 10);
        assert_eq!(bench.tally.take(true).rules.len(), MOST);
        bench.note(1, &report(&[("R", 0.1)], &[]), 0.0);
        assert_eq!((bench.tally.take_dropped(), bench.tally.take(true).rules.len()), (0, 1));
    }

    #[test]
    fn odd_scores_do_not_break_anything() {
        let mut bench = Bench::new("");
        for score in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
            bench.note(1, &report(&[("A", score), ("B", 1.0)], &[]), 0.0);
        }
        assert_eq!(row(&bench.tally.take(true), 1, "A").hits, 4);
    }
}
