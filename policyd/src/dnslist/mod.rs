// SPDX-License-Identifier: GPL-3.0-or-later
//! DNS lists (RFC 5782): one [`List`] per zone that is asked, with the state that outlives a reload; who asks them ([`asker`]), when they may be
//! asked ([`breaker`]), and their self test ([`self_test`]).
//!
//! What an entry weighs is for `checks::dnsbl` to say.

pub mod asker;
pub mod breaker;
pub mod memory;
pub mod self_test;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use common::dns::ReplyMask;

use breaker::{Breaker, Change, Patience, Tested, Why};

/// One zone that is asked.
#[derive(Debug)]
pub struct List {
    /// What log, metrics, replies and the store call it: the zone may hold a customer's key.
    pub name: String,
    /// Where it is in DNS.
    pub zone: String,
    /// Answers by which it says that it does not answer.
    pub errors: Vec<ReplyMask>,
    /// The part of a name that must be listed, and the one that must not; empty for none.
    pub tests: (String, String),
    /// How patient we are with it.
    pub patience: Patience,
    breaker: Arc<Mutex<Breaker>>,
}

/// What an answer is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// A good answer; empty when the name is not listed.
    Good(Vec<Ipv4Addr>),
    /// One that no working list gives.
    Bad(Why),
}

impl List {
    /// A list that has not been tested yet.
    pub fn new(
        name: String,
        zone: String,
        errors: Vec<ReplyMask>,
        tests: (String, String),
        patience: Patience,
    ) -> Self {
        Self { name, zone, errors, tests, patience, breaker: Arc::default() }
    }

    /// The same list after a reload: it keeps its state, unless it is another zone now.
    #[must_use]
    pub fn continuing(mut self, before: &[Arc<Self>]) -> Self {
        let same = |list: &&Arc<Self>| {
            (&list.name, &list.zone, &list.tests, &list.errors) == (&self.name, &self.zone, &self.tests, &self.errors)
        };
        if let Some(same) = before.iter().find(same) {
            self.breaker = same.breaker.clone();
        }
        self
    }

    /// Why it is not asked now; none when it may be.
    pub fn aside(&self) -> Option<Why> {
        self.breaker().aside()
    }

    /// True when it is time for its self test.
    pub fn test_due(&self, now: Instant) -> bool {
        self.breaker().test_due(now)
    }

    /// What a good or bad answer says about the list itself. True when what was remembered of it should be forgotten.
    fn answered(&self, judged: &Judged, now: Instant) -> bool {
        let change = match judged {
            Judged::Good(_) => {
                self.breaker().answered();
                None
            }
            Judged::Bad(why) => self.breaker().misled(*why, now, self.patience),
        };
        self.tell(change)
    }

    fn failed(&self, now: Instant) {
        let change = self.breaker().failed(now, self.patience);
        self.tell(change);
    }

    fn tested(&self, result: Tested, now: Instant) -> bool {
        let change = self.breaker().tested(result, now, self.patience);
        self.tell(change)
    }

    /// Each change of state is one line in the log.
    fn tell(&self, change: Option<Change>) -> bool {
        let list = self.name.as_str();
        match change {
            None => return false,
            Some(Change::Ready) => tracing::info!(list, "a DNS list works and is asked"),
            Some(Change::Back) => tracing::warn!(list, "a DNS list works again and is asked"),
            Some(Change::Aside(why)) => {
                tracing::warn!(list, why = %why, "a DNS list is set aside; it counts for nothing until its self test is good")
            }
        }
        let up = if matches!(change, Some(Change::Aside(_))) { 0.0 } else { 1.0 };
        metrics::gauge!("octroi_policyd_dnslist_up", "list" => self.name.clone()).set(up);
        matches!(change, Some(Change::Aside(why)) if why.taints())
    }

    /// What an answer is worth. One record that says "no answer" spoils the others.
    pub fn judge(&self, records: Vec<Ipv4Addr>) -> Judged {
        if let Some(error) = records.iter().find(|record| self.errors.iter().any(|mask| mask.matches(**record))) {
            return Judged::Bad(Why::Blocked(*error));
        }
        match records.iter().find(|record| !record.is_loopback()) {
            Some(foreign) => Judged::Bad(Why::Foreign(*foreign)),
            None => Judged::Good(records),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // A panic of another thread leaves nothing half done here.
        self.breaker.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn list(name: &str, errors: &[&str]) -> List {
        let errors = errors.iter().map(|mask| mask.parse().unwrap()).collect();
        let patience = Patience { failures: 2, pause: Duration::from_secs(60), test_every: Duration::from_secs(60) };
        List::new(name.to_owned(), "bl.test".to_owned(), errors, (String::new(), String::new()), patience)
    }

    #[test]
    fn only_answers_of_a_list_are_good() {
        let list = list("bl", &["127.255.255.[0..255]", "127.0.0.1"]);
        let judged = |records: &[[u8; 4]]| list.judge(records.iter().map(|octets| Ipv4Addr::from(*octets)).collect());
        assert_eq!(judged(&[]), Judged::Good(Vec::new()));
        assert_eq!(judged(&[[127, 0, 0, 2]]), Judged::Good(vec![Ipv4Addr::new(127, 0, 0, 2)]));
        for (records, why) in [
            (&[[127, 255, 255, 254]][..], Why::Blocked(Ipv4Addr::new(127, 255, 255, 254))),
            (&[[127, 0, 0, 2], [127, 255, 255, 252]], Why::Blocked(Ipv4Addr::new(127, 255, 255, 252))),
            (&[[127, 0, 0, 1]], Why::Blocked(Ipv4Addr::LOCALHOST)),
            (&[[127, 0, 0, 2], [203, 0, 113, 5]], Why::Foreign(Ipv4Addr::new(203, 0, 113, 5))),
            (&[[0, 0, 0, 0]], Why::Foreign(Ipv4Addr::UNSPECIFIED)),
        ] {
            assert_eq!(judged(records), Judged::Bad(why), "{records:?}");
        }
    }

    #[test]
    fn a_list_keeps_its_state_over_a_reload_unless_it_is_another_one() {
        let before = [Arc::new(list("bl", &[]))];
        assert!(!before[0].tested(Tested::Good, Instant::now()));
        assert_eq!(list("bl", &[]).continuing(&before).aside(), None);
        assert_eq!(list("other", &[]).continuing(&before).aside(), Some(Why::Untested));
        assert_eq!(list("bl", &["127.0.0.1"]).continuing(&before).aside(), Some(Why::Untested));
    }
}
