// SPDX-License-Identifier: GPL-3.0-or-later
//! Scores: four for each rule, by whether network and Bayes are in use, given outright or relative to what was given before.

/// The scores of a rule without and with network, without and with Bayes, in SpamAssassin's order.
pub(crate) type Scores = [f64; 4];

/// The place in [`Scores`].
pub(crate) fn set(network: bool, bayes: bool) -> usize {
    usize::from(network) + 2 * usize::from(bayes)
}

/// What a rule without a `score` line counts.
pub(crate) fn default(name: &str, nice: bool) -> f64 {
    let score = if name.starts_with("T_") { 0.01 } else { 1.0 };
    if nice { -score } else { score }
}

/// Reads the numbers of a `score` line; one in parentheses makes them relative to `before`.
pub(crate) fn parse(text: &str, before: Option<Scores>) -> Result<Scores, String> {
    let mut relative = false;
    let mut numbers = Vec::new();
    for word in text.split_whitespace() {
        let inner = word.strip_prefix('(').and_then(|word| word.strip_suffix(')'));
        relative |= inner.is_some();
        let word = inner.unwrap_or(word);
        numbers.push(number(word).ok_or_else(|| format!("{word:?} is not a score"))?);
    }
    let given = match numbers.as_slice() {
        [one] => [*one; 4],
        [a, b, c, d] => [*a, *b, *c, *d],
        _ => return Err("a rule has one score or four".to_owned()),
    };
    if !relative {
        return Ok(given);
    }
    let before = before.ok_or("a relative score needs one before it")?;
    Ok(std::array::from_fn(|set| before[set] + given[set]))
}

/// Digits with an optional sign and fraction; no exponents, no words.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let plain = |part: &str| !part.is_empty() && part.len() <= 18 && part.bytes().all(|byte| byte.is_ascii_digit());
    (plain(whole) && fraction.is_none_or(plain)).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_four_and_relative() {
        assert_eq!(parse("1.5", None), Ok([1.5; 4]));
        assert_eq!(parse("0 1 2 -3.25", None), Ok([0.0, 1.0, 2.0, -3.25]));
        assert_eq!(parse("(0.5)", Some([1.0; 4])), Ok([1.5; 4]));
        assert_eq!(parse("(1) (0) (0) (-1)", Some([1.0; 4])), Ok([2.0, 1.0, 1.0, 0.0]));
        assert!(parse("(0.5)", None).is_err());
        assert!(parse("1 2", None).is_err());
        assert!(parse("", None).is_err());
        assert!(parse("1e9", None).is_err());
        assert!(parse("inf", None).is_err());
    }

    #[test]
    fn defaults() {
        assert_eq!(default("T_X", true), -0.01);
        assert_eq!(default("X", false), 1.0);
        assert_eq!(set(true, true), 3);
    }
}
