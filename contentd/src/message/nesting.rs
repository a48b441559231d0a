// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether lines that begin like a delimiter and go on are nothing but the delimiters of a multipart within (RFC 2046 section 5.1.1).
//!
//! Some programs name the boundary of an inner multipart after the outer one: `A` and `A-1`. By the letter of the RFC, which compares
//! beginnings, the inner delimiters divide the outer multipart, too. Where that shows the very same parts, nothing can be hidden by it. Pure.

use super::Limits;
use super::header;
use super::multipart::{self, Reading, Split};
use super::parse::{self, Encoding};
use std::collections::HashSet;
use std::ops::Range;

/// Whether each part that this body has by the letter is one that it has by whole lines as well, in a plain multipart within at most, or
/// holds nothing.
pub(super) fn explains(body: &[u8], lines: &Split, letter: &Split, limits: &Limits) -> bool {
    let by_letter: HashSet<_> = letter.parts.iter().map(key).collect();
    let mut known: HashSet<_> = lines.parts.iter().map(key).collect();
    for part in lines.parts.iter().filter(|part| !by_letter.contains(&key(part))) {
        let Some(inner) = body.get(part.clone()).and_then(|entity| parts_within(entity, limits)) else {
            return false;
        };
        known.extend(inner.into_iter().map(|range| (range.start + part.start, range.end + part.start)));
    }
    let is_blank = |part: &Range<usize>| body.get(part.clone()).is_some_and(|bytes| bytes.trim_ascii().is_empty());
    letter.parts.iter().all(|part| known.contains(&key(part)) || is_blank(part))
}

fn key(range: &Range<usize>) -> (usize, usize) {
    (range.start, range.end)
}

/// The parts of a multipart that can be read in one way only, and its header section as a part without a body.
fn parts_within(entity: &[u8], limits: &Limits) -> Option<Vec<Range<usize>>> {
    let sections = header::readings(entity, limits);
    let [(_, section)] = &sections[..] else { return None };
    let meaning = parse::interpret(entity, section, limits);
    let ([kind], [boundary], [Encoding::Identity]) =
        (&meaning.types[..], &meaning.boundaries[..], &meaning.encodings[..])
    else {
        return None;
    };
    let odd = !section.flaws.is_empty() || !meaning.oddities.is_empty() || meaning.unusual;
    // In a digest parts are messages when they do not say what they are.
    if odd || !kind.starts_with("multipart/") || kind == "multipart/digest" {
        return None;
    }
    let body = entity.get(section.body..)?;
    let readings = multipart::readings(body, std::slice::from_ref(boundary), limits.parts);
    let [Reading { split, .. }] = &readings[..] else { return None };
    let is_blank = |range: &Range<usize>| body.get(range.clone()).is_some_and(|bytes| bytes.trim_ascii().is_empty());
    if !split.closed || split.after_close || !is_blank(&split.preamble) || !is_blank(&split.epilogue) {
        return None;
    }
    let head = 0..multipart::before_line_end(entity, 0, section.body + split.preamble.end);
    let shifted = split.parts.iter().map(|part| part.start + section.body..part.end + section.body);
    Some(std::iter::once(head).chain(shifted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether the lines of this body that begin like a delimiter of `A` are explained; none: there are no such lines.
    fn explained(body: &str) -> Option<bool> {
        let readings = multipart::readings(body.as_bytes(), &[b"A".to_vec()], 100);
        let [lines, letter] = &readings[..] else { return None };
        Some(explains(body.as_bytes(), &lines.split, &letter.split, &Limits::default()))
    }

    const INNER: &str = "Content-Type: multipart/alternative; boundary=A-1\r\n\r\n";

    #[test]
    fn an_inner_multipart_explains_its_delimiters() {
        let body = format!(
            "--A\r\n{INNER}--A-1\r\n\r\none\r\n--A-1\r\n\r\ntwo\r\n--A-1--\r\n\r\n--A\r\n\r\nthree\r\n--A--\r\n"
        );
        assert_eq!(explained(&body), Some(true));
        assert_eq!(explained(&body.replace("\r\n", "\n")), Some(true));
    }

    #[test]
    fn what_is_seen_in_one_way_only_is_not_explained() {
        let body = |inner: &str| format!("--A\r\n{inner}\r\n--A\r\n\r\nthree\r\n--A--\r\n");
        for inner in [
            "\r\n--A-1\r\n\r\nfile",
            &format!("{}--A-1\r\n\r\none\r\n--A-1--", INNER.replace("alternative", "digest")),
            "Content-Type: text/plain\r\n\r\n--A-1\r\n\r\nfile\r\n--A-1--",
            &format!("{INNER}in front\r\n--A-1\r\n\r\none\r\n--A-1--"),
            &format!("{INNER}--A-1\r\n\r\none\r\n--A-1--\r\nbehind"),
            &format!("{INNER}--A-1\r\n\r\none\r\n--A-1"),
            &format!("{INNER}--A-1\r\n\r\none\r\n--A-12\r\n\r\nfile\r\n--A-1--"),
            &format!("{INNER}--A-1\r\n\r\none\r\n--A-1--\r\n--A-1\r\n\r\nfile\r\n--A-1--"),
            &format!("{INNER}--A-1\r\n\r\none\r\n--Ax\r\n\r\nfile\r\n--A-1--"),
            &format!("Content-Transfer-Encoding: base64\r\n{INNER}--A-1\r\n\r\none\r\n--A-1--"),
            &format!("Content-Type: text/plain\r\n{INNER}--A-1\r\n\r\none\r\n--A-1--"),
        ] {
            assert_eq!(explained(&body(inner)), Some(false), "{inner}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_looked_at(body in "(--A|--A-1|--A-1--|--A--|Content-Type: multipart/mixed; boundary=A-1|x|\r|\n|\r\n){0,40}") {
            explained(&body);
        }
    }
}
