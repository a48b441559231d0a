// SPDX-License-Identifier: GPL-3.0-or-later
//! Client of the ClamAV daemon (clamd(8), "COMMANDS"): sessions that are kept, several samples under way in each.
//!
//! clamd passes over what exceeds its own limits and says OK (clamd.conf(5), MaxFileSize). So its configuration is read where it
//! can be, nothing larger than it allows is given to it, and what was not given is incomplete. What an answer means for the
//! message is decided elsewhere.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::address::Address;
use common::units::Size;
use metrics::counter;
use tokio::time::Instant;

use super::clamd_answer;
use super::clamd_conf::ServerLimits;
use super::clamd_session::{End, Exchange, Session};
use super::engine::{Failure, Status, Tally, shown};
use super::idle::Idle;
use super::sample::{Feed, Piece, Seen};
use super::settings::{EngineSettings, Transfer};
use super::wire::{Sent, Wire};
use crate::findings::Outcome;

/// How long what is known of clamd is believed: version, signatures, limits.
const KNOWN_FOR: Duration = Duration::from_secs(300);

/// Larger samples are streamed: a descriptor needs a copy in memory, which clamd reads from.
const DESCRIPTOR_LIMIT: u64 = 4 << 20;

/// What is sent when nothing is known of clamd's limits: the smallest MaxFileSize that any version or distribution ships.
const UNKNOWN_LIMIT: u64 = 25_000_000;

/// clamd, behind a pool of sessions.
#[derive(Debug)]
pub(super) struct Clamd {
    pub(super) name: String,
    pub(super) settings: EngineSettings,
    address: Address,
    idle: Idle<Session>,
    /// Whether samples may go by descriptor.
    descriptors: AtomicBool,
    known: Mutex<Known>,
}

/// What clamd has said about itself, and its configuration file.
#[derive(Debug, Default)]
struct Known {
    status: Option<Status>,
    limits: Option<ServerLimits>,
    since: Option<Instant>,
}

impl Clamd {
    /// A client without connections; they are made when needed.
    pub(super) fn new(name: &str, settings: EngineSettings) -> Clamd {
        let address = settings.clamd_address();
        let local = matches!(address, Address::Unix(_));
        let descriptors = local && settings.transfer.unwrap_or(Transfer::Auto) == Transfer::Auto;
        Clamd {
            name: name.to_owned(),
            idle: Idle::new(settings.max_connections, settings.idle_timeout.0),
            address,
            settings,
            descriptors: AtomicBool::new(descriptors),
            known: Mutex::default(),
        }
    }

    /// Has all pieces of a message scanned.
    pub(super) async fn scan(&self, feed: &mut Feed, tally: &mut Tally) -> Result<(), Failure> {
        let (mut waiting, mut tries) = (VecDeque::new(), 0);
        if !self.first(feed, &mut waiting, tally).await {
            return Ok(());
        }
        loop {
            let (mut session, kept) = self.session().await?;
            let mut exchange = Exchange::new(self, &mut session, &mut waiting, feed, tally);
            let ended = exchange.run().await;
            exchange.give_back();
            match ended {
                Ok(End::Done) => {
                    self.idle.keep(session);
                    return Ok(());
                }
                Ok(End::Enough) => return Ok(()),
                // clamd has closed after an answer; the rest goes over another connection.
                Ok(End::Closed) if waiting.is_empty() && feed.is_closed() && feed.is_empty() => return Ok(()),
                Ok(End::Closed) => {}
                // A kept session may have been closed by clamd meanwhile. That says nothing about the sample.
                Err(error) if kept && error.is_broken_connection() => self.count("stale"),
                Err(error) if error.is_broken_connection() && tries < self.settings.retries => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the first piece that is to be sent; false when there is none. Before that no connection is needed.
    async fn first(&self, feed: &mut Feed, waiting: &mut VecDeque<Arc<Piece>>, tally: &mut Tally) -> bool {
        self.read_limits().await;
        while let Some(piece) = feed.recv().await {
            if self.wants(&piece, tally) {
                waiting.push_back(piece);
                return true;
            }
        }
        false
    }

    /// Whether a piece is to be sent. One that clamd would pass over is incomplete without being sent.
    pub(super) fn wants(&self, piece: &Piece, tally: &mut Tally) -> bool {
        match piece.seen {
            Seen::Nowhere => {}
            // clamd reads mail: it finds the texts in the message itself.
            Seen::InMail => return false,
            Seen::InArchive if self.lock().limits.is_some_and(|limits| limits.open_archives()) => return false,
            Seen::InArchive => {}
        }
        match self.limit_for(piece.sample.len()) {
            None => true,
            Some(limit) => {
                tally.add(Outcome::Incomplete(limit));
                false
            }
        }
    }

    /// Which limit is in the way of a sample of this size.
    fn limit_for(&self, size: u64) -> Option<String> {
        if let Some(most) = self.settings.max_size.filter(|most| size > most.0) {
            return Some(format!("larger than max_size {most}"));
        }
        let limits = self.lock().limits;
        match limits {
            Some(limits) => limits.over(size, !self.by_descriptor(size)),
            None if self.settings.max_size.is_some() => None,
            None => (size > UNKNOWN_LIMIT)
                .then(|| format!("larger than {}, clamd's limits are not known", Size(UNKNOWN_LIMIT))),
        }
    }

    /// Whether a sample of this size goes by descriptor.
    pub(super) fn by_descriptor(&self, size: u64) -> bool {
        size <= DESCRIPTOR_LIMIT && self.descriptors.load(Ordering::Relaxed)
    }

    /// clamd could not read what it was given by descriptor; everything is streamed from now on.
    pub(super) fn stop_descriptors(&self, why: &str) {
        if self.descriptors.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                engine = self.name,
                error = why,
                "clamd cannot read descriptors, data is streamed from now on"
            );
        }
    }

    /// What clamd has said about itself lately.
    pub(super) fn known(&self) -> Option<Status> {
        self.lock().status.clone()
    }

    /// Whether its version should be asked for again.
    pub(super) fn wants_version(&self) -> bool {
        self.lock().since.is_none_or(|since| since.elapsed() > KNOWN_FOR)
    }

    /// Notes a version line.
    pub(super) fn learn(&self, version: &str) -> Status {
        let status = clamd_answer::status(version);
        let mut known = self.lock();
        (known.status, known.since) = (Some(status.clone()), Some(Instant::now()));
        status
    }

    /// Reads clamd's configuration anew where that is due. It may belong to another clamd, or not be readable: then nothing is known.
    async fn read_limits(&self) {
        if !self.wants_version() {
            return;
        }
        let text = tokio::fs::read_to_string(self.settings.clamd_conf_path()).await;
        let limits = text.ok().and_then(|text| ServerLimits::read(&text, &self.address));
        self.lock().limits = limits;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept session, or a fresh one; and whether it is a kept one.
    async fn session(&self) -> Result<(Session, bool), Failure> {
        while let Some(mut session) = self.idle.take() {
            if session.is_quiet() {
                self.count("kept");
                return Ok((session, true));
            }
            self.count("stale");
        }
        Ok((Session::new(self.connect().await?), false))
    }

    async fn connect(&self) -> Result<Wire, Failure> {
        self.count("fresh");
        Wire::connect(&self.address, self.settings.connect_timeout.0).await
    }

    fn count(&self, kind: &'static str) {
        counter!("octroi_contentd_engine_connections_total", "engine" => self.name.clone(), "kind" => kind)
            .increment(1);
    }

    /// Asks whether clamd is there, and for its version.
    pub(super) async fn status(&self) -> Result<Status, Failure> {
        let pong = self.command(b"zPING\0").await?;
        if pong != b"PONG" {
            return Err(Failure::Garbage(shown(&pong)));
        }
        let version = self.command(b"zVERSION\0").await?;
        if !version.starts_with(b"ClamAV") {
            return Err(Failure::Garbage(shown(&version)));
        }
        self.read_limits().await;
        Ok(self.learn(&shown(&version)))
    }

    /// One command outside a session; clamd closes behind its answer.
    async fn command(&self, command: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut wire = self.connect().await?;
        let limit = self.settings.send_timeout.0;
        let (Sent::All | Sent::Early) = wire.send([command].into_iter(), limit, |_| false).await?;
        wire.line(Instant::now() + limit, "asking").await
    }
}
