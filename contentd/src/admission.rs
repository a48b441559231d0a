// SPDX-License-Identifier: GPL-3.0-or-later
//! Who may begin a message: a budget of messages, of bytes and of memory, looked at when MAIL comes. What does not fit is told to come again
//! before anything of it has been taken in, and before the machine swaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};

use crate::config::ContentdSettings;
use crate::smtp::reply::Reply;
use crate::spool::{Budget, Share};

/// How long a look at our memory is good for.
const LOOK: Duration = Duration::from_millis(100);
/// What a message takes whose size is not declared, in bytes: its room is looked for as it comes.
const UNDECLARED: u64 = 1;
/// A mere claim (SIZE=) reserves at most this part of all the room.
const LARGEST_CLAIM: u64 = 20;

/// Why a message may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are too many.
    Messages,
    /// The spool has no room.
    Bytes,
    /// We use too much memory.
    Memory,
}

impl Refusal {
    /// The word for it in metrics and the log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Refusal::Messages => "messages",
            Refusal::Bytes => "bytes",
            Refusal::Memory => "memory",
        }
    }

    /// What the client is told.
    pub(crate) fn reply(self) -> Reply {
        match self {
            Refusal::Bytes => Reply::new(452, "4.3.1", "Insufficient system storage, try again later"),
            Refusal::Messages | Refusal::Memory => Reply::new(452, "4.3.2", "Too much mail at once, try again later"),
        }
    }
}

/// The budgets, shared by all sessions.
#[derive(Debug)]
pub(crate) struct Admission {
    messages: Arc<AtomicUsize>,
    started: Instant,
    /// When memory was looked at, in milliseconds since `started`, and what it was.
    looked: AtomicU64,
    memory: AtomicU64,
}

/// A message that has begun; its room is given back when this goes.
#[derive(Debug)]
pub(crate) struct Admitted {
    messages: Arc<AtomicUsize>,
    /// Reserved in the spool; none when it has been handed to the spool.
    share: Option<Share>,
}

impl Admitted {
    /// The room in the spool.
    pub(crate) fn take_share(&mut self) -> Option<Share> {
        self.share.take()
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let before = self.messages.fetch_sub(1, Ordering::Relaxed);
        gauge!("octroi_contentd_messages_now").set(before.saturating_sub(1) as f64);
    }
}

impl Admission {
    pub(crate) fn new() -> Admission {
        let (messages, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        Admission { messages, started, looked: AtomicU64::new(0), memory: AtomicU64::new(0) }
    }

    /// Lets a message begin that claims to have `size` bytes, or says why not.
    pub(crate) fn admit(
        &self,
        settings: &ContentdSettings,
        budget: &Arc<Budget>,
        size: Option<u64>,
    ) -> Result<Admitted, Refusal> {
        let admitted = self.try_admit(settings, budget, size);
        if let Err(refusal) = admitted {
            counter!("octroi_contentd_overload_total", "why" => refusal.word()).increment(1);
        }
        admitted
    }

    fn try_admit(
        &self,
        settings: &ContentdSettings,
        budget: &Arc<Budget>,
        size: Option<u64>,
    ) -> Result<Admitted, Refusal> {
        let limit = settings.max_memory.0;
        if limit > 0 && self.memory() > limit {
            return Err(Refusal::Memory);
        }
        let fits = |now: usize| (now < settings.max_messages).then_some(now + 1);
        let before = self.messages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        let before = before.map_err(|_| Refusal::Messages)?;
        gauge!("octroi_contentd_messages_now").set((before + 1) as f64);
        // From here on the count is given back, whatever happens.
        let mut admitted = Admitted { messages: self.messages.clone(), share: None };
        let claim = size.unwrap_or(UNDECLARED);
        if !budget.has_room(claim) {
            return Err(Refusal::Bytes);
        }
        let reserved = claim.min(settings.spool_total.0 / LARGEST_CLAIM);
        admitted.share = Some(budget.reserve(reserved).map_err(|_| Refusal::Bytes)?);
        Ok(admitted)
    }

    /// Our memory, in bytes, as it was a moment ago.
    fn memory(&self) -> u64 {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let looked = self.looked.load(Ordering::Relaxed);
        if looked == 0 || now.saturating_sub(looked) >= LOOK.as_millis() as u64 {
            self.looked.store(now, Ordering::Relaxed);
            // proc(5) without it: then there is no such limit.
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
            self.memory.store(resident(&statm, rustix::param::page_size() as u64).unwrap_or(0), Ordering::Relaxed);
        }
        self.memory.load(Ordering::Relaxed)
    }
}

/// The resident bytes in a line of proc(5) statm.
fn resident(statm: &str, page: u64) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::units::Size;

    fn settings() -> ContentdSettings {
        ContentdSettings { max_messages: 2, spool_total: Size(1_000_000), ..ContentdSettings::default() }
    }

    #[test]
    fn each_budget_is_kept_and_given_back() {
        let (admission, budget) = (Admission::new(), Budget::new(1_000_000));
        let admit = |size| admission.admit(&settings(), &budget, size);
        let first = admit(None).unwrap();
        let second = admit(Some(900_000)).unwrap();
        assert_eq!(budget.used(), 1 + 50_000, "a claim holds a part only");
        assert_eq!(admit(None).unwrap_err(), Refusal::Messages);
        drop(second);
        assert_eq!(admit(Some(1_000_000)).unwrap_err(), Refusal::Bytes);
        drop(first);
        assert_eq!((budget.used(), admission.messages.load(Ordering::Relaxed)), (0, 0));
        let hungry = ContentdSettings { max_memory: Size(1), ..settings() };
        assert_eq!(admission.admit(&hungry, &budget, None).unwrap_err(), Refusal::Memory);
        let unlimited = ContentdSettings { max_memory: Size(0), ..settings() };
        assert!(admission.admit(&unlimited, &budget, None).is_ok());
    }

    #[test]
    fn resident_memory_is_the_second_number() {
        assert_eq!(resident("1000 20 3 4 0 5 0\n", 4096), Some(81_920));
        assert_eq!(resident("", 4096), None);
        assert_eq!(resident("1 x", 4096), None);
    }
}
