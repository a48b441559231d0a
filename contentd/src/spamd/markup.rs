// SPDX-License-Identifier: GPL-3.0-or-later
//! The header fields that PROCESS and HEADERS put on a message, and the removal of those that it came with. Pure.
//!
//! Fields and their forms are SpamAssassin's, because milters and filters of mail programs look into them. The body is left as it is, as
//! with SpamAssassin's `report_safe 0`. Lines end as those of the message do.

use super::assessment::Assessment;
use super::report::points;
use crate::message::edit::{Change, Edit};
use crate::message::{Limits, header};

/// Lines are folded at this width (RFC 5322 section 2.1.1).
const WIDTH: usize = 76;
/// Most stars in `X-Spam-Level`.
const STARS: usize = 50;
/// The longest name in a list of rules, so that no line grows too long.
const NAME: usize = 200;
const VERSION: &str = concat!("Octroi-", env!("CARGO_PKG_VERSION"));

/// A planned header section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markup {
    /// What changes in the message.
    pub edit: Edit,
    /// Where the body begins in the message as it came.
    pub body: u64,
    /// Whether the header section ends with an empty line.
    pub is_finished: bool,
    /// How lines end.
    pub line_end: &'static str,
}

impl Markup {
    /// Plans the fields. `head` is the start of the message with its whole header section, `hostname` is ours.
    pub fn new(head: &[u8], assessment: &Assessment, hostname: &str) -> Markup {
        let everything = Limits { header_bytes: usize::MAX, header_fields: usize::MAX, ..Limits::default() };
        let section = header::read(head, &everything);
        let is_ours = |name: &[u8]| name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"X-Spam-"));
        let cut = section.fields.iter().filter(|field| is_ours(&head[field.name.clone()]));
        let cut: Vec<Change> = cut
            .map(|field| Change { range: field.whole.start as u64..field.whole.end as u64, text: Vec::new() })
            .collect();
        let line_end = line_end(head);
        let fields: String = fields(assessment, hostname).into_iter().map(|line| line + line_end).collect();
        let mut edit = Edit { prepend: fields.into_bytes(), ..Edit::default() };
        edit.add(&cut);
        let is_finished = ends_with_empty_line(head.get(..section.body).unwrap_or(head));
        Markup { edit, body: section.body as u64, is_finished, line_end }
    }

    /// How long a message of `length` bytes is afterwards.
    pub fn length(&self, length: u64) -> u64 {
        let gone: u64 = self.edit.cut.iter().map(|range| range.end - range.start).sum();
        (length + self.edit.prepend.len() as u64).saturating_sub(gone)
    }

    /// The changed header section with its empty line.
    pub fn head(&self, head: &[u8]) -> Vec<u8> {
        let mut out = self.edit.prepend.clone();
        let body = usize::try_from(self.body).unwrap_or(head.len()).min(head.len());
        self.edit.pass(0, &head[..body], |piece| out.extend_from_slice(piece));
        if !self.is_finished {
            if !out.ends_with(b"\n") {
                out.extend_from_slice(self.line_end.as_bytes());
            }
            out.extend_from_slice(self.line_end.as_bytes());
        }
        out
    }
}

/// The line end of the first line.
fn line_end(head: &[u8]) -> &'static str {
    let first = memchr::memchr(b'\n', head).map(|at| &head[..at]);
    if first.is_some_and(|line| !line.ends_with(b"\r")) { "\n" } else { "\r\n" }
}

/// Whether the last line of a header section is empty. It is not when the body begins without such a line before it.
fn ends_with_empty_line(section: &[u8]) -> bool {
    let Some(before) = section.strip_suffix(b"\n") else { return false };
    let start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    before.get(start..).is_some_and(|line| line.trim_ascii().is_empty())
}

/// The lines of all fields, without line ends.
fn fields(assessment: &Assessment, hostname: &str) -> Vec<String> {
    let mut lines = vec![format!("X-Spam-Checker-Version: {VERSION} on {hostname}")];
    if assessment.is_spam {
        lines.push("X-Spam-Flag: YES".to_owned());
    }
    lines.push(format!("X-Spam-Level: {}", stars(assessment)));
    lines.extend(status(assessment));
    if assessment.is_spam {
        lines.push("X-Spam-Report:".to_owned());
        lines.extend(assessment.lines.iter().map(|line| {
            let meaning: String = line.described().chars().map(printable).take(NAME).collect();
            let name: String = line.name.chars().take(NAME).collect();
            format!("\t* {:>4} {name} {meaning}", points(line.score))
        }));
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

/// A star for each whole point.
fn stars(assessment: &Assessment) -> String {
    let whole = assessment.score.clamp(0.0, STARS as f64) as usize;
    "*".repeat(whole)
}

/// `X-Spam-Status`, folded behind commas of the list of tests.
fn status(assessment: &Assessment) -> Vec<String> {
    let yes = if assessment.is_spam { "Yes" } else { "No" };
    let (score, required) = (assessment.shown_score(), assessment.shown_required());
    let mut line = format!("X-Spam-Status: {yes}, score={score} required={required} tests=");
    let mut lines = Vec::new();
    let names = assessment.names();
    let mut names = if names.is_empty() { vec!["none"] } else { names.split(',').collect() };
    let last = names.pop().unwrap_or("none");
    let mut add = |word: &str| {
        let word: String = word.chars().take(NAME).collect();
        if line.len() + word.len() > WIDTH && line.len() > 1 {
            lines.push(std::mem::replace(&mut line, "\t".to_owned()));
        }
        line.push_str(&word);
    };
    names.iter().for_each(|name| add(&format!("{name},")));
    add(last);
    add(" autolearn=no");
    add(&format!(" version={VERSION}"));
    lines.push(line);
    // A continuation begins with one blank only.
    lines.into_iter().map(|line| line.replace("\t ", "\t")).collect()
}

fn printable(c: char) -> char {
    if matches!(c, ' '..='~') { c } else { '?' }
}

#[cfg(test)]
mod tests {
    use super::super::assessment::Line;
    use super::*;
    use proptest::prelude::*;

    fn assessment(is_spam: bool, names: &[&str]) -> Assessment {
        let lines = names.iter().map(|name| Line { name: (*name).into(), score: 3.0, description: "ü".into() });
        Assessment::new(lines.collect(), 3.0 * names.len() as f64, 5.0, is_spam, None)
    }

    fn applied(message: &[u8], assessment: &Assessment) -> String {
        let markup = Markup::new(message, assessment, "mx.test");
        let mut out = markup.edit.prepend.clone();
        markup.edit.pass(0, message, |piece| out.extend_from_slice(piece));
        assert_eq!(out.len() as u64, markup.length(message.len() as u64));
        String::from_utf8(out).unwrap().replace(VERSION, "V")
    }

    #[test]
    fn a_header_section_always_gets_its_empty_line() {
        for (message, body) in [
            (&b"From: a@b\r\n\r\nbody"[..], "From: a@b\r\n\r\n"),
            (b"\nbody", "\n"),
            (b"From: a@b\nbody\nwithout an empty line\n", "From: a@b\n\n"),
            (b"From: a@b\ru\r\nX-Spam-X\0: y\r\nX: y;\n\r\n", "From: a@b\r\r\n\r\n"),
            (b"From: a@b", "From: a@b\r\n\r\n"),
        ] {
            let head = Markup::new(message, &assessment(false, &[]), "mx.test").head(message);
            let head = String::from_utf8(head).unwrap();
            let text = String::from_utf8_lossy(message).into_owned();
            assert!(head.ends_with(&format!("version={VERSION}{}{body}", line_end(message))), "{text:?}: {head:?}");
        }
    }

    #[test]
    fn forged_fields_go_and_ours_come() {
        let message =
            b"From: a@b\r\nX-Spam-Flag: YES\r\n\tx\r\nx-spam-status: No\r\nSubject: x\r\n\r\nX-Spam-Y: body\r\n";
        assert_eq!(
            applied(message, &assessment(false, &[])),
            "X-Spam-Checker-Version: V on mx.test\r\nX-Spam-Level:\r\n\
             X-Spam-Status: No, score=0.0 required=5.0 tests=none autolearn=no\r\n\tversion=V\r\n\
             From: a@b\r\nSubject: x\r\n\r\nX-Spam-Y: body\r\n"
        );
        assert_eq!(
            applied(b"Subject: x\n\nbody", &assessment(true, &["A", "B"])),
            "X-Spam-Checker-Version: V on mx.test\nX-Spam-Flag: YES\nX-Spam-Level: ******\n\
             X-Spam-Status: Yes, score=6.0 required=5.0 tests=A,B autolearn=no\n\tversion=V\n\
             X-Spam-Report:\n\t*  3.0 A ?\n\t*  3.0 B ?\nSubject: x\n\nbody"
        );
    }

    #[test]
    fn long_lists_are_folded() {
        let names: Vec<String> = (0..40).map(|n| format!("RULE_NUMBER_{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = applied(b"Subject: x\n\nbody", &assessment(true, &names));
        assert!(text.lines().all(|line| line.len() <= WIDTH + 10), "{text}");
        let status = text.split("tests=").nth(1).unwrap().split("autolearn").next().unwrap();
        let list: String = status.chars().filter(|c| !c.is_whitespace()).collect();
        assert_eq!(list, names.join(","));
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        for message in ["Subject: x\n\nbody", "Subject: x\n", "Subject: x", ""] {
            let markup = Markup::new(message.as_bytes(), &assessment(false, &[]), "mx.test");
            let head = String::from_utf8(markup.head(message.as_bytes())).unwrap();
            assert!(head.ends_with("\n\n") || head.ends_with("\r\n\r\n"), "{message:?}: {head:?}");
            assert!(!head.contains("body"));
        }
    }

    proptest! {
        #[test]
        fn any_message_keeps_its_body(head in prop::collection::vec("(X-Spam-[A-Z]: y|Subject: z| w|\u{0}|:)", 0..8), body in any::<Vec<u8>>()) {
            let message = [head.join("\n").as_bytes(), b"\n\n", &body].concat();
            let markup = Markup::new(&message, &assessment(true, &["A"]), "mx.test");
            let mut out = markup.edit.prepend.clone();
            markup.edit.pass(0, &message, |piece| out.extend_from_slice(piece));
            prop_assert_eq!(out.len() as u64, markup.length(message.len() as u64));
            prop_assert!(out.ends_with(&body));
        }
    }
}
