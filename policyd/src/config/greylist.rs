// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[greylist]`: who is greylisted, by what key, for how long, and what he is told.

use std::time::Duration;

use common::config::{Mistakes, Source};
use common::lookup::ListFile;
use common::units::Period;
use serde::{Deserialize, Serialize};

use super::{DelayRule, is_zone, repeats};
use crate::checks::adaptive::Weights;
use crate::checks::dnswl::Dnswl;
use crate::checks::pool::KeyKind;
use crate::sender::Step;
use crate::template::{Template, header_mistake, reply_mistake};

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
    /// The same for clients of which a triplet has passed before.
    pub retry_window_known: Period,
    /// Other delays for some recipients; the first that names the recipient counts.
    pub delays: Vec<DelayRule>,
    /// How long a triplet that has passed is kept since it was last seen.
    pub keep_passed: Period,
    /// Who the client is, the best identity first; the last one is `network` or `smart`.
    pub key: Vec<KeyKind>,
    /// Bits of an IPv4 address that make the client network.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make the client network.
    pub ipv6_prefix: u8,
    /// What is taken out of senders that change with every message.
    pub normalize: Vec<Step>,
    /// First passes after which a client is not greylisted any more, at most one counted an hour; 0 for never.
    pub trust_after: u32,
    /// Triplets and clients that were imported from `postgrey --privacy` are looked up, by the sums that it stored.
    pub postgrey_hashes: bool,
    /// For what trust is earned and given.
    pub trust: Vec<TrustLevel>,
    /// A first try is on disk before it is answered; else a crash of the database may lose those of the last moment.
    pub durable: bool,
    /// A pass earns trust only while at most so many percent of the client's triplets never came again.
    pub trust_never_percent: u8,
    /// New triplets of one network that may wait while none of them has come again; more are not recorded. 0 for no limit.
    pub max_pending_per_net: u32,
    /// DNS whitelists whose clients are not greylisted.
    pub dnswl: Vec<Dnswl>,
    /// Lists of clients that send our mail; it is not greylisted, and to whom they write is remembered.
    pub own_networks: Vec<ListFile>,
    /// Lists of names of clients that count as names of lines of customers, beside those that look so by themselves.
    pub dynamic_names: Vec<ListFile>,
    /// Lists of names of clients that count as names of mail servers, whatever they look like.
    pub server_names: Vec<ListFile>,
    /// How long it is remembered to whom we wrote, so that replies are not greylisted; 0s: not at all.
    pub remember_recipients: Period,
    /// Lists of recipients that nobody should write to.
    pub traps: Vec<ListFile>,
    /// How long the network of a client that writes to a trap is told to come again.
    pub trap_time: Period,
    /// A network of which more than so many triplets never came again is trapped; 0 for none.
    pub trap_never: u32,
    /// If they are at least so many percent of its triplets.
    pub trap_never_percent: u8,
    /// A triplet that has not come again so long after its first try counts as one that never did.
    pub never_after: Period,
    /// How far back first tries are counted for that.
    pub never_period: Period,
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
            retry_window_known: Period::seconds(5 * 86_400),
            delays: Vec::new(),
            keep_passed: Period::seconds(36 * 86_400),
            key: vec![KeyKind::Spf, KeyKind::Name, KeyKind::Network],
            ipv4_prefix: 24,
            ipv6_prefix: 64,
            normalize: Step::ALL.to_vec(),
            trust_after: 5,
            trust: vec![TrustLevel::Network, TrustLevel::Spf],
            durable: false,
            postgrey_hashes: false,
            trust_never_percent: 100,
            max_pending_per_net: 50,
            dnswl: Vec::new(),
            own_networks: Vec::new(),
            dynamic_names: Vec::new(),
            server_names: Vec::new(),
            remember_recipients: Period::seconds(30 * 86_400),
            traps: Vec::new(),
            trap_time: Period::seconds(86_400),
            trap_never: 0,
            trap_never_percent: 90,
            never_after: Period::seconds(4 * 3600),
            never_period: Period::seconds(86_400),
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
    /// The files of all lists.
    pub fn files(&self) -> impl Iterator<Item = &ListFile> {
        let lists = self.optin.iter().chain(&self.optout).chain(&self.own_networks).chain(&self.traps);
        let lists = lists.chain(&self.dynamic_names).chain(&self.server_names);
        lists.chain(self.delays.iter().flat_map(DelayRule::files))
    }

    pub(super) fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        let mut wrong = |key: &str, message: String| mistakes.push(source.mistake(&format!("greylist.{key}"), message));
        if self.delay.0 < Duration::from_secs(1) {
            wrong("delay", "must be at least 1s".to_owned());
        }
        if self.retry_window.0 <= self.delay.0 {
            wrong("retry_window", format!("{} must be longer than delay ({})", self.retry_window, self.delay));
        }
        if self.retry_window_known.0 < self.retry_window.0 {
            let message =
                format!("{} must not be shorter than retry_window ({})", self.retry_window_known, self.retry_window);
            wrong("retry_window_known", message);
        }
        for rule in &self.delays {
            let range = Duration::from_secs(1)..self.retry_window.0;
            let message =
                || format!("{} must be at least 1s and shorter than retry_window ({})", rule.delay, self.retry_window);
            if let Some(message) = rule.mistake().or_else(|| (!range.contains(&rule.delay.0)).then(message)) {
                wrong("delays", message);
            }
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
        let is_last = |kind: &&KeyKind| matches!(kind, KeyKind::Network | KeyKind::Smart);
        if self.key.iter().filter(is_last).count() != 1
            || !self.key.iter().rev().take(1).any(|kind| is_last(&kind))
            || repeats(&self.key)
        {
            let message = "must name each identity once, and \"network\" or \"smart\" last, which every client has";
            wrong("key", message.to_owned());
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
        self.check_never(source, mistakes);
        let mut wrong = |key: &str, message: String| mistakes.push(source.mistake(&format!("greylist.{key}"), message));
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

    /// What is counted of clients that never come again.
    fn check_never(&self, source: &Source, mistakes: &mut Mistakes) {
        let mut wrong = |key: &str, message: String| mistakes.push(source.mistake(&format!("greylist.{key}"), message));
        for (key, percent) in
            [("trap_never_percent", self.trap_never_percent), ("trust_never_percent", self.trust_never_percent)]
        {
            if !(1..=100).contains(&percent) {
                wrong(key, format!("{percent} is not between 1 and 100"));
            }
        }
        let counts = self.trap_never > 0 || self.trust_never_percent < 100;
        if counts && self.never_after.0 <= self.delay.0 {
            wrong("never_after", format!("{} must be longer than delay ({})", self.never_after, self.delay));
        }
        if counts && !(self.never_period.0 > self.never_after.0 && self.never_period.0 <= self.retry_window.0) {
            let (after, window) = (self.never_after, self.retry_window);
            let told = format!("must be longer than never_after ({after}) and not longer than retry_window ({window})");
            wrong("never_period", format!("{} {told}", self.never_period));
        }
        if self.max_pending_per_net > 0 && self.trap_never >= self.max_pending_per_net {
            let most = self.max_pending_per_net;
            wrong(
                "trap_never",
                format!("{} must be less than max_pending_per_net ({most}), or never counted", self.trap_never),
            );
        }
        if self.signs.new_network > 0 && self.trust_after == 0 {
            wrong(
                "signs.new_network",
                "without trust (trust_after = 0) it is not known which networks are new".to_owned(),
            );
        }
    }
}
