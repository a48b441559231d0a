// SPDX-License-Identifier: GPL-3.0-or-later
//! When an engine is asked no more for a while: a circuit breaker. Pure; the clock is the caller's.
//!
//! After so many failures in a row the engine is set aside and every message learns at once that it gives no answer,
//! instead of each waiting for it. After a pause one caller tries it (half open); the others still go without.

use std::time::Duration;
use tokio::time::Instant;

/// The longest pause, as a multiple of the first.
const LONGEST: u32 = 8;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Ask the engine.
    Go,
    /// Find out first whether the engine is back.
    Probe,
    /// Do not ask it, for this long.
    Aside(Duration),
}

/// Whether a success or failure has changed the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Set aside, for this long.
    Opened(Duration),
    /// Asked again.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    /// Somebody tries it. Whoever that is may be cancelled; another one tries after this time.
    HalfOpen {
        until: Instant,
    },
}

/// The breaker of one engine.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Pauses in a row.
    pauses: u32,
    limit: u32,
    pause: Duration,
}

impl Breaker {
    /// One that opens after `limit` failures in a row, for `pause` at first, doubling while the engine stays away.
    pub(super) fn new(limit: u32, pause: Duration) -> Breaker {
        Breaker { state: State::Closed, failures: 0, pauses: 0, limit, pause }
    }

    /// Whether the engine is asked now.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed => Admission::Go,
            State::Open { until } | State::HalfOpen { until } if now < until => Admission::Aside(until - now),
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { until: now + self.pause };
                Admission::Probe
            }
        }
    }

    /// The engine has answered.
    pub(super) fn success(&mut self) -> Change {
        let was = std::mem::replace(&mut self.state, State::Closed);
        (self.failures, self.pauses) = (0, 0);
        if was == State::Closed { Change::None } else { Change::Closed }
    }

    /// The engine has not answered.
    pub(super) fn failure(&mut self, now: Instant) -> Change {
        self.failures = self.failures.saturating_add(1);
        let open = match self.state {
            State::Closed => self.failures >= self.limit,
            // The failures of those who asked before it opened say nothing new.
            State::Open { .. } => false,
            State::HalfOpen { .. } => true,
        };
        if !open {
            return Change::None;
        }
        let pause = self.pause * (1 << self.pauses.min(LONGEST.ilog2()));
        self.pauses = self.pauses.saturating_add(1);
        self.state = State::Open { until: now + pause };
        Change::Opened(pause)
    }

    /// Whether the engine is asked by everybody.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_one_success() {
        let (mut breaker, start) = (Breaker::new(3, 10 * SECOND), Instant::now());
        assert_eq!((breaker.failure(start), breaker.failure(start)), (Change::None, Change::None));
        assert_eq!(breaker.success(), Change::None);
        assert_eq!((breaker.failure(start), breaker.failure(start)), (Change::None, Change::None));
        assert_eq!(breaker.admit(start), Admission::Go);
        assert_eq!(breaker.failure(start), Change::Opened(10 * SECOND));
        assert!(!breaker.is_closed());
        assert_eq!(breaker.admit(start + SECOND), Admission::Aside(9 * SECOND));
        assert_eq!(breaker.failure(start + SECOND), Change::None);
        let later = start + 10 * SECOND;
        assert_eq!(breaker.admit(later), Admission::Probe);
        assert_eq!(breaker.admit(later), Admission::Aside(10 * SECOND));
        assert_eq!(breaker.success(), Change::Closed);
        assert_eq!(breaker.admit(later), Admission::Go);
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_a_lost_probe_is_made_again() {
        let (mut breaker, mut now) = (Breaker::new(1, 10 * SECOND), Instant::now());
        for seconds in [10, 20, 40, 80, 80, 80] {
            assert_eq!(breaker.failure(now), Change::Opened(seconds * SECOND));
            now += seconds * SECOND;
            assert_eq!(breaker.admit(now), Admission::Probe);
        }
        // Whoever tried it never came back.
        assert_eq!(breaker.admit(now + 10 * SECOND), Admission::Probe);
        assert_eq!(breaker.success(), Change::Closed);
        assert_eq!(breaker.failure(now), Change::Opened(10 * SECOND));
    }
}
