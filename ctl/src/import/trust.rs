// SPDX-License-Identifier: GPL-3.0-or-later
//! Clients that the other program had learnt to trust, as keys of policyd's trust: the network, or the network with a sender's domain,
//! whichever of them `[greylist] trust` names. Entries of one key are added up, and the sum goes into the store at the end.
//!
//! Pure.

use std::collections::BTreeMap;

use common::mail;
use policyd::config::{GreylistSettings, TrustLevel};
use policyd::postgrey;
use policyd::store::import::Standing;

use super::record::{DAY, Old, Trusted};
use super::sieve::{FUTURE, Fate, PRIVACY, TOO_WIDE};

/// Most keys: memory stays bounded whatever is read.
const MOST: usize = 1_000_000;
/// What sqlgrey's trust in a domain is worth for the whole network: it takes two senders (`group_domain_level`).
const DOMAIN_WORTH: i64 = 2;
/// Trust is off, or is given for nothing that is known here.
const NO_LEVEL: &str = "a trusted client, but [greylist] trust or trust_after has no place for it";
const FULL: &str = "a trusted client: there are too many";

/// The keys found so far.
#[derive(Debug)]
pub(super) struct Trust {
    levels: Vec<TrustLevel>,
    prefixes: (u8, u8),
    /// Passes that make a client trusted here.
    enough: i64,
    keep: i64,
    hashes: bool,
    /// Passes and latest use.
    keys: BTreeMap<String, (i64, i64)>,
}

impl From<&GreylistSettings> for Trust {
    fn from(settings: &GreylistSettings) -> Self {
        Self {
            levels: settings.trust.clone(),
            prefixes: (settings.ipv4_prefix, settings.ipv6_prefix),
            enough: i64::from(settings.trust_after),
            keep: settings.keep_passed.as_millis(),
            hashes: settings.postgrey_hashes,
            keys: BTreeMap::new(),
        }
    }
}

impl Trust {
    /// Takes one in.
    pub(super) fn add(&mut self, trusted: &Trusted, old: &Old) -> Fate<()> {
        if let Some(fate) = self.too_early_or_late(trusted.last, old) {
            return fate;
        }
        let (ipv4, ipv6) = self.prefixes;
        if trusted.client.prefix_len() < if trusted.client.addr().is_ipv4() { ipv4 } else { ipv6 } {
            return Fate::Skipped(TOO_WIDE);
        }
        let network = mail::network(trusted.client.addr(), ipv4, ipv6).to_string();
        let Some((key, passes)) = self.key(network, trusted) else { return Fate::Skipped(NO_LEVEL) };
        self.put(key, passes, trusted.last)
    }

    /// Takes in one of which only a sum is known.
    pub(super) fn add_hash(&mut self, sum: &str, passes: Option<u32>, last: i64, old: &Old) -> Fate<()> {
        if !self.hashes {
            return Fate::Skipped(PRIVACY);
        }
        if self.enough == 0 {
            return Fate::Skipped(NO_LEVEL);
        }
        match self.too_early_or_late(last, old) {
            Some(fate) => fate,
            None => self.put(postgrey::hashed_client(sum), passes.map_or(self.enough, i64::from), last),
        }
    }

    fn too_early_or_late(&self, last: i64, old: &Old) -> Option<Fate<()>> {
        if last > old.now.saturating_add(DAY) {
            return Some(Fate::Skipped(FUTURE));
        }
        (last.saturating_add(old.max_age.min(self.keep)) <= old.now).then_some(Fate::Expired)
    }

    fn put(&mut self, key: String, passes: i64, used: i64) -> Fate<()> {
        if self.keys.len() >= MOST && !self.keys.contains_key(&key) {
            return Fate::Skipped(FULL);
        }
        let (sum, last) = self.keys.entry(key).or_insert((0, used));
        *sum = sum.saturating_add(passes);
        *last = used.max(*last);
        Fate::Kept(())
    }

    /// The key, and what the entry is worth for it.
    fn key(&self, network: String, trusted: &Trusted) -> Option<(String, i64)> {
        let passes = trusted.passes.map(i64::from);
        let domain = trusted.domain.as_deref();
        self.levels.iter().filter(|_| self.enough > 0).find_map(|level| match (level, domain) {
            (TrustLevel::Network, None) => Some((network.clone(), passes.unwrap_or(self.enough))),
            (TrustLevel::Network, Some(_)) => Some((network.clone(), passes.unwrap_or(DOMAIN_WORTH))),
            (TrustLevel::NetworkDomain, Some(domain)) if !domain.is_empty() => {
                let key = format!("{network} {}", domain.to_ascii_lowercase());
                Some((key, passes.unwrap_or(self.enough)))
            }
            _ => None,
        })
    }

    /// All keys, sorted, as they go into the store.
    pub(super) fn into_standings(self) -> Vec<Standing> {
        let keep = self.keep;
        let standing = |(key, (passes, last_counted)): (String, (i64, i64))| Standing {
            key,
            passes,
            last_counted,
            expires: last_counted.saturating_add(keep),
        };
        self.keys.into_iter().map(standing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_348_800_000;
    const OLD: Old = Old { delay: 0, max_age: 35 * DAY, trust_after: 5, utc_offset: 0, now: NOW };

    fn trusted(client: &str, domain: Option<&str>, passes: Option<u32>, days: i64) -> Trusted {
        let domain = domain.map(str::to_owned);
        Trusted { client: client.parse().unwrap(), domain, passes, last: NOW - days * DAY }
    }

    fn sums(levels: &[TrustLevel], entries: &[Trusted]) -> Vec<(String, i64)> {
        let settings = GreylistSettings { trust: levels.to_vec(), ..GreylistSettings::default() };
        let mut trust = Trust::from(&settings);
        for entry in entries {
            trust.add(entry, &OLD);
        }
        trust.into_standings().into_iter().map(|standing| (standing.key, standing.passes)).collect()
    }

    #[test]
    fn entries_of_a_key_are_added_up() {
        let entries = [
            trusted("192.0.2.7/32", None, None, 1),
            trusted("198.51.100.0/24", Some("X.test"), Some(1), 1),
            trusted("198.51.100.0/24", Some("x.test"), None, 2),
            trusted("2001:db8::5/128", Some(""), Some(1), 1),
        ];
        let key = |key: &str, passes| (key.to_owned(), passes);
        assert_eq!(
            sums(&[TrustLevel::Spf, TrustLevel::Network], &entries),
            [key("192.0.2.0/24", 5), key("198.51.100.0/24", 3), key("2001:db8::/64", 1)]
        );
        assert_eq!(sums(&[TrustLevel::NetworkDomain], &entries), [key("198.51.100.0/24 x.test", 6)]);
        assert!(sums(&[TrustLevel::Spf], &entries).is_empty());
    }

    #[test]
    fn trust_ends_with_age() {
        let mut trust = Trust::from(&GreylistSettings::default());
        for (client, days, fate) in [
            ("192.0.2.7/32", 34, Fate::Kept(())),
            ("192.0.2.7/32", 35, Fate::Expired),
            ("192.0.2.7/32", -2, Fate::Skipped(FUTURE)),
            ("192.168.0.0/16", 1, Fate::Skipped(TOO_WIDE)),
        ] {
            assert_eq!(trust.add(&trusted(client, None, None, days), &OLD), fate, "{client} {days}");
        }
        let standings = trust.into_standings();
        assert_eq!(standings[0].last_counted, NOW - 34 * DAY);
        assert_eq!(standings[0].expires, NOW + 2 * DAY);
    }
}
