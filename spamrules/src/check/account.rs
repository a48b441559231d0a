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
    /// What each rule costs is measured for one message of so many, and for those that turn out slow: reading the clock twice per rule
    /// costs more than most rules do. 1: every message; 0: only slow ones.
    pub measure: u32,
    /// The scores at which what is done with the message changes. Rules run only until it is proven between which of them the score lies;
    /// the report says so ([`crate::Report::bound`]). Empty: everything runs.
    pub levels: &'a [f64],
}

impl Default for Budget<'_> {
    fn default() -> Self {
        Budget {
            clock: None,
            total: Duration::from_secs(2),
            rule: Duration::from_millis(200),
            measure: 64,
            levels: &[],
        }
    }
}

impl std::fmt::Debug for Budget<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Budget")
            .field("clock", &self.clock.is_some())
            .field("total", &self.total)
            .field("rule", &self.rule)
            .field("measure", &self.measure)
            .field("levels", &self.levels)
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

/// How many rules run between two looks at the clock, while they are not measured one by one.
const UNMEASURED: u32 = 64;
/// A message in which that many take longer is measured from then on: a rule that is too slow is then soon found, and one that is merely long
/// costs no looks at the clock.
const SLOW: Duration = Duration::from_millis(10);

/// What checking one message has cost so far.
pub(super) struct Account<'a> {
    budget: Budget<'a>,
    /// Whether every rule is measured.
    exact: bool,
    /// Whether it was so from the beginning.
    whole: bool,
    /// Rules since the last look at the clock, when not.
    unmeasured: u32,
    begun: Duration,
    last: Duration,
    spent: Vec<Duration>,
    over: bool,
}

impl<'a> Account<'a> {
    /// An account for one message; `exact` asks for the cost of each rule.
    pub(super) fn new(budget: Budget<'a>, exact: bool, rules: usize) -> Account<'a> {
        let exact = exact && budget.clock.is_some();
        let begun = budget.clock.map_or(Duration::ZERO, |clock| clock());
        let spent = if exact { vec![Duration::ZERO; rules] } else { Vec::new() };
        Account { budget, exact, whole: exact, unmeasured: 0, begun, last: begun, spent, over: false }
    }

    /// The account of a message that is gone on with: what each rule had cost it, empty when that was not measured.
    pub(super) fn resumed(budget: Budget<'a>, spent: Vec<Duration>) -> Account<'a> {
        Account { spent, ..Account::new(budget, false, 0) }.measuring()
    }

    fn measuring(self) -> Account<'a> {
        let measured = !self.spent.is_empty() && self.budget.clock.is_some();
        Account { exact: measured, whole: measured, ..self }
    }

    /// Notes that the time before this was nobody's.
    pub(super) fn skip(&mut self) {
        if self.exact
            && let Some(clock) = self.budget.clock
        {
            self.last = clock();
            self.over |= self.last.saturating_sub(self.begun) > self.budget.total;
        }
    }

    /// Charges the time since the last charge to a rule; says whether it has now had too much.
    pub(super) fn charge(&mut self, rule: usize) -> bool {
        let Some(clock) = self.budget.clock else { return false };
        if !self.exact {
            self.unmeasured += 1;
            if self.unmeasured < UNMEASURED {
                return false;
            }
        }
        let now = clock();
        let cost = now.saturating_sub(self.last);
        self.last = now;
        self.over |= now.saturating_sub(self.begun) > self.budget.total;
        if !self.exact {
            self.unmeasured = 0;
            self.exact = cost > SLOW;
            return false;
        }
        if self.spent.len() <= rule {
            self.spent.resize(rule + 1, Duration::ZERO);
        }
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

    /// What each rule has cost; empty when it was not measured from the beginning.
    pub(super) fn costs(&mut self) -> Vec<Duration> {
        if self.whole { std::mem::take(&mut self.spent) } else { Vec::new() }
    }
}
