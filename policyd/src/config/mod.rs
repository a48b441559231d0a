// SPDX-License-Identifier: GPL-3.0-or-later
//! The sections of the configuration that policyd reads, one file each, and the common `[store]`, `[log]` and `[dns]`.
//!
//! Reading checks everything that can be checked without opening a socket, a list file or the store, and gives all mistakes at once.

mod access;
mod decision_log;
mod delays;
mod greylist;
mod limit;
mod list;
mod notify;
mod perimeter;
mod policyd;
pub mod recipients;
mod rule;
mod shield;
mod signs;

use std::collections::BTreeMap;

use common::config::{Listed, Mistakes, Source};
use common::dns::DnsSettings;
use common::handover::HandoverSettings;
use common::record::LogSettings;
use common::store::StoreSettings;

pub use access::AccessSettings;
pub use decision_log::DecisionLogSettings;
pub use delays::{DelayRule, Recipients};
pub use greylist::{GreylistAction, GreylistMode, GreylistSettings, TrustLevel};
pub use limit::{Amount, LimitSettings, LimitsSettings, OverAction, Reply};
pub use list::ListSettings;
pub use notify::NotifySettings;
pub use perimeter::{AddressList, DomainList, MAX_WEIGHT, NamedBy, PerimeterSettings, shown};
pub use policyd::{OnStoreError, OrdersBy, PolicydSettings};
pub use rule::RuleSettings;
pub use shield::{ShieldRate, ShieldSettings};
pub use signs::{
    Effect, GeoSettings, HeloSettings, ReverseNameSettings, SenderSettings, SpfHeader, SpfIdentity, SpfSettings,
};

pub use recipients::{DirectorySettings, ProtectedSettings, RecipientsSettings};

use crate::limits::key::Basis;
use crate::rules::{LimitName, Names, OrdersTo, Rules};

/// Everything that policyd reads from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `[store]`.
    pub store: StoreSettings,
    /// `[log]`.
    pub log: LogSettings,
    /// `[dns]`.
    pub dns: DnsSettings,
    /// `[policyd]`.
    pub policyd: PolicydSettings,
    /// `[greylist]`.
    pub greylist: GreylistSettings,
    /// `[access]`.
    pub access: AccessSettings,
    /// Every `[list.NAME]`, by name.
    pub lists: BTreeMap<String, ListSettings>,
    /// `[perimeter]`.
    pub perimeter: PerimeterSettings,
    /// `[[rule]]`, in their order.
    pub rules: Vec<Listed<RuleSettings>>,
    /// `[decision_log]`.
    pub decision_log: DecisionLogSettings,
    /// `[handover]`.
    pub handover: HandoverSettings,
    /// `[limits]`.
    pub limits: LimitsSettings,
    /// Every `[[limit]]`.
    pub limit: Vec<LimitSettings>,
    /// `[recipients]`.
    pub recipients: RecipientsSettings,
    /// All `[[directory]]`.
    pub directories: Vec<DirectorySettings>,
    /// All `[[protected]]`, with the place of each.
    pub protected: Vec<(String, ProtectedSettings)>,
    /// `[notify]`.
    pub notify: NotifySettings,
}

impl Settings {
    /// Takes the sections out of the layers and checks them.
    pub fn read(source: &Source) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let mut settings = Self {
            store: StoreSettings::read(source, &mut mistakes),
            log: source.section("log", &mut mistakes),
            dns: DnsSettings::read(source, &mut mistakes),
            policyd: source.section("policyd", &mut mistakes),
            greylist: source.section("greylist", &mut mistakes),
            access: source.section("access", &mut mistakes),
            lists: list::read(source, &mut mistakes),
            perimeter: PerimeterSettings::read(source, &mut mistakes),
            rules: source.list("rule", &mut mistakes),
            decision_log: source.section("decision_log", &mut mistakes),
            handover: HandoverSettings::read(source, &mut mistakes),
            limits: source.section("limits", &mut mistakes),
            limit: Vec::new(),
            recipients: source.section("recipients", &mut mistakes),
            directories: recipients::directories(source.list("directory", &mut mistakes), &mut mistakes),
            protected: recipients::protected(source.list("protected", &mut mistakes), &mut mistakes),
            notify: source.section("notify", &mut mistakes),
        };
        if let Err(message) = settings.log.check() {
            mistakes.push(source.mistake("log.level", message));
        }
        settings.policyd.check(source, &mut mistakes);
        settings.policyd.shield.check(source, &mut mistakes);
        if settings.policyd.orders == OrdersBy::Postfix && settings.handover.results {
            let message = "results go to contentd, which policyd.orders = \"postfix\" says is not there";
            mistakes.push(source.mistake("handover.results", message));
        }
        settings.greylist.check(source, &mut mistakes);
        settings.limits.check(source, &mut mistakes);
        settings.notify.check(source, &mut mistakes);
        settings.limit = limit::read(source, settings.key_basis(), &mut mistakes);
        // Rules name limits and lists.
        if let Err(wrong) = Rules::compile(&settings.rules, &settings.names(), false) {
            mistakes.extend(wrong);
        }
        settings.recipients.check(source, &settings, &mut mistakes);
        mistakes.into_result(settings)
    }

    /// What keys of limits can be made of besides the request.
    pub fn key_basis(&self) -> Basis {
        let geo = &self.perimeter.geo;
        Basis {
            network: (self.greylist.ipv4_prefix, self.greylist.ipv6_prefix),
            countries: !geo.country_db.as_os_str().is_empty(),
            asns: !geo.asn_db.as_os_str().is_empty(),
        }
    }

    /// Who carries out orders.
    pub fn orders_to(&self) -> OrdersTo {
        match self.policyd.orders {
            OrdersBy::Postfix => OrdersTo::Postfix,
            OrdersBy::Header if self.handover.is_on() => OrdersTo::Contentd,
            OrdersBy::Header => OrdersTo::Nobody,
        }
    }

    /// What rules can name.
    pub fn names(&self) -> Names<'_> {
        let perimeter = &self.perimeter;
        let clients = perimeter.dnsbl.iter().chain(&perimeter.dnswl).map(|list| shown(&list.name, &list.zone));
        let domains = perimeter.rhsbl.iter().map(|list| shown(&list.name, &list.zone));
        Names {
            dns_lists: clients.chain(domains).collect(),
            limits: self.limit.iter().map(LimitName::of).collect(),
            lists: self.lists.iter().map(|(name, list)| (name.as_str(), list)).collect(),
            trust: self.greylist.trust_after > 0 && !self.greylist.trust.is_empty(),
            countries: self.key_basis().countries,
            asns: self.key_basis().asns,
            orders: self.orders_to(),
        }
    }

    /// The keys of `new` that differ from ours but take effect only at the next start.
    pub fn unreloadable(&self, new: &Self) -> Vec<&'static str> {
        let (old, now) = (&self.policyd, &new.policyd);
        [
            ("policyd.listen", old.listen != now.listen),
            ("policyd.socket_mode", old.socket_mode != now.socket_mode),
            ("policyd.socket_group", old.socket_group != now.socket_group),
            ("policyd.http", old.http != now.http),
            ("policyd.max_connections", old.max_connections != now.max_connections),
            ("policyd.drain", old.drain != now.drain),
            ("policyd.journal", old.journal != now.journal),
            ("policyd.journal_size", old.journal_size != now.journal_size),
            ("greylist.durable", self.greylist.durable != new.greylist.durable),
            ("recipients.remember", self.recipients.remember != new.recipients.remember),
            ("recipients.file", self.recipients.file != new.recipients.file),
            ("store", self.store != new.store),
            ("log", self.log != new.log),
            ("dns", self.dns != new.dns),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

/// True for a domain name of two labels or more.
pub(crate) fn is_zone(zone: &str) -> bool {
    let good =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    zone.len() <= 180 && zone.contains('.') && zone.split('.').all(good)
}

/// True when an item is there twice.
pub(crate) fn repeats<T: PartialEq>(list: &[T]) -> bool {
    list.iter().enumerate().any(|(at, item)| list[..at].contains(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, Mistakes> {
        Settings::read(&Source::from_text("octroi.toml", text).unwrap())
    }

    #[test]
    fn nothing_configured_is_the_defaults() {
        let settings = read("").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.policyd.listen[0].to_string(), "127.0.0.1:10023");
        assert_eq!(settings.policyd.socket_options().mode, Some(0o660));
    }

    #[test]
    fn keys_are_read() {
        let settings = read(
            "[policyd]\nlisten = ['unix:/run/p.sock']\nhttp = ''\nbudget = '500ms'\non_store_error = 'defer'\n\
             [greylist]\nmode = 'strict'\ndelay = '90s'\naction = 'defer'\nheader = ''\n[access]\nclient_whitelist = ['/a', '/b']\n",
        )
        .unwrap();
        assert_eq!(settings.policyd.http_address(), None);
        assert_eq!(settings.policyd.on_store_error, OnStoreError::Defer);
        assert_eq!((settings.greylist.mode, settings.greylist.action), (GreylistMode::Strict, GreylistAction::Defer));
        assert_eq!(settings.access.client_whitelist.len(), 2);
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_key() {
        for (text, told) in [
            ("[policyd]\nlisten = []", "octroi.toml:2: policyd.listen: needs"),
            ("[policyd]\nsocket_mode = '0999'", "octroi.toml:2: policyd.socket_mode: "),
            ("[policyd]\nhttp = 'unix:/x'", "octroi.toml:2: policyd.http: "),
            ("[policyd]\nhttp = 'x'", "octroi.toml:2: policyd.http: "),
            ("[policyd]\nmax_connections = 0", "octroi.toml:2: policyd.max_connections: "),
            ("[policyd]\nidle_timeout = '300s'", "octroi.toml:2: policyd.idle_timeout: "),
            ("[policyd]\nidle_timeout = 1100", "octroi.toml:2: policyd.idle_timeout: "),
            ("[policyd]\nbudget = '2m'", "octroi.toml:2: policyd.budget: "),
            ("[policyd]\nrequest_timeout = '0s'", "octroi.toml:2: policyd.request_timeout: "),
            ("[policyd]\non_store_error = 'ok'", "octroi.toml:2: policyd.on_store_error: "),
            ("[policyd.shield]\nrate = '5/day'", "octroi.toml:2: policyd.shield.rate: "),
            ("[policyd.shield]\naction = 'reject 5.7.1 x'", "octroi.toml:2: policyd.shield.action: a shield"),
            ("[greylist]\nmode = 'on'", "octroi.toml:2: greylist.mode: "),
            ("[greylist]\ndelay = '1d'\nretry_window = '1h'", "octroi.toml:3: greylist.retry_window: "),
            ("[greylist]\nretry_window_known = '1d'", "octroi.toml:2: greylist.retry_window_known: "),
            ("[greylist]\ndelays = [{ recipients = ['a..b'], delay = '1m' }]", "octroi.toml:2: greylist.delays: "),
            ("[greylist]\ndelays = [{ recipients = [], delay = '1m' }]", "octroi.toml:2: greylist.delays: "),
            ("[greylist]\ndelays = [{ recipients = ['x.test'], delay = '9d' }]", "octroi.toml:2: greylist.delays: "),
            ("[greylist]\ntrap_never = 50", "octroi.toml:2: greylist.trap_never: "),
            ("[greylist]\ntrap_never_percent = 0", "octroi.toml:2: greylist.trap_never_percent: "),
            ("[greylist]\ntrust_never_percent = 101", "octroi.toml:2: greylist.trust_never_percent: "),
            ("[greylist]\ntrap_never = 5\nnever_after = '1m'", "octroi.toml:3: greylist.never_after: "),
            ("[greylist]\ntrap_never = 5\nnever_period = '4d'", "octroi.toml:3: greylist.never_period: "),
            ("[greylist]\nkey = ['smart', 'network']", "octroi.toml:2: greylist.key: "),
            (
                "[greylist]\ntrust_after = 0\n[greylist.signs]\nnew_network = 1",
                "octroi.toml:4: greylist.signs.new_network: ",
            ),
            ("[greylist]\ndelay = '0s'", "octroi.toml:2: greylist.delay: "),
            ("[greylist]\nkeep_passed = '1s'", "octroi.toml:2: greylist.keep_passed: "),
            ("[greylist]\nipv4_prefix = 33", "octroi.toml:2: greylist.ipv4_prefix: "),
            ("[greylist]\nipv6_prefix = 300", "octroi.toml:2: greylist.ipv6_prefix: "),
            ("[greylist]\ntext = 'come back'", "octroi.toml:2: greylist.text: "),
            ("[greylist]\ntext = '4.7.1 {when}'", "octroi.toml:2: greylist.text: "),
            ("[greylist]\nheader = 'no colon'", "octroi.toml:2: greylist.header: "),
            ("[greylist]\ntrust_after = -1", "octroi.toml:2: greylist.trust_after: "),
            ("[greylist]\nthreshold = 0", "octroi.toml:2: greylist.threshold: "),
            ("[greylist]\nthreshold = 7", "octroi.toml:2: greylist.threshold: "),
            ("[greylist.signs]\nodd_helo = 'x'", "octroi.toml:2: greylist.signs.odd_helo: "),
            ("[greylist]\nkey = ['spf']", "octroi.toml:2: greylist.key: "),
            ("[greylist]\nkey = ['spf', 'spf', 'network']", "octroi.toml:2: greylist.key: "),
            ("[greylist]\nkey = ['host']", "octroi.toml:2: greylist.key: "),
            ("[greylist]\nnormalize = ['all']", "octroi.toml:2: greylist.normalize: "),
            ("[greylist]\ntrust = ['spf', 'spf']", "octroi.toml:2: greylist.trust: "),
            ("[greylist]\ntrust = ['network', 'network_domain']", "octroi.toml:2: greylist.trust: "),
            ("[greylist]\ndnswl = [{ zone = 'x' }]", "octroi.toml:2: greylist.dnswl: "),
            ("[greylist]\ndnswl = [{ zone = 'wl.test', level = 1 }]", "octroi.toml:2: greylist.dnswl"),
            ("[greylist]\ntrap_time = '0s'", "octroi.toml:2: greylist.trap_time: "),
            ("[greylist]\nremember_recipients = 30", "octroi.toml:2: greylist.remember_recipients: "),
            ("[greylist]\nrole_accounts = ['abuse@']", "octroi.toml:2: greylist.role_accounts: "),
            ("[dns]\nservers = ['ns']", "octroi.toml:2: dns.servers: "),
            ("[access]\nclients = []", "octroi.toml:2: access.clients: "),
            ("[access]\nclient_whitelist = ['sqlgrey:/x']", "octroi.toml:2: access.client_whitelist: "),
            ("[log]\nlevel = 'loud'", "octroi.toml:2: log.level: "),
        ] {
            let mistakes = read(text).unwrap_err().to_string();
            assert!(mistakes.starts_with(told), "{text:?} gave {mistakes}");
            assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
        }
    }

    #[test]
    fn keys_that_need_a_restart_are_named() {
        let (old, mut new) = (Settings::default(), Settings::default());
        new.greylist.mode = GreylistMode::Off;
        assert!(old.unreloadable(&new).is_empty());
        new.policyd.http = String::new();
        new.store.max_connections = 3;
        assert_eq!(old.unreloadable(&new), ["policyd.http", "store"]);
    }
}
