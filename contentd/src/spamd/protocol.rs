// SPDX-License-Identifier: GPL-3.0-or-later
//! The words of the protocol between spamc and spamd, version 1.5: commands, versions, codes, limits. Pure.
//!
//! What clients may rely on was taken from the answers of spamd 4.0.1 to its own client and to broken ones.

use std::fmt;

/// Most header lines of a request, as in spamd.
pub const HEADER_LINES: usize = 255;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The verdict.
    Check,
    /// The verdict and the names of the rules that hit.
    Symbols,
    /// The verdict and a report for people.
    Report,
    /// The same; the report only if the message is spam.
    ReportIfSpam,
    /// The message with header fields that tell the verdict.
    Process,
    /// The header section of that.
    Headers,
    /// Whether somebody is there.
    Ping,
    /// Nothing: the client has changed its mind.
    Skip,
    /// To learn what the message is.
    Tell,
}

impl Command {
    /// All of them.
    pub const ALL: [Command; 9] = [
        Command::Check,
        Command::Symbols,
        Command::Report,
        Command::ReportIfSpam,
        Command::Process,
        Command::Headers,
        Command::Ping,
        Command::Skip,
        Command::Tell,
    ];

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Command::Check => "CHECK",
            Command::Symbols => "SYMBOLS",
            Command::Report => "REPORT",
            Command::ReportIfSpam => "REPORT_IFSPAM",
            Command::Process => "PROCESS",
            Command::Headers => "HEADERS",
            Command::Ping => "PING",
            Command::Skip => "SKIP",
            Command::Tell => "TELL",
        }
    }

    /// The command with this word, which is case sensitive.
    pub fn named(word: &[u8]) -> Option<Command> {
        Command::ALL.into_iter().find(|command| command.word().as_bytes() == word)
    }

    /// Whether a message follows.
    pub fn has_message(self) -> bool {
        !matches!(self, Command::Ping | Command::Skip)
    }

    /// Whether header lines follow from clients of this version.
    pub fn has_headers(self, version: Version) -> bool {
        match self {
            Command::Ping | Command::Skip => version >= Version(1, 5),
            Command::Tell => true,
            _ => version > Version(1, 0),
        }
    }
}

/// The client's version of the protocol: what it understands of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16);

impl Version {
    /// Reads `1.5`.
    pub fn parse(text: &[u8]) -> Option<Version> {
        let (major, minor) = std::str::from_utf8(text).ok()?.split_once('.')?;
        let number =
            |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        Some(Version(number(major)?, number(minor)?))
    }

    /// Answers may have several header lines.
    pub fn takes_headers(self) -> bool {
        self >= Version(1, 3)
    }

    /// Answers that hold a message may tell its length.
    pub fn takes_length(self) -> bool {
        self >= Version(1, 2)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.0, self.1)
    }
}

/// How a request ended: sysexits(3), and 79 for a wait that was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Done.
    Ok,
    /// The message is too large.
    Data,
    /// What was asked for is not offered, or cannot be.
    Unavailable,
    /// The message is not inspected because of what came of it before.
    Software,
    /// Not now.
    TempFail,
    /// The request breaks the protocol.
    Protocol,
    /// The client, or the inspection, took too long.
    Timeout,
}

impl Code {
    /// The number on the wire. spamc tells its caller only that there was no verdict.
    pub fn number(self) -> u8 {
        match self {
            Code::Ok => 0,
            Code::Data => 65,
            Code::Unavailable => 69,
            Code::Software => 70,
            Code::TempFail => 75,
            Code::Protocol => 76,
            Code::Timeout => 79,
        }
    }

    /// How the text behind the number begins.
    pub fn words(self) -> &'static str {
        match self {
            Code::Ok => "EX_OK",
            Code::Data => "Message refused",
            Code::Unavailable => "Service Unavailable",
            Code::Software => "Message not checked",
            Code::TempFail => "Temporary failure",
            Code::Protocol => "Bad header line",
            Code::Timeout => "Timeout",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_exact() {
        for command in Command::ALL {
            assert_eq!(Command::named(command.word().as_bytes()), Some(command));
        }
        for other in ["check", "LOG", "REPORT_", "", "CHECK "] {
            assert_eq!(Command::named(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn versions_are_two_numbers() {
        assert_eq!(Version::parse(b"1.5"), Some(Version(1, 5)));
        assert!(Version::parse(b"2.0").is_some_and(Version::takes_headers));
        assert_eq!(Version::parse(b"1.5").map(|version| version.to_string()).as_deref(), Some("1.5"));
        for wrong in ["", "1", "1.", ".5", "a.b", "1.5.1", "+1.5", "1.99999", "1. 5"] {
            assert_eq!(Version::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
