// SPDX-License-Identifier: GPL-3.0-or-later
//! What the value of a meta can still be while some of its terms are not known: arithmetic on ranges. A range may be wider than what is
//! really possible, never narrower.

use crate::meta::{Node, Operator, exclusive_or};

/// From the lowest to the highest value that is possible, both included; the ends may be infinite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Range {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

const FALSE: Range = Range::exactly(0.0);
const TRUE: Range = Range::exactly(1.0);
const EITHER: Range = Range { low: 0.0, high: 1.0 };

impl Range {
    pub(crate) const fn exactly(value: f64) -> Range {
        Range { low: value, high: value }
    }

    /// The range between two ends; all numbers when an end is none.
    fn between(low: f64, high: f64) -> Range {
        if low.is_nan() || high.is_nan() {
            Range { low: f64::NEG_INFINITY, high: f64::INFINITY }
        } else {
            Range { low, high }
        }
    }

    /// Whether only one value is left.
    pub(crate) fn is_known(self) -> bool {
        self.low == self.high
    }

    fn is_false(self) -> bool {
        self.low == 0.0 && self.high == 0.0
    }

    fn is_true(self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    fn with(self, other: Range) -> Range {
        Range { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// The same range with its ends in order.
    pub(crate) fn upwards(self) -> Range {
        Range { low: self.low.min(self.high), high: self.low.max(self.high) }
    }

    /// What a meta counts as, from the values that its expression can have: 1 for one below 0.
    pub(crate) fn as_count(self) -> Range {
        match (self.low < 0.0, self.high > 0.0) {
            (false, _) => self,
            (true, false) if self.high < 0.0 => TRUE,
            (true, _) => Range { low: 0.0, high: self.high.max(1.0) },
        }
    }
}

/// The range of an expression, given that of each name; `None` when it might divide by zero.
pub(crate) fn of(node: &Node, name: &impl Fn(usize) -> Range) -> Option<Range> {
    Some(match node {
        Node::Number(number) => Range::exactly(*number),
        Node::Name(place) => name(*place),
        Node::Not(inner) => {
            let inner = of(inner, name)?;
            truth(inner.is_false(), inner.is_true())
        }
        Node::Negative(inner) => {
            let inner = of(inner, name)?;
            Range::between(-inner.high, -inner.low)
        }
        Node::Choice(condition, yes, no) => {
            let condition = of(condition, name)?;
            if condition.is_false() {
                of(no, name)?
            } else if condition.is_true() {
                of(yes, name)?
            } else {
                of(yes, name)?.with(of(no, name)?)
            }
        }
        Node::Chain(first, rest) => {
            let mut left = of(first, name)?;
            for (operator, right) in rest {
                // A chain of one of these has no other operators: the parser gives each a level of its own.
                match operator {
                    Operator::Or if left.is_true() => break,
                    Operator::And if left.is_false() => break,
                    _ => {}
                }
                let right = match right {
                    Node::Name(place) => name(*place),
                    other => of(other, name)?,
                };
                left = two(*operator, left, right)?;
            }
            left
        }
    })
}

/// 1 when it is sure, 0 when the opposite is.
fn truth(sure: bool, sure_not: bool) -> Range {
    match (sure, sure_not) {
        (true, _) => TRUE,
        (_, true) => FALSE,
        _ => EITHER,
    }
}

/// One operation; `None` when it might divide by zero.
fn two(operator: Operator, left: Range, right: Range) -> Option<Range> {
    let same = || left.is_known() && left == right;
    let apart = || left.high < right.low || right.high < left.low;
    Some(match operator {
        Operator::Or if left.is_true() => left,
        Operator::Or if left.is_false() => right,
        Operator::Or => left.with(right),
        Operator::And if left.is_false() => FALSE,
        Operator::And if left.is_true() => right,
        Operator::And => FALSE.with(right),
        Operator::Xor if left.is_known() && right.is_known() => Range::exactly(exclusive_or(left.low, right.low)),
        Operator::Xor => Range { low: 0.0, high: f64::INFINITY },
        Operator::Equal => truth(same(), apart()),
        Operator::Unequal => truth(apart(), same()),
        Operator::Less => truth(left.high < right.low, left.low >= right.high),
        Operator::LessOrEqual => truth(left.high <= right.low, left.low > right.high),
        Operator::More => truth(left.low > right.high, left.high <= right.low),
        Operator::MoreOrEqual => truth(left.low >= right.high, left.high < right.low),
        Operator::Plus => Range::between(left.low + right.low, left.high + right.high),
        Operator::Minus => Range::between(left.low - right.high, left.high - right.low),
        Operator::Times => extremes(left, right, |one, other| one * other),
        Operator::Divide if !right.is_true() => return None,
        Operator::Divide => extremes(left, right, |one, other| one / other),
    })
}

/// The lowest and the highest of what an operation makes of the ends.
fn extremes(left: Range, right: Range, operation: impl Fn(f64, f64) -> f64) -> Range {
    let ends = [(left.low, right.low), (left.low, right.high), (left.high, right.low), (left.high, right.high)]
        .map(|(one, other)| operation(one, other));
    if ends.iter().any(|end| end.is_nan()) {
        return Range::between(f64::NAN, f64::NAN);
    }
    Range {
        low: ends.iter().copied().fold(f64::INFINITY, f64::min),
        high: ends.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Expression;

    fn range(text: &str, known: &[(&str, f64, f64)]) -> Option<Range> {
        let place = |name: &str| known.iter().position(|(known, ..)| *known == name);
        let formula = Expression::parse(text).unwrap().over(|name| u32::try_from(place(name)?).ok());
        of(formula.root(), &|rule| Range { low: known[rule].1, high: known[rule].2 })
    }

    #[test]
    fn what_is_still_possible() {
        let open = &[("A", 0.0, 1.0), ("B", 0.0, f64::INFINITY), ("C", 1.0, 1.0)];
        assert_eq!(range("A && D", open), Some(FALSE));
        assert_eq!(range("A && C", open), Some(EITHER));
        assert_eq!(range("C || A", open), Some(TRUE));
        assert_eq!(range("!C", open), Some(FALSE));
        assert_eq!(range("A + B > 2", open), Some(EITHER));
        assert_eq!(range("A + C > 2", open), Some(FALSE));
        assert_eq!(range("B * 0", open).unwrap().as_count(), Range { low: 0.0, high: f64::INFINITY });
        assert_eq!(range("(A - 2) ? 5 : 7", open), Some(Range::exactly(5.0)));
        assert_eq!(range("1 / (A + 1)", open), Some(Range { low: 0.5, high: 1.0 }));
        assert_eq!(range("C / (2 - B)", open), None);
        assert_eq!(range("0 - C", open).unwrap().as_count(), TRUE);
    }

    proptest::proptest! {
        #[test]
        fn the_value_is_within(
            text in r"[ABC012]([-+*/&|<>=!^?:]{1,2}[ABC012(!]\)?){0,6}",
            ends in proptest::array::uniform3((0u8..4, 0u8..4, 0u8..5)),
        ) {
            let Ok(expression) = Expression::parse(&text.replace('(', "")) else { return Ok(()) };
            let formula = expression.over(|name| Some(match name { "A" => 0, "B" => 1, _ => 2 }));
            let low = |rule: usize| f64::from(ends[rule].0);
            let high = |rule: usize| low(rule) + f64::from(ends[rule].1);
            let actual = |rule: usize| (low(rule) + f64::from(ends[rule].2)).min(high(rule));
            let range = of(formula.root(), &|rule| Range { low: low(rule), high: high(rule) });
            match (range, formula.value(actual)) {
                (Some(range), Some(value)) => {
                    proptest::prop_assert!(range.low <= value && value <= range.high, "{text}: {value} in {range:?}");
                }
                (Some(_), None) => proptest::prop_assert!(false, "{text} divides by zero"),
                (None, _) => {}
            }
        }
    }
}
