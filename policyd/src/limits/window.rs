// SPDX-License-Identifier: GPL-3.0-or-later
//! Windows of the calendar: when the hour, day, week or month of a moment began and when it ends, in a time zone of the IANA
//! database, so that days of 23 and 25 hours come out right.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Unit, ZonedRound};

/// A window that everybody has at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calendar {
    /// From the full hour.
    Hour,
    /// From midnight.
    Day,
    /// From midnight before Monday.
    Week,
    /// From midnight before the first.
    Month,
}

impl Calendar {
    /// The word behind the number of a rate.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The window of a word; none when it is not one.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Hour, Self::Day, Self::Week, Self::Month].into_iter().find(|window| window.word() == word)
    }

    /// How long it can be, in milliseconds.
    pub fn longest(self) -> i64 {
        let hours = match self {
            Self::Hour => 1,
            Self::Day => 25,
            Self::Week => 7 * 24 + 1,
            Self::Month => 31 * 24 + 1,
        };
        hours * 3_600_000
    }

    /// Beginning and end of the window around a moment, all in milliseconds since 1970. A moment outside the years of the calendar
    /// has a window of its own.
    pub fn around(self, now: i64, zone: &TimeZone) -> (i64, i64) {
        self.find(now, zone).unwrap_or((now, now.saturating_add(1)))
    }

    fn find(self, now: i64, zone: &TimeZone) -> Option<(i64, i64)> {
        let at = Timestamp::from_millisecond(now).ok()?.to_zoned(zone.clone());
        let (start, end) = match self {
            Self::Hour => {
                let floor = ZonedRound::new().smallest(Unit::Hour).mode(jiff::RoundMode::Trunc);
                let start = at.round(floor).ok()?;
                let end = start.checked_add(1.hour()).ok()?;
                (start, end)
            }
            Self::Day => days(&at.start_of_day().ok()?, 1)?,
            Self::Week => {
                let back = i64::from(at.weekday().to_monday_zero_offset());
                days(&at.checked_sub(back.days()).ok()?.start_of_day().ok()?, 7)?
            }
            Self::Month => {
                let start = at.first_of_month().ok()?.start_of_day().ok()?;
                let end = start.checked_add(1.month()).ok()?;
                (start, end)
            }
        };
        Some((start.timestamp().as_millisecond(), end.timestamp().as_millisecond()))
    }
}

fn days(start: &jiff::Zoned, number: i64) -> Option<(jiff::Zoned, jiff::Zoned)> {
    Some((start.clone(), start.checked_add(number.days()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn windows_follow_the_clock_on_the_wall() {
        let vienna = TimeZone::get("Europe/Vienna").unwrap();
        for (window, zone, now, start, end) in [
            (Calendar::Day, &TimeZone::UTC, "2026-11-22T15:20:00Z", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
            (Calendar::Hour, &TimeZone::UTC, "2026-11-22T15:59:59Z", "2026-11-22T15:00:00Z", "2026-11-22T16:00:00Z"),
            (Calendar::Week, &TimeZone::UTC, "2026-11-22T15:20:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
            (Calendar::Month, &TimeZone::UTC, "2026-02-28T23:59:59Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
            // Clocks go back: a day of 25 hours. And forward: one of 23.
            (Calendar::Day, &vienna, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            (Calendar::Day, &vienna, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            (Calendar::Day, &vienna, "2026-11-22T23:30:00Z", "2026-11-22T23:00:00Z", "2026-11-23T23:00:00Z"),
        ] {
            assert_eq!(window.around(moment(now), zone), (moment(start), moment(end)), "{window:?} {now}");
        }
    }

    #[test]
    fn impossible_moments_have_a_window_too() {
        let (start, end) = Calendar::Day.around(i64::MAX, &TimeZone::UTC);
        assert!(start <= end);
    }
}
