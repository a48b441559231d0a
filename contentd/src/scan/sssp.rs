// SPDX-License-Identifier: GPL-3.0-or-later
//! Client of Sophos' savdid: SSSP/1.0, SCANDATA. One sample after the other on a connection that is kept.
//!
//! The server greets with `OK SSSP/1.0`; to `SSSP/1.0 SCANDATA <length>` and the data it answers `ACC <id>`, lines with facts,
//! `DONE OK|FAIL <code> <text>` and an empty line, or `REJ <code>`. What an answer means for the message is decided elsewhere.

use common::address::Address;
use tokio::time::Instant;

use super::dialogue::Dialogue;
use super::engine::{Failure, Status, shown};
use super::idle::Idle;
use super::sample::Sample;
use super::settings::EngineSettings;
use super::wire::{Sent, Wire};
use crate::findings::Outcome;

/// Lines of one answer that are read.
const LINES: usize = 10_000;

/// savdid, behind a pool of connections.
#[derive(Debug)]
pub(super) struct Sssp {
    name: String,
    address: Address,
    settings: EngineSettings,
    idle: Idle<Wire>,
}

impl Sssp {
    /// A client without connections; none without an address.
    pub(super) fn new(name: &str, settings: &EngineSettings) -> Option<Sssp> {
        Some(Sssp {
            name: name.to_owned(),
            address: settings.address.clone()?,
            idle: Idle::new(settings.max_connections, settings.idle_timeout.0),
            settings: settings.clone(),
        })
    }

    /// Asks whether savdid is there. It tells the age of its signatures to nobody over this protocol.
    pub(super) async fn status(&self) -> Result<Status, Failure> {
        let wire = self.connect().await?;
        drop(wire);
        Ok(Status { version: "SSSP/1.0".to_owned(), signatures: None })
    }
}

impl Dialogue for Sssp {
    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    fn idle(&self) -> &Idle<Wire> {
        &self.idle
    }

    async fn connect(&self) -> Result<Wire, Failure> {
        self.count("fresh");
        let limit = self.settings.connect_timeout.0;
        let mut wire = Wire::connect(&self.address, limit).await?;
        let greeting = wire.line(Instant::now() + limit, "waiting for the greeting").await?;
        if !greeting.starts_with(b"OK SSSP/1.") {
            return Err(Failure::Garbage(shown(&greeting)));
        }
        Ok(wire)
    }

    /// Sends a sample and reads the answer; also whether the connection can be used again.
    async fn exchange(&self, wire: &mut Wire, sample: &Sample) -> Result<(Outcome, bool), Failure> {
        let command = format!("SSSP/1.0 SCANDATA {}\r\n", sample.len());
        let chunks = std::iter::once(command.as_bytes()).chain(sample.chunks());
        let sent = wire.send(chunks, self.settings.send_timeout.0, rejected).await?;
        let until = Instant::now() + self.settings.scan_timeout.0;
        let mut answer = Answer::default();
        for _ in 0..LINES {
            let line = wire.line(until, "waiting for the answer").await?;
            if let Some(outcome) = answer.line(&shown(&line))? {
                // After a rejection the data may not have been read.
                return Ok((outcome, matches!(sent, Sent::All) && !answer.rejected));
            }
        }
        Err(Failure::Garbage("an answer without end".to_owned()))
    }
}

/// A rejection comes before all the data has been read.
fn rejected(heard: &[u8]) -> bool {
    heard.starts_with(b"REJ ") && heard.contains(&b'\n')
}

/// The lines of one answer.
#[derive(Debug, Default)]
struct Answer {
    accepted: bool,
    rejected: bool,
    viruses: Vec<String>,
    encrypted: bool,
    /// The end has been said; an empty line follows.
    done: Option<Outcome>,
}

impl Answer {
    /// Takes a line; the outcome at the end of the answer.
    fn line(&mut self, line: &str) -> Result<Option<Outcome>, Failure> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, self.accepted) {
            // Empty lines before the answer belong to the one before.
            ("", false) => {}
            ("ACC", false) => self.accepted = true,
            ("REJ", _) => {
                self.rejected = true;
                return match rest.split(' ').next() {
                    Some("4") => Ok(Some(Outcome::Incomplete("larger than the scanner takes".to_owned()))),
                    _ => Err(Failure::Refused(line.to_owned())),
                };
            }
            ("VIRUS", true) => {
                let name = rest.split(' ').next().unwrap_or_default();
                self.viruses.push(if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() });
            }
            ("FAIL", true) => self.encrypted |= is_encrypted(rest),
            ("DONE", true) => self.done = Some(self.end(rest)?),
            ("", true) => {
                if let Some(outcome) = self.done.take() {
                    return Ok(Some(outcome));
                }
            }
            // OK, TYPE, FILE, EVENT: facts that change nothing.
            (_, true) => {}
            (_, false) => return Err(Failure::Garbage(line.to_owned())),
        }
        Ok(None)
    }

    /// `DONE OK 0203 text`, `DONE FAIL 0212 text`.
    fn end(&mut self, rest: &str) -> Result<Outcome, Failure> {
        let (result, why) = rest.split_once(' ').unwrap_or((rest, ""));
        if !self.viruses.is_empty() {
            return Ok(Outcome::Infected(std::mem::take(&mut self.viruses)));
        }
        match result {
            _ if self.encrypted || is_encrypted(why) => Ok(Outcome::Encrypted("file".to_owned())),
            "OK" => Ok(Outcome::Clean),
            // It lies in the file, so that it would be the same the next time.
            "FAIL" => Ok(Outcome::Incomplete(format!("the scanner says {why}"))),
            _ => Err(Failure::Garbage(format!("DONE {rest}"))),
        }
    }
}

/// Reads whole answers, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(bytes: &[u8]) {
    let mut answer = Answer::default();
    for line in bytes.split(|byte| *byte == b'\n').take(LINES) {
        match answer.line(&shown(line)) {
            Ok(None) => {}
            Ok(Some(Outcome::Clean)) => {
                assert!(answer.accepted && answer.viruses.is_empty() && !answer.encrypted, "clean after {line:?}");
                answer = Answer::default();
            }
            Ok(Some(_)) | Err(_) => answer = Answer::default(),
        }
    }
}

/// SAVI's code for a file that is encrypted.
fn is_encrypted(code: &str) -> bool {
    code.split(' ').next() == Some("0212")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        let mut answer = Answer::default();
        for line in text.split('/') {
            match answer.line(line) {
                Ok(Some(outcome)) => return format!("{outcome:?}"),
                Ok(None) => {}
                Err(failure) => return failure.to_string(),
            }
        }
        "no end".to_owned()
    }

    #[test]
    fn answers() {
        for (text, meaning) in [
            ("ACC 1/DONE OK 0000 fine/", "Clean"),
            ("/ACC 1/TYPE x/OK 0000 f/DONE OK 0000 fine/", "Clean"),
            ("ACC 1/VIRUS EICAR-AV-Test part/OK 0203 x/DONE OK 0203 Virus found/", r#"Infected(["EICAR-AV-Test"])"#),
            ("ACC 1/VIRUS A x/DONE FAIL 0212 x/", r#"Infected(["A"])"#),
            ("ACC 1/FAIL 0212 f/DONE OK 0212 x/", r#"Encrypted("file")"#),
            ("ACC 1/DONE FAIL 0212 x/", r#"Encrypted("file")"#),
            ("ACC 1/DONE FAIL 0210 corrupt/", r#"Incomplete("the scanner says 0210 corrupt")"#),
            ("REJ 4", r#"Incomplete("larger than the scanner takes")"#),
            ("REJ 1", "it says: REJ 1"),
            ("DONE OK 0000 x/", "it sent something that is no answer: DONE OK 0000 x"),
            ("VIRUS x", "it sent something that is no answer: VIRUS x"),
            ("ACC 1/DONE WELL/", "it sent something that is no answer: DONE WELL"),
            ("ACC 1/DONE OK 0", "no end"),
            ("ACC 1//", "no end"),
        ] {
            assert_eq!(read(text), meaning, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_lines_are_read(lines: String) {
            read(&lines);
        }

        #[test]
        fn what_was_not_accepted_is_not_clean(lines in "(DONE|OK|VIRUS|FAIL|REJ| |0|/){0,20}") {
            prop_assert_ne!(read(&lines), "Clean");
        }
    }
}
