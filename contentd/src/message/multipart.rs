// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the parts of a multipart lie, in every way that its body can be divided (RFC 2046 section 5.1.1).
//!
//! A message without tricks has one way, found in one pass. Several boundaries divide together and each by itself; a line that
//! only begins as a delimiter is one by the letter of the RFC and none to most programs; so is one between lone CRs. Where the
//! boundary that is declared divides nothing, lines that look like delimiters are taken for such. Knows no headers.

use crate::findings::FindingKind;
use std::ops::Range;

/// One way to divide a body. Ranges are within it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// The parts, without the line ends before their delimiters.
    pub(super) parts: Vec<Range<usize>>,
    /// The last delimiter is a closing one.
    pub(super) closed: bool,
    /// Parts follow a closing delimiter.
    pub(super) after_close: bool,
    /// What stands before the first delimiter.
    pub(super) preamble: Range<usize>,
    /// What stands behind the closing one.
    pub(super) epilogue: Range<usize>,
    /// There are lines that begin as a delimiter and go on.
    longer_lines: bool,
}

/// A way to divide a body, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// For the paths of the parts; empty for the likeliest reading.
    pub(super) suffix: String,
    /// What made it necessary.
    pub(super) finding: Option<FindingKind>,
    /// The parts.
    pub(super) split: Split,
}

/// Which lines are delimiters.
#[derive(Debug, Clone, Copy, Default)]
struct How {
    /// Those that begin like one, too.
    longer: bool,
    /// A lone CR ends a line.
    lone_cr: bool,
}

/// All ways to divide a body by these boundaries that differ; none when no line is a delimiter.
pub(super) fn readings(body: &[u8], boundaries: &[Vec<u8>], limit: usize) -> Vec<Reading> {
    let mut readings = Vec::new();
    let all: Vec<&[u8]> = boundaries.iter().map(Vec::as_slice).collect();
    let first = split(body, &all, How::default(), limit);
    let longer_lines = first.longer_lines;
    add(&mut readings, String::new(), None, first);
    if all.len() > 1 {
        for (number, boundary) in all.iter().enumerate() {
            let alone = split(body, &[boundary], How::default(), limit);
            add(&mut readings, format!(":boundary{}", number + 1), None, alone);
        }
    }
    if longer_lines {
        let split = split(body, &all, How { longer: true, ..How::default() }, limit);
        add(&mut readings, ":begins".to_owned(), Some(FindingKind::LongerDelimiter), split);
    }
    if memchr::memmem::find(body, b"\r--").is_some() {
        let split = split(body, &all, How { lone_cr: true, ..How::default() }, limit);
        add(&mut readings, ":lone-cr".to_owned(), Some(FindingKind::LoneCrDelimiter), split);
    }
    readings
}

/// Parts by lines that look like delimiters although no field names their boundary.
pub(super) fn guessed(body: &[u8], limit: usize) -> Option<Reading> {
    let boundaries = candidates(body);
    let split = split(body, &boundaries, How::default(), limit);
    let finding = Some(FindingKind::GuessedBoundary);
    (!split.parts.is_empty()).then(|| Reading { suffix: ":guessed".to_owned(), finding, split })
}

fn add(readings: &mut Vec<Reading>, suffix: String, finding: Option<FindingKind>, split: Split) {
    if !split.parts.is_empty() && readings.iter().all(|reading| reading.split.parts != split.parts) {
        readings.push(Reading { suffix, finding, split });
    }
}

/// Most boundaries that are guessed.
const GUESSES: usize = 4;

/// What stands behind two hyphens on lines that a MIME field follows.
fn candidates(body: &[u8]) -> Vec<&[u8]> {
    let mut found: Vec<&[u8]> = Vec::new();
    for start in delimiter_starts(body, How::default()) {
        let end = line_end(body, start, How::default());
        let boundary = body[start + 2..end].trim_ascii_end();
        let field = body[end..].get(..8).is_some_and(|next| next.eq_ignore_ascii_case(b"content-"));
        if field && !boundary.is_empty() && !found.contains(&boundary) {
            found.push(boundary);
        }
        if found.len() == GUESSES {
            break;
        }
    }
    found
}

/// Splits a multipart's body at every delimiter line of any of the boundaries.
fn split(body: &[u8], boundaries: &[&[u8]], how: How, limit: usize) -> Split {
    let mut split = Split { preamble: 0..body.len(), epilogue: body.len()..body.len(), ..Split::default() };
    let mut open: Option<usize> = None;
    let mut any = false;
    for start in delimiter_starts(body, how) {
        let end = line_end(body, start, how);
        let Some(closing) = delimiter(&body[start + 2..end], boundaries, how, &mut split.longer_lines) else {
            continue;
        };
        if !any {
            (any, split.preamble) = (true, 0..start);
        }
        if let Some(from) = open.take() {
            split.parts.push(from..before_line_end(body, from, start));
            if split.parts.len() >= limit {
                return split;
            }
        }
        split.epilogue = end..body.len();
        if closing {
            split.closed = true;
        } else {
            split.after_close |= split.closed;
            open = Some(end);
        }
    }
    if let Some(from) = open {
        (split.closed, split.epilogue) = (false, body.len()..body.len());
        split.parts.push(from..body.len());
    }
    split
}

/// Offsets of all lines that begin with `--`.
fn delimiter_starts(body: &[u8], how: How) -> impl Iterator<Item = usize> {
    let first = body.starts_with(b"--").then_some(0);
    let lines = memchr::memmem::find_iter(body, b"--")
        .filter(|at| at.checked_sub(1).is_some_and(|at| body[at] == b'\r' || body[at] == b'\n'));
    let (lf, any) = if how.lone_cr {
        (None, Some(lines))
    } else {
        (Some(memchr::memmem::find_iter(body, b"\n--").map(|at| at + 1)), None)
    };
    first.into_iter().chain(lf.into_iter().flatten()).chain(any.into_iter().flatten())
}

/// Behind the end of the line that holds this place.
fn line_end(body: &[u8], start: usize, how: How) -> usize {
    let rest = &body[start..];
    let Some(at) = (if how.lone_cr { memchr::memchr2(b'\r', b'\n', rest) } else { memchr::memchr(b'\n', rest) }) else {
        return body.len();
    };
    let pair = rest[at] == b'\r' && rest.get(at + 1) == Some(&b'\n');
    start + at + 1 + usize::from(pair)
}

/// Whether a line, without its two hyphens, is a delimiter, and if so whether a closing one.
fn delimiter(line: &[u8], boundaries: &[&[u8]], how: How, longer: &mut bool) -> Option<bool> {
    let text = line.trim_ascii_end();
    let is = |text: &[u8]| boundaries.contains(&text);
    if is(text) {
        return Some(false);
    }
    if text.strip_suffix(b"--").is_some_and(|text| is(text) || is(text.trim_ascii_end())) {
        return Some(true);
    }
    let begins = |boundary: &&&[u8]| !boundary.is_empty() && text.starts_with(boundary);
    let boundary = boundaries.iter().filter(begins).max_by_key(|boundary| boundary.len())?;
    *longer = true;
    how.longer.then(|| text[boundary.len()..].starts_with(b"--"))
}

/// The line end before a delimiter belongs to the delimiter.
pub(super) fn before_line_end(body: &[u8], from: usize, delimiter: usize) -> usize {
    let part = &body[from..delimiter.max(from)];
    let part = match part.strip_suffix(b"\n") {
        Some(part) => part.strip_suffix(b"\r").unwrap_or(part),
        None => part.strip_suffix(b"\r").unwrap_or(part),
    };
    from + part.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Suffix and parts of every reading.
    fn read(body: &str, boundaries: &[&str]) -> Vec<String> {
        let boundaries: Vec<Vec<u8>> = boundaries.iter().map(|text| text.as_bytes().to_vec()).collect();
        let shown = |reading: Reading| {
            let parts: Vec<&str> = reading.split.parts.iter().map(|range| &body[range.clone()]).collect();
            format!("{} {}", reading.suffix, parts.join("|").escape_debug())
        };
        readings(body.as_bytes(), &boundaries, 100).into_iter().map(shown).collect()
    }

    #[test]
    fn one_boundary_divides_one_way() {
        let body = "preamble\r\n--A\r\none\r\n--A \r\ntwo\r\n--A--\r\nepilogue";
        assert_eq!(read(body, &["A"]), [" one|two"]);
        let split = split(body.as_bytes(), &[b"A"], How::default(), 9);
        assert_eq!((split.closed, split.after_close), (true, false));
        assert_eq!((&body[split.preamble], &body[split.epilogue]), ("preamble\r\n", "epilogue"));
        assert_eq!(read("nothing\n", &["A"]), [] as [&str; 0]);
    }

    #[test]
    fn several_boundaries_divide_together_and_alone() {
        assert_eq!(
            read("--A\n1\n--B\n2\n--A--\n", &["A", "B"]),
            [" 1|2", ":boundary1 1\\n--B\\n2", ":boundary2 2\\n--A--\\n"]
        );
        assert_eq!(read("--A\n1\n--A--\n", &["A", "B"]), [" 1"]);
    }

    #[test]
    fn a_longer_line_divides_by_the_letter() {
        assert_eq!(read("--A\n1\n--Ax\n2\n--A--\n", &["A"]), [" 1\\n--Ax\\n2", ":begins 1|2"]);
        assert_eq!(read("--A\n1\n--A--x\n--A\n2\n--A--", &["A"]), [" 1\\n--A--x|2", ":begins 1|2"]);
        // A boundary of an inner multipart may begin like the outer one.
        assert_eq!(read("--A\n--AB\n1\n--AB--\n--A--", &["AB"]), [" 1"]);
    }

    #[test]
    fn a_lone_cr_ends_a_line_to_some() {
        assert_eq!(read("--A\r\n1\r--A\r2\r\n--A--\r\n", &["A"]), [" 1\\r--A\\r2", ":lone-cr 1|2"]);
    }

    #[test]
    fn lines_that_look_like_delimiters() {
        let body = b"--X\r\nContent-Type: text/plain\r\n\r\n1\r\n--X--\r\n-- \r\nsignature";
        let reading = guessed(body, 10).unwrap();
        assert_eq!(reading.split.parts.first(), Some(&(5..34)));
        assert_eq!(guessed(b"-- \r\nme\r\n--X\r\ntext", 10), None);
    }

    proptest! {
        #[test]
        fn any_body_is_divided_within_itself(body in "(--A|--B|--|Content-|x|\r|\n|\r\n){0,40}", limit in 1usize..5) {
            let boundaries = [b"A".to_vec(), b"B".to_vec(), Vec::new()];
            for reading in readings(body.as_bytes(), &boundaries, limit).into_iter().chain(guessed(body.as_bytes(), limit)) {
                let split = reading.split;
                prop_assert!(split.parts.len() <= limit && split.preamble.end <= body.len());
                prop_assert!(split.parts.iter().all(|part| part.start <= part.end && part.end <= body.len()));
            }
        }
    }
}
