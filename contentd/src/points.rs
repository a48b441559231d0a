// SPDX-License-Identifier: GPL-3.0-or-later
//! Points of a score, and options that are points or a word. Pure.

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};
use std::fmt;

/// The most points that an option may give.
const MOST: f64 = 1000.0;

/// Points of a score, in thousandths, so that sums are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Points(pub i64);

impl Points {
    /// As a number.
    pub fn value(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Of an option; none when it is out of range.
    fn of(number: f64) -> Option<Points> {
        (number.is_finite() && (0.0..=MOST).contains(&number)).then(|| Points((number * 1000.0).round() as i64))
    }
}

impl fmt::Display for Points {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.value())
    }
}

/// An option that is points or one of a few words.
pub trait PointsOrWord: Sized {
    /// What may stand there, for the message about what may not.
    const EXPECTED: &'static str;

    /// What these points mean.
    fn points(points: Points) -> Self;

    /// What this word means; none when it means nothing.
    fn word(word: &str) -> Option<Self>;
}

/// Reads such an option.
pub fn read<'de, T: PointsOrWord, D: Deserializer<'de>>(input: D) -> Result<T, D::Error> {
    input.deserialize_any(Reader(std::marker::PhantomData))
}

/// Writes points as the number that they are.
pub fn write<S: Serializer>(points: &Points, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(points.value())
}

struct Reader<T>(std::marker::PhantomData<T>);

impl<T: PointsOrWord> Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(T::EXPECTED)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        let points = Points::of(number).ok_or_else(|| E::custom(format!("{number} is not {}", T::EXPECTED)))?;
        Ok(T::points(points))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_f64(number as f64)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_f64(number as f64)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
        T::word(word).ok_or_else(|| E::custom(format!("{word:?} is not {}", T::EXPECTED)))
    }
}
