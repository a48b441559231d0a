// SPDX-License-Identifier: GPL-3.0-or-later
//! What is done for recipients behind the back of the requests: list files are watched, full copies taken and followed, what directories
//! have said is written to the store and read from it, and what is known is kept on disk.
//!
//! Whatever goes wrong, what is known stays in force and the log says so.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::config::Mistakes;
use common::store::{Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address::number;
use super::book::{Book, Recipients, now};
use super::cache::Known;
use super::directory::{Copied, Directory};
use super::members::Members;
use super::pull;
use super::snapshot::Snapshot;
use crate::policy::Live;
use crate::store::Connection;
use crate::store::health::Health;
use crate::store::recipients::{self, Said};

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(5);
/// After so long at the start nobody waits any more for what the store knows.
const FIRST: Duration = Duration::from_secs(2);
/// Rows are dated when their statement begins and seen when it is committed; so each look goes back a little, in milliseconds.
const OVERLAP: i64 = 30_000;
/// How often what is known is written to disk, when it has changed.
const SNAPSHOT: Duration = Duration::from_secs(60);
/// How often what holds no more is deleted, and how much at a time.
const CLEAN: (Duration, i64) = (Duration::from_secs(60), 1000);
/// In one statement.
const BATCH: usize = 512;
/// How long answers gather before they are written.
const GATHER: Duration = Duration::from_millis(200);
/// Time for one statement.
const STATEMENT_TIME: Duration = Duration::from_secs(6);

/// The work behind the book of one host.
#[derive(Debug)]
pub struct Keeping {
    live: Arc<Live>,
    store: Store,
    health: Arc<Health>,
    book: Book,
    /// When the store was last read.
    followed: Option<Instant>,
    cleaned: Instant,
    snapshot: Option<(PathBuf, Instant, u64)>,
    tried: Option<SystemTime>,
    told: String,
}

impl Keeping {
    /// The work for a book. What was written to disk by an earlier run is read at once, when the store is not a file of this host.
    pub fn new(live: &Arc<Live>, store: &Store, health: &Arc<Health>, book: &Book) -> Self {
        let now = Instant::now();
        let policy = live.current();
        let path = policy.settings.recipients.file_path();
        let snapshot = matches!(store, Store::Postgres(_)).then_some((path, now, 0));
        let mut keeping = Self {
            live: live.clone(),
            store: store.clone(),
            health: health.clone(),
            book: book.clone(),
            followed: None,
            cleaned: now,
            snapshot,
            tried: None,
            told: String::new(),
        };
        if let Some(recipients) = &policy.recipients {
            keeping.read_snapshot(recipients);
        }
        keeping
    }

    /// Works until `stop`; `waiting` is what the book wants written.
    pub async fn run(mut self, mut waiting: mpsc::Receiver<Said>, stop: CancellationToken) {
        let started = Instant::now();
        let mut next = started;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    let up = self.health.is_up();
                    let recipients = self.live.current().recipients.clone();
                    if let Some(recipients) = &recipients {
                        self.round(recipients, up, &stop).await;
                    }
                    if self.followed.is_some() || started.elapsed() >= FIRST || recipients.is_none() {
                        self.book.is_loaded();
                    }
                    next = Instant::now() + if up || started.elapsed() >= FIRST { ROUND } else { FIRST / 40 };
                }
                Some(first) = waiting.recv() => self.gather(first, &mut waiting, &stop).await,
                () = stop.cancelled() => break,
            }
        }
        self.book.close().await;
        let mut rest = Vec::new();
        while let Ok(said) = waiting.try_recv() {
            rest.push(said);
        }
        self.write(rest).await;
        if let Some(recipients) = &self.live.current().recipients {
            self.write_snapshot(recipients, true).await;
        }
    }

    async fn round(&mut self, recipients: &Arc<Recipients>, up: bool, stop: &CancellationToken) {
        self.look_at_files(recipients).await;
        if up {
            let looked = timely(self.follow(recipients)).await;
            self.tell(looked.err());
            for directory in &recipients.directories {
                // A copy takes its time, and what else there is to do does not wait for it.
                pull::when_due(directory, &self.store, stop).await;
            }
            self.clean().await;
        }
        self.write_snapshot(recipients, false).await;
        metrics::gauge!("octroi_policyd_recipients_known").set(self.book.cache().len() as f64);
    }

    /// Reads list files again that have changed.
    async fn look_at_files(&mut self, recipients: &Arc<Recipients>) {
        let (looking, mut tried) = (recipients.clone(), self.tried);
        let looked = tokio::task::spawn_blocking(move || {
            let refresh = |directory: &Arc<Directory>| {
                let files = directory.files()?;
                Some((directory.name(), files.refresh(&mut tried).map(|changed| changed.then(|| files.len()))))
            };
            let looked: Vec<(String, Result<Option<usize>, Mistakes>)> =
                looking.directories.iter().filter_map(refresh).collect();
            (looked, tried)
        });
        let Ok((looked, tried)) = looked.await else { return };
        self.tried = tried;
        for (directory, result) in looked {
            match result {
                Ok(None) => {}
                Ok(Some(entries)) => tracing::info!(directory, entries, "list files have changed and were read again"),
                Err(mistakes) => {
                    for mistake in mistakes.iter() {
                        let mistake = mistake.to_string();
                        tracing::error!(directory, mistake, "list files not read again, the last good ones stay");
                    }
                }
            }
        }
    }

    /// Takes over what other hosts have learnt, and their full copies.
    async fn follow(&mut self, recipients: &Arc<Recipients>) -> Result<(), StoreError> {
        let looked = Instant::now();
        let mut connection = Connection::acquire_losable(&self.store).await?;
        let age = match self.followed {
            None => recipients.settings.keep_known.as_millis(),
            Some(last) => i64::try_from(last.elapsed().as_millis()).unwrap_or(i64::MAX).saturating_add(OVERLAP),
        };
        let most = i64::try_from(recipients.settings.remember / 2).unwrap_or(i64::MAX);
        let rows = recipients::since(&mut connection, age, most).await?;
        let now = now();
        let seconds = |millis: i64| u64::try_from(millis / 1000).unwrap_or_default();
        for row in rows {
            let (number, checked) = (number(&row.address), now.saturating_sub(seconds(row.age)));
            let mut cache = self.book.cache();
            match row.left > 0 {
                true => cache.learned(Known { number, checked, expires: now + seconds(row.left) }),
                false => cache.forget(number, checked),
            }
        }
        let copies = recipients::copies(&mut connection).await?;
        for directory in recipients.directories.iter().filter(|directory| directory.puller().is_some()) {
            let key = directory.key();
            let Some(row) = copies.iter().find(|row| row.directory == key) else { continue };
            let pulled = now.saturating_sub(seconds(row.age));
            let members = match directory.copy().filter(|copy| copy.version == row.version) {
                Some(copy) if copy.pulled + 1 >= pulled => continue,
                Some(copy) => copy.members.clone(),
                None => match recipients::members(&mut connection, &key, row.version).await? {
                    Some(bytes) => Members::unpacked(&bytes)
                        .ok_or_else(|| StoreError::Broken(format!("the copy of {key} is damaged")))?,
                    None => continue,
                },
            };
            directory.replace_copy(Copied { members, pulled, version: row.version });
        }
        self.followed = Some(looked);
        Ok(())
    }

    fn tell(&mut self, error: Option<StoreError>) {
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        if error != self.told {
            match error.is_empty() {
                true => tracing::warn!("what the store knows of recipients can be read again"),
                false => tracing::warn!(error, "what the store knows of recipients cannot be read"),
            }
            self.told = error;
        }
    }

    async fn gather(&self, first: Said, waiting: &mut mpsc::Receiver<Said>, stop: &CancellationToken) {
        let mut batch = vec![first];
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = stop.cancelled() => {}
        }
        while batch.len() < BATCH
            && let Ok(more) = waiting.try_recv()
        {
            batch.push(more);
        }
        self.write(batch).await;
    }

    async fn write(&self, batch: Vec<Said>) {
        if batch.is_empty() {
            return;
        }
        let written = async {
            if !self.health.is_up() {
                return Err(StoreError::Unavailable("it counts as down".to_owned()));
            }
            recipients::write(&mut Connection::acquire_losable(&self.store).await?, &batch).await
        };
        if let Err(error) = timely(written).await {
            tracing::debug!(%error, answers = batch.len(), "what directories said is not written to the store");
            metrics::counter!("octroi_policyd_recipients_dropped_total").increment(batch.len() as u64);
        }
    }

    async fn clean(&mut self) {
        if self.cleaned.elapsed() < CLEAN.0 {
            return;
        }
        let cleaned = async { recipients::clean(&mut Connection::acquire_losable(&self.store).await?, CLEAN.1).await };
        match timely(cleaned).await {
            // There may be more: the next round goes on.
            Ok(deleted) if deleted >= CLEAN.1.unsigned_abs() => {}
            Ok(_) => self.cleaned = Instant::now(),
            Err(error) => tracing::debug!(%error, "expired recipients could not be deleted"),
        }
    }

    fn read_snapshot(&mut self, recipients: &Arc<Recipients>) {
        let Some((path, _, changes)) = &mut self.snapshot else { return };
        match Snapshot::read(path) {
            Ok(snapshot) => {
                let mut cache = self.book.cache();
                snapshot.known.into_iter().for_each(|known| cache.learned(known));
                *changes = cache.changes();
                for (key, copied) in snapshot.copies {
                    let directory = recipients.directories.iter().find(|directory| directory.key() == key);
                    if let Some(directory) = directory.filter(|directory| directory.copy().is_none()) {
                        directory.replace_copy(copied);
                    }
                }
            }
            Err(error) => {
                let file = path.display().to_string();
                tracing::warn!(file, %error, "what was known of recipients cannot be read from disk");
            }
        }
    }

    async fn write_snapshot(&mut self, recipients: &Arc<Recipients>, last: bool) {
        let Some((path, written, changes)) = &mut self.snapshot else { return };
        let copies = recipients.directories.iter().filter_map(|directory| Some((directory.key(), directory.copy()?)));
        let copies: Vec<(String, Copied)> = copies.map(|(key, copy)| (key, (*copy).clone())).collect();
        let state = {
            let pulled = copies.iter().map(|(_, copy)| copy.pulled).sum::<u64>();
            self.book.cache().changes().wrapping_add(pulled)
        };
        if state == *changes || !(last || written.elapsed() >= SNAPSHOT) {
            return;
        }
        (*written, *changes) = (Instant::now(), state);
        let snapshot = Snapshot { known: self.book.cache().all(now()), copies };
        let file = path.clone();
        let written = tokio::task::spawn_blocking(move || snapshot.write(&file)).await;
        if let Ok(Err(error)) = written {
            let file = path.display().to_string();
            tracing::warn!(file, %error, "what is known of recipients cannot be written to disk");
            metrics::counter!("octroi_policyd_recipients_file_failures_total").increment(1);
        }
    }
}

async fn timely<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_TIME, work).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {} seconds", STATEMENT_TIME.as_secs()))),
    }
}
