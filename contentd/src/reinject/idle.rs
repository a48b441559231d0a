// SPDX-License-Identifier: GPL-3.0-or-later
//! Connections to the next hop that wait for another message, so that not each message pays for connecting and greeting.
//!
//! They wait a few seconds: each occupies an smtpd process behind us. One that the next hop has closed meanwhile is noticed before anything of a
//! message has been sent on it, and another is taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;

use super::NextHop;

/// So many wait at most.
const MOST: usize = 64;

/// The connections to one next hop that wait.
#[derive(Debug)]
pub struct Idle {
    /// How long each may wait; 0: none does.
    keep: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The one that has waited longest is first.
    list: Vec<(Instant, NextHop)>,
    /// Somebody looks after them.
    is_swept: bool,
}

impl Idle {
    /// Nobody waits yet.
    pub fn new(keep: Duration) -> Arc<Idle> {
        Arc::new(Idle { keep, waiting: Mutex::default() })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is one push or pop: there is nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that can be used.
    pub(super) fn take(&self) -> Option<NextHop> {
        loop {
            let (since, hop) = self.waiting().list.pop()?;
            if since.elapsed() < self.keep && hop.is_quiet() {
                return Some(hop);
            }
            hop.part();
        }
    }

    /// Lets a connection wait; gives it back when it may not.
    pub(super) fn put(self: &Arc<Self>, hop: NextHop) -> Option<NextHop> {
        if self.keep.is_zero() {
            return Some(hop);
        }
        let mut waiting = self.waiting();
        if waiting.list.len() >= MOST {
            return Some(hop);
        }
        waiting.list.push((Instant::now(), hop));
        if !std::mem::replace(&mut waiting.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.keep));
        }
        None
    }

    /// Ends those that have waited long enough; false when none is left.
    fn sweep(&self) -> bool {
        let mut waiting = self.waiting();
        let old = waiting.list.iter().take_while(|(since, _)| since.elapsed() >= self.keep).count();
        waiting.list.drain(..old).for_each(|(_, hop)| hop.part());
        waiting.is_swept = !waiting.list.is_empty();
        waiting.is_swept
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.waiting().list.drain(..).for_each(|(_, hop)| hop.part());
    }
}

async fn sweep(idle: Weak<Idle>, keep: Duration) {
    loop {
        tokio::time::sleep(keep / 2 + Duration::from_millis(1)).await;
        if !idle.upgrade().is_some_and(|idle| idle.sweep()) {
            return;
        }
    }
}

/// Counts a session that went on over a connection that had waited.
pub(super) fn count_reuse() {
    counter!("octroi_contentd_nexthop_reused_total").increment(1);
}

/// Tells the metrics page what the numbers mean.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "octroi_contentd_nexthop_reused_total",
        "Messages that went over a connection to the next hop that an earlier one had opened"
    );
}
