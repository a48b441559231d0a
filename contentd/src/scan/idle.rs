// SPDX-License-Identifier: GPL-3.0-or-later
//! Connections that are kept for the next message. How many are open at once is bounded elsewhere (the permits of `engine`).

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Unused connections, the freshest last.
#[derive(Debug)]
pub(super) struct Idle<S> {
    kept: Mutex<VecDeque<(S, Instant)>>,
    most: usize,
    age: Duration,
}

impl<S> Idle<S> {
    /// Keeps up to `most`, each no longer than `age`.
    pub(super) fn new(most: usize, age: Duration) -> Idle<S> {
        Idle { kept: Mutex::default(), most, age }
    }

    /// The one that was used last, so that the others can grow old and go.
    pub(super) fn take(&self) -> Option<S> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, since)| since.elapsed() < self.age);
        kept.pop_back().map(|(connection, _)| connection)
    }

    /// Keeps one that is in a known state.
    pub(super) fn keep(&self, connection: S) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < self.most {
            kept.push_back((connection, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_comes_first_and_there_are_not_too_many() {
        let idle = Idle::new(2, Duration::from_secs(60));
        (1..=3).for_each(|number| idle.keep(number));
        assert_eq!((idle.take(), idle.take(), idle.take()), (Some(2), Some(1), None));
        let old = Idle::new(2, Duration::ZERO);
        old.keep(1);
        assert_eq!(old.take(), None);
    }
}
