// SPDX-License-Identifier: GPL-3.0-or-later
//! Daemons that get the path of a file and answer with a line: Sophie, Trophie, F-Prot's fpscand, and others by configuration.
//!
//! Their answers often have no end of line, and the connection stays open: an answer ends with a line end, with the connection, or
//! when nothing follows for a moment. One request per connection, so that no answer can be taken for another's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::address::Address;
use regex::bytes::Regex;
use tokio::time::{Instant, timeout};

use super::engine::{Failure, Status, Tally, shown};
use super::sample::{Feed, Piece};
use super::scratch::{Readers, Scratch};
use super::settings::EngineSettings;
use super::wire::Wire;
use crate::findings::Outcome;

/// Request and patterns of answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Words<T> {
    pub(super) request: T,
    pub(super) clean: T,
    pub(super) infected: T,
    pub(super) virus_name: T,
}

/// Sophie and Trophie: `0`, `1`, `1:name`, `-1:error`.
pub(super) const SOPHIE: Words<&str> =
    Words { request: "{}\n", clean: r"^0+(:.*)?\s*$", infected: r"^1(:.*)?\s*$", virus_name: r"^1:\s*(.*?)\s*$" };

/// fpscand: `0 <clean> path`, `1 <infected: name> path`; bits of the number say what was found.
pub(super) const FPROT: Words<&str> = Words {
    request: "SCAN FILE {}\n",
    clean: r"^(0|8|64) ",
    infected: r"^([1235679]|1[01345]) |<[^>:]*(?i:infected|suspicious|unwanted)",
    virus_name: r"(?i)<[^>:]*(?:infected|suspicious|unwanted)[^>:]*: ([^>]*)>",
};

/// What follows an answer without a line end comes within this time.
const SETTLED: Duration = Duration::from_millis(200);
/// What is no answer yet may become one within this time.
const UNSETTLED: Duration = Duration::from_secs(2);

/// One daemon.
#[derive(Debug)]
pub(super) struct LineDaemon {
    address: Address,
    settings: EngineSettings,
    request: String,
    patterns: Patterns,
    place: PathBuf,
}

#[derive(Debug)]
struct Patterns {
    clean: Regex,
    infected: Regex,
    virus_name: Option<Regex>,
}

impl Patterns {
    fn new(words: &Words<&str>) -> Option<Patterns> {
        let virus_name = match words.virus_name {
            "" => None,
            pattern => Some(Regex::new(pattern).ok()?),
        };
        Some(Patterns { clean: Regex::new(words.clean).ok()?, infected: Regex::new(words.infected).ok()?, virus_name })
    }

    /// What an answer says. What fits both patterns is infected; what fits none is no answer.
    fn read(&self, answer: &[u8]) -> Result<Outcome, Failure> {
        if self.infected.is_match(answer) {
            let group =
                self.virus_name.as_ref().and_then(|pattern| pattern.captures(answer)).and_then(|found| found.get(1));
            let name = group.map(|name| shown(name.as_bytes())).filter(|name| !name.is_empty());
            return Ok(Outcome::Infected(vec![name.unwrap_or_else(|| "unnamed".to_owned())]));
        }
        if self.clean.is_match(answer) {
            return Ok(Outcome::Clean);
        }
        Err(Failure::Garbage(shown(answer)))
    }
}

/// Reads an answer of each kind, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(answer: &[u8]) {
    static PATTERNS: std::sync::LazyLock<[Patterns; 2]> =
        std::sync::LazyLock::new(|| [&SOPHIE, &FPROT].map(|words| Patterns::new(words).expect("our own patterns")));
    for patterns in PATTERNS.iter() {
        if let Ok(Outcome::Clean) = patterns.read(answer) {
            assert!(patterns.clean.is_match(answer) && !patterns.infected.is_match(answer), "{answer:?}");
        }
    }
}

impl LineDaemon {
    /// One of these settings; none when they are not complete.
    pub(super) fn new(settings: &EngineSettings, place: &Path) -> Option<LineDaemon> {
        let words = settings.words();
        Some(LineDaemon {
            address: settings.address.clone()?,
            settings: settings.clone(),
            request: words.request.to_owned(),
            patterns: Patterns::new(&words)?,
            place: place.to_owned(),
        })
    }

    /// Has all pieces of a message scanned, one file after the other.
    pub(super) async fn scan(&self, feed: &mut Feed, tally: &mut Tally) -> Result<(), Failure> {
        let mut scratch = None;
        while let Some(piece) = feed.recv().await {
            if piece.sample.len() > self.settings.size_limit().0 {
                tally.add(Outcome::Incomplete(format!("larger than max_size {}", self.settings.size_limit())));
                continue;
            }
            let (folder, file) = Scratch::put(scratch, &self.place, Readers::Group, Arc::<Piece>::clone(&piece))
                .await
                .map_err(Failure::Scratch)?;
            tally.add(self.file(&file).await?);
            if tally.is_infected() {
                break;
            }
            // Nothing else has the path; a file that cannot be removed goes with the folder.
            let _ = tokio::fs::remove_file(&file).await;
            scratch = Some(folder);
        }
        Ok(())
    }

    async fn file(&self, file: &Path) -> Result<Outcome, Failure> {
        let request = self.request.replace("{}", &file.to_string_lossy());
        let mut tries = 0;
        loop {
            match self.ask(&request).await {
                Err(error) if error.is_broken_connection() && tries < self.settings.retries => tries += 1,
                answered => return answered,
            }
        }
    }

    async fn ask(&self, request: &str) -> Result<Outcome, Failure> {
        let mut wire = Wire::connect(&self.address, self.settings.connect_timeout.0).await?;
        wire.send([request.as_bytes()].into_iter(), self.settings.send_timeout.0, |_| false).await?;
        let until = Instant::now() + self.settings.scan_timeout.0;
        let phase = "waiting for the answer";
        wire.hear(until, phase).await?;
        loop {
            match wire.take_line() {
                Some(line) if line.is_empty() => {}
                Some(line) => return self.patterns.read(&line),
                None => {
                    // No whole line: it may be all there is.
                    let patience = if self.patterns.read(wire.heard()).is_ok() { SETTLED } else { UNSETTLED };
                    match timeout(patience, wire.hear(until, phase)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(failure)) if wire.heard().is_empty() => return Err(failure),
                        Ok(Err(_)) | Err(_) => return self.patterns.read(wire.heard()),
                    }
                }
            }
        }
    }

    /// Asks whether the daemon is there. It has no question for that, so a connection has to do.
    pub(super) async fn status(&self) -> Result<Status, Failure> {
        Wire::connect(&self.address, self.settings.connect_timeout.0).await?;
        Ok(Status { version: "connected".to_owned(), signatures: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(words: &Words<&str>, answer: &str) -> String {
        match Patterns::new(words).unwrap().read(answer.as_bytes()) {
            Ok(outcome) => format!("{outcome:?}"),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn answers_of_known_daemons() {
        for (answer, meaning) in [
            ("0", "Clean"),
            ("0:", "Clean"),
            ("1:EICAR-AV-Test", r#"Infected(["EICAR-AV-Test"])"#),
            ("1", r#"Infected(["unnamed"])"#),
            ("-1:no such file", "it sent something that is no answer: -1:no such file"),
            ("", "it sent something that is no answer: "),
            ("2", "it sent something that is no answer: 2"),
        ] {
            assert_eq!(read(&SOPHIE, answer), meaning, "{answer}");
        }
        for (answer, meaning) in [
            ("0 <clean> /x/part-0001", "Clean"),
            ("1 <infected: EICAR_Test_File (exact)> /x", r#"Infected(["EICAR_Test_File (exact)"])"#),
            ("9 <contains infected objects: A> /x", r#"Infected(["A"])"#),
            ("20 <error> /x", "it sent something that is no answer: 20 <error> /x"),
        ] {
            assert_eq!(read(&FPROT, answer), meaning, "{answer}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read(answer: String) {
            read(&SOPHIE, &answer);
            read(&FPROT, &answer);
        }
    }
}
