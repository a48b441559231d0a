// SPDX-License-Identifier: GPL-3.0-or-later
//! A maildir as its reader sees it: every delivered message is one file in `new/`, complete from its first moment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Trouble, await_that};

/// The maildir of one recipient. It need not exist: a mailbox without mail has no folder yet.
#[derive(Debug, Clone)]
pub struct Mailbox {
    new: PathBuf,
}

impl Mailbox {
    /// The maildir at this path.
    pub fn at(maildir: &Path) -> Mailbox {
        Mailbox { new: maildir.join("new") }
    }

    /// All messages delivered so far, in no particular order. Line ends are LF, virtual(8) has added its own
    /// Return-Path, X-Original-To and Delivered-To on top.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let files = std::fs::read_dir(&self.new).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read(file.path()).ok()).collect()
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        std::fs::read_dir(&self.new).into_iter().flatten().flatten().count()
    }

    /// The messages that contain `mark`, for instance their Message-ID.
    pub fn with(&self, mark: &str) -> Vec<Vec<u8>> {
        let mut messages = self.messages();
        messages.retain(|message| message.windows(mark.len()).any(|window| window == mark.as_bytes()));
        messages
    }

    /// Waits for at least `count` messages.
    pub fn await_count(&self, count: usize, patience: Duration) -> Result<(), Trouble> {
        let what = format!("{count} messages in {}", self.new.display());
        await_that(&what, patience, || Ok((self.count() >= count).then_some(())))
            .map_err(|late| Trouble(format!("{late}; there are {}", self.count())))
    }

    /// Waits for the first message that contains `mark` and returns it.
    pub fn await_one(&self, mark: &str, patience: Duration) -> Result<Vec<u8>, Trouble> {
        let what = format!("the message with {mark} in {}", self.new.display());
        await_that(&what, patience, || Ok(self.with(mark).pop()))
    }
}

/// The header of a message as one text, lines unfolded; bytes that are not UTF-8 are replaced.
pub fn header(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message).replace("\r\n", "\n");
    let header = text.split("\n\n").next().unwrap_or_default();
    header.replace("\n\t", " ").replace("\n ", " ")
}

/// The values of one header field, outermost first; the name in any case.
pub fn fields(message: &[u8], name: &str) -> Vec<String> {
    let named = |line: &str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    header(message).lines().filter_map(named).collect()
}

/// Everything after the empty line that ends the header, line ends as they are.
pub fn body(message: &[u8]) -> &[u8] {
    let at = message.windows(2).position(|pair| pair == b"\n\n").map(|at| at + 2);
    let crlf = message.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let start = [at, crlf].into_iter().flatten().min().unwrap_or(message.len());
    &message[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_and_body_are_told_apart() {
        let message = b"Subject: one\n two\nX-Seen: a\nx-seen: b\n\nbody\n\nmore\n";
        assert_eq!(fields(message, "x-seen"), ["a", "b"]);
        assert_eq!(fields(message, "Subject"), ["one two"]);
        assert_eq!(body(message), b"body\n\nmore\n");
        assert_eq!(body(b"A: b\r\n\r\nx"), b"x");
        assert_eq!(body(b"A: b"), b"");
    }
}
