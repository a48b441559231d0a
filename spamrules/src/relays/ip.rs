// SPDX-License-Identifier: GPL-3.0-or-later
//! IP addresses as they stand in trace header fields: found in running text, cleaned, told private or public.
//!
//! Not a general address parser: it accepts what SpamAssassin 4.0.1 accepts in a `Received` field (IPv4 without leading zeros,
//! IPv6 with or without the `IPv6:` tag of RFC 5321 section 4.1.3, IPv4-mapped IPv6), and nothing that only looks like it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest text of an address: eight groups, or six and a dotted quad.
const LONGEST: usize = 45;

/// Whether a byte belongs to a word as `\w` has it.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// White space as `\s` has it in Perl: with the vertical tab.
pub(crate) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Length of the address that begins at `at`, if one does.
pub(crate) fn length_at(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let before = at.checked_sub(1).and_then(|i| text.get(i)).copied();
    v4_length(rest, before).or_else(|| v6_length(rest, before))
}

/// Where the first address of a text is.
pub(crate) fn find(text: &[u8]) -> Option<std::ops::Range<usize>> {
    (0..text.len()).filter(|at| may_begin(text[*at])).find_map(|at| length_at(text, at).map(|length| at..at + length))
}

fn may_begin(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b':' | b'i' | b'I')
}

fn v4_length(rest: &[u8], before: Option<u8>) -> Option<usize> {
    if before.is_some_and(|b| is_word(b) || b == b':') || !rest.first()?.is_ascii_digit() {
        return None;
    }
    let mut at = 0;
    for octet in 0..4 {
        if octet > 0 {
            (rest.get(at) == Some(&b'.')).then_some(())?;
            at += 1;
        }
        at += octet_length(rest.get(at..)?)?;
    }
    (!rest.get(at).is_some_and(|b| is_word(*b))).then_some(at)
}

/// Digits of one octet: no leading zero, at most 255.
fn octet_length(rest: &[u8]) -> Option<usize> {
    let digits = rest.iter().take(4).take_while(|b| b.is_ascii_digit()).count();
    let text = std::str::from_utf8(rest.get(..digits)?).ok()?;
    let plain = digits == 1 || (digits > 1 && !text.starts_with('0'));
    (plain && text.parse::<u8>().is_ok()).then_some(digits)
}

fn v6_length(rest: &[u8], before: Option<u8>) -> Option<usize> {
    let tag = if rest.get(..5).is_some_and(|t| t.eq_ignore_ascii_case(b"IPv6:")) { 5 } else { 0 };
    if tag == 0 && before.is_some_and(|b| b.is_ascii_hexdigit() || b == b':') {
        return None;
    }
    let body = rest.get(tag..)?;
    let run = body.iter().take(LONGEST + 1).take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')).count();
    let text = std::str::from_utf8(body.get(..run)?).ok()?;
    let group = text.find('.').map_or(text, |dot| &text[..dot]);
    let found = [text, text.trim_end_matches('.'), group].into_iter().find(|t| t.parse::<Ipv6Addr>().is_ok())?;
    Some(tag + found.len())
}

/// An address as it is compared: without tag, brackets, zone, and IPv4-mapped IPv6 as IPv4.
pub(crate) fn clean(text: &str) -> String {
    let mut text = text;
    if text.get(..5).is_some_and(|t| t.eq_ignore_ascii_case("IPv6:")) {
        text = &text[5..];
    }
    text = text.strip_prefix('[').unwrap_or(text);
    text = text.strip_suffix(']').unwrap_or(text);
    if let Some((address, zone)) = text.split_once('%')
        && zone.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-'))
    {
        text = address;
    }
    match text.parse::<Ipv6Addr>() {
        Ok(address) if text.contains('.') => {
            address.to_ipv4_mapped().map_or_else(|| text.to_string(), |v4| v4.to_string())
        }
        _ => text.to_string(),
    }
}

/// Whether an address is one that does not cross the public internet: loopback, link-local, private use (RFC 1918),
/// shared space of carriers (RFC 6598). Unique local IPv6 addresses (RFC 4193) count as public, as they do there.
pub(crate) fn is_private(text: &str) -> bool {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => is_private_v4(address),
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(mapped) => is_private_v4(mapped),
            None => address.is_loopback() || address.is_unicast_link_local(),
        },
        Err(_) => false,
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || (first == 100 && (64..128).contains(&second))
}

/// Length of a name or address of the local host at `at`.
pub(crate) fn localhost_length(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    for name in [&b"localhost.localdomain"[..], b"localhost"] {
        if rest.get(..name.len()).is_some_and(|t| t.eq_ignore_ascii_case(name)) {
            return Some(name.len());
        }
    }
    let length = length_at(text, at)?;
    let address = clean(std::str::from_utf8(rest.get(..length)?).ok()?);
    matches!(address.parse::<IpAddr>(), Ok(IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST)))
        .then_some(length)
}

/// The name under which DNS lists know an address: octets, or nibbles of IPv6 (RFC 5782 section 2.4), in reverse.
pub(crate) fn reversed(text: &str) -> Option<String> {
    match text.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Some(format!("{d}.{c}.{b}.{a}"))
        }
        IpAddr::V6(address) => {
            let nibbles: Vec<String> = address
                .octets()
                .iter()
                .rev()
                .flat_map(|o| [format!("{:x}", o & 15), format!("{:x}", o >> 4)])
                .collect();
            Some(nibbles.join("."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(text: &str) -> Option<&str> {
        find(text.as_bytes()).map(|range| &text[range])
    }

    #[test]
    fn addresses_are_found_in_running_text() {
        assert_eq!(first("from x ([192.0.2.1]) by"), Some("192.0.2.1"));
        assert_eq!(first("from x [IPv6:2001:db8::1] by"), Some("IPv6:2001:db8::1"));
        assert_eq!(first("[::ffff:192.0.2.7]"), Some("::ffff:192.0.2.7"));
        assert_eq!(first("1.2.3.256 and 01.2.3.4"), None);
        assert_eq!(first("version 1.2.3"), None);
        assert_eq!(first("a1.2.3.4b"), None);
        assert_eq!(first("12:30:15 noon"), None, "a time is no address");
    }

    #[test]
    fn addresses_are_cleaned() {
        assert_eq!(clean("IPv6:2001:db8::1"), "2001:db8::1");
        assert_eq!(clean("[192.0.2.1]"), "192.0.2.1");
        assert_eq!(clean("fe80::1%eth0"), "fe80::1");
        assert_eq!(clean("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(clean("nonsense"), "nonsense");
    }

    #[test]
    fn private_networks() {
        for private in
            ["10.1.2.3", "127.0.0.1", "172.31.0.1", "192.168.0.1", "169.254.1.1", "100.64.0.1", "::1", "fe80::1"]
        {
            assert!(is_private(private), "{private}");
        }
        for public in ["192.0.2.1", "172.32.0.1", "100.128.0.1", "2001:db8::1", "fc00::1", "", "x"] {
            assert!(!is_private(public), "{public}");
        }
    }

    #[test]
    fn names_for_dns_lists() {
        assert_eq!(reversed("192.0.2.1").unwrap(), "1.2.0.192");
        assert!(reversed("2001:db8::1").unwrap().starts_with("1.0.0.0."));
        assert_eq!(reversed("host"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_searched(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(range) = find(&text) {
                prop_assert!(range.end <= text.len());
            }
            localhost_length(&text, 0);
        }
    }
}
