// SPDX-License-Identifier: GPL-3.0-or-later
//! DNS look-ups as the checks need them: TXT, addresses, MX, PTR, by name, with two kinds of trouble told apart. Live answers come
//! from the host's name servers, canned ones from a zone text, for tests and for `policyd test`.

mod bogus;
pub mod canned;
mod live;
mod reply_mask;
mod settings;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{RData, RecordType};

pub use bogus::{bogus_network, is_internal};
pub use canned::Zone;
use live::Live;
pub use reply_mask::ReplyMask;
pub use settings::DnsSettings;

/// Why a look-up gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// Time-out, SERVFAIL, no network: another try may succeed.
    #[error("DNS gives no answer now: {0}")]
    Temporary(String),
    /// The name cannot be asked for: a label over 63 bytes, a name over 253, an empty label.
    #[error("{0:?} is not a domain name")]
    BadName(String),
}

/// What a name has of one type. Empty when the name does not exist (NXDOMAIN) or has nothing of that type (NODATA).
pub type Answer<T> = Result<Vec<T>, DnsError>;

/// What a name has of one type, and for how long that may be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lasting<T> {
    /// The records; empty when there are none.
    pub records: Vec<T>,
    /// The smallest TTL among them; of "nothing" the TTL that the zone gives to it (RFC 2308 section 5), or ten minutes.
    pub ttl: Duration,
}

/// One MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// Smaller is preferred.
    pub preference: u16,
    /// Host name, lower case, without the final dot; empty for the null MX (RFC 7505).
    pub exchange: String,
}

/// Where answers come from.
#[derive(Debug, Clone)]
pub enum Resolver {
    /// Name servers.
    Live(Arc<Live>),
    /// A zone text.
    Canned(Zone),
}

impl Resolver {
    /// Asks `servers`, or those of /etc/resolv.conf when there are none. No question takes longer than `timeout`; `cache` is the number of
    /// answers kept.
    pub fn live(servers: &[SocketAddr], timeout: Duration, cache: u64) -> Result<Self, String> {
        Live::new(servers, timeout, cache).map(|live| Self::Live(Arc::new(live)))
    }

    /// TXT records, the strings of each joined (RFC 7208 section 3.3), as the bytes they are.
    pub async fn txt(&self, name: &str) -> Answer<Vec<u8>> {
        check_name(name)?;
        match self {
            Self::Live(live) => {
                live.ask(name, RecordType::TXT, |data| {
                    if let RData::TXT(txt) = data { Some(txt.txt_data.concat()) } else { None }
                })
                .await
            }
            Self::Canned(zone) => zone.txt(name),
        }
    }

    /// IPv4 addresses.
    pub async fn a(&self, name: &str) -> Answer<Ipv4Addr> {
        check_name(name)?;
        match self {
            Self::Live(live) => {
                live.ask(name, RecordType::A, |data| if let RData::A(a) = data { Some(a.0) } else { None }).await
            }
            Self::Canned(zone) => zone.a(name),
        }
    }

    /// IPv4 addresses with their TTL, for answers that are kept elsewhere: nothing is remembered here, neither answers nor failures.
    pub async fn a_lasting(&self, name: &str) -> Result<Lasting<Ipv4Addr>, DnsError> {
        check_name(name)?;
        match self {
            Self::Live(live) => {
                live.ask_lasting(name, RecordType::A, |data| if let RData::A(a) = data { Some(a.0) } else { None })
                    .await
            }
            Self::Canned(zone) => zone.a(name).map(|records| Lasting { records, ttl: canned::TTL }),
        }
    }

    /// IPv6 addresses.
    pub async fn aaaa(&self, name: &str) -> Answer<Ipv6Addr> {
        check_name(name)?;
        match self {
            Self::Live(live) => {
                live.ask(name, RecordType::AAAA, |data| if let RData::AAAA(aaaa) = data { Some(aaaa.0) } else { None })
                    .await
            }
            Self::Canned(zone) => zone.aaaa(name),
        }
    }

    /// The addresses of the family of `like`.
    pub async fn addresses(&self, name: &str, like: IpAddr) -> Answer<IpAddr> {
        Ok(match like {
            IpAddr::V4(_) => self.a(name).await?.into_iter().map(IpAddr::V4).collect(),
            IpAddr::V6(_) => self.aaaa(name).await?.into_iter().map(IpAddr::V6).collect(),
        })
    }

    /// MX records, preferred ones first.
    pub async fn mx(&self, name: &str) -> Answer<Mx> {
        check_name(name)?;
        let mut records = match self {
            Self::Live(live) => live.ask(name, RecordType::MX, mx_record).await?,
            Self::Canned(zone) => zone.mx(name)?,
        };
        records.sort_by_key(|mx| mx.preference);
        Ok(records)
    }

    /// Names of the zone's name servers: lower case, without the final dot. Empty for a name that is no zone.
    pub async fn ns(&self, name: &str) -> Answer<String> {
        check_name(name)?;
        match self {
            Self::Live(live) => {
                live.ask(
                    name,
                    RecordType::NS,
                    |data| if let RData::NS(ns) = data { Some(live::host(&ns.0)) } else { None },
                )
                .await
            }
            Self::Canned(zone) => zone.ns(name),
        }
    }

    /// Host names of an address, as its owner claims them: lower case, without the final dot.
    pub async fn ptr(&self, ip: IpAddr) -> Answer<String> {
        match self {
            Self::Live(live) => {
                live.ask(&reverse_name(ip), RecordType::PTR, |data| {
                    if let RData::PTR(ptr) = data { Some(live::host(&ptr.0)) } else { None }
                })
                .await
            }
            Self::Canned(zone) => zone.ptr(&reverse_name(ip)),
        }
    }
}

fn mx_record(data: &RData) -> Option<Mx> {
    match data {
        RData::MX(mx) => Some(Mx { preference: mx.preference, exchange: live::host(&mx.exchange) }),
        _ => None,
    }
}

/// The domain below the public suffix (`example.co.uk` of `mx.a.example.co.uk`), lower case; none for a suffix itself, for
/// an address and for a single label. The list is as old as the build (publicsuffix.org).
pub fn organisational_domain(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
    if name.parse::<IpAddr>().is_ok() || name.starts_with('[') {
        return None;
    }
    let domain = psl::domain(name.as_bytes())?;
    std::str::from_utf8(domain.as_bytes()).ok().map(str::to_owned)
}

/// The same as a part of `name`, in the case that it has there; nothing is allocated.
pub fn organisational_part(name: &str) -> Option<&str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
        return None;
    }
    // The list has lower case only; no longer name can be in DNS.
    let mut lower = [0; 255];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    let length = psl::domain(lower)?.as_bytes().len();
    name.get(name.len().checked_sub(length)?..)
}

/// Refuses what no DNS message can hold (RFC 1035 section 2.3.4).
fn check_name(name: &str) -> Result<(), DnsError> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let good = !bare.is_empty() && bare.len() <= 253 && bare.split('.').all(|label| (1..=63).contains(&label.len()));
    if good { Ok(()) } else { Err(DnsError::BadName(name.to_owned())) }
}

/// The name under which PTR records of an address are kept (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub fn reverse_name(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            let mut name: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            name.push_str("ip6.arpa");
            name
        }
    }
}

/// The name under which a DNS list has an address (RFC 5782 sections 2.1 and 2.4).
pub fn list_name(ip: IpAddr, zone: &str) -> String {
    let reverse = reverse_name(ip);
    let address = reverse.strip_suffix(".in-addr.arpa").or(reverse.strip_suffix(".ip6.arpa")).unwrap_or(&reverse);
    format!("{address}.{zone}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_names_follow_the_family() {
        assert_eq!(list_name([192, 0, 2, 7].into(), "bl.test"), "7.2.0.192.bl.test");
        let v6 = list_name("2001:db8::1".parse().unwrap(), "bl.test");
        assert!(v6.starts_with("1.0.0.0.") && v6.ends_with(".8.b.d.0.1.0.0.2.bl.test"), "{v6}");
    }

    #[test]
    fn reverse_names_follow_the_family() {
        assert_eq!(reverse_name("192.0.2.1".parse().unwrap()), "1.2.0.192.in-addr.arpa");
        let v6 = reverse_name("2001:db8::567:89ab".parse().unwrap());
        assert_eq!(v6, "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
    }

    #[test]
    fn organisational_domains_stand_below_the_public_suffix() {
        for (name, domain) in [
            ("mail-lf1-f44.google.com", Some("google.com")),
            ("a.b.Example.co.uk.", Some("example.co.uk")),
            ("example.org", Some("example.org")),
            ("co.uk", None),
            ("localhost", None),
            ("192.0.2.1", None),
            ("[192.0.2.1]", None),
            ("", None),
        ] {
            assert_eq!(organisational_domain(name).as_deref(), domain, "{name}");
        }
    }

    #[test]
    fn names_that_cannot_be_asked_for_are_refused() {
        for (name, good) in [("example.org", true), ("example.org.", true), ("", false), (".", false), ("a..b", false)]
        {
            assert_eq!(check_name(name).is_ok(), good, "{name:?}");
        }
        assert!(check_name(&"a".repeat(64)).is_err());
        assert!(check_name(&"a.".repeat(130)).is_err());
    }
}
