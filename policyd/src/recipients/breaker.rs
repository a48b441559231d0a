// SPDX-License-Identifier: GPL-3.0-or-later
//! A circuit breaker: after some failures in a row nobody is sent to wait for a directory that is not there, except one now and then
//! who finds out whether it is back.
//!
//! Pure: whoever asks says what time it is.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 3;
/// First and longest pause between two tries while it is open; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What changed by a success or failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// From now on nobody waits.
    Opened,
    /// It is asked again.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// While it is open: when the next one may try, and the pause after that.
    open: Option<(Instant, Duration)>,
}

/// The breaker of one directory.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<State>);

impl Breaker {
    /// True when one may ask now. While it is open, of all that ask within a pause one may.
    pub fn lets_through(&self, now: Instant) -> bool {
        match &mut self.state().open {
            None => true,
            Some((next, pause)) if *next <= now => {
                *next = now + *pause;
                *pause = (*pause * 2).min(PAUSES.1);
                true
            }
            Some(_) => false,
        }
    }

    /// It has answered.
    pub fn succeeded(&self) -> Change {
        let mut state = self.state();
        state.failures = 0;
        match state.open.take() {
            None => Change::None,
            Some(_) => Change::Closed,
        }
    }

    /// It has not.
    pub fn failed(&self, now: Instant) -> Change {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.open.is_some() || state.failures < FAILURES {
            return Change::None;
        }
        state.open = Some((now + PAUSES.0, PAUSES.0 * 2));
        Change::Opened
    }

    /// True while nobody waits.
    pub fn is_open(&self) -> bool {
        self.state().open.is_some()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic of another thread leaves nothing half done here.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_when_one_succeeds() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        assert_eq!([breaker.failed(now), breaker.failed(now)], [Change::None, Change::None]);
        assert_eq!(breaker.succeeded(), Change::None);
        assert_eq!([breaker.failed(now), breaker.failed(now), breaker.failed(now)].last(), Some(&Change::Opened));
        assert!(breaker.is_open() && !breaker.lets_through(now));
        let later = now + PAUSES.0;
        assert!(breaker.lets_through(later) && !breaker.lets_through(later), "one of all");
        assert_eq!(breaker.failed(later), Change::None, "told once");
        assert!(!breaker.lets_through(later + PAUSES.0), "the pauses grow");
        assert!(breaker.lets_through(later + PAUSES.0 * 2));
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert!(breaker.lets_through(later) && !breaker.is_open());
    }

    #[test]
    fn the_pauses_have_an_end() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..3 {
            breaker.failed(now);
        }
        for _ in 0..20 {
            now += PAUSES.1;
            assert!(breaker.lets_through(now));
            breaker.failed(now);
        }
    }
}
