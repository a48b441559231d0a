// SPDX-License-Identifier: GPL-3.0-or-later
//! The account of the rules: what each has hit, decided and cost, day by day, and what people say of the messages (docs/spam-stats.md). No rule and
//! no verdict depends on it.
//!
//! A message takes a lock for some microseconds and waits for nothing. Once a minute, and at the end, what has been counted is added to the
//! store in one transaction; while the store is away it is kept, within a bound, and sent again later, which the store knows by the id.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::store::{Store, StoreError};
use common::units::Period;
use metrics::{counter, gauge};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::tally::{Checked, Tally};
pub use super::tally::{Class, Levels};
use crate::envelope::MessageId;
use crate::findings::Spam;
use crate::store::rules::{self as rows, Batch};
use crate::store::{self, Access};
use crate::verdict::Policy;

/// Between two times of writing.
const EVERY: Duration = Duration::from_secs(60);
/// So many times of writing are without the costs of rules that did not hit: they are many rows, and nobody waits for them.
const COSTS_EVERY: u32 = 10;
/// Times of writing between two rounds of forgetting.
const CLEAN_EVERY: u32 = 60;
/// Rows forgotten at once.
const PORTION: i64 = 1000;
const DAY: i64 = 86_400_000;

/// The account of this host, from the start of the daemon to its end.
#[derive(Debug)]
pub struct Account {
    tally: Mutex<Tally>,
    sending: tokio::sync::Mutex<Sending>,
    access: Arc<Access>,
}

/// What is on its way to the store.
#[derive(Debug)]
struct Sending {
    /// Of which it is not known whether the store has it. It is sent again as it is.
    batch: Option<Arc<Batch>>,
    /// When the store last had everything.
    done: Instant,
    failing: bool,
}

impl Account {
    /// An empty account that is kept in this store.
    pub fn new(access: Arc<Access>) -> Arc<Account> {
        let sending = Sending { batch: None, done: Instant::now(), failing: false };
        Arc::new(Account { tally: Mutex::default(), sending: tokio::sync::Mutex::new(sending), access })
    }

    /// Counts a message that has been decided. `levels` are the scores that its treatment depends on.
    pub fn note(&self, spam: &Spam, levels: &Levels) {
        self.tally().note(today(), checked(spam), levels);
    }

    /// Counts what somebody says of a message; `spam` is what the rules say of it.
    pub fn feedback(&self, spam: &Spam, class: Class) {
        counter!("octroi_contentd_spam_feedback_total", "class" => class.word()).increment(1);
        self.tally().feedback(today(), checked(spam), spam.is_tagged(), class);
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // A figure that is half added does no harm.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until `stop`, and forgets days that are older than `keep` says.
    pub async fn keep(&self, keep: impl Fn() -> Period, stop: CancellationToken) {
        for round in 1_u32.. {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => return,
            }
            self.write(round.is_multiple_of(COSTS_EVERY)).await;
            // Not all hosts at the same time, and soon after the start.
            if round % CLEAN_EVERY == 1 {
                tokio::select! {
                    () = self.clean(keep()) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// Writes all that there is, at the end.
    pub async fn finish(&self) {
        if !self.write(true).await {
            let rules = self.sending.lock().await.batch.as_ref().map_or(0, |batch| batch.rules.len());
            tracing::warn!(rules, "what the rules have done lately could not be written");
        }
    }

    /// Adds to the store what has been counted; says whether it has everything.
    pub async fn write(&self, costs: bool) -> bool {
        let mut sending = self.sending.lock().await;
        if self.send(&mut sending).await {
            sending.batch = self.batch(costs);
            self.send(&mut sending).await;
        }
        let is_done = sending.batch.is_none();
        if is_done {
            sending.done = Instant::now();
        }
        gauge!("octroi_contentd_spam_stats_lag_seconds").set(sending.done.elapsed().as_secs_f64());
        is_done
    }

    /// What has been counted; none when that is nothing.
    fn batch(&self, costs: bool) -> Option<Arc<Batch>> {
        let (taken, dropped) = {
            let mut tally = self.tally();
            (tally.take(costs), tally.take_dropped())
        };
        if dropped > 0 {
            counter!("octroi_contentd_spam_stats_dropped_total").increment(dropped);
        }
        let id = format!("{} {}", common::mail::hostname(), MessageId::generate());
        (!taken.days.is_empty()).then(|| Arc::new(Batch { id, days: taken.days, rules: taken.rules }))
    }

    /// Sends what is on its way, if anything is; says whether nothing is any more.
    async fn send(&self, sending: &mut Sending) -> bool {
        let Some(batch) = sending.batch.clone() else { return true };
        let sent = self.access.run(|store| {
            let batch = batch.clone();
            async move { rows::add(&store, &batch).await }
        });
        match sent.await {
            Ok(_) => {
                sending.batch = None;
                sending.failing = false;
            }
            Err(error) => {
                counter!("octroi_contentd_spam_stats_errors_total", "at" => "write").increment(1);
                if !std::mem::replace(&mut sending.failing, true) {
                    tracing::warn!(%error, "what the rules have done cannot be written now; it is kept");
                }
            }
        }
        sending.batch.is_none()
    }

    /// Forgets old days, a portion at a time.
    async fn clean(&self, keep: Period) {
        let first = (store::now() - keep.as_millis()).div_euclid(DAY);
        loop {
            let cleaned = self.access.run(|store| async move { rows::clean(&store, first, PORTION).await });
            match cleaned.await {
                Ok(PORTION_FULL..) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(_) => return,
                Err(error) => {
                    counter!("octroi_contentd_spam_stats_errors_total", "at" => "clean").increment(1);
                    tracing::debug!(%error, "old days of the rules' account were not deleted");
                    return;
                }
            }
        }
    }
}

/// Adds to the store what somebody says of one message, for whoever has no account of his own. `told` names the message: said again within a
/// day, it does not count again. Says whether it was new.
pub async fn tell(store: &Store, spam: &Spam, class: Class, told: &str) -> Result<bool, StoreError> {
    let mut tally = Tally::default();
    tally.feedback(today(), checked(spam), spam.is_tagged(), class);
    let taken = tally.take(false);
    let id = format!("{} {told}", class.word());
    rows::add(store, &Batch { id, days: taken.days, rules: taken.rules }).await
}

/// So many rows were deleted that there may be more.
const PORTION_FULL: u64 = PORTION as u64;

impl Levels {
    /// Those by which this message is treated.
    pub fn of(spam: &Spam, policy: &Policy) -> Levels {
        // Where the rules ask for more than makes spam, nothing is tagged only.
        Levels { tagged: spam.required.min(policy.kill_level.0), spam: policy.kill_level.0, others: Vec::new() }
    }
}

fn checked(spam: &Spam) -> Checked<'_> {
    Checked { rules: &spam.rules.rules, generation: spam.rules.generation, report: &spam.report, score: spam.score }
}

/// Days since 1970, UTC.
fn today() -> i64 {
    store::now().div_euclid(DAY)
}

/// Tells the metrics page what the account's numbers mean.
pub fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge};
    describe_counter!("octroi_contentd_spam_feedback_total", "Messages of which somebody said what they are, by class");
    describe_counter!(
        "octroi_contentd_spam_stats_errors_total",
        "Times the account of the rules could not be written or cleaned"
    );
    describe_counter!("octroi_contentd_spam_stats_dropped_total", "Figures of rules for which there was no room");
    describe_gauge!(
        "octroi_contentd_spam_stats_lag_seconds",
        "Time since the store had the whole account of the rules"
    );
}
