// SPDX-License-Identifier: GPL-3.0-or-later
//! DNS whitelists of mail servers (RFC 5782): a client that is listed high enough is not greylisted.
//!
//! The last number of the answer 127.0.x.y is taken for the level, as dnswl.org gives it: 0 none, 1 low, 2 medium, 3 high. 255 is how
//! lists say that they do not answer us. No answer is no entry.

use std::net::{IpAddr, Ipv4Addr};

use common::dns::{DnsError, Resolver, reverse_name};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// One whitelist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dnswl {
    /// Its zone, such as `list.dnswl.org`.
    pub zone: String,
    /// Lowest level that counts.
    #[serde(default)]
    pub min_level: u8,
}

/// The name to ask for (RFC 5782 sections 2.1 and 2.4).
fn name(client: IpAddr, zone: &str) -> String {
    let reverse = reverse_name(client);
    let address = reverse.strip_suffix(".in-addr.arpa").or(reverse.strip_suffix(".ip6.arpa")).unwrap_or(&reverse);
    format!("{address}.{zone}")
}

/// The level in an answer.
fn level(answer: Ipv4Addr) -> Option<u8> {
    match answer.octets() {
        [127, 0, _, 255] => None,
        [127, 0, _, level] => Some(level),
        _ => None,
    }
}

/// What the lists say of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// This list has it high enough, in words.
    Listed(String),
    /// All have answered, and none has it.
    NotListed,
    /// None has it, but not all have answered.
    NoAnswer,
}

/// The first list that has the client high enough. Lists are asked one after the other until `deadline`.
pub async fn find(resolver: &Resolver, lists: &[Dnswl], client: IpAddr, deadline: Instant) -> Listing {
    let mut listing = Listing::NotListed;
    for list in lists {
        let answer = tokio::time::timeout_at(deadline, resolver.a(&name(client, &list.zone))).await;
        let (outcome, found) = match answer {
            Ok(Ok(addresses)) => match addresses.into_iter().filter_map(level).max() {
                Some(level) if level >= list.min_level => ("listed", Some(level)),
                _ => ("not_listed", None),
            },
            Ok(Err(DnsError::BadName(_))) => ("not_listed", None),
            Ok(Err(DnsError::Temporary(_))) | Err(_) => ("no_answer", None),
        };
        metrics::counter!("octroi_policyd_dnswl_total", "outcome" => outcome).increment(1);
        if let Some(level) = found {
            return Listing::Listed(format!("{} level {level}", list.zone));
        }
        if outcome == "no_answer" {
            listing = Listing::NoAnswer;
        }
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::dns::Zone;
    use std::time::Duration;

    #[test]
    fn names_follow_the_family() {
        assert_eq!(name([192, 0, 2, 7].into(), "wl.test"), "7.2.0.192.wl.test");
        let v6 = name("2001:db8::1".parse().unwrap(), "wl.test");
        assert!(v6.starts_with("1.0.0.0.") && v6.ends_with(".8.b.d.0.1.0.0.2.wl.test"), "{v6}");
    }

    #[tokio::test]
    async fn a_list_counts_from_its_level() {
        let zone = Zone::parse(
            "7.2.0.192.wl.test A 127.0.5.2\n8.2.0.192.wl.test A 127.0.5.0\n9.2.0.192.wl.test A 127.0.0.255\n\
             10.2.0.192.wl.test A 192.0.2.1\n11.2.0.192.down.test TIMEOUT\n11.2.0.192.wl.test A 127.0.3.3\n",
        );
        let resolver = Resolver::Canned(zone.unwrap());
        let list = |zone: &str, min_level| Dnswl { zone: zone.to_owned(), min_level };
        let lists = [list("down.test", 0), list("wl.test", 1)];
        let deadline = Instant::now() + Duration::from_secs(1);
        for (host, found) in
            [(7, Some("wl.test level 2")), (8, None), (9, None), (10, None), (11, Some("wl.test level 3")), (12, None)]
        {
            let client = IpAddr::from([192, 0, 2, host]);
            let found = found.map_or(Listing::NotListed, |list: &str| Listing::Listed(list.to_owned()));
            assert_eq!(find(&resolver, &lists, client, deadline).await, found, "{host}");
        }
        let client = [192, 0, 2, 8].into();
        let found = find(&resolver, &[list("wl.test", 0)], client, deadline).await;
        assert_eq!(found, Listing::Listed("wl.test level 0".to_owned()));
        let client = [192, 0, 2, 11].into();
        assert_eq!(find(&resolver, &[list("down.test", 0)], client, deadline).await, Listing::NoAnswer);
    }
}
