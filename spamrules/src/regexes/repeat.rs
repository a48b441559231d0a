// SPDX-License-Identifier: GPL-3.0-or-later
//! Patterns that are one large group, repeated: too large for PCRE2, and slow in the linear engine, which keeps building states for it.
//! Where the group does not even match once, or not twice in a row, nothing else has to be tried.

use super::{Engine, is_long, limited, linear, translate::Translated};

/// Fewer repetitions are not worth it.
const FEW: u32 = 3;

/// The group fewer times than the pattern wants it.
#[derive(Debug, Clone)]
pub(super) struct Fewer {
    once: Engine,
    twice: pcre2::bytes::Regex,
}

impl Fewer {
    /// For a pattern that is a group three times or more.
    pub(super) fn of(translated: &Translated) -> Option<Box<Fewer>> {
        if !translated.exact || !is_long(translated) {
            return None;
        }
        let once = linear(group(&translated.linear)?)?;
        let twice = limited(&format!("{}{{2}}", group(&translated.backtracking)?)).ok()?;
        Some(Box::new(Fewer { once, twice }))
    }

    /// Whether the pattern cannot match the text.
    pub(super) fn rules_out(&self, text: &[u8]) -> bool {
        matches!(&self.once, Engine::Linear(once) if !once.is_match(text))
            || matches!(self.twice.is_match(text), Ok(false))
    }
}

/// The group that the whole pattern repeats at least [`FEW`] times, with the flags before it.
fn group(pattern: &str) -> Option<&str> {
    let (head, count) = pattern.strip_suffix('}')?.rsplit_once('{')?;
    let least = count.split(',').next()?;
    if least.parse::<u32>().ok()? < FEW {
        return None;
    }
    let flags = if pattern.starts_with("(?:") { 0 } else { pattern.find(')')? + 1 };
    let plain = pattern.get(..flags)?.bytes().all(|byte| byte.is_ascii_lowercase() || b"(?-)".contains(&byte));
    let body = head.get(flags..)?;
    (plain && body.starts_with("(?:") && closes_at_end(body)).then_some(head)
}

/// Whether the first group of a text ends where the text does.
fn closes_at_end(text: &str) -> bool {
    let mut depth = 0_u32;
    let mut in_class = false;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b']' => in_class = false,
            _ if in_class => {}
            b'[' => in_class = true,
            b'(' => depth += 1,
            b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1 == text.len();
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regexes::Pattern;

    #[test]
    fn groups() {
        assert_eq!(group("(?:ab){5}"), Some("(?:ab)"));
        assert_eq!(group("(?i)(?:a(b|[)])\\)c){3,}"), Some("(?i)(?:a(b|[)])\\)c)"));
        for pattern in ["(?:ab){2}", "(?:a)(?:b){5}", "(?:a)b{5}", "a{5}", "(?i)a(?:b){5}", "(?:a|b)"] {
            assert_eq!(group(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn the_same_hits() {
        let words = (0..80).map(|number| format!("w{number}x?y?[a-c]{{1,9}}z")).collect::<Vec<_>>().join("|");
        let pattern = Pattern::new(&format!("/(?:(?:{words}){{1,4}} ?){{5}}/i")).unwrap();
        assert!(pattern.first.is_some());
        assert!(pattern.is_match(b"- w1xaz w2yaz W3az w4az w79aaz"));
        assert!(!pattern.is_match(b"- w1xaz w2yaz - W3az w4az w5az"));
        assert!(!pattern.is_match(b"nothing"));
    }
}
