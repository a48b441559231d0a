// SPDX-License-Identifier: GPL-3.0-or-later
//! Answers as spamd gives them, for clients of every version of the protocol. Pure.
//!
//! Each version understands other header lines. Exim asks as 1.2 and looks for the `Spam:` line right behind the first one; spamc asks as
//! 1.5 and wants the length.

use super::assessment::Assessment;
use super::protocol::{Code, Command, Version};

/// To a client that is refused. No empty line follows: behind one, `spamc -L` takes any number for success.
/// Example: `SPAMD/1.0 76 Bad header line: (unknown command)`.
pub fn refusal(code: Code, why: &str) -> Vec<u8> {
    let why: String = why.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("SPAMD/1.0 {} {}: ({why})\r\n", code.number(), code.words()).into_bytes()
}

/// To PING.
pub fn pong() -> Vec<u8> {
    b"SPAMD/1.5 0 PONG\r\n".to_vec()
}

/// To TELL: whether the message has been learnt.
pub fn told(is_set: bool) -> Vec<u8> {
    let did = if is_set { "DidSet: local\r\n" } else { "" };
    format!("SPAMD/1.1 0 EX_OK\r\n{did}\r\n\r\n").into_bytes()
}

/// To CHECK.
pub fn checked(assessment: &Assessment) -> Vec<u8> {
    format!("SPAMD/1.1 0 EX_OK\r\n{}\r\n\r\n", verdict(assessment)).into_bytes()
}

/// To SYMBOLS, REPORT and REPORT_IFSPAM.
pub fn text(command: Command, version: Version, assessment: &Assessment, text: &str) -> Vec<u8> {
    let verdict = verdict(assessment);
    if version.takes_headers() {
        return format!("SPAMD/1.1 0 EX_OK\r\nContent-length: {}\r\n{verdict}\r\n\r\n{text}", text.len()).into_bytes();
    }
    let end = if command == Command::Symbols { "\r\n" } else { "" };
    format!("SPAMD/1.1 0 EX_OK\r\n{verdict}\r\n\r\n{text}{end}").into_bytes()
}

/// To PROCESS and HEADERS: what comes before a message of `length` bytes.
pub fn before_message(version: Version, assessment: &Assessment, length: u64) -> Vec<u8> {
    let verdict = verdict(assessment);
    if version.takes_headers() {
        format!("SPAMD/1.1 0 EX_OK\r\nContent-length: {length}\r\n{verdict}\r\n\r\n").into_bytes()
    } else if version.takes_length() {
        format!("SPAMD/1.1 0 EX_OK\r\nContent-length: {length}\r\n\r\n").into_bytes()
    } else {
        b"SPAMD/1.0 0 EX_OK\r\n".to_vec()
    }
}

/// `Spam: True ; 15.0 / 5.0`. To REPORT_IFSPAM spamd says Yes and No instead, which its own client takes for "not spam".
fn verdict(assessment: &Assessment) -> String {
    let word = if assessment.is_spam { "True" } else { "False" };
    format!("Spam: {word} ; {} / {}", assessment.shown_score(), assessment.shown_required())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assessment(is_spam: bool) -> Assessment {
        Assessment { is_spam, score: if is_spam { 15.0 } else { -0.04 }, required: 5.0, ..Assessment::default() }
    }

    fn shown(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_version_gets_what_it_understands() {
        let (spam, ham) = (assessment(true), assessment(false));
        assert_eq!(shown(checked(&spam)), "SPAMD/1.1 0 EX_OK\r\nSpam: True ; 15.0 / 5.0\r\n\r\n");
        assert_eq!(shown(checked(&ham)), "SPAMD/1.1 0 EX_OK\r\nSpam: False ; -0.0 / 5.0\r\n\r\n");
        let symbols = |version| shown(text(Command::Symbols, version, &spam, "A,B"));
        assert_eq!(
            symbols(Version(1, 5)),
            "SPAMD/1.1 0 EX_OK\r\nContent-length: 3\r\nSpam: True ; 15.0 / 5.0\r\n\r\nA,B"
        );
        assert_eq!(symbols(Version(1, 2)), "SPAMD/1.1 0 EX_OK\r\nSpam: True ; 15.0 / 5.0\r\n\r\nA,B\r\n");
        let report = shown(text(Command::Report, Version(1, 2), &spam, "x\n"));
        assert_eq!(report, "SPAMD/1.1 0 EX_OK\r\nSpam: True ; 15.0 / 5.0\r\n\r\nx\n", "what Exim asks for");
        let silent = shown(text(Command::ReportIfSpam, Version(1, 5), &ham, ""));
        assert_eq!(silent, "SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; -0.0 / 5.0\r\n\r\n");
        let message = |version| shown(before_message(version, &spam, 9));
        assert_eq!(message(Version(1, 3)), "SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\nSpam: True ; 15.0 / 5.0\r\n\r\n");
        assert_eq!(message(Version(1, 2)), "SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\n\r\n");
        assert_eq!(message(Version(1, 1)), "SPAMD/1.0 0 EX_OK\r\n");
    }

    #[test]
    fn refusals_are_one_line() {
        let line = shown(refusal(Code::Protocol, "a\r\nb"));
        assert_eq!(line, "SPAMD/1.0 76 Bad header line: (a??b)\r\n");
        assert_eq!(shown(told(true)), "SPAMD/1.1 0 EX_OK\r\nDidSet: local\r\n\r\n\r\n");
        assert_eq!(shown(told(false)), "SPAMD/1.1 0 EX_OK\r\n\r\n\r\n");
        assert_eq!(shown(pong()), "SPAMD/1.5 0 PONG\r\n");
    }
}
