// SPDX-License-Identifier: GPL-3.0-or-later
//! Patterns with `%{NAME}`, which stands for texts that another rule has captured from the same message, or with `%{HEADER(Selector)}`.

use crate::conf::tests::template_names;
use crate::context::Context;
use crate::headers::{self, Selector};
use crate::regexes::{Pattern, Source};

/// Texts put in for one name.
const MAX_VALUES: usize = 50;
/// A longer text is not put in.
const MAX_LENGTH: usize = 1000;

/// The pattern with anything in place of its names.
pub(crate) fn superset(pattern: &[u8]) -> Vec<u8> {
    replaced(pattern, &|_| Some(b"(?s:.*)".to_vec())).unwrap_or_else(|| pattern.to_vec())
}

/// Fills a pattern in. `None` when a name has no value: such a rule does not run.
pub(crate) fn fill(pattern: &[u8], values: &dyn Fn(&str) -> Option<Vec<Vec<u8>>>) -> Option<Vec<u8>> {
    replaced(pattern, &|name| {
        let values = values(name)?.into_iter().filter(|value| !value.is_empty() && value.len() <= MAX_LENGTH);
        let quoted: Vec<Vec<u8>> = values.take(MAX_VALUES).map(|value| quote(&value)).collect();
        (!quoted.is_empty()).then(|| [b"(?:", quoted.join(&b'|').as_slice(), b")"].concat())
    })
}

/// Puts something in place of every name; `None` when there is nothing for one of them.
fn replaced(pattern: &[u8], by: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut out = pattern.to_vec();
    for name in template_names(pattern) {
        let group = by(&name)?;
        let written = [b"%{", name.as_bytes(), b"}"].concat();
        while let Some(at) = out.windows(written.len()).position(|window| window == written) {
            out.splice(at..at + written.len(), group.iter().copied());
        }
    }
    Some(out)
}

/// The pattern that matches a text and nothing else.
fn quote(text: &[u8]) -> Vec<u8> {
    text.iter()
        .flat_map(|&byte| {
            if byte == b'_' || byte.is_ascii_alphanumeric() {
                vec![byte]
            } else {
                format!("\\x{{{byte:02x}}}").into_bytes()
            }
        })
        .collect()
}

/// The pattern for this message.
pub(super) fn compile(source: &Source, context: &Context<'_>) -> Option<Pattern> {
    let values = |name: &str| match name.strip_prefix("HEADER(").and_then(|rest| rest.strip_suffix(')')) {
        Some(selector) => {
            let value = headers::get(context, &Selector::parse(selector).ok()?)?;
            Some(vec![value.trim_ascii_end().to_vec()])
        }
        None => Some(context.tag(name).into_iter().map(String::into_bytes).collect()),
    };
    source.with_text(fill(source.text(), &values)?).compile().ok()
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn names_are_filled_in() {
        let values = |name: &str| (name == "TO").then(|| vec![b"a@b".to_vec(), b"c".to_vec()]);
        assert_eq!(fill(b"x%{TO}y", &values).unwrap(), b"x(?:a\\x{40}b|c)y");
        assert_eq!(fill(b"x%{FROM}y", &values), None);
        assert_eq!(fill(b"xy", &values).unwrap(), b"xy");
    }
}
