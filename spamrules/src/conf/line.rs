// SPDX-License-Identifier: GPL-3.0-or-later
//! One line of a rule file: comment taken off, language chosen, split into the directive and its value.

/// A directive and its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// In small letters, with `_` for `-`.
    pub(super) key: String,
    /// Bytes as written, without blanks at the ends; empty when there is none.
    pub(super) value: Vec<u8>,
}

/// Reads a line; `None` for empty lines and those of other languages than `language` (such as `en_US`).
pub(super) fn read(line: &[u8], language: &str) -> Option<Line> {
    let line = without_comment(line);
    let mut line = line.trim_ascii();
    if let Some(rest) = line.strip_prefix(b"lang").filter(|rest| rest.first().is_some_and(u8::is_ascii_whitespace)) {
        let (wanted, rest) = word(rest.trim_ascii_start());
        let wanted = String::from_utf8_lossy(wanted).to_ascii_lowercase();
        if !language.to_ascii_lowercase().starts_with(&wanted) {
            return None;
        }
        line = rest;
    }
    if line.is_empty() {
        return None;
    }
    let (key, value) = word(line);
    let key = String::from_utf8_lossy(key).to_ascii_lowercase().replace('-', "_");
    Some(Line { key, value: value.to_vec() })
}

/// The first word and what follows it.
pub(super) fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_ascii())
}

/// Takes off a comment; `\#` is a plain `#`.
fn without_comment(line: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(line.len());
    for &byte in line {
        if byte != b'#' {
            out.push(byte);
        } else if out.last() == Some(&b'\\') {
            out.pop();
            out.push(b'#');
        } else {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: &str, value: &str) -> Option<Line> {
        Some(Line { key: key.to_owned(), value: value.as_bytes().to_vec() })
    }

    #[test]
    fn lines() {
        assert_eq!(read(b"  Body  X /a\\#b/ # c", "en_US"), line("body", "X /a#b/"));
        assert_eq!(read(b"report-safe 0", "en_US"), line("report_safe", "0"));
        assert_eq!(read(b"endif", "en_US"), line("endif", ""));
        assert_eq!(read(b"# only a comment", "en_US"), None);
        assert_eq!(read(b"lang fr describe X y", "en_US"), None);
        assert_eq!(read(b"lang en describe X y", "en_US"), line("describe", "X y"));
        assert_eq!(read(b"lang fr describe X y", "fr_CA"), line("describe", "X y"));
        assert_eq!(read(b"", "en_US"), None);
    }
}
