// SPDX-License-Identifier: GPL-3.0-or-later
//! What a message may cost, and what each rule has cost it.

use std::time::Duration;

/// A clock of the caller's: time since some fixed instant.
pub type Clock<'a> = &'a dyn Fn() -> Duration;

/// What checking one message may cost. Without a clock only steps are limited, which are so in any case.
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    /// Measures time; CPU time of the thread is the best measure.
    pub clock: Option<Clock<'a>>,
    /// For the whole message: when it is spent, what has not run is left out and the report says so.
    pub total: Duration,
    /// For one rule: when it is spent, the rule is set aside for this message.
    pub rule: Duration,
}

impl Default for Budget<'_> {
    fn default() -> Self {
        Budget { clock: None, total: Duration::from_secs(2), rule: Duration::from_millis(200) }
    }
}

impl std::fmt::Debug for Budget<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Budget")
            .field("clock", &self.clock.is_some())
            .field("total", &self.total)
            .field("rule", &self.rule)
            .finish()
    }
}

/// Why a rule was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A search took more steps than it may.
    Steps,
    /// The rule took more time than it may.
    Time,
}

/// What checking one message has cost so far.
pub(super) struct Account<'a> {
    budget: Budget<'a>,
    begun: Duration,
    last: Duration,
    spent: Vec<Duration>,
    over: bool,
}

impl<'a> Account<'a> {
    pub(super) fn new(budget: Budget<'a>, rules: usize) -> Account<'a> {
        let begun = budget.clock.map_or(Duration::ZERO, |clock| clock());
        let spent = if budget.clock.is_some() { vec![Duration::ZERO; rules] } else { Vec::new() };
        Account { budget, begun, last: begun, spent, over: false }
    }

    /// Notes that the time before this was nobody's.
    pub(super) fn skip(&mut self) {
        if let Some(clock) = self.budget.clock {
            self.last = clock();
            self.over |= self.last.saturating_sub(self.begun) > self.budget.total;
        }
    }

    /// Charges the time since the last charge to a rule; says whether it has now had too much.
    pub(super) fn charge(&mut self, rule: usize) -> bool {
        let Some(clock) = self.budget.clock else { return false };
        let now = clock();
        let cost = now.saturating_sub(self.last);
        self.last = now;
        self.over |= now.saturating_sub(self.begun) > self.budget.total;
        let Some(spent) = self.spent.get_mut(rule) else { return false };
        *spent += cost;
        *spent > self.budget.rule
    }

    /// Whether the message has cost all that it may.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// What a rule has cost.
    pub(super) fn spent(&self, rule: usize) -> Duration {
        self.spent.get(rule).copied().unwrap_or_default()
    }

    /// What each rule has cost; empty without a clock.
    pub(super) fn costs(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.spent)
    }
}
