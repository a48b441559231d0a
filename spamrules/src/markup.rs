// SPDX-License-Identifier: GPL-3.0-or-later
//! Taking off what SpamAssassin, or a filter in its form, has put on a message: what is to be learnt is the message as it was sent.
//!
//! Its `X-Spam-*` fields, what they kept of fields that were rewritten, a tag in the subject, the report in front of the body (before
//! version 3), and the message around the original (`report_safe`). Everything else keeps its bytes.

use crate::message::{Lines, is_blank};

/// How SpamAssassin names the part that holds the original.
const ORIGINAL: &[u8] = b"original message before SpamAssassin";
/// Kept fields that come back at most, and parts that may be the original: markup has a handful and two.
const MOST: usize = 100;
/// What an original without a subject has in place of one.
const NONE: &[u8] = b"(nonexistent)";

/// The message without markup. `subject_tags` are what the site puts in front of subjects, such as `*****SPAM*****`; `_SCORE_` and `_REQD_` in
/// them stand for any number.
pub fn without_markup(raw: &[u8], subject_tags: &[&str]) -> Vec<u8> {
    let separator = if raw.starts_with(b"From ") { Lines::new(raw).next().map_or(0, <[u8]>::len) } else { 0 };
    let (separator, message) = raw.split_at(separator);
    let (fields, body) = divide(message);
    let mut out = separator.to_vec();
    if let Some(inner) = original(&fields, body) {
        out.extend_from_slice(inner);
        return out;
    }
    restored(&fields, subject_tags).iter().for_each(|field| out.extend_from_slice(field));
    let start = message.len() - body.len();
    let fields: usize = fields.iter().map(|field| field.len()).sum();
    out.extend_from_slice(message.get(fields..start).unwrap_or_default());
    out.extend_from_slice(without_report(body));
    out
}

/// The fields of a header, folded lines and line ends included, and the body behind the empty line.
fn divide(message: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut ends = Vec::new();
    let mut at = 0;
    let mut body = message.len();
    for line in Lines::new(message) {
        if is_blank(line) {
            body = at + line.len();
            break;
        }
        if !matches!(line.first(), Some(b' ' | b'\t')) && at > 0 {
            ends.push(at);
        }
        at += line.len();
    }
    ends.push(at);
    let mut fields = Vec::new();
    let mut from = 0;
    for end in ends {
        fields.extend(message.get(from..end).filter(|field| !field.is_empty()));
        from = end;
    }
    (fields, message.get(body..).unwrap_or_default())
}

/// The name of a field, and what is behind the colon.
fn parts(field: &[u8]) -> (&[u8], &[u8]) {
    let colon = memchr::memchr(b':', field).unwrap_or(field.len());
    let (name, value) = field.split_at(colon);
    (name.trim_ascii(), value.get(1..).unwrap_or_default())
}

fn is_named(field: &[u8], name: &[u8]) -> bool {
    parts(field).0.eq_ignore_ascii_case(name)
}

/// What follows `prefix` in a text, letters' case aside.
fn behind<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The value of a field of that name, on one line.
fn value(fields: &[&[u8]], name: &[u8]) -> Option<Vec<u8>> {
    let field = fields.iter().find(|field| is_named(field, name))?;
    let text = String::from_utf8_lossy(parts(field).1).into_owned();
    Some(text.split_whitespace().collect::<Vec<_>>().join(" ").into_bytes())
}

/// The header as it was: fields that were rewritten come back, those of filters go.
fn restored(fields: &[&[u8]], subject_tags: &[&str]) -> Vec<Vec<u8>> {
    let previous = |field: &&&[u8]| behind(field, b"X-Spam-Prev-").is_some();
    let kept: Vec<&[u8]> = fields.iter().filter(previous).filter_map(|field| behind(field, b"X-Spam-Prev-")).collect();
    let kept = kept.get(..MOST).unwrap_or(&kept);
    let mut used = vec![false; kept.len()];
    let mut out: Vec<Vec<u8>> = Vec::new();
    for field in fields.iter().filter(|field| behind(field, b"X-Spam-").is_none()) {
        let name = parts(field).0;
        let found = kept.iter().zip(&mut used).find(|(old, used)| !**used && is_named(old, name));
        match found {
            Some((old, used)) => {
                *used = true;
                if !is_none(old) {
                    out.push(old.to_vec());
                }
            }
            None if name.eq_ignore_ascii_case(b"Subject") => out.push(without_tags(field, subject_tags)),
            None => out.push(field.to_vec()),
        }
    }
    let lost = kept.iter().zip(&used).filter(|(old, used)| !**used && !is_none(old));
    out.extend(lost.map(|(old, _)| old.to_vec()));
    out
}

/// Whether a kept subject says that there was none.
fn is_none(field: &[u8]) -> bool {
    is_named(field, b"Subject") && parts(field).1.trim_ascii() == NONE
}

/// A subject without the tags in front of it, however often they were put there.
fn without_tags(field: &[u8], tags: &[&str]) -> Vec<u8> {
    let (_, mut value) = parts(field);
    let name = field.get(..field.len() - value.len()).unwrap_or_default();
    let patterns: Vec<_> = tags.iter().filter_map(|tag| tag_pattern(tag)).collect();
    while let Some(found) = patterns.iter().find_map(|pattern| pattern.find(value)).filter(|found| found.end() > 0) {
        value = value.get(found.end() - 1..).unwrap_or_default();
    }
    [name, value].concat()
}

/// A tag with the blanks around it, numbers filled in.
fn tag_pattern(tag: &str) -> Option<regex::bytes::Regex> {
    let mut text = regex::escape(tag.trim());
    if text.is_empty() {
        return None;
    }
    for name in ["_HITS_", "_SCORE_", "_REQD_"] {
        text = text.replace(name, r"-?[0-9]{1,6}(?:\.[0-9]{1,6})?");
    }
    regex::bytes::Regex::new(&format!("^ *{text} ")).ok()
}

/// The body without reports in front of it.
fn without_report(body: &[u8]) -> &[u8] {
    let mut body = body;
    while let Some(rest) = behind_report(body) {
        body = rest;
    }
    body
}

/// What follows a report: lines that begin with `SPAM:` between two with dashes, and an empty line.
fn behind_report(body: &[u8]) -> Option<&[u8]> {
    let mut lines = Lines::new(body).peekable();
    let mut at = lines.next_if(|line| is_blank(line)).map_or(0, <[u8]>::len);
    lines.peek().filter(|line| line.starts_with(b"SPAM: ----"))?;
    let mut count = 0;
    let mut last: &[u8] = b"";
    while let Some(line) = lines.next_if(|line| line.starts_with(b"SPAM:")) {
        at += line.len();
        count += 1;
        last = line;
    }
    let blank = lines.next_if(|line| is_blank(line))?;
    (count > 1 && last.starts_with(b"SPAM: ----")).then(|| body.get(at + blank.len()..)).flatten()
}

/// The message in a `report_safe` one.
fn original<'m>(fields: &[&[u8]], body: &'m [u8]) -> Option<&'m [u8]> {
    let kind = value(fields, b"Content-Type")?;
    behind(&kind, b"multipart/mixed;")?;
    let boundary = boundary(&kind)?;
    let mut at = 0;
    let behind_boundaries = Lines::new(body).filter_map(|line| {
        at += line.len();
        is_boundary(line, &boundary).then(|| body.get(at..)).flatten()
    });
    behind_boundaries.take(MOST).find_map(|part| {
        let (fields, content) = divide(part);
        is_original(&fields).then(|| content.get(..end(content, &boundary)).unwrap_or(content))
    })
}

/// The boundary that a `Content-Type` names.
fn boundary(kind: &[u8]) -> Option<Vec<u8>> {
    let lower = kind.to_ascii_lowercase();
    let at = memchr::memmem::find(&lower, b"boundary=")? + b"boundary=".len();
    let rest = kind.get(at..)?;
    let text = match rest.first()? {
        quote @ (b'"' | b'\'') => rest.get(1..)?.split(|octet| octet == quote).next()?,
        _ => rest.split(|octet| matches!(octet, b';' | b' ')).next()?,
    };
    (!text.is_empty()).then(|| text.to_vec())
}

fn is_boundary(line: &[u8], boundary: &[u8]) -> bool {
    line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary)).is_some_and(is_blank)
}

fn is_original(fields: &[&[u8]]) -> bool {
    let Some(kind) = value(fields, b"Content-Type") else { return false };
    let lower = kind.to_ascii_lowercase();
    let marked = [&b"message/rfc822; x-spam-type=original"[..], b"text/plain; x-spam-type=original"];
    marked.iter().any(|start| lower.starts_with(start))
        || (lower == b"message/rfc822" && value(fields, b"Content-Description").is_some_and(|text| text == ORIGINAL))
}

/// Where a part ends: before the next boundary, and before the empty line that belongs to it.
fn end(content: &[u8], boundary: &[u8]) -> usize {
    let mut at = 0;
    let mut before: &[u8] = b"";
    for line in Lines::new(content) {
        if line.strip_prefix(b"--").is_some_and(|line| line.starts_with(boundary)) {
            return if is_blank(before) { at - before.len() } else { at };
        }
        at += line.len();
        before = line;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stripped(message: &str) -> String {
        String::from_utf8(without_markup(message.as_bytes(), &["*****SPAM*****", "[_SCORE_]"])).unwrap()
    }

    #[test]
    fn fields_and_subject() {
        assert_eq!(
            stripped(
                "From a@b Fri\nX-Spam-Flag: YES\nX-Spam-Status: Yes,\n\ttests=A\nSubject: *****SPAM***** [12.50] *****SPAM***** sale\nTo: x\n\nbody\n"
            ),
            "From a@b Fri\nSubject: sale\nTo: x\n\nbody\n"
        );
        assert_eq!(stripped("Subject: *****SPAM*****sale\n\n"), "Subject: *****SPAM*****sale\n\n");
        assert_eq!(stripped("A: b\r\nX-SPAM-LEVEL: *\r\n\r\nX-Spam-Flag: no\r\n"), "A: b\r\n\r\nX-Spam-Flag: no\r\n");
    }

    #[test]
    fn fields_that_were_rewritten() {
        assert_eq!(
            stripped(
                "Subject: *****SPAM***** x\nX-Spam-Prev-Subject: [12.50] a\n b\nX-Spam-Prev-Content-Type: text/html\n\nbody\n"
            ),
            "Subject: [12.50] a\n b\nContent-Type: text/html\n\nbody\n"
        );
        assert_eq!(stripped("Subject: *****SPAM*****\nX-Spam-Prev-Subject: (nonexistent)\nA: b\n\n"), "A: b\n\n");
    }

    #[test]
    fn reports_in_front_of_the_body() {
        let report = "SPAM: ---- Start\nSPAM: Hit!\nSPAM: ---- End\n\n";
        assert_eq!(stripped(&format!("A: b\n\n{report}\n{report}text\n")), "A: b\n\ntext\n");
        let other = "A: b\n\nSPAM: ---- Start\nSPAM: Hit!\ntext\n";
        assert_eq!(stripped(other), other);
    }

    #[test]
    fn messages_around_the_original() {
        let wrapped = |kind: &str| {
            format!(
                "X-Spam-Flag: YES\nContent-Type: multipart/mixed; boundary=\"-=_x\"\n\n---=_x\nContent-Type: text/plain\n\nreport\n\n---=_x\n\
                 {kind}\n\nSubject: y\nX-Spam-Kept: z\n\nbody\n\n---=_x--\n"
            )
        };
        let inner = "Subject: y\nX-Spam-Kept: z\n\nbody\n";
        assert_eq!(stripped(&wrapped("Content-Type: message/rfc822; x-spam-type=original")), inner);
        assert_eq!(
            stripped(&wrapped(
                "Content-Type: message/rfc822\nContent-Description: original message before SpamAssassin"
            )),
            inner
        );
        let forwarded = wrapped("Content-Type: message/rfc822");
        assert_eq!(stripped(&forwarded), forwarded.strip_prefix("X-Spam-Flag: YES\n").unwrap());
    }

    proptest! {
        #[test]
        fn any_message_is_taken(text in "(X-Spam-(Prev-)?|Subject: |a|[*]{5}SPAM[*]{5} |SPAM: ----|\n|\r\n| |:|Content-Type: multipart/mixed; boundary=b|--b){0,40}") {
            let once = without_markup(text.as_bytes(), &["*****SPAM*****"]);
            prop_assert!(once.len() <= text.len());
        }

        #[test]
        fn what_has_no_markup_stays(text in "((Subject|To|A): [a-z]{1,9}\n){1,5}\n[a-z \n]{0,40}") {
            prop_assert_eq!(without_markup(text.as_bytes(), &["*****SPAM*****"]), text.into_bytes());
        }
    }
}
