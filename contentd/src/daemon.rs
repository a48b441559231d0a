// SPDX-License-Identifier: GPL-3.0-or-later
//! What all sessions share: the configuration in force, made ready for use, and the spool budget.
//!
//! A session takes the configuration once, at its start; a reload puts a new one in place for later sessions
//! and never changes the rules of a session that is open. A configuration that is wrong changes nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use common::config::{Mistake, Mistakes};
use common::handover::Secret;
use common::net::Stream;
use ipnet::IpNet;

use crate::admission::Admission;
use crate::config::Settings;
use crate::ledger::Ledger;
use crate::pipeline::{Pipeline, rules_mistake};
use crate::quarantine::Quarantine;
use crate::reinject::Target;
use crate::smtp::partings::Partings;
use crate::spam::account::Account;
use crate::spam::set::Rules;
use crate::spool::Budget;
use crate::store::Access;
use crate::unpack::helper::Helpers;
use crate::verdict::Policy;
use crate::witness::Witness;

/// One configuration, ready for use.
#[derive(Debug)]
pub struct Running {
    /// As read.
    pub settings: Settings,
    /// The stages that look at a message.
    pub pipeline: Pipeline,
    /// What follows from findings.
    pub policy: Policy,
    /// The next hop.
    pub target: Target,
    /// Where messages go that are to be held.
    pub hold: Target,
    /// By which policyd's notes are known; none when nothing is handed over.
    pub secret: Option<Secret>,
    networks: Vec<IpNet>,
    spamd_networks: Vec<IpNet>,
}

impl Running {
    fn new(settings: Settings, helpers: Option<Arc<Helpers>>, rules: Arc<Rules>) -> Result<Running, Mistakes> {
        Ok(Running {
            pipeline: Pipeline::with_rules(&settings, rules)?.with_helpers(helpers),
            policy: settings.policy(),
            target: settings.contentd.target(),
            hold: settings.contentd.target_on_hold(&settings.handover.hold),
            secret: settings.handover.secret().map_err(secret_mistake)?,
            networks: settings.contentd.networks(),
            spamd_networks: settings.spamd.networks(),
            settings,
        })
    }

    /// Whether this client may bring mail. UNIX sockets have file permissions for that.
    pub(crate) fn allows(&self, stream: &Stream) -> bool {
        is_within(stream, &self.networks)
    }

    /// Whether this client may ask as one of spamd.
    pub(crate) fn allows_spamd(&self, stream: &Stream) -> bool {
        is_within(stream, &self.spamd_networks)
    }
}

fn is_within(stream: &Stream, networks: &[IpNet]) -> bool {
    match stream {
        Stream::Unix(_) => true,
        Stream::Tcp(_) => stream.peer_ip().is_some_and(|ip| networks.iter().any(|network| network.contains(&ip))),
    }
}

fn secret_mistake(message: String) -> Mistakes {
    Mistake { origin: "configuration".to_owned(), key: "handover.secret_file".to_owned(), message }.into()
}

/// The daemon's shared state.
#[derive(Debug)]
pub struct Daemon {
    running: ArcSwap<Running>,
    pub(crate) budget: Arc<Budget>,
    /// The way to the store.
    pub store: Arc<Access>,
    /// The quarantine of this host.
    pub quarantine: Arc<Quarantine>,
    /// What must not be delivered, or inspected, again.
    pub ledger: Arc<Ledger>,
    /// The spam rules in force.
    pub rules: Arc<Rules>,
    /// What the spam rules have done.
    pub account: Arc<Account>,
    /// Who takes apart what is risky, where there are helpers.
    pub helpers: Option<Arc<Helpers>>,
    /// The witness, where there is one.
    pub witness: Arc<Witness>,
    /// Messages that were inspected in time.
    pub(crate) inspected: AtomicU64,
    /// Who may begin a message.
    pub(crate) admission: Admission,
    /// How clients leave.
    pub(crate) partings: Partings,
}

impl Daemon {
    /// Makes everything ready, all decoders in this process. Errors: what a stage finds wrong with its settings.
    pub fn new(settings: Settings) -> Result<Arc<Daemon>, Mistakes> {
        Daemon::with_helpers(settings, None)
    }

    /// The same with helpers.
    pub fn with_helpers(settings: Settings, helpers: Option<Arc<Helpers>>) -> Result<Arc<Daemon>, Mistakes> {
        let budget = Budget::new(settings.contentd.spool_total.0);
        let store = Access::new(&settings.store);
        let quarantine = Quarantine::new(store.clone());
        let (ledger, witness) = (Ledger::new(store.clone()), Arc::new(Witness::default()));
        let account = Account::new(store.clone());
        let inspected = AtomicU64::new(0);
        let rules = Rules::load(&settings.spam).map_err(rules_mistake)?;
        let running = ArcSwap::from_pointee(Running::new(settings, helpers.clone(), Arc::clone(&rules))?);
        Ok(Arc::new(Daemon {
            running,
            budget,
            store,
            quarantine,
            ledger,
            rules,
            account,
            helpers,
            witness,
            inspected,
            admission: Admission::new(),
            partings: Partings::default(),
        }))
    }

    /// The configuration in force.
    pub fn running(&self) -> Arc<Running> {
        self.running.load_full()
    }

    /// Puts a new configuration in force for the sessions to come. Returns the changed keys that take effect
    /// only at a restart. Blocks while it loads the spam rules: about a second.
    pub fn replace(&self, settings: Settings) -> Result<Vec<&'static str>, Mistakes> {
        let old = self.running();
        let (now, next) = (&old.settings.contentd, &settings.contentd);
        let changed = [
            ("contentd.listen", now.listen != next.listen),
            ("contentd.socket_mode", now.socket_mode != next.socket_mode),
            ("contentd.socket_group", now.socket_group != next.socket_group),
            ("contentd.http", now.http != next.http),
            ("contentd.max_sessions", now.max_sessions != next.max_sessions),
            ("contentd.drain", now.drain != next.drain),
            ("spamd.listen", old.settings.spamd.listen != settings.spamd.listen),
            ("spamd.socket_mode", old.settings.spamd.socket_mode != settings.spamd.socket_mode),
            ("spamd.socket_group", old.settings.spamd.socket_group != settings.spamd.socket_group),
            ("spamd.max_requests", old.settings.spamd.max_requests != settings.spamd.max_requests),
            ("log", old.settings.log != settings.log),
            ("store", old.settings.store != settings.store),
            ("ledger.directory", old.settings.ledger.directory != settings.ledger.directory),
        ];
        let total = next.spool_total.0;
        let unpack = settings.unpack.clone();
        // Where other rules are configured, or others of them run, a mistake in them is one of the configuration. Otherwise the last good ones stay, and the
        // rest of the configuration is not held up.
        let (before, after) = (&old.settings.spam, &settings.spam);
        let others = (&before.rules, before.network) != (&after.rules, after.network);
        let rules = if others { Some(self.rules.read(&settings.spam).map_err(rules_mistake)?) } else { None };
        let spam = settings.spam.clone();
        self.running.store(Arc::new(Running::new(settings, self.helpers.clone(), Arc::clone(&self.rules))?));
        match rules {
            Some(rules) => self.rules.put(rules),
            // Logged and counted there.
            None if !spam.rules.is_empty() => drop(self.rules.reload(&spam)),
            None => {}
        }
        if let Some(helpers) = &self.helpers {
            helpers.configure(&unpack);
        }
        self.budget.set_limit(total);
        Ok(changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect())
    }
}
