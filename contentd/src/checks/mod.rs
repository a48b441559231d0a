// SPDX-License-Identifier: GPL-3.0-or-later
//! Postfix' content checks (header_checks(5)) with Postfix' own files: header, MIME header, nested header and body checks.
//!
//! Postfix does not apply them to mail that it takes in through a proxy filter and turns most off behind one, so they are here. They
//! see lines as they arrive, nothing decoded, and one reading of the structure. What they find is an [`Outcome`]: facts and changes;
//! `verdict` and `transaction` do what follows.

mod action;
mod pattern;
mod settings;
mod table;

pub use action::Action;
pub use pattern::Dialect;
pub use settings::{CheckSettings, TableFile};
pub use table::{Found, Table};

use crate::message::Limits;
use crate::message::edit::Change;
use crate::message::header;
use crate::message::parts::{Head, HeadOf};
use common::config::{Mistake, Mistakes};
use common::orders::Order;
use metrics::counter;
use std::ops::Range;

/// Bytes of a header that are looked at, as Postfix' header_size_limit.
const HEADER: usize = 102_400;
/// A body line is looked at in pieces of this size, as Postfix' line_length_limit.
const LINE: usize = 2048;
/// Most changes of one message.
const CHANGES: usize = 10_000;
/// Most notes for the log, and characters of one.
const NOTES: usize = 10;
const NOTE: usize = 150;

/// The tables, ready for use.
#[derive(Debug, Default)]
pub struct Checks {
    header: Vec<Table>,
    /// None: those of `header`, as in Postfix.
    mime: Option<Vec<Table>>,
    nested: Option<Vec<Table>>,
    body: Vec<Table>,
    body_bytes: usize,
}

/// What the checks say of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The message is refused.
    pub refusal: Option<Refusal>,
    /// It is accepted and goes nowhere.
    pub discard: bool,
    /// Hold, redirect, bcc.
    pub orders: Vec<Order>,
    /// Lines that go, come or are replaced.
    pub changes: Vec<Change>,
    /// What the tables want to be logged.
    pub notes: Vec<String>,
}

/// A refusal by a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Enhanced status code; 4.x.x means later.
    pub status: String,
    /// What the client is told.
    pub text: String,
    /// `file:line` of the rule.
    pub rule: String,
}

impl Refusal {
    /// Whether the client may come again.
    pub fn is_temporary(&self) -> bool {
        self.status.starts_with('4')
    }
}

/// Whether more lines are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Line,
    Nothing,
}

/// Which kind of line a change is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Header,
    Body,
}

impl Checks {
    /// Reads the tables. Errors: every file that cannot be read and every line that is wrong.
    pub fn load(settings: &CheckSettings) -> Result<Checks, Mistakes> {
        let mut mistakes = Mistakes::new();
        let mut tables = |files: &[TableFile]| -> Vec<Table> {
            files.iter().filter_map(|file| load_table(file).map_err(|wrong| mistakes.extend(wrong)).ok()).collect()
        };
        let checks = Checks {
            header: tables(&settings.header_checks),
            mime: settings.mime_header_checks.as_deref().map(&mut tables),
            nested: settings.nested_header_checks.as_deref().map(&mut tables),
            body: tables(&settings.body_checks),
            body_bytes: usize::try_from(settings.body_checks_size_limit.0).unwrap_or(usize::MAX),
        };
        mistakes.into_result(checks)
    }

    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        let some = |tables: &Option<Vec<Table>>| tables.as_ref().is_some_and(|tables| !tables.is_empty());
        self.header.is_empty() && self.body.is_empty() && !some(&self.mime) && !some(&self.nested)
    }

    /// Checks a message, whose header sections are at `heads`.
    pub fn run(&self, message: &[u8], heads: &[Head]) -> Outcome {
        let mut outcome = Outcome::default();
        if self.is_empty() {
            return outcome;
        }
        let mut heads: Vec<&Head> = heads.iter().collect();
        heads.sort_by_key(|head| head.range.start);
        let mut at = 0;
        for head in heads {
            if head.range.start < at {
                continue;
            }
            if self.body(message, at..head.range.start, &mut outcome) == Next::Nothing
                || self.head(message, head, &mut outcome) == Next::Nothing
            {
                return outcome;
            }
            at = head.range.end;
        }
        self.body(message, at..message.len(), &mut outcome);
        outcome
    }

    fn head(&self, message: &[u8], head: &Head, outcome: &mut Outcome) -> Next {
        let bytes = &message[head.range.clone()];
        let everything = Limits { header_bytes: usize::MAX, header_fields: usize::MAX, ..Limits::default() };
        for field in header::read(bytes, &everything).fields {
            let tables = self.tables(&bytes[field.name.clone()], head.of);
            if tables.is_empty() {
                continue;
            }
            let range = head.range.start + field.whole.start..head.range.start + field.whole.end;
            let text = header_text(&bytes[field.whole.clone()]);
            if act(tables, &text, range, Kind::Header, outcome) == Next::Nothing {
                return Next::Nothing;
            }
        }
        Next::Line
    }

    /// The tables for a header: those for MIME wherever it stands, else by the message it belongs to.
    fn tables(&self, name: &[u8], of: HeadOf) -> &[Table] {
        const MIME: [&str; 6] = [
            "content-description",
            "content-disposition",
            "content-id",
            "content-transfer-encoding",
            "content-type",
            "mime-version",
        ];
        let is_mime = MIME.iter().any(|mime| name.eq_ignore_ascii_case(mime.as_bytes()));
        match of {
            _ if is_mime => self.mime.as_ref().unwrap_or(&self.header),
            HeadOf::Part => self.mime.as_ref().unwrap_or(&self.header),
            HeadOf::Attached => self.nested.as_ref().unwrap_or(&self.header),
            HeadOf::Message => &self.header,
        }
    }

    /// The lines between two header sections, as far as the limit goes.
    fn body(&self, message: &[u8], range: Range<usize>, outcome: &mut Outcome) -> Next {
        if self.body.is_empty() {
            return Next::Line;
        }
        let mut at = range.start;
        while at < range.end && at - range.start < self.body_bytes {
            let line = &message[at..range.end];
            let end = memchr::memchr(b'\n', line).map_or(line.len(), |end| end + 1).min(LINE);
            let text = without_line_end(&line[..end]);
            if act(&self.body, text, at..at + end, Kind::Body, outcome) == Next::Nothing {
                return Next::Nothing;
            }
            at += end;
        }
        Next::Line
    }
}

fn load_table(file: &TableFile) -> Result<Table, Mistakes> {
    let name = file.path.display().to_string();
    let wrong = |line: Option<usize>, message: String| {
        let origin = line.map_or_else(|| name.clone(), |line| format!("{name}:{line}"));
        Mistake { origin, key: String::new(), message }
    };
    let text = std::fs::read_to_string(&file.path).map_err(|error| wrong(None, format!("cannot be read: {error}")))?;
    let table = Table::parse(&name, &text, file.dialect)?;
    let mut mistakes = Mistakes::new();
    for (result, line) in table.results() {
        match Action::parse(&result) {
            // What a pattern puts in can only be seen when it does.
            Err(_) if result.contains("${") => {}
            Err(error) => mistakes.push(wrong(Some(line), error.to_string())),
            Ok(_) => {}
        }
    }
    mistakes.into_result(table)
}

/// A header as Postfix shows it to the tables: its lines with LF between them.
fn header_text(whole: &[u8]) -> Vec<u8> {
    let text = without_line_end(&whole[..whole.len().min(HEADER)]);
    let mut out = Vec::with_capacity(text.len());
    for (place, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if place > 0 {
            out.push(b'\n');
        }
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
    }
    out
}

fn without_line_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Looks a line up in all tables and notes what the first result asks for.
fn act(tables: &[Table], text: &[u8], range: Range<usize>, kind: Kind, outcome: &mut Outcome) -> Next {
    let found = tables.iter().find_map(|table| table.find(text).map(|found| (table, found)));
    let Some((table, Found { result, line })) = found else { return Next::Line };
    let rule = format!("{}:{line}", table.name());
    let action = match Action::parse(&result) {
        Ok(action) => action,
        Err(_) => {
            count("unusable");
            outcome.note("unusable", &rule, "");
            return Next::Line;
        }
    };
    take(action, rule, range, kind, outcome)
}

fn take(action: Action, rule: String, range: Range<usize>, kind: Kind, outcome: &mut Outcome) -> Next {
    match action {
        Action::Dunno => {}
        Action::Log(word, text) => {
            count(word);
            outcome.note(word, &rule, &text);
        }
        Action::Order(order) => {
            count(order.word());
            outcome.order(order);
        }
        Action::Remove(text) => {
            count("remove");
            if let Some(text) = text {
                outcome.note("strip", &rule, &text);
            }
            outcome.change(range, String::new(), &rule);
        }
        Action::Replace(text) | Action::Prepend(text) if kind == Kind::Header && !is_field(&text) => {
            count("unusable");
            outcome.note("no header field", &rule, "");
        }
        Action::Replace(text) => {
            count("replace");
            outcome.change(range, text, &rule);
        }
        Action::Prepend(text) => {
            count("prepend");
            outcome.change(range.start..range.start, text, &rule);
        }
        Action::Pass(text) => {
            count("pass");
            outcome.note("pass", &rule, &text);
            return Next::Nothing;
        }
        Action::Discard(text) => {
            count("discard");
            outcome.note("discard", &rule, &text);
            outcome.discard = true;
            return Next::Nothing;
        }
        Action::Reject { status, text } => {
            count("reject");
            outcome.refusal = Some(Refusal { status, text, rule });
            return Next::Nothing;
        }
    }
    Next::Line
}

fn count(action: &'static str) {
    counter!("octroi_contentd_checks_total", "action" => action).increment(1);
}

/// Whether a text begins like a header field.
fn is_field(text: &str) -> bool {
    let Some((name, _)) = text.split_once(':') else { return false };
    let name = name.trim_end();
    !name.is_empty() && name.bytes().all(|byte| matches!(byte, 33..=126))
}

impl Outcome {
    /// Adds a note, cut and made printable.
    pub(crate) fn note(&mut self, word: &str, rule: &str, text: &str) {
        if self.notes.len() < NOTES {
            let file = rule.rsplit('/').next().unwrap_or(rule);
            let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(NOTE).collect();
            self.notes.push(if text.is_empty() { format!("{word} {file}") } else { format!("{word} {file} {text}") });
        }
    }

    /// Of several redirections the last one counts, as in Postfix.
    fn order(&mut self, order: Order) {
        if matches!(order, Order::Redirect(_)) {
            self.orders.retain(|other| !matches!(other, Order::Redirect(_)));
        }
        if !self.orders.contains(&order) {
            self.orders.push(order);
        }
    }

    fn change(&mut self, range: Range<usize>, text: String, rule: &str) {
        if self.changes.len() >= CHANGES {
            count("too_many");
            return self.note("too many changes", rule, "");
        }
        self.changes.push(Change::new(range, &text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::message::parts;
    use proptest::prelude::*;

    fn checks(header: &str, mime: Option<&str>, nested: Option<&str>, body: &str) -> Checks {
        let table = |text: &str| vec![Table::parse("f", text, Dialect::Regexp).unwrap()];
        Checks {
            header: table(header),
            mime: mime.map(table),
            nested: nested.map(table),
            body: table(body),
            body_bytes: 200,
        }
    }

    fn run(checks: &Checks, message: &str) -> Outcome {
        let message = bytes::Bytes::copy_from_slice(message.as_bytes());
        let view = parts::walk(&message, &Limits::default(), &mut Budget::ample());
        checks.run(&message, &view.heads)
    }

    const MESSAGE: &str = "Subject: one\r\n two\r\nContent-Type: multipart/mixed; boundary=A\r\n\r\n--A\r\n\
        X-Part: x\r\nContent-Type: text/plain\r\n\r\nbody one\r\n--A\r\nContent-Type: message/rfc822\r\n\r\n\
        Subject: inner\r\nContent-Type: text/html\r\n\r\nbody two\r\n--A--\r\n";

    #[test]
    fn each_class_sees_its_lines() {
        let all = "/^(.*)$/ INFO $1\n";
        for (checks, seen) in [
            (checks(all, Some("!/./ x"), Some("!/./ x"), "!/./ x"), vec!["Subject: one  two"]),
            (
                checks("!/./ x", Some(all), Some("!/./ x"), "!/./ x"),
                vec![
                    "Content-Type: multipart/mixed; boundary=A",
                    "X-Part: x",
                    "Content-Type: text/plain",
                    "Content-Type: message/rfc822",
                    "Content-Type: text/html",
                ],
            ),
            (checks("!/./ x", Some("!/./ x"), Some(all), "!/./ x"), vec!["Subject: inner"]),
            (
                checks("!/./ x", Some("!/./ x"), Some("!/./ x"), all),
                vec!["--A", "body one", "--A", "body two", "--A--"],
            ),
        ] {
            let notes: Vec<String> =
                run(&checks, MESSAGE).notes.iter().map(|note| note.replacen("info f:1 ", "", 1)).collect();
            assert_eq!(notes, seen);
        }
        let both = run(&checks("/^Subject/ INFO\n", None, None, "!/./ x"), MESSAGE);
        assert_eq!(both.notes.len(), 2, "nested headers go by header_checks where they have no tables of their own");
    }

    #[test]
    fn lines_go_come_and_are_replaced() {
        let tables = "/^Subject: (.*)/ REPLACE Subject: [$1]\n/^Content-Type: text.plain/ PREPEND X-New: y\n\
            /^X-Part/ IGNORE\n/^Content-Type: text.html/ REPLACE nonsense\n";
        let outcome = run(&checks(tables, None, None, "/^body (.*)/ REPLACE $1!\n"), MESSAGE);
        let mut edit = crate::message::edit::Edit::default();
        edit.add(&outcome.changes);
        let mut out = Vec::new();
        edit.pass(0, MESSAGE.as_bytes(), |piece| out.extend_from_slice(piece));
        let expected = MESSAGE
            .replace("Subject: one\r\n two", "Subject: [one  two]")
            .replace("Subject: inner", "Subject: [inner]")
            .replace("X-Part: x\r\nContent", "X-New: y\r\nContent")
            .replace("body one", "one!")
            .replace("body two", "two!");
        assert_eq!(String::from_utf8_lossy(&out), expected);
        assert_eq!(outcome.notes, ["no header field f:4"]);
    }

    #[test]
    fn what_ends_the_checks() {
        let outcome = run(&checks("/one/ HOLD\n", None, None, "/body one/ REJECT 5.7.9 no\n/two/ WARN\n"), MESSAGE);
        let refusal = Refusal { status: "5.7.9".into(), text: "no".into(), rule: "f:1".into() };
        assert_eq!((outcome.refusal, outcome.notes.len()), (Some(refusal), 0));
        assert_eq!(outcome.orders, [Order::Hold]);
        let outcome = run(&checks("/one/ PASS\n/./ REJECT\n", None, None, "/./ REJECT\n"), MESSAGE);
        assert_eq!((outcome.refusal, outcome.notes), (None, vec!["pass f:1".to_owned()]));
        let outcome = run(&checks("/one/ DISCARD\n/./ REJECT\n", None, None, "/./ REJECT\n"), MESSAGE);
        assert!(outcome.discard && outcome.refusal.is_none());
        let redirects =
            "/^Subject: o/ REDIRECT a@x.test\n/^Subject: i/ REDIRECT b@x.test\n/^Content-Type: m/ BCC c@x.test\n";
        let orders: Vec<String> =
            run(&checks(redirects, None, None, "!/./ x"), MESSAGE).orders.iter().map(Order::to_string).collect();
        assert_eq!(orders, ["bcc=c@x.test", "redirect=b@x.test"]);
    }

    #[test]
    fn only_the_start_of_each_body_is_looked_at() {
        let message = format!("A: b\r\n\r\n{}needle\r\n", "0123456789abcdef\r\n".repeat(12));
        assert_eq!(run(&checks("!/./ x", None, None, "/needle/ REJECT\n"), &message).refusal, None);
        let message = format!("A: b\r\n\r\n{}needle\r\n", "0123456789abcdef\r\n".repeat(10));
        assert!(run(&checks("!/./ x", None, None, "/needle/ REJECT\n"), &message).refusal.is_some());
    }

    proptest! {
        #[test]
        fn any_message_is_checked(lines in proptest::collection::vec("(--A|--A--|[a-z]: x|Content-Type: (multipart/mixed; boundary=A|message/rfc822)||)\r?\n", 0..30)) {
            let outcome = run(&checks("/^a/ IGNORE\n/^b/ PREPEND c: d\n", None, None, "/x/ REPLACE y\n"), &lines.concat());
            let message = lines.concat();
            let mut edit = crate::message::edit::Edit::default();
            edit.add(&outcome.changes);
            let mut out = Vec::new();
            edit.pass(0, message.as_bytes(), |piece| out.extend_from_slice(piece));
            prop_assert!(out.len() <= message.len() + outcome.changes.len() * 10);
        }
    }
}
