// SPDX-License-Identifier: GPL-3.0-or-later
//! What clamd's answers mean (clamd(8), "COMMANDS"). Pure.

use std::time::SystemTime;

use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use super::engine::{Failure, Status};
use crate::findings::Outcome;

/// One answer inside a session.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// About the sample with this number.
    Sample(u32, Outcome),
    /// An error about the sample with this number.
    Error(u32, String),
    /// clamd's version, asked for by this number.
    Version(u32, String),
    /// A stream was too long; clamd closes. The number where it says one.
    TooLong(Option<u32>),
}

/// Reads an answer. Inside a session the number of the command comes first: `1: stream: OK`, `2: fd[10]: OK`.
pub(super) fn read(text: String) -> Result<Answer, Failure> {
    let (number, rest) = match text.split_once(": ") {
        Some((number, rest)) => (number.parse().ok(), rest),
        None => (None, text.as_str()),
    };
    if text.contains("size limit exceeded") {
        return Ok(Answer::TooLong(number));
    }
    let Some(number) = number else { return Err(strange(text)) };
    if rest.starts_with("ClamAV ") {
        return Ok(Answer::Version(number, rest.to_owned()));
    }
    if let Some(error) = rest.strip_suffix("ERROR") {
        return Ok(Answer::Error(number, error.trim().to_owned()));
    }
    let verdict = rest.strip_prefix("stream: ").or_else(|| {
        let (descriptor, verdict) = rest.strip_prefix("fd[")?.split_once("]: ")?;
        descriptor.bytes().all(|byte| byte.is_ascii_digit()).then_some(verdict)
    });
    match verdict.map(|verdict| (verdict, verdict.strip_suffix(" FOUND"))) {
        Some(("OK", _)) => Ok(Answer::Sample(number, Outcome::Clean)),
        Some((_, Some(name))) => Ok(Answer::Sample(number, found(name))),
        _ => Err(strange(text)),
    }
}

fn strange(text: String) -> Failure {
    // An error without a number is about the session: too many commands, a timeout.
    match text.strip_suffix("ERROR") {
        Some(error) => Failure::Refused(error.trim().to_owned()),
        None => Failure::Garbage(text),
    }
}

/// clamd reports its own limits and encryption as if they were viruses; they are not.
fn found(name: &str) -> Outcome {
    if let Some(limit) = name.strip_prefix("Heuristics.Limits.Exceeded") {
        return Outcome::Incomplete(format!("clamd's limit {}", limit.trim_start_matches('.')));
    }
    if let Some(what) = name.strip_prefix("Heuristics.Encrypted") {
        return Outcome::Encrypted(what.trim_start_matches('.').to_owned());
    }
    Outcome::Infected(vec![name.to_owned()])
}

/// A version line: `ClamAV 1.4.6/27800/Fri Nov 20 09:31:02 2026`, the time in clamd's own zone, which is ours on the same host.
pub(super) fn status(version: &str) -> Status {
    let mut fields = version.splitn(3, '/');
    let (engine, number, made) = (fields.next().unwrap_or_default(), fields.next(), fields.next());
    let signatures = made.and_then(|made| moment(made.trim()));
    let version = match number {
        Some(number) => format!("{engine}/{number}"),
        None => engine.to_owned(),
    };
    Status { version, signatures }
}

fn moment(text: &str) -> Option<SystemTime> {
    // The day of the week is not needed and not checked.
    let (_, text) = text.split_once(' ')?;
    let broken = BrokenDownTime::parse("%b %d %H:%M:%S %Y", text.trim()).ok()?;
    let civil: DateTime = broken.to_datetime().ok()?;
    let zoned = civil.to_zoned(TimeZone::system()).ok()?;
    Some(SystemTime::from(zoned.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(answer: &str) -> String {
        match read(answer.to_owned()) {
            Ok(answer) => format!("{answer:?}"),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn answers() {
        for (answer, meaning) in [
            ("1: stream: OK", "Sample(1, Clean)"),
            ("12: fd[9]: OK", "Sample(12, Clean)"),
            ("1: stream: Win.Test.EICAR_HDB-1 FOUND", r#"Sample(1, Infected(["Win.Test.EICAR_HDB-1"]))"#),
            ("1: fd[10]: {HEX}php: x.UNOFFICIAL FOUND", r#"Sample(1, Infected(["{HEX}php: x.UNOFFICIAL"]))"#),
            ("1: INSTREAM size limit exceeded. ERROR", "TooLong(Some(1))"),
            ("INSTREAM size limit exceeded. ERROR", "TooLong(None)"),
            (
                "1: stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND",
                r#"Sample(1, Incomplete("clamd's limit MaxFileSize"))"#,
            ),
            ("1: stream: Heuristics.Encrypted.Zip FOUND", r#"Sample(1, Encrypted("Zip"))"#),
            ("3: stream: Can't allocate memory ERROR", r#"Error(3, "stream: Can't allocate memory")"#),
            ("3: No file descriptor received. ERROR", r#"Error(3, "No file descriptor received.")"#),
            ("4: ClamAV 1.4.6/1/x", r#"Version(4, "ClamAV 1.4.6/1/x")"#),
            ("Session terminated ERROR", "it says: Session terminated"),
            ("stream: OK", "it sent something that is no answer: stream: OK"),
            ("COMMAND READ TIMED OUT", "it sent something that is no answer: COMMAND READ TIMED OUT"),
            ("", "it sent something that is no answer: "),
            ("1: stream:", "it sent something that is no answer: 1: stream:"),
            ("1: fd[x]: OK", "it sent something that is no answer: 1: fd[x]: OK"),
        ] {
            assert_eq!(shown(answer), meaning, "{answer}");
        }
    }

    #[test]
    fn versions_tell_the_age_of_the_signatures() {
        let made = status("ClamAV 1.4.6/27800/Fri Nov 20 09:31:02 2026");
        assert_eq!(made.version, "ClamAV 1.4.6/27800");
        let earlier = status("ClamAV 1.4.6/27799/Thu Nov  5 09:31:02 2026");
        let days = made.signatures.unwrap().duration_since(earlier.signatures.unwrap()).unwrap().as_secs() / 86_400;
        assert_eq!(days, 15);
        for strange in ["ClamAV 1.4.6", "", "ClamAV 1.4.6/1/yesterday", "a/b/c d", "ClamAV//Fri Nov 99 09:31:02 2026"] {
            assert_eq!(status(strange).signatures, None, "{strange}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read(answer: String) {
            let _ = read(answer.clone());
            let _ = status(&answer);
        }
    }
}
