// SPDX-License-Identifier: GPL-3.0-or-later
//! Notices to the administrator when a limit is passed: by mail and by webhook, once per key and time of the limit for the whole farm.
//!
//! Nobody waits for a notice. What this host has told lately is remembered, so that a flood costs one look into memory; a row in the
//! store then decides which host of the farm tells it. When the store is away each host tells once. What cannot be delivered is
//! logged and counted, and not tried again: the log has the facts.

mod mail;
mod webhook;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::store::Store;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::webhook::Webhook;
use crate::config::NotifySettings;
use crate::limits::plan::digest;
use crate::policy::Live;
use crate::store::health::Health;
use crate::store::limits::claim;
use crate::store::{Connection, timely};

/// Notices that may wait.
const WAITING: usize = 256;
/// Notices remembered per generation.
const GENERATION: usize = 4096;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// More than `warn_at`.
    Warning,
    /// More than `block_at`.
    Blocked,
}

impl Kind {
    /// The word for webhook, log and metric.
    pub fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Blocked => "blocked",
        }
    }
}

/// One notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub kind: Kind,
    /// Name of the limit.
    pub limit: String,
    /// Who passed it.
    pub key: String,
    /// What was counted.
    pub unit: &'static str,
    /// The number that was passed, and its time.
    pub rate: String,
    /// For so many milliseconds it is not told again.
    pub keep: i64,
    /// Name of the host that saw it first.
    pub host: String,
}

impl Notice {
    fn id(&self) -> i64 {
        digest(&["notice", self.kind.word(), &self.limit, &self.key])
    }

    /// One line.
    fn summary(&self) -> String {
        let consequence = match self.kind {
            Kind::Warning => "passed the number of warning",
            Kind::Blocked => "is over the limit",
        };
        format!("{} {consequence}: {} {} ({})", self.key, self.rate, self.unit, self.limit)
    }
}

#[derive(Debug, Default)]
struct Told([HashMap<u64, Instant>; 2]);

/// Takes notices.
#[derive(Debug)]
pub struct Notifier {
    entrance: mpsc::Sender<Notice>,
    hasher: RandomState,
    told: Mutex<Told>,
}

impl Notifier {
    /// A notifier, and its work, which ends when `stop` is cancelled.
    pub fn new(
        store: &Store,
        health: &Arc<Health>,
        live: Arc<Live>,
        stop: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (entrance, waiting) = mpsc::channel(WAITING);
        let teller = Teller { store: store.clone(), health: health.clone(), live, webhook: Webhook::default() };
        let stop = stop.clone();
        let work = async move {
            tokio::select! {
                () = teller.run(waiting) => {}
                () = stop.cancelled() => {}
            }
        };
        (Self { entrance, hasher: RandomState::new(), told: Mutex::default() }, work)
    }

    /// Sends a notice, unless this host has done so within its time.
    pub fn send(&self, notice: Notice) {
        if !self.is_new(&notice, Instant::now()) {
            return;
        }
        if self.entrance.try_send(notice).is_err() {
            outcome("dropped");
        }
    }

    fn is_new(&self, notice: &Notice, now: Instant) -> bool {
        let hash = self.hasher.hash_one((notice.kind.word(), &notice.limit, &notice.key));
        // A panic of another thread leaves nothing half done here.
        let Told([young, old]) = &mut *self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if [&*young, &*old].iter().filter_map(|told| told.get(&hash)).any(|until| *until > now) {
            return false;
        }
        if young.len() >= GENERATION {
            std::mem::swap(young, old);
            young.clear();
        }
        let keep = Duration::from_millis(u64::try_from(notice.keep).unwrap_or_default());
        young.insert(hash, now.checked_add(keep).unwrap_or(now));
        true
    }
}

fn outcome(word: &'static str) {
    metrics::counter!("octroi_policyd_notices_total", "outcome" => word).increment(1);
}

struct Teller {
    store: Store,
    health: Arc<Health>,
    live: Arc<Live>,
    webhook: Webhook,
}

impl Teller {
    async fn run(self, mut waiting: mpsc::Receiver<Notice>) {
        while let Some(notice) = waiting.recv().await {
            let settings = self.live.current().settings.notify.clone();
            if settings.is_on() && self.is_ours(&notice).await {
                self.tell(&settings, &notice).await;
            }
        }
    }

    /// Whether no other host has told it. Without the store it is ours.
    async fn is_ours(&self, notice: &Notice) -> bool {
        if !self.health.is_up() {
            return true;
        }
        let claimed = timely(async {
            let mut connection = Connection::acquire(&self.store).await?;
            claim(&mut connection, notice.id(), notice.keep).await
        });
        claimed.await.unwrap_or_else(|error| {
            tracing::debug!(%error, "whether another host has sent a notice is not known");
            true
        })
    }

    async fn tell(&self, settings: &NotifySettings, notice: &Notice) {
        tracing::warn!(
            kind = notice.kind.word(),
            limit = notice.limit.as_str(),
            key = notice.key.as_str(),
            rate = notice.rate.as_str(),
            unit = notice.unit,
            "limit passed"
        );
        let limit = settings.timeout.0;
        if !settings.mail_to.is_empty() {
            report("mail", tokio::time::timeout(limit, mail::send(settings, notice)).await);
        }
        if !settings.webhook.is_empty() {
            report("webhook", tokio::time::timeout(limit, self.webhook.post(&settings.webhook, notice)).await);
        }
    }
}

fn report(way: &'static str, done: Result<Result<(), String>, tokio::time::error::Elapsed>) {
    let error = match done {
        Ok(Ok(())) => return outcome("sent"),
        Ok(Err(error)) => error,
        Err(_) => "no answer in time".to_owned(),
    };
    outcome("failed");
    tracing::warn!(way, error, "a notice could not be delivered");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_notice_is_told_once_in_its_time() {
        let (entrance, mut waiting) = mpsc::channel(1);
        let notifier = Notifier { entrance, hasher: RandomState::new(), told: Mutex::default() };
        let notice = |kind, key: &str| Notice {
            kind,
            limit: "c".to_owned(),
            key: key.to_owned(),
            unit: "connections",
            rate: "500/1h".to_owned(),
            keep: 1000,
            host: "mx".to_owned(),
        };
        let now = Instant::now();
        let one = notice(Kind::Warning, "192.0.2.1");
        assert!(notifier.is_new(&one, now) && !notifier.is_new(&one, now + Duration::from_millis(999)));
        assert!(notifier.is_new(&one, now + Duration::from_millis(1000)));
        assert!(notifier.is_new(&notice(Kind::Blocked, "192.0.2.1"), now));
        assert_ne!(one.id(), notice(Kind::Blocked, "192.0.2.1").id());
        assert_eq!(one.summary(), "192.0.2.1 passed the number of warning: 500/1h connections (c)");
        // A queue that is full drops and does not wait.
        notifier.send(notice(Kind::Warning, "a"));
        notifier.send(notice(Kind::Warning, "b"));
        assert_eq!(waiting.recv().await.map(|notice| notice.key), Some("a".to_owned()));
        assert!(waiting.try_recv().is_err());
    }
}
