// SPDX-License-Identifier: GPL-3.0-or-later
//! The clock by which rules are charged: processor time of the thread, so that a busy machine makes no rule look slow.
//!
//! Reading that time is a system call, reading the time of day is none. So between two readings, a millisecond apart at most, the
//! thread is taken to have run all the time.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::budget::thread_time;

/// Longest time without a reading.
const STEP: Duration = Duration::from_millis(1);

/// A clock for one message, on the thread that made it.
#[derive(Debug)]
pub struct RuleClock {
    read_at: Cell<Instant>,
    read: Cell<Duration>,
    told: Cell<Duration>,
}

impl RuleClock {
    /// Begins now.
    pub fn start() -> RuleClock {
        let now = thread_time();
        RuleClock { read_at: Cell::new(Instant::now()), read: Cell::new(now), told: Cell::new(now) }
    }

    /// Processor time of the thread; never less than it told before.
    pub fn now(&self) -> Duration {
        let at = Instant::now();
        let since = at.saturating_duration_since(self.read_at.get());
        if since >= STEP {
            self.read.set(thread_time());
            self.read_at.set(at);
        }
        let now = self.read.get() + if since >= STEP { Duration::ZERO } else { since };
        self.told.set(self.told.get().max(now));
        self.told.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back_and_keeps_to_the_time_of_the_thread() {
        let (clock, begun) = (RuleClock::start(), thread_time());
        let mut last = clock.now();
        while thread_time() < begun + Duration::from_millis(20) {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        let apart = clock.now().abs_diff(thread_time());
        assert!(apart < Duration::from_millis(100), "{apart:?}");
    }
}
