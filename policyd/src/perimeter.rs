// SPDX-License-Identifier: GPL-3.0-or-later
//! What the perimeter checks work with: [`Plan`], the settings made ready, part of the policy in force; [`Perimeter`], what is remembered over
//! requests; and [`Found`], what was looked up for one client, HELO and sender, so that ten recipients cost no more than one.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::config::{Mistake, Mistakes};
use tokio::sync::OnceCell;

use crate::around::Around;
use crate::checks::dnsbl::{Listings, Lists};
use crate::checks::pool;
use crate::config::PerimeterSettings;
use crate::course::Course;
use crate::dnslist::List;
use crate::dnslist::asker::Asker;
use crate::dnslist::memory::Memory;
use crate::refusal::RefusalText;
use crate::request::PolicyRequest;

/// How long what was looked up is used for the same client, HELO and sender, and for how long when something gave no answer.
const KEPT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));
/// Messages remembered per generation.
const GENERATION: usize = 4096;

/// The settings of the perimeter made ready.
#[derive(Debug)]
pub struct Plan {
    /// The DNS lists.
    pub lists: Lists,
    /// Text of a refusal.
    pub text: RefusalText,
    /// Differs from one configuration to the next: what was found under one is not used under another.
    serial: u64,
}

impl Plan {
    /// Makes settings ready; lists that were asked `before` keep their state. Error: the text of settings that were made by hand.
    pub fn new(settings: &PerimeterSettings, before: &[Arc<List>]) -> Result<Self, Mistakes> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let mistake = |message| Mistake { origin: "settings".to_owned(), key: "perimeter.text".to_owned(), message };
        Ok(Self {
            lists: Lists::new(settings, before),
            text: RefusalText::new(&settings.text).map_err(mistake)?,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// True when nothing weighs anything.
    pub fn is_idle(&self) -> bool {
        self.lists.all.is_empty()
    }
}

/// What is remembered over requests.
#[derive(Debug)]
pub struct Perimeter {
    /// Asks the DNS lists.
    pub asker: Asker,
    found: Memory<Arc<Found>>,
}

impl Perimeter {
    /// Remembers nothing yet.
    pub fn new(asker: Asker) -> Self {
        Self { asker, found: Memory::new(GENERATION) }
    }

    /// What has been found for a key, or room for it.
    fn found(&self, key: impl Hash) -> Arc<Found> {
        let now = Instant::now();
        let known = self.found.get(&key, now).filter(|found| !found.is_stale(now));
        known.unwrap_or_else(|| {
            let found = Arc::new(Found::new(now));
            self.found.put(&key, found.clone(), now + KEPT.0);
            found
        })
    }
}

/// What was looked up for one client, HELO and sender. Each is looked up by whoever needs it first; who needs it meanwhile waits for the
/// same answer.
#[derive(Debug)]
pub struct Found {
    born: Instant,
    incomplete: AtomicBool,
    /// Lists that have the client's address.
    pub client: OnceCell<Arc<Listings>>,
    /// Lists that have one of its names.
    pub domains: OnceCell<Arc<Listings>>,
}

impl Found {
    fn new(born: Instant) -> Self {
        Self { born, incomplete: AtomicBool::new(false), client: OnceCell::new(), domains: OnceCell::new() }
    }

    /// Something gave no answer: it is asked again soon.
    pub fn lacks_an_answer(&self) {
        self.incomplete.store(true, Ordering::Relaxed);
    }

    fn is_stale(&self, now: Instant) -> bool {
        self.incomplete.load(Ordering::Relaxed) && now.duration_since(self.born) >= KEPT.1
    }
}

/// What look-ups of one request share.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    /// Who asks.
    pub perimeter: &'a Perimeter,
    /// What has been found.
    pub found: Arc<Found>,
    /// DNS is not asked.
    pub remembered: bool,
    /// When look-ups must be through.
    pub until: tokio::time::Instant,
}

/// What look-ups of this request share. None where nothing can be asked.
pub fn scope<'a>(around: Around<'a>, request: &PolicyRequest<'_>, course: &mut Course) -> Option<Scope<'a>> {
    let perimeter = around.perimeter?;
    let found = course.facts.perimeter.get_or_insert_with(|| {
        perimeter.found((
            around.policy.perimeter.serial,
            request.client_address,
            request.client_name.as_deref(),
            request.reverse_client_name.as_deref(),
            &*request.helo_name,
            &*request.sender,
            request.state.has_sender(),
        ))
    });
    let remembered = request.stress && !around.policy.settings.perimeter.lookups_under_stress;
    Some(Scope { perimeter, found: found.clone(), remembered, until: pool::part(around.deadline) })
}
