// SPDX-License-Identifier: GPL-3.0-or-later
//! What the perimeter checks work with: [`Plan`], the settings made ready, part of the policy in force; [`Perimeter`], what is remembered over
//! requests; and [`Found`], what was looked up for one client, HELO and sender, so that ten recipients cost no more than one.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::config::{Mistake, Mistakes};
use common::dns::Resolver;
use common::mail;
use common::spf::SpfResult;
use tokio::sync::OnceCell;

use crate::around::Around;
use crate::checks::dnsbl::{Listings, Lists};
use crate::checks::geo::GeoDb;
use crate::checks::helo::{self, Helo, Helos};
use crate::checks::pool;
use crate::checks::sender_mx::{self, SenderDomain};
use crate::checks::spf_policy::{self, Spf};
use crate::config::{Effect, PerimeterSettings};
use crate::course::Course;
use crate::dnslist::asker::Asker;
use crate::dnslist::memory::Memory;
use crate::refusal::RefusalText;
use crate::request::{PolicyRequest, ProtocolState};

/// How long what was looked up is used for the same client, HELO and sender, and for how long when something gave no answer.
const KEPT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));
/// Messages remembered per generation.
const GENERATION: usize = 4096;

/// The settings of the perimeter made ready.
#[derive(Debug)]
pub struct Plan {
    /// The DNS lists.
    pub lists: Lists,
    /// Where clients are.
    pub geo: GeoDb,
    /// Text of a refusal.
    pub text: RefusalText,
    idle: bool,
    /// Differs from one configuration to the next: what was found under one is not used under another.
    serial: u64,
}

impl Plan {
    /// Makes settings ready. Errors: a database of countries that cannot be read, the text of settings that were made by hand.
    pub fn new(settings: &PerimeterSettings) -> Result<Self, Mistakes> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let mistake = |message| Mistake { origin: "settings".to_owned(), key: "perimeter.text".to_owned(), message };
        Ok(Self {
            lists: Lists::new(settings, &[]),
            geo: GeoDb::load(&settings.geo)?,
            idle: is_idle(settings),
            text: RefusalText::new(&settings.text).map_err(mistake)?,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Takes over the state of lists that were asked before a reload.
    pub fn continuing(&mut self, settings: &PerimeterSettings, before: &Self) {
        self.lists = Lists::new(settings, &before.lists.all);
    }

    /// True when nothing leads to anything.
    pub fn is_idle(&self) -> bool {
        self.idle
    }
}

fn is_idle(settings: &PerimeterSettings) -> bool {
    let PerimeterSettings { helo, reverse_name, geo, .. } = settings;
    let signs = [
        helo.own,
        helo.literal,
        helo.invalid,
        helo.unqualified,
        helo.unresolvable,
        helo.random,
        reverse_name.none,
        reverse_name.unmatched,
        reverse_name.dynamic,
    ];
    settings.dnsbl.is_empty()
        && settings.dnswl.is_empty()
        && settings.rhsbl.is_empty()
        && signs.iter().chain(geo.countries.values()).chain(geo.asns.values()).all(|effect| *effect == Effect::NONE)
        && !sender_mx::is_wanted(&settings.sender)
        && settings.spf.is_idle()
}

/// What is remembered over requests.
#[derive(Debug)]
pub struct Perimeter {
    /// Asks the DNS lists.
    pub asker: Asker,
    /// By which names clients call themselves.
    pub helos: Helos,
    found: Memory<Arc<Found>>,
}

impl Perimeter {
    /// Remembers nothing yet.
    pub fn new(asker: Asker) -> Self {
        Self { asker, helos: Helos::default(), found: Memory::new(GENERATION) }
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
    helo: OnceCell<Option<bool>>,
    sender: OnceCell<Option<Arc<SenderDomain>>>,
    spf: OnceCell<Option<Spf>>,
}

impl Found {
    fn new(born: Instant) -> Self {
        Self {
            born,
            incomplete: AtomicBool::new(false),
            client: OnceCell::new(),
            domains: OnceCell::new(),
            helo: OnceCell::new(),
            sender: OnceCell::new(),
            spf: OnceCell::new(),
        }
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

impl Scope<'_> {
    /// Whom to ask; none when nobody is to be asked.
    fn resolver(&self) -> Option<&Resolver> {
        self.perimeter.asker.resolver().filter(|_| !self.remembered)
    }
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

/// Whether DNS knows what the client calls itself. None when that does not matter, or cannot be told.
pub async fn helo_in_dns(around: Around<'_>, request: &PolicyRequest<'_>, scope: &Scope<'_>) -> Option<bool> {
    let settings = &around.policy.settings.perimeter.helo;
    let asked = settings.unresolvable != Effect::NONE
        && request.state != ProtocolState::Connect
        && helo::kind(settings, around.host, request) == Helo::Qualified;
    let resolver = scope.resolver().filter(|_| asked)?;
    let look_up = async || {
        let answer = tokio::time::timeout_at(scope.until, helo::is_in_dns(resolver, &request.helo_name)).await;
        let known = answer.ok().and_then(Result::ok);
        if known.is_none() {
            scope.found.lacks_an_answer();
        }
        known
    };
    *scope.found.helo.get_or_init(look_up).await
}

/// What DNS says of the sender's domain. None when that does not matter, or cannot be told.
pub async fn sender_domain(
    around: Around<'_>,
    request: &PolicyRequest<'_>,
    scope: &Scope<'_>,
) -> Option<Arc<SenderDomain>> {
    let settings = &around.policy.settings.perimeter.sender;
    let domain = mail::split(&request.sender).1;
    let asked = request.state.has_sender() && !domain.is_empty() && sender_mx::is_wanted(settings);
    let resolver = scope.resolver().filter(|_| asked)?;
    let look_up = async || {
        let found = tokio::time::timeout_at(scope.until, sender_mx::look_up(resolver, settings, domain)).await.ok();
        if found.as_ref().is_none_or(|found| found.incomplete) {
            scope.found.lacks_an_answer();
        }
        found.map(Arc::new)
    };
    scope.found.sender.get_or_init(look_up).await.clone()
}

/// What SPF says. None when that does not matter, or there is nothing to ask about.
pub async fn spf(around: Around<'_>, request: &PolicyRequest<'_>, scope: &Scope<'_>) -> Option<Spf> {
    let settings = &around.policy.settings.perimeter.spf;
    if scope.remembered || !spf_policy::concerns(settings, request) {
        return None;
    }
    let look_up = async || {
        let found = spf_policy::evaluate(around.pools, settings, request, around.host, scope.until).await;
        if found.as_ref().is_some_and(|spf| spf.outcome.result == SpfResult::Temperror) {
            scope.found.lacks_an_answer();
        }
        found
    };
    scope.found.spf.get_or_init(look_up).await.clone()
}
