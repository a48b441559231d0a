// SPDX-License-Identifier: GPL-3.0-or-later
//! All antivirus engines: those of the primary group are asked at once about every message, those of the backup group only
//! when none of the primary ones has answered. What their answers mean together is decided in `verdict`.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::AntivirusSettings;
use super::engine::{Engine, Status};
use super::probe::Probe;
use super::sample::{Feed, Queue};
use super::settings::Group;
use crate::findings::{Outcome, Scan, Symbol};

/// The engines of one configuration.
#[derive(Debug, Default)]
pub struct Engines(Vec<Arc<Engine>>);

/// What engines have said about one message.
#[derive(Debug, Default)]
pub struct Answers {
    /// One or more for each engine.
    pub scans: Vec<Scan>,
    /// Names that are signs of spam by configuration.
    pub symbols: Vec<Symbol>,
}

impl Answers {
    fn add(&mut self, (scans, symbols): (Vec<Scan>, Vec<Symbol>)) {
        self.scans.extend(scans);
        for symbol in symbols {
            if !self.symbols.contains(&symbol) {
                self.symbols.push(symbol);
            }
        }
    }

    /// Whether there were engines and none of them has looked at the message.
    pub fn all_failed(&self) -> bool {
        !self.scans.is_empty() && self.scans.iter().all(|scan| matches!(scan.outcome, Outcome::Failed(_)))
    }
}

/// The engines that are asked about one message, each with its end of the queue.
#[derive(Debug)]
pub struct Round {
    asked: Vec<(Arc<Engine>, Feed, Option<OwnedSemaphorePermit>)>,
    answers: Answers,
}

impl Engines {
    /// The engines of the configuration. Files for those that take files go below `scratch`.
    pub fn new(settings: &AntivirusSettings, scratch: &Path) -> Engines {
        let engines = settings.engines.iter();
        Engines(
            engines.filter_map(|(name, engine)| Engine::new(name, engine, settings, scratch)).map(Arc::new).collect(),
        )
    }

    /// Whether text parts are to be decoded for an engine that reads no mail.
    pub fn want_texts(&self) -> bool {
        self.0.iter().any(|engine| !engine.reads_mail())
    }

    /// Whether there are any to take the place of the primary ones.
    pub fn have_backup(&self) -> bool {
        self.0.iter().any(|engine| engine.group() == Group::Backup)
    }

    /// Whether each engine is there, and with which signatures; one line. Errors: none of them is.
    pub async fn ready(&self) -> Result<String, String> {
        let (mut told, mut there) = (Vec::new(), self.0.is_empty());
        for engine in &self.0 {
            let status = engine.status().await;
            there |= status.is_ok();
            told.push(format!("{}: {}", engine.name(), status.map_or_else(|error| error.to_string(), describe)));
        }
        let told = if told.is_empty() { "no scanner configured".to_owned() } else { told.join("; ") };
        if there { Ok(told) } else { Err(told) }
    }

    /// Asks each engine about the test virus, in archives of up to `largest` bytes ([`Probe`]).
    pub async fn probe(&self, largest: u64) -> Vec<Probe> {
        let mut probes = Vec::with_capacity(self.0.len());
        for engine in &self.0 {
            probes.push(engine.probe(largest).await);
        }
        probes
    }

    /// Opens a round for the engines of one group: waits for a place at each. They are asked for in one order by all messages,
    /// so that no two wait for each other.
    pub async fn begin(&self, group: Group) -> (Queue, Round) {
        let (mut places, mut answers) = (Vec::new(), Answers::default());
        for engine in self.0.iter().filter(|engine| engine.group() == group) {
            match engine.admitted().await {
                Ok(()) => places.push((Arc::clone(engine), engine.permit().await)),
                Err(failure) => answers.add(engine.unasked(&failure)),
            }
        }
        let (queue, feeds) = Queue::new(places.len());
        let asked = places.into_iter().zip(feeds).map(|((engine, permit), feed)| (engine, feed, permit)).collect();
        (queue, Round { asked, answers })
    }
}

impl Round {
    /// Has everything looked at that comes out of the queue.
    pub async fn scan(self, deadline: Instant) -> Answers {
        let Round { asked, mut answers } = self;
        // Dropped with this future, it ends what is still running.
        let mut running = JoinSet::new();
        for (engine, feed, permit) in asked {
            running.spawn(async move {
                let answer = engine.scan(feed, deadline).await;
                drop(permit);
                (engine, answer)
            });
        }
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok((_, answer)) => answers.add(answer),
                Err(error) => {
                    tracing::error!(%error, "an antivirus engine broke off; this is a bug");
                    metrics::counter!("octroi_contentd_stage_failures_total", "stage" => "antivirus").increment(1);
                    answers.scans.push(Scan::new("antivirus", Outcome::Failed("broke off".to_owned())));
                }
            }
        }
        answers.scans.sort_by(|a, b| a.scanner.cmp(&b.scanner));
        answers
    }
}

/// One engine's words about itself.
pub(super) fn describe(status: Status) -> String {
    match status.age() {
        Some(age) => format!("{}, signatures {} days old", status.version, age.as_secs() / 86_400),
        None => status.version,
    }
}
