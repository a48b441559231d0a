// SPDX-License-Identifier: GPL-3.0-or-later
//! How clients part after a message: with another command (RFC 5321 section 4.1.1.10 wants QUIT), or by closing the connection.
//!
//! Whoever closes has read our reply, but may have died before it made use of it; Postfix always says QUIT, so there it is worth a row in the
//! ledger. Where closing is what clients usually do it says nothing. Pure but for the count.

use std::sync::atomic::{AtomicU32, Ordering};

use metrics::counter;

/// What one parting without a word weighs; going on weighs 1 the other way.
const WEIGHT: u32 = 4;
/// From here on it is a habit: about this many processes of Postfix can be killed at once and are not taken for one.
const HABIT: u32 = 100 * WEIGHT;

/// The partings of late.
#[derive(Debug, Default)]
pub(crate) struct Partings(AtomicU32);

impl Partings {
    /// A client has said something after the reply.
    pub(crate) fn went_on(&self) {
        // Mostly there is nothing to forget, and nothing is written.
        if self.0.load(Ordering::Relaxed) > 0 {
            self.change(|weight| weight.saturating_sub(1));
        }
    }

    /// A client has closed after the reply; whether that is what clients do here.
    pub(crate) fn is_habit(&self) -> bool {
        let before = self.change(|weight| (weight + WEIGHT).min(2 * HABIT));
        counter!("octroi_contentd_left_without_quit_total").increment(1);
        before >= HABIT
    }

    fn change(&self, to: impl Fn(u32) -> u32) -> u32 {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |weight| Some(to(weight))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_crashes_are_no_habit() {
        let partings = Partings::default();
        assert!((0..100).all(|_| !partings.is_habit()));
        assert!(partings.is_habit());
        (0..2 * HABIT).for_each(|_| partings.went_on());
        assert!(!partings.is_habit());
    }

    #[test]
    fn one_in_four_is_a_habit_one_in_ten_is_not() {
        for (others, habit) in [(3, true), (9, false)] {
            let partings = Partings::default();
            let mut last = false;
            for _ in 0..2000 {
                last = partings.is_habit();
                (0..others).for_each(|_| partings.went_on());
            }
            assert_eq!(last, habit, "one in {}", others + 1);
        }
    }
}
