// SPDX-License-Identifier: GPL-3.0-or-later
//! A list of networks as `trusted_networks` and its kin write them: `10.0.1/24`, `192.168.`, `!10.0.1.5`, `2001:db8::/32`,
//! `192.0.2.1-192.0.2.9`.
//!
//! The first network of the list that holds an address decides; `!` excludes. IPv4 is kept as IPv4-mapped IPv6, so that both
//! spellings of an address meet the same entry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks in the order in which they were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Networks {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    first: u128,
    last: u128,
    exclude: bool,
}

impl Networks {
    /// The loopback networks, which every list of trusted hosts holds.
    pub(crate) fn loopback() -> Self {
        let mut networks = Self::default();
        for text in ["127.0.0.0/8", "::1"] {
            networks.add(text).expect("a literal network");
        }
        networks
    }

    /// Adds one network; an error names what cannot be read.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), String> {
        let (exclude, rest) = match text.trim().strip_prefix('!') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, text.trim()),
        };
        let (first, last) = bounds(rest).ok_or_else(|| format!("not a network: {text}"))?;
        self.entries.push(Entry { first, last, exclude });
        Ok(())
    }

    /// Whether an address (as text) is in the list.
    pub(crate) fn contains(&self, address: &str) -> bool {
        let Ok(address) = address.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() else { return false };
        let number = number(address);
        self.entries.iter().find(|e| (e.first..=e.last).contains(&number)).is_some_and(|e| !e.exclude)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn bounds(text: &str) -> Option<(u128, u128)> {
    if let Some((low, high)) = text.split_once('-') {
        let (low, high) = (number(low.trim().parse().ok()?), number(high.trim().parse().ok()?));
        return (low <= high).then_some((low, high));
    }
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (text, None),
    };
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address = address.split_once('%').map_or(address, |(before, _)| before);
    let (first, length) = match v4_prefix(address) {
        Some((v4, length)) => (number(IpAddr::V4(v4)), 96 + mask.map_or(Some(length), v4_mask)?),
        None => {
            let v6: Ipv6Addr = address.parse().ok()?;
            (u128::from(v6), mask.map_or(Some(128), |m| m.parse().ok().filter(|l| *l <= 128))?)
        }
    };
    let host = if length == 0 { u128::MAX } else { (1_u128 << (128 - length)) - 1 };
    Some((first & !host, first | host))
}

/// One to four octets, with the prefix length that their number means. Leading zeros are decimal.
fn v4_prefix(text: &str) -> Option<(Ipv4Addr, u32)> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut octets = [0_u8; 4];
    let mut count = 0;
    for part in text.split('.') {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octets.get_mut(count)? = part
            .trim_start_matches('0')
            .parse()
            .or_else(|e| if part.bytes().all(|b| b == b'0') { Ok(0) } else { Err(e) })
            .ok()?;
        count += 1;
    }
    Some((Ipv4Addr::from(octets), u32::try_from(count * 8).ok()?))
}

/// A prefix length, or a netmask in dotted form.
fn v4_mask(text: &str) -> Option<u32> {
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let bits = u32::from(mask);
        return (bits.leading_ones() + bits.trailing_zeros() == 32 || bits == 0).then_some(bits.leading_ones());
    }
    text.parse().ok().filter(|length| *length <= 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(text: &str) -> Networks {
        let mut networks = Networks::default();
        text.split_whitespace().for_each(|t| networks.add(t).unwrap());
        networks
    }

    #[test]
    fn short_forms_and_exclusions() {
        let networks = list("!10.0.1.5 10.0.1/24 192.168. 212.17.35.15 2001:db8::/32 172.16.0.0/255.240.0.0");
        for inside in ["10.0.1.4", "192.168.200.1", "212.17.35.15", "2001:db8:1::1", "172.20.0.1", "::ffff:10.0.1.4"] {
            assert!(networks.contains(inside), "{inside}");
        }
        for outside in ["10.0.1.5", "10.0.2.1", "212.17.35.16", "2001:db9::1", "172.32.0.1", "", "host"] {
            assert!(!networks.contains(outside), "{outside}");
        }
    }

    #[test]
    fn everything_may_be_excluded() {
        assert!(!list("!0/0 127/8").contains("127.0.0.1"));
        assert!(list("0/0").contains("8.8.8.8"));
    }

    #[test]
    fn ranges() {
        let networks = list("192.0.2.1-192.0.2.9");
        assert!(networks.contains("192.0.2.9") && !networks.contains("192.0.2.10"));
    }

    #[test]
    fn mistakes_are_named() {
        for wrong in ["", "host", "1.2.3.4/33", "2001:db8::/129", "1.2.3.4.5", "300.1", "192.0.2.9-192.0.2.1"] {
            assert!(Networks::default().add(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f:./!%\\[\\]-]{0,24}") {
            let _ = Networks::default().add(&text);
        }
    }
}
