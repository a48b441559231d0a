// SPDX-License-Identifier: GPL-3.0-or-later
//! How much in which time, as an administrator writes it: `"100/1h"`, `"1GB/1d"`, and in calendar windows `"1000/day"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use common::units::{Period, Size};

use super::window::Calendar;

/// Millionths in one unit: the grain of levels.
pub const UNIT: i64 = 1_000_000;
/// Most units of a rate or burst, so that sums of millionths stay within 63 bits.
pub const MOST: u64 = 2_000_000_000_000;

/// The time of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Any time of this length.
    Sliding(Period),
    /// A day, a month ... by the clock on the wall.
    Calendar(Calendar),
}

/// So many units in that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units; at least 1.
    pub number: u64,
    /// In this time.
    pub span: Span,
}

impl Rate {
    /// Millionths that run out of the bucket in a millisecond; 0 for a calendar window.
    pub fn drain(&self) -> f64 {
        match self.span {
            Span::Sliding(period) => self.number as f64 * UNIT as f64 / period.as_millis() as f64,
            Span::Calendar(_) => 0.0,
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a rate; write for example \"100/1h\", \"1GB/1d\" or \"1000/day\"");
        let (number, span) = text.split_once('/').ok_or_else(wrong)?;
        let (number, span) = (number.trim(), span.trim());
        let number = match number.bytes().all(|byte| byte.is_ascii_digit()) {
            true => number.parse().map_err(|_| wrong())?,
            false => number.parse::<Size>().map_err(|_| wrong())?.0,
        };
        if number == 0 || number > MOST {
            return Err(format!("{text:?}: the number must be between 1 and {MOST}"));
        }
        let span = match Calendar::parse(span) {
            Some(calendar) => Span::Calendar(calendar),
            None => Span::Sliding(span.parse().map_err(|error| format!("{text:?}: {error}"))?),
        };
        if let Span::Sliding(period) = span
            && (period.0 < Duration::from_secs(1) || period.0 > Duration::from_secs(366 * 86_400))
        {
            return Err(format!("{text:?}: the time must be between 1s and 366 days"));
        }
        Ok(Self { number, span })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without the blanks of "1h 30m": it is part of the name of a bucket.
            Self::Sliding(period) => f.write_str(&period.to_string().replace(' ', "")),
            Self::Calendar(calendar) => f.write_str(calendar.word()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_read_and_written_back() {
        for (text, number, drain, shown) in [
            ("100/1h", 100, 100e6 / 3.6e6, "100/1h"),
            ("10 / 90m", 10, 10e6 / 5.4e6, "10/1h30m"),
            ("1GB/1d", 1_000_000_000, 1e15 / 86.4e6, "1000000000/1day"),
            ("1000/day", 1000, 0.0, "1000/day"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.number, rate.drain(), rate.to_string().as_str()), (number, drain, shown));
            assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
        }
        for text in
            ["", "100", "100/", "/1h", "0/1h", "100/h", "100/1", "x/1h", "-1/1h", "1/0s", "9000000000000/1h", "1/400d"]
        {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = text.parse::<Rate>();
        }
    }
}
