// SPDX-License-Identifier: GPL-3.0-or-later
//! The sections of the configuration that policyd reads: `[policyd]`, `[greylist]`, `[access]`, and the common `[store]`, `[log]` and `[dns]`.
//!
//! Reading checks everything that can be checked without opening a socket, a list file or the store, and gives all mistakes at once.

use std::path::PathBuf;
use std::time::Duration;

use common::address::Address;
use common::config::{Mistakes, Source};
use common::dns::DnsSettings;
use common::lookup::ListFile;
use common::net::SocketOptions;
use common::record::LogSettings;
use common::store::StoreSettings;
use common::units::{Period, Size};
use serde::{Deserialize, Serialize};

use crate::checks::adaptive::Weights;
use crate::checks::dnswl::Dnswl;
use crate::checks::pool::KeyKind;
use crate::sender::Step;
use crate::template::{Template, header_mistake, reply_mistake};

/// Postfix closes idle connections to a policy server after this time (`smtpd_policy_service_max_idle`); one that we
/// close first costs its next request a second and a try.
const POSTFIX_MAX_IDLE: Duration = Duration::from_secs(300);

/// What is answered when the store cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStoreError {
    /// Greylisting goes on from what this host remembers.
    Local,
    /// The mail goes on.
    Dunno,
    /// The client is told to come again.
    Defer,
}

impl OnStoreError {
    /// The word of the option.
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Dunno => "dunno",
            Self::Defer => "defer",
        }
    }
}

/// Section `[policyd]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicydSettings {
    /// Where Postfix asks: `host:port` or `unix:/path`.
    pub listen: Vec<Address>,
    /// Permission bits of UNIX sockets, octal.
    pub socket_mode: String,
    /// Group of UNIX sockets, by name or number; empty leaves the group of the process.
    pub socket_group: String,
    /// Address of `/health`, `/ready` and `/metrics`; empty for none.
    pub http: String,
    /// Connections at once; Postfix needs one per smtpd process and distinct `check_policy_service`.
    pub max_connections: usize,
    /// How long a connection may stay without a request.
    pub idle_timeout: Period,
    /// How long the rest of a request may take once it has begun, and how long Postfix may take to read a reply.
    pub request_timeout: Period,
    /// How long one decision may take before the fallback is answered.
    pub budget: Period,
    /// How long connections may go on when the daemon is told to end.
    pub drain: Period,
    /// The fallback when the store is down or too slow.
    pub on_store_error: OnStoreError,
    /// File for what is decided without the store; empty for `policyd.journal` in $STATE_DIRECTORY, else in /var/lib/octroi.
    pub journal: PathBuf,
    /// How large it may grow; 0B for no journal.
    pub journal_size: Size,
}

impl Default for PolicydSettings {
    fn default() -> Self {
        Self {
            listen: vec![Address::tcp("127.0.0.1", 10023)],
            socket_mode: "0660".to_owned(),
            socket_group: String::new(),
            http: "127.0.0.1:9123".to_owned(),
            max_connections: 2000,
            idle_timeout: Period::seconds(1100),
            request_timeout: Period::seconds(60),
            budget: Period::seconds(1),
            drain: Period::seconds(10),
            on_store_error: OnStoreError::Local,
            journal: PathBuf::new(),
            journal_size: Size(64_000_000),
        }
    }
}

impl PolicydSettings {
    /// Mode and group of UNIX sockets.
    pub fn socket_options(&self) -> SocketOptions {
        SocketOptions {
            mode: u32::from_str_radix(&self.socket_mode, 8).ok(),
            group: Some(self.socket_group.clone()).filter(|group| !group.is_empty()),
        }
    }

    /// The file of the journal; none when it is off.
    pub fn journal_path(&self) -> Option<PathBuf> {
        let configured = match self.journal.as_os_str().is_empty() {
            true => common::store::state_folder().join("policyd.journal"),
            false => self.journal.clone(),
        };
        (self.journal_size.0 > 0).then_some(configured)
    }

    /// Where the health page listens; none when it is off.
    pub fn http_address(&self) -> Option<Address> {
        self.http.parse().ok()
    }

    fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        let mut wrong = |key: &str, message: String| mistakes.push(source.mistake(&format!("policyd.{key}"), message));
        if self.listen.is_empty() {
            wrong("listen", "needs at least one address".to_owned());
        }
        if !u32::from_str_radix(&self.socket_mode, 8).is_ok_and(|mode| mode <= 0o777) {
            wrong("socket_mode", format!("{:?} is not an octal mode such as \"0660\"", self.socket_mode));
        }
        match self.http.parse() {
            _ if self.http.is_empty() => {}
            Ok(Address::Tcp { .. }) => {}
            Ok(Address::Unix(_)) => wrong("http", "must be \"host:port\", or empty for none".to_owned()),
            Err(error) => wrong("http", error),
        }
        if self.max_connections == 0 {
            wrong("max_connections", "must be at least 1".to_owned());
        }
        if self.idle_timeout.0 <= POSTFIX_MAX_IDLE {
            wrong(
                "idle_timeout",
                format!("{} must be longer than 300s, for which Postfix keeps an idle connection", self.idle_timeout),
            );
        }
        if self.request_timeout.0.is_zero() {
            wrong("request_timeout", "must be longer than 0s".to_owned());
        }
        if self.budget.0.is_zero() || self.budget.0 >= Duration::from_secs(100) {
            wrong(
                "budget",
                format!("{} must be longer than 0s and shorter than the 100s that Postfix waits", self.budget),
            );
        }
    }
}

/// Who is greylisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GreylistMode {
    /// Clients that show a sign against them.
    Adaptive,
    /// Every client.
    Strict,
    /// Nobody, but everything is recorded as if.
    Learn,
    /// Nobody, and nothing is recorded.
    Off,
}

/// How Postfix is told to delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GreylistAction {
    /// Later restrictions may still refuse for good.
    DeferIfPermit,
    /// At once.
    Defer,
}

/// For what trust is earned and given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustLevel {
    /// The client's network.
    Network,
    /// The client's network with one sender's domain.
    NetworkDomain,
    /// The domain for which SPF authorises the client.
    Spf,
}

/// Section `[greylist]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GreylistSettings {
    /// Who is greylisted.
    pub mode: GreylistMode,
    /// In adaptive mode: what the signs against a client must weigh together for it to be greylisted.
    pub threshold: u32,
    /// What each sign weighs.
    pub signs: Weights,
    /// How long after its first try a triplet passes.
    pub delay: Period,
    /// How long after its first try a retry is still known.
    pub retry_window: Period,
    /// How long a triplet that has passed is kept since it was last seen.
    pub keep_passed: Period,
    /// Who the client is, the best identity first; the last one is `network`.
    pub key: Vec<KeyKind>,
    /// Bits of an IPv4 address that make the client network.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make the client network.
    pub ipv6_prefix: u8,
    /// What is taken out of senders that change with every message.
    pub normalize: Vec<Step>,
    /// First passes after which a client is not greylisted any more, at most one counted an hour; 0 for never.
    pub trust_after: u32,
    /// For what trust is earned and given.
    pub trust: Vec<TrustLevel>,
    /// New triplets of one network that may wait while none of them has come again; more are not recorded. 0 for no limit.
    pub max_pending_per_net: u32,
    /// DNS whitelists whose clients are not greylisted.
    pub dnswl: Vec<Dnswl>,
    /// Lists of clients that send our mail; it is not greylisted, and to whom they write is remembered.
    pub own_networks: Vec<ListFile>,
    /// How long it is remembered to whom we wrote, so that replies are not greylisted; 0s: not at all.
    pub remember_recipients: Period,
    /// Lists of recipients that nobody should write to.
    pub traps: Vec<ListFile>,
    /// How long the network of a client that writes to a trap is told to come again.
    pub trap_time: Period,
    /// Local parts of recipients that are never greylisted.
    pub role_accounts: Vec<String>,
    /// Lists of recipients that alone are greylisted, when there are any.
    pub optin: Vec<ListFile>,
    /// Lists of recipients that are not greylisted.
    pub optout: Vec<ListFile>,
    /// Postfix action for a triplet that must wait.
    pub action: GreylistAction,
    /// Reply text: an enhanced status code 4.x.x and words; {left}, {seconds}, {host} and {id} are filled in.
    pub text: String,
    /// How long deferrals and first passes are kept for `octroi why` and `octroi greylist stats`; 0s: not at all.
    pub keep_explained: Period,
    /// Header of the first message of a triplet that has waited; {delay}, {seconds}, {host} and {id} are filled in. Empty for none.
    pub header: String,
}

impl Default for GreylistSettings {
    fn default() -> Self {
        Self {
            mode: GreylistMode::Adaptive,
            threshold: 2,
            signs: Weights::default(),
            delay: Period::seconds(4 * 60),
            retry_window: Period::seconds(3 * 86_400),
            keep_passed: Period::seconds(36 * 86_400),
            key: vec![KeyKind::Spf, KeyKind::Name, KeyKind::Network],
            ipv4_prefix: 24,
            ipv6_prefix: 64,
            normalize: Step::ALL.to_vec(),
            trust_after: 5,
            trust: vec![TrustLevel::Network, TrustLevel::Spf],
            max_pending_per_net: 50,
            dnswl: Vec::new(),
            own_networks: Vec::new(),
            remember_recipients: Period::seconds(30 * 86_400),
            traps: Vec::new(),
            trap_time: Period::seconds(86_400),
            role_accounts: ["postmaster", "abuse", "hostmaster", "webmaster", "noc", "security"]
                .map(str::to_owned)
                .to_vec(),
            optin: Vec::new(),
            optout: Vec::new(),
            action: GreylistAction::DeferIfPermit,
            text: "4.7.1 Greylisted, try again in {left}; id {id}".to_owned(),
            keep_explained: Period::seconds(7 * 86_400),
            header: "X-Greylist: delayed {delay} by {host}".to_owned(),
        }
    }
}

impl GreylistSettings {
    fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        let mut wrong = |key: &str, message: String| mistakes.push(source.mistake(&format!("greylist.{key}"), message));
        if self.delay.0 < Duration::from_secs(1) {
            wrong("delay", "must be at least 1s".to_owned());
        }
        if self.retry_window.0 <= self.delay.0 {
            wrong("retry_window", format!("{} must be longer than delay ({})", self.retry_window, self.delay));
        }
        if self.keep_passed.0 < Duration::from_secs(60) {
            wrong("keep_passed", "must be at least 1m".to_owned());
        }
        if self.threshold == 0 {
            wrong("threshold", "must be at least 1; mode = \"strict\" greylists everybody".to_owned());
        }
        if self.mode == GreylistMode::Adaptive && self.threshold > self.signs.most() {
            wrong(
                "threshold",
                format!("{} is more than all signs weigh together ({})", self.threshold, self.signs.most()),
            );
        }
        if self.key.last() != Some(&KeyKind::Network) || repeats(&self.key) {
            wrong("key", "must name each identity once, and \"network\" last, which every client has".to_owned());
        }
        if repeats(&self.normalize) {
            wrong("normalize", "must name each step once".to_owned());
        }
        if repeats(&self.trust) {
            wrong("trust", "must name each level once".to_owned());
        }
        if [TrustLevel::Network, TrustLevel::NetworkDomain].iter().all(|level| self.trust.contains(level)) {
            wrong("trust", "\"network\" gives all that \"network_domain\" gives: name one of them".to_owned());
        }
        if let Some(list) = self.dnswl.iter().find(|list| !is_zone(&list.zone)) {
            wrong("dnswl", format!("{:?} is not a domain name", list.zone));
        }
        if let Some(account) = self.role_accounts.iter().find(|account| account.is_empty() || account.contains('@')) {
            wrong("role_accounts", format!("{account:?} is not the local part of an address"));
        }
        if self.trap_time.0 < Duration::from_secs(60) {
            wrong("trap_time", "must be at least 1m; without traps nobody is trapped".to_owned());
        }
        if !(8..=32).contains(&self.ipv4_prefix) {
            wrong("ipv4_prefix", format!("{} is not between 8 and 32", self.ipv4_prefix));
        }
        if !(16..=128).contains(&self.ipv6_prefix) {
            wrong("ipv6_prefix", format!("{} is not between 16 and 128", self.ipv6_prefix));
        }
        if let Some(message) = reply_mistake(&self.text).or_else(|| Template::new(&self.text).err()) {
            wrong("text", message);
        }
        if let Some(message) = header_mistake(&self.header).or_else(|| Template::new(&self.header).err()) {
            wrong("header", message);
        }
    }
}

fn is_zone(zone: &str) -> bool {
    let good =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    zone.len() <= 180 && zone.contains('.') && zone.split('.').all(good)
}

fn repeats<T: PartialEq>(list: &[T]) -> bool {
    list.iter().enumerate().any(|(at, item)| list[..at].contains(item))
}

/// Section `[access]`: list files, each read from top to bottom as one list per kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    /// How often list files are looked at for changes; 0s: only at SIGHUP.
    pub watch: Period,
    /// Clients whose mail no check of ours stops.
    pub client_whitelist: Vec<ListFile>,
    /// Clients that are refused.
    pub client_blacklist: Vec<ListFile>,
    /// Senders whose mail is not greylisted.
    pub sender_whitelist: Vec<ListFile>,
    /// Senders that are refused.
    pub sender_blacklist: Vec<ListFile>,
    /// Recipients whose mail is not greylisted.
    pub recipient_whitelist: Vec<ListFile>,
    /// Recipients that are refused.
    pub recipient_blacklist: Vec<ListFile>,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self {
            watch: Period::seconds(10),
            client_whitelist: Vec::new(),
            client_blacklist: Vec::new(),
            sender_whitelist: Vec::new(),
            sender_blacklist: Vec::new(),
            recipient_whitelist: Vec::new(),
            recipient_blacklist: Vec::new(),
        }
    }
}

impl AccessSettings {
    /// The files of all lists.
    pub fn files(&self) -> impl Iterator<Item = &ListFile> {
        let clients = self.client_whitelist.iter().chain(&self.client_blacklist);
        let senders = self.sender_whitelist.iter().chain(&self.sender_blacklist);
        clients.chain(senders).chain(&self.recipient_whitelist).chain(&self.recipient_blacklist)
    }
}

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
}

impl Settings {
    /// Takes the sections out of the layers and checks them.
    pub fn read(source: &Source) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let settings = Self {
            store: StoreSettings::read(source, &mut mistakes),
            log: source.section("log", &mut mistakes),
            dns: DnsSettings::read(source, &mut mistakes),
            policyd: source.section("policyd", &mut mistakes),
            greylist: source.section("greylist", &mut mistakes),
            access: source.section("access", &mut mistakes),
        };
        if let Err(message) = settings.log.check() {
            mistakes.push(source.mistake("log.level", message));
        }
        settings.policyd.check(source, &mut mistakes);
        settings.greylist.check(source, &mut mistakes);
        mistakes.into_result(settings)
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
            ("store", self.store != new.store),
            ("log", self.log != new.log),
            ("dns", self.dns != new.dns),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
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
            ("[greylist]\nmode = 'on'", "octroi.toml:2: greylist.mode: "),
            ("[greylist]\ndelay = '1d'\nretry_window = '1h'", "octroi.toml:3: greylist.retry_window: "),
            ("[greylist]\ndelay = '0s'", "octroi.toml:2: greylist.delay: "),
            ("[greylist]\nkeep_passed = '1s'", "octroi.toml:2: greylist.keep_passed: "),
            ("[greylist]\nipv4_prefix = 33", "octroi.toml:2: greylist.ipv4_prefix: "),
            ("[greylist]\nipv6_prefix = 300", "octroi.toml:2: greylist.ipv6_prefix: "),
            ("[greylist]\ntext = 'come back'", "octroi.toml:2: greylist.text: "),
            ("[greylist]\ntext = '4.7.1 {when}'", "octroi.toml:2: greylist.text: "),
            ("[greylist]\nheader = 'no colon'", "octroi.toml:2: greylist.header: "),
            ("[greylist]\ntrust_after = -1", "octroi.toml:2: greylist.trust_after: "),
            ("[greylist]\nthreshold = 0", "octroi.toml:2: greylist.threshold: "),
            ("[greylist]\nthreshold = 6", "octroi.toml:2: greylist.threshold: "),
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
