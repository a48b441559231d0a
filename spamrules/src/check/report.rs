// SPDX-License-Identifier: GPL-3.0-or-later
//! What a run says in the end.

use super::run::{Run, place};
use super::{Hit, Report, SetAside};
use crate::autolearn::{Autolearn, Points};

impl Run<'_> {
    pub(super) fn report(mut self) -> Report {
        let earlier = self.earlier.take();
        let new_hit =
            |number| earlier.as_ref().is_none_or(|known| known.counts.get(number).is_none_or(|count| *count == 0.0));
        let mut report = Report { complete: !self.account.is_over(), required: self.required, ..Report::default() };
        let mut points = Points::default();
        for (number, ((rule, &count), &score)) in self.rules.rules.iter().zip(&self.counts).zip(self.scores).enumerate()
        {
            if count == 0.0 || score == 0.0 {
                continue;
            }
            if new_hit(number) {
                self.learnt.hit(number);
            }
            if rule.name.starts_with("__") {
                report.subrules.push(rule.name.clone());
                continue;
            }
            let times = if rule.adds_each_hit() { count } else { 1.0 };
            report.score += score * times;
            if let (Some(scores), Ok(id)) = (self.all_scores.get(number), u32::try_from(number)) {
                points.add(self.rules, id, rule, times, scores, self.options);
            }
            report.hits.push(Hit {
                rule: rule.name.clone(),
                score: score * times,
                count,
                description: rule.description.clone(),
                details: self.context.notes_of(&rule.name),
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
        let now = self.context.environment.now;
        let new_strike = |id: &&u32| earlier.as_ref().is_none_or(|known| !known.aside.contains(id));
        self.aside.keys().filter(new_strike).for_each(|&id| self.learnt.strike(place(id), now));
        report.costs = self.account.costs();
        if earlier.is_none() {
            report.costs.iter().enumerate().for_each(|(rule, &cost)| self.learnt.cost(rule, cost));
            self.learnt.done();
        }
        report.bound = self.bound;
        if report.complete && self.bound.is_none_or(|bound| bound.left == 0) {
            report.autolearn = points.decide(&self.context.settings.autolearn, report.is_spam());
            report.autolearn_forced = points.forced && report.autolearn != Autolearn::No;
        }
        report.uris_missing = self.context.misses_uris();
        if let Some(known) = earlier {
            report.complete &= !known.incomplete;
            report.uris_missing |= known.uris_missing;
        }
        report
    }
}
