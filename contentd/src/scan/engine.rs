// SPDX-License-Identifier: GPL-3.0-or-later
//! The frame that every engine runs in: how many messages at once, how long, when it is set aside, what is counted.
//!
//! The protocol behind it gets the pieces of one message and adds what it hears to a `Tally`; it knows nothing of the rest.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use common::address::Address;
use metrics::{counter, gauge, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::AntivirusSettings;
use super::breaker::{Admission, Breaker, Change};
use super::clamd::Clamd;
use super::command::CommandLine;
use super::dialogue::Dialogue;
use super::icap::Icap;
use super::line::LineDaemon;
use super::sample::Feed;
use super::scores::{self, VirusScore};
use super::settings::{EngineSettings, Group, Kind};
use super::sssp::Sssp;
use crate::findings::{Outcome, Scan, Symbol};

/// Why an engine gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where it should listen.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("connection lost while {phase}: {source}")]
    Lost {
        /// What was being done.
        phase: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing happened for too long.
    #[error("no answer in time while {phase}")]
    TimedOut {
        /// What was being done.
        phase: &'static str,
    },
    /// It reports an error of its own.
    #[error("it says: {0}")]
    Refused(String),
    /// What came back is no answer.
    #[error("it sent something that is no answer: {0}")]
    Garbage(String),
    /// It failed too often lately and is not asked now.
    #[error("set aside for {0} s more after failing again and again")]
    Aside(u64),
    /// The files for it cannot be written.
    #[error("cannot write the files for it: {0}")]
    Scratch(io::Error),
    /// The program cannot be run.
    #[error("cannot run it: {0}")]
    Start(io::Error),
    /// The program ended in a way that means nothing.
    #[error("it ended with {0}")]
    Ended(String),
}

impl Failure {
    /// The word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Failure::Connect { .. } => "connect",
            Failure::Lost { .. } => "lost",
            Failure::TimedOut { .. } => "timeout",
            Failure::Refused(_) => "refused",
            Failure::Garbage(_) => "garbage",
            Failure::Aside(_) => "aside",
            Failure::Scratch(_) => "scratch",
            Failure::Start(_) => "start",
            Failure::Ended(_) => "ended",
        }
    }

    /// Whether the same may go better over a new connection: it says nothing about the sample.
    pub(super) fn is_broken_connection(&self) -> bool {
        matches!(self, Failure::Lost { .. } | Failure::Refused(_) | Failure::Garbage(_))
    }
}

/// What an engine has said about the pieces of one message so far.
#[derive(Debug)]
pub(super) struct Tally {
    scores: Arc<[VirusScore]>,
    viruses: Vec<String>,
    symbols: Vec<Symbol>,
    incomplete: Option<String>,
    encrypted: Option<String>,
}

impl Tally {
    pub(super) fn new(scores: Arc<[VirusScore]>) -> Tally {
        Tally { scores, viruses: Vec::new(), symbols: Vec::new(), incomplete: None, encrypted: None }
    }

    /// Adds the answer about one piece.
    pub(super) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Clean => {}
            Outcome::Infected(names) => names.into_iter().for_each(|name| self.found(name)),
            Outcome::Incomplete(why) => {
                self.incomplete.get_or_insert(why);
            }
            Outcome::Encrypted(what) => {
                self.encrypted.get_or_insert(what);
            }
            // A protocol has its own way to fail; should it come this way, nothing was scanned.
            Outcome::Failed(why) => {
                self.incomplete.get_or_insert(why);
            }
        }
    }

    fn found(&mut self, name: String) {
        match scores::symbol(&name, &self.scores) {
            Some(symbol) if self.symbols.contains(&symbol) => {}
            Some(symbol) => self.symbols.push(symbol),
            None if self.viruses.contains(&name) => {}
            None => self.viruses.push(name),
        }
    }

    /// Whether a virus was found: more need not be looked at.
    pub(super) fn is_infected(&self) -> bool {
        !self.viruses.is_empty()
    }

    /// Everything that follows for the message. A virus that was found counts even when the engine failed later; what is encrypted
    /// has a destiny of its own and is told beside what is incomplete.
    fn outcomes(self, failed: Option<&Failure>) -> (Vec<Outcome>, Vec<Symbol>) {
        if !self.viruses.is_empty() {
            return (vec![Outcome::Infected(self.viruses)], self.symbols);
        }
        let mut outcomes: Vec<Outcome> =
            failed.map(|failure| Outcome::Failed(failure.to_string())).into_iter().collect();
        outcomes.extend(self.incomplete.map(Outcome::Incomplete));
        outcomes.extend(self.encrypted.map(Outcome::Encrypted));
        if outcomes.is_empty() {
            outcomes.push(Outcome::Clean);
        }
        (outcomes, self.symbols)
    }
}

/// What an engine tells about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Its own words: name and version.
    pub version: String,
    /// When its signatures were made, where it says so.
    pub signatures: Option<SystemTime>,
}

impl Status {
    /// How old the signatures are.
    pub fn age(&self) -> Option<Duration> {
        // Signatures of the future are fresh; the clocks differ.
        self.signatures.map(|made| SystemTime::now().duration_since(made).unwrap_or_default())
    }
}

/// The protocols.
#[derive(Debug)]
enum Protocol {
    Clamd(Clamd),
    Sssp(Sssp),
    Line(LineDaemon),
    Icap(Icap),
    Command(CommandLine),
}

impl Protocol {
    async fn scan(&self, feed: &mut Feed, tally: &mut Tally) -> Result<(), Failure> {
        match self {
            Protocol::Clamd(engine) => engine.scan(feed, tally).await,
            Protocol::Sssp(engine) => engine.scan(feed, tally).await,
            Protocol::Line(engine) => engine.scan(feed, tally).await,
            Protocol::Icap(engine) => engine.scan(feed, tally).await,
            Protocol::Command(engine) => engine.scan(feed, tally).await,
        }
    }

    async fn status(&self) -> Result<Status, Failure> {
        match self {
            Protocol::Clamd(engine) => engine.status().await,
            Protocol::Sssp(engine) => engine.status().await,
            Protocol::Line(engine) => engine.status().await,
            Protocol::Icap(engine) => engine.status().await,
            Protocol::Command(engine) => engine.status(),
        }
    }
}

/// How long an engine may take to say that it is there.
const PROBE: Duration = Duration::from_secs(5);

/// One engine.
#[derive(Debug)]
pub struct Engine {
    name: String,
    group: Group,
    protocol: Protocol,
    scores: Arc<[VirusScore]>,
    /// One permit per message that may be there at once.
    permits: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
    /// The version that the log has.
    told: Mutex<String>,
}

impl Engine {
    /// The engine of one section. Files for engines that take files go below `scratch`. Nothing is connected yet.
    pub(super) fn new(
        name: &str,
        settings: &EngineSettings,
        antivirus: &AntivirusSettings,
        scratch: &std::path::Path,
    ) -> Option<Engine> {
        let protocol = match settings.kind_of(name)? {
            Kind::Clamd => Protocol::Clamd(Clamd::new(name, settings.clone())),
            Kind::Sssp => Protocol::Sssp(Sssp::new(name, settings)?),
            Kind::Line => Protocol::Line(LineDaemon::new(settings, scratch)?),
            Kind::Icap => Protocol::Icap(Icap::new(name, settings)?),
            Kind::Command => Protocol::Command(CommandLine::new(settings, scratch)?),
        };
        let engine = Engine {
            name: name.to_owned(),
            group: settings.group,
            protocol,
            scores: antivirus.virus_scores.clone().into(),
            permits: Arc::new(Semaphore::new(settings.max_connections)),
            breaker: Mutex::new(Breaker::new(settings.failures, settings.pause.0)),
            told: Mutex::default(),
        };
        engine.show_state();
        Some(engine)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is always asked.
    pub fn group(&self) -> Group {
        self.group
    }

    /// Whether it finds the text parts of a message by itself, so that they need not be given to it decoded.
    pub(super) fn reads_mail(&self) -> bool {
        matches!(self.protocol, Protocol::Clamd(_))
    }

    /// Asks whether the engine is there.
    pub async fn status(&self) -> Result<Status, Failure> {
        match timeout(PROBE, self.protocol.status()).await {
            Ok(status) => {
                self.show_age(status.as_ref().ok());
                status
            }
            Err(_) => Err(Failure::TimedOut { phase: "asking whether it is there" }),
        }
    }

    /// What is known of its version without asking again.
    pub(super) fn known(&self) -> Option<Status> {
        match &self.protocol {
            Protocol::Clamd(clamd) => clamd.known(),
            Protocol::Icap(icap) => icap.known(),
            Protocol::Sssp(_) | Protocol::Line(_) | Protocol::Command(_) => None,
        }
    }

    /// Whether it may be asked now. One that was set aside is tried first by one of the messages, once its pause is over.
    pub(super) async fn admitted(&self) -> Result<(), Failure> {
        let admission = self.breaker().admit(Instant::now());
        match admission {
            Admission::Go => Ok(()),
            Admission::Aside(left) => Err(Failure::Aside(left.as_secs() + 1)),
            Admission::Probe => {
                let answer = self.status().await;
                self.note(answer.as_ref().err());
                answer.map(|_| ())
            }
        }
    }

    /// Waits until there is room for one more message.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed, so this always gives a permit.
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Has all pieces of a message looked at. Whatever goes wrong, or is not done by `deadline`, is a failure with its reason.
    pub(super) async fn scan(&self, mut feed: Feed, deadline: Instant) -> (Vec<Scan>, Vec<Symbol>) {
        let started = Instant::now();
        let mut tally = Tally::new(Arc::clone(&self.scores));
        let failure = match timeout_at(deadline, self.protocol.scan(&mut feed, &mut tally)).await {
            Ok(result) => result.err(),
            Err(_) => Some(Failure::TimedOut { phase: "scanning before the deadline of the message" }),
        };
        histogram!("octroi_contentd_engine_seconds", "engine" => self.name.clone())
            .record(started.elapsed().as_secs_f64());
        self.note(failure.as_ref());
        self.scans(tally, failure.as_ref())
    }

    /// The answer of an engine that is not asked.
    pub(super) fn unasked(&self, failure: &Failure) -> (Vec<Scan>, Vec<Symbol>) {
        self.scans(Tally::new(Arc::clone(&self.scores)), Some(failure))
    }

    fn scans(&self, tally: Tally, failure: Option<&Failure>) -> (Vec<Scan>, Vec<Symbol>) {
        let (outcomes, symbols) = tally.outcomes(failure);
        let word = match (&outcomes[0], failure) {
            (Outcome::Infected(_), _) => "infected",
            (_, Some(failure)) => failure.word(),
            (Outcome::Incomplete(_) | Outcome::Failed(_), _) => "incomplete",
            (Outcome::Encrypted(_), _) => "encrypted",
            (Outcome::Clean, _) => "clean",
        };
        counter!("octroi_contentd_engine_scans_total", "engine" => self.name.clone(), "outcome" => word).increment(1);
        let status = self.known();
        self.show_age(status.as_ref());
        let scan = |outcome| Scan {
            scanner: self.name.clone(),
            backup: self.group == Group::Backup,
            outcome,
            version: status.as_ref().map(|status| status.version.clone()),
            signatures_age: status.as_ref().and_then(Status::age),
        };
        (outcomes.into_iter().map(scan).collect(), symbols)
    }

    /// Tells the breaker, the log and the metrics how it went.
    fn note(&self, failure: Option<&Failure>) {
        let change = match failure {
            None => self.breaker().success(),
            Some(_) => self.breaker().failure(Instant::now()),
        };
        let engine = &self.name;
        if let Some(error) = failure {
            tracing::warn!(engine, %error, "an antivirus engine gave no answer");
        }
        match change {
            Change::None => {}
            Change::Opened(pause) => {
                tracing::error!(
                    engine,
                    pause_s = pause.as_secs(),
                    "antivirus engine set aside: it fails again and again"
                );
            }
            Change::Closed => tracing::warn!(engine, "antivirus engine is back"),
        }
        self.show_state();
    }

    fn show_age(&self, status: Option<&Status>) {
        if let Some(age) = status.and_then(Status::age) {
            let gauge = gauge!("octroi_contentd_engine_signatures_age_seconds", "engine" => self.name.clone());
            gauge.set(age.as_secs_f64());
        }
        if let Some(status) = status {
            self.tell_version(status);
        }
    }

    /// A line in the log whenever the engine has other signatures than before.
    fn tell_version(&self, status: &Status) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != status.version {
            told.clone_from(&status.version);
            let signatures_age_s = status.age().map(|age| age.as_secs());
            tracing::info!(engine = self.name, version = status.version, signatures_age_s, "signatures");
        }
    }

    fn show_state(&self) {
        let up = if self.breaker().is_closed() { 1.0 } else { 0.0 };
        gauge!("octroi_contentd_engine_up", "engine" => self.name.clone()).set(up);
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer as text for logs: printable, short.
pub(super) fn shown(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.trim().chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::super::scores::Score;
    use super::*;

    fn outcomes(answers: Vec<Outcome>, failure: Option<&Failure>) -> Vec<Outcome> {
        let mut tally = Tally::new(Arc::default());
        answers.into_iter().for_each(|answer| tally.add(answer));
        tally.outcomes(failure).0
    }

    #[test]
    fn the_worst_answer_about_a_piece_is_that_about_the_message() {
        let virus = || Outcome::Infected(vec!["A".into()]);
        let (part, locked) = (|| Outcome::Incomplete("x".into()), || Outcome::Encrypted("Zip".into()));
        assert_eq!(outcomes(vec![], None), [Outcome::Clean]);
        assert_eq!(outcomes(vec![Outcome::Clean, part(), Outcome::Clean], None), [part()]);
        assert_eq!(outcomes(vec![locked(), part()], None), [part(), locked()]);
        assert_eq!(outcomes(vec![part(), virus(), virus()], None), [virus()]);
        let lost = Failure::TimedOut { phase: "x" };
        assert_eq!(outcomes(vec![virus()], Some(&lost)), [virus()]);
        assert_eq!(
            outcomes(vec![Outcome::Clean, locked()], Some(&lost)),
            [Outcome::Failed(lost.to_string()), locked()]
        );
    }

    #[test]
    fn a_name_with_a_score_is_no_virus() {
        let scores = [VirusScore { name: "Phish.*".into(), score: Score(3.0) }];
        let mut tally = Tally::new(scores.to_vec().into());
        tally.add(Outcome::Infected(vec!["Phish.a".into()]));
        tally.add(Outcome::Infected(vec!["Phish.a".into()]));
        assert!(!tally.is_infected());
        tally.add(Outcome::Infected(vec!["Phish.b".into(), "Worm".into()]));
        assert!(tally.is_infected());
        let (outcomes, symbols) = tally.outcomes(None);
        assert_eq!(outcomes, [Outcome::Infected(vec!["Worm".into()])]);
        assert_eq!(symbols.iter().map(|symbol| symbol.score).sum::<f64>(), 6.0);
    }
}
