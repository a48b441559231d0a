// SPDX-License-Identifier: GPL-3.0-or-later
//! A client that must come again, with all the names by which it may be known, and what the stores know of it under them: whether it is
//! trusted, whether its triplet has been seen, how many of its network wait.

use std::net::IpAddr;
use std::time::Duration;

use common::mail;
use common::units::Period;
use tokio::time::Instant;

use super::Forced;
use crate::around::Around;
use crate::checks::adaptive::Signs;
use crate::checks::dnswl::Listing;
use crate::checks::marks;
use crate::checks::pool::{self, Names, Spf};
use crate::config::{GreylistMode, OnStoreError, TrustLevel};
use crate::policy::Policy;
use crate::postgrey;
use crate::request::PolicyRequest;
use crate::store::book::Condition;
use crate::store::greylist::{Sighting, Times};
use crate::store::marker::Suspicion;
use crate::store::queue::QueueError;
use crate::triplet::{Triplet, bounded};
use crate::verdict::{Asked, Finding, Reason};

/// What speaks for a client.
#[derive(Debug)]
pub(super) enum Plea {
    /// This.
    Excused(Finding),
    /// Nothing.
    Stranger,
    /// Nothing so far, but not all have answered.
    CannotTell,
}

/// A client that must come again, with all the names by which it may be known.
#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) triplet: Triplet,
    /// The triplet under other names, by which it may have been seen.
    pub(super) others: Vec<Triplet>,
    pub(super) trust_keys: Vec<String>,
    /// The key of trust by which postgrey may have known it.
    hashed: Option<String>,
    /// Its network, and whether it goes by that or by its address, and no pool.
    network: String,
    alone: bool,
    /// Whether it goes by another name than its network.
    named: bool,
}

impl Suspect {
    pub(super) fn new(policy: &Policy, request: &PolicyRequest<'_>, client: IpAddr, spf: Option<Spf>) -> Self {
        let settings = &policy.settings.greylist;
        let prefixes = (settings.ipv4_prefix, settings.ipv6_prefix);
        let Names { all: mut names, alone } = pool::identities(&settings.key, request, client, prefixes, spf);
        let first = names.remove(0);
        // The network is the last of all names.
        let network = names.last().unwrap_or(&first).clone();
        // Whoever goes by the network has no other name.
        let named = !names.is_empty();
        let spf = spf.and_then(|spf| pool::spf_domain(request, spf));
        let trust_keys = match settings.trust_after {
            0 => Vec::new(),
            _ => trust_keys(&settings.trust, &network, &request.sender, spf.as_deref()),
        };
        let triplet = Triplet::of(first, &request.sender, &request.recipient, &settings.normalize);
        let mut others: Vec<Triplet> = names.into_iter().map(|client| triplet.from_client(client)).collect();
        let hashed = settings.postgrey_hashes.then(|| {
            others.push(postgrey::triplet(client, &request.sender, &request.recipient, prefixes));
            postgrey::client(client)
        });
        Self { triplet, others, trust_keys, hashed: hashed.filter(|_| settings.trust_after > 0), network, alone, named }
    }

    /// The times that hold for it: the delay that a check before ordered, else that of the recipient; the longer window for clients of
    /// which a triplet has passed before.
    pub(super) fn times(&self, around: Around<'_>, request: &PolicyRequest<'_>, forced: Option<&Forced>) -> Times {
        let (times, settings) = (around.policy.times, &around.policy.settings.greylist);
        let ordered = forced.and_then(|forced| forced.delay).map(Period::as_millis);
        let delay = ordered.or_else(|| around.policy.lists.now().delay(&request.recipient)).unwrap_or(times.delay);
        let window = match around.trust.is_some_and(|book| book.has_passed(&self.trust_keys)) {
            true => settings.retry_window_known.as_millis(),
            false => times.retry_window,
        };
        // An order may be for longer than the window.
        Times { delay, retry_window: window.max(delay.saturating_mul(2)), ..times }
    }

    /// Has its network trapped if its triplets never come again. Only where it is certain that nothing speaks for it.
    pub(super) fn judge(&self, around: Around<'_>, client: IpAddr, stranger: bool) {
        let settings = &around.policy.settings.greylist;
        if settings.trap_never == 0 || !self.alone || !stranger {
            return;
        }
        let suspicion = Suspicion {
            client: self.triplet.client.clone(),
            most: i64::from(settings.trap_never),
            percent: settings.trap_never_percent,
            never: around.policy.never,
        };
        marks::judge(around, client, suspicion);
    }

    /// A triplet of it has passed for the first time.
    pub(super) fn earn_trust(&self, around: Around<'_>) {
        let Some(trust) = around.trust else { return };
        let percent = around.policy.settings.greylist.trust_never_percent;
        let condition = (percent < 100).then(|| Condition {
            client: self.triplet.client.clone(),
            percent,
            never: around.policy.never,
        });
        trust.passed(self.trust_keys.clone(), around.policy.times.keep_passed, condition);
    }

    /// What speaks for the client: a DNS whitelist, trust.
    pub(super) async fn plea(&self, around: Around<'_>, client: IpAddr, lookups: Instant) -> Plea {
        let settings = &around.policy.settings.greylist;
        let listing = around.pools.whitelisted(&settings.dnswl, client, lookups).await;
        if let Listing::Listed(list) = listing {
            return Plea::Excused(Finding::pass(Reason::DnsWhitelisted).because(list));
        }
        if let Some(key) = self.trusted(around).await {
            return Plea::Excused(Finding::pass(Reason::Trusted).because(key));
        }
        let after = i64::from(settings.trust_after);
        let told = around.trust.is_some_and(|book| book.distrusts(&self.given_keys(), after));
        match told && listing == Listing::NotListed {
            true => Plea::Stranger,
            false => Plea::CannotTell,
        }
    }

    /// The keys for which trust is given: those for which it is earned, and what was imported.
    pub(super) fn given_keys(&self) -> Vec<String> {
        self.trust_keys.iter().chain(&self.hashed).cloned().collect()
    }

    /// The key for which the client is trusted.
    async fn trusted(&self, around: Around<'_>) -> Option<String> {
        let keys = self.given_keys();
        if keys.is_empty() {
            return None;
        }
        let after = i64::from(around.policy.settings.greylist.trust_after);
        let keep = around.policy.times.keep_passed;
        around.trust?.trusted(&keys, after, keep, around.deadline).await
    }

    /// What the store knows. A triplet that is new by this name of its client, but known by another, goes on from there: it was
    /// asked about while DNS failed, or comes from a greylister that knew networks only.
    pub(super) async fn sighting(&self, around: Around<'_>, times: Times) -> Result<Sighting, QueueError> {
        let alone = around.policy.settings.policyd.on_store_error == OnStoreError::Local;
        let ask = || around.queue.ask_or_decide(&self.triplet, times, around.deadline, alone);
        let sighting = ask().await?;
        match (sighting, around.trust) {
            (Sighting::New { .. }, Some(book)) if !self.others.is_empty() => {
                match book.carried(&self.triplet, &self.others, around.deadline).await {
                    true => ask().await,
                    false => Ok(sighting),
                }
            }
            _ => Ok(sighting),
        }
    }

    /// True for a new triplet of a network of which too many wait already: it is told to come again, and not recorded.
    pub(super) async fn is_one_too_many(&self, around: Around<'_>) -> bool {
        let (most, window) = pending_limit(around);
        if most == 0 || !self.alone || !around.pending.is_full(&self.network, most, window) {
            return false;
        }
        match around.trust {
            Some(book) => book.knows(&self.triplet, around.deadline).await == Some(false),
            None => false,
        }
    }

    pub(super) fn count(&self, around: Around<'_>, sighting: Sighting) {
        let (most, window) = pending_limit(around);
        match sighting {
            _ if most == 0 || !self.alone => {}
            Sighting::New { .. } => around.pending.new_triplet(&self.network, window),
            Sighting::PassedNow { .. } => around.pending.passed(&self.network, window),
            Sighting::Early { .. } | Sighting::Passed => {}
        }
    }

    /// The finding with what is kept of it.
    pub(super) fn explained(self, finding: Finding, sighting: Sighting, delay: i64) -> Finding {
        let (left, waited) = match sighting {
            Sighting::New { left } | Sighting::Early { left } => (Some(left), None),
            Sighting::PassedNow { waited } => (None, Some(waited)),
            Sighting::Passed => return finding,
        };
        finding.about(Asked { triplet: self.triplet, left, waited, delay })
    }

    /// The signs, who ordered it, and the key when it is not the network.
    pub(super) fn fact(&self, signs: Signs, forced: Option<&Forced>) -> String {
        let ordered = forced.map(|forced| forced.why.clone()).unwrap_or_default();
        let key = if self.named { format!("key {}", self.triplet.client) } else { String::new() };
        let words = [signs.words(), ordered, key];
        words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

fn pending_limit(around: Around<'_>) -> (u32, Duration) {
    let settings = &around.policy.settings.greylist;
    (settings.max_pending_per_net, settings.retry_window.0)
}

/// The signs of a client and, where that counts, that no triplet of its network has ever passed. Known without a question; while it is
/// not known, it is no sign.
pub(super) fn signs_of_network(around: Around<'_>, request: &PolicyRequest<'_>, client: IpAddr, signs: Signs) -> Signs {
    let settings = &around.policy.settings.greylist;
    if settings.signs.new_network == 0 || settings.mode != GreylistMode::Adaptive {
        return signs;
    }
    let network = mail::network_name(client, settings.ipv4_prefix, settings.ipv6_prefix);
    let keys = trust_keys(&settings.trust, &network, &request.sender, None);
    match around.trust.is_some_and(|book| book.never_passed(&keys)) {
        true => signs.with_new_network(&settings.signs),
        false => signs,
    }
}

/// The keys for which trust is earned and given. The null sender has no domain of its own.
fn trust_keys(levels: &[TrustLevel], network: &str, sender: &str, spf: Option<&str>) -> Vec<String> {
    let domain = mail::split(sender).1.to_ascii_lowercase();
    let key = |level: &TrustLevel| match level {
        TrustLevel::Network => Some(network.to_owned()),
        TrustLevel::NetworkDomain => (!domain.is_empty()).then(|| format!("{network} {domain}")),
        TrustLevel::Spf => spf.map(|domain| format!("spf:{domain}")),
    };
    levels.iter().filter_map(key).map(bounded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_has_levels() {
        use TrustLevel::{Network, NetworkDomain, Spf};
        let keys =
            |levels: &[TrustLevel], sender: &str, spf| trust_keys(levels, "192.0.2.0/24", sender, spf).join(", ");
        assert_eq!(keys(&[Network, Spf], "a@Example.ORG", Some("example.org")), "192.0.2.0/24, spf:example.org");
        assert_eq!(keys(&[Network, Spf], "", None), "192.0.2.0/24");
        assert_eq!(keys(&[NetworkDomain, Spf], "a@Example.ORG", None), "192.0.2.0/24 example.org");
        assert_eq!(keys(&[NetworkDomain, Spf], "", None), "");
        let long = format!("a@{}", "x".repeat(10_000));
        assert!(keys(&[NetworkDomain], &long, None).len() < 300, "an index entry has room for it");
    }
}
