// SPDX-License-Identifier: GPL-3.0-or-later
//! How a message's header section is changed on its way out: own fields on top, forged copies cut out.
//!
//! An edit is a plan of bytes to put before the message and ranges to leave out; it is applied while the
//! message streams to the next hop, and no other byte is touched, so that signatures stay valid (RFC 6376).
//! Field values cannot hold CR, LF or NUL by their type, whatever file or virus name goes into them.

use super::Limits;
use super::header;
use common::handover::{ORDER_HEADER, RESULTS_HEADER};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Lines are folded at this width (RFC 5322 section 2.1.1).
const WIDTH: usize = 78;
/// No line may be longer than this without its CR LF (RFC 5322 section 2.1.1).
const LINE: usize = 998;
/// A value is cut at this length.
const VALUE: usize = 4000;

/// A header field of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderField {
    name: &'static str,
    value: String,
}

impl HeaderField {
    /// A field with this name, which is ours and valid, and a value made safe: printable ASCII, `?` for the rest.
    pub fn new(name: &'static str, value: &str) -> HeaderField {
        let safe = |c: char| {
            if c == '\t' || c == '\n' {
                ' '
            } else if matches!(c, ' '..='~') {
                c
            } else {
                '?'
            }
        };
        let value: String = value.chars().map(safe).take(VALUE).collect();
        HeaderField { name, value: value.trim().to_owned() }
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The value, unfolded.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Appends the field as it goes on the wire, folded at blanks; a word longer than a line may be is broken.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.as_bytes());
        out.push(b':');
        let mut width = self.name.len() + 1;
        for word in self.value.split(' ').filter(|word| !word.is_empty()) {
            for piece in word.as_bytes().chunks(LINE - 1) {
                let (next, begun) = (width + 1 + piece.len(), width > self.name.len() + 1);
                if next > LINE || next > WIDTH && begun {
                    out.extend_from_slice(b"\r\n");
                    width = 0;
                }
                out.push(b' ');
                out.extend_from_slice(piece);
                width += 1 + piece.len();
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The fields that contentd can add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnField {
    /// Only on messages that a virus scanner has seen whole.
    #[serde(rename = "X-Virus-Scanned")]
    VirusScanned,
    /// On all other messages: what was not scanned, and why.
    #[serde(rename = "X-Octroi-Status")]
    Status,
    /// On every message: what each virus scanner has seen of it.
    #[serde(rename = "X-Octroi-Scanned")]
    Scanned,
    /// The id by which the log and `octroi why` know the message.
    #[serde(rename = "X-Octroi-ID")]
    Id,
    /// YES on tagged messages, NO on others that spam rules have seen.
    #[serde(rename = "X-Spam-Flag")]
    SpamFlag,
    /// Score, the score from which on messages are tagged, and what has counted.
    #[serde(rename = "X-Spam-Status")]
    SpamStatus,
    /// A star for each point.
    #[serde(rename = "X-Spam-Level")]
    SpamLevel,
    /// The score.
    #[serde(rename = "X-Spam-Score")]
    SpamScore,
    /// What has counted, in words.
    #[serde(rename = "X-Spam-Report")]
    SpamReport,
}

impl OwnField {
    /// The field's name.
    pub fn name(self) -> &'static str {
        match self {
            OwnField::VirusScanned => "X-Virus-Scanned",
            OwnField::Status => "X-Octroi-Status",
            OwnField::Scanned => "X-Octroi-Scanned",
            OwnField::Id => "X-Octroi-ID",
            OwnField::SpamFlag => "X-Spam-Flag",
            OwnField::SpamStatus => "X-Spam-Status",
            OwnField::SpamLevel => "X-Spam-Level",
            OwnField::SpamScore => "X-Spam-Score",
            OwnField::SpamReport => "X-Spam-Report",
        }
    }
}

/// Section `[headers]`: which fields are taken out of incoming mail and which of ours are added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderSettings {
    /// Names of fields to remove; a `*` at the end stands for any rest.
    pub remove: Vec<String>,
    /// Our fields to add.
    pub add: Vec<OwnField>,
}

impl Default for HeaderSettings {
    fn default() -> HeaderSettings {
        let remove = ["X-Octroi-*", "X-Virus-Scanned", "X-Spam-*", "X-Quarantine-ID"];
        HeaderSettings {
            remove: remove.map(str::to_owned).to_vec(),
            add: vec![
                OwnField::VirusScanned,
                OwnField::Status,
                OwnField::Scanned,
                OwnField::Id,
                OwnField::SpamFlag,
                OwnField::SpamStatus,
                OwnField::SpamLevel,
            ],
        }
    }
}

impl HeaderSettings {
    /// Whether fields with this name are removed. Incoming copies of ours always are, listed or not.
    pub fn removes(&self, name: &str) -> bool {
        let own = self.add.iter().map(|field| field.name()).chain([ORDER_HEADER, RESULTS_HEADER]);
        own.into_iter().any(|field| field.eq_ignore_ascii_case(name))
            || self.remove.iter().any(|pattern| fits(pattern, name))
    }

    /// What is wrong with the section: the key within it and a message.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let valid = |pattern: &str| {
            let name = pattern.strip_suffix('*').unwrap_or(pattern);
            !name.is_empty() && name.bytes().all(|byte| matches!(byte, 33..=126) && byte != b':' && byte != b'*')
        };
        let wrong = self.remove.iter().filter(|pattern| !valid(pattern));
        wrong
            .map(|pattern| ("remove", format!("{pattern:?} is not a header name, nor one with `*` at its end")))
            .collect()
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)),
        None => name.eq_ignore_ascii_case(pattern),
    }
}

/// Bytes of a message that other bytes take the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What goes; empty where something comes only.
    pub range: Range<u64>,
    /// Whole lines that come, each with its CR LF.
    pub text: Vec<u8>,
}

impl Change {
    /// Puts a line, or none when the text is empty, in the place of the range. The text cannot end its line.
    pub fn new(range: Range<usize>, text: &str) -> Change {
        let mut line: Vec<u8> =
            text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n' | 0) { b' ' } else { byte }).collect();
        if !line.is_empty() {
            line.extend_from_slice(b"\r\n");
        }
        Change { range: range.start as u64..range.end as u64, text: line }
    }
}

/// What changes on the way out: first `prepend`, then the message without the `cut` ranges and with what is `put`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Whole header fields, each with its CR LF.
    pub prepend: Vec<u8>,
    /// Offsets in the message, ascending and apart from each other.
    pub cut: Vec<Range<u64>>,
    /// Bytes to put in before the byte with this offset, in order.
    pub put: Vec<(u64, Vec<u8>)>,
}

impl Edit {
    /// Adds changes, in whatever order they are.
    pub fn add(&mut self, changes: &[Change]) {
        self.put.extend(changes.iter().filter(|c| !c.text.is_empty()).map(|c| (c.range.start, c.text.clone())));
        self.put.sort_by_key(|(at, _)| *at);
        self.cut.extend(changes.iter().filter(|c| !c.range.is_empty()).map(|c| c.range.clone()));
        self.cut.sort_by_key(|range| range.start);
        self.cut.dedup_by(|next, last| {
            let joined = next.start <= last.end;
            if joined {
                last.end = last.end.max(next.end);
            }
            joined
        });
    }

    /// Gives what goes out of `chunk`, which begins at byte `at` of the message, piece by piece.
    pub fn pass(&self, at: u64, chunk: &[u8], mut each: impl FnMut(&[u8])) {
        let end = at + chunk.len() as u64;
        let first = self.put.partition_point(|(offset, _)| *offset < at);
        let mut from = at;
        for (offset, text) in self.put[first..].iter().take_while(|(offset, _)| *offset < end) {
            self.kept(from..*offset, at, chunk, &mut each);
            each(text);
            from = *offset;
        }
        self.kept(from..end, at, chunk, &mut each);
    }

    /// The pieces of a range of the message that are not cut.
    fn kept(&self, range: Range<u64>, at: u64, chunk: &[u8], each: &mut impl FnMut(&[u8])) {
        let mut piece = |piece: Range<u64>| {
            if piece.start < piece.end {
                each(&chunk[(piece.start - at) as usize..(piece.end - at) as usize]);
            }
        };
        let mut from = range.start;
        let first = self.cut.partition_point(|cut| cut.end <= range.start);
        for cut in self.cut[first..].iter().take_while(|cut| cut.start < range.end) {
            piece(from..cut.start);
            from = from.max(cut.end).min(range.end);
        }
        piece(from..range.end);
    }
}

/// Plans the edit. `head` is the start of the message with its whole header section; what follows that is not looked at.
pub fn plan(head: &[u8], own: &[HeaderField], settings: &HeaderSettings) -> Edit {
    let everything = Limits { header_bytes: usize::MAX, header_fields: usize::MAX, ..Limits::default() };
    let section = header::read(head, &everything);
    let mut edit = Edit::default();
    for field in own {
        field.write(&mut edit.prepend);
    }
    for field in &section.fields {
        let name = String::from_utf8_lossy(&head[field.name.clone()]);
        if !settings.removes(&name) {
            continue;
        }
        let (start, end) = (field.whole.start as u64, field.whole.end as u64);
        match edit.cut.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => edit.cut.push(start..end),
        }
    }
    edit
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(message: &[u8], edit: &Edit) -> Vec<u8> {
        let mut out = edit.prepend.clone();
        edit.pass(0, message, |piece| out.extend_from_slice(piece));
        out
    }

    #[test]
    fn changes_are_made_wherever_the_message_is_cut() {
        let message = b"0123456789";
        let mut edit = Edit::default();
        let change = |range: Range<u64>, text: &str| Change { range, text: text.as_bytes().to_vec() };
        edit.add(&[
            change(2..4, ""),
            change(6..8, "x"),
            change(3..5, ""),
            change(9..9, "y"),
            change(0..0, "a"),
            change(0..0, "b"),
        ]);
        assert_eq!(edit.cut, [2..5, 6..8]);
        for size in 1..12 {
            let mut out = Vec::new();
            for (number, chunk) in message.chunks(size).enumerate() {
                edit.pass((number * size) as u64, chunk, |piece| out.extend_from_slice(piece));
            }
            assert_eq!(String::from_utf8_lossy(&out), "ab015x8y9", "{size}");
        }
        assert_eq!(Change::new(0..1, "X: a\r\n b\0").text, b"X: a   b \r\n");
    }

    #[test]
    fn forged_copies_go_and_every_other_byte_stays() {
        let message = b"Received: x\r\nx-virus-scanned: me\r\n\tand you\r\nX-Spam-Flag : NO\r\nSubject:  a \r\n b\r\n\
            X-Octroi-Anything: y\r\n\r\nX-Spam-Flag: in the body\r\n";
        let own = [HeaderField::new("X-Octroi-ID", "1ABC")];
        let edit = plan(message, &own, &HeaderSettings::default());
        assert_eq!(edit.cut.len(), 2);
        assert_eq!(
            String::from_utf8(applied(message, &edit)).unwrap(),
            "X-Octroi-ID: 1ABC\r\nReceived: x\r\nSubject:  a \r\n b\r\n\r\nX-Spam-Flag: in the body\r\n"
        );
    }

    #[test]
    fn copies_of_ours_go_even_when_the_list_is_empty() {
        let settings = HeaderSettings { remove: Vec::new(), add: vec![OwnField::Id] };
        let message =
            b"X-Octroi-ID: forged\r\nx-octroi-order: hold\r\nX-Octroi-Results: spf=pass\r\nX-Spam-Flag: NO\r\n\r\n";
        assert_eq!(applied(message, &plan(message, &[], &settings)), b"X-Spam-Flag: NO\r\n\r\n");
    }

    #[test]
    fn values_cannot_break_the_header_section() {
        let field = HeaderField::new("X-Octroi-Status", "a\r\nBcc: x\0y\u{202e}\u{e9}\n");
        let mut out = Vec::new();
        field.write(&mut out);
        assert_eq!(out, b"X-Octroi-Status: a? Bcc: x?y??\r\n");
    }

    #[test]
    fn long_values_are_folded() {
        let mut out = Vec::new();
        HeaderField::new("X-Octroi-Status", &["word"; 50].join(" ")).write(&mut out);
        HeaderField::new("X-Octroi-Status", &"x".repeat(3000)).write(&mut out);
        let text = String::from_utf8(out).unwrap();
        let fields: Vec<_> = text.split_inclusive("\r\n").collect();
        assert!(fields.iter().all(|line| line.len() <= LINE + 2 && line.ends_with("\r\n")));
        assert!(fields.iter().take(4).all(|line| line.len() <= WIDTH + 2), "{fields:?}");
        assert!(fields.iter().all(|line| line.starts_with("X-Octroi-Status:") || line.starts_with(' ')));
        assert!(text.lines().all(|line| !line.trim().is_empty()));
    }

    #[test]
    fn settings_are_checked() {
        let with = |pattern: &str| HeaderSettings { remove: vec![pattern.to_owned()], ..HeaderSettings::default() };
        assert_eq!(HeaderSettings::default().mistakes(), []);
        for pattern in ["", "*", "X Y", "X:", "X*Y"] {
            assert_eq!(with(pattern).mistakes().len(), 1, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn cutting_chunk_by_chunk_is_cutting_at_once(text in "[a-z]{0,60}", cuts in prop::collection::vec(0u64..70, 0..8), size in 1usize..20) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let ranges: Vec<_> = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
            let expected: Vec<u8> =
                text.bytes().enumerate().filter(|(at, _)| !ranges.iter().any(|range| range.contains(&(*at as u64)))).map(|(_, byte)| byte).collect();
            let mut edit = Edit::default();
            edit.add(&ranges.iter().map(|range| Change { range: range.clone(), text: Vec::new() }).collect::<Vec<_>>());
            let mut kept = Vec::new();
            for (index, chunk) in text.as_bytes().chunks(size).enumerate() {
                edit.pass((index * size) as u64, chunk, |piece| kept.extend_from_slice(piece));
            }
            prop_assert_eq!(kept, expected);
        }
    }

    proptest! {
        #[test]
        fn any_value_gives_lines_that_begin_with_a_blank_or_the_name(value: String) {
            let mut out = Vec::new();
            HeaderField::new("X-Y", &value).write(&mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert!(text.starts_with("X-Y:") && text.ends_with("\r\n"));
            for line in text.strip_suffix("\r\n").unwrap().split("\r\n").skip(1) {
                prop_assert!(line.starts_with(' ') && line.trim() != "");
                prop_assert!(line.bytes().all(|byte| (32..127).contains(&byte)));
            }
        }

        #[test]
        fn the_plan_keeps_within_the_message(message: Vec<u8>) {
            let edit = plan(&message, &[], &HeaderSettings::default());
            prop_assert!(applied(&message, &edit).len() <= message.len());
        }
    }
}
