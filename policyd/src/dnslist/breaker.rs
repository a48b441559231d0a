// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether a DNS list may be asked: not before its first self test, not after too many questions without an answer, and not after an answer that
//! no working list gives. A list that is set aside comes back through its self test (RFC 5782 section 5), never by trying it on mail.
//!
//! Pure: the time is given.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// After a test or questions without an answer the next test comes so soon: it is mostly our own resolver that was away.
const SOON: Duration = Duration::from_secs(15);

/// Why a list is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Not tested since the daemon started.
    Untested,
    /// Questions got no answer.
    NoAnswer,
    /// It says that it does not answer us: a public resolver, too many questions, no subscription.
    Blocked(Ipv4Addr),
    /// An answer outside 127/8: somebody else has the zone now, or the resolver invents answers.
    Foreign(Ipv4Addr),
    /// It lists the test entry that must not be there.
    ListsEverything,
    /// It does not list the test entry that must be there.
    ListsNothing,
}

impl Why {
    /// True when answers that were kept may be as wrong.
    pub fn taints(self) -> bool {
        matches!(self, Self::Foreign(_) | Self::ListsEverything | Self::ListsNothing)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untested => f.write_str("it has not been tested yet"),
            Self::NoAnswer => f.write_str("it gives no answer"),
            Self::Blocked(answer) => write!(f, "it refuses our questions with {answer}"),
            Self::Foreign(answer) => write!(f, "it answers {answer}, which is no answer of a list"),
            Self::ListsEverything => f.write_str("it lists the test entry that must not be listed"),
            Self::ListsNothing => f.write_str("it does not list the test entry that must be listed"),
        }
    }
}

/// How patient a breaker is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Questions in a row without an answer after which the list is set aside.
    pub failures: u32,
    /// For how long after an answer that no working list gives.
    pub pause: Duration,
    /// Time between two tests of a list that works.
    pub test_every: Duration,
}

/// What a change of state was; told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It may be asked, for the first time.
    Ready,
    /// It may be asked again.
    Back,
    /// It is set aside.
    Aside(Why),
}

/// What a self test came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tested {
    /// The list works, or has no test entries.
    Good,
    /// It does not.
    Bad(Why),
}

/// The state of one list.
#[derive(Debug)]
pub struct Breaker {
    aside: Option<Why>,
    failures: u32,
    test_at: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { aside: Some(Why::Untested), failures: 0, test_at: None }
    }
}

impl Breaker {
    /// Why it may not be asked; none when it may.
    pub fn aside(&self) -> Option<Why> {
        self.aside
    }

    /// True when it is time for the next self test.
    pub fn test_due(&self, now: Instant) -> bool {
        self.test_at.is_none_or(|at| at <= now)
    }

    /// A question was answered.
    pub fn answered(&mut self) {
        self.failures = 0;
    }

    /// A question got no answer.
    pub fn failed(&mut self, now: Instant, patience: Patience) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        if self.failures < patience.failures { None } else { self.set_aside(Why::NoAnswer, now, patience) }
    }

    /// An answer came that no working list gives.
    pub fn misled(&mut self, why: Why, now: Instant, patience: Patience) -> Option<Change> {
        self.set_aside(why, now, patience)
    }

    /// A self test has been made.
    pub fn tested(&mut self, result: Tested, now: Instant, patience: Patience) -> Option<Change> {
        match result {
            Tested::Good => {
                (self.failures, self.test_at) = (0, Some(now + patience.test_every));
                match self.aside.take()? {
                    Why::Untested => Some(Change::Ready),
                    _ => Some(Change::Back),
                }
            }
            // One test without an answer proves nothing against a list that works.
            Tested::Bad(Why::NoAnswer) if self.aside.is_none() => {
                self.test_at = Some(now + SOON.min(patience.test_every));
                self.failed(now, patience)
            }
            Tested::Bad(why) => self.set_aside(why, now, patience),
        }
    }

    fn set_aside(&mut self, why: Why, now: Instant, patience: Patience) -> Option<Change> {
        let pause = if why == Why::NoAnswer { SOON.min(patience.pause) } else { patience.pause };
        self.test_at = Some(now + pause);
        self.failures = 0;
        // One reason after another is the same trouble, told once.
        let was_asked = matches!(self.aside, None | Some(Why::Untested));
        self.aside = Some(why);
        was_asked.then_some(Change::Aside(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { failures: 3, pause: Duration::from_secs(300), test_every: Duration::from_secs(3600) };

    fn ready(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.tested(Tested::Good, now, PATIENCE), Some(Change::Ready));
        breaker
    }

    #[test]
    fn nothing_is_asked_before_the_first_test() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!((breaker.aside(), breaker.test_due(now)), (Some(Why::Untested), true));
        assert_eq!(
            breaker.tested(Tested::Bad(Why::NoAnswer), now, PATIENCE),
            Some(Change::Aside(Why::NoAnswer)),
            "told: it does not work from the start"
        );
        assert!(!breaker.test_due(now) && breaker.test_due(now + SOON));
        assert_eq!(breaker.tested(Tested::Good, now, PATIENCE), Some(Change::Back));
        assert_eq!((breaker.aside(), breaker.test_due(now)), (None, false));
    }

    #[test]
    fn failures_in_a_row_set_it_aside_and_a_test_brings_it_back() {
        let now = Instant::now();
        let mut breaker = ready(now);
        assert_eq!((breaker.failed(now, PATIENCE), breaker.failed(now, PATIENCE)), (None, None));
        breaker.answered();
        assert_eq!((breaker.failed(now, PATIENCE), breaker.failed(now, PATIENCE)), (None, None));
        assert_eq!(breaker.failed(now, PATIENCE), Some(Change::Aside(Why::NoAnswer)));
        assert_eq!(breaker.aside(), Some(Why::NoAnswer));
        // Answers to questions that were on their way do not bring it back, and failures are not told twice.
        breaker.answered();
        assert!((0..9).all(|_| breaker.failed(now, PATIENCE).is_none()));
        assert_eq!(breaker.tested(Tested::Good, now, PATIENCE), Some(Change::Back));
    }

    #[test]
    fn one_wrong_answer_is_enough() {
        let now = Instant::now();
        let blocked = Why::Blocked(Ipv4Addr::new(127, 255, 255, 254));
        for why in [blocked, Why::Foreign(Ipv4Addr::new(192, 0, 2, 1)), Why::ListsEverything, Why::ListsNothing] {
            let mut breaker = ready(now);
            assert_eq!(breaker.misled(why, now, PATIENCE), Some(Change::Aside(why)));
            assert!(!breaker.test_due(now + Duration::from_secs(299)) && breaker.test_due(now + PATIENCE.pause));
            assert_eq!(breaker.tested(Tested::Bad(blocked), now, PATIENCE), None, "told already");
            assert_eq!(breaker.aside(), Some(blocked));
        }
    }

    #[test]
    fn a_test_without_an_answer_is_one_failure_for_a_list_that_works() {
        let now = Instant::now();
        let mut breaker = ready(now);
        for _ in 0..2 {
            assert_eq!(breaker.tested(Tested::Bad(Why::NoAnswer), now, PATIENCE), None);
            assert!(breaker.aside().is_none() && breaker.test_due(now + SOON));
        }
        assert_eq!(breaker.tested(Tested::Bad(Why::NoAnswer), now, PATIENCE), Some(Change::Aside(Why::NoAnswer)));
    }
}
