// SPDX-License-Identifier: GPL-3.0-or-later
//! Durations and sizes as an administrator writes them: a number with its unit, `"4m"`, `"36d"`, `"10MB"`.
//! A bare number is refused: a missing unit is the commonest way to a limit that does not limit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A length of time. Text form: `"90s"`, `"4m"`, `"1h 30m"`, `"36d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// A period of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Whole milliseconds, at most `i64::MAX`.
    pub fn as_millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("{text:?} has no unit; write for example \"90s\", \"4m\", \"2h\" or \"36d\""));
        }
        humantime::parse_duration(text).map(Self).map_err(|error| {
            format!("{text:?} is not a duration ({error}); write for example \"90s\", \"4m\", \"2h\" or \"36d\"")
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A number of bytes. Text form: `"64KiB"` (binary), `"10MB"` (decimal).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.trim_end().ends_with(|last: char| last.is_ascii_alphabetic()) {
            return Err(format!("{text:?} has no unit; write for example \"64KiB\" or \"10MB\""));
        }
        bytesize::ByteSize::from_str(text)
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("{text:?} is not a size; write for example \"64KiB\" or \"10MB\""))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest unit that divides the number, so that reading it back gives the same number.
        const UNITS: [(u64, &str); 6] = [
            (1 << 30, "GiB"),
            (1_000_000_000, "GB"),
            (1 << 20, "MiB"),
            (1_000_000, "MB"),
            (1 << 10, "KiB"),
            (1_000, "kB"),
        ];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Reads a value that is written as text with a unit.
struct WithUnit<T>(&'static str, std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for WithUnit<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(WithUnit("a duration with its unit, such as \"4m\"", std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(WithUnit("a size with its unit, such as \"10MB\"", std::marker::PhantomData))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written_back() {
        for (text, seconds) in [("90s", 90), ("4m", 240), ("1h 30m", 5400), ("36d", 36 * 86_400)] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period, Period::seconds(seconds));
            assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
        }
        for (text, bytes) in [("10MB", 10_000_000), ("64KiB", 65_536), ("1500B", 1500), ("1GiB", 1 << 30)] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size, Size(bytes));
            assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }
    }

    #[test]
    fn a_number_without_unit_is_refused() {
        for text in ["5", "", " 10 ", "4 parsecs", "-3m"] {
            assert!(text.parse::<Period>().is_err(), "{text:?}");
        }
        for text in ["5", "", "10 ", "4 elephants", "-3MB"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }
}
