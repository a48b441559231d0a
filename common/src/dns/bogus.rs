// SPDX-License-Identifier: GPL-3.0-or-later
//! Networks in which no mail server of the Internet can be reached: those of RFC 6890 and the registries it began (special-purpose addresses),
//! and multicast (RFC 5771, RFC 4291).
//!
//! Pure. IPv4 addresses inside IPv6 ones (mapped, 6to4, NAT64) are looked at as IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Network, prefix length, what it is for.
const IPV4: [(Ipv4Addr, u8, &str); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared by a provider"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "protocol assignments"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relay"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// Network, prefix length, what it is for.
const IPV6: [(Ipv6Addr, u8, &str); 11] = [
    (Ipv6Addr::UNSPECIFIED, 128, "unspecified"),
    (Ipv6Addr::LOCALHOST, 128, "loopback"),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, "local translation"),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64, "discard"),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "protocol assignments"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "unique local"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link local"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "site local"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast"),
];

/// What the network of an address is for, when nothing on the Internet can be there.
pub fn bogus_network(ip: IpAddr) -> Option<&'static str> {
    match embedded(ip) {
        IpAddr::V4(v4) => find(&IPV4, |network| u128::from(network.to_bits()) << 96, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => find(&IPV6, Ipv6Addr::to_bits, v6.to_bits()),
    }
}

/// True for addresses that only hosts of the same site or machine have: no public list knows them.
pub fn is_internal(ip: IpAddr) -> bool {
    matches!(
        bogus_network(ip),
        Some("private" | "loopback" | "link local" | "unique local" | "site local" | "shared by a provider")
    )
}

fn find<N: Copy>(table: &[(N, u8, &'static str)], bits: impl Fn(N) -> u128, address: u128) -> Option<&'static str> {
    let inside = |(network, prefix, _): &&(N, u8, &str)| (bits(*network) ^ address) >> (128 - prefix) == 0;
    table.iter().find(inside).map(|(.., what)| *what)
}

/// The IPv4 address in an IPv6 one: mapped (RFC 4291 section 2.5.5.2), NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip.to_canonical() else { return ip.to_canonical() };
    let quad = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => quad(high, low),
        _ => IpAddr::V6(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_networks_are_known_to_their_edges() {
        for (address, what) in [
            ("0.1.2.3", Some("this network")),
            ("9.255.255.255", None),
            ("10.0.0.0", Some("private")),
            ("10.255.255.255", Some("private")),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.64.0.1", Some("shared by a provider")),
            ("100.127.255.255", Some("shared by a provider")),
            ("100.128.0.0", None),
            ("127.0.0.1", Some("loopback")),
            ("169.254.1.1", Some("link local")),
            ("172.15.255.255", None),
            ("172.31.255.255", Some("private")),
            ("172.32.0.0", None),
            ("192.0.0.9", Some("protocol assignments")),
            ("192.0.1.1", None),
            ("192.168.1.1", Some("private")),
            ("198.19.255.255", Some("benchmarks")),
            ("198.20.0.0", None),
            ("223.255.255.255", None),
            ("224.0.0.1", Some("multicast")),
            ("255.255.255.255", Some("reserved")),
            ("8.8.8.8", None),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("2001:db8::1", Some("documentation")),
            ("2001:1ff::1", Some("protocol assignments")),
            ("2001:200::1", None),
            ("fd00::1", Some("unique local")),
            ("fe80::1", Some("link local")),
            ("ff02::1", Some("multicast")),
            ("2a00:1450::1", None),
            ("::ffff:10.1.1.1", Some("private")),
            ("64:ff9b::a01:101", Some("private")),
            ("64:ff9b::808:808", None),
            ("2002:a01:101::1", Some("private")),
            ("2002:808:808::1", None),
        ] {
            assert_eq!(bogus_network(address.parse().unwrap()), what, "{address}");
        }
    }

    #[test]
    fn internal_addresses_are_fewer() {
        for (address, internal) in [
            ("10.0.0.1", true),
            ("127.0.0.2", true),
            ("fe80::1", true),
            ("100.64.0.1", true),
            ("192.0.2.1", false),
            ("224.0.0.1", false),
            ("8.8.8.8", false),
        ] {
            assert_eq!(is_internal(address.parse().unwrap()), internal, "{address}");
        }
    }
}
