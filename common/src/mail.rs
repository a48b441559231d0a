// SPDX-License-Identifier: GPL-3.0-or-later
//! Envelope addresses and client networks, as pure functions (RFC 5321 section 4.1.2, RFC 5233 for sub-addresses).

use std::net::IpAddr;

use ipnet::IpNet;

/// Local part and domain of an envelope address, cut at the last `@`; the domain is empty when there is none.
pub fn split(address: &str) -> (&str, &str) {
    address.rsplit_once('@').unwrap_or((address, ""))
}

/// The local part without its `+extension`. A leading `+` is not a separator.
pub fn without_extension(local: &str) -> &str {
    match local.char_indices().skip(1).find(|(_, c)| *c == '+') {
        Some((at, _)) => &local[..at],
        None => local,
    }
}

/// The network of a client: the first `ipv4_prefix` or `ipv6_prefix` bits of its address. Prefixes over the
/// length of the address count as the whole address; an IPv4-mapped IPv6 address counts as IPv4.
pub fn network(ip: IpAddr, ipv4_prefix: u8, ipv6_prefix: u8) -> IpNet {
    let ip = ip.to_canonical();
    let prefix = if ip.is_ipv4() { ipv4_prefix.min(32) } else { ipv6_prefix.min(128) };
    IpNet::new(ip, prefix).map(|net| net.trunc()).unwrap_or_else(|_| IpNet::from(ip))
}

/// The text of [`network`], such as `192.0.2.0/24`. Made for every request, so IPv4 goes without the machinery of formatting.
pub fn network_name(ip: IpAddr, ipv4_prefix: u8, ipv6_prefix: u8) -> String {
    match network(ip, ipv4_prefix, ipv6_prefix) {
        IpNet::V4(net) => {
            let mut name = ip_name(IpAddr::V4(net.addr()));
            name.push('/');
            push_number(&mut name, net.prefix_len());
            name
        }
        IpNet::V6(net) => net.to_string(),
    }
}

/// The text of an address, as [`std::fmt::Display`] gives it.
pub fn ip_name(ip: IpAddr) -> String {
    let IpAddr::V4(ip) = ip else { return ip.to_string() };
    let mut name = String::with_capacity("255.255.255.255/32".len());
    for (at, octet) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            name.push('.');
        }
        push_number(&mut name, octet);
    }
    name
}

fn push_number(out: &mut String, number: u8) {
    for unit in [100, 10, 1] {
        if number >= unit || unit == 1 {
            out.push(char::from(b'0' + number / unit % 10));
        }
    }
}

/// The name of this host as the kernel has it (uname(2)); `localhost` when it has none.
pub fn hostname() -> String {
    match rustix::system::uname().nodename().to_string_lossy().trim() {
        "" | "(none)" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_cut_at_the_last_at_sign() {
        for (address, cut) in
            [("a@b", ("a", "b")), ("\"x@y\"@b", ("\"x@y\"", "b")), ("postmaster", ("postmaster", "")), ("", ("", ""))]
        {
            assert_eq!(split(address), cut);
        }
    }

    #[test]
    fn extensions_are_cut_once() {
        for (local, rest) in [("joe+list", "joe"), ("joe", "joe"), ("+x", "+x"), ("+x+y", "+x"), ("é+y", "é"), ("", "")]
        {
            assert_eq!(without_extension(local), rest);
        }
    }

    #[test]
    fn networks_follow_the_family() {
        for (ip, net) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(network(ip.parse().unwrap(), 24, 64).to_string(), net);
            assert_eq!(network_name(ip.parse().unwrap(), 24, 64), net);
        }
        assert_eq!(network("192.0.2.77".parse().unwrap(), 200, 200).to_string(), "192.0.2.77/32");
    }

    #[test]
    fn addresses_have_the_same_text_as_everywhere() {
        for number in 0..=255 {
            let ip = IpAddr::from([number, 0, 255 - number, number]);
            assert_eq!(ip_name(ip), ip.to_string());
            assert_eq!(network_name(ip, number, 0), network(ip, number, 0).to_string());
        }
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(ip_name(ip), ip.to_string());
    }
}
