// SPDX-License-Identifier: GPL-3.0-or-later
//! What a message's own header section must look like (RFC 5322 sections 2.1.1, 2.2, 3.6; RFC 6532).
//!
//! The tests behind the category "bad-header", with the same scope as amavis' check of header sections.

use super::header::Section;
use crate::findings::FindingKind;

/// Fields that may stand once only (RFC 5322 section 3.6).
const ONCE: [&str; 11] =
    ["from", "date", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to", "references", "subject"];

/// Fields without which nothing is a message (RFC 5322 section 3.6).
const NEEDED: [&str; 2] = ["from", "date"];

/// Length of a line without its CR LF (RFC 5322 section 2.1.1).
const LINE: usize = 998;

/// Checks a header section; each kind of fault is reported once, with the name of the first field that has it.
pub fn check(message: &[u8], section: &Section) -> Vec<(FindingKind, String)> {
    let mut faults: Vec<(FindingKind, String)> = Vec::new();
    let mut add = |kind, detail: &[u8]| {
        if !faults.iter().any(|(seen, _)| *seen == kind) {
            faults.push((kind, String::from_utf8_lossy(detail).into_owned()));
        }
    };
    for field in &section.fields {
        let (name, whole) = (&message[field.name.clone()], &message[field.whole.clone()]);
        if whole.iter().any(|byte| matches!(byte, 0..=8 | 11 | 12 | 14..=31 | 127)) {
            add(FindingKind::HeaderControl, name);
        }
        if std::str::from_utf8(whole).is_err() {
            add(FindingKind::Header8Bit, name);
        }
        if whole.len() > LINE && whole.split(|byte| *byte == b'\n').any(|line| line.trim_ascii_end().len() > LINE) {
            add(FindingKind::HeaderLongLine, name);
        }
    }
    for name in ONCE {
        match section.named(message, name).count() {
            0 if NEEDED.contains(&name) => add(FindingKind::HeaderMissing, name.as_bytes()),
            0 | 1 => {}
            _ => add(FindingKind::HeaderDuplicate, name.as_bytes()),
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, header};
    use super::*;

    fn faults(message: &[u8]) -> Vec<FindingKind> {
        let section = header::read(message, &Limits::default());
        check(message, &section).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn each_fault_by_itself() {
        use FindingKind::*;
        const GOOD: &[u8] = b"From: a@example.com\r\nDate: today\r\n";
        let long = ["X: ", &"y".repeat(996), "\r\n"].concat();
        for (more, expected) in [
            (&b"Subject: x\r\n"[..], vec![]),
            ("Subject: \u{e9}t\u{e9}\r\n".as_bytes(), vec![]),
            (b"Subject: \xe9t\xe9\r\n", vec![Header8Bit]),
            (b"Subject: a\x00b\r\n", vec![HeaderControl]),
            (long.as_bytes(), vec![HeaderLongLine]),
            (b"FROM: b@example.com\r\n", vec![HeaderDuplicate]),
            (b"Received: a\r\nReceived: b\r\n", vec![]),
        ] {
            assert_eq!(faults(&[GOOD, more, b"\r\nbody"].concat()), expected, "{}", more.escape_ascii());
        }
        assert_eq!(faults(b"From: a@example.com\r\n\r\n"), [HeaderMissing]);
    }
}
