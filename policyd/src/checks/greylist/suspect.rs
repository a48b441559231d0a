// SPDX-License-Identifier: GPL-3.0-or-later
//! A client that must come again, with all the names by which it may be known, and what the stores know of it under them: whether it is
//! trusted, whether its triplet has been seen, how many of its network wait.

use std::net::IpAddr;
use std::time::Duration;

use common::mail;
use tokio::time::Instant;

use crate::around::Around;
use crate::checks::adaptive::Signs;
use crate::checks::dnswl::Listing;
use crate::checks::pool::{self, Spf};
use crate::config::{OnStoreError, TrustLevel};
use crate::policy::Policy;
use crate::request::PolicyRequest;
use crate::store::greylist::{Sighting, Times};
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
    /// Other names of the client, under which the triplet may have been seen.
    pub(super) others: Vec<String>,
    pub(super) trust_keys: Vec<String>,
}

impl Suspect {
    pub(super) fn new(policy: &Policy, request: &PolicyRequest<'_>, client: IpAddr, spf: Option<Spf>) -> Self {
        let settings = &policy.settings.greylist;
        let prefixes = (settings.ipv4_prefix, settings.ipv6_prefix);
        let mut names = pool::identities(&settings.key, request, client, prefixes, spf);
        let first = names.remove(0);
        let network = names.last().unwrap_or(&first);
        let spf = spf.and_then(|spf| pool::spf_domain(request, spf));
        let trust_keys = match settings.trust_after {
            0 => Vec::new(),
            _ => trust_keys(&settings.trust, network, &request.sender, spf.as_deref()),
        };
        let triplet = Triplet::of(first, &request.sender, &request.recipient, &settings.normalize);
        Self { triplet, others: names, trust_keys }
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
        let told = around.trust.is_some_and(|book| book.distrusts(&self.trust_keys, after));
        match told && listing == Listing::NotListed {
            true => Plea::Stranger,
            false => Plea::CannotTell,
        }
    }

    /// The key for which the client is trusted.
    async fn trusted(&self, around: Around<'_>) -> Option<String> {
        if self.trust_keys.is_empty() {
            return None;
        }
        let after = i64::from(around.policy.settings.greylist.trust_after);
        let keep = around.policy.times.keep_passed;
        around.trust?.trusted(&self.trust_keys, after, keep, around.deadline).await
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
        if most == 0 || !self.goes_by_network() || !around.pending.is_full(&self.triplet.client, most, window) {
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
            _ if most == 0 || !self.goes_by_network() => {}
            Sighting::New { .. } => around.pending.new_triplet(&self.triplet.client, window),
            Sighting::PassedNow { .. } => around.pending.passed(&self.triplet.client, window),
            Sighting::Early { .. } | Sighting::Passed => {}
        }
    }

    /// The network is the last of the names of a client.
    fn goes_by_network(&self) -> bool {
        self.others.is_empty()
    }

    /// The finding with what is kept of it.
    pub(super) fn explained(self, finding: Finding, sighting: Sighting) -> Finding {
        let (left, waited) = match sighting {
            Sighting::New { left } | Sighting::Early { left } => (Some(left), None),
            Sighting::PassedNow { waited } => (None, Some(waited)),
            Sighting::Passed => return finding,
        };
        finding.about(Asked { triplet: self.triplet, left, waited })
    }

    /// The signs, and the key when it is a pool.
    pub(super) fn fact(&self, signs: Signs) -> String {
        let signs = signs.words();
        match (self.others.is_empty(), signs.is_empty()) {
            (true, _) => signs,
            (false, true) => format!("key {}", self.triplet.client),
            (false, false) => format!("{signs}; key {}", self.triplet.client),
        }
    }
}

fn pending_limit(around: Around<'_>) -> (u32, Duration) {
    let settings = &around.policy.settings.greylist;
    (settings.max_pending_per_net, settings.retry_window.0)
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
